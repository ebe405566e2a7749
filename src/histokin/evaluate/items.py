"""Who is asked and who may answer: the labelled items of an evaluation, its exclusion rule and its queries."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.retrieval import Retrieved
from histokin.search import Neighbours
from histokin.streams import stream

LeaveOut = Literal["patient", "slide", "site", "self", "region"]
Mask = Sequence[bool] | np.ndarray
_WHERE = "evaluation"


@dataclass(frozen=True, slots=True)
class Items:
    """What is evaluated, tiles or slides, as aligned columns of N objects.

    Attributes:
        label: text, or None, "" or NaN where unlabelled; such items neither ask nor answer.
        patient: whose it is.
        slide: the slide it lies on (or is).
        site: where it was scanned; all "" if unknown.
        region: the part of the slide it was cut out of, "" or None if unknown; by default all "". See `region_units`.
    """

    label: np.ndarray
    patient: np.ndarray
    slide: np.ndarray
    site: np.ndarray
    region: np.ndarray = field(default_factory=lambda: _objects(()))

    @classmethod
    def of(cls, label: Any, patient: Any, slide: Any, site: Any = None, region: Any = None) -> "Items":
        """Items from any sequences; without `site` or `region` all of these are "". Labels become text."""
        return cls(
            _objects([None if is_missing(value) else str(value) for value in label]),
            _objects(patient),
            _objects(slide),
            *(
                _objects([""] * len(label) if column is None else ["" if is_missing(v) else str(v) for v in column])
                for column in (site, region)
            ),
        )

    def __post_init__(self) -> None:
        if not len(self.region):
            object.__setattr__(self, "region", _objects([""] * len(self.label)))
        columns = (self.label, self.patient, self.slide, self.site, self.region)
        if len({len(column) for column in columns}) > 1:
            raise ValueError("the columns of the items differ in length")

    def __len__(self) -> int:
        return len(self.label)

    def take(self, rows: np.ndarray) -> "Items":
        """The items of some rows."""
        return Items(self.label[rows], self.patient[rows], self.slide[rows], self.site[rows], self.region[rows])


@dataclass(frozen=True, slots=True)
class Task:
    """A protocol's fixed part: the same rows, groups and queries for every encoder and floor.

    Attributes:
        rows: (N,) int64, the labelled items that ask or answer; everything below counts in these N.
        codes: (N,) int64 label codes into `classes`.
        classes: label texts, sorted.
        groups: (N,) int64 codes of what is left out together; row numbers under `self`.
        queries: (Q,) int64 of the N, ascending.
        patients: (N,) int64 patient codes.
        clusters: (Q,) int64 codes 0..P-1 of the queries' unit of inference.
        cluster: its word: patient, site or slide.
        leave_out: the exclusion rule.
        n_unlabelled: items set aside.
        database: (M,) int64 of the N that may answer, ascending; None where all may and no split was asked for.
        n_outside: labelled items that neither ask nor answer.
        is_sampled: whether `queries` are a draw of those that might ask.
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
    database: np.ndarray | None = None
    n_outside: int = 0
    is_sampled: bool = False

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

    @property
    def answering(self) -> np.ndarray | slice:
        """What picks those of the N rows that may answer."""
        return slice(None) if self.database is None else self.database

    @property
    def sides(self) -> dict[str, Any]:
        """What a protocol says of who answers."""
        if self.database is None:
            return {"query_database": "all"}
        return {"query_database": "split", "n_database": len(self.database)}

    @property
    def exclusion(self) -> dict[str, Any]:
        """What a search among `answering` is told to leave out with each query."""
        if self.leave_out != "self":
            return {"query_groups": self.groups[self.queries], "database_groups": self.groups[self.answering]}
        if self.database is None:
            return {"query_ids": self.queries}
        places = np.full(len(self.rows), -1, dtype=np.int64)
        places[self.database] = np.arange(len(self.database))
        return {"query_ids": places[self.queries]}

    def among_rows(self, found: Neighbours) -> Neighbours:
        """What was found among `answering`, as places among the N rows."""
        if self.database is None:
            return found
        return Neighbours(np.where(found.ids >= 0, self.database[found.ids], -1), found.scores)

    def roles(self, units: np.ndarray) -> np.ndarray:
        """(U,) int64 on which side of a split each unit stands: 1 asks, 2 answers, 3 both; all 0 without a split.

        Labels may change places within a role only: then either side keeps the classes it has.

        Args:
            units: (N,) int64 codes 0..U-1, each occurring, such as `patients`.
        """
        found = np.zeros(int(units.max()) + 1, dtype=np.int64)
        if self.database is not None:
            found[units[self.queries]] = 1
            found[np.unique(units[self.database])] += 2
        return found

    def allowed_counts(self, codes: np.ndarray | None = None) -> np.ndarray:
        """(Q, C) int64 rows of each class that may answer each query; `codes` in place of the task's labels."""
        labels = self.codes if codes is None else codes
        n_classes = len(self.classes)
        answering = self.answering
        total = np.bincount(labels[answering], minlength=n_classes)
        if self.leave_out == "self":
            counts = np.tile(total, (len(self.queries), 1))
            counts[np.arange(len(self.queries)), labels[self.queries]] -= self.exclusion["query_ids"] >= 0
            return counts
        per_group = np.zeros((int(self.groups.max()) + 1, n_classes), dtype=np.int64)
        np.add.at(per_group, (self.groups[answering], labels[answering]), 1)
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
    queries: Mask | None = None,
    database: Mask | None = None,
) -> Task:
    """Fix rows, groups and queries of a protocol.

    Queries are drawn equally per patient where there are more than `max_queries`; the database is always whole, since
    sampling it would change what is measured.

    Args:
        items: all of them, labelled or not.
        leave_out: the exclusion rule; it holds across a split too, so nobody answers himself from the other side.
        max_queries: see above.
        seed: of the draw.
        clusters: (N,) unit of inference; by default patients, sites where these are left out, and slides where there
            is one patient only.
        cluster: its word.
        queries: (N,) bool of all items: the labelled among them ask; by default all.
        database: (N,) bool of all items: the labelled among them may answer; by default all.

    Raises:
        EvaluationError: nothing is labelled, nobody asks or answers, ids the rule needs are missing, or there is only
            one group.
        ValueError: unknown rule, or a mask is none of these items.
    """
    if leave_out not in get_args(LeaveOut):
        raise ValueError(f"leave_out must be one of {', '.join(get_args(LeaveOut))}, got {leave_out!r}")
    is_labelled = np.array([not is_missing(label) for label in items.label], dtype=bool)
    if not is_labelled.any():
        raise EvaluationError("not one item carries a label", _WHERE, "Name a label column that is filled in.")
    asks, answers = _side(queries, "queries", is_labelled), _side(database, "database", is_labelled)
    rows = np.flatnonzero(asks | answers)
    kept = items.take(rows)
    classes, codes = text_codes(kept.label)
    patients = text_codes(kept.patient)[1]
    groups = np.arange(len(rows)) if leave_out == "self" else _groups(items, rows, leave_out)
    asking = np.flatnonzero(asks[rows])
    asked = asking[sample_queries(kept.patient[asking], max_queries, seed)]
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
    n_labelled = int(is_labelled.sum())
    return Task(
        rows=rows,
        codes=codes,
        classes=tuple(classes),
        groups=groups,
        queries=asked,
        patients=patients,
        clusters=text_codes(units[asked])[1],
        cluster=cluster,
        leave_out=leave_out,
        n_unlabelled=len(items) - n_labelled,
        database=None if queries is None and database is None else np.flatnonzero(answers[rows]),
        n_outside=n_labelled - len(rows),
        is_sampled=len(asked) < len(asking),
    )


def _side(mask: Mask | None, side: str, is_labelled: np.ndarray) -> np.ndarray:
    """(N,) bool: the labelled items on one side of a split."""
    if mask is None:
        return is_labelled
    chosen = np.asarray(mask)
    if chosen.dtype != bool or chosen.shape != is_labelled.shape:
        raise ValueError(
            f"{side} must be one bool for each of {len(is_labelled)} items, got {chosen.dtype} of shape {chosen.shape}"
        )
    found = chosen & is_labelled
    if not found.any():
        raise EvaluationError(
            f"not one labelled item is {'a query' if side == 'queries' else 'in the database'}",
            _WHERE,
            "Divide the items so that both sides hold labelled ones.",
        )
    return found


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


def _groups(items: Items, rows: np.ndarray, leave_out: Literal["patient", "slide", "site", "region"]) -> np.ndarray:
    """(N,) int64 codes of what is left out together among some rows."""
    place, but = "cohort's", ""
    if leave_out == "region":
        refuse_missing(items.slide[rows], "slide", "labelled items")
        column = region_units(items.slide, items.region)[rows]
        place, but = "tiles'", ", though others of their slides have one"
    else:
        column = getattr(items, leave_out)[rows]
    n_missing = sum(is_missing(value) for value in column)
    if n_missing:
        raise EvaluationError(
            f"{n_missing} of {len(column)} labelled items have no {leave_out}{but}, so leaving the {leave_out} out "
            "cannot be kept",
            _WHERE,
            f"Fill the {place} {leave_out} column, or choose another --leave-out.",
        )
    names, codes = text_codes(column)
    if len(names) < 2:
        finer = {"site": "patient", "patient": "slide", "slide": "self", "region": "self"}[leave_out]
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


def region_units(slides: Sequence[Any] | np.ndarray, regions: Sequence[Any] | np.ndarray) -> np.ndarray:
    """(N,) text, what is left out with each item where regions are: SLIDE/REGION; "" where it is not known.

    Regions of two slides are two, whatever they are called. A slide of which no item names a region is one region; of
    one that names some, items without are nowhere: they may lie in the query's own.

    Args:
        slides: (N,) ids.
        regions: (N,) names, "" or None where unknown.
    """
    named = {str(slide) for slide, region in zip(slides, regions, strict=True) if not is_missing(region)}
    units = []
    for slide, region in zip(slides, regions, strict=True):
        is_known = not is_missing(slide) and (not is_missing(region) or str(slide) not in named)
        parts = [slide] if is_missing(region) else [slide, region]
        # Slashes inside a name are marked: a/b of slide c is not b of slide c/a.
        texts = [str(part).replace("\\", "\\\\").replace("/", "\\/") for part in parts]
        units.append("/".join(texts) if is_known else "")
    return _objects(units)


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
