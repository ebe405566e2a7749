"""What a comparison's tasks know of the tiles: who is asked, what the answer is, and what cannot be asked at all."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import leave_out_units
from histokin.errors import EvaluationError
from histokin.pipeline.comparison.plan import ComparisonPlan, EntrySpec, TaskSpec
from histokin.pipeline.evaluation.spec import CHOSEN_COLUMNS
from histokin.pipeline.gathering import Gathered, tile_labels
from histokin.pipeline.packing import contents_of
from histokin.pipeline.stages import open_tiling
from histokin.tiles import TileTable, Tiling
from histokin.workspace import Workspace

if TYPE_CHECKING:
    from histokin.learn import Recipe

UNITS = ("patient", "slide", "site")


def recipe_of(plan: ComparisonPlan, entry: EntrySpec) -> "Recipe":
    """The recipe an entry trains by."""
    from histokin.learn import override, read_recipe

    return override(read_recipe(entry.recipe), [f"seed={plan.seed}", *plan.settings, *entry.settings])


def check_plan(plan: ComparisonPlan) -> None:
    """Refuse what would fail after hours of training.

    Raises:
        EvaluationError: a task asks for what its workspace has not, or an entry cannot be run on its tiles.
        RecipeError: a recipe or a setting is wrong.
        WorkspaceError: there is no such workspace, or it has no tiles.
    """
    from histokin.encoders.folder import NEAR_MPP

    for task in plan.tasks:
        check_task(task)
    for entry in plan.entries:
        recipe_of(plan, entry)
        learned = {entry.mpp or open_tiling(Workspace.open(name)).spec.mpp for name in plan.train_of(entry)}
        for task in plan.tasks:
            judged = entry.mpp or open_tiling(Workspace.open(task.work)).spec.mpp
            if all(abs(judged / mpp - 1) > NEAR_MPP for mpp in learned):
                raise EvaluationError(
                    f"{entry.name} learns at {' and '.join(f'{mpp:g}' for mpp in sorted(learned))} um a pixel, "
                    f"and would be judged at {judged:g}",
                    task.title,
                    "Give the entry one mpp, or tile the workspaces at the same.",
                )


def check_task(task: TaskSpec) -> None:
    """Refuse a task whose workspace has not what it asks for."""
    tiling = open_tiling(Workspace.open(task.work))
    if task.leave_out == "self":
        raise EvaluationError("probes cannot leave out single tiles", task.title, "Leave out slide or patient.")
    tables = [tiling.table(record) for record in tiling.records]
    of_tiles = {column for table in tables for column in table.label_columns}
    known = of_tiles | (set() if task.value else set(tiling.cohort.label_columns))
    asked = [task.value or task.label] if task.value or task.label else list(CHOSEN_COLUMNS)
    is_of_places = task.spatial and not task.value and not task.label
    beside = {condition.partition("=")[0] for condition in task.only} | ({task.cluster} - {"", *UNITS})
    missing = ([] if known.intersection(asked) or is_of_places else [" or ".join(asked)]) + sorted(beside - of_tiles)
    if missing:
        raise EvaluationError(
            f"neither tiles nor slides have a column {', '.join(missing)}",
            task.title,
            f"There are: {', '.join(sorted(known)) or 'none'}.",
        )
    for table in tables if task.value else []:
        for text in table.labels(task.value):
            _number(text, task)
    if not is_of_places:
        _check_units(tiling, tables, task)


def _check_units(tiling: Tiling, tables: Sequence[TileTable], task: TaskSpec) -> None:
    """At least two of what is left out, and none without a name."""
    units = leave_out_units(tiling.cohort)
    sites = {record.slide: record.site for record in tiling.cohort.records}
    found: set[str] = set()
    for record, table in zip(tiling.records, tables, strict=True):
        match task.leave_out:
            case "patient":
                found |= {units.of_tile(record.slide, patient) for patient in set(table.numpy("patient"))}
            case "site":
                found.add(sites[units.picture[record.slide]])
            case _:
                found.add(units.picture[record.slide])
    if "" in found:
        raise EvaluationError(
            f"some slides have no {task.leave_out}, so it cannot be left out",
            task.title,
            f"Fill the cohort's {task.leave_out} column, or leave out something else.",
        )
    if len(found) < 2:
        raise EvaluationError(
            f"all tiles belong to one {task.leave_out}: with it left out nothing is left to learn from",
            task.title,
            f"Add another {task.leave_out}, or leave out something finer.",
        )


def refuse_seen_labels(plan: ComparisonPlan, entry: EntrySpec, recipe: "Recipe", contents: frozenset[str]) -> None:
    """Refuse an entry that would learn the very labels it is judged by."""
    for task in plan.tasks:
        asked = {task.label, task.value} - {""} or set(CHOSEN_COLUMNS)
        if recipe.method != "supervised" or recipe.run.label not in asked:
            continue
        if share_met(open_tiling(Workspace.open(task.work)), contents):
            raise EvaluationError(
                f"{entry.name} would learn the labels ({recipe.run.label}) of slides it is judged on",
                task.title,
                "Give the entry other workspaces (train), or leave the judged slides out (without).",
            )


def share_met(tiling: Tiling, contents: frozenset[str]) -> float:
    """Share of a task's slides that a training has met, labels or not: above 0 its figures are transductive.

    Args:
        tiling: of the task.
        contents: of the slides trained on, see `packing.contents_of`.
    """
    judged = contents_of(tiling.cohort)
    return float(np.mean([bool(judged[record.slide] & contents) for record in tiling.records]))


def clusters_of(tiling: Tiling, gathered: Gathered, task: TaskSpec) -> tuple[NDArray[np.object_], str]:
    """What intervals resample: (n,) the unit of each tile, and its word.

    The patient, since tiles of one are no independent cases; the next unit down where one patient is all there is.
    """
    if task.cluster and task.cluster not in UNITS:
        return tile_labels(tiling, gathered.main, task.cluster), task.cluster
    several = "patient" if len(set(gathered.patient)) > 1 else "slide"
    word = task.cluster or ("site" if task.leave_out == "site" else several)
    return gathered.units[word], word


def conditions_met(tiling: Tiling, gathered: Gathered, task: TaskSpec) -> NDArray[np.bool_]:
    """(n,) whether each tile meets all of the task's conditions."""
    met = np.ones(len(gathered.main), bool)
    for condition in task.only:
        column, _, wanted = condition.partition("=")
        met &= tile_labels(tiling, gathered.main, column) == wanted
    return met


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
    return np.where(conditions_met(tiling, gathered, task), _texts(tiling, gathered, task), "")


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
