"""VICReg: views agree, every dimension varies, no two dimensions covary."""

from typing import NamedTuple

import torch
from torch import Tensor

from histokin.learn.losses.rows import exact_dtype, exactly, refuse_not_positive, refuse_unequal


class VicregLoss(NamedTuple):
    """Loss and detached unweighted parts, all 0-d."""

    loss: Tensor
    invariance: Tensor
    variance: Tensor
    covariance: Tensor


@exactly
def vicreg(
    first: Tensor,
    second: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    eps: float = 1e-4,
) -> VicregLoss:
    """Keep views alike without letting dimensions die or repeat each other.

    With V(z) = mean_d max(0, 1 - sqrt(var_d + eps)) (unbiased), c(z) = sum of squared off-diagonal entries of the
    covariance (over B - 1), divided by D (Bardes et al. 2022, eq. 1 to 6, halved variance as in the authors' code):

        loss = invariance * mean (z1 - z2)^2 + variance * (V(z1) + V(z2)) / 2 + covariance * (c(z1) + c(z2))

    Args:
        first: (B, D) floating, view 1 as it is (never normalise rows before); B >= 2. Over all ranks.
        second: (B, D), view 2 of the same tiles in the same order.
        invariance, variance, covariance: weights of the three terms.
        eps: added to the variance, positive.

    Returns:
        Loss, 0-d float32 or better, and the three terms. A collapsed encoder gives variance * (1 - sqrt(eps)).

    Raises:
        ValueError: shapes differ, B < 2 or eps <= 0.
    """
    refuse_unequal(first, second, least=2)
    refuse_not_positive(eps=eps)
    dtype = exact_dtype(first, second)
    z1, z2 = first.to(dtype), second.to(dtype)
    apart = (z1 - z2).square().mean()
    (V1, c1), (V2, c2) = _flat_and_repeated(z1, eps), _flat_and_repeated(z2, eps)
    flat, repeated = (V1 + V2) / 2, c1 + c2
    loss = invariance * apart + variance * flat + covariance * repeated
    return VicregLoss(loss, apart.detach(), flat.detach(), repeated.detach())


def _flat_and_repeated(z: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """V and c of one view."""
    B, D = z.shape
    centred = z - z.mean(0)
    cov = centred.T @ centred / (B - 1)  # (D, D)
    V = (1 - (cov.diagonal() + eps).sqrt()).clamp_min(0).mean()
    eye = torch.eye(D, dtype=torch.bool, device=z.device)
    return V, cov.masked_fill(eye, 0.0).square().sum() / D
