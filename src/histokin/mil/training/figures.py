"""What out-of-fold predictions are worth: figures with patient intervals, of the ensemble, its members and floors."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.evaluate.comparison import Figure, Row, Score, compare_scores
from histokin.evaluate.intervals import Statistic, patient_weights
from histokin.evaluate.items import text_codes
from histokin.evaluate.probes.folds import Split
from histokin.evaluate.probes.outcome import Outcome, ProbeTask
from histokin.evaluate.probes.scores import chance_levels, macro_auc, probe_scores
from histokin.mil.training.targets import Kind

ENSEMBLE = "ensemble"


@dataclass(frozen=True, slots=True)
class Spread:
    """How single models scored: each of one seed and one inner split, its folds pooled.

    Attributes:
        metric: its name.
        mean: over the models.
        sd: over them (ddof 1), NaN of one: how much training's randomness matters. It is no interval.
        n: models.
    """

    metric: str
    mean: float
    sd: float
    n: int


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """N predictions with their truth.

    Attributes:
        kind: of the targets.
        names: of the classes or labels.
        truth: (N, ...) as in `Targets.values`.
        patients: (N,) texts, the unit of inference.
        folds: (N,) int64.
    """

    kind: Kind
    names: tuple[str, ...]
    truth: NDArray[Any]
    patients: NDArray[np.object_]
    folds: NDArray[np.int64]

    @property
    def task(self) -> ProbeTask:
        """The same as probes have it: what floors are fitted on, fold by fold."""
        names, clusters = text_codes(self.patients)
        truth = self.truth[:, 0] if self.kind == "survival" else self.truth
        return ProbeTask(
            rows=np.arange(len(truth)),
            truth=truth,
            classes=self.names if self.kind == "classes" else (),
            groups=clusters,
            group_names=tuple(names),
            fold=self.folds,
            clusters=clusters,
            cluster="patient",
            within=None,
            split=Split(),
            n_unlabelled=0,
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Classes that no row has: figures of the others alone would be of another question."""
        if self.kind != "classes":
            return ()
        return tuple(name for code, name in enumerate(self.names) if code not in self.truth)

    def scores(self, told: NDArray[np.float64]) -> tuple[Score, ...]:
        """All metrics of (N, P) predictions.

        Classes: balanced_accuracy, accuracy, macro_f1, macro_auc, nll, ece of argmax and probabilities. Labels:
        macro_auc, the mean over labels. Survival: c_index. Values: r2, spearman, mae, pearson.
        """
        match self.kind:
            case "classes":
                return probe_scores(self.task, Outcome(told.argmax(axis=1), told, ()))
            case "labels":
                return (Score("macro_auc", self._label_auc(told)),)
            case "survival":
                clusters = self.task.clusters
                return (Score("c_index", concordance(told[:, 0], self.truth[:, 0], self.truth[:, 1] > 0, clusters)),)
            case "value":
                value = told[:, 0]
                clusters, truth = self.task.clusters, np.asarray(self.truth, dtype=np.float64)
                return (
                    *probe_scores(self.task, Outcome(value, None, ())),
                    Score("mae", partial(_weighted_mean, np.abs(value - truth), clusters)),
                    Score("pearson", partial(_weighted_pearson, value, truth, clusters)),
                )

    def figures(self, rows: Mapping[str, NDArray[np.float64]], *, seed: int = 0) -> tuple[Figure, ...]:
        """All metrics of several predictions of the same slides, each with interval and paired lead of the first.

        Args:
            rows: (N, P) by name; the first is the reference, the others are floors or models to compare it with.
            seed: of the resamples.
        """
        task = self.task
        scored = [
            Row(name, "encoder" if name == ENSEMBLE else "floor", self.scores(told)) for name, told in rows.items()
        ]
        strata = task.strata if self.kind == "classes" else None
        chance = {"macro_auc": 0.5, "c_index": 0.5} if self.kind in ("labels", "survival") else chance_levels(task)
        weights = patient_weights(task.n_clusters, seed=seed, strata=strata)
        return compare_scores(
            scored, reference=next(iter(rows)), weights=weights, cluster="patient", chance=chance, seed=seed
        )

    def spread(self, told: NDArray[np.float64]) -> tuple[Spread, ...]:
        """Mean and spread over (M, N, P) single models."""
        n_clusters = self.task.n_clusters
        values: dict[str, list[float]] = {}
        for one in told:
            for score in self.scores(one):
                values.setdefault(score.metric, []).append(score.value(n_clusters))
        return tuple(
            Spread(
                metric, float(np.mean(found)), float(np.std(found, ddof=1)) if len(found) > 1 else np.nan, len(found)
            )
            for metric, found in values.items()
        )

    def by_patient(self, told: NDArray[np.float64], how: str) -> tuple["Judged", NDArray[np.float64], tuple[str, ...]]:
        """One row a patient and fold: the mean of its slides' predictions, or their largest.

        Args:
            told: (N, P).
            how: mean, or max: of each class the largest, made to sum to 1 again.

        Returns:
            The patients, their (n, P) predictions, and the names of those left out since their slides differ in truth.
        """
        names, patient = text_codes(self.patients)
        _, unit = np.unique(np.stack([self.folds, patient], axis=1), axis=0, return_inverse=True)
        unit = unit.ravel()
        kept, values, left_out = [], [], []
        for number in range(int(unit.max()) + 1):
            own = np.flatnonzero(unit == number)
            if any(
                not np.array_equal(self.truth[own[0]], truth, equal_nan=self.kind != "classes")
                for truth in self.truth[own]
            ):
                left_out.append(names[patient[own[0]]])
                continue
            joined = told[own].max(axis=0) if how == "max" else told[own].mean(axis=0)
            if self.kind == "classes":
                joined = joined / joined.sum()
            kept.append(own[0])
            values.append(joined)
        rows = np.array(kept, dtype=np.int64)
        found = Judged(self.kind, self.names, self.truth[rows], self.patients[rows], self.folds[rows])
        return found, np.array(values).reshape(len(rows), told.shape[1]), tuple(left_out)

    def _label_auc(self, told: NDArray[np.float64]) -> Statistic:
        clusters, n_clusters = self.task.clusters, self.task.n_clusters
        areas = []
        for label in range(len(self.names)):
            known = np.flatnonzero(~np.isnan(self.truth[:, label]))
            p, truth = told[known, label], self.truth[known, label].astype(np.int64)
            if 0 < truth.sum() < len(truth):
                areas.append(macro_auc(np.stack([1 - p, p], axis=1), truth, clusters[known], n_clusters))

        def value(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.mean([area(weights) for area in areas], axis=0) if areas else np.full(len(weights), np.nan)

        return value


def concordance(
    risk: NDArray[np.float64], time: NDArray[np.float64], is_event: NDArray[np.bool_], clusters: NDArray[np.int64]
) -> Statistic:
    """Harrell's C: of the pairs whose order is known, the share where the earlier event has the higher risk.

    Ordered pair (i, j) is comparable if i has an event and t_j > t_i, or t_j = t_i and j is censored; equal risks
    count half.

    Args:
        risk, time, is_event: (N,).
        clusters: (N,) codes 0..P-1.
    """
    later = time[None, :] > time[:, None]
    tied = (time[None, :] == time[:, None]) & ~is_event[None, :]
    comparable = is_event[:, None] & (later | tied)
    won = (risk[:, None] > risk[None, :]) + 0.5 * (risk[:, None] == risk[None, :])
    n_clusters = int(clusters.max()) + 1
    of_cluster = np.zeros((n_clusters, len(risk)))
    of_cluster[clusters, np.arange(len(risk))] = 1
    wins = of_cluster @ (comparable * won) @ of_cluster.T
    pairs = of_cluster @ comparable.astype(np.float64) @ of_cluster.T

    def value(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        above = ((weights @ wins) * weights).sum(axis=1)
        below = ((weights @ pairs) * weights).sum(axis=1)
        return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)

    return value


def _weighted_mean(
    values: NDArray[np.float64], clusters: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    each = weights[:, clusters]
    return (each @ values) / each.sum(axis=1)


def _weighted_pearson(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    clusters: NDArray[np.int64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:
    each = weights[:, clusters] / weights[:, clusters].sum(axis=1, keepdims=True)
    a, b = first - (each @ first)[:, None], second - (each @ second)[:, None]
    spread = np.sqrt((each * a**2).sum(axis=1) * (each * b**2).sum(axis=1))
    return np.divide((each * a * b).sum(axis=1), spread, out=np.full(len(each), np.nan), where=spread > 0)
