"""Who is asked and who may answer: the labelled items of an evaluation, its exclusion rule and its queries."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.retrieval import Retrieved
from histokin.search import Neighbours
from histokin.streams import stream

LeaveOut = Literal["patient", "slide", "site", "self"]
_WHERE = "evaluation"


@dataclass(frozen=True, slots=True)
class Items:
    """What is evaluated, tiles or slides, as aligned columns of N objects.

    Attributes:
        label: text, or None, "" or NaN where unlabelled; such items neither ask nor answer.
        patient: whose it is.
        slide: the slide it lies on (or is).
        site: where it was scanned; all "" if unknown.
    """

    label: np.ndarray
    patient: np.ndarray
    slide: np.ndarray
    site: np.ndarray

    @classmethod
    def of(cls, label: Any, patient: Any, slide: Any, site: Any = None) -> "Items":
        """Items from any sequences; without `site` all are "". Labels become text."""
        sites = [""] * len(label) if site is None else ["" if is_missing(s) else str(s) for s in site]
        return cls(
            _objects([None if is_missing(value) else str(value) for value in label]),
            _objects(patient),
            _objects(slide),
            _objects(sites),
        )

    def __post_init__(self) -> None:
        if not len(self.label) == len(self.patient) == len(self.slide) == len(self.site):
            raise ValueError("the columns of the items differ in length")

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray) -> "Items":
        """The items of some rows."""
        return Items(self.label[rows], self.patient[rows], self.slide[rows], self.site[rows])


@dataclass(frozen=True, slots=True)
class Task:
    """A protocol's fixed part: the same rows, groups and queries for every encoder and floor.

    Attributes:
        rows: (N,) int64, the labelled items among all; everything below counts in these N.
        codes: (N,) int64 label codes into `classes`.
        classes: label texts, sorted.
        groups: (N,) int64 codes of what is left out together; row numbers under `self`.
        queries: (Q,) int64 of the N, ascending.
        patients: (N,) int64 patient codes.
        clusters: (Q,) int64 codes 0..P-1 of the queries' unit of inference.
        cluster: its word: patient, site or slide.
        leave_out: the exclusion rule.
        n_unlabelled: items set aside.
    """

    rows: np.ndarray
    codes: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray
    queries: np.ndarray
    patients: np.ndarray
    clusters: np.ndarray
    cluster: str
    leave_out: LeaveOut
    n_unlabelled: int

    @property
    def truth(self) -> np.ndarray:
        """(Q,) label codes of the queries."""
        return self.codes[self.queries]

    @property
    def n_clusters(self) -> int:
        """Units of inference."""
        return int(self.clusters.max()) + 1

    @property
    def prevalence(self) -> dict[str, float]:
        """Share of each class among the queries."""
        counts = np.bincount(self.truth, minlength=len(self.classes))
        return {name: float(count / counts.sum()) for name, count in zip(self.classes, counts, strict=True)}

    def allowed_counts(self, codes: np.ndarray | None = None) -> np.ndarray:
        """(Q, C) int64 rows of each class that may answer each query; `codes` in place of the task's labels."""
        labels = self.codes if codes is None else codes
        n_classes = len(self.classes)
        total = np.bincount(labels, minlength=n_classes)
        if self.leave_out == "self":
            counts = np.tile(total, (len(self.queries), 1))
            counts[np.arange(len(self.queries)), labels[self.queries]] -= 1
            return counts
        per_group = np.zeros((int(self.groups.max()) + 1, n_classes), dtype=np.int64)
        np.add.at(per_group, (self.groups, labels), 1)
        return total - per_group[self.groups[self.queries]]

    def frame(self, found: Neighbours, codes: np.ndarray | None = None) -> Retrieved:
        """The frame of neighbours found among the N rows; `codes` (N,) in place of the task's labels."""
        labels = self.codes if codes is None else codes
        truth = labels[self.queries]
        counts = self.allowed_counts(labels)
        return Retrieved(
            query=self.queries,
            truth=truth,
            ids=found.ids,
            labels=np.where(found.ids >= 0, labels[found.ids], -1),
            scores=found.scores,
            n_allowed=counts.sum(axis=1),
            n_relevant=counts[np.arange(len(truth)), truth],
            classes=self.classes,
        )


def make_task(
    items: Items,
    *,
    leave_out: LeaveOut,
    max_queries: int,
    seed: int,
    clusters: Sequence[Any] | np.ndarray | None = None,
    cluster: str = "cluster",
) -> Task:
    """Fix rows, groups and queries of a protocol.

    Queries are drawn equally per patient where there are more than `max_queries`; the database is always whole, since
    sampling it would change what is measured.

    Args:
        items: all of them, labelled or not.
        leave_out: the exclusion rule.
        max_queries: see above.
        seed: of the draw.
        clusters: (N,) unit of inference; by default patients, sites where these are left out, and slides where there
            is one patient only.
        cluster: its word.

    Raises:
        EvaluationError: nothing is labelled, ids the rule needs are missing, or there is only one group.
        ValueError: unknown rule.
    """
    if leave_out not in get_args(LeaveOut):
        raise ValueError(f"leave_out must be one of {', '.join(get_args(LeaveOut))}, got {leave_out!r}")
    rows = np.flatnonzero([not is_missing(label) for label in items.label])
    if not len(rows):
        raise EvaluationError("not one item carries a label", _WHERE, "Name a label column that is filled in.")
    kept = items.take(rows)
    classes, codes = text_codes(kept.label)
    patients = text_codes(kept.patient)[1]
    groups = np.arange(len(rows)) if leave_out == "self" else _groups(kept, leave_out)
    queries = sample_queries(kept.patient, max_queries, seed)
    if clusters is None:
        cluster = "patient"
        if leave_out == "site":
            cluster = "site"
        elif patients.max() == 0:
            cluster = "slide"  # one patient is all there is: the next unit down, named beside the interval
        units = getattr(kept, cluster)
    else:
        if len(clusters) != len(items):
            raise ValueError(f"the {cluster} column has {len(clusters)} rows for {len(items)} items")
        units = _objects(clusters)[rows]
    refuse_missing(units, cluster, "labelled items")
    return Task(
        rows,
        codes,
        tuple(classes),
        groups,
        queries,
        patients,
        text_codes(units[queries])[1],
        cluster,
        leave_out,
        len(items) - len(rows),
    )


def sample_queries(patients: np.ndarray, max_queries: int, seed: int) -> np.ndarray:
    """Ascending rows of at most `max_queries` queries, equally many a patient as far as each has them."""
    if len(patients) <= max_queries:
        return np.arange(len(patients))
    names, codes = text_codes(patients)
    sizes = np.bincount(codes)
    quota = np.zeros(len(sizes), dtype=np.int64)
    left = max_queries
    for position, patient in enumerate(np.argsort(sizes, kind="stable")):  # the small ones first, rest to the large
        quota[patient] = min(sizes[patient], left // (len(sizes) - position))
        left -= quota[patient]
    chosen = []
    for patient, name in enumerate(names):
        own = np.flatnonzero(codes == patient)
        chosen.append(stream(seed, "queries", name).permutation(own)[: quota[patient]])
    return np.sort(np.concatenate(chosen))


def _groups(items: Items, leave_out: Literal["patient", "slide", "site"]) -> np.ndarray:
    column = getattr(items, leave_out)
    n_missing = sum(is_missing(value) for value in column)
    if n_missing:
        raise EvaluationError(
            f"{n_missing} of {len(column)} labelled items have no {leave_out}, so leaving the {leave_out} out cannot "
            "be kept",
            _WHERE,
            f"Fill the cohort's {leave_out} column, or choose another --leave-out.",
        )
    names, codes = text_codes(column)
    if len(names) < 2:
        finer = {"site": "patient", "patient": "slide", "slide": "self"}[leave_out]
        caution = (
            "; its neighbours share the patient, so it says nothing about new patients" if finer != "patient" else ""
        )
        raise EvaluationError(
            f"all labelled items belong to one {leave_out} ({names[0]}): with the query's own {leave_out} left out "
            "nothing is left to search",
            _WHERE,
            f"Add another {leave_out}, or pass --leave-out {finer}{caution}.",
        )
    return codes


def text_codes(values: Iterable[Any]) -> tuple[list[str], np.ndarray]:
    """Sorted texts of the values, and their int64 codes into them."""
    names, codes = np.unique(np.array([str(value) for value in values], dtype=str), return_inverse=True)
    return names.tolist(), codes.astype(np.int64)


def is_missing(value: Any) -> bool:
    """Whether a label or value is none: None, "" or NaN."""
    return value is None or value == "" or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN


def refuse_missing(column: Sequence[Any] | np.ndarray, word: str, what: str) -> None:
    """Unknown units are no unit of their own.

    Raises:
        EvaluationError: some of the column's values are missing.
    """
    n_missing = sum(is_missing(value) for value in column)
    if n_missing:
        raise EvaluationError(f"{n_missing} of {len(column)} {what} have no {word}", _WHERE, f"Fill the {word} column.")


def _objects(values: Any) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = list(values)
    return column
