"""Figures of several encoders and floors on the same rows: intervals, and paired differences on the same draws.

A measure hands over a `Score`, its value as a function of cluster weights; everything else follows from that.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.intervals import (
    Difference,
    Interval,
    Statistic,
    bootstrap_interval,
    holm,
    paired_interval,
    swap_test,
    wilson_interval,
)

Kind = Literal["encoder", "floor"]


@dataclass(frozen=True, slots=True)
class Score:
    """One metric of one set of features.

    Attributes:
        metric: its name.
        statistic: (B, P) cluster weights to (B,) values; NaN where a resample does not define the metric.
        added: (P,) what each cluster adds to the value where the value is such a sum, up to a constant that is the
            same for all features; None where it is no sum, and then there is no swap test.
        sizes: (P,) rows of each cluster where the metric is the share of rows that are right (its interval is
            Wilson's); None otherwise.
    """

    metric: str
    statistic: Statistic
    added: np.ndarray | None = None
    sizes: np.ndarray | None = None

    def value(self, n_clusters: int) -> float:
        """The estimate itself: every cluster once."""
        return float(self.statistic(np.ones((1, n_clusters)))[0])


@dataclass(frozen=True, slots=True)
class Figure:
    """One metric of one encoder or floor.

    Attributes:
        name: the encoder's or floor's name.
        kind: encoder or floor.
        metric: such as balanced_accuracy.
        value: on all rows, never a bootstrap mean.
        interval: of it.
        chance: what is had without features; NaN where there is no such level.
        delta: the reference encoder minus this row, on the same resampled clusters; None for the reference itself.
    """

    name: str
    kind: Kind
    metric: str
    value: float
    interval: Interval
    chance: float
    delta: Difference | None


def check_rows(encoders: Mapping[str, Any], floors: Mapping[str, Any] | None, reference: str | None) -> str:
    """The reference's name, by default the first encoder's, once the names have been found to be names of one row each.

    Raises:
        EvaluationError: there is no encoder.
        ValueError: the reference is none of them, or a floor has an encoder's name.
    """
    if not encoders:
        raise EvaluationError("there is no encoder to evaluate", "evaluation", "Embed the tiles first.")
    both = set(encoders) & set(floors or {})
    if both:
        raise ValueError(f"{', '.join(sorted(both))} is both an encoder and a floor")
    if reference is None:
        return next(iter(encoders))
    if reference not in encoders:
        raise ValueError(f"reference {reference!r} is none of the encoders {', '.join(encoders)}")
    return reference


def place_of(reference: str, names: Sequence[str]) -> int:
    """Where the reference stands among the rows.

    Raises:
        KeyError: it is none of them; they are named.
    """
    if reference not in names:
        raise KeyError(f"no row {reference!r}; there are {', '.join(names)}")
    return list(names).index(reference)


def find_figure(figures: Sequence[Figure], name: str, metric: str) -> Figure:
    """One metric of one row.

    Raises:
        KeyError: there is none; the known ones are named.
    """
    for found in figures:
        if (found.name, found.metric) == (name, metric):
            return found
    raise KeyError(f"no figure {metric} of {name}; there are {sorted({(f.name, f.metric) for f in figures})}")


@dataclass(frozen=True, slots=True)
class Row:
    """What one encoder or floor scored; a floor of several seeds is the mean of its members' scores."""

    name: str
    kind: Kind
    scores: tuple[Score, ...]


def mean_scores(members: Sequence[tuple[Score, ...]]) -> tuple[Score, ...]:
    """Metric by metric the mean of members that were scored on the same rows."""
    if len(members) == 1:
        return members[0]
    return tuple(_mean_score(same) for same in zip(*members, strict=True))


def compare_scores(
    rows: Sequence[Row],
    *,
    reference: str,
    weights: np.ndarray,
    cluster: str,
    chance: Mapping[str, float],
    seed: int = 0,
) -> tuple[Figure, ...]:
    """Every metric of every row with its interval and the reference's lead; Holm over the rows of a metric.

    Args:
        rows: scored on the same rows of data and the same clusters, the same metrics in the same order.
        reference: name of the row that others are compared with.
        weights: (B, P) of `intervals.patient_weights`, the same for all.
        cluster: the word for what was resampled.
        chance: by metric; a metric that is missing has none.
        seed: of the swap test's signs.

    Returns:
        Row by row, metric by metric.
    """
    main = place_of(reference, [row.name for row in rows])
    n_metrics = len(rows[main].scores)
    found: dict[tuple[int, int], Figure] = {}
    for m in range(n_metrics):
        scores = [_drawn_once(row.scores[m], weights) for row in rows]
        deltas = differences(scores, main, weights, cluster=cluster, seed=seed)
        for i, (row, score, delta) in enumerate(zip(rows, scores, deltas, strict=True)):
            found[i, m] = Figure(
                row.name,
                row.kind,
                score.metric,
                score.value(weights.shape[1]),
                score_interval(score, weights, cluster=cluster),
                chance.get(score.metric, math.nan),
                delta,
            )
    return tuple(found[i, m] for i in range(len(rows)) for m in range(n_metrics))


def differences(
    scores: Sequence[Score], main: int, weights: np.ndarray, *, cluster: str, seed: int
) -> list[Difference | None]:
    """The score at `main` minus each, None for itself; the swap test's p are adjusted by Holm over the others."""
    reference, n_clusters = scores[main], weights.shape[1]
    deltas: list[Difference | None] = []
    for i, other in enumerate(scores):
        if i == main:
            deltas.append(None)
            continue
        p = math.nan
        if reference.added is not None and other.added is not None:
            p = swap_test(reference.added - other.added, seed=seed)
        interval = paired_interval(reference.statistic, other.statistic, weights, cluster=cluster)
        deltas.append(Difference(reference.value(n_clusters) - other.value(n_clusters), interval, p))
    adjusted = iter(holm([delta.p for delta in deltas if delta is not None]))
    return [None if delta is None else replace(delta, p_holm=next(adjusted)) for delta in deltas]


def score_interval(score: Score, weights: np.ndarray, *, cluster: str) -> Interval:
    """Wilson with design effect for a share of rows, else the cluster bootstrap; lost draws are counted in the note."""
    if score.sizes is not None and score.added is not None:
        return wilson_interval(score.added * score.sizes.sum(), score.sizes, cluster=cluster)
    interval = bootstrap_interval(score.statistic, weights, cluster=cluster)
    n_lost = int((~np.isfinite(score.statistic(weights))).sum())
    if not n_lost or not math.isfinite(interval.low):
        return interval
    lost = f"{n_lost} of {len(weights)} draws left out, undefined"
    return replace(interval, note=f"{interval.note}; {lost}" if interval.note else lost)


def _drawn_once(score: Score, weights: np.ndarray) -> Score:
    """The same score that answers for these very weights from memory: intervals and differences ask repeatedly."""
    draws = score.statistic(weights)

    def statistic(asked: np.ndarray) -> np.ndarray:
        return draws if asked is weights else score.statistic(asked)

    return replace(score, statistic=statistic)


def _mean_score(members: tuple[Score, ...]) -> Score:
    added = [member.added for member in members if member.added is not None]

    def statistic(weights: np.ndarray) -> np.ndarray:
        return np.mean([member.statistic(weights) for member in members], axis=0)

    return replace(
        members[0], statistic=statistic, added=np.mean(added, axis=0) if len(added) == len(members) else None
    )
