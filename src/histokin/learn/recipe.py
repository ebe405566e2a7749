"""Recipes: everything a pretraining run is asked for, as frozen dataclasses; each default is written once, here.

`reading.py` makes them from YAML and `--set`; `resolve_recipe` fills what is `auto`.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

from histokin.learn.duration import parse_duration

Auto = Literal["auto"]
AUTO: Auto = "auto"
T = TypeVar("T")

# Mean and spread of H&E tissue over generated and real tiles (docs/training.md); for weights from scratch.
TISSUE_MEAN, TISSUE_STD = (0.75, 0.60, 0.72), (0.18, 0.22, 0.16)
_STRICT: dict[str, str] = {"extra": "forbid"}


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """The encoder's network.

    `name` is timm's; `init` is `random`, an encoder folder, a weights file or a timm name with published weights.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    name: str = AUTO
    args: dict[str, Any] | Auto = AUTO
    init: str = "random"


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """How a view is made of a tile (defaults: docs/training.md, measured there).

    Sizes are thought of as *zoom* = tile pixels per view pixel, so that how much magnification varies does not depend
    on the size of the tiles. A crop of side zoom * train_px is resized to train_px.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    train_px: int | Auto = AUTO
    embed_px: int | Auto = AUTO
    zoom_min: float = 1.0
    zoom_max: float = 1 / 0.6
    embed_zoom: float = 1.25
    aspect: float = 0.15
    flip: bool = True
    rotate: bool = True
    stain_gain: float = 0.5
    stain_offset: float = 0.10
    brightness: float = 0.3
    contrast: float = 0.4
    grey: float = 0.3
    blur: float = 0.0
    blur_sigma: float = 1.0
    mean: tuple[float, float, float] | Auto = AUTO
    std: tuple[float, float, float] | Auto = AUTO

    def __post_init__(self) -> None:
        _need(0 < self.zoom_min <= self.zoom_max, "need 0 < zoom_min <= zoom_max")
        _need(self.embed_zoom > 0, "embed_zoom must be > 0")
        for name in ("aspect", "stain_gain", "brightness", "contrast"):
            _need(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1)")
        for name in ("grey", "blur"):
            _need(0 <= getattr(self, name) <= 1, f"{name} is a probability, in [0, 1]")
        _need(self.stain_offset >= 0, "stain_offset must be >= 0")
        _need(0.1 <= self.blur_sigma <= 8, "blur_sigma must be in [0.1, 8] px")
        for name in ("train_px", "embed_px"):
            _need(getattr(self, name) == AUTO or getattr(self, name) >= 8, f"{name} must be >= 8 or auto")


@dataclass(frozen=True, slots=True)
class LossSpec:
    """What is minimised."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    temperature: float = 0.2  # .2 beat .1 and .5 at 64 pairs (docs/training.md)

    def __post_init__(self) -> None:
        _need(self.temperature > 0, "temperature must be > 0")


@dataclass(frozen=True, slots=True)
class ProjectorSpec:
    """The head between encoder and loss, thrown away after training: Linear, BN, ReLU, Linear, BN without affine."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    hidden: int = 256
    out: int = 64

    def __post_init__(self) -> None:
        _need(self.hidden >= 1 and self.out >= 2, "need hidden >= 1 and out >= 2")


@dataclass(frozen=True, slots=True)
class OptimiserSpec:
    """AdamW with linear warm-up and cosine decay to 0; no weight decay on vectors (biases, norms)."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    lr: float = 4e-3
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 1e-4
    warmup: float = 0.1

    def __post_init__(self) -> None:
        _need(self.lr > 0, "lr must be > 0")
        _need(0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "beta1 and beta2 must be in [0, 1)")
        _need(self.weight_decay >= 0, "weight_decay must be >= 0")
        _need(0 <= self.warmup < 1, "warmup is a share of the steps, in [0, 1)")


@dataclass(frozen=True, slots=True)
class RunSpec:
    """How long, in what portions, and what is looked at on the way. `steps` wins over `budget`."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    batch: int = 64
    steps: int | Auto = AUTO
    budget: str = "2m"
    checkpoint_every: int | Auto = AUTO
    monitor_every: int | Auto = AUTO
    monitor_tiles: int = 512

    def __post_init__(self) -> None:
        _need(self.batch >= 2, "batch must be >= 2")
        parse_duration(self.budget)
        _need(self.monitor_tiles >= 8, "monitor_tiles must be >= 8")
        for name in ("steps", "checkpoint_every", "monitor_every"):
            _need(getattr(self, name) == AUTO or getattr(self, name) >= 1, f"{name} must be >= 1 or auto")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pretraining run, asked for in full."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    method: str = "simclr"
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = AUTO
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    views: ViewSpec = field(default_factory=ViewSpec)
    loss: LossSpec = field(default_factory=LossSpec)
    projector: ProjectorSpec = field(default_factory=ProjectorSpec)
    optimiser: OptimiserSpec = field(default_factory=OptimiserSpec)
    run: RunSpec = field(default_factory=RunSpec)


def settled(value: T | Auto, key: str) -> T:
    """The value of a key that `resolve_recipe` must have filled by now."""
    if isinstance(value, str) and value == AUTO:
        raise ValueError(f"recipe key {key} is still auto: resolve the recipe first")
    return value


def with_steps(recipe: Recipe, steps: int) -> Recipe:
    """The recipe with its length fixed, and what depends on the length."""
    run = recipe.run
    checkpoint = max(50, steps // 20) if run.checkpoint_every == AUTO else run.checkpoint_every
    monitor = max(50, steps // 8) if run.monitor_every == AUTO else run.monitor_every
    return dataclasses.replace(
        recipe, run=dataclasses.replace(run, steps=steps, checkpoint_every=checkpoint, monitor_every=monitor)
    )


def fill_autos(recipe: Recipe, known: Recipe) -> Recipe:
    """Take from `known` whatever `recipe` leaves `auto`: how a run goes on with what it found at its start."""
    return _fill(recipe, known)


def _fill(mine: Any, theirs: Any) -> Any:
    if not dataclasses.is_dataclass(mine) or isinstance(mine, type):
        return theirs if isinstance(mine, str) and mine == AUTO else mine
    return dataclasses.replace(
        mine, **{f.name: _fill(getattr(mine, f.name), getattr(theirs, f.name)) for f in dataclasses.fields(mine)}
    )


def differences(mine: Any, theirs: Any, prefix: str = "") -> list[str]:
    """`key: mine, theirs` for each leaf in which two recipes (as dataclasses or mappings) differ."""
    first, second = _as_mapping(mine), _as_mapping(theirs)
    found: list[str] = []
    for key in [*first, *(key for key in second if key not in first)]:
        a, b = first.get(key), second.get(key)
        if isinstance(_as_mapping(a), dict) and isinstance(_as_mapping(b), dict):
            found += differences(a, b, f"{prefix}{key}.")
        elif _listed(a) != _listed(b):
            found.append(f"{prefix}{key}: {a}, {b}")
    return found


def _as_mapping(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return value


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _need(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)
