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


def need(holds: bool, sentence: str) -> None:
    """Refuse a value: the sentence says what must hold."""
    if not holds:
        raise ValueError(sentence)


@dataclass(frozen=True, slots=True)
class BackboneSpec:
    """The encoder's network.

    `name` is timm's; `init` is `random`, an encoder folder, a weights file or a timm name with published weights.
    `head`: widths of linear layers that belong to the encoder itself, after the network; the last is the embedding's.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    name: str = AUTO
    args: dict[str, Any] | Auto = AUTO
    init: str = "random"
    head: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        need(all(width >= 1 for width in self.head), "head must be widths >= 1")


@dataclass(frozen=True, slots=True)
class LocalViewSpec:
    """Small views beside the whole ones, drawn like them but for what stands here.

    `quadrants`: view c is cut from quadrant c of the tile (top left, top right, bottom left, bottom right).
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    count: int = 0
    px: int | Auto = AUTO
    zoom_min: float = 1.0
    zoom_max: float = 1 / 0.6
    quadrants: bool = False

    def __post_init__(self) -> None:
        need(self.count >= 0, "count must be >= 0")
        need(self.px == AUTO or self.px >= 8, "px must be >= 8 or auto")
        need(0 < self.zoom_min <= self.zoom_max, "need 0 < zoom_min <= zoom_max")
        need(not self.quadrants or self.count == 4, "quadrants need count 4")


@dataclass(frozen=True, slots=True)
class ViewSpec:
    """How a view is made of a tile (defaults: docs/training.md, measured there).

    Sizes are thought of as *zoom* = tile pixels per view pixel, so that how much magnification varies does not depend
    on the size of the tiles. A crop of side zoom * train_px is resized to train_px.

    With `field` above 1 the slide is read around each tile, `field` times the tile's side: crops may then reach beyond
    the tile, and the second and later views are shifted by up to `shift` tile sides.
    `auto` of `normalise`, `embed_zoom`, `mean` and `std`: as the encoder that the run begins from has it.
    `blur` and `solarise` are probabilities; several stand for the views in their order, the last for all that follow.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    train_px: int | Auto = AUTO
    embed_px: int | Auto = AUTO
    zoom_min: float = 1.0
    zoom_max: float = 1 / 0.6
    embed_zoom: float | Auto = AUTO
    aspect: float = 0.15
    field: float = 1.0
    shift: float = 0.0
    flip: bool = True
    rotate: bool = True
    normalise: Literal["auto", "none", "lab"] = AUTO
    stain: Literal["hed", "lab"] = "hed"
    stain_p: float = 1.0
    stain_gain: float = 0.5
    stain_offset: float = 0.10
    jitter_p: float = 1.0
    brightness: float = 0.3
    contrast: float = 0.4
    saturation: float = 0.0
    hue: float = 0.0
    grey: float = 0.3
    blur: float | tuple[float, ...] = 0.0
    blur_sigma: float = 1.0
    solarise: float | tuple[float, ...] = 0.0
    mean: tuple[float, float, float] | Auto = AUTO
    std: tuple[float, float, float] | Auto = AUTO
    local: LocalViewSpec = LocalViewSpec()  # `field` is a key of this class

    def __post_init__(self) -> None:
        need(0 < self.zoom_min <= self.zoom_max, "need 0 < zoom_min <= zoom_max")
        need(self.embed_zoom == AUTO or self.embed_zoom > 0, "embed_zoom must be > 0 or auto")
        need(self.std == AUTO or min(self.std) > 0, "std must be > 0 in each channel, or auto")
        for name in ("aspect", "stain_gain", "brightness", "contrast", "saturation"):
            need(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1)")
        for name in ("grey", "stain_p", "jitter_p"):
            need(0 <= getattr(self, name) <= 1, f"{name} is a probability, in [0, 1]")
        for name in ("blur", "solarise"):
            chances = per_view(getattr(self, name), 1)
            need(all(0 <= chance <= 1 for chance in chances), f"{name} is a probability, in [0, 1]")
        need(0 <= self.hue <= 0.5, "hue is a share of the circle, in [0, 0.5]")
        need(self.stain_offset >= 0, "stain_offset must be >= 0")
        need(0.1 <= self.blur_sigma <= 8, "blur_sigma must be in [0.1, 8] px")
        need(1 <= self.field <= 4, "field must be in [1, 4] tile sides")
        need(0 <= self.shift <= (self.field - 1) / 2, "shift must be in [0, (field - 1) / 2] tile sides")
        for name in ("train_px", "embed_px"):
            need(getattr(self, name) == AUTO or getattr(self, name) >= 8, f"{name} must be >= 8 or auto")


def per_view(chance: float | tuple[float, ...], n_views: int) -> tuple[float, ...]:
    """A value for each of n views: one for all, or one each, the last for all that follow."""
    given = chance if isinstance(chance, tuple) else (chance,)
    need(len(given) > 0, "an empty list says nothing")
    return tuple(given[min(view, len(given) - 1)] for view in range(max(n_views, len(given))))


@dataclass(frozen=True, slots=True)
class LossSpec:
    """What a method minimises and keeps for it: each method's file has its own keys in a class below this one."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT


@dataclass(frozen=True, slots=True)
class ProjectorSpec:
    """The head between encoder and loss, thrown away after training: linear layers with ReLU between them.

    `norm`: BatchNorm after each hidden layer. `out_norm`: BatchNorm without affine at the end. A layer that BatchNorm
    follows has no bias.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    layers: int = 2
    hidden: int = 256
    out: int = 64
    norm: bool = True
    out_norm: bool = True

    def __post_init__(self) -> None:
        need(self.layers >= 1, "layers must be >= 1")
        need(self.hidden >= 1 and self.out >= 2, "need hidden >= 1 and out >= 2")


@dataclass(frozen=True, slots=True)
class OptimiserSpec:
    """AdamW, SGD with momentum or LARS; linear warm-up, cosine decay; no weight decay on vectors (biases, norms).

    `lr` is the peak rate; with `scaling` it is the rate at 256 tiles a batch, multiplied by B / 256 (`linear`) or its
    square root (`sqrt`). `end` is the share of the peak that the cosine ends at. `weight_decay_end`: where a cosine
    takes the weight decay to (DINO); auto: it stays. `clip`: largest norm of the gradient, 0 for none. `eta`: of LARS.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    name: Literal["adamw", "sgd", "lars"] = "adamw"
    lr: float = 4e-3
    scaling: Literal["none", "sqrt", "linear"] = "none"
    beta1: float = 0.9
    beta2: float = 0.99
    momentum: float = 0.9
    weight_decay: float = 1e-4
    weight_decay_end: float | Auto = AUTO
    warmup: float = 0.1
    end: float = 0.0
    clip: float = 0.0
    eta: float = 1e-3

    def __post_init__(self) -> None:
        need(self.lr > 0, "lr must be > 0")
        for name in ("beta1", "beta2", "momentum"):
            need(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1)")
        need(self.weight_decay >= 0, "weight_decay must be >= 0")
        need(self.weight_decay_end == AUTO or self.weight_decay_end >= 0, "weight_decay_end must be >= 0 or auto")
        need(0 <= self.warmup < 1, "warmup is a share of the steps, in [0, 1)")
        need(0 <= self.end < 1, "end is a share of the peak rate, in [0, 1)")
        need(self.clip >= 0, "clip must be >= 0")
        need(self.eta > 0, "eta must be > 0")


@dataclass(frozen=True, slots=True)
class SamplingSpec:
    """Which tiles come when: `epochs` takes each once in turn; `balanced` draws cohort, slide and tile evenly."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    order: Literal["epochs", "balanced"] = "epochs"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """How long, in what portions, and what is looked at on the way. `steps` wins over `budget`.

    `parts`: a batch goes through the encoder in so many parts, each computed again in the backward pass: less memory,
    the same loss over the whole batch, a third more time; BatchNorm sees a part. `label`: the tiles' label whose
    nearest-neighbour accuracy is looked at, "" for none.
    """

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    batch: int = 64
    parts: int = 1
    steps: int | Auto = AUTO
    budget: str = "2m"
    compile: bool = False
    checkpoint_every: int | Auto = AUTO
    monitor_every: int | Auto = AUTO
    monitor_tiles: int = 512
    label: str = ""

    def __post_init__(self) -> None:
        need(self.batch >= 2, "batch must be >= 2")
        need(1 <= self.parts <= self.batch, "parts must be in [1, batch]")
        parse_duration(self.budget)
        need(self.monitor_tiles >= 8, "monitor_tiles must be >= 8")
        for name in ("steps", "checkpoint_every", "monitor_every"):
            need(getattr(self, name) == AUTO or getattr(self, name) >= 1, f"{name} must be >= 1 or auto")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A pretraining run, asked for in full. `read_recipe` makes one; `loss` is of its method's own class."""

    __pydantic_config__: ClassVar[dict[str, str]] = _STRICT
    method: str
    loss: LossSpec
    seed: int = 0
    precision: Literal["auto", "fp32", "bf16"] = AUTO
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    views: ViewSpec = field(default_factory=ViewSpec)
    projector: ProjectorSpec = field(default_factory=ProjectorSpec)
    optimiser: OptimiserSpec = field(default_factory=OptimiserSpec)
    sampling: SamplingSpec = field(default_factory=SamplingSpec)
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
