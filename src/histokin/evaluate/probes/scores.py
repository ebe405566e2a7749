"""Every metric of a probe as a function of cluster weights, so that intervals recompute it on whole clusters."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from histokin.evaluate.calibration import ece_statistic
from histokin.evaluate.comparison import Score
from histokin.evaluate.intervals import Interval, Statistic, mean_of_classes, ratio, wilson_interval
from histokin.evaluate.probes.outcome import Outcome, ProbeTask
from histokin.evaluate.retrieval import confusion, macro_f1_of

_BLOCK = 2**21  # numbers of a block of resamples
_LEAST_P = float(np.finfo(np.float64).eps)  # -ln of it is 36: what a class that was never predicted costs


@dataclass(frozen=True, slots=True)
class ClassFigure:
    """How one class fared.

    Attributes:
        name: the encoder's or floor's name.
        label: the class.
        n_rows: of it.
        n_clusters: they belong to.
        recall: share of its rows predicted as it.
        interval: of the recall.
        precision: share of the predictions of it that are right; NaN where it was never predicted.
        f1: 2 right / (predicted + true).
        auc: one against the rest.
    """

    name: str
    label: str
    n_rows: int
    n_clusters: int
    recall: float
    interval: Interval
    precision: float
    f1: float
    auc: float


@dataclass(frozen=True, slots=True)
class GroupFigure:
    """How one held-out group fared.

    Attributes:
        name: the encoder's or floor's name.
        group: its name.
        n_rows: of it.
        values: by metric, on its rows alone: accuracy and balanced_accuracy over the classes it holds, or r2 and
            spearman; NaN where undefined.
    """

    name: str
    group: str
    n_rows: int
    values: dict[str, float]


def probe_scores(task: ProbeTask, outcome: Outcome) -> tuple[Score, ...]:
    """All metrics of one outcome, the headline first.

    Classes: balanced_accuracy (mean recall), accuracy, macro_f1, macro_auc (mean one-against-rest area), nll (natural
    logarithms, p not below 2.2e-16), ece (15 equal bins); the last two of probabilities only. A resample that lacks a
    class leaves balanced_accuracy, macro_f1 and macro_auc undefined.
    Values: r2 = 1 - SSE / SST, spearman over all rows, spearman_within (mean over the groups of `within`).
    """
    return _class_scores(task, outcome) if task.classes else _value_scores(task, outcome)


def chance_levels(task: ProbeTask) -> dict[str, float]:
    """What is had without features: the commonest class always, its share; the shares as probabilities; the mean."""
    if not task.classes:
        return {"r2": 0.0, "spearman": 0.0, "spearman_within": 0.0}
    shares = np.array(list(task.prevalence.values()))
    most, n_classes = float(shares.max()), len(shares)
    return {
        "balanced_accuracy": 1 / n_classes,
        "accuracy": most,
        "macro_f1": 2 * most / (1 + most) / n_classes,
        "macro_auc": 0.5,
        "nll": float(-(shares * np.log(shares)).sum()),
    }


def _class_scores(task: ProbeTask, outcome: Outcome) -> tuple[Score, ...]:
    truth, clusters, ranked = task.truth, task.clusters, outcome.by_class
    if ranked is None:
        raise ValueError("an outcome of classes needs probabilities or margins")
    shape = (task.n_clusters, len(task.classes))
    right, predicted, true = confusion(truth, outcome.predicted, clusters, shape)
    sizes, n_rows, n_classes = true.sum(axis=1), len(task), len(task.classes)
    ranking = (
        Score("balanced_accuracy", mean_of_classes(right, true), (right / true.sum(axis=0)).sum(1) / n_classes),
        Score("accuracy", ratio(right.sum(axis=1), sizes), right.sum(axis=1) / n_rows, sizes),
        Score("macro_f1", macro_f1_of(right, predicted, true)),
        Score("macro_auc", macro_auc(ranked, truth, clusters, task.n_clusters)),
    )
    proba = outcome.probabilities
    if proba is None:
        return ranking
    nll = np.bincount(clusters, weights=-np.log(np.maximum(proba[np.arange(n_rows), truth], _LEAST_P)))
    return (
        *ranking,
        Score("nll", ratio(nll, sizes), nll / n_rows),
        Score("ece", ece_statistic(proba, truth, clusters, task.n_clusters)),
    )


def _value_scores(task: ProbeTask, outcome: Outcome) -> tuple[Score, ...]:
    y, p, clusters = task.truth, outcome.predicted, task.clusters
    squares = np.bincount(clusters, weights=(y - p) ** 2)
    total = float(((y - y.mean()) ** 2).sum())
    found = [
        Score("r2", r_squared(y, p, clusters), -squares / total),
        Score("spearman", partial(weighted_spearman, y, p, clusters)),
    ]
    if task.within is not None:
        found.append(_within_score(y, p, clusters, task.within, task.n_clusters))
    return tuple(found)


def macro_auc(probabilities: np.ndarray, truth: np.ndarray, clusters: np.ndarray, n_clusters: int) -> Statistic:
    """Mean over classes of P(a row of the class scores higher than another row), ties counting half.

    With U_pq the wins of cluster p's rows of the class over cluster q's other rows, the area under cluster weights w
    is w'Uw / ((w'n+) (w'n-)): exact on any resample, at (P, P) numbers a class.

    Args:
        probabilities: (N, C).
        truth: (N,) codes.
        clusters: (N,) codes.
        n_clusters: P.
    """
    areas = [
        _area(probabilities[:, code], truth == code, clusters, n_clusters) for code in range(probabilities.shape[1])
    ]

    def value(weights: np.ndarray) -> np.ndarray:
        return np.mean([area(weights) for area in areas], axis=0)

    return value


def _area(score: np.ndarray, is_own: np.ndarray, clusters: np.ndarray, n_clusters: int) -> Statistic:
    wins = np.zeros((n_clusters, n_clusters))
    own, own_clusters = score[is_own], clusters[is_own]
    for other in np.unique(clusters[~is_own]):
        rivals = np.sort(score[~is_own & (clusters == other)])
        beaten = np.searchsorted(rivals, own, "left") + np.searchsorted(rivals, own, "right")
        wins[:, other] = np.bincount(own_clusters, weights=beaten / 2, minlength=n_clusters)
    n_own = np.bincount(own_clusters, minlength=n_clusters).astype(np.float64)
    n_other = np.bincount(clusters[~is_own], minlength=n_clusters).astype(np.float64)

    def value(weights: np.ndarray) -> np.ndarray:
        pairs = (weights @ n_own) * (weights @ n_other)
        won = ((weights @ wins) * weights).sum(axis=1)
        return np.divide(won, pairs, out=np.full(len(won), np.nan), where=pairs > 0)

    return value


def r_squared(truth: np.ndarray, predicted: np.ndarray, clusters: np.ndarray) -> Statistic:
    """1 - SSE / SST about the mean of the resample's own rows; NaN where the values do not differ.

    Args:
        truth: (N,) float64.
        predicted: (N,) float64.
        clusters: (N,) codes.
    """
    y = truth - truth.mean()  # small numbers, so that the sum of squares minus the squared sum loses nothing
    n = np.bincount(clusters).astype(np.float64)
    first, second, errors = (np.bincount(clusters, weights=v) for v in (y, y**2, (truth - predicted) ** 2))

    def value(weights: np.ndarray) -> np.ndarray:
        total = weights @ second - (weights @ first) ** 2 / np.maximum(weights @ n, 1)
        is_defined = total > 1e-12 * np.maximum(weights @ second, np.finfo(np.float64).tiny)
        return 1 - np.divide(weights @ errors, total, out=np.full(len(weights), np.nan), where=is_defined)

    return value


def weighted_spearman(
    truth: np.ndarray, predicted: np.ndarray, clusters: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Spearman's rank correlation of each resample, its rows repeated as often as their cluster was drawn.

    Pearson's correlation of mid-ranks; 0 where the predictions are all alike (they rank nothing), NaN where the
    truth is.

    Args:
        truth: (N,) float64.
        predicted: (N,) float64.
        clusters: (N,) codes.
        weights: (B, P).

    Returns:
        (B,) float64.
    """
    ranks = [_rank_rule(values) for values in (truth, predicted)]
    step = max(1, _BLOCK // len(truth))
    parts = []
    for start in range(0, len(weights), step):
        times = weights[start : start + step][:, clusters]
        parts.append(_correlation(ranks[0](times), ranks[1](times), times))
    return np.concatenate(parts)


def _rank_rule(values: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """(b, N) multiplicities to (b, N) mid-ranks of the repeated rows (up to a constant)."""
    order = np.argsort(values, kind="stable")
    inverse = np.unique(values, return_inverse=True)[1]
    ends = np.flatnonzero(np.append(np.diff(values[order]) != 0, True))

    def ranks(times: np.ndarray) -> np.ndarray:
        reached = np.cumsum(times[:, order], axis=1)[:, ends]
        tied = np.diff(reached, axis=1, prepend=0)
        return (reached - tied / 2)[:, inverse]

    return ranks


def _correlation(truth: np.ndarray, predicted: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(b,) weighted Pearson correlation of (b, N) ranks."""
    n = np.maximum(times.sum(axis=1, keepdims=True), 1)
    x = truth - (truth * times).sum(axis=1, keepdims=True) / n
    y = predicted - (predicted * times).sum(axis=1, keepdims=True) / n
    xx, yy, xy = ((a * b * times).sum(axis=1) for a, b in ((x, x), (y, y), (x, y)))
    least = 1e-9  # ranks differ by half at least
    found = np.divide(xy, np.sqrt(xx * yy), out=np.zeros(len(xy)), where=(xx > least) & (yy > least))
    return np.where(xx > least, found, np.nan)


def _within_score(
    truth: np.ndarray, predicted: np.ndarray, clusters: np.ndarray, within: np.ndarray, n_clusters: int
) -> Score:
    """Mean over groups of Spearman's correlation inside each.

    A group counts in a resample as often as its rows were drawn on average: its cluster's multiplicity where it lies
    in one cluster. A group whose truth does not vary counts for nothing.
    """
    members = [np.flatnonzero(within == group) for group in np.unique(within[within >= 0])]
    if all(len(np.unique(clusters[rows])) == 1 for rows in members):
        value, own = np.zeros(n_clusters), np.zeros(n_clusters)
        for rows in members:
            rho = _spearman(truth[rows], predicted[rows])
            if math.isfinite(rho):
                value[clusters[rows[0]]] += rho
                own[clusters[rows[0]]] += 1
        return Score("spearman_within", ratio(value, own), value / max(1.0, own.sum()))

    def statistic(weights: np.ndarray) -> np.ndarray:
        above, below = np.zeros(len(weights)), np.zeros(len(weights))
        for rows in members:
            rho = weighted_spearman(truth[rows], predicted[rows], clusters[rows], weights)
            times = weights @ np.bincount(clusters[rows], minlength=n_clusters) / len(rows)
            is_defined = np.isfinite(rho)
            above += np.where(is_defined, rho * times, 0)
            below += np.where(is_defined, times, 0)
        return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)

    return Score("spearman_within", statistic)


def _spearman(truth: np.ndarray, predicted: np.ndarray) -> float:
    return float(weighted_spearman(truth, predicted, np.zeros(len(truth), dtype=np.int64), np.ones((1, 1)))[0])


def class_figures(name: str, task: ProbeTask, outcomes: tuple[Outcome, ...]) -> list[ClassFigure]:
    """One line a class; several outcomes (seeds of a floor) are averaged."""
    everyone, one = np.zeros(len(task), dtype=np.int64), np.ones((1, 1))
    counts = np.mean(
        [confusion(task.truth, o.predicted, everyone, (1, len(task.classes)))[:, 0] for o in outcomes], axis=0
    )
    lines = []
    for code, label in enumerate(task.classes):
        own = task.truth == code
        hits = np.mean([o.predicted == code for o in outcomes], axis=0)[own]
        clusters = np.unique(task.clusters[own], return_inverse=True)[1]
        sizes = np.bincount(clusters).astype(np.float64)
        areas = [_area(o.by_class[:, code], own, everyone, 1)(one)[0] for o in outcomes if o.by_class is not None]
        right, predicted, true = counts[:, code]
        lines.append(
            ClassFigure(
                name=name,
                label=label,
                n_rows=int(own.sum()),
                n_clusters=len(sizes),
                recall=float(hits.mean()),
                interval=wilson_interval(np.bincount(clusters, weights=hits), sizes, cluster=task.cluster),
                precision=float(right / predicted) if predicted > 0 else math.nan,
                f1=float(2 * right / (predicted + true)),
                auc=float(np.mean(areas)),
            )
        )
    return lines


def group_figures(name: str, task: ProbeTask, outcomes: tuple[Outcome, ...]) -> list[GroupFigure]:
    """One line a held-out group; several outcomes are averaged."""
    lines = []
    for code, group in enumerate(task.group_names):
        own = np.flatnonzero(task.groups == code)
        found = [_group_values(task, outcome, own) for outcome in outcomes]
        values = {metric: float(np.mean([one[metric] for one in found])) for metric in found[0]}
        lines.append(GroupFigure(name, group, len(own), values))
    return lines


def _group_values(task: ProbeTask, outcome: Outcome, rows: np.ndarray) -> dict[str, float]:
    truth, predicted, one = task.truth[rows], outcome.predicted[rows], np.ones((1, 1))
    together = np.zeros(len(rows), dtype=np.int64)
    if not task.classes:
        return {
            "r2": float(r_squared(truth, predicted, together)(one)[0]),
            "spearman": _spearman(truth, predicted),
        }
    right, _, true = confusion(truth, predicted, together, (1, len(task.classes)))
    return {
        "balanced_accuracy": float(mean_of_classes(right, true)(one)[0]),
        "accuracy": float((truth == predicted).mean()),
    }
