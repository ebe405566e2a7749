"""InfoNCE against a queue of past keys, the loss of MoCo."""

import torch
from torch import Tensor

from histokin.learn.losses.rows import (
    Contrast,
    exact_dtype,
    exactly,
    log_sum_exp,
    refuse_not_positive,
    refuse_unequal,
    softmax_loss,
    unit,
)


@exactly
def info_nce_queue(q: Tensor, k: Tensor, queue: Tensor, *, temperature: float, own: Tensor | None = None) -> Contrast:
    """Find each query's key among the keys of past steps.

    With unit rows and s = cosine / temperature (He et al. 2020, MoCo, eq. 1), u the queue's rows:

        loss = mean_i( logsumexp( s(q_i, k_i), s(q_i, u_1) .. s(q_i, u_Q) ) - s(q_i, k_i) )

    Args:
        q: (B, D) floating, queries, any scale (normalised here, as are all).
        k: (B, D), keys of the same tiles; constant: no gradient.
        queue: (Q, D), the filled rows of the queue, before k is enqueued; constant. Q may be 0: the loss is then 0.
        temperature: positive; 0.07 (v1) or 0.2 (v2) in the papers.
        own: (B, Q) bool, queue rows that are an older key of the query's own tile: no negatives.

    Returns:
        Loss, 0-d float32 or better, and mean similarities. A collapsed encoder gives log(1 + Q).

    Raises:
        ValueError: shapes do not fit or temperature <= 0.
    """
    refuse_queue(q, k, queue, own)
    refuse_not_positive(temperature=temperature)
    return contrast_with_queue(q, k, queue, temperature=temperature, removed=own, log_weights=None)


def contrast_with_queue(
    q: Tensor, k: Tensor, queue: Tensor, *, temperature: float, removed: Tensor | None, log_weights: Tensor | None
) -> Contrast:
    """InfoNCE whose negatives may be removed, (B, Q) bool, and weighted, by logarithms -inf only where removed."""
    dtype = exact_dtype(q, k, queue)
    q, k, queue = unit(q, dtype), unit(k.detach(), dtype), unit(queue.detach(), dtype)
    positive, negatives = (q * k).sum(1), q @ queue.T  # (B,), (B, Q)
    logits = negatives / temperature
    if log_weights is not None:
        logits = logits + log_weights
    if removed is None:
        neg_sim = negatives.detach().mean()
    else:
        logits = logits.masked_fill(removed, -torch.inf)
        neg_sim = negatives.detach().masked_fill(removed, 0.0).sum() / (~removed).sum()
    loss = softmax_loss(positive / temperature, log_sum_exp(logits)).mean()
    return Contrast(loss, positive.detach().mean(), neg_sim)


def refuse_queue(q: Tensor, k: Tensor, queue: Tensor, own: Tensor | None) -> None:
    """Raise ValueError unless q and k are (B, D), queue is (Q, D) and own, if given, (B, Q) bool."""
    refuse_unequal(q, k)
    if queue.ndim != 2 or queue.shape[1] != q.shape[1]:
        raise ValueError(f"queue must be (Q, {q.shape[1]}), got {tuple(queue.shape)}")
    if own is not None and (own.shape != (len(q), len(queue)) or own.dtype != torch.bool):
        raise ValueError(f"own must be bool ({len(q)}, {len(queue)}), got {own.dtype} {tuple(own.shape)}")
