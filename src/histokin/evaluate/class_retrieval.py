"""Tumour retrieval and its like: how often a class's tiles find their own class in other patients, class by class."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from histokin.artefacts import plain
from histokin.errors import EvaluationError
from histokin.evaluate.chance import chance_acc
from histokin.evaluate.comparison import (
    Figure,
    Kind,
    Row,
    Score,
    check_rows,
    compare_scores,
    find_figure,
    mean_scores,
)
from histokin.evaluate.floors import floor_distance
from histokin.evaluate.intervals import N_DRAWS, patient_weights, ratio
from histokin.evaluate.items import Items, LeaveOut, Mask, Task, make_task, sample_queries
from histokin.evaluate.protocol import MAX_QUERIES, exclusion_warnings
from histokin.evaluate.vectors import nearest_allowed
from histokin.progress import Reporter, silent
from histokin.search import Neighbours

_WHERE = "evaluation"

Features = np.ndarray | Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class ClassRetrieval:
    """How often the nearest tile of another patient is of the query's class, one figure a class.

    Attributes:
        figures: row by row, class by class; `metric` is the class, `chance` that of a random allowed tile.
        n_queries: by class.
        n_patients: by class, of its queries.
        prevalence: by class, its share among all labelled items that ask or answer.
        protocol: everything needed to repeat it; under `lift` value / chance, by row and class.
        warnings: sentences a reader must see beside the figures.
        reference: name of the encoder that others are compared with.
        scored: by class, what each row scored, for other references.
    """

    figures: tuple[Figure, ...]
    n_queries: Mapping[str, int]
    n_patients: Mapping[str, int]
    prevalence: Mapping[str, float]
    protocol: dict[str, Any]
    warnings: tuple[str, ...]
    reference: str
    scored: Mapping[str, tuple[Row, ...]]

    def against(self, reference: str) -> tuple[Figure, ...]:
        """All figures, the others compared with another reference; Holm over the rows of a class."""
        return _figures(self.scored, reference, self.protocol)

    def figure(self, label: str, name: str | None = None) -> Figure:
        """One class of one row, by default of the reference.

        Raises:
            KeyError: there is none; the known ones are named.
        """
        return find_figure(self.figures, self.reference if name is None else name, label)

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""
        return plain(
            {
                "protocol": self.protocol,
                "warnings": self.warnings,
                "reference": self.reference,
                "figures": self.figures,
                "n_queries": self.n_queries,
                "n_patients": self.n_patients,
                "prevalence": self.prevalence,
            }
        )


def retrieve_classes(
    encoders: Mapping[str, np.ndarray],
    items: Items,
    *,
    floors: Mapping[str, Features] | None = None,
    reference: str | None = None,
    leave_out: LeaveOut = "patient",
    queries: Mask | None = None,
    database: Mask | None = None,
    classes: Sequence[str] | None = None,
    max_queries: int = MAX_QUERIES,
    seed: int = 0,
    clusters: Sequence[Any] | np.ndarray | None = None,
    cluster: str = "cluster",
    progress: Reporter = silent,
) -> ClassRetrieval:
    """Of each class's tiles, the share whose nearest allowed tile carries the class (Gildenblat & Klaiman 2019).

    They asked with the tumour tiles of Camelyon16 and left out the query's slide; here the patient is left out. Chance
    is exact: the mean over the class's queries of the share of it among the tiles that may answer,

        chance_c = mean_{i of c} R_i / N_i

    so a figure says little without it: 30 % is much of a class that holds 3 % of the tissue and nothing of one that
    holds 30. Queries whose class no allowed tile has are misses.

    Args:
        encoders: (N, D) features by name, ranked by cosine.
        items: labels, patients, slides, sites and regions of the N rows; all labelled ones may answer, whatever is
            asked, unless `database` says which.
        floors: features by the floors' names, ranked as `floor_distance` says; a list of arrays counts as the mean of
            its members query by query.
        reference: the encoder others are compared with; by default the first.
        leave_out, queries, database: who asks and whose tiles are candidates, as in `evaluate_retrieval`.
        classes: those asked about; by default all that queries have.
        max_queries: more are sampled, equally per class and within it per patient.
        seed: of query sampling, bootstrap and swap test.
        clusters: (N,) another unit of inference than the patient, see `items.make_task`.
        cluster: its word.
        progress: told each row.

    Returns:
        `ClassRetrieval`.

    Raises:
        EvaluationError: the protocol cannot be carried out on these items, or a class asked about has none.
        StoreError: a vector is zero or not finite; names encoder and row.
        ValueError: shapes or names do not fit.
    """
    main = check_rows(encoders, floors, reference)
    whole = make_task(
        items,
        leave_out=leave_out,
        max_queries=len(items),
        seed=seed,
        clusters=clusters,
        cluster=cluster,
        queries=queries,
        database=database,
    )
    codes = _asked_codes(whole, classes)
    asking = np.flatnonzero(np.isin(whole.truth, codes))
    chosen = asking[_drawn(whole, items, asking, max_queries, seed)]
    task = replace(
        whole,
        queries=whole.queries[chosen],
        clusters=whole.clusters[chosen],
        is_sampled=len(chosen) < len(asking),
    )
    asked = [_AskedClass.of(task, code) for code in codes]
    scored: dict[str, list[Row]] = {one.label: [] for one in asked}
    distances: dict[str, str] = {}
    members: dict[str, int] = {}
    rows: list[tuple[str, Kind, Features]] = []
    rows.extend((name, "encoder", x) for name, x in encoders.items())
    rows.extend((name, "floor", x) for name, x in (floors or {}).items())
    with progress("evaluate", len(rows), "rows") as line:
        for name, kind, features in rows:
            metric, is_scaled = floor_distance(name) if kind == "floor" else ("cosine", False)
            is_right = [
                _is_right(
                    nearest_allowed(name, _checked(name, x, len(items)), task, 1, metric, is_scaled=is_scaled), task
                )
                for x in ([features] if isinstance(features, np.ndarray) else features)
            ]
            for one in asked:
                scored[one.label].append(Row(name, kind, mean_scores([(one.score(right),) for right in is_right])))
            distances[name], members[name] = metric + (", z-scored" if is_scaled else ""), len(is_right)
            line.advance(1, name)
    n_relevant, chance = _chances(task)
    protocol = {
        "measure": "class of the nearest tile",
        "k": 1,
        "leave_out": leave_out,
        "order": "score descending, then row ascending",
        "chance": {one.label: float(chance[one.rows].mean()) for one in asked},
        "classes": list(task.classes),
        "n_labelled": len(task.rows) + task.n_outside,
        "n_unlabelled": task.n_unlabelled,
        "query_sampling": f"equal per class, then per patient, at most {max_queries}" if task.is_sampled else "all",
        **task.sides,
        "distances": distances,
        "members": members,
        "cluster": task.cluster,
        "n_clusters_of": {one.label: len(one.sizes) for one in asked},
        "bootstrap_draws": N_DRAWS,
        "seed": seed,
    }
    figures = _figures(scored, main, protocol)
    shares = np.bincount(task.codes) / len(task.codes)
    return ClassRetrieval(
        figures=figures,
        n_queries={one.label: len(one.rows) for one in asked},
        n_patients={one.label: len(np.unique(task.patients[task.queries[one.rows]])) for one in asked},
        prevalence={one.label: float(shares[code]) for code, one in zip(codes, asked, strict=True)},
        protocol=protocol | {"lift": _lifts(figures)},
        warnings=exclusion_warnings(task, items, "tile") + _unanswerable(task, asked, n_relevant),
        reference=main,
        scored={label: tuple(found) for label, found in scored.items()},
    )


@dataclass(frozen=True, slots=True)
class _AskedClass:
    """One class's queries.

    Attributes:
        label: its name.
        rows: (n,) int64 of the task's queries.
        clusters: (n,) int64 codes 0..P-1 of the units that have such queries.
        sizes: (P,) float64 queries of each.
    """

    label: str
    rows: np.ndarray
    clusters: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, task: Task, code: int) -> "_AskedClass":
        rows = np.flatnonzero(task.truth == code)
        own = np.unique(task.clusters[rows], return_inverse=True)[1]
        return cls(task.classes[code], rows, own, np.bincount(own).astype(np.float64))

    def score(self, is_right: np.ndarray) -> Score:
        hits = np.bincount(self.clusters, weights=is_right[self.rows])
        return Score(self.label, ratio(hits, self.sizes), hits / self.sizes.sum(), self.sizes)


def _asked_codes(task: Task, classes: Sequence[str] | None) -> list[int]:
    """Codes of the classes asked about, in the order they were named."""
    known = [task.classes[code] for code in np.unique(task.truth)]
    wanted = known if classes is None else list(dict.fromkeys(map(str, classes)))
    unknown = [label for label in wanted if label not in known]
    if unknown or not wanted:
        what = "labelled item" if task.database is None else "query"
        raise EvaluationError(
            f"no {what} is {', '.join(map(repr, unknown))}" if unknown else "no class is asked about",
            _WHERE,
            f"Ask about some of: {', '.join(known)}.",
        )
    return [task.classes.index(label) for label in wanted]


def _drawn(task: Task, items: Items, asking: np.ndarray, max_queries: int, seed: int) -> np.ndarray:
    """Ascending places in `asking`, some of the task's queries: a sample where there are more than `max_queries`."""
    of_class = task.truth[asking]
    codes = np.unique(of_class)
    if max_queries < len(codes):
        raise ValueError(f"max_queries must be at least one for each of {len(codes)} classes, got {max_queries}")
    if len(asking) <= max_queries:
        return np.arange(len(asking))
    quota = np.bincount(of_class[sample_queries(of_class, max_queries, seed)]).tolist()
    patients = items.patient[task.rows[task.queries[asking]]]
    of_each = [np.flatnonzero(of_class == code) for code in codes]
    return np.sort(
        np.concatenate(
            [own[sample_queries(patients[own], quota[code], seed)] for code, own in zip(codes, of_each, strict=True)]
        )
    )


def _is_right(found: Neighbours, task: Task) -> np.ndarray:
    """(Q,) 1 where there is a nearest tile and it has the query's class."""
    nearest = found.ids[:, 0]
    return ((nearest >= 0) & (task.codes[nearest] == task.truth)).astype(np.float64)


def _chances(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """(Q,) allowed tiles of the query's class, and their share among all that are allowed."""
    allowed = task.allowed_counts()
    n_relevant = allowed[np.arange(len(allowed)), task.truth]
    return n_relevant, chance_acc(allowed.sum(axis=1), n_relevant, 1)


def _figures(scored: Mapping[str, Sequence[Row]], reference: str, protocol: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Row by row, class by class; each class over its own clusters."""
    by_class = [
        compare_scores(
            rows,
            reference=reference,
            weights=patient_weights(protocol["n_clusters_of"][label], seed=protocol["seed"]),
            cluster=protocol["cluster"],
            chance={label: protocol["chance"][label]},
            seed=protocol["seed"],
        )
        for label, rows in scored.items()
    ]
    return tuple(figure for of_row in zip(*by_class, strict=True) for figure in of_row)


def _lifts(figures: Sequence[Figure]) -> dict[str, dict[str, float]]:
    """Value / chance by row and class; NaN where chance is 0."""
    lifts: dict[str, dict[str, float]] = {}
    for one in figures:
        lifts.setdefault(one.name, {})[one.metric] = one.value / one.chance if one.chance > 0 else math.nan
    return lifts


def _unanswerable(task: Task, asked: Sequence[_AskedClass], n_relevant: np.ndarray) -> tuple[str, ...]:
    said = []
    own = "tile" if task.leave_out == "self" else task.leave_out
    for one in asked:
        n_lost = int((n_relevant[one.rows] == 0).sum())
        if n_lost:
            said.append(
                f"{n_lost} of {len(one.rows)} queries of {one.label} cannot be answered: no candidate outside their "
                f"own {own} carries it. They count as misses."
            )
    return tuple(said)


def _checked(name: str, features: np.ndarray, n: int) -> np.ndarray:
    if features.ndim != 2 or len(features) != n:
        raise ValueError(f"{name} has shape {features.shape} for {n} items")
    return features
