"""Pretraining encoders on tiles without labels.

Lives here: recipes, views, losses, methods, sampling, the trainer, its checkpoints and monitors. Does not live here:
slides' files (pixels come through a `PixelSource`), and what an encoder is once trained (`encoders`).
"""

from histokin.learn.duration import parse_duration
from histokin.learn.pixels import ArrayPixels, PixelSource
from histokin.learn.reading import override, parse_recipe, read_recipe, recipe_text
from histokin.learn.recipe import Recipe
from histokin.learn.resolve import resolve_recipe
from histokin.learn.trainer import TrainingResult, pretrain

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
    "resolve_recipe",
]
