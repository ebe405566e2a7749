"""Quality of embeddings without labels: spectrum, spread, collapse, and who the neighbours are.

All ranks depend on N and d: print both beside them. Sums are float64 whatever the input.
"""

import math
from dataclasses import dataclass

import numpy as np

from histokin.evaluate.spectrum import alpha_req, participation_ratio, rankme
from histokin.search import top_k
from histokin.streams import stream

MAX_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class LabelFree:
    """Label-free measures of one set of embeddings.

    Attributes:
        n: rows used.
        d: dimensions.
        rankme: effective number of dimensions, raw.
        rankme_centred: after the mean is taken away.
        participation_ratio: (sum lambda)^2 / sum lambda^2 of the covariance.
        alpha_req: decay of the spectrum over eigenvalues 11 to 100 at most; about 1 is good, far above collapsed, far
            below noise. NaN where the rank is below 12.
        uniformity: about -4 on a full sphere, 0 when collapsed.
        mean_cosine: of all pairs; near 1 when collapsed to a point.
        spread: mean per-dimension sd of unit vectors times sqrt(d); 1 = spread evenly.
        dead_share: share of dimensions with sd < 1e-4 of the median sd.
        is_collapsed: fewer than 2 effective dimensions, or unit vectors all alike.
        purity: by group name, share of the k nearest from the same group, the row itself removed.
        purity_chance: by group name, what random neighbours would give.
        k: neighbours counted in the purities.
    """

    n: int
    d: int
    rankme: float
    rankme_centred: float
    participation_ratio: float
    alpha_req: float
    uniformity: float
    mean_cosine: float
    spread: float
    dead_share: float
    is_collapsed: bool
    purity: dict[str, float]
    purity_chance: dict[str, float]
    k: int


def label_free(
    features: np.ndarray,
    *,
    groups: dict[str, np.ndarray] | None = None,
    k: int = 10,
    max_rows: int = MAX_ROWS,
    seed: int = 0,
) -> LabelFree:
    """All label-free measures on at most `max_rows` rows, drawn equally per group of the first entry.

    Args:
        features: (N, d) floating, N >= 2.
        groups: (N,) columns by name, such as slide and patient.
        k: neighbours of the purities.
        max_rows: rows used at most.
        seed: of the draw.

    Returns:
        `LabelFree`.

    Raises:
        StoreError: a vector is zero or not finite.
    """
    columns = dict(groups or {})
    rows = _sample(len(features), next(iter(columns.values()), None), max_rows, seed)
    x = np.asarray(features[rows], dtype=np.float64)
    found = top_k(x, x, min(k, len(x) - 1), query_ids=np.arange(len(x))).ids  # also refuses what has no direction
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    effective, cosine = rankme(x, is_centred=True), mean_cosine(unit)
    return LabelFree(
        n=len(x),
        d=x.shape[1],
        rankme=rankme(x),
        rankme_centred=effective,
        participation_ratio=participation_ratio(x),
        alpha_req=alpha_req(features[rows]),  # as stored: their type says what is rounding
        uniformity=uniformity(unit),
        mean_cosine=cosine,
        spread=spread(unit),
        dead_share=dead_share(x),
        is_collapsed=bool(effective < 2 or cosine > 0.999),
        purity={name: purity(found, column[rows]) for name, column in columns.items()},
        purity_chance={name: purity_chance(column[rows]) for name, column in columns.items()},
        k=found.shape[1],
    )


def alignment(first: np.ndarray, second: np.ndarray) -> float:
    """Mean ||z - z+||^2 of positive pairs on the unit sphere (Wang & Isola 2020); 0 = all alike.

    Args:
        first: (M, d), one side of each pair, any length.
        second: (M, d), the other.
    """
    z, other = _unit(first), _unit(second)
    return float(((z - other) ** 2).sum(axis=1).mean())


def uniformity(features: np.ndarray, *, block: int = 1024) -> float:
    """Evenness on the sphere: ln mean_{i<j} exp(-2 ||z_i - z_j||^2) of unit vectors (Wang & Isola 2020).

    Lower is more even.
    """
    z = _unit(features)
    n, total = len(z), 0.0
    for start in range(0, n, block):
        rows = z[start : start + block]
        total += float(np.exp(-2 * np.maximum(2 - 2 * (rows @ z.T), 0)).sum())
    return math.log((total - n) / (n * (n - 1)))


def mean_cosine(features: np.ndarray) -> float:
    """Mean cosine over all pairs i < j."""
    z = _unit(features)
    n = len(z)
    return float(((z.sum(axis=0) ** 2).sum() - n) / (n * (n - 1)))


def spread(features: np.ndarray) -> float:
    """Mean per-dimension sd (ddof 0) of unit vectors times sqrt(d): 1 = spread evenly, 0 = one point."""
    z = _unit(features)
    return float(z.std(axis=0).mean() * math.sqrt(z.shape[1]))


def dead_share(features: np.ndarray) -> float:
    """Share of dimensions whose sd is below 1e-4 of the median sd."""
    sd = np.asarray(features, dtype=np.float64).std(axis=0)
    return float((sd <= 1e-4 * np.median(sd)).mean())


def purity(neighbours: np.ndarray, groups: np.ndarray) -> float:
    """Share of neighbours from the row's own group.

    Args:
        neighbours: (N, k) int64 rows, -1 past the end; row i's own list at i, itself left out.
        groups: (N,) of any type.
    """
    codes = np.unique(np.array([str(group) for group in groups]), return_inverse=True)[1]
    is_there = neighbours >= 0
    return float(((codes[neighbours] == codes[:, None]) & is_there).sum() / is_there.sum())


def purity_chance(groups: np.ndarray) -> float:
    """Expected purity of random neighbours: mean of (n_g - 1) / (N - 1)."""
    sizes = np.unique(np.array([str(group) for group in groups]), return_counts=True)[1]
    n = sizes.sum()
    return float((sizes * (sizes - 1)).sum() / (n * (n - 1)))


def _unit(features: np.ndarray) -> np.ndarray:
    x = np.asarray(features, dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def _sample(n: int, groups: np.ndarray | None, max_rows: int, seed: int) -> np.ndarray:
    from histokin.evaluate.items import sample_queries

    if n <= max_rows:
        return np.arange(n)
    if groups is None:
        return np.sort(stream(seed, "label-free").choice(n, max_rows, replace=False))
    return sample_queries(groups, max_rows, seed)
