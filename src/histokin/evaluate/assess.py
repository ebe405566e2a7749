"""From neighbours to results: every metric of every row, with interval, chance, null and paired difference."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from histokin.evaluate import chance
from histokin.evaluate.comparison import Score, score_interval
from histokin.evaluate.intervals import (
    Interval,
    Statistic,
    mean_of_classes,
    patient_weights,
    ratio,
    wilson_interval,
)
from histokin.evaluate.items import Items, Task
from histokin.evaluate.results import ClassResult, Evaluation, Result
from histokin.evaluate.retrieval import (
    Retrieved,
    acc_at_k,
    ap_at_k,
    confusion,
    macro_f1,
    macro_f1_at_k,
    macro_f1_of,
    mean_over,
    mmv_at_k,
    precision_at_k,
)
from histokin.search import Neighbours
from histokin.search.votes import VoteRule, votes
from histokin.streams import stream

N_PERMUTATIONS = 200
_RANDOM_ORDERS = 100  # draws for the chance level of macro-F1, which has no closed form


@dataclass(frozen=True, slots=True)
class Ranked:
    """One row of the table to be: what an encoder or floor found; several lists for several seeds."""

    name: str
    kind: Literal["encoder", "floor"]
    distance: str
    found: tuple[Neighbours, ...]
    strategy: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """acc, mmv, p, map or macro_f1 at k."""

    kind: Literal["acc", "mmv", "p", "map", "macro_f1"]
    k: int
    rule: VoteRule

    @property
    def name(self) -> str:
        return f"{self.kind}@{self.k}"

    @property
    def vote(self) -> str:
        return {"mmv": self.rule, "macro_f1": "rank"}.get(self.kind, "")

    @property
    def is_hit_rate(self) -> bool:
        return self.kind in ("acc", "mmv")

    def values(self, frame: Retrieved) -> np.ndarray:
        """(Q,) per-query values; macro_f1 has none."""
        if self.kind == "acc":
            return acc_at_k(frame, self.k)
        if self.kind == "mmv":
            return mmv_at_k(frame, self.k, rule=self.rule)
        return precision_at_k(frame, self.k) if self.kind == "p" else ap_at_k(frame, self.k)


def metrics_of(ks: Sequence[int], rule: VoteRule) -> list[Metric]:
    """Acc@k and macro-F1 for each k, the vote for each k > 1, P and AP at the largest."""
    ordered = sorted(set(ks))
    most = ordered[-1]
    listed = [Metric("acc", k, rule) for k in ordered]
    listed += [Metric("mmv", k, rule) for k in ordered if k > 1]
    if most > 1:
        listed += [Metric("p", most, rule), Metric("map", most, rule)]
    return listed + [Metric("macro_f1", k, rule) for k in ordered]


def assess(
    task: Task,
    items: Items,
    ranked: Sequence[Ranked],
    *,
    ks: Sequence[int],
    rule: VoteRule,
    level: Literal["tile", "slide"],
    reference: str,
    seed: int,
    protocol: dict[str, Any],
    warnings: tuple[str, ...],
) -> Evaluation:
    """Turn what was found into an `Evaluation`; see `protocol.evaluate_retrieval`."""
    metrics = metrics_of(ks, rule)
    weights = patient_weights(task.n_clusters, seed=seed)
    frames = [tuple(task.frame(found) for found in row.found) for row in ranked]
    some = frames[0][0]  # what may be answered is the same for all rows
    sizes = np.bincount(task.clusters).astype(np.float64)
    levels = [chance_of(task, some, metric, seed) for metric in metrics]
    results: list[Result] = []
    scores: dict[tuple[str, str], tuple[Score, ...]] = {}
    for row, parts in zip(ranked, frames, strict=True):
        null = _nulls(task, row, metrics, seed)
        estimates = [_Estimate.of(task, parts, metric, sizes) for metric in metrics]
        scores[row.name, row.strategy] = tuple(one.score for one in estimates)
        results.extend(
            Result(
                name=row.name,
                kind=row.kind,
                level=level,
                strategy=row.strategy,
                distance=row.distance,
                metric=metric.name,
                vote=metric.vote,
                leave_out=task.leave_out,
                **estimate.columns(weights, task),
                n_queries=len(task.queries),
                n_patients=len(np.unique(task.patients[task.queries])),
                n_unanswerable=int((some.n_relevant == 0).sum()),
                prevalence=task.prevalence,
                chance=levels[m],
                null=None if null is None else float(null[m]),
                delta=None,
            )
            for m, (metric, estimate) in enumerate(zip(metrics, estimates, strict=True))
        )
    headline = {Metric("acc", min(ks), rule), Metric("mmv", max(ks), rule)}
    per_class = tuple(
        line
        for row, parts in zip(ranked, frames, strict=True)
        for metric in metrics
        if metric in headline
        for line in _by_class(task, row, parts, metric)
    )
    evaluation = Evaluation(
        results=tuple(results),
        per_class=per_class,
        protocol=protocol,
        warnings=warnings + _unanswerable(task, some),
        reference=reference,
        scores=scores,
        frames={
            (row.name if not row.strategy else f"{row.name} ({row.strategy})"): parts
            for row, parts in zip(ranked, frames, strict=True)
        },
        items=items,
        task=task,
    )
    return replace(evaluation, results=evaluation.against(reference))


@dataclass(frozen=True, slots=True)
class _Estimate:
    """A metric of one row as functions of patient weights."""

    score: Score
    by_class: Statistic
    macro_patients: float

    @classmethod
    def of(cls, task: Task, frames: tuple[Retrieved, ...], metric: Metric, sizes: np.ndarray) -> "_Estimate":
        if metric.kind == "macro_f1":
            value = _f1_statistic(task, frames, metric.k)
            return cls(Score(metric.name, value), value, float("nan"))
        values = _mean_values(frames, metric)
        hits = np.bincount(task.clusters, weights=values, minlength=len(sizes))
        shape = (len(sizes), len(task.classes))
        class_hits, class_sizes = np.zeros(shape), np.zeros(shape)
        np.add.at(class_hits, (task.clusters, task.truth), values)
        np.add.at(class_sizes, (task.clusters, task.truth), 1)
        return cls(
            Score(metric.name, ratio(hits, sizes), hits / sizes.sum(), sizes if metric.is_hit_rate else None),
            mean_of_classes(class_hits, class_sizes),
            mean_over(values, task.patients[task.queries]),
        )

    def columns(self, weights: np.ndarray, task: Task) -> dict[str, Any]:
        """The fields of a `Result` that come from here."""
        of_classes = Score(self.score.metric, self.by_class)
        return {
            "value": self.score.value(task.n_clusters),
            "interval": score_interval(self.score, weights, cluster=task.cluster),
            "macro_classes": of_classes.value(task.n_clusters),
            "macro_classes_interval": score_interval(of_classes, weights, cluster=task.cluster),
            "macro_patients": self.macro_patients,
        }


def _mean_values(frames: tuple[Retrieved, ...], metric: Metric) -> np.ndarray:
    """(Q,) per-query values, averaged over the repeats of a floor."""
    return np.mean([metric.values(frame) for frame in frames], axis=0)


def _f1_statistic(task: Task, frames: tuple[Retrieved, ...], k: int) -> Statistic:
    """Macro-F1 over the classes of the queries, as a function of patient weights."""
    shape = (task.n_clusters, len(task.classes))
    members = [macro_f1_of(*confusion(frame.truth, votes(frame.first(k)), task.clusters, shape)) for frame in frames]

    def value(weights: np.ndarray) -> np.ndarray:
        return np.mean([member(weights) for member in members], axis=0)

    return value


def chance_of(task: Task, frame: Retrieved, metric: Metric, seed: int) -> float:
    """What a random order of the allowed rows is expected to reach; for macro-F1 the mean of 100 random orders."""
    if metric.kind == "acc":
        return float(chance.chance_acc(frame.n_allowed, frame.n_relevant, metric.k).mean())
    if metric.kind == "p":
        return float(chance.chance_precision(frame.n_allowed, frame.n_relevant, metric.k).mean())
    if metric.kind == "map":
        return float(chance.chance_ap(frame.n_allowed, frame.n_relevant, metric.k).mean())
    if metric.kind == "mmv":
        return float(_chance_of_votes(task, metric.k, metric.rule).mean())
    rng = stream(seed, "random-order", metric.k)
    right = [_random_f1(task, metric.k, rng) for _ in range(_RANDOM_ORDERS)]
    return float(np.mean(right))


def _chance_of_votes(task: Task, k: int, rule: str) -> np.ndarray:
    """(Q,) exact chance, computed once for each pair of allowed counts and true class."""
    if rule not in ("rank", "strict", "anytie"):
        return np.full(len(task.queries), np.nan)  # fish and smallest have no exact form here
    asked = np.column_stack([task.allowed_counts(), task.truth])
    distinct, which = np.unique(asked, axis=0, return_inverse=True)
    return chance.chance_mmv(distinct[:, :-1], distinct[:, -1], k, rule=rule)[which.ravel()]


def _random_f1(task: Task, k: int, rng: np.random.Generator) -> float:
    """Macro-F1 of the first k of one random order of each query's allowed candidates."""
    left = task.allowed_counts().astype(np.float64)
    drawn = np.full((len(left), k), -1, dtype=np.int64)
    everyone = np.arange(len(left))
    for place in range(k):
        stops = np.cumsum(left, axis=1)
        label = (rng.random(len(left))[:, None] * stops[:, -1:] >= stops).sum(axis=1)
        is_left = stops[:, -1] > 0
        drawn[is_left, place] = label[is_left]
        left[everyone[is_left], label[is_left]] -= 1
    one = np.zeros(len(drawn), dtype=np.int64)
    right, predicted, true = confusion(task.truth, votes(drawn), one, (1, len(task.classes)))[:, 0]
    return float(macro_f1(right, predicted, true))


def _nulls(task: Task, row: Ranked, metrics: list[Metric], seed: int) -> np.ndarray | None:
    """(metrics,) mean of each metric over exchanges of whole patients' labels, or None.

    Across a split only patients of one role are exchanged: classes that are rarer among the queries than in the
    database stay so.
    """

    def statistic(codes: np.ndarray) -> np.ndarray:
        frames = tuple(task.frame(found, codes) for found in row.found)
        return np.array([_plain_value(frames, metric) for metric in metrics])

    roles = task.roles(task.patients)
    drawn = chance.permuted_null(statistic, task.codes, task.patients, roles=roles, n=N_PERMUTATIONS, seed=seed)
    return None if drawn is None else drawn.mean(axis=0)


def _plain_value(frames: tuple[Retrieved, ...], metric: Metric) -> float:
    if metric.kind != "macro_f1":
        return float(_mean_values(frames, metric).mean())
    return float(np.mean([macro_f1_at_k(frame, metric.k) for frame in frames]))


def _by_class(task: Task, row: Ranked, frames: tuple[Retrieved, ...], metric: Metric) -> list[ClassResult]:
    """One line a class."""
    values = _mean_values(frames, metric)
    if metric.kind == "acc":
        blind = chance.chance_acc(frames[0].n_allowed, frames[0].n_relevant, metric.k)
    else:
        blind = _chance_of_votes(task, metric.k, metric.rule)
    lines = []
    for code, label in enumerate(task.classes):
        own = task.truth == code
        if not own.any():
            continue
        _, clusters = np.unique(task.clusters[own], return_inverse=True)
        interval: Interval = wilson_interval(
            np.bincount(clusters, weights=values[own]), np.bincount(clusters).astype(np.float64), cluster=task.cluster
        )
        n_patients = len(np.unique(task.patients[task.queries][own]))
        lines.append(
            ClassResult(
                row.name,
                row.strategy,
                metric.name,
                label,
                float(values[own].mean()),
                interval,
                int(own.sum()),
                n_patients,
                float(blind[own].mean()),
            )
        )
    return lines


def _unanswerable(task: Task, frame: Retrieved) -> tuple[str, ...]:
    """The ceiling that classes of a single group put on every figure."""
    missing = frame.n_relevant == 0
    if not missing.any():
        return ()
    names = sorted({task.classes[code] for code in np.unique(frame.truth[missing])})
    share = f"{int(missing.sum())} of {len(frame)} queries cannot be answered"
    where = f"no candidate outside their own {task.leave_out} carries {', '.join(names)}"
    return (f"{share}: {where}. They count as misses; the ceiling is {1 - missing.mean():.3f}.",)
