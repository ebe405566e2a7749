"""From columns of a table to what classifiers learn: classes, labels, survival or numbers, and the folds of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import UNNAMED
from histokin.errors import EvaluationError
from histokin.evaluate.splits import SplitItems, SplitTable, leave_one_out, stratified_folds
from histokin.mil.training import MilTask, Targets
from histokin.pipeline.evaluation.case import check_classes, numbers_of
from histokin.pipeline.evaluation.columns import Columns
from histokin.pipeline.evaluation.given_splits import read_splits
from histokin.pipeline.indexing.archive import PICTURE
from histokin.pipeline.mil.asking import MilRequest
from histokin.pipeline.mil.bags import Bags
from histokin.report import wording

_YES = frozenset({"1", "1.0", "true", "yes", "y", "positive", "event", "dead"})
_NO = frozenset({"0", "0.0", "false", "no", "n", "negative", "censored", "alive"})
_RARE = "rare"


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """A task, and what was left out of it.

    Attributes:
        task: the slides that have a target.
        n_unlabelled: slides of the archive that have none.
        notes: sentences to be shown with every result.
    """

    task: MilTask
    n_unlabelled: int
    notes: tuple[str, ...]


def task_of(bags: Bags, request: MilRequest, slides: Sequence[str] | None = None) -> Asked:
    """The slides with a target, and whose they are.

    Args:
        bags: of the archive.
        request: which columns, and what they mean.
        slides: that may take part; all if None.

    Raises:
        EvaluationError: no slide has the column, or its values do not fit the target.
        TrainingError: a class or time that cannot be learned from.
    """
    held = list(bags.source.slides if slides is None else slides)
    texts = {column: bags.texts(column) for column in request.columns}
    first = np.array([texts[request.columns[0]][slide] for slide in held], dtype=object)
    if request.target == "multilabel":
        kept = [slide for slide in held if any(texts[column][slide] for column in request.columns)]
    else:
        kept = [slide for slide in held if all(texts[column][slide] for column in request.columns)]
    if not kept:
        raise EvaluationError(
            f"no embedded slide has a {request.label}", bags.place.source.store.folder, "Fill the column."
        )
    if request.target == "classes":
        _check_classes(first, request.label)
    columns = [[texts[column][slide] for slide in kept] for column in request.columns]
    targets = _targets(request, columns, kept)
    patients = bags.patients(kept)
    items = SplitItems.of(
        slide=kept,
        patient=patients,
        label=_strata(targets, patients, request.spec.n_folds * request.spec.n_inner),
        site=bags.column("site", kept),
        picture=bags.column(PICTURE, kept),
    )
    task = MilTask(bags.source, items, targets, bags.source.numbers(kept))
    return Asked(task, len(held) - len(kept), tuple(_notes(bags, request, len(held) - len(kept), patients)))


def labelled(
    bags: Bags, request: MilRequest, slides: Sequence[str], names: Sequence[str]
) -> tuple[Targets | None, NDArray[np.int64]]:
    """The truth of slides as trained classifiers know it, and (n,) which slides have one; None where none has.

    Args:
        bags: of the archive.
        request: of the run.
        slides: ids.
        names: the run's classes; slides of others have no truth.
    """
    if not set(request.columns) <= set(bags.columns):
        return None, np.zeros(0, dtype=np.int64)
    cells = [bags.column(column, slides) for column in request.columns]
    kept = np.any(cells, axis=0) if request.target == "multilabel" else np.all(cells, axis=0)
    if request.target == "classes":
        kept &= np.isin(cells[0].astype(str), names)
    rows = np.flatnonzero(kept)
    if not len(rows):
        return None, rows
    held = [slides[row] for row in rows.tolist()]
    if request.target == "classes":
        return Targets.of_classes(cells[0][rows].tolist(), names), rows
    return _targets(request, [column[rows].tolist() for column in cells], held), rows


def outer_folds(task: MilTask, request: MilRequest) -> SplitTable:
    """The folds that judge.

    Raises:
        EvaluationError: there are too few patients or sites for them.
    """
    if request.leave_out == "site":
        return leave_one_out(task.items, "site")
    return stratified_folds(task.items, request.spec.n_folds)


def given_folds(task: MilTask, path: Path) -> SplitTable:
    """Folds that the user brings, held against the patients that are known here.

    Raises:
        EvaluationError: a patient stands in two parts, or the file cannot be used.
    """
    items = task.items
    blank = np.full(len(items), "", dtype=object)
    given = read_splits(path, Columns(items.slide, items.patient, items.picture, items.site, {}, blank, {}))
    words = np.array(["train", "val", "test", ""], dtype=object)
    codes = given.part_codes(items.item)
    parts = {key: words[codes[:, place]] for place, key in enumerate(given.folds)}
    return SplitTable.of_parts(items, parts, unit=given.unit, kind=f"given by {path.name}", warnings=given.warnings)


def _check_classes(texts: NDArray[np.object_], column: str) -> None:
    check_classes(texts, column)
    if numbers_of(texts) is not None:
        raise EvaluationError(
            f"{column} holds numbers, no classes",
            "slide classification",
            "Ask for --target regression, or join them to classes.",
        )


def _targets(request: MilRequest, columns: Sequence[Sequence[str]], slides: Sequence[str]) -> Targets:
    match request.target:
        case "classes":
            return Targets.of_classes(columns[0])
        case "multilabel":
            values = [_truths(column, name, slides) for column, name in zip(columns, request.columns, strict=True)]
            return Targets.of_labels(np.stack(values, axis=1), request.columns)
        case "survival":
            time, event = columns
            events = _truths(event, request.columns[1], slides)
            return Targets.of_survival(_numbers(time, request.columns[0], slides).tolist(), (events == 1).tolist())
        case "regression":
            return Targets.of_values(_numbers(columns[0], request.label, slides).tolist())


def _truths(texts: Sequence[str], column: str, slides: Sequence[str]) -> NDArray[np.float64]:
    """(n,) 1, 0, and NaN where nothing is said."""
    found = np.full(len(texts), np.nan)
    for row, text in enumerate(texts):
        word = text.strip().lower()
        if word and word not in _YES | _NO:
            raise EvaluationError(
                f"{column} of slide {slides[row]} is {text!r}, neither yes nor no", "labels", "Write 1 or 0."
            )
        if word:
            found[row] = float(word in _YES)
    return found


def _numbers(texts: Sequence[str], column: str, slides: Sequence[str]) -> NDArray[np.float64]:
    found = np.empty(len(texts))
    for row, text in enumerate(texts):
        try:
            found[row] = float(text)
        except ValueError as error:
            raise EvaluationError(
                f"{column} of slide {slides[row]} is {text!r}, no number",
                "labels",
                "Correct the cell, or leave it empty.",
            ) from error
    return found


def _strata(targets: Targets, patients: Sequence[str], n_needed: int) -> NDArray[np.object_]:
    """What folds are made alike by; sets of labels that too few patients have for every inner fold count as one."""
    strata = targets.strata
    if targets.kind != "labels":
        return strata
    own = np.array(patients, dtype=object)

    def is_rare(text: str) -> bool:
        return len(set(own[strata == text])) < n_needed

    rare = [text for text in sorted(set(strata)) if is_rare(text)]
    joined = np.where(np.isin(strata.astype(str), rare), _RARE, strata)
    if rare and len(set(own[joined == _RARE])) < n_needed:
        names, counts = np.unique(joined[joined != _RARE].astype(str), return_counts=True)
        joined = np.where(joined == _RARE, str(names[counts.argmax()]) if len(names) else _RARE, joined)
    return joined.astype(object)


def without_tiles(slides: Sequence[str]) -> str:
    """A sentence on slides that have none."""
    return f"Without tiles, so that nothing is told: {wording.counted(len(slides), 'slide')}, such as {slides[0]}."


def _notes(bags: Bags, request: MilRequest, n_unlabelled: int, patients: Sequence[str]) -> list[str]:
    notes = []
    if n_unlabelled:
        notes.append(f"Left out, without {request.label}: {wording.counted(n_unlabelled, 'slide')}.")
    if empty := bags.source.empty:
        notes.append(
            f"Without tiles, so that nothing is told: {wording.counted(len(empty), 'slide')}, such as {empty[0]}."
        )
    unknown = sum(patient.startswith(UNNAMED) for patient in patients)
    if unknown:
        notes.append(
            f"The patient of {unknown} of {len(patients)} slides is not known: each counts as a patient of its own. If "
            "some share one, the figures are optimistic."
        )
    return notes
