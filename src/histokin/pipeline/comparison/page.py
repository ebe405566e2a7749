"""The page of a comparison: its document, filled from comparison.json's content and the workspaces of its tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from histokin.artefacts import versions
from histokin.cohort import file_name_of
from histokin.embeddings import EmbeddingStore, short_id
from histokin.errors import HistokinError
from histokin.pipeline.comparison.plan import ComparisonPlan, EntrySpec, TaskSpec
from histokin.pipeline.comparison.tasks import task_texts
from histokin.pipeline.gathering import gather
from histokin.pipeline.lookups import MAX_PICTURED, Asked, look_up, lookup_note
from histokin.pipeline.measures import HEADLINES, shown_measure
from histokin.pipeline.stages import open_tiling, with_mpp
from histokin.pipeline.stores import find_floors
from histokin.report import (
    ComparedEntry,
    ComparedMeasure,
    ComparedTask,
    ComparisonDocument,
    Lookup,
    best_floor,
)
from histokin.tiles import Tiling
from histokin.workspace import Workspace


def comparison_document(work: Workspace, document: Mapping[str, Any]) -> ComparisonDocument:
    """What the page and the terminal's tables say.

    Args:
        work: the comparison's own workspace; its runs hold recipes and encoders.
        document: the content of comparison.json, as plain data.
    """
    import yaml

    plan = document["plan"]
    specs = {entry["name"]: entry for entry in plan["entries"]}
    return ComparisonDocument(
        title=document["title"],
        command=document["command"],
        budget=list(plan["settings"]),
        seed=plan["seed"],
        plan_text=yaml.safe_dump(_asked(plan), sort_keys=False, allow_unicode=True, width=110),
        created_with=versions(),
        entries=[_entry(work, plan, entry) for entry in document["entries"]],
        tasks=[_task(work, plan["seed"], specs, task) for task in document["tasks"]],
    )


def _asked(plan: Mapping[str, Any]) -> dict[str, Any]:
    """The plan in the order of its fields, without what was left at its default of nothing."""
    asked = _given(ComparisonPlan, plan)
    asked["tasks"] = [_given(TaskSpec, task) for task in plan["tasks"]]
    asked["entries"] = [_given(EntrySpec, entry) for entry in plan["entries"]]
    return asked


def _given(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    found = {field.name: values[field.name] for field in fields(kind)}
    return {name: value for name, value in found.items() if value or (value == 0 and value is not False)}


def _entry(work: Workspace, plan: Mapping[str, Any], entry: Mapping[str, Any]) -> ComparedEntry:
    recipe = work.run(file_name_of(entry["name"])) / "recipe.yaml"
    train = entry["train"] or plan["train"] or list(dict.fromkeys(task["work"] for task in plan["tasks"]))
    return ComparedEntry(
        name=entry["name"],
        recipe=Path(entry["recipe"]).stem,
        settings=list(entry["settings"]),
        train=[Path(name).resolve().name for name in train],
        at_most=entry["at_most"],
        mpp=entry["mpp"],
        without=list(entry["without"]),
        against=list(entry["against"]),
        method=entry["method"],
        n_tiles=entry["n_tiles"],
        fingerprint=entry["fingerprint"],
        steps=entry["steps"],
        views=entry["views"],
        batch=entry["batch"],
        losses=[(float(step), float(loss)) for step, loss in entry["losses"] if loss is not None],
        looks=[{key: value for key, value in look.items() if value is not None} for look in entry["looks"]],
        alarms=list(entry["alarms"]),
        notes=list(entry["notes"]),
        recipe_text=recipe.read_text(encoding="utf-8") if recipe.is_file() else "",
    )


def _measure(measure: Mapping[str, Any]) -> ComparedMeasure:
    present = sorted({metric for row in measure["rows"] for metric in row["figures"]})
    return shown_measure(measure, HEADLINES.get(measure["name"], present))


def _task(work: Workspace, seed: int, specs: Mapping[str, Mapping[str, Any]], task: Mapping[str, Any]) -> ComparedTask:
    spec = TaskSpec(**{**task["task"], "only": tuple(task["task"]["only"])})
    mpp = specs[task["entries"][0]]["mpp"]
    measures = [_measure(measure) for measure in task["measures"]]
    lookups, note = _lookups(work, seed, spec, mpp, task, measures)
    return ComparedTask(
        title=task["title"],
        subject=spec.title,
        mpp=mpp,
        kind="places" if measures and {measure.name for measure in measures} == {"distance ratio"} else task["kind"],
        column=spec.value or spec.label,
        leave_out=spec.leave_out,
        only=list(spec.only),
        n_tiles=task["n_tiles"],
        n_judged=task["n_judged"],
        twins=dict(task["twins"]),
        transductive=dict(task["transductive"]),
        measures=measures,
        refusals=list(task.get("refusals", ())),
        lookups=lookups,
        lookup_note=note,
    )


# ---- retrieval


def _lookups(
    work: Workspace,
    seed: int,
    spec: TaskSpec,
    mpp: float | None,
    task: Mapping[str, Any],
    measures: Sequence[ComparedMeasure],
) -> tuple[list[Lookup], str]:
    """Drawn queries with each row's neighbours, and how they were drawn, or why there are none."""
    shown = task["entries"][:MAX_PICTURED]
    try:
        place = Workspace.open(spec.work)
        tiling = with_mpp(place, open_tiling(place), mpp)
        floor = _floor_of(measures)
        asked = _asked_of(work, place, tiling, spec, shown, floor, task["twins"])
    except HistokinError as error:
        return [], f"No pictures: {error.what}."
    lookups = look_up(asked, seed)
    if not lookups:
        return [], "No tile has a target to ask by."
    n_hidden = len(task["entries"]) - len(shown)
    return lookups, lookup_note(seed, spec.leave_out, floor, n_hidden, is_numeric=asked.is_numeric)


def _floor_of(measures: Sequence[ComparedMeasure]) -> str:
    """The floor that ranks best where ranking was measured, else by the task's first metric."""
    if not measures:
        return ""
    chosen = next((m for m in measures if m.name == "retrieval"), measures[0])
    found = best_floor(chosen, chosen.metrics[-1] if chosen.name == "retrieval" else chosen.metrics[0])
    return found.name if found else ""


def _asked_of(
    work: Workspace,
    place: Workspace,
    tiling: Tiling,
    spec: TaskSpec,
    entries: Sequence[str],
    floor: str,
    twins: Mapping[str, str],
) -> Asked:
    paths = {name: _store(work, place, tiling, name) for name in entries}
    if floor:
        # The entry whose own twins the floor holds, pictured or not; the statistics lie beside every entry.
        owner = next((name for name, twin in twins.items() if twin == floor), entries[0])
        beside = find_floors(paths[owner] if owner in paths else _store(work, place, tiling, owner))
        kind = "random" if floor.startswith("random") else floor
        if kind in beside:
            paths[floor] = beside[kind][0]
    first, *others = paths
    gathered = gather(tiling, paths[first], {name: [paths[name]] for name in others})
    features = {first: gathered.main.features, **{name: gathered.floors[name][0] for name in others}}
    texts = task_texts(tiling, gathered, spec)
    groups = gathered.units[spec.leave_out]
    return Asked(tiling, gathered.main, features, texts, groups, gathered.patient, bool(spec.value))


def _store(work: Workspace, place: Workspace, tiling: Tiling, name: str) -> Path:
    """The embeddings of an entry: its fingerprint also says for which tiles it was loaded."""
    from histokin.encoders import load_encoder

    folder = work.run(file_name_of(name)) / "encoder"
    spec = tiling.spec
    encoder = load_encoder(folder, tile_px=spec.tile_px, mpp=spec.mpp, device="cpu", any_field=True)
    return EmbeddingStore(place.embeddings(spec.spec_id, short_id(encoder.fingerprint))).folder
