"""The page of a comparison: its document, filled from comparison.json's content and the workspaces of its tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import versions
from histokin.cohort import UNNAMED, file_name_of
from histokin.embeddings import EmbeddingStore, short_id
from histokin.errors import HistokinError
from histokin.evaluate import floor_distance
from histokin.evaluate.vectors import standardised
from histokin.pipeline.comparison.plan import ComparisonPlan, EntrySpec, TaskSpec
from histokin.pipeline.comparison.tasks import HEADLINES, task_texts
from histokin.pipeline.gathering import Gathered, gather
from histokin.pipeline.pictures import N_HITS, tile_pictures
from histokin.pipeline.searching import find_floors
from histokin.pipeline.stages import open_tiling, with_mpp
from histokin.report import (
    ComparedEntry,
    ComparedMeasure,
    ComparedRow,
    ComparedTask,
    ComparisonDocument,
    Lookup,
    Picture,
    Value,
    best_floor,
)
from histokin.search import top_k
from histokin.streams import stream
from histokin.tiles import Tiling
from histokin.workspace import Workspace

N_QUERIES = 3
MAX_PICTURED = 8  # entries whose neighbours are shown; all of them are measured
_THIRDS = ("low", "middle", "high")


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


# ---- figures


def _value(found: Mapping[str, Any]) -> Value:
    interval = found["interval"]
    return Value(found["value"], interval["low"], interval["high"], interval["note"])


def _measure(measure: Mapping[str, Any]) -> ComparedMeasure:
    present = sorted({metric for row in measure["rows"] for metric in row["figures"]})
    metrics = [metric for metric in HEADLINES.get(measure["name"], present) if metric in present]
    chance: dict[str, float | None] = {}
    rows = []
    for row in measure["rows"]:
        shown = {metric: row["figures"][metric] for metric in metrics if metric in row["figures"]}
        chance |= {metric: figure["chance"] for metric, figure in shown.items()}
        minus = {
            metric: {other: _value(difference) for other, difference in sorted(figure["minus"].items())}
            for metric, figure in shown.items()
        }
        kind = "floor" if row["kind"] == "floor" else "entry"
        rows.append(ComparedRow(row["name"], kind, {m: _value(f) for m, f in shown.items()}, minus))
    rows.sort(key=lambda row: row.kind == "floor")
    return ComparedMeasure(
        measure["name"], dict(sorted(measure["protocol"].items())), list(measure["warnings"]), metrics, chance, rows
    )


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


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is looked up: `texts` are labels or values of all tiles, "" for tiles that neither ask nor answer."""

    gathered: Gathered
    features: dict[str, NDArray[np.float32]]
    texts: NDArray[np.object_]
    groups: NDArray[np.object_]
    is_numeric: bool


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
    queries = draw_queries(asked.texts, seed, is_numeric=asked.is_numeric)
    if not queries:
        return [], "No tile has a target to ask by."
    found = {name: _nearest(asked, name, queries) for name in asked.features}
    wanted = sorted({*queries, *(hit for hits in found.values() for row in hits for hit in row)})
    images = tile_pictures(tiling, asked.gathered.main, wanted)
    lookups = []
    for number, query in enumerate(queries):
        if query not in images:
            continue
        answers = [
            (name, [_picture(asked, images, hit, query) for hit in hits[number] if hit in images])
            for name, hits in found.items()
        ]
        lookups.append(Lookup(_picture(asked, images, query, None), answers))
    return lookups, _note(seed, spec, asked, len(task["entries"]) - len(shown), floor)


def _floor_of(measures: Sequence[ComparedMeasure]) -> str:
    """The floor that ranks best where ranking was measured, else by the task's first metric."""
    if not measures:
        return ""
    chosen = next((m for m in measures if m.name == "retrieval"), measures[0])
    found = best_floor(chosen, chosen.metrics[-1] if chosen.name == "retrieval" else chosen.metrics[0])
    return found.name if found else ""


def _note(seed: int, spec: TaskSpec, asked: _Asked, n_hidden: int, floor: str) -> str:
    how = "One tile each of low, middle and high value" if asked.is_numeric else "Tiles of one class after the other"
    text = f"{how}, drawn at random (seed {seed}); tiles of the same {spec.leave_out} cannot answer."
    if floor.startswith("random"):
        text += f" Of the floor {floor} the first of its three seeds is shown."
    if n_hidden:
        text += f" {n_hidden} further {'entry is' if n_hidden == 1 else 'entries are'} not pictured."
    return text


def draw_queries(texts: NDArray[np.object_], seed: int, *, is_numeric: bool) -> list[int]:
    """Up to three tiles that ask: of classes one after the other, or one from each third of the values.

    Args:
        texts: (n,) labels or numbers as text; "" cannot ask.
        seed: of the draw.
        is_numeric: whether the texts are numbers.

    Returns:
        Rows, each once.
    """
    rows = np.flatnonzero(texts != "")
    if not len(rows):
        return []
    if is_numeric:
        ordered = rows[np.argsort(np.array([float(texts[row]) for row in rows]), kind="stable")]
        parts = list(zip(_THIRDS, np.array_split(ordered, N_QUERIES), strict=True))
        return [int(stream(seed, "lookup", name).choice(part)) for name, part in parts if len(part)]
    names = stream(seed, "lookup classes").permutation(sorted(set(texts[rows].tolist()))).tolist()
    pools = {name: stream(seed, "lookup", name).permutation(np.flatnonzero(texts == name)).tolist() for name in names}
    queries: list[int] = []
    while len(queries) < min(N_QUERIES, len(rows)):
        for name in names:
            if pools[name] and len(queries) < N_QUERIES:
                queries.append(pools[name].pop())
    return queries


def _asked_of(
    work: Workspace,
    place: Workspace,
    tiling: Tiling,
    spec: TaskSpec,
    entries: Sequence[str],
    floor: str,
    twins: Mapping[str, str],
) -> _Asked:
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
    return _Asked(gathered, features, texts, gathered.units[spec.leave_out], bool(spec.value))


def _store(work: Workspace, place: Workspace, tiling: Tiling, name: str) -> Path:
    """The embeddings of an entry: its fingerprint also says for which tiles it was loaded."""
    from histokin.encoders import load_encoder

    folder = work.run(file_name_of(name)) / "encoder"
    spec = tiling.spec
    encoder = load_encoder(folder, tile_px=spec.tile_px, mpp=spec.mpp, device="cpu", any_field=True)
    return EmbeddingStore(place.embeddings(spec.spec_id, short_id(encoder.fingerprint))).folder


def _nearest(asked: _Asked, name: str, queries: Sequence[int]) -> list[list[int]]:
    """Rows of the nearest tiles that may answer, a list a query."""
    allowed = np.flatnonzero(asked.texts != "")
    metric, is_scaled = floor_distance(name)
    database = asked.features[name][allowed]
    if is_scaled:
        database = standardised(database)
    groups = np.unique(asked.groups[allowed].astype(str), return_inverse=True)[1]
    at = np.searchsorted(allowed, np.array(queries))
    found = top_k(database[at], database, N_HITS, metric=metric, query_groups=groups[at], database_groups=groups)
    return [[int(allowed[i]) for i in ids if i >= 0] for ids in found.ids]


def _picture(asked: _Asked, images: Mapping[int, bytes], row: int, query: int | None) -> Picture:
    text, gathered = str(asked.texts[row]), asked.gathered
    return Picture(
        image=images[row],
        slide=str(gathered.slide[row]),
        patient=str(gathered.patient[row]).removeprefix(UNNAMED),
        label="" if asked.is_numeric else text,
        is_right=None if query is None or asked.is_numeric else bool(text == asked.texts[query]),
        caption=f"{float(text):.3g}" if asked.is_numeric else "",
    )
