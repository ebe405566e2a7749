"""Unit vectors on a grid so coarse that sums and products of them are exact in float64."""

import torch
from torch import Tensor

_SCALE = 2.0**26
EPS = 1e-12


def unit_on_grid(x: Tensor) -> Tensor:
    """Unit rows, x / max(|x|, 1e-12), rounded to multiples of 2^-26, as float64.

    Floating-point sums depend on their order, and with it on threads, chunks and atomics; a last bit that differs turns
    into another label at a near tie. Multiples of 2^-26 do not have that: sums of up to 2^27 rows, and (by Cauchy and
    Schwarz) all partial sums of a dot product of two such rows of any width, fit into the 53 bits of float64 and are
    exact in any order. The rounding, at most 2^-27 = 7.5e-9, is below that of float32 at 0.25 and above.

    Args:
        x: (..., D) floating.

    Returns:
        (..., D) float64; zeros stay zeros, rows with NaN or infinities give NaN.
    """
    x = x.double()
    return (x / x.norm(dim=-1, keepdim=True).clamp_min(EPS)).mul_(_SCALE).round_().div_(_SCALE)


def unit_float32(x: Tensor) -> Tensor:
    """Unit rows, x / max(|x|, 1e-12), computed in float64: (..., D) floating to (..., D) float32."""
    x = x.double()
    return (x / x.norm(dim=-1, keepdim=True).clamp_min(EPS)).to(torch.float32)
