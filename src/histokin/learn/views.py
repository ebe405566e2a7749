"""Views of tiles: planned in NumPy from counted draws, made on the device in a few fused operations.

Geometry is one affine sampling, colour one 3x3 matrix and offset a view in optical density, then gain and offset of
intensity. All views of a batch are made together.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from histokin.learn.draws import draw_uniforms
from histokin.learn.recipe import ViewSpec, settled

# Haematoxylin, eosin (Ruifrok & Johnston 2001) and their residual; rows are scaled to length 1 below.
_STAINS = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
STAINS = _STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)
UNSTAINING = np.linalg.inv(STAINS)

_DRAWS = ("zoom", "aspect", "x", "y", "turn", "flip", "gain0", "gain1", "gain2", "offset0", "offset1", "offset2")
_DRAWS = (*_DRAWS, "brightness", "contrast", "grey", "blur", "sigma")
_AT = {name: i for i, name in enumerate(_DRAWS)}


@dataclass(frozen=True, slots=True)
class ViewPlan:
    """What will be done to each of V * B views; view-major: row v * B + i is view v of sample i.

    theta (N, 2, 3) float32: from view to tile in grid_sample's coordinates. matrix (N, 3, 3) and offset (N, 3)
    float32: in optical density (natural logarithm), None without stain jitter. gain and lift (N,) float32: of contrast
    and brightness. grey, blurred: row numbers; sigma: of the blurred, in px of the view.
    """

    n_views: int
    theta: np.ndarray
    matrix: np.ndarray | None
    offset: np.ndarray | None
    contrast: np.ndarray
    brightness: np.ndarray
    grey: np.ndarray
    blurred: np.ndarray
    sigma: np.ndarray


def plan_views(
    spec: ViewSpec, px: int, *, seed: int, step: int, samples: np.ndarray, n_views: int = 2, purpose: str = "views"
) -> ViewPlan:
    """Draw the views of one batch.

    Args:
        spec: resolved.
        px: side of the tiles.
        seed, step: of the run.
        samples: (B,) int64 places in the global batch; a row of the plan depends on its place alone.
        n_views: views of each tile.
        purpose: names the stream.
    """
    u = draw_uniforms(seed, purpose, step, samples=samples, n_views=n_views, n_draws=len(_DRAWS))
    u = u.reshape(-1, len(_DRAWS))
    matrix, offset = _stain_jitter(u, spec) if spec.stain_gain or spec.stain_offset else (None, None)
    blurred = np.flatnonzero(u[:, _AT["blur"]] < spec.blur)
    return ViewPlan(
        n_views=n_views,
        theta=_geometry(u, spec, settled(spec.train_px, "views.train_px") / px),
        matrix=matrix,
        offset=offset,
        contrast=(1 + spec.contrast * _signed(u, "contrast")).astype(np.float32),
        brightness=(1 + spec.brightness * _signed(u, "brightness")).astype(np.float32),
        grey=np.flatnonzero(u[:, _AT["grey"]] < spec.grey),
        blurred=blurred,
        sigma=0.1 + (spec.blur_sigma - 0.1) * u[blurred, _AT["sigma"]],
    )


def central_plan(n: int, spec: ViewSpec, px: int) -> ViewPlan:
    """The undisturbed middle of each of n tiles at the zoom of the finished encoder, for monitors."""
    side = min(1.0, spec.embed_zoom * settled(spec.train_px, "views.train_px") / px)
    theta = np.tile(np.array([[side, 0, 0], [0, side, 0]], np.float32), (n, 1, 1))
    ones, nothing = np.ones(n, np.float32), np.empty(0, np.int64)
    return ViewPlan(1, theta, None, None, ones, ones, nothing, nothing, np.empty(0))


def _signed(u: np.ndarray, *names: str) -> np.ndarray:
    """Draws as numbers in [-1, 1): (N,) for one name, (N, k) for several."""
    columns = 2 * u[:, [_AT[name] for name in names]] - 1
    return columns[:, 0] if len(names) == 1 else columns


def _geometry(u: np.ndarray, spec: ViewSpec, share: float) -> np.ndarray:
    """(N, 2, 3) float32 affine maps; `share` is the view's side over the tile's."""
    smallest, largest = spec.zoom_min**2, spec.zoom_max**2
    side = np.minimum(1.0, share * np.sqrt(smallest + (largest - smallest) * u[:, _AT["zoom"]]))
    stretch = np.exp(np.log1p(spec.aspect) * _signed(u, "aspect"))
    width, height = np.minimum(1.0, side * stretch), np.minimum(1.0, side / stretch)
    quarter = np.floor(4 * u[:, _AT["turn"]]) if spec.rotate else np.zeros(len(u))
    cos, sin = np.round(np.cos(quarter * np.pi / 2)), np.round(np.sin(quarter * np.pi / 2))
    mirror = np.where(u[:, _AT["flip"]] < 0.5, -1.0, 1.0) if spec.flip else np.ones(len(u))
    x, y = _signed(u, "x") * (1 - width), _signed(u, "y") * (1 - height)
    rows = [[cos * width * mirror, -sin * width, x], [sin * height * mirror, cos * height, y]]
    return np.moveaxis(np.array(rows), 2, 0).astype(np.float32)


def _stain_jitter(u: np.ndarray, spec: ViewSpec) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset of each stain as one matrix and offset on columns of optical density."""
    gain = 1 + spec.stain_gain * _signed(u, "gain0", "gain1", "gain2")  # (N, 3)
    shift = spec.stain_offset * _signed(u, "offset0", "offset1", "offset2")
    # Rows of density: od @ UNSTAINING @ diag(gain) @ STAINS; transposed for columns.
    matrix = (UNSTAINING[None] * gain[:, None, :]) @ STAINS
    return matrix.transpose(0, 2, 1).astype(np.float32), (shift @ STAINS).astype(np.float32)


@torch.no_grad()
def make_views(tiles: Tensor, plan: ViewPlan, spec: ViewSpec) -> Tensor:
    """Carry out a plan.

    Args:
        tiles: (B, px, px, 3) uint8 on the device.
        plan: of V * B views.
        spec: resolved; gives the view's size and the normalisation.

    Returns:
        (V * B, 3, train_px, train_px) float32 in channels_last order, normalised by mean and std.
    """
    device, side = tiles.device, settled(spec.train_px, "views.train_px")
    v = _sample(tiles, torch.from_numpy(plan.theta).to(device), plan.n_views, side)  # (N, 3, side * side), 0..255
    if plan.matrix is not None and plan.offset is not None:
        matrix, offset = torch.from_numpy(plan.matrix).to(device), torch.from_numpy(plan.offset).to(device)
        # log((v + 1) / 256) is minus the density, so its offset is subtracted.
        v = torch.baddbmm(-offset[:, :, None], matrix, v.add_(1).mul_(1 / 256).log_())
        v = v.exp_().mul_(256 / 255).sub_(1 / 255)
    else:
        v = v.mul_(1 / 255)
    contrast, brightness = torch.from_numpy(plan.contrast).to(device), torch.from_numpy(plan.brightness).to(device)
    middle = v.mean((1, 2))
    # (v - middle) * contrast + middle * brightness
    v = v.mul_(contrast[:, None, None]).add_((middle * (brightness - contrast))[:, None, None]).clamp_(0, 1)
    if len(plan.grey):
        grey = torch.from_numpy(plan.grey).to(device)
        v[grey] = v[grey].mean(1, keepdim=True).expand(-1, 3, -1)
    v = v.view(-1, 3, side, side)
    if len(plan.blurred):
        blurred = torch.from_numpy(plan.blurred).to(device)
        v[blurred] = blur(v[blurred], torch.from_numpy(plan.sigma).to(device, torch.float32), spec.blur_sigma)
    mean, std = settled(spec.mean, "views.mean"), settled(spec.std, "views.std")
    scale = torch.tensor([1 / s for s in std], device=device)[:, None, None]
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)[:, None, None]
    return torch.addcmul(shift, v, scale).contiguous(memory_format=torch.channels_last)


def _sample(tiles: Tensor, theta: Tensor, n_views: int, side: int) -> Tensor:
    """All views by one grid_sample: (N, 3, side * side) float32.

    A tile's views are stacked below each other in one sampling grid, so that no tile is copied per view.
    """
    B = len(tiles)
    by_tile = theta.view(n_views, B, 2, 3).transpose(0, 1)  # (B, V, 2, 3)
    centre = (2 * torch.arange(side, dtype=torch.float32, device=tiles.device) + 1) / side - 1
    # theta @ (x, y, 1) as a sum of a row and a column: five times faster than the product affine_grid makes.
    along = by_tile[..., 0, None] * centre + by_tile[..., 2, None]  # (B, V, 2, side)
    down = by_tile[..., 1, None] * centre
    grid = along.transpose(2, 3)[:, :, None] + down.transpose(2, 3)[:, :, :, None]  # (B, V, side, side, 2)
    # The permuted floats stay channel-last in memory: grid_sample reads them as fast, and nothing is copied.
    stacked = F.grid_sample(
        tiles.permute(0, 3, 1, 2).float(),
        grid.reshape(B, n_views * side, side, 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return stacked.reshape(B, 3, n_views, side * side).permute(2, 0, 1, 3).reshape(n_views * B, 3, side * side)


def blur(v: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Gaussian blur with a sigma for each picture, as two passes.

    Args:
        v: (n, 3, H, W) float.
        sigma: (n,) float32 px.
        largest: no sigma exceeds it; sets the kernel's length.
    """
    n, channels, height, width = v.shape
    radius = min(max(1, int(np.ceil(3 * largest))), height - 1, width - 1)
    at = torch.arange(-radius, radius + 1, device=v.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (at / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)  # (n * 3, K)
    flat = F.pad(v.reshape(1, n * channels, height, width), (radius,) * 4, mode="reflect")
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=n * channels)
    return F.conv2d(flat, kernel[:, None, None, :], groups=n * channels).view(n, channels, height, width)
