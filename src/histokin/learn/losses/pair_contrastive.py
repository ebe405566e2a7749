"""The contrastive loss of tile pairs: near on the slide, near in the embedding."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from histokin.learn.losses.rows import exact_dtype, exactly, refuse_not_positive, refuse_unequal, unit


class PairLoss(NamedTuple):
    """Loss and detached parts, all 0-d; a mean over no pairs is NaN.

    Attributes:
        loss: to minimise.
        near_distance: mean embedding distance of near pairs.
        far_distance: mean embedding distance of far pairs.
        beyond_margin: share of far pairs at least a margin apart; all: the loss is saturated, none: a collapse.
    """

    loss: Tensor
    near_distance: Tensor
    far_distance: Tensor
    beyond_margin: Tensor


@exactly
def pair_contrastive(
    a: Tensor, b: Tensor, near: Tensor, *, margin: float, power: Literal[1, 2], normalise: bool
) -> PairLoss:
    """Pull near pairs together, push far pairs to a margin.

    With d_i = |a_i - b_i| (Hadsell et al. 2006 without its factor 1/2; a reading of Gildenblat & Klaiman 2019):

        loss = mean_i( near_i d_i^power + (1 - near_i) max(0, margin - d_i)^power )

    Args:
        a: (B, D) floating, one tile of each pair.
        b: (B, D), the other.
        near: (B,) bool, which pairs are near on their slide.
        margin: positive; 1 for raw embeddings of fixed scale, sqrt(2) for unit rows.
        power: 1 (constant pull) or 2.
        normalise: compare unit rows; otherwise rows as they are.

    Returns:
        Loss, 0-d float32 or better, and its parts. A collapsed encoder gives margin^power times the share of far pairs.

    Raises:
        ValueError: shapes differ, near is not (B,) bool, margin <= 0 or power is not 1 or 2.
    """
    refuse_unequal(a, b)
    refuse_not_positive(margin=margin)
    if near.shape != (len(a),) or near.dtype != torch.bool:
        raise ValueError(f"near must be bool ({len(a)},), got {near.dtype} {tuple(near.shape)}")
    if power not in (1, 2):
        raise ValueError(f"power must be 1 or 2, got {power}")
    dtype = exact_dtype(a, b)
    a, b = (unit(a, dtype), unit(b, dtype)) if normalise else (a.to(dtype), b.to(dtype))
    squared = (a - b).square().sum(1)
    distance = (squared + 1e-12).sqrt()  # the root's slope at 0 is infinite, and times 0 it is NaN
    short = (margin - distance).clamp_min(0)
    loss = torch.where(near, distance, short) if power == 1 else torch.where(near, squared, short.square())
    seen = distance.detach()
    return PairLoss(loss.mean(), seen[near].mean(), seen[~near].mean(), (seen[~near] >= margin).to(dtype).mean())
