"""k-means without torch whose result is the same bit for bit on any number of threads and block of rows.

Values are put on a grid of multiples of 2^-24 first. With rows no longer than 1 all sums of a product of two such rows
fit into the 53 bits of float64 (Cauchy and Schwarz), so they are exact in whatever order a matrix product adds them.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

_GRID = 2.0**24
_BLOCK = 8192  # rows converted to float64 at a time
_TIED = 4  # centres at the same distance that are looked at in the plane: the corners of a square lattice


@dataclass(frozen=True, slots=True)
class Clusters:
    """A clustering of N rows.

    Attributes:
        labels: (N,) int64, of equally near centres the lowest number.
        closeness: (N,) float64, what `labels` maximises: x.c - |c|^2 / 2, the cosine where both are unit rows.
        centres: (K, f) float64.
    """

    labels: np.ndarray
    closeness: np.ndarray
    centres: np.ndarray


def unit_on_grid(rows: np.ndarray) -> np.ndarray:
    """(n, f) float64 unit rows on the grid; zeros stay zeros."""
    rows = np.asarray(rows, dtype=np.float64)
    norms = np.sqrt((rows**2).sum(axis=1, keepdims=True))
    return np.rint(rows / np.where(norms > 0, norms, 1.0) * _GRID) / _GRID


def spherical_k_means(
    rows: np.ndarray, k: int, *, rng: np.random.Generator, iterations: int = 10, points_a_cluster: int = 32
) -> Clusters:
    """At most k groups of rows by direction (Dhillon & Modha 2001).

    Centres are found on a draw of k * points_a_cluster rows, seeded by k-means++ on 1 - cosine; then every row is
    assigned to what came out. Fewer than k where the draw has fewer distinct rows.

    Args:
        rows: (N >= 1, f) floating, any scale; read block by block.
        k: at least 1.
        rng: of the draw and the seeding.
        iterations: of Lloyd's algorithm, fewer where nothing moves any more.
        points_a_cluster: 32 is faiss's and the index's habit.
    """
    drawn = _drawn(len(rows), k * points_a_cluster, rng)
    points = unit_on_grid(rows[drawn])
    centres = _lloyd(points, _plus_plus(points, k, rng), iterations, is_spherical=True)
    return nearest(rows, centres)


def nearest(rows: np.ndarray, centres: np.ndarray) -> Clusters:
    """Assign rows, made unit here, to unit centres on the grid."""
    labels, closeness = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        labels[part], closeness[part] = _assign(unit_on_grid(rows[part]), centres)
    return Clusters(labels, closeness, centres)


def k_means(
    features: np.ndarray,
    k: int,
    *,
    rng: np.random.Generator,
    n_init: int = 1,
    iterations: int = 30,
    most_points: int = 2048,
) -> Clusters:
    """At most k groups of rows by Euclidean distance, the best of `n_init` starts.

    Args:
        features: (N >= 1, f) floating.
        k: at least 1.
        rng: of the draw and the seedings.
        n_init: starts; the one with the smallest sum of squared distances counts, the first of equals.
        iterations: of Lloyd's algorithm.
        most_points: rows on which centres are found; all are assigned.
    """
    scale = _scale(features)
    drawn = _scaled(features[_drawn(len(features), most_points, rng)], scale)
    found = [_lloyd(drawn, _plus_plus(drawn, k, rng), iterations) for _ in range(n_init)]
    fit = [_assign(drawn, centres)[1].sum() for centres in found]  # larger is nearer: |x|^2 is the same for all starts
    centres = found[int(np.argmax(fit))]
    labels, closeness = np.empty(len(features), dtype=np.int64), np.empty(len(features))
    for start in range(0, len(features), _BLOCK):
        part = slice(start, start + _BLOCK)
        labels[part], closeness[part] = _assign(_scaled(features[part], scale), centres)
    return Clusters(labels, closeness, centres)


def plane_k_means(places: np.ndarray, k: int, *, rng: np.random.Generator, iterations: int = 10) -> np.ndarray:
    """(K, 2) float64 centres of at most k groups of integer places; a tree finds the nearest of thousands."""
    points = np.asarray(places, dtype=np.float64)
    centres = _plus_plus(points, k, rng)
    for _ in range(iterations):
        distance, near = (np.asarray(part) for part in KDTree(centres).query(points, k=min(_TIED, len(centres))))
        distance, near = distance.reshape(len(points), -1), near.reshape(len(points), -1)
        labels = np.where(distance <= distance[:, :1], near, len(centres)).min(axis=1)
        counts = np.bincount(labels, minlength=len(centres))
        sums = np.stack([np.bincount(labels, points[:, axis], len(centres)) for axis in (0, 1)], axis=1)
        moved = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _scale(features: np.ndarray) -> float:
    """The power of two that makes the longest row no longer than 1 when divided by it."""
    longest = 0.0
    for start in range(0, len(features), _BLOCK):
        rows = np.asarray(features[start : start + _BLOCK], dtype=np.float64)
        longest = max(longest, float((rows**2).sum(axis=1).max()) ** 0.5)
    return 2.0 ** np.ceil(np.log2(longest)) if longest > 0 else 1.0


def _scaled(rows: np.ndarray, scale: float) -> np.ndarray:
    return np.rint(np.asarray(rows, dtype=np.float64) / scale * _GRID) / _GRID


def _drawn(n: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many of n rows, ascending."""
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def _plus_plus(points: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """k-means++ (Arthur & Vassilvitskii 2007): at most k rows, each drawn by squared distance to those before."""
    squares = (points**2).sum(axis=1)
    chosen = [int(rng.integers(len(points)))]
    distance = np.full(len(points), np.inf)
    while len(chosen) < min(k, len(points)):
        last = points[chosen[-1]]
        distance = np.minimum(distance, np.maximum(squares - 2 * (points @ last) + squares[chosen[-1]], 0))
        mass = distance.cumsum()
        if mass[-1] <= 0:
            break  # no other distinct row is left
        # The product may round up to the whole mass, which lies past the last row.
        chosen.append(min(int(np.searchsorted(mass, rng.random() * mass[-1], side="right")), len(points) - 1))
    return points[chosen]


def _lloyd(points: np.ndarray, centres: np.ndarray, iterations: int, *, is_spherical: bool = False) -> np.ndarray:
    """(K, f) centres on the grid; one without rows stays where it was."""
    before = np.full(len(points), -1)
    for _ in range(iterations):
        labels, _ = _assign(points, centres)
        if np.array_equal(labels, before):
            break
        before = labels
        members = np.zeros((len(centres), len(points)))
        members[labels, np.arange(len(points))] = 1.0
        sums, counts = members @ points, members.sum(axis=1)
        # Rows that cancel have no direction.
        has_moved = np.asarray(sums.any(axis=1) if is_spherical else counts > 0)
        moved = unit_on_grid(sums) if is_spherical else _scaled(sums / np.maximum(counts, 1)[:, None], 1.0)
        centres = np.where(has_moved[:, None], moved, centres)
    return centres


def _assign(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    closeness = points @ centres.T - (centres**2).sum(axis=1) / 2
    labels = closeness.argmax(axis=1)
    return labels, closeness[np.arange(len(points)), labels]
