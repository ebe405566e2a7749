"""Entries of one recipe that differ in one thing: in their number of tiles, their pixel size or their cohorts."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from histokin.report import figures, palette, wording
from histokin.report.comparison.document import ComparedEntry, ComparedMeasure, ComparedTask, ComparisonDocument
from histokin.report.comparison.figures import Trend, trend_chart
from histokin.report.comparison.verdicts import Difference, best_floor, minus, standing
from histokin.report.comparison.words import metric_name
from histokin.report.document import MetricRow, Value


@dataclass(frozen=True, slots=True)
class Scaling:
    """Charts of one task along one axis, and the legend that they share."""

    title: str
    lead: str
    charts: list[Markup]
    legend: list[tuple[str, palette.Slot | None]]


def scalings(document: ComparisonDocument) -> list[Scaling]:
    """A block for each task and each axis (number of tiles, pixel size) along which entries of one recipe differ."""
    found = []
    for subject in dict.fromkeys(task.subject for task in document.tasks):
        tasks = [task for task in document.tasks if task.subject == subject]
        for axis in (_TILES, _MPP):
            groups = _lines(document.entries, axis)
            charts = _trend_charts(tasks, groups, axis) if groups else []
            if charts:
                slots = _slots(groups)
                legend: list[tuple[str, palette.Slot | None]] = [(name, slots[name]) for name in groups]
                found.append(Scaling(f"{subject}: {axis.title}", axis.lead, charts, [*legend, ("best floor", None)]))
    return found


def _slots(names: Iterable[str]) -> dict[str, palette.Slot]:
    """A colour and a shape each: the lines cross, and nobody should need colour to tell them apart."""
    return {name: (palette.slot(at)[0], at % palette.N_SHAPES) for at, name in enumerate(sorted(names))}


@dataclass(frozen=True, slots=True)
class _Axis:
    title: str
    unit: str
    word: str
    lead: str
    place: Callable[[ComparedEntry], float | None]
    rest: Callable[[ComparedEntry], tuple[object, ...]]


_TILES = _Axis(
    "number of tiles",
    "tiles learned from",
    "tiles",
    "The same recipe on fewer tiles: fewer tiles are seen more often.",
    lambda entry: entry.n_tiles if entry.n_tiles is not None else entry.at_most,
    lambda entry: (entry.recipe, *entry.settings, "|", *entry.train, "|", entry.mpp, *entry.without),
)
_MPP = _Axis(
    "pixel size",
    "µm per pixel",
    "µm/px",
    "Each pixel size cuts its own tiles, for training and for judging: these intervals are not paired across sizes.",
    lambda entry: entry.mpp,
    lambda entry: (entry.recipe, *entry.settings, "|", *entry.train, "|", entry.at_most, *entry.without),
)


def _lines(entries: Sequence[ComparedEntry], axis: _Axis) -> dict[str, list[ComparedEntry]]:
    """Entries that differ along an axis alone, by a name for what they share."""
    groups: dict[tuple[object, ...], list[ComparedEntry]] = {}
    for entry in entries:
        if axis.place(entry) is not None:
            groups.setdefault(axis.rest(entry), []).append(entry)
    lines: dict[str, list[ComparedEntry]] = {}
    for members in groups.values():
        if len({axis.place(entry) for entry in members}) < 2:
            continue
        first = members[0]
        name = ", ".join([first.recipe, *first.settings])
        if name in lines:
            name += f", on {wording.joined(first.train)}"
        while name in lines:
            name += "′"
        lines[name] = sorted(members, key=lambda entry: axis.place(entry) or 0.0)
    return lines


def _trend_charts(tasks: Sequence[ComparedTask], groups: dict[str, list[ComparedEntry]], axis: _Axis) -> list[Markup]:
    slots = _slots(groups)
    charts = []
    for metric in dict.fromkeys(m for task in tasks for measure in task.measures for m in measure.metrics):
        trends, chances, floors = [], set(), dict[float, Value]()
        for name, members in groups.items():
            points = []
            for entry in members:
                at = _figure(tasks, entry.name, metric)
                place = axis.place(entry)
                if at is None or place is None or not wording.is_number(at[1].value):
                    continue
                points.append((float(place), at[1]))
                chances.add(at[0].chance.get(metric))
                floor = best_floor(at[0], metric)
                if floor is not None:
                    floors[float(place)] = floor.values[metric]
            if points:
                trends.append(Trend(name, slots[name], points))
        if not any(len(trend.points) > 1 for trend in trends):
            continue
        trends.append(Trend("best floor", palette.NEUTRAL_SLOT, sorted(floors.items()), is_floor=True))
        # Levels that differ between pixel sizes have no one line.
        chance = chances.pop() if len(chances) == 1 else None
        charts.append(trend_chart(metric_name(metric), trends, chance=chance, unit=axis.unit, place_word=axis.word))
    return charts


def _figure(tasks: Sequence[ComparedTask], entry: str, metric: str) -> tuple[ComparedMeasure, Value] | None:
    for task in tasks:
        for measure in task.measures:
            for row in measure.rows:
                if row.name == entry and metric in row.values:
                    return measure, row.values[metric]
    return None


@dataclass(frozen=True, slots=True)
class CohortRow:
    """A training on one choice of cohorts; `difference` is the training on most of them minus this one."""

    trained_on: str
    is_joint: bool
    value: Value
    track: Markup
    difference: Difference | None


@dataclass(frozen=True, slots=True)
class CohortView:
    """One recipe on one task: trained on several cohorts and on each of them."""

    title: str
    joint: str
    metric: str
    rows: list[CohortRow]
    axis: figures.ForestAxis
    chance: float | None
    floor: str


def cohort_views(document: ComparisonDocument) -> list[CohortView]:
    """For each task, each group of entries that differ in their cohorts alone, and each metric."""
    groups: dict[tuple[object, ...], list[ComparedEntry]] = {}
    for entry in document.entries:
        shared = (entry.recipe, *entry.settings, "|", entry.at_most, entry.mpp, *entry.without)
        groups.setdefault(shared, []).append(entry)
    several = [
        sorted(members, key=lambda entry: -len(entry.train))
        for members in groups.values()
        if len({tuple(entry.train) for entry in members}) > 1
    ]
    found = []
    for task in document.tasks:
        for members in several:
            for measure in task.measures:
                views = [_cohort_view(task, measure, metric, members) for metric in measure.metrics]
                found += [view for view in views if view]
    return found


def _cohort_view(
    task: ComparedTask, measure: ComparedMeasure, metric: str, members: list[ComparedEntry]
) -> CohortView | None:
    by_name = {row.name: row for row in measure.rows if metric in row.values}
    shown = [entry for entry in members if entry.name in by_name]
    if len(shown) < 2:
        return None
    floor, chance = best_floor(measure, metric), measure.chance.get(metric)
    rows = [by_name[entry.name] for entry in shown] + ([floor] if floor else [])
    axis = figures.forest_axis([MetricRow(row.name, "encoder", row.values) for row in rows], metric, chance)
    if axis is None:
        return None
    joint = shown[0]
    is_joint = len(joint.train) > max(len(entry.train) for entry in shown[1:])
    level = floor.values[metric].value if floor else None
    views = []
    for entry in shown:
        value = by_name[entry.name].values[metric]
        on = " + ".join(entry.train)
        difference = None
        if is_joint and entry is not joint:
            of = minus(by_name[joint.name], metric, entry.name)
            difference = Difference(of, standing(of), entry.name)
        words = f"{on}: {wording.number(value.value)} {wording.interval(value)}".strip()
        kind = "trained" if is_joint and entry is joint else "encoder"
        track = figures.forest_track(axis, value, kind=kind, label=words, reference=level)
        views.append(CohortRow(on, is_joint and entry is joint, value, track, difference))
    title = f"{', '.join([joint.recipe, *joint.settings])} on {task.title}"
    if joint.at_most is not None:
        title += f", {wording.counted(joint.at_most, 'tile')}"
    named = " + ".join(joint.train) if is_joint else ""
    return CohortView(title, named, metric, views, axis, chance, floor.name if floor else "")
