"""Weighted InfoNCE of clustering-guided contrastive learning (CCL), and the rules that give the weights."""

import torch
from torch import Tensor

from histokin.learn.losses.info_nce_queue import contrast_with_queue, refuse_queue
from histokin.learn.losses.rows import (
    Contrast,
    exact_dtype,
    exactly,
    holds,
    refuse_not_positive,
    unit,
)


@exactly
def weighted_info_nce(
    q: Tensor, k: Tensor, queue: Tensor, weights: Tensor, *, temperature: float, own: Tensor | None = None
) -> Contrast:
    """Find each query's key among past keys, some of which count less as negatives.

    With s = cosine / temperature and w_ij >= 0 the weight of queue row j for query i:

        loss = mean_i( log( e^s(q_i, k_i) + sum_j w_ij e^s(q_i, u_j) ) - s(q_i, k_i) )

    Our reading of the weighted InfoNCE that Wang et al. 2023 (RetCCL) name; their weights may differ. w = 1 is
    info_nce_queue, w = 0 removes a negative.

    Args:
        q: (B, D) floating, queries, any scale (normalised here, as are all).
        k: (B, D), keys of the same tiles; constant: no gradient.
        queue: (Q, D), past keys; constant. Q may be 0.
        weights: (B, Q) floating, finite and >= 0; constant. See cluster_weights and hardness_weights.
        temperature: positive.
        own: (B, Q) bool, queue rows that are an older key of the query's own tile: no negatives.

    Returns:
        Loss, 0-d float32 or better, and mean similarities; neg_sim is of the negatives with w > 0, unweighted.
        A collapsed encoder gives mean_i log(1 + sum_j w_ij).

    Raises:
        ValueError: shapes do not fit, temperature <= 0, or (seen on the CPU) a weight is negative or not finite.
    """
    refuse_queue(q, k, queue, own)
    refuse_not_positive(temperature=temperature)
    if weights.shape != (len(q), len(queue)):
        raise ValueError(f"weights must be ({len(q)}, {len(queue)}), got {tuple(weights.shape)}")
    if not holds((weights >= 0) & weights.isfinite()):
        raise ValueError("weights must be finite and >= 0")
    weights = weights.detach().to(exact_dtype(q, k, queue))
    removed = weights == 0 if own is None else (weights == 0) | own
    return contrast_with_queue(q, k, queue, temperature=temperature, removed=removed, log_weights=weights.log())


def cluster_weights(q_clusters: Tensor, queue_clusters: Tensor, *, beta: float) -> Tensor:
    """w_ij = 1 - beta where query and queue row share a cluster, else 1.

    Args:
        q_clusters: (B,) integer labels.
        queue_clusters: (Q,) integer labels.
        beta: 0 (plain InfoNCE) to 1 (members of the own cluster are no negatives).

    Returns:
        (B, Q) float32.

    Raises:
        ValueError: beta outside 0..1.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"beta must lie in 0..1, got {beta}")
    return 1.0 - beta * (q_clusters[:, None] == queue_clusters[None]).float()


@torch.no_grad()
@exactly
def hardness_weights(q: Tensor, queue: Tensor, *, sharpness: float) -> Tensor:
    """w_ij proportional to exp(sharpness * cosine), with mean 1 over the queue for each query.

    Args:
        q: (B, D), any scale.
        queue: (Q, D), Q >= 1.
        sharpness: 0 for equal weights; larger ones favour negatives near the query.

    Returns:
        (B, Q) float32 or better.
    """
    dtype = exact_dtype(q, queue)
    return (sharpness * unit(q, dtype) @ unit(queue, dtype).T).softmax(1) * len(queue)
