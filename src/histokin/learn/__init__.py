"""Pretraining encoders on tiles without labels.

Lives here: recipes, views, losses, methods, sampling, the trainer, its checkpoints and monitors. Does not live here:
slides' files (pixels come through a `PixelSource`), and what an encoder is once trained (`encoders`).

Names are loaded when they are first used: reading a recipe must not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from histokin.learn.capture import replay as replay
    from histokin.learn.duration import parse_duration as parse_duration
    from histokin.learn.pixels import ArrayPixels as ArrayPixels
    from histokin.learn.pixels import PixelSource as PixelSource
    from histokin.learn.reading import override as override
    from histokin.learn.reading import parse_recipe as parse_recipe
    from histokin.learn.reading import read_recipe as read_recipe
    from histokin.learn.reading import recipe_text as recipe_text
    from histokin.learn.recipe import Recipe as Recipe
    from histokin.learn.resolve import resolve_recipe as resolve_recipe
    from histokin.learn.trainer import TrainingResult as TrainingResult
    from histokin.learn.trainer import pretrain as pretrain

_HOMES = {
    "ArrayPixels": "pixels",
    "PixelSource": "pixels",
    "Recipe": "recipe",
    "TrainingResult": "trainer",
    "override": "reading",
    "parse_duration": "duration",
    "parse_recipe": "reading",
    "pretrain": "trainer",
    "read_recipe": "reading",
    "recipe_text": "reading",
    "replay": "capture",
    "resolve_recipe": "resolve",
}

__all__ = [
    "ArrayPixels",
    "PixelSource",
    "Recipe",
    "TrainingResult",
    "override",
    "parse_duration",
    "parse_recipe",
    "pretrain",
    "read_recipe",
    "recipe_text",
    "replay",
    "resolve_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"histokin.learn has no {name!r}")
    return getattr(importlib.import_module(f"histokin.learn.{_HOMES[name]}"), name)
