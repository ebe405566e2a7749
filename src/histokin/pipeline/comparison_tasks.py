"""What a comparison's tasks know of the tiles: who is asked, and what the answer is."""

import numpy as np
from numpy.typing import NDArray

from histokin.errors import EvaluationError
from histokin.pipeline.comparison_plan import TaskSpec
from histokin.pipeline.evaluation import CHOSEN_COLUMNS
from histokin.pipeline.gathering import Gathered, tile_labels
from histokin.pipeline.stages import open_tiling
from histokin.tiles import Tiling
from histokin.workspace import Workspace

HEADLINES = {
    "linear probe": ("balanced_accuracy", "macro_f1"),
    "ridge probe": ("spearman_within", "r2"),
    "retrieval": ("acc@1", "mmv@5"),
    "distance ratio": ("addr",),
}
"""Ways of judging, and the metrics of each that tables show."""


def check_task(task: TaskSpec) -> None:
    """Refuse a task whose workspace has not what it asks for."""
    tiling = open_tiling(Workspace.open(task.work))
    if task.leave_out == "self":
        raise EvaluationError("probes cannot leave out single tiles", task.title, "Leave out slide or patient.")
    tables = [tiling.table(record) for record in tiling.records]
    of_tiles = {column for table in tables for column in table.label_columns}
    known = of_tiles | (set() if task.value else set(tiling.cohort.label_columns))
    asked = [task.value or task.label] if task.value or task.label else list(CHOSEN_COLUMNS)
    is_known = known.intersection(asked) or (task.spatial and not task.value and not task.label)
    beside = {condition.partition("=")[0] for condition in task.only} | ({task.cluster} if task.cluster else set())
    missing = ([] if is_known else [" or ".join(asked)]) + sorted(beside - of_tiles)
    if missing:
        raise EvaluationError(
            f"neither tiles nor slides have a column {', '.join(missing)}",
            task.title,
            f"There are: {', '.join(sorted(known)) or 'none'}.",
        )
    for table in tables if task.value else []:
        for text in table.labels(task.value):
            _number(text, task)


def _number(text: str, task: TaskSpec) -> float:
    try:
        return float(text) if text else float("nan")
    except ValueError as error:
        raise EvaluationError(
            f"{task.value} is no column of numbers: it holds {text!r}", task.title, "Name it as the label instead."
        ) from error


def task_texts(tiling: Tiling, gathered: Gathered, task: TaskSpec) -> NDArray[np.object_]:
    """(n,) the label or value of each tile that the task asks about; "" elsewhere.

    Classes are the tiles' own; where no tile has any, those of their slides.
    """
    texts = _texts(tiling, gathered, task)
    for condition in task.only:
        column, _, wanted = condition.partition("=")
        texts = np.where(tile_labels(tiling, gathered.main, column) == wanted, texts, "")
    return texts


def _texts(tiling: Tiling, gathered: Gathered, task: TaskSpec) -> NDArray[np.object_]:
    if task.value:
        return tile_labels(tiling, gathered.main, task.value)
    for column in [task.label] if task.label else CHOSEN_COLUMNS:
        labels = tile_labels(tiling, gathered.main, column)
        if not any(labels):
            by_slide = {record.slide: record.labels.get(column, "") for record in tiling.records}
            labels = np.array([by_slide[slide] for slide in gathered.slide], object)
        if any(labels):
            return labels
    return np.full(len(gathered.main), "", object)
