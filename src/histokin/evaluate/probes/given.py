"""Probes under splits made elsewhere: fitted and scored once a split, as published tables of such splits are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from histokin.artefacts import plain
from histokin.errors import EvaluationError
from histokin.evaluate.comparison import Figure, Kind, check_rows, find_figure, place_of
from histokin.evaluate.floors import floor_distance
from histokin.evaluate.intervals import Difference, Interval, count_of, holm
from histokin.evaluate.items import is_missing, text_codes
from histokin.evaluate.probes.folds import Split
from histokin.evaluate.probes.linear import LinearProbe
from histokin.evaluate.probes.neighbours import NeighbourProbe
from histokin.evaluate.probes.outcome import Fold, Outcome, Part
from histokin.evaluate.probes.ridge import RidgeProbe
from histokin.evaluate.probes.scores import macro_auc
from histokin.evaluate.probes.svm import SVMProbe
from histokin.evaluate.retrieval import confusion, macro_f1
from histokin.evaluate.significance import nadeau_bengio
from histokin.evaluate.splits.table import SplitTable, joined_by_pictures, listed, overlapping_tests
from histokin.evaluate.vectors import check_vectors, scaled
from histokin.progress import Reporter, silent

Features = np.ndarray | Sequence[np.ndarray]
Column = Sequence[Any] | np.ndarray
METRICS = ("balanced_accuracy", "accuracy", "macro_f1", "macro_auc")
_WHERE = "evaluation"


@dataclass(frozen=True, slots=True)
class GivenSplit:
    """One (repeat, fold) of a table, over the rows of a task.

    Attributes:
        repeat, fold: of the table.
        train: (n,) int64 rows fitted on, those of the training and of the validation part.
        test: (m,) int64 rows predicted.
        groups: (n,) int64 codes of the units that `train` belongs to, for inner folds.
        tested: names of the units tested.
        n_train, n_test: units, not rows.
    """

    repeat: int
    fold: int
    train: np.ndarray
    test: np.ndarray
    groups: np.ndarray
    tested: tuple[str, ...]
    n_train: int
    n_test: int


@dataclass(frozen=True, slots=True)
class GivenTask:
    """The same for every encoder and floor: N labelled rows that the table names.

    Attributes:
        rows: (N,) int64 among all rows given.
        items: (N,) their ids in the table.
        truth: (N,) int64 codes into `classes`.
        classes: label texts, sorted.
        splits: in the order of the table's folds.
        unit: what was kept whole and is counted, patient or slide.
        n_set_aside: rows without a label, and labelled rows that the table does not name.
    """

    rows: np.ndarray
    items: np.ndarray
    truth: np.ndarray
    classes: tuple[str, ...]
    splits: tuple[GivenSplit, ...]
    unit: str
    n_set_aside: tuple[int, int]

    @property
    def sizes(self) -> np.ndarray:
        """(J, 2) units in the training and in the test part of each split."""
        return np.array([[one.n_train, one.n_test] for one in self.splits])


@dataclass(frozen=True, slots=True)
class SplitScores:
    """One metric of one row, split by split.

    Attributes:
        name: the encoder's or floor's name.
        kind: encoder or floor.
        metric: balanced_accuracy, accuracy, macro_f1 or macro_auc.
        values: of the J splits in their order, NaN where a split does not define it.
        mean: over the splits that do.
        sd: over them (ddof 1), NaN below two: how much the splits differ. Neither it nor sd / sqrt(J) is an interval,
            since splits share their patients.
        chance: the mean over them of what the commonest class of all rows scores (ties: the first).
    """

    name: str
    kind: Kind
    metric: str
    values: tuple[float, ...]
    mean: float
    sd: float
    chance: float


@dataclass(frozen=True, slots=True)
class SplitProbed:
    """All figures of one probe under given splits.

    Attributes:
        figures: row by row (encoders, then floors), metric by metric: the mean over splits. It has no interval, since
            the splits' spread is none; the reference's lead has the one of the corrected t.
        scores: the same, split by split.
        protocol: everything needed to repeat it.
        warnings: sentences a reader must see beside the figures.
        reference: name of the encoder that others are compared with.
        outcomes: by row name, member (a floor may have several seeds) and split, what was said of the tested rows.
        task: rows, truth and splits.
    """

    figures: tuple[Figure, ...]
    scores: tuple[SplitScores, ...]
    protocol: dict[str, Any]
    warnings: tuple[str, ...]
    reference: str
    outcomes: Mapping[str, tuple[tuple[Outcome, ...], ...]]
    task: GivenTask

    def against(self, reference: str) -> tuple[Figure, ...]:
        """All figures, the others compared with another reference."""
        return _figures(self.scores, self.task, reference)

    def figure(self, metric: str, name: str | None = None) -> Figure:
        """One metric of one row, by default of the reference.

        Raises:
            KeyError: there is none; the known ones are named.
        """
        return find_figure(self.figures, self.reference if name is None else name, metric)

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything but predictions and task; NaN becomes None."""
        return plain(
            {
                "protocol": self.protocol,
                "warnings": self.warnings,
                "reference": self.reference,
                "figures": self.figures,
                "scores": self.scores,
                "folds": {
                    name: [[one.folds[0] for one in member] for member in found]
                    for name, found in self.outcomes.items()
                },
            }
        )

    def prediction_rows(self, name: str) -> list[dict[str, Any]]:
        """Predictions of one encoder or floor for a CSV; `row` counts all rows given, `member` the seeds."""
        task, lines = self.task, []
        for member, found in enumerate(self.outcomes[name]):
            for split, outcome in zip(task.splits, found, strict=True):
                what = "margin" if outcome.probabilities is None else "p"
                for i, row in enumerate(split.test.tolist()):
                    line = {
                        "name": name,
                        "member": member,
                        "repeat": split.repeat,
                        "fold": split.fold,
                        "row": int(task.rows[row]),
                        "item": task.items[row],
                        "truth": task.classes[task.truth[row]],
                        "predicted": task.classes[outcome.predicted[i]],
                    }
                    of_class = zip(task.classes, _by_class(outcome)[i].tolist(), strict=True)
                    lines.append(line | {f"{what} {label}": value for label, value in of_class})
        return lines


def probe_splits(
    encoders: Mapping[str, np.ndarray],
    labels: Column,
    table: SplitTable,
    *,
    items: Column,
    probe: LinearProbe | NeighbourProbe | SVMProbe | None = None,
    floors: Mapping[str, Features] | None = None,
    reference: str | None = None,
    progress: Reporter = silent,
) -> SplitProbed:
    """The same probe for several encoders and floors under splits that are given: CLAM's files, or any `SplitTable`.

    For every (repeat, fold) the probe is fitted on the training and validation part together, C or k being chosen by
    inner grouped folds of these, and asked about the test part. A patient in two parts cannot be: such a table cannot
    be built.

    Figures are means over splits. The reference minus each row is tested by Nadeau & Bengio's corrected t over splits,
    with the mean numbers of patients in the training and test parts, and adjusted by Holm over the rows of a metric;
    it speaks of the luck of splitting, not of other patients.

    Args:
        encoders: (M, D) features by name.
        labels: (M,) classes; rows without one are set aside.
        table: who learns and who is tested.
        items: (M,) the table's item of each row, such as the slide of each tile where slides were divided; rows of
            items that it does not name are set aside.
        probe: which one, and its settings; `LinearProbe()` by default.
        floors: features by the floors' names; a list of arrays (seeds of a random-weight encoder) counts as the mean
            of its members' scores. Under `knn` colour and texture are z-scored as `floor_distance` says.
        reference: the encoder that the other rows are compared with; by default the first.
        progress: told each split.

    Returns:
        `SplitProbed`. Balanced accuracy and macro-F1 are means over the classes of a test part; macro_auc, of
        probabilities or margins, is defined where a test part holds all classes.

    Raises:
        EvaluationError: no row is in the table, there is one class, or a split has nobody to fit on or to test.
        StoreError: a feature is not finite, or zero under cosine.
        ValueError: shapes or names do not fit.
        TypeError: the probe is ridge, which knows no classes.
    """
    main = check_rows(encoders, floors, reference)
    how = LinearProbe() if probe is None else probe
    if isinstance(how, RidgeProbe):
        raise TypeError("ridge predicts numbers, while splits are judged by classes")
    task = _given_task(labels, items, table)
    asked: list[tuple[str, Kind, Features]] = []
    asked.extend((name, "encoder", x) for name, x in encoders.items())
    asked.extend((name, "floor", x) for name, x in (floors or {}).items())
    members = {name: [x] if isinstance(x, np.ndarray) else list(x) for name, _, x in asked}
    chance = _chance(task)
    outcomes: dict[str, tuple[tuple[Outcome, ...], ...]] = {}
    scores: list[SplitScores] = []
    with progress("evaluate", len(task.splits) * sum(map(len, members.values())), "splits") as line:
        for name, kind, _ in asked:
            own = how
            if kind == "floor" and isinstance(how, NeighbourProbe):
                own = replace(how, is_standardised=how.is_standardised or floor_distance(name)[1])
            found = []
            for x in members[name]:
                values = _checked(name, x, len(labels), task, own)
                said = []
                for split in task.splits:
                    said.append(_fitted(values, split, task, own))
                    line.advance(1, name)
                found.append(tuple(said))
            outcomes[name] = tuple(found)
            scores.extend(_scores(name, kind, task, outcomes[name], chance))
    return SplitProbed(
        figures=_figures(scores, task, main),
        scores=tuple(scores),
        protocol=_protocol(task, table, how, outcomes),
        warnings=(*_warnings(task, table, outcomes), *_unmatched(task, table, items)),
        reference=main,
        outcomes=outcomes,
        task=task,
    )


def _given_task(labels: Column, items: Column, table: SplitTable) -> GivenTask:
    if len(items) != len(labels):
        raise ValueError(f"there are {len(items)} items for {len(labels)} labels")
    at = table.rows_of(items)  # (M, J)
    is_labelled = np.array([not is_missing(label) for label in labels])
    is_named = (at >= 0).any(axis=1)
    rows = np.flatnonzero(is_labelled & is_named)
    classes, truth = text_codes(labels[row] for row in rows.tolist())
    if len(classes) < 2:
        said = f"all labelled rows are {classes[0]!r}" if classes else "not one row of the split carries a label"
        raise EvaluationError(said, _WHERE, "A probe needs two classes; name a label column that has them.")
    unit = "slide" if table.unit == "slide" else "patient"
    names, codes = text_codes(joined_by_pictures(table.slide if unit == "slide" else table.group, table))
    splits = []
    for j, (repeat, fold) in enumerate(table.folds):
        place = at[rows, j]
        is_test = table.part[place] == "test"
        train, test = (np.flatnonzero((place >= 0) & (is_test == which)) for which in (False, True))
        if not (len(train) and len(test)):
            raise EvaluationError(
                f"repeat {repeat}, fold {fold} of the split has {len(train)} labelled rows to fit on and {len(test)} "
                "to test",
                _WHERE,
                "Leave the fold out of the split, or give features and labels of its items.",
            )
        groups, tested = codes[place[train]], np.unique(codes[place[test]])
        splits.append(
            GivenSplit(
                repeat,
                fold,
                train,
                test,
                groups,
                tuple(names[code] for code in tested.tolist()),
                len(np.unique(groups)),
                len(tested),
            )
        )
    return GivenTask(
        rows=rows,
        items=np.array([str(items[row]) for row in rows.tolist()], dtype=object),
        truth=truth,
        classes=tuple(classes),
        splits=tuple(splits),
        unit=unit,
        n_set_aside=(int((~is_labelled).sum()), int((is_labelled & ~is_named).sum())),
    )


def _checked(
    name: str, features: np.ndarray, n_all: int, task: GivenTask, probe: LinearProbe | NeighbourProbe | SVMProbe
) -> np.ndarray:
    """(N, D) float64 of the task's rows."""
    if features.ndim != 2 or len(features) != n_all:
        raise ValueError(f"{name} has shape {features.shape} for {n_all} labels")
    is_cosine = isinstance(probe, NeighbourProbe) and not probe.is_standardised
    check_vectors(name, features, task.rows, needs_direction=is_cosine)
    return np.asarray(features[task.rows], dtype=np.float64)


def _fitted(
    x: np.ndarray, split: GivenSplit, task: GivenTask, probe: LinearProbe | NeighbourProbe | SVMProbe
) -> Outcome:
    """What a probe fitted on one split's other parts says of its test part."""
    train, test = x[split.train], x[split.test]
    if probe.is_standardised:
        train, test = scaled(train, test)
    truth, n_classes = task.truth[split.train], len(task.classes)
    part = Part(x=train, truth=truth, groups=split.groups, n_classes=n_classes, n_inner=Split().n_inner)
    said = probe.predict(part, test)
    fold = Fold(
        held_out=split.tested,
        n_train=len(train),
        n_test=len(test),
        setting=said.setting,
        is_at_edge=said.is_at_edge,
        is_unchosen=said.is_unchosen,
        is_converged=said.is_converged,
        missing=tuple(np.delete(task.classes, np.unique(truth)).tolist()),
        gamma=said.gamma,
        is_approximate=said.is_approximate,
        temperature=said.temperature,
    )
    shares, margins = (said.values, None) if said.is_probability else (None, said.values)
    return Outcome(said.values.argmax(axis=1), shares, (fold,), margins)


def _by_class(outcome: Outcome) -> np.ndarray:
    found = outcome.by_class
    if found is None:
        raise ValueError("an outcome of classes needs probabilities or margins")
    return found


def _split_values(truth: np.ndarray, predicted: np.ndarray, by_class: np.ndarray) -> list[float]:
    """`METRICS` of one test part."""
    n_classes = by_class.shape[1]
    together = np.zeros(len(truth), dtype=np.int64)
    right, said, true = confusion(truth, predicted, together, (1, n_classes))[:, 0]
    held = true > 0
    area = float(macro_auc(by_class, truth, together, 1)(np.ones((1, 1)))[0]) if held.all() else math.nan
    recalls = right[held] / true[held]
    return [float(recalls.mean()), float(right.sum() / len(truth)), float(macro_f1(right, said, true)), area]


def _chance(task: GivenTask) -> np.ndarray:
    """(J, metrics) scores of the commonest class of all rows: with one left out, that of the rest is often wrong."""
    commonest, found = np.bincount(task.truth).argmax(), []
    for split in task.splits:
        blind = np.ones((len(split.test), len(task.classes)))
        found.append(_split_values(task.truth[split.test], np.full(len(split.test), commonest), blind))
    return np.array(found)


def _scores(
    name: str, kind: Kind, task: GivenTask, outcomes: tuple[tuple[Outcome, ...], ...], chance: np.ndarray
) -> list[SplitScores]:
    found = np.array(
        [
            [
                _split_values(task.truth[split.test], one.predicted, _by_class(one))
                for split, one in zip(task.splits, member, strict=True)
            ]
            for member in outcomes
        ]
    ).mean(axis=0)  # (J, metrics)
    lines = []
    for m, metric in enumerate(METRICS):
        values = found[:, m]
        known = values[np.isfinite(values)]
        mean = float(known.mean()) if len(known) else math.nan
        sd = float(known.std(ddof=1)) if len(known) > 1 else math.nan
        blind = float(chance[np.isfinite(values), m].mean()) if len(known) else math.nan
        lines.append(SplitScores(name, kind, metric, tuple(values.tolist()), mean, sd, blind))
    return lines


def _figures(scores: Sequence[SplitScores], task: GivenTask, reference: str) -> tuple[Figure, ...]:
    """The means, and the reference's lead over each other row; Holm over the rows of a metric."""
    names = list(dict.fromkeys(one.name for one in scores))
    main = place_of(reference, names)
    n_metrics = len(METRICS)
    found: dict[tuple[int, int], Figure] = {}
    for m in range(n_metrics):
        rows = scores[m::n_metrics]
        leads = [_lead(rows[main], one, task) for i, one in enumerate(rows) if i != main]
        adjusted = iter(holm([lead.p for lead in leads]))
        others = iter(leads)
        for i, one in enumerate(rows):
            n = int(np.isfinite(one.values).sum())
            why = f"{count_of(n, 'split')} of the same patients" if n else "undefined in every split"
            none = Interval(math.nan, math.nan, "n/a", f"no interval: {why}", "split", n)
            delta = None if i == main else replace(next(others), p_holm=next(adjusted))
            found[i, m] = Figure(one.name, one.kind, one.metric, one.mean, none, one.chance, delta)
    return tuple(found[i, m] for i in range(len(names)) for m in range(n_metrics))


def _lead(first: SplitScores, second: SplitScores, task: GivenTask) -> Difference:
    """The first minus the second over the splits that define both, by the corrected t."""
    differences = np.subtract(first.values, second.values)
    known = np.isfinite(differences)
    n = int(known.sum())
    if n < 2:
        none = Interval(math.nan, math.nan, "n/a", count_of(n, "split"), "split", n)
        return Difference(first.mean - second.mean, none, math.nan)
    n_train, n_test = task.sizes[known].mean(axis=0).tolist()
    found = nadeau_bengio(differences[known], n_train, n_test)
    return Difference(found.mean, found.interval, found.p)


def _protocol(
    task: GivenTask,
    table: SplitTable,
    probe: LinearProbe | NeighbourProbe | SVMProbe,
    outcomes: Mapping[str, tuple[tuple[Outcome, ...], ...]],
) -> dict[str, Any]:
    n_train, n_test = task.sizes.mean(axis=0).tolist()
    counts = np.bincount(task.truth, minlength=len(task.classes))
    return {
        "probe": probe.word,
        "settings": plain(probe),
        "held_out": table.unit,
        "split": table.kind,
        "n_splits": len(task.splits),
        "splits": [
            {"repeat": one.repeat, "fold": one.fold, "n_train": one.n_train, "n_test": one.n_test}
            for one in task.splits
        ],
        "fitted_on": "training and validation part",
        "n_inner": Split().n_inner,
        "unit": task.unit,
        "n_train": n_train,
        "n_test": n_test,
        "n_rows": len(task.rows),
        "n_unlabelled": task.n_set_aside[0],
        "n_unnamed": task.n_set_aside[1],
        "prevalence": {name: float(n / counts.sum()) for name, n in zip(task.classes, counts, strict=True)},
        "spread": "sd over splits (ddof 1), neither standard error nor interval",
        "test": "Nadeau-Bengio corrected t over splits, Holm over rows",
        "members": {name: len(found) for name, found in outcomes.items()},
    }


def _warnings(
    task: GivenTask, table: SplitTable, outcomes: Mapping[str, tuple[tuple[Outcome, ...], ...]]
) -> tuple[str, ...]:
    """What a reader must be told."""
    said = [*table.warnings, *overlapping_tests(table)]
    if len(task.splits) < 2:
        said.append("There is one split, so nothing can be said about the luck of splitting.")
    n_splits = len(task.splits)
    some = next(iter(outcomes.values()))[0]
    for j, code in enumerate(task.classes):
        n_untaught = sum(code in one.folds[0].missing for one in some)
        if n_untaught:
            said.append(f"In {n_untaught} of {n_splits} splits no row of {code} is left to fit on.")
        n_untested = sum(not (task.truth[split.test] == j).any() for split in task.splits)
        if n_untested:
            said.append(f"In {n_untested} of {n_splits} splits no row of {code} is tested, so macro_auc is undefined.")
    for name, found in outcomes.items():
        folds = [one.folds[0] for member in found for one in member]
        for is_so, what in (
            ([fold.is_at_edge for fold in folds], "took a setting at an end of the grid"),
            ([fold.is_unchosen for fold in folds], "had a single group to fit on, so a fixed setting was taken"),
            ([not fold.is_converged for fold in folds], "did not converge"),
            ([fold.is_approximate for fold in folds], "had so many rows to fit on that the kernel was approximated"),
        ):
            if any(is_so):
                said.append(f"{name}: {sum(is_so)} of {len(folds)} fits {what}.")
    return tuple(dict.fromkeys(said))


def _unmatched(task: GivenTask, table: SplitTable, items: Column) -> list[str]:
    """What features, labels and table do not have in common."""
    said = []
    for n, what in zip(task.n_set_aside, ("without a label", "of items that the split does not name"), strict=True):
        if n:
            said.append(f"{n} rows {what} were set aside.")
    absent = sorted(set(table.item) - {str(item) for item in items})
    if absent:
        said.append(f"{len(absent)} items of the split have no row: {listed(absent)}.")
    told = table.label[table.rows_of(task.items).max(axis=1)]
    own = np.array(task.classes, dtype=object)[task.truth]
    n_other = int(((told != "") & (told != own)).sum())
    if n_other:
        said.append(f"{n_other} of {len(own)} rows have another label than in the split, which did not balance these.")
    return said
