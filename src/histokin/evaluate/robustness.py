"""Whether embeddings follow the tissue or the centre that prepared it: robustness index and clustering score.

Both as PathoROB (arXiv 2507.17845) defines them, but for the patient, who is left out and resampled here. They need
every class from several centres; what follows from the make-up of a cohort alone is printed beside them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.comparison import Score, score_interval
from histokin.evaluate.intervals import Interval, patient_weights, ratio
from histokin.evaluate.items import Items, Task, is_missing, make_task, text_codes
from histokin.evaluate.protocol import MAX_QUERIES
from histokin.evaluate.vectors import nearest_allowed
from histokin.evaluate.votes import VoteRule, votes
from histokin.search.exact import row_norms
from histokin.streams import stream

K_GRID = (1, 3, 5, 7, 9, *range(11, 102, 10))
"""PathoROB's steps, which go on to 600 or 1200 there; its data sets end at 11, 46 and 61."""
CLUSTERS = range(2, 31)
N_RUNS = 10
"""PathoROB runs 50 times; the standard error of the mean is 2.2 times larger with 10."""
MAX_CLUSTERED = 3_000
ASSOCIATED = 0.3
"""Cramer's V from which class and centre are said to go together."""
_N_STARTS = 5
_WHERE = "robustness"

Column = Sequence[Any] | np.ndarray


@dataclass(frozen=True, slots=True)
class Robustness:
    """How far neighbours share the class and not the centre.

    Attributes:
        value: SO / (SO + OS), from 0 (neighbours follow the centre) to 1 (the class); NaN where there are neither.
        interval: patient bootstrap over the queries.
        null: what labels that have nothing to do with the features give; not 0.5 unless the cohort makes it so.
        k: neighbours a query.
        n_queries: tiles asked.
        n_patients: they belong to.
        shares: of all neighbours counted: SO same class and other centre, OS other class and same centre, SS both the
            same, OO neither.
        association: Cramer's V of class and centre over all tiles with both.
        leave_out: whose tiles are no neighbours: the query's patient's or slide's.
        warning: what a reader must see beside the value, "" if nothing.
    """

    value: float
    interval: Interval
    null: float
    k: int
    n_queries: int
    n_patients: int
    shares: dict[str, float]
    association: float
    leave_out: str
    warning: str


def robustness_index(
    features: np.ndarray,
    classes: Column,
    centres: Column,
    patients: Column,
    slides: Column,
    k: int,
    *,
    leave_out: Literal["patient", "slide"] = "patient",
    max_queries: int = MAX_QUERIES,
    seed: int = 0,
) -> Robustness:
    """Of the neighbours that share either class or centre with the query, the share that has the class (PathoROB).

        RI(k) = sum SO / (sum SO + sum OS)   over the k nearest of all queries, by cosine

    (on unit vectors the order of Euclidean distances). Neighbours that share both or neither say nothing and are
    ignored. Tiles of the query's patient are taken out before ranking, so that every query has k neighbours if so many
    are allowed; PathoROB takes out the slide alone, after ranking, and cuts all lists to the shortest. Its bootstrap
    draws tiles; this one draws patients with all their queries, the tiles that answer staying as they are.

    The null value is the ratio of what random allowed neighbours give on average, exactly, from the counts of allowed
    tiles: it moves with the number of classes and centres and with which class came from where. With patients of one
    class or one centre each, leaving the patient out moves it too.

    Args:
        features: (N, d) floating, ranked by cosine.
        classes: (N,) biological class; None, "" or NaN where unknown.
        centres: (N,) where it was prepared; the same. Tiles that lack either are left out, and counted in the warning.
        patients: (N,) ids.
        slides: (N,) ids.
        k: neighbours; all allowed tiles where there are fewer. See `choose_k`.
        leave_out: `patient`, or `slide` for parity with PathoROB.
        max_queries: more are sampled equally per patient; all tiles may answer.
        seed: of query sampling and bootstrap.

    Returns:
        `Robustness`.

    Raises:
        EvaluationError: there is one class, one centre or one patient (slide) only, or ids are missing.
        StoreError: a vector is zero or not finite; names its row among the tiles with class and centre.
        ValueError: lengths differ or k < 1.
    """
    known = [None if is_missing(where) else what for what, where in zip(classes, centres, strict=True)]
    items = Items.of(known, patients, slides, centres)
    task = _task(features, items, leave_out, max_queries, seed)
    centre = _coded(items.site, task.rows, "centre")
    found = nearest_allowed("features", features, task, k).ids
    n_found = (found >= 0).sum(axis=1)
    is_class = (task.codes[found] == task.truth[:, None]) & (found >= 0)
    is_centre = (centre[found] == centre[task.queries][:, None]) & (found >= 0)
    both = (is_class & is_centre).sum(axis=1)
    class_alone, centre_alone = is_class.sum(axis=1) - both, is_centre.sum(axis=1) - both
    counts = {"SO": class_alone, "OS": centre_alone, "SS": both, "OO": n_found - class_alone - centre_alone - both}
    hits, sizes = (np.bincount(task.clusters, weights=one) for one in (class_alone, class_alone + centre_alone))
    score = Score("robustness_index", ratio(hits, sizes))
    null, association = _null(task, centre, k), _association(task.codes, centre)
    warnings = [_confounded(association, f"the null value of {null:.3f} is what to compare with")]
    if task.n_unlabelled:
        warnings.append(f"{task.n_unlabelled} tiles without class or centre are left out.")
    if (n_short := int((n_found < k).sum())) > 0:
        warnings.append(f"{n_short} of {len(n_found)} queries have fewer than {k} tiles that may answer.")
    return Robustness(
        value=score.value(task.n_clusters),
        interval=score_interval(score, patient_weights(task.n_clusters, seed=seed), cluster=task.cluster),
        null=null,
        k=k,
        n_queries=len(task.queries),
        n_patients=len(np.unique(task.patients[task.queries])),
        shares={name: float(one.sum() / n_found.sum()) for name, one in counts.items()},
        association=association,
        leave_out=leave_out,
        warning=" ".join(warning for warning in warnings if warning),
    )


@dataclass(frozen=True, slots=True)
class ChosenK:
    """A number of neighbours, and what it was chosen by.

    Attributes:
        k: of the best balanced accuracy; the smallest of several.
        balanced_accuracy: by k, of the plurality vote.
    """

    k: int
    balanced_accuracy: dict[int, float]


def choose_k(
    features: np.ndarray,
    classes: Column,
    patients: Column,
    slides: Column,
    *,
    leave_out: Literal["patient", "slide"] = "patient",
    grid: Sequence[int] = K_GRID,
    rule: VoteRule = "rank",
    max_queries: int = MAX_QUERIES,
    seed: int = 0,
) -> ChosenK:
    """The k at which neighbours tell the class best: mean recall over classes, under the index's own exclusion.

    To compare encoders, take one k for all: PathoROB takes the median over encoders of what each would choose.

    Args:
        features, classes, patients, slides, leave_out, max_queries, seed: as in `robustness_index`.
        grid: tried, as far as every query has so many allowed tiles.
        rule: of the vote; PathoROB's is `smallest`.

    Returns:
        `ChosenK`.

    Raises:
        EvaluationError: as `robustness_index`, or no k of the grid can be tried.
        StoreError: a vector is zero or not finite.
        ValueError: lengths differ or a k is below 1.
    """
    task = _task(features, Items.of(classes, patients, slides), leave_out, max_queries, seed)
    most = int(task.allowed_counts().sum(axis=1).min())
    tried = sorted({k for k in grid if k <= most})
    if not tried:
        raise EvaluationError(
            f"no number of neighbours in {sorted(grid)} can be tried: some tile has only {most} that may answer",
            _WHERE,
            "Try smaller numbers, or add patients.",
        )
    labels = task.codes[nearest_allowed("features", features, task, tried[-1]).ids]
    recalls = {k: _mean_recall(votes(labels[:, :k], rule=rule) == task.truth, task.truth) for k in tried}
    return ChosenK(max(recalls, key=lambda k: round(recalls[k], 12)), recalls)  # of equals the first, the smallest


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
    truth, centre = _coded(classes, rows, "class"), _coded(centres, rows, "centre")
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
    scores, association = runs[:, 0] - runs[:, 1], _association(truth, centre)
    warnings = [_confounded(association, "clusters of the one are then clusters of the other")]
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
        warning=" ".join(warning for warning in warnings if warning),
    )


def agreement(clusters: Column, classes: Column, centres: Column) -> tuple[float, float]:
    """Adjusted Rand index of one clustering with the classes and with the centres; three columns of equal length."""
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(classes, clusters)), float(adjusted_rand_score(centres, clusters))


def _task(
    features: np.ndarray, items: Items, leave_out: Literal["patient", "slide"], max_queries: int, seed: int
) -> Task:
    """The items' task, refused where the index cannot mean anything."""
    if len(features) != len(items):
        raise ValueError(f"{len(features)} rows of features for {len(items)} tiles")
    if leave_out not in ("patient", "slide"):  # without the centre nothing is of the same centre
        raise ValueError(f"leave_out must be patient or slide, got {leave_out!r}")
    task = make_task(items, leave_out=leave_out, max_queries=max_queries, seed=seed)
    _check_several(task.classes, "class")
    return task


def _null(task: Task, centre: np.ndarray, k: int) -> float:
    """Expected SO over expected SO + OS where each query draws min(k, n) of its n allowed tiles by lot."""
    n_allowed = _allowed(np.zeros_like(centre), task)
    both = _allowed(task.codes * (centre.max() + 1) + centre, task)
    other_centre, other_class = _allowed(task.codes, task) - both, _allowed(centre, task) - both
    drawn = np.minimum(k, n_allowed) / n_allowed
    below = float((drawn * (other_centre + other_class)).sum())
    return float((drawn * other_centre).sum()) / below if below > 0 else math.nan


def _allowed(codes: np.ndarray, task: Task) -> np.ndarray:
    """(Q,) how many tiles with the query's own code may answer it."""
    pairs = codes * (task.groups.max() + 1) + task.groups
    _, pair, n_inside = np.unique(pairs, return_inverse=True, return_counts=True)
    return (np.bincount(codes)[codes] - n_inside[pair])[task.queries]


def _association(classes: np.ndarray, centres: np.ndarray) -> float:
    """Cramer's V of two columns of codes 0, 1, .. that each occur: 0 independent, 1 the one tells the other."""
    from scipy.stats.contingency import association

    table = np.zeros((int(classes.max()) + 1, int(centres.max()) + 1), dtype=np.int64)
    np.add.at(table, (classes, centres), 1)
    return float(association(table, method="cramer"))


def _confounded(association: float, so: str) -> str:
    if association <= ASSOCIATED:
        return ""
    return (
        f"Class and centre go together in this cohort (Cramer's V {association:.2f}), so the figure is also one of how "
        f"the cohort was put together: {so}."
    )


def _mean_recall(is_right: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([is_right[truth == code].mean() for code in np.unique(truth)]))


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


def _coded(column: Column, rows: np.ndarray, word: str) -> np.ndarray:
    """(n,) int64 codes of some rows of a column, refused where they are all of one value."""
    names, codes = text_codes(column[row] for row in rows)
    _check_several(names, word)
    return codes


def _check_several(names: Sequence[str], word: str) -> None:
    if len(names) < 2:
        what = f"all tiles are of one {word} ({names[0]})" if names else f"no tile has a {word}"
        raise EvaluationError(
            f"{what}: whether they follow the class or the centre cannot be told",
            _WHERE,
            f"Add tiles of another {word}, or name another column.",
        )
