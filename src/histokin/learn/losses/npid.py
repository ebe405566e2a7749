"""Losses of non-parametric instance discrimination (NPID): each tile is a class, its bank row the class's vector.

Common to all: v (B, D) floating, one view's projections, any scale; bank (N, D) floating (half precision will do: only
rows in use are widened), any scale, constant; index (B,) int64, the bank row of each anchor. All rows are normalised.
"""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

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


@exactly
def npid_softmax(v: Tensor, bank: Tensor, index: Tensor, *, temperature: float, chunk: int = 8192) -> Contrast:
    """Tell each tile from all others, exactly.

    With s_ij = v_i . u_j / temperature over all N rows u of the bank (Wu et al. 2018, eq. 2):

        loss = mean_i( logsumexp_j s_ij - s_i,index(i) )

    Time is O(B N D), memory O(B (chunk + D)): the bank is read once and its logits are never kept.

    Args:
        v: (B, D) anchors.
        bank: (N, D).
        index: (B,) own rows.
        temperature: positive; 0.07 in the paper.
        chunk: bank rows compared at a time.

    Returns:
        Loss, 0-d float32 or better, and mean similarities. A collapsed encoder gives log(N).

    Raises:
        ValueError: shapes or rows do not fit, temperature or chunk <= 0.
    """
    refuse_bank(v, bank)
    refuse_rows("index", index, len(bank), (len(v),))
    refuse_not_positive(temperature=temperature, chunk=chunk)
    v = unit(v, exact_dtype(v, bank))
    positive = bank_similarity(v, bank, index[:, None])[:, 0]
    rivals, gradient, mean = _rivals(v, bank, index, temperature, chunk)
    rivals = rivals + ((v - v.detach()) * gradient).sum(1)  # adds zero, and the gradient
    pos_sim, N = positive.detach().mean(), len(bank)
    neg_sim = (N * mean - pos_sim) / (N - 1) if N > 1 else pos_sim * math.nan
    return Contrast(softmax_loss(positive / temperature, rivals).mean(), pos_sim, neg_sim)


@torch.no_grad()
def _rivals(v: Tensor, bank: Tensor, index: Tensor, temperature: float, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logsumexp of all rows but the own (B,), its gradient with respect to v (B, D), and the mean cosine of all rows.

    The gradient is sum_j p_ij u_j / temperature, p the softmax. Both sums are carried along and rescaled whenever the
    running maximum rises, so that one pass over the bank does and no logits are kept for a backward pass.
    """
    peak = v.new_full((len(v),), torch.finfo(v.dtype).min)
    mass, pull, everything = v.new_zeros(len(v)), torch.zeros_like(v), v.new_zeros(v.shape[1])
    for start in range(0, len(bank), chunk):
        rows = unit(bank[start : start + chunk], v.dtype)
        everything += rows.sum(0)
        own = torch.arange(start, start + len(rows), device=v.device) == index[:, None]  # (B, chunk)
        logits = (v @ rows.T / temperature).masked_fill(own, -torch.inf)
        higher = torch.maximum(peak, logits.amax(1))
        shares, fade = (logits - higher[:, None]).exp(), (peak - higher).exp()
        mass, pull, peak = mass * fade + shares.sum(1), pull * fade[:, None] + shares @ rows, higher
    # A bank of one row has no rivals: mass 0, logsumexp -inf, gradient 0.
    gradient = pull / mass.clamp_min(torch.finfo(v.dtype).tiny)[:, None] / temperature
    return mass.log() + peak, gradient, (v @ everything).mean() / len(bank)


@exactly
def npid_nce(
    v: Tensor,
    bank: Tensor,
    index: Tensor,
    negatives: Tensor,
    *,
    temperature: float,
    Z: float | Tensor,
    eps: float = 1e-7,
) -> Contrast:
    """Tell each tile from noise, by noise-contrastive estimation.

    With P = exp(v.u / temperature) / Z, m negatives drawn uniformly and a = m / N (Wu et al. 2018, eq. 4 to 7, with
    the constant eps of the authors' code):

        loss = -mean_i( log( P_own / (P_own + a + eps) ) + sum_neg log( a / (P_neg + a + eps) ) )

    Computed in logarithms: no exponential overflows.

    Args:
        v: (B, D) anchors.
        bank: (N, D).
        index: (B,) own rows.
        negatives: (B, m) rows drawn for each anchor, or (m,) shared by all; with replacement, own row not excluded.
        temperature: positive; 0.07 in the paper.
        Z: the normalising constant, positive; fixed once by estimate_z.
        eps: of the authors' code; 0 is the paper's equation.

    Returns:
        Loss, 0-d float32 or better, summed over negatives and averaged over anchors, and mean similarities.

    Raises:
        ValueError: shapes or rows do not fit, temperature <= 0, eps < 0, or (Z a number) Z <= 0.
    """
    _refuse_sampled(v, bank, index, negatives, temperature)
    if not isinstance(Z, Tensor):
        refuse_not_positive(Z=Z)
    if not eps >= 0:
        raise ValueError(f"eps must be >= 0, got {eps}")
    positive, others = _sampled(v, bank, index, negatives)
    m = negatives.shape[-1]
    noise, log_noise = math.log(m / len(bank) + eps), math.log(m / len(bank))
    log_z = torch.as_tensor(Z, dtype=torch.float64, device=v.device).log().to(positive.dtype)
    own = F.softplus(noise - (positive / temperature - log_z), threshold=40.0)
    rest = F.softplus(others / temperature - log_z - noise, threshold=40.0) + (noise - log_noise)
    return Contrast((own + rest.sum(1)).mean(), positive.detach().mean(), others.detach().mean())


@torch.no_grad()
@exactly
def estimate_z(v: Tensor, bank: Tensor, index: Tensor, negatives: Tensor, *, temperature: float) -> Tensor:
    """Z = N * mean exp(v.u / temperature) over a batch's positives and negatives pooled (the authors' code).

    Args:
        v, bank, index, negatives, temperature: as for npid_nce; of the first batch.

    Returns:
        0-d float64, to be kept for the whole run and in its checkpoint.

    Raises:
        ValueError: as npid_nce.
    """
    _refuse_sampled(v, bank, index, negatives, temperature)
    positive, others = _sampled(v, bank, index, negatives)
    pooled = torch.cat([positive, others.flatten()]).double() / temperature
    return (pooled.logsumexp(0) + math.log(len(bank) / len(pooled))).exp()


@exactly
def npid_sampled_ce(
    v: Tensor, bank: Tensor, index: Tensor, negatives: Tensor, *, temperature: float, exclude_own: bool = False
) -> Contrast:
    """Tell each tile from a sample of the others, by cross entropy; needs no Z.

    With s = v.u / temperature (the form SGCL builds on; Lin et al. 2023):

        loss = mean_i( logsumexp( s_own, s_neg 1 .. s_neg m ) - s_own )

    Args:
        v: (B, D) anchors.
        bank: (N, D).
        index: (B,) own rows.
        negatives: (B, m) rows drawn for each anchor: reads (B, m, D); or (m,) shared by all: reads (m, D). m >= 1.
        temperature: positive; 0.2 in SGCL, 0.07 in NPID.
        exclude_own: an own row among the negatives is left out. The papers leave it in, where it keeps the loss above
            log(2): harmless for m much below N only.

    Returns:
        Loss, 0-d float32 or better, and mean similarities. A collapsed encoder gives log(1 + m).

    Raises:
        ValueError: shapes or rows do not fit or temperature <= 0.
    """
    _refuse_sampled(v, bank, index, negatives, temperature)
    positive, others = _sampled(v, bank, index, negatives)
    own = negatives == index[:, None] if exclude_own else None
    return contrast_sampled(positive, others, own, temperature)


def contrast_sampled(positive: Tensor, others: Tensor, own: Tensor | None, temperature: float) -> Contrast:
    """Cross entropy of cosines (B,) against cosines (B, m), less those of the (B, m) mask own."""
    logits, seen = others / temperature, others.detach()
    if own is None:
        neg_sim = seen.mean()
    else:
        logits = logits.masked_fill(own, -torch.inf)
        neg_sim = seen.masked_fill(own, 0.0).sum() / (~own).sum()
    loss = softmax_loss(positive / temperature, log_sum_exp(logits)).mean()
    return Contrast(loss, positive.detach().mean(), neg_sim)


@exactly
def npid_proximal(v: Tensor, bank: Tensor, index: Tensor) -> Tensor:
    """Stay near the stored vector: mean_i |v_i - u_index(i)|^2 of unit rows (Wu et al. 2018, proximal term).

    Args:
        v: (B, D) anchors.
        bank: (N, D).
        index: (B,) own rows.

    Returns:
        0-d float32 or better, from 0 (equal) to 4 (opposite).

    Raises:
        ValueError: shapes or rows do not fit.
    """
    refuse_bank(v, bank)
    refuse_rows("index", index, len(bank), (len(v),))
    dtype = exact_dtype(v, bank)
    return (unit(v, dtype) - unit(bank.detach()[index], dtype)).square().sum(1).mean()


def _refuse_sampled(v: Tensor, bank: Tensor, index: Tensor, negatives: Tensor, temperature: float) -> None:
    refuse_bank(v, bank)
    refuse_rows("index", index, len(bank), (len(v),))
    refuse_rows("negatives", negatives, len(bank), (len(v), None), (None,))
    if not negatives.shape[-1]:
        raise ValueError("need at least one negative")
    refuse_not_positive(temperature=temperature)


def _sampled(v: Tensor, bank: Tensor, index: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines to the own row, (B,), and to the negatives, (B, m)."""
    v = unit(v, exact_dtype(v, bank))
    return bank_similarity(v, bank, index[:, None])[:, 0], bank_similarity(v, bank, negatives)
