"""What a probe is asked and what it answers: rows, truth and folds fixed for all encoders; out-of-fold predictions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.intervals import class_strata
from histokin.evaluate.items import is_missing, refuse_missing, text_codes
from histokin.evaluate.probes.folds import Split, outer_folds

_WHERE = "evaluation"


@dataclass(frozen=True, slots=True)
class ProbeTask:
    """The same for every encoder and floor; N labelled rows.

    Attributes:
        rows: (N,) int64 among all rows given.
        truth: (N,) int64 codes into `classes`, or float64 values where there are no classes.
        classes: label texts, sorted; () for values.
        groups: (N,) int64 codes into `group_names`: what is held out together.
        group_names: sorted texts.
        fold: (N,) int64, 0..F-1.
        clusters: (N,) int64 codes 0..P-1 of the unit of inference.
        cluster: its word.
        within: (N,) int64 codes of the groups inside which ranks are compared, -1 for rows in none; None without.
        split: how folds were made.
        n_unlabelled: rows set aside.
    """

    rows: np.ndarray
    truth: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray
    group_names: tuple[str, ...]
    fold: np.ndarray
    clusters: np.ndarray
    cluster: str
    within: np.ndarray | None
    split: Split
    n_unlabelled: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def n_clusters(self) -> int:
        """Units of inference."""
        return int(self.clusters.max()) + 1

    @property
    def prevalence(self) -> dict[str, float]:
        """Share of each class among the rows; {} for values."""
        counts = np.bincount(self.truth, minlength=len(self.classes)) if self.classes else ()
        return {name: float(count / len(self)) for name, count in zip(self.classes, counts, strict=True)}

    @property
    def strata(self) -> np.ndarray | None:
        """(P,) int64 class of each cluster, within which clusters are resampled; None as in `class_strata`."""
        if not self.classes:
            return None
        sizes = np.zeros((self.n_clusters, len(self.classes)))
        np.add.at(sizes, (self.clusters, self.truth), 1)
        return class_strata(sizes)


@dataclass(frozen=True, slots=True)
class Fold:
    """One held-out part.

    Attributes:
        held_out: its groups.
        n_train: rows fitted on.
        n_test: rows predicted.
        setting: C, alpha or k in use.
        is_at_edge: the setting was chosen and lies at an end of its grid, so a better one may lie beyond.
        is_unchosen: the setting should have been chosen but the training part has a single group, so a fixed one
            stands in.
        is_converged: False where the solver ran out of steps.
        missing: classes that the training part lacks; they were never predicted here.
        gamma: in use by an RBF kernel; None elsewhere.
        is_approximate: the kernel was approximated, there being too many rows to fit on.
        temperature: T that the inner folds' probabilities at the chosen setting want to be divided by to be
            calibrated, see `calibration.fit_temperature`; not applied to this fold's. None where nothing was fitted.
    """

    held_out: tuple[str, ...]
    n_train: int
    n_test: int
    setting: float
    is_at_edge: bool = False
    is_unchosen: bool = False
    is_converged: bool = True
    missing: tuple[str, ...] = ()
    gamma: float | None = None
    is_approximate: bool = False
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class Predicted:
    """A probe's answer for one held-out part.

    Attributes:
        values: (n, C) float64 probabilities or margins, or (n,) values.
        setting: see `Fold`.
        is_at_edge, is_unchosen, is_converged, gamma, is_approximate, temperature: see `Fold`.
        is_probability: False where (n, C) values are margins, which only rank rows and classes.
    """

    values: np.ndarray
    setting: float
    is_at_edge: bool = False
    is_unchosen: bool = False
    is_converged: bool = True
    gamma: float | None = None
    is_approximate: bool = False
    is_probability: bool = True
    temperature: float | None = None


class Probe(Protocol):
    """A frozen-feature predictor: fitted on one part, asked about another."""

    @property
    def word(self) -> str:
        """linear, ridge, knn, svm or svm-rbf."""
        ...

    @property
    def is_standardised(self) -> bool:
        """Whether features are z-scored by the training part first."""
        ...

    def predict(self, train: "Part", test: np.ndarray) -> Predicted:
        """Fit on a training part and predict the (n, D) float64 test rows."""
        ...


@dataclass(frozen=True, slots=True)
class Part:
    """A training part.

    Attributes:
        x: (n, D) float64.
        truth: (n,) codes or values.
        groups: (n,) int64 codes, for inner folds.
        n_classes: of the whole task, 0 for values.
        n_inner: inner folds.
    """

    x: np.ndarray
    truth: np.ndarray
    groups: np.ndarray
    n_classes: int
    n_inner: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a probe said of every row while that row's group was held out.

    Attributes:
        predicted: (N,) int64 class codes or float64 values.
        probabilities: (N, C) float64 rows summing to 1; None for values and margins.
        folds: of the task, in order.
        margins: (N, C) float64 of any scale, -inf for a class that its fold lacked; None where there are
            probabilities, and for values.
    """

    predicted: np.ndarray
    probabilities: np.ndarray | None
    folds: tuple[Fold, ...]
    margins: np.ndarray | None = None

    @property
    def by_class(self) -> np.ndarray | None:
        """(N, C) what rows are ranked by within a class: probabilities or margins; None for values."""
        return self.margins if self.probabilities is None else self.probabilities


def class_task(
    labels: Sequence[Any] | np.ndarray,
    groups: Sequence[Any] | np.ndarray,
    *,
    split: Split,
    clusters: Sequence[Any] | np.ndarray | None = None,
    cluster: str | None = None,
) -> ProbeTask:
    """Fix rows, folds and clusters of a classification.

    Args:
        labels: (M,) text or numbers; None, "" and NaN are unlabelled and set aside.
        groups: (M,) what is held out together.
        split: how.
        clusters: (M,) the unit of inference where it is not the group, such as spatial blocks of one patient.
        cluster: its word; by default the split's unit.

    Raises:
        EvaluationError: fewer than two classes or groups, or ids are missing.
        ValueError: lengths differ.
    """
    rows = np.flatnonzero([not is_missing(label) for label in labels])
    classes, codes = text_codes(labels[row] for row in rows.tolist())
    if len(classes) < 2:
        said = f"all labelled rows are {classes[0]!r}" if classes else "not one row carries a label"
        raise EvaluationError(said, _WHERE, "A probe needs two classes; name a label column that has them.")
    return _task(rows, len(labels), codes, tuple(classes), groups, split, clusters, cluster, None)


def value_task(
    values: Sequence[Any] | np.ndarray,
    groups: Sequence[Any] | np.ndarray,
    *,
    split: Split,
    within: Sequence[Any] | np.ndarray | None = None,
    clusters: Sequence[Any] | np.ndarray | None = None,
    cluster: str | None = None,
) -> ProbeTask:
    """Fix rows, folds and clusters of a regression.

    Args:
        values: (M,) numbers; None, "", NaN and infinities are set aside.
        within: (M,) groups inside which ranks are compared, such as images or sections; None or "" for rows in none.
        groups, split, clusters, cluster: as in `class_task`.

    Raises:
        EvaluationError: fewer than two rows, groups or distinct values, or ids are missing.
        ValueError: lengths differ, or a value is no number.
    """
    numbers = np.array([np.nan if is_missing(value) else float(value) for value in values])
    rows = np.flatnonzero(np.isfinite(numbers))
    truth = numbers[rows]
    if len(np.unique(truth)) < 2:
        said = f"all {len(rows)} values are alike" if len(rows) else "not one row carries a value"
        raise EvaluationError(said, _WHERE, "A regression needs values that differ.")
    return _task(rows, len(values), truth, (), groups, split, clusters, cluster, within)


def _task(
    rows: np.ndarray,
    n_all: int,
    truth: np.ndarray,
    classes: tuple[str, ...],
    groups: Sequence[Any] | np.ndarray,
    split: Split,
    clusters: Sequence[Any] | np.ndarray | None,
    cluster: str | None,
    within: Sequence[Any] | np.ndarray | None,
) -> ProbeTask:
    units = groups if clusters is None else clusters
    word = split.unit if clusters is None or cluster is None else cluster
    if clusters is not None and cluster is None:
        word = "cluster"
    names, codes = text_codes(_complete(groups, rows, n_all, split.unit))
    if len(names) < 2:
        raise EvaluationError(
            f"all labelled rows belong to one {split.unit} ({names[0]}): with it held out nothing is left to fit on",
            _WHERE,
            f"Add another {split.unit}, or hold out something finer and say so.",
        )
    inside = None
    if within is not None:
        _same_length(within, n_all, "within")
        inside = np.full(len(rows), -1, dtype=np.int64)
        is_in = np.array([not is_missing(within[row]) for row in rows])
        inside[is_in] = text_codes(within[row] for row in rows[is_in])[1]
    return ProbeTask(
        rows=rows,
        truth=truth,
        classes=classes,
        groups=codes,
        group_names=tuple(names),
        fold=outer_folds(codes, split, truth if classes else None),
        clusters=text_codes(_complete(units, rows, n_all, word))[1],
        cluster=word,
        within=inside,
        split=split,
        n_unlabelled=n_all - len(rows),
    )


def _complete(column: Any, rows: np.ndarray, n_all: int, word: str) -> list[Any]:
    """The values of some rows, none of them missing."""
    _same_length(column, n_all, word)
    values = [column[row] for row in rows]
    refuse_missing(values, word, "labelled rows")
    return values


def _same_length(column: Any, n_all: int, word: str) -> None:
    if len(column) != n_all:
        raise ValueError(f"the {word} column has {len(column)} rows for {n_all} labels")
