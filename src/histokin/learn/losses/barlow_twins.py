"""Barlow Twins: the cross-correlation of two views should be the identity."""

from typing import NamedTuple

import torch
from torch import Tensor

from histokin.learn.losses.rows import exact_dtype, exactly, refuse_unequal


class BarlowLoss(NamedTuple):
    """Loss and detached parts, all 0-d: loss = on_diagonal + lambda * off_diagonal."""

    loss: Tensor
    on_diagonal: Tensor
    off_diagonal: Tensor


@exactly
def barlow_twins(first: Tensor, second: Tensor, *, off_diagonal: float = 0.0051, eps: float = 1e-5) -> BarlowLoss:
    """Make each dimension agree between views and differ from all others.

    With z standardised by dimension over the batch (biased variance + eps) and C = z1^T z2 / B (Zbontar et al. 2021):

        loss = sum_i (C_ii - 1)^2 + off_diagonal * sum_{i != j} C_ij^2

    Args:
        first: (B, D) floating, view 1 as it is (never normalise rows before); B >= 2. Over all ranks.
        second: (B, D), view 2 of the same tiles in the same order.
        off_diagonal: the paper's lambda, >= 0.
        eps: added to the variance, >= 0; 0 needs every dimension to vary.

    Returns:
        Loss, 0-d float32 or better, and both sums. A collapsed encoder gives D.

    Raises:
        ValueError: shapes differ, B < 2 or a setting is negative.
    """
    refuse_unequal(first, second, least=2)
    if not (off_diagonal >= 0 and eps >= 0):
        raise ValueError(f"off_diagonal and eps must be >= 0, got {off_diagonal}, {eps}")
    dtype = exact_dtype(first, second)
    z1, z2 = _standardise(first.to(dtype), eps), _standardise(second.to(dtype), eps)
    correlation = z1.T @ z2 / len(z1)  # (D, D)
    diagonal = correlation.diagonal()
    on = (diagonal - 1).square().sum()
    # The diagonal is masked, not subtracted: near the optimum it is nearly all of the sum of squares.
    eye = torch.eye(len(correlation), dtype=torch.bool, device=correlation.device)
    off = correlation.masked_fill(eye, 0.0).square().sum()
    return BarlowLoss(on + off_diagonal * off, on.detach(), off.detach())


def _standardise(z: Tensor, eps: float) -> Tensor:
    centred = z - z.mean(0)
    return centred / (centred.square().mean(0) + eps).sqrt()
