"""Losses of spatially guided contrastive learning (SGCL; Lin et al. 2023); its sets are chosen in sgcl_sets.py.

The third term, self-invariance, is npid_sampled_ce.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from histokin.learn.losses.npid import contrast_sampled
from histokin.learn.losses.rows import (
    Contrast,
    bank_similarity,
    exact_dtype,
    exactly,
    log_sum_exp,
    refuse_bank,
    refuse_not_positive,
    refuse_rows,
    softmax_loss,
    unit,
)


class SpatialLoss(NamedTuple):
    """Loss and detached parts, all 0-d.

    Attributes:
        loss: to minimise.
        positive_share: mean of the positives' share of the softmax; at 1 the term is saturated. NaN without anchors.
        anchor_share: share of anchors that have a positive, and so count.
    """

    loss: Tensor
    positive_share: Tensor
    anchor_share: Tensor


@exactly
def sgcl_spatial(
    q: Tensor, bank: Tensor, positives: Tensor, hard: Tensor, *, temperature: float, as_released: bool = False
) -> SpatialLoss:
    """Be like at least one spatial or semantic neighbour, unlike the hard negatives.

    With s = q.u / temperature, P_i the positives and H_i the hard negatives of anchor i (Lin et al. 2023):

        loss = -mean_i log( sum_P e^s / (sum_P e^s + sum_H e^s) )

    The sum is inside the logarithm: one good positive is enough. Anchors without positives leave the mean. Sets are
    padded, and only their rows are read: memory O(B (P + H) D), whatever N.

    Args:
        q: (B, D) floating, anchors, any scale (normalised here, as is the bank).
        bank: (N, D) floating; constant.
        positives: (B, P) int64 rows of the bank, -1 where an anchor has fewer; P may be 0.
        hard: (B, H) int64 likewise; H may be 0.
        temperature: positive; 0.07 in the authors' code.
        as_released: the form of the authors' code: every row that is no positive adds 1 to the denominator
            (N - |P_i|), the logarithm's argument gets + 1e-7, and hard negatives carry no gradient.

    Returns:
        Loss, 0-d float32 or better, and its parts. If no anchor has a positive: 0, with a (zero) gradient.

    Raises:
        ValueError: shapes or rows do not fit or temperature <= 0.
    """
    refuse_bank(q, bank)
    refuse_rows("positives", positives, len(bank), (len(q), None), lowest=-1)
    refuse_rows("hard", hard, len(bank), (len(q), None), lowest=-1)
    refuse_not_positive(temperature=temperature)
    v = unit(q, exact_dtype(q, bank))
    counted = (positives >= 0).any(1)
    # An anchor without positives gets a finite stand-in before any arithmetic, or the backward pass would meet NaN.
    near = _log_mass(v, bank, positives, temperature).where(counted, 0.0)
    rivals = _log_mass(v.detach() if as_released else v, bank, hard, temperature)
    if as_released:
        absent = (len(bank) - (positives >= 0).sum(1)).to(v.dtype).log()
        miss = softmax_loss(near, torch.logaddexp(rivals, absent))
        rows = -torch.logaddexp(-miss, torch.full_like(miss, math.log(1e-7)))
    else:
        rows = miss = softmax_loss(near, rivals)
    anchors = counted.sum()
    share = (-miss.detach()).exp().where(counted, 0.0).sum() / anchors
    loss = rows.where(counted, 0.0).sum() / anchors.clamp_min(1)
    return SpatialLoss(loss, share, counted.to(v.dtype).mean())


def _log_mass(v: Tensor, bank: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """(B,) logsumexp of v.u / temperature over padded sets; -inf for an empty one."""
    logits = bank_similarity(v, bank, rows.clamp_min(0)) / temperature
    return log_sum_exp(logits.masked_fill(rows < 0, -torch.inf))


@exactly
def sgcl_inner(
    local: Tensor,
    banks: Sequence[Tensor],
    index: Tensor,
    negatives: Tensor,
    *,
    temperature: float,
    exclude_own: bool = False,
) -> Contrast:
    """Tell each quadrant of each tile from quadrants of other tiles, by sampled cross entropy.

    The positive of quadrant c of tile i is row i of quadrant bank c; its negatives are its share of the rows drawn, in
    all C banks (Lin et al. 2023; C = 4).

    Args:
        local: (C B, D) floating, any scale: all tiles' first quadrant, then all tiles' second, and so on.
        banks: C tensors (N, D), or one (C, N, D); constant.
        index: (B,) int64 bank rows of the tiles.
        negatives: (B, k) int64 rows, k divisible by C: read in order and cut into C B shares of k / C rows, so that
            each local row meets k logits; or (m,) rows shared by all local rows, which then meet C m logits.
        temperature: positive; 0.2 in the authors' code.
        exclude_own: rows of the own tile among the negatives are left out, in every bank.

    Returns:
        Loss, 0-d float32 or better, and mean similarities.

    Raises:
        ValueError: shapes or rows do not fit or temperature <= 0.
    """
    B, C = len(index), len(banks)
    if not C or len(local) != B * C or any(bank.shape != banks[0].shape for bank in banks):
        shapes = ", ".join(str(tuple(bank.shape)) for bank in banks)
        raise ValueError(f"need (C B, D) rows for C equal banks, got {tuple(local.shape)}, B = {B} and banks {shapes}")
    refuse_bank(local, banks[0])
    refuse_rows("index", index, len(banks[0]), (None,))
    refuse_rows("negatives", negatives, len(banks[0]), (B, None), (None,))
    if not negatives.shape[-1] or (negatives.ndim == 2 and negatives.shape[1] % C):
        raise ValueError(f"need at least one negative, a multiple of {C} by tile, got {tuple(negatives.shape)}")
    refuse_not_positive(temperature=temperature)
    v = unit(local, exact_dtype(local, *banks))
    shares = negatives if negatives.ndim == 1 else negatives.reshape(B * C, -1)
    positive = torch.cat(
        [bank_similarity(rows, bank, index[:, None])[:, 0] for rows, bank in zip(v.split(B), banks, strict=True)]
    )
    others = torch.cat([bank_similarity(v, bank, shares) for bank in banks], 1)
    own = (shares == index.repeat(C)[:, None]).repeat(1, C) if exclude_own else None
    return contrast_sampled(positive, others, own, temperature)


def sgcl_ramp(epoch: float, length: float = 10) -> float:
    """Weight of the spatial term: exp(-5 (1 - min(epoch, length) / length)^2), 0.0067 at first, 1 from length on.

    Args:
        epoch: from 0, may be a fraction.
        length: epochs until the full weight, positive.

    Raises:
        ValueError: epoch < 0 or length <= 0.
    """
    refuse_not_positive(length=length)
    if not epoch >= 0:
        raise ValueError(f"epoch must be >= 0, got {epoch}")
    return math.exp(-5 * (1 - min(epoch, length) / length) ** 2)
