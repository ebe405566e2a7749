"""Clustering score: whether k-means finds the classes or the centres again."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histokin.evaluate.items import is_missing
from histokin.evaluate.robustness.index import Column, coded, confounded, cramers_v
from histokin.search.exact import row_norms
from histokin.streams import stream

CLUSTERS = range(2, 31)
N_RUNS = 10
"""PathoROB runs 50 times; the standard error of the mean is 2.2 times larger with 10."""
MAX_CLUSTERED = 3_000
_N_STARTS = 5


@dataclass(frozen=True, slots=True)
class Clustering:
    """Whether clusters follow the class or the centre.

    Attributes:
        value: class_ari - centre_ari, about -1 where clusters are centres and 1 where they are classes; NaN where all
            vectors are alike.
        sd: of it over the runs (ddof 1), that is of k-means' starting points alone; NaN with one run.
        class_ari: adjusted Rand index of classes and clusters, mean over the runs; 0 by chance, 1 the same partition.
        centre_ari: of centres and clusters.
        n_clusters: K, 0 where there is none.
        silhouettes: mean silhouette by K, which K was chosen by.
        n_rows: tiles clustered.
        n_runs: of k-means with K clusters.
        association: Cramer's V of class and centre.
        warning: what a reader must see beside the value, "" if nothing.
    """

    value: float
    sd: float
    class_ari: float
    centre_ari: float
    n_clusters: int
    silhouettes: dict[int, float]
    n_rows: int
    n_runs: int
    association: float
    warning: str


def clustering_score(
    features: np.ndarray,
    classes: Column,
    centres: Column,
    *,
    n_clusters: Sequence[int] = CLUSTERS,
    n_runs: int = N_RUNS,
    max_rows: int = MAX_CLUSTERED,
    seed: int = 0,
) -> Clustering:
    """ARI(class, clusters) - ARI(centre, clusters) of k-means on unit vectors, mean over runs (PathoROB).

    K is the number of clusters with the largest mean silhouette (cosine distance), the smallest of several. Centroids
    are plain means, as there. PathoROB takes each block of two classes by two centres alone and averages; here the
    rows are clustered as given, so pass such blocks for parity. Its 20 starts while choosing K are 5 here, its 50 runs
    (of 5 starts each) 10. Tiles are not independent and no interval is given: `sd` is not one.

    Args:
        features: (N, d) floating.
        classes: (N,) biological class; None, "" or NaN where unknown.
        centres: (N,) where it was prepared; the same. Tiles that lack either are left out, and counted in the warning.
        n_clusters: K to choose from, at least 2 each; those above N - 1 or the number of distinct vectors are not
            tried.
        n_runs: of k-means with the chosen K.
        max_rows: more tiles are drawn from, classes and centres keeping their shares on average.
        seed: of the draw and of k-means.

    Returns:
        `Clustering`.

    Raises:
        EvaluationError: there is one class or one centre only.
        StoreError: a vector is zero or not finite.
        ValueError: lengths differ, or K < 2, or there are no runs.
    """
    from sklearn.metrics import silhouette_score

    if not len(features) == len(classes) == len(centres) or n_runs < 1 or not n_clusters or min(n_clusters) < 2:
        raise ValueError(
            f"need equal lengths, n_runs >= 1 and n_clusters of at least 2, got {len(features)}, {len(classes)}, "
            f"{len(centres)}, {n_runs}, {list(n_clusters)}"
        )
    is_known = [not is_missing(what) and not is_missing(where) for what, where in zip(classes, centres, strict=True)]
    rows = np.flatnonzero(is_known)
    n_lost = len(features) - len(rows)
    if len(rows) > max_rows:
        rows = np.sort(stream(seed, "clustering-score").choice(rows, max_rows, replace=False))
    truth, centre = coded(classes, rows, "class"), coded(centres, rows, "centre")
    unit = _unit(features[rows])
    n_most = min(len(rows) - 1, len(np.unique(unit.round(6), axis=0)))  # what differs by rounding is no cluster
    distances = np.clip(1 - unit @ unit.T, 0, None)
    np.fill_diagonal(distances, 0)
    silhouettes = {
        k: float(silhouette_score(distances, _clusters(unit, k, seed, "choose"), metric="precomputed"))
        for k in sorted(set(n_clusters))
        if k <= n_most
    }
    best = max(silhouettes, key=lambda k: round(silhouettes[k], 6), default=0)
    runs = np.full((n_runs, 2), np.nan)
    if best:
        runs = np.array([agreement(_clusters(unit, best, seed, run), truth, centre) for run in range(n_runs)])
    scores, association = runs[:, 0] - runs[:, 1], cramers_v(truth, centre)
    warnings = confounded(association, "clusters of the one are then clusters of the other")
    if n_lost:
        warnings.append(f"{n_lost} tiles without class or centre are left out.")
    return Clustering(
        value=float(scores.mean()),
        sd=float(scores.std(ddof=1)) if n_runs > 1 else math.nan,
        class_ari=float(runs[:, 0].mean()),
        centre_ari=float(runs[:, 1].mean()),
        n_clusters=best,
        silhouettes=silhouettes,
        n_rows=len(rows),
        n_runs=n_runs,
        association=association,
        warning=" ".join(warnings),
    )


def agreement(clusters: Column, classes: Column, centres: Column) -> tuple[float, float]:
    """Adjusted Rand index of one clustering with the classes and with the centres; three columns of equal length."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(classes, clusters)), float(adjusted_rand_score(centres, clusters))


def _clusters(unit: np.ndarray, k: int, seed: int, what: str | int) -> np.ndarray:
    """(n,) cluster of each row by k-means from the best of 5 random starts."""
    from sklearn.cluster import KMeans

    state = int(stream(seed, "k-means", k, what).integers(2**32))
    model: Any = KMeans
    return model(k, init="random", n_init=_N_STARTS, random_state=state).fit(unit).labels_


def _unit(features: np.ndarray) -> np.ndarray:
    """(n, d) float32 unit rows: k-means takes half the time of float64."""
    x = np.asarray(features, dtype=np.float64)
    return (x / row_norms(x, "cosine", "features")[:, None]).astype(np.float32)
