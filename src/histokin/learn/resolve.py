"""Fill what a recipe leaves `auto`, by machine, tile size and initial weights."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from histokin.artefacts import digest_file, digest_of
from histokin.encoders.folder import CARD, HEAD, WEIGHTS, read_card
from histokin.encoders.networks import SMALL_ARCHITECTURE, SMALL_ARGS, build_network, known_name
from histokin.errors import RecipeError
from histokin.learn.methods import METHODS
from histokin.learn.precision import choose_precision
from histokin.learn.recipe import AUTO, TISSUE_MEAN, TISSUE_STD, Recipe, ViewSpec, settled, with_steps

RANDOM_INIT = "random"
EMBED_ZOOM = 1.25  # near the mean zoom of the default crops


def resolve_recipe(recipe: Recipe, px: int, n_tiles: int, device: torch.device | str) -> Recipe:
    """The recipe with every `auto` filled but `run.steps`, if only a budget is given.

    Args:
        recipe: as asked for.
        px: side of the tiles.
        n_tiles: how many there are: queues, banks and batches cannot be larger.
        device: where it will run: sizes and backbone differ between CPU and CUDA.

    Raises:
        RecipeError: initial weights that do not exist, or that are of another architecture than asked for; settings
            of the loss that contradict each other or the number of tiles.
        EncoderError: timm has no such network.
    """
    device = torch.device(device)
    views, backbone = recipe.views, recipe.backbone
    start = starting_point(backbone.init)
    name = backbone.name
    if name == AUTO:
        name = start.get("architecture") or (SMALL_ARCHITECTURE if device.type == "cpu" else "resnet50")
    args = backbone.args
    if args == AUTO:
        is_small = backbone.name == AUTO and name == SMALL_ARCHITECTURE and not start
        args = start.get("model_args", dict(SMALL_ARGS) if is_small else {})
    optimiser = recipe.optimiser
    filled = dataclasses.replace(
        recipe,
        loss=METHODS[recipe.method].resolve(recipe, n_tiles),
        precision=choose_precision(recipe.precision, device),
        backbone=dataclasses.replace(
            backbone, name=name, args=args, head=backbone.head or tuple(start.get("head", ()))
        ),
        views=dataclasses.replace(
            _sized(views, px, input_rule(name, settled(args, "backbone.args")), device, start.get("zoom", EMBED_ZOOM)),
            normalise=start.get("normalise", "none") if views.normalise == AUTO else views.normalise,
            mean=start.get("mean", TISSUE_MEAN) if views.mean == AUTO else views.mean,
            std=start.get("std", TISSUE_STD) if views.std == AUTO else views.std,
        ),
        optimiser=dataclasses.replace(
            optimiser,
            weight_decay_end=optimiser.weight_decay
            if optimiser.weight_decay_end == AUTO
            else optimiser.weight_decay_end,
        ),
    )
    return filled if filled.run.steps == AUTO else with_steps(filled, filled.run.steps)


def _sized(views: ViewSpec, px: int, rule: "InputRule", device: torch.device, usual_zoom: float) -> ViewSpec:
    """The views with sizes that the network takes, and the zoom of embedding, where these were auto."""
    train_px = rule.nearest(default_train_px(px, device)) if views.train_px == AUTO else views.train_px
    local_px = rule.nearest(default_local_px(train_px, is_quadrant=views.local.quadrants))
    zoom = usual_zoom if views.embed_zoom == AUTO else views.embed_zoom
    embed_px = rule.nearest(max(8, px / zoom)) if views.embed_px == AUTO else views.embed_px
    if views.embed_zoom == AUTO and (views.embed_px != AUTO or rule.side):
        zoom = px / embed_px  # where the size is given, it decides
    return dataclasses.replace(
        views,
        train_px=train_px,
        embed_px=embed_px,
        embed_zoom=zoom,
        local=dataclasses.replace(views.local, px=local_px if views.local.px == AUTO else views.local.px),
    )


@dataclass(frozen=True, slots=True)
class InputRule:
    """Which pictures a network takes.

    Attributes:
        side: the only one it takes; None where it takes several.
        multiple: what their sides must be a multiple of, such as a patch of a vision transformer.
    """

    side: int | None = None
    multiple: int = 1

    def nearest(self, px: float) -> int:
        """The side it takes that comes nearest."""
        return self.side or self.multiple * max(1, round(px / self.multiple))


def input_rule(architecture: str, args: Mapping[str, Any]) -> InputRule:
    """What timm says of the pictures a network takes.

    Raises:
        EncoderError: unknown name, or arguments that the network does not take.
    """
    import timm

    known_name(architecture)
    config = timm.get_pretrained_cfg(architecture)
    if config is None or not config.fixed_input_size:
        return InputRule()
    with torch.device("meta"):  # its shapes alone: no weight is drawn
        patches: Any = getattr(build_network(architecture, args, seed=0), "patch_embed", None)
    if getattr(patches, "strict_img_size", True):
        return InputRule(side=_one(getattr(patches, "img_size", None) or args.get("img_size", config.input_size)))
    return InputRule(multiple=1 if getattr(patches, "dynamic_img_pad", False) else _one(patches.patch_size))


def _one(sides: int | tuple[int, ...]) -> int:
    """The last of several sides; tiles are square."""
    return sides if isinstance(sides, int) else sides[-1]


def default_train_px(px: int, device: torch.device | str) -> int:
    """Side of a view: 0.6 of the tile to a multiple of 16, in [48, 96] on a CPU and [48, 224] on a GPU.

    Tiles smaller than 48 px are not enlarged: their views are as large as they are.
    """
    largest = 96 if torch.device(device).type == "cpu" else 224
    return min(px, max(48, min(largest, round(0.6 * px / 16) * 16)))


def default_local_px(train_px: int, *, is_quadrant: bool) -> int:
    """Side of a small view: 96 to a whole view's 224 (the papers'), half of it for a quadrant; a multiple of 8."""
    return max(8, round((0.5 if is_quadrant else 96 / 224) * train_px / 8) * 8)


def starting_point(init: str) -> dict[str, Any]:
    """What initial weights say of themselves: `architecture`, `model_args`, `mean` and `std`.

    An encoder folder also says its `head`, `normalise`, and the `zoom` that it embeds at (tile pixels per pixel).
    """
    if init == RANDOM_INIT:
        return {}
    path = Path(init)
    if (path / CARD).is_file():
        card = read_card(path)
        return {
            "architecture": card.architecture,
            "model_args": dict(card.model_args),
            "mean": card.mean,
            "std": card.std,
            "head": card.head,
            "normalise": card.normalise,
            "zoom": card.tile_px / card.input_px,
        }
    if path.is_file():
        return {}  # a weights file knows neither
    if path.is_dir() or "/" in init:
        raise RecipeError("backbone.init is neither an encoder folder nor a weights file", init, "Check the path.")
    known_name(init)
    import timm

    config = timm.get_pretrained_cfg(init)
    known = config.to_dict() if config else {}
    return {
        "architecture": init,
        "model_args": {},
        "mean": tuple(known.get("mean", TISSUE_MEAN)),
        "std": tuple(known.get("std", TISSUE_STD)),
    }


def init_digest(init: str) -> str:
    """What the initial weights are, so that a run is not taken for one that began elsewhere."""
    path = Path(init)
    if init == RANDOM_INIT or not path.exists():
        return init
    if path.is_file():
        return digest_file(path)
    head = path / HEAD
    weights = digest_file(path / WEIGHTS)
    return digest_of([weights, digest_file(head)]) if head.is_file() else weights
