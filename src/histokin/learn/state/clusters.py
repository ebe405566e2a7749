"""Spherical k-means over embeddings (Dhillon & Modha 2001), and its result as state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from histokin.learn.state.sphere import unit_float32, unit_on_grid
from histokin.streams import stream

# 64 MiB of similarities at a time.
_SIMILARITIES = 2**23


@dataclass(frozen=True, slots=True)
class Clusters:
    """A clustering of N vectors.

    labels: (N,) int64, for each the cluster of largest cosine. centroids: (K, D) float32, unit rows.
    mean_cosine: of the vectors with their centroids.
    """

    labels: Tensor
    centroids: Tensor
    mean_cosine: float


@torch.no_grad()
def spherical_kmeans(
    x: Tensor,
    clusters: int,
    *,
    iterations: int,
    init: Literal["first", "permutation"] = "permutation",
    seed: int,
    points_a_cluster: int = 256,
) -> Clusters:
    """Group vectors by direction: K unit centroids c of large sum_i max_k unit(x_i) . c_k.

    Each iteration assigns every vector to the centroid of largest cosine (of equal ones the lowest number) and makes
    each centroid the unit sum of its vectors; one without vectors, or with vectors
    that cancel, stays where it was. Then all vectors are assigned to
    what came out. Dot products and sums are exact (`unit_on_grid`), so the result is the same bit for bit on any number
    of threads, device and chunking, and does not depend on the order of the vectors beyond the choice of the first
    centroids. A float32 version would be twice as fast and give other labels on other machines.

    Args:
        x: (N, D) floating, any scale (normalised here), N >= clusters; read chunk by chunk, never copied whole.
        clusters: K >= 1.
        iterations: >= 1; 10 to 20 are usual.
        init: `first` starts from rows 0 to K - 1, `permutation` from the first K of a seeded permutation.
        seed: of the permutation.
        points_a_cluster: at most so many times K vectors, the first of the permutation, are used to find the centroids.

    Raises:
        ValueError: shapes or numbers are others, or x holds NaN or infinities.
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise ValueError(f"x must be (N, D) floating, got {tuple(x.shape)} {x.dtype}")
    if not 1 <= clusters <= len(x):
        raise ValueError(f"need 1 <= clusters <= N, got {clusters} clusters of {len(x)} vectors")
    if iterations < 1 or points_a_cluster < 1:
        raise ValueError(f"need iterations and points_a_cluster >= 1, got {iterations} and {points_a_cluster}")
    if init not in ("first", "permutation"):
        raise ValueError(f"init must be 'first' or 'permutation', got {init!r}")
    permutation = torch.from_numpy(stream(seed, "clusters").permutation(len(x))).to(x.device)
    n_fit = min(len(x), points_a_cluster * clusters)
    rows = permutation[:n_fit].sort().values if n_fit < len(x) else None  # sorted: memory is read in order
    first = x[:clusters] if init == "first" else x.index_select(0, permutation[:clusters])
    centroids = unit_float32(first)
    for _ in range(iterations):
        centroids = _recentred(x, rows, centroids)
    labels, cosines = _nearest(x, centroids)
    # Integers add up to the same in any order.
    total = int((cosines * 2.0**32).round().long().sum())
    return Clusters(labels, centroids, total / 2.0**32 / len(x))


@torch.no_grad()
def assign(x: Tensor, centroids: Tensor, chunk: int | None = None) -> Tensor:
    """The cluster of largest cosine, of equal ones the lowest number.

    Args:
        x: (N, D) floating, any scale.
        centroids: (K, D) floating, any scale, K >= 1.
        chunk: vectors at a time; as many as 64 MiB of similarities allow if not given. Labels do not depend on it.

    Returns:
        (N,) int64.

    Raises:
        ValueError: shapes do not fit, chunk is below 1, or x or the centroids hold NaN or infinities.
    """
    if x.ndim != 2 or centroids.ndim != 2 or x.shape[1] != centroids.shape[1] or len(centroids) < 1:
        raise ValueError(f"need x (N, D) and centroids (K >= 1, D), got {tuple(x.shape)} and {tuple(centroids.shape)}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be >= 1, got {chunk}")
    return _nearest(x, centroids, chunk)[0]


class ClusterState(nn.Module):
    """R clusterings of the same N tiles into K clusters each, from different seeds.

    Over several processes one rank fits and the trainer broadcasts the buffers, or every rank fits on the same vectors:
    both give the same.

    Buffers: `labels` (R, N) int32, -1 before the first fit, `is_fitted` 0-d bool.
    """

    labels: Tensor
    is_fitted: Tensor

    def __init__(self, clusterings: int, clusters: int, n: int, dim: int) -> None:
        """Make room for `clusterings` (R) clusterings of `n` vectors of width `dim` into `clusters` (K) each.

        Raises:
            ValueError: a number is below 1, or there are more clusters than vectors.
        """
        super().__init__()
        if min(clusterings, clusters, n, dim) < 1 or clusters > n:
            raise ValueError(
                f"need clusterings, clusters, n, dim >= 1 and clusters <= n, got {clusterings}, {clusters}, {n}, {dim}"
            )
        self._clusters, self._dim = clusters, dim
        self.register_buffer("labels", torch.full((clusterings, n), -1, dtype=torch.int32))
        self.register_buffer("is_fitted", torch.tensor(data=False))

    @torch.no_grad()
    def fit(self, x: Tensor, seeds: Sequence[int], *, iterations: int = 20) -> tuple[float, ...]:
        """Cluster anew, from the seeds alone: what was there before has no part in it.

        Args:
            x: (N, D) floating, on any device.
            seeds: R of them, one a clustering; 20 iterations are SGCL's.
            iterations: of each.

        Returns:
            The R mean cosines.

        Raises:
            ValueError: x or the number of seeds does not fit, or x holds NaN or infinities; the state stays as it was.
        """
        n_clusterings, n = self.labels.shape
        if x.shape != (n, self._dim) or len(seeds) != n_clusterings:
            raise ValueError(
                f"need x ({n}, {self._dim}) and {n_clusterings} seeds, got {tuple(x.shape)} and {len(seeds)} seeds"
            )
        found = [spherical_kmeans(x, self._clusters, iterations=iterations, seed=seed) for seed in seeds]
        for place, result in enumerate(found):
            self.labels[place].copy_(result.labels)
        self.is_fitted.fill_(value=True)
        return tuple(result.mean_cosine for result in found)


def _recentred(x: Tensor, rows: Tensor | None, centroids: Tensor) -> Tensor:
    """One round of Lloyd's algorithm over the given rows of x (None: all); (K, D) float32."""
    grid = unit_on_grid(centroids)
    sums = torch.zeros_like(grid)
    n = len(x) if rows is None else len(rows)
    step = _chunk_rows(len(centroids))
    for start in range(0, n, step):
        part = x[start : start + step] if rows is None else x.index_select(0, rows[start : start + step])
        points = unit_on_grid(part)
        labels = (points @ grid.T).max(dim=1).indices  # (b,)
        sums.index_add_(0, labels, points)
    # A sum is zero where a cluster has no vectors, or vectors that cancel: either way it has no direction.
    return torch.where((sums != 0).any(dim=1, keepdim=True), unit_float32(sums), centroids)


def _nearest(x: Tensor, centroids: Tensor, chunk: int | None = None) -> tuple[Tensor, Tensor]:
    """(N,) int64 labels and (N,) float64 cosines of each vector's nearest centroid."""
    grid = unit_on_grid(centroids)
    labels = torch.empty(len(x), dtype=torch.int64, device=x.device)
    cosines = torch.empty(len(x), dtype=torch.float64, device=x.device)
    step = chunk or _chunk_rows(len(centroids))
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        cosines[part], labels[part] = (unit_on_grid(x[part]) @ grid.T).max(dim=1)
    n_bad = int((~cosines.isfinite()).sum())
    if n_bad:
        raise ValueError(f"{n_bad} of {len(x)} vectors, or the centroids, hold NaN or infinities")
    return labels, cosines


def _chunk_rows(clusters: int) -> int:
    # Never more than fits a K of 1024: the points of a chunk are copied to float64 too.
    return max(1, _SIMILARITIES // max(clusters, 1024))
