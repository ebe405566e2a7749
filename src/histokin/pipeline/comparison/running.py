"""`compare`: several encoders trained with one budget, judged on the same tiles, beside the floors and each other."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from histokin.artefacts import plain, read_lines, write_json
from histokin.cohort import file_name_of
from histokin.pipeline.comparison.judging import Judge
from histokin.pipeline.comparison.page import comparison_document
from histokin.pipeline.comparison.plan import ComparisonPlan, EntrySpec, TaskSpec
from histokin.pipeline.comparison.tasks import check_plan, recipe_of, refuse_seen_labels, share_met
from histokin.pipeline.packing import Without, training_pixels
from histokin.pipeline.stages import open_tiling, train, with_mpp
from histokin.progress import Reporter, silent
from histokin.report import comparison_text, write_comparison
from histokin.workspace import Workspace

if TYPE_CHECKING:
    from histokin.learn import TrainingResult

DOCUMENT = "comparison.json"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        folder: its workspace: runs/, evaluation/, report/.
        document: the content of comparison.json.
        page: the report.
        text: the side-by-side tables, for a terminal.
    """

    folder: Path
    document: dict[str, Any]
    page: Path
    text: str


def compare(
    plan: ComparisonPlan, out: Path | str, report: Reporter = silent, *, command: str = "histokin compare"
) -> Comparison:
    """Train every entry, embed every task's tiles by each and by the floors, judge them all; resumes where it stopped.

    Args:
        plan: what is asked.
        out: the comparison's own workspace; nothing but embeddings is written into those of the plan.
        report: progress.
        command: shown on the page.

    Raises:
        HistokinError: says what, where and what to do.
    """
    check_plan(plan)  # before hours are spent on training
    work = Workspace.create(out)
    trained = {entry.name: _trained(work, plan, entry, report) for entry in plan.entries}
    judged = [table for task in plan.tasks for table in _judged(work, plan, task, trained, report)]
    document = plain(
        {
            "title": plan.title or "Comparison of encoders",
            "command": command,
            "plan": plan,
            "entries": [_entry(work, entry, trained[entry.name]) for entry in plan.entries],
            "tasks": judged,
        }
    )
    write_json(work.root / DOCUMENT, document)
    shown = comparison_document(work, document)
    return Comparison(work.root, document, write_comparison(shown, work.report), comparison_text(shown))


def _trained(work: Workspace, plan: ComparisonPlan, entry: EntrySpec, report: Reporter) -> "_Trained":
    places = []
    for name in plan.train_of(entry):
        place = Workspace.open(name)
        places.append((place, with_mpp(place, open_tiling(place), entry.mpp, report)))
    recipe, without = recipe_of(plan, entry), Without.parse(entry.without)
    with training_pixels(places, recipe, report, without=without, at_most=entry.at_most) as tiles:
        refuse_seen_labels(plan, entry, recipe, tiles.contents)
        folder = work.run(file_name_of(entry.name))
        result = train(tiles, recipe, folder, report, device=plan.device, replace=True)
        return _Trained(result, len(tiles.source), tiles.contents)


@dataclass(frozen=True, slots=True)
class _Trained:
    """An entry's run, how many tiles it was given, and what identifies the slides they lie on."""

    result: "TrainingResult"
    n_tiles: int
    contents: frozenset[str]


def _entry(work: Workspace, entry: EntrySpec, trained: _Trained) -> dict[str, Any]:
    """What is to be known of a training: what it was asked for and how it went."""
    folder, result = work.run(file_name_of(entry.name)), trained.result
    lines = read_lines(folder / "metrics.jsonl")
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    every = max(1, len(losses) // 200)  # enough for a curve
    return {
        **plain(entry),
        "method": json.loads((result.encoder / "card.json").read_text(encoding="utf-8"))["method"],
        "fingerprint": result.fingerprint,
        "n_tiles": trained.n_tiles,
        "steps": result.steps,
        "views": result.views,
        "batch": result.batch,
        "loss": result.loss,
        "losses": losses[:-1:every] + losses[-1:],
        "looks": [line["monitor"] for line in lines if "monitor" in line],
        "alarms": result.alarms,
        "notes": result.notes,
        "recipe_file": str(folder / "recipe.yaml"),
    }


def _judged(
    work: Workspace,
    plan: ComparisonPlan,
    task: TaskSpec,
    trained: Mapping[str, _Trained],
    report: Reporter,
) -> list[dict[str, Any]]:
    """The tables of one task: one for each pixel size that entries are judged at."""
    place = Workspace.open(task.work)
    before = open_tiling(place)
    tilings = {mpp: with_mpp(place, before, mpp, report) for mpp in dict.fromkeys(e.mpp for e in plan.entries)}
    by_spec: dict[str, list[EntrySpec]] = {}
    for entry in plan.entries:
        by_spec.setdefault(tilings[entry.mpp].spec.spec_id, []).append(entry)
    tables = []
    for entries in by_spec.values():
        tiling = tilings[entries[0].mpp]
        title = task.title + (f", {tiling.spec.mpp:.3g} mpp" if len(by_spec) > 1 else "")
        folders = {entry.name: trained[entry.name].result.encoder for entry in entries}
        table = Judge(work, plan, task, entries, title).table(place, tiling, folders, report)
        met = {entry.name: share_met(tiling, trained[entry.name].contents) for entry in entries}
        tables.append({**table, "transductive": met})
    return tables
