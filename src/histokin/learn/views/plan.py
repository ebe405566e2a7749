"""What will be done to each view, drawn by counter."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtri

from histokin.learn.draws import draw_uniforms
from histokin.learn.recipe import LocalViewSpec, ViewSpec, per_view, settled
from histokin.learn.stains import StainTemplates
from histokin.learn.views.colour import recolouring, restaining

# A draw's number follows from its place here: further ones go to the end, so that older runs draw the same.
_DRAWS = ("zoom", "aspect", "x", "y", "turn", "flip", "gain0", "gain1", "gain2", "offset0", "offset1", "offset2")
_DRAWS = (*_DRAWS, "brightness", "contrast", "grey", "blur", "sigma")
_DRAWS = (*_DRAWS, "saturation", "hue", "jitter", "stain", "solarise", "shift_x", "shift_y")
_AT = {name: i for i, name in enumerate(_DRAWS)}
_QUADRANTS = np.array([[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.5, 0.5]])  # x, y of their centres in [-1, 1]


def _no_rows() -> np.ndarray:
    return np.empty(0, np.int64)


def _no_templates() -> np.ndarray:
    return np.empty((0, 2, 3), np.float32)


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """What will be done to each of V * B views; view-major: row v * B + i is view v of sample i.

    Attributes:
        n_views: V.
        field_px: side of the pictures the views are cut from.
        theta: (N, 2, 3) float32 from view to picture in grid_sample's coordinates.
        contrast, brightness: (N,) float32 factors on the distance from a view's mean intensity, and on the mean.
        matrix, offset: (N, 3, 3), (N, 3) float32 in optical density (natural logarithm); None without such jitter.
        template: (M, 2, 3) float32 mean and standard deviation in LAB for the rows `restained`.
        chroma: (N, 3, 3) float32 saturation and hue; None where no view has any.
        restained, grey, blurred, solarised: (M,) int64 row numbers.
        sigma: of the rows `blurred`, in px of the view.
    """

    n_views: int
    field_px: int
    theta: np.ndarray
    contrast: np.ndarray
    brightness: np.ndarray
    matrix: np.ndarray | None = None
    offset: np.ndarray | None = None
    restained: np.ndarray = field(default_factory=_no_rows)
    template: np.ndarray = field(default_factory=_no_templates)
    chroma: np.ndarray | None = None
    grey: np.ndarray = field(default_factory=_no_rows)
    blurred: np.ndarray = field(default_factory=_no_rows)
    sigma: np.ndarray = field(default_factory=lambda: np.empty(0))
    solarised: np.ndarray = field(default_factory=_no_rows)


def plan_views(
    spec: ViewSpec,
    px: int,
    *,
    seed: int,
    step: int,
    samples: np.ndarray,
    n_views: int = 2,
    purpose: str = "views",
    templates: StainTemplates | None = None,
    quadrants: bool = False,
    field_px: int | None = None,
) -> ViewPlan:
    """Draw the views of one batch.

    A crop has its centre anywhere such that it stays in the tile; one larger than the tile holds the tile, and stays in
    the field. The second and later views are then shifted by up to `spec.shift` tile sides each way, as far as the
    field goes. Flips and quarter turns turn the crop, not the tile: they never take it elsewhere.

    Args:
        spec: resolved.
        px: side of the tiles.
        seed, step: of the run.
        samples: (B,) int64 places in the global batch; a row of the plan depends on its place alone.
        n_views: views of each tile.
        purpose: names the stream.
        templates: with `stain: lab`, what to draw from: N(mu, (1 + stain_gain) sigma) for each number.
        quadrants: view c stays in quadrant c of the tile (top left, top right, bottom left, bottom right), unshifted.
        field_px: side of the pictures that `make_views` will be given; without it the tile and whole px
            around it, round((spec.field - 1) / 2 * px) on each side.

    Raises:
        ValueError: `stain: lab` without templates, quadrants with other than 4 views, a field smaller than the spec's.
    """
    if quadrants and n_views != len(_QUADRANTS):
        raise ValueError(f"quadrants are {len(_QUADRANTS)} views, not {n_views}")
    u = draw_uniforms(seed, purpose, step, samples=samples, n_views=n_views, n_draws=len(_DRAWS))
    u = u.reshape(-1, len(_DRAWS))
    view = np.repeat(np.arange(n_views), len(samples))
    side = _field_px(spec, px, field_px)
    matrix, offset = _stain_jitter(u, spec)
    restained, template = _stain_targets(u, spec, templates)
    jittered = _happens(u, "jitter", spec.jitter_p)
    blurred = np.flatnonzero(_happens(u, "blur", np.array(per_view(spec.blur, n_views))[view]))
    return ViewPlan(
        n_views=n_views,
        field_px=side,
        theta=_geometry(u, spec, px, side, view, quadrants=quadrants),
        contrast=_factor(u, "contrast", spec.contrast, jittered).astype(np.float32),
        brightness=_factor(u, "brightness", spec.brightness, jittered).astype(np.float32),
        matrix=matrix,
        offset=offset,
        restained=restained,
        template=template,
        chroma=_chroma(u, spec, jittered),
        grey=np.flatnonzero(_happens(u, "grey", spec.grey)),
        blurred=blurred,
        sigma=0.1 + (spec.blur_sigma - 0.1) * u[blurred, _AT["sigma"]],
        solarised=np.flatnonzero(_happens(u, "solarise", np.array(per_view(spec.solarise, n_views))[view])),
    )


def central_plan(n: int, spec: ViewSpec, px: int, field_px: int | None = None) -> ViewPlan:
    """The undisturbed middle of each of n tiles at the zoom of the finished encoder, for monitors.

    Arguments as for `plan_views`.
    """
    whole = _field_px(spec, px, field_px)
    share = settled(spec.train_px, "views.train_px") / settled(spec.embed_px, "views.embed_px")
    side = min(1.0, share) * px / whole
    theta = np.tile(np.array([[side, 0, 0], [0, side, 0]], np.float32), (n, 1, 1))
    ones = np.ones(n, np.float32)
    return ViewPlan(1, whole, theta, ones, ones)


def local_spec(spec: ViewSpec, n_views: int = 2) -> ViewSpec:
    """How the small views beside the whole ones are made: `plan_views` and `make_views` take it like any other.

    They come after the whole views where `blur` and `solarise` name the views one by one, and are not shifted.

    Args:
        spec: resolved, `local.px` too.
        n_views: how many whole views there are.
    """
    after = n_views + max(1, spec.local.count)
    return dataclasses.replace(
        spec,
        train_px=settled(spec.local.px, "views.local.px"),
        zoom_min=spec.local.zoom_min,
        zoom_max=spec.local.zoom_max,
        shift=0.0,
        blur=per_view(spec.blur, after)[n_views:],
        solarise=per_view(spec.solarise, after)[n_views:],
        local=LocalViewSpec(),
    )


def _field_px(spec: ViewSpec, px: int, given: int | None) -> int:
    """The side of what is read: the tile with a whole number of px around it."""
    planned = px + 2 * round((spec.field - 1) / 2 * px)
    if given is not None and given < planned:
        raise ValueError(f"the views ask for fields of {planned} px (views.field), the pixels are {given} px wide")
    return planned if given is None else given


def _signed(u: np.ndarray, *names: str) -> np.ndarray:
    """Draws as numbers in [-1, 1): (N,) for one name, (N, k) for several."""
    columns = 2 * u[:, [_AT[name] for name in names]] - 1
    return columns[:, 0] if len(names) == 1 else columns


def _happens(u: np.ndarray, name: str, chance: float | np.ndarray) -> np.ndarray:
    """(N,) bool: what is drawn happens."""
    return u[:, _AT[name]] < chance


def _factor(u: np.ndarray, name: str, strength: float, applies: np.ndarray) -> np.ndarray:
    """(N,) factors in 1 +- strength, 1 where it does not apply."""
    return np.where(applies, 1 + strength * _signed(u, name), 1.0)


def _geometry(
    u: np.ndarray, spec: ViewSpec, px: int, field_px: int, view: np.ndarray, *, quadrants: bool
) -> np.ndarray:
    """(N, 2, 3) float32 affine maps. Lengths below are in half sides of the tile, as grid_sample counts them."""
    share = settled(spec.train_px, "views.train_px") / px
    largest = 0.5 if quadrants else min(spec.field, field_px / px)
    first, last = spec.zoom_min**2, spec.zoom_max**2
    side = np.minimum(largest, share * np.sqrt(first + (last - first) * u[:, _AT["zoom"]]))
    stretch = np.exp(np.log1p(spec.aspect) * _signed(u, "aspect"))
    size = np.minimum(largest, np.stack([side * stretch, side / stretch], axis=1))  # (N, 2) width, height
    if quadrants:
        centre = _QUADRANTS[view] + _signed(u, "x", "y") * (0.5 - size)
    else:
        centre = _signed(u, "x", "y") * np.minimum(np.abs(1 - size), largest - size)
        shifted = centre + 2 * spec.shift * _signed(u, "shift_x", "shift_y")
        centre = np.where(view[:, None] > 0, np.clip(shifted, size - largest, largest - size), centre)
    quarter = np.floor(4 * u[:, _AT["turn"]]) if spec.rotate else np.zeros(len(u))
    cos, sin = np.round(np.cos(quarter * np.pi / 2)), np.round(np.sin(quarter * np.pi / 2))
    mirror = np.where(u[:, _AT["flip"]] < 0.5, -1.0, 1.0) if spec.flip else np.ones(len(u))
    (width, height), (x, y) = size.T, centre.T
    rows = [[cos * width * mirror, -sin * width, x], [sin * height * mirror, cos * height, y]]
    return (np.moveaxis(np.array(rows), 2, 0) * (px / field_px)).astype(np.float32)


def _stain_jitter(u: np.ndarray, spec: ViewSpec) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Matrix and offset of optical density, of nothing where it does not apply."""
    if spec.stain != "hed" or spec.stain_p == 0 or not (spec.stain_gain or spec.stain_offset):
        return None, None
    applies = _happens(u, "stain", spec.stain_p)[:, None]
    gain = 1 + spec.stain_gain * applies * _signed(u, "gain0", "gain1", "gain2")  # (N, 3)
    return restaining(gain, spec.stain_offset * applies * _signed(u, "offset0", "offset1", "offset2"))


def _stain_targets(u: np.ndarray, spec: ViewSpec, templates: StainTemplates | None) -> tuple[np.ndarray, np.ndarray]:
    """The rows restained in LAB, and what each is moved to; the draws are those of gains and offsets."""
    if spec.stain != "lab":
        return _no_rows(), _no_templates()
    if templates is None:
        raise ValueError("stain: lab draws from the slides' stainings: pass templates (fit_stains, fit_templates)")
    rows = np.flatnonzero(_happens(u, "stain", spec.stain_p))
    numbers = u[rows, _AT["gain0"] : _AT["offset2"] + 1].reshape(-1, 2, 3)
    # A draw may be 0, whose quantile is infinite.
    normal = ndtri(np.maximum(numbers, 2.0**-54))
    return rows, templates.draw(normal, 1 + spec.stain_gain).astype(np.float32)


def _chroma(u: np.ndarray, spec: ViewSpec, jittered: np.ndarray) -> np.ndarray | None:
    if not (spec.saturation or spec.hue) or spec.jitter_p == 0:
        return None
    turn = spec.hue * jittered * _signed(u, "hue")
    return recolouring(_factor(u, "saturation", spec.saturation, jittered), turn)
