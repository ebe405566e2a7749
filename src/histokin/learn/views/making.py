"""Carrying out a plan on the device."""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from histokin.learn.recipe import ViewSpec, settled
from histokin.learn.views.lab import restain
from histokin.learn.views.plan import ViewPlan


@torch.no_grad()
def make_views(tiles: Tensor, plan: ViewPlan, spec: ViewSpec) -> Tensor:
    """Carry out a plan.

    In this order: crop, flips and turns; stain; contrast about the view's mean, brightness, saturation and hue; cut to
    [0, 1]; grey; blur; solarisation (intensities above one half are inverted); normalisation.

    Args:
        tiles: (B, F, F, 3) uint8 on the device; F as in the plan: of the tile, or of the field around it.
        plan: of V * B views.
        spec: resolved; gives the view's size and the normalisation.

    Returns:
        (V * B, 3, train_px, train_px) float32 in channels_last order, normalised by mean and std.

    Raises:
        ValueError: pictures of another size than planned for.
    """
    if tiles.shape[1:] != (plan.field_px, plan.field_px, 3):
        raise ValueError(f"planned for {plan.field_px} px, got pictures of {tuple(tiles.shape[1:])}")
    device, side = tiles.device, settled(spec.train_px, "views.train_px")
    v = _sample(tiles, _on(device, plan.theta), plan.n_views, side)  # (N, 3, side * side), 0..255
    if plan.matrix is not None and plan.offset is not None:
        # log((v + 1) / 256) is minus the density, so its offset is subtracted.
        density = v.add_(1).mul_(1 / 256).log_()
        v = torch.baddbmm(-_on(device, plan.offset)[:, :, None], _on(device, plan.matrix), density)
        v = v.exp_().mul_(256 / 255).sub_(1 / 255)
    else:
        v = v.mul_(1 / 255)
    if len(plan.restained):
        rows = _on(device, plan.restained)
        v[rows] = restain(v[rows], _on(device, plan.template))
    v = _jitter(v, plan).view(-1, 3, side, side)
    if len(plan.blurred):
        rows = _on(device, plan.blurred)
        v[rows] = blur(v[rows], _on(device, plan.sigma.astype(np.float32)), spec.blur_sigma)
    if len(plan.solarised):
        rows = _on(device, plan.solarised)
        solarised = v[rows]
        v[rows] = torch.minimum(solarised, 1 - solarised)
    mean, std = settled(spec.mean, "views.mean"), settled(spec.std, "views.std")
    scale = torch.tensor([1 / s for s in std], device=device)[:, None, None]
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)[:, None, None]
    return torch.addcmul(shift, v, scale).contiguous(memory_format=torch.channels_last)


def _on(device: torch.device, array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).to(device)


def _jitter(v: Tensor, plan: ViewPlan) -> Tensor:
    """Contrast, brightness, saturation, hue, then grey: (N, 3, P) to the same, in [0, 1].

    With m a view's mean intensity: contrast * chroma @ (v - m) + brightness * m, and chroma leaves m as it is.
    """
    contrast, brightness = _on(v.device, plan.contrast), _on(v.device, plan.brightness)
    lift = (v.mean((1, 2)) * (brightness - contrast))[:, None, None]
    if plan.chroma is None:
        v = v.mul_(contrast[:, None, None]).add_(lift)  # a fifth of the time of the matrix
    else:
        v = torch.baddbmm(lift, _on(v.device, plan.chroma) * contrast[:, None, None], v)
    v.clamp_(0, 1)
    if len(plan.grey):  # not part of the matrix: the cut lies between
        rows = _on(v.device, plan.grey)
        v[rows] = v[rows].mean(1, keepdim=True).expand(-1, 3, -1)
    return v


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
