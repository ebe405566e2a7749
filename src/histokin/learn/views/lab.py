"""Views restained in CIELAB on the device: what `histokin.tissue.colour` does to a slide, done to each view."""

import torch
from torch import Tensor

from histokin.tissue.colour import GLASS_TO, LEAST_STD, TISSUE_FROM

# sRGB's primaries over the white point D65, as OpenCV has them: linear R, G, B to X/Xn, Y/Yn, Z/Zn.
_TO_XYZ = (
    (0.412453 / 0.950456, 0.357580 / 0.950456, 0.180423 / 0.950456),
    (0.212671, 0.715160, 0.072169),
    (0.019334 / 1.088754, 0.119193 / 1.088754, 0.950227 / 1.088754),
)
_TO_LAB = ((0.0, 116.0, 0.0), (500.0, -500.0, 0.0), (0.0, 200.0, -200.0))  # of the cube roots, L less 16
# Both curves (IEC 61966-2-1, CIE 15) are powers that go straight on below these.
_DARK, _DARK_LINEAR, _DARK_XYZ = 0.04045, 0.0031308, 0.008856
_DARK_ROOT, _SLOPE = _DARK_XYZ ** (1 / 3), 7.787
_PIECE = 8  # views at a time that stay in a processor's cache: half the time of 128 at once


def restain(v: Tensor, template: Tensor) -> Tensor:
    """Move the mean and standard deviation of each view's tissue to its template's.

    Tissue, and how the change fades out towards white, as in `histokin.tissue.colour`. A view without tissue stays as
    it is. RandStainNA (Shen et al. 2022) takes all of a picture instead, which paints empty glass.

    Args:
        v: (n, 3, P) float32 R, G, B in [0, 1].
        template: (n, 2, 3) float32 mean and standard deviation of L, a, b.

    Returns:
        (n, 3, P) float32 in [0, 1].
    """
    piece = _PIECE if v.device.type == "cpu" else max(1, len(v))
    return torch.cat([_restain(*both) for both in zip(v.split(piece), template.split(piece), strict=True)])


def _restain(v: Tensor, template: Tensor) -> Tensor:
    lab = to_lab(v)
    from_white = ((100 - lab[:, 0]).square_() + lab[:, 1].square() + lab[:, 2].square()).sqrt_()  # (n, P)
    is_tissue = (from_white >= TISSUE_FROM).to(lab.dtype)[:, None]
    count = is_tissue.sum(2, keepdim=True)  # (n, 1, 1)
    n = count.clamp(min=1)
    mean = (lab * is_tissue).sum(2, keepdim=True) / n  # (n, 3, 1)
    centred = lab - mean
    std = (centred.square().mul_(is_tissue).sum(2, keepdim=True) / n).sqrt_()
    gain = template[:, 1, :, None] / std.clamp(min=LEAST_STD)
    share = from_white.sub_(GLASS_TO).mul_(1 / (TISSUE_FROM - GLASS_TO)).clamp_(0, 1)[:, None].mul_(count > 0)
    change = centred.mul_(gain - 1).add_(template[:, 0, :, None] - mean).mul_(share)
    return to_rgb(lab.add_(change))


def to_lab(v: Tensor) -> Tensor:
    """(n, 3, P) float32 R, G, B in [0, 1] to L in 0 to 100, a, b."""
    light = _power(v.clamp(min=_DARK).add_(0.055).mul_(1 / 1.055), 2.4)
    light.add_(v.clamp(max=_DARK).sub_(_DARK), alpha=1 / 12.92)
    xyz = _constant(_TO_XYZ, v) @ light
    root = _power(xyz.clamp(min=_DARK_XYZ), 1 / 3)
    root.add_(xyz.clamp_(max=_DARK_XYZ).sub_(_DARK_XYZ), alpha=_SLOPE)
    lab = _constant(_TO_LAB, v) @ root
    lab[:, 0] -= 16
    return lab


def to_rgb(lab: Tensor) -> Tensor:
    """Back from (n, 3, P) L, a, b; colours that no screen has are cut off."""
    shift = torch.tensor([16.0, 0, 0], dtype=lab.dtype, device=lab.device)[:, None]
    root = torch.linalg.inv(_constant(_TO_LAB, lab)) @ (lab + shift)
    bright = root.clamp(min=_DARK_ROOT)
    xyz = bright.square().mul_(bright).add_(root.clamp_(max=_DARK_ROOT).sub_(_DARK_ROOT), alpha=1 / _SLOPE)
    light = (torch.linalg.inv(_constant(_TO_XYZ, lab)) @ xyz).clamp_(0, 1)
    v = _power(light.clamp(min=_DARK_LINEAR), 1 / 2.4).mul_(1.055).sub_(0.055)
    return v.add_(light.clamp_(max=_DARK_LINEAR).sub_(_DARK_LINEAR), alpha=12.92).clamp_(0, 1)


def _power(x: Tensor, exponent: float) -> Tensor:
    """In place; two thirds of the time of pow."""
    return x.log_().mul_(exponent).exp_()


def _constant(rows: tuple[tuple[float, ...], ...], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=like.dtype, device=like.device)
