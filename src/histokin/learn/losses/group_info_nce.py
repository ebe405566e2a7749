"""Group-level InfoNCE: find the cluster that the tile's other view was put in (CLD, used by RetCCL)."""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from histokin.learn.losses.rows import (
    exact_dtype,
    exactly,
    log_sum_exp,
    refuse_not_positive,
    refuse_unequal,
    softmax_loss,
    unit,
)


class GroupLoss(NamedTuple):
    """Loss, 0-d, and the (B,) int64 cluster of each tile's first and second view; all in few clusters is a collapse."""

    loss: Tensor
    first_labels: Tensor
    second_labels: Tensor


@exactly
def group_info_nce(
    first: Tensor,
    second: Tensor,
    *,
    clusters: int,
    iterations: int,
    temperature: float,
    centroid: Literal["mean", "unit"] = "mean",
    detach: bool = False,
    exclude_empty: bool = True,
) -> GroupLoss:
    """Cluster each view of the batch by itself; each view must find the other's cluster.

    With f1, f2 unit rows, C1, C2 the centroids of each view and l1, l2 its labels (Wang et al. 2021, CLD):

        loss = ( CE(f1 C2^T / temperature, l2) + CE(f2 C1^T / temperature, l1) ) / 2

    Labels are constants; gradient flows through the centroids, as in the authors' code.

    Args:
        first: (B, D) floating, view 1, any scale (normalised here). The first rows seed the clusters: in random order.
        second: (B, D), view 2 of the same tiles in the same order.
        clusters: K, 2 <= K < B; at most B/2 for groups worth the name. Count B over all ranks.
        iterations: of Lloyd's algorithm, at least 1.
        temperature: positive.
        centroid: "mean", shorter than 1 the wider the cluster (the authors'), or "unit", normalised before the logits.
        detach: no gradient through centroids.
        exclude_empty: an empty cluster is no choice; otherwise it is one with logit 0.

    Returns:
        Loss, 0-d float32 or better, and both label vectors. Near log(K) the views tell nothing of each other. A
        collapsed encoder has one cluster and loss 0: only the instance loss beside this one prevents that.

    Raises:
        ValueError: shapes differ, clusters outside 2..B-1, iterations < 1, temperature <= 0 or an unknown centroid.
    """
    refuse_unequal(first, second, least=3)
    refuse_not_positive(temperature=temperature, iterations=iterations)
    if not 2 <= clusters < len(first):
        raise ValueError(f"clusters must lie in 2..{len(first) - 1} for {len(first)} tiles, got {clusters}")
    if centroid not in ("mean", "unit"):
        raise ValueError(f"centroid must be 'mean' or 'unit', got {centroid!r}")
    dtype = exact_dtype(first, second)
    views = unit(first, dtype), unit(second, dtype)
    labels = [lloyd(view.detach(), clusters=clusters, iterations=iterations) for view in views]
    terms = []
    for seeker, grouped, label in ((views[0], views[1], labels[1]), (views[1], views[0], labels[0])):
        means, counts = cluster_means(grouped.detach() if detach else grouped, label, clusters)
        logits = seeker @ (unit(means) if centroid == "unit" else means).T / temperature  # (B, K)
        if exclude_empty:
            logits = logits.masked_fill(counts == 0, -torch.inf)
        positive = logits.gather(1, label[:, None])
        rivals = log_sum_exp(logits.scatter(1, label[:, None], -torch.inf))
        terms.append(softmax_loss(positive[:, 0], rivals).mean())
    return GroupLoss((terms[0] + terms[1]) / 2, labels[0], labels[1])


@torch.no_grad()
@exactly
def lloyd(x: Tensor, *, clusters: int, iterations: int) -> Tensor:
    """Labels of Lloyd's k-means started from the first K rows; the same on every rank for the same rows.

    A round assigns rows to the nearest centroid (Euclidean, ties to the lowest cluster), then takes plain means; an
    empty cluster moves to the origin. The labels are those of the last assignment.

    Args:
        x: (B, D) floating.
        clusters: K <= B.
        iterations: rounds, at least 1.

    Returns:
        (B,) int64.
    """
    x = x.to(exact_dtype(x))
    centroids, labels = x[:clusters], x.new_zeros(len(x), dtype=torch.int64)
    for _ in range(iterations):
        # Not by a matrix product: blocked products round equal centroids differently, and ties would be chance.
        labels = torch.cdist(x, centroids, compute_mode="donot_use_mm_for_euclid_dist").argmin(1)
        centroids, _ = cluster_means(x, labels, clusters)
    return labels


def cluster_means(x: Tensor, labels: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Plain means (K, D), zero for an empty cluster, and counts (K,)."""
    members = F.one_hot(labels, clusters).T.to(x.dtype)  # (K, B): sums by a product, since scattered ones vary on GPUs
    counts = members.sum(1)
    return members @ x / counts.clamp_min(1)[:, None], counts
