"""From a comparison's document to what its template lays out: tables with their figures, and training curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from histokin.report import figures, palette, wording
from histokin.report.comparison.document import ComparedEntry, ComparedMeasure, ComparedTask, ComparisonDocument
from histokin.report.comparison.figures import bounds, shared_chart
from histokin.report.comparison.verdicts import (
    Difference,
    Overview,
    Verdict,
    best_floor,
    between,
    limits,
    overview,
    standing,
    verdict,
)
from histokin.report.comparison.words import LOOKS, METRICS, protocol_sentence
from histokin.report.document import MetricRow, Value
from histokin.report.views import flat

# ---- tables


@dataclass(frozen=True, slots=True)
class RowView:
    """A row of a table with its track in the figure; `differences` one for each further column."""

    name: str
    kind: str
    is_best_floor: bool
    value: Value
    track: Markup
    differences: list[Difference]


@dataclass(frozen=True, slots=True)
class MetricView:
    """One metric of a task: table and figure in one."""

    metric: str
    name: str
    meaning: str
    columns: list[str]
    rows: list[RowView]
    axis: figures.ForestAxis
    chance: float | None
    floor: str
    notes: list[str]


@dataclass(frozen=True, slots=True)
class MeasureView:
    """One way of judging, ready to be laid out."""

    measure: ComparedMeasure
    sentence: str
    protocol: list[tuple[str, str]]
    metrics: list[MetricView]


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task, ready to be laid out."""

    task: ComparedTask
    verdict: Verdict | None
    overview: Overview
    measures: list[MeasureView]


def task_view(task: ComparedTask, entries: Sequence[ComparedEntry]) -> TaskView:
    """Lay out one task."""
    against = {entry.name: entry.against for entry in entries}
    measures = []
    for measure in task.measures:
        found = [metric_view(measure, metric, task.twins, against) for metric in measure.metrics]
        shown = [view for view in found if view is not None]
        measures.append(MeasureView(measure, protocol_sentence(measure, task.n_judged), flat(measure.protocol), shown))
    return TaskView(task, verdict(task), overview(task), measures)


def metric_view(
    measure: ComparedMeasure,
    metric: str,
    twins: Mapping[str, str],
    against: Mapping[str, Sequence[str]],
    called: tuple[str, str] | None = None,
) -> MetricView | None:
    """Table and figure of one metric; None if no row has a value.

    Args:
        measure: what was judged.
        metric: one of its own.
        twins: by entry, the floor of random weights of its own architecture.
        against: by entry, the other entries that it is held against.
        called: the metric's name and meaning, where they are not those of a tile's comparison.
    """
    rows = [row for row in measure.rows if metric in row.values]
    rows.sort(key=lambda row: row.kind == "floor")  # stable: the order of the plan stays
    chance = measure.chance.get(metric)
    axis = figures.forest_axis([MetricRow(row.name, "encoder", row.values) for row in rows], metric, chance)
    if axis is None:
        return None
    floor = best_floor(measure, metric)
    beside = list(dict.fromkeys(other for row in rows for other in against.get(row.name, [])))
    held: list[tuple[str, Mapping[str, str]]] = []  # a column's title, and by entry the row it is held against
    if twins:
        held.append(("− random", twins))
    if floor:
        held.append(("− best floor", {row.name: floor.name for row in rows}))
    held += [(f"− {name}", {entry: name for entry, others in against.items() if name in others}) for name in beside]
    level = floor.values[metric].value if floor else None
    found = []
    for row in rows:
        value = row.values[metric]
        differences = []
        if row.kind == "entry":
            for _, others in held:
                other = others.get(row.name, "")
                of = between(measure, metric, row, other)
                differences.append(Difference(of, standing(of), other))
        words = f"{row.name}: {wording.number(value.value)} {wording.interval(value)}".strip()
        kind = "trained" if row.kind == "entry" else "floor"
        track = figures.forest_track(axis, value, kind=kind, label=words, reference=level)
        found.append(RowView(row.name, row.kind, row is floor, value, track, differences))
    name, meaning = called or METRICS.get(metric, (wording.metric(metric), ""))
    columns, notes = [column for column, _ in held], limits(measure, [metric])
    return MetricView(metric, name, meaning, columns, found, axis, chance, floor.name if floor else "", notes)


# ---- training


@dataclass(frozen=True, slots=True)
class EntryView:
    """One training: its curves, and what it was asked for."""

    entry: ComparedEntry
    charts: list[Markup]
    facts: list[tuple[str, str]]


def entry_views(entries: Sequence[ComparedEntry]) -> list[EntryView]:
    """Curves of each entry; all but the losses share their axes and stand over the faint curves of the others."""
    looks = {look: {entry.name: figures.series(entry.looks, look) for entry in entries} for look in LOOKS}
    known = {look: found for look, found in looks.items() if any(found.values())}
    spans = {look: bounds([y for points in found.values() for _, y in points]) for look, found in known.items()}
    ends = {look: (0.0, max(x for points in found.values() for x, _ in points)) for look, found in known.items()}
    views = []
    for entry in entries:
        charts = []
        losses = figures.series([{"step": s, "loss": v} for s, v in entry.losses], "loss")
        if losses:
            charts.append(figures.line_chart("Loss", losses, is_smoothed=True))
        for look, found in known.items():
            others = [points for name, points in found.items() if name != entry.name and points]
            charts.append(shared_chart(LOOKS[look][0], found[entry.name], others, span=spans[look], steps=ends[look]))
        views.append(EntryView(entry, charts, _facts(entry)))
    return views


def look_notes(entries: Sequence[ComparedEntry]) -> list[tuple[str, str]]:
    """What the curves beside the loss mean, for those that were looked at."""
    return [LOOKS[look] for look in LOOKS if any(figures.series(entry.looks, look) for entry in entries)]


def _facts(entry: ComparedEntry) -> list[tuple[str, str]]:
    rows = [
        ("recipe", entry.recipe),
        ("method", entry.method),
        ("settings", ", ".join(entry.settings)),
        ("learned from", ", ".join(entry.train)),
        ("tiles", wording.count(entry.n_tiles) if entry.n_tiles is not None else ""),
        ("at most", f"{entry.at_most:,} tiles" if entry.at_most is not None else ""),
        ("pixel size", wording.pixel_size(entry.mpp) if entry.mpp is not None else ""),
        ("kept out", ", ".join(entry.without)),
        ("compared with", ", ".join(entry.against)),
        ("steps", wording.count(entry.steps)),
        ("batch", wording.count(entry.batch)),
        ("views", wording.count(entry.views)),
        ("fingerprint", entry.fingerprint),
    ]
    return [(name, text) for name, text in rows if text]


# ---- retrieval


def label_slots(document: ComparisonDocument) -> dict[str, palette.Slot]:
    """One palette slot a class, over all pictures."""
    names = set()
    for task in document.tasks:
        if task.kind == "classes":
            for lookup in task.lookups:
                names |= {lookup.query.label, *(hit.label for _, hits in lookup.answers for hit in hits)}
    return palette.assign(names)
