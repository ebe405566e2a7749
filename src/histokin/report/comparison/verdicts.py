"""What intervals allow to be said: how entries stand to random weights, to the best floor and to each other.

A verdict reads the ends of intervals that are in the document and computes nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from histokin.report import wording
from histokin.report.comparison.document import ComparedMeasure, ComparedRow, ComparedTask, ComparisonDocument
from histokin.report.comparison.words import LOWER_IS_BETTER
from histokin.report.document import Value

Standing = Literal["above", "below", "alike", "unknown"]
SIGNS: dict[Standing, str] = {"above": "▲", "below": "▼", "alike": "≈", "unknown": "?"}
STANDINGS: dict[Standing, str] = {
    "above": "higher",
    "below": "lower",
    "alike": "cannot be told apart",
    "unknown": "no interval",
}


def standing(difference: Value | None) -> Standing:
    """What the interval of a difference allows to be said; "unknown" without an interval."""
    if difference is None or difference.low is None or difference.high is None:
        return "unknown"
    if not wording.is_number(difference.low) or not wording.is_number(difference.high):
        return "unknown"
    return "above" if difference.low > 0 else "below" if difference.high < 0 else "alike"


@dataclass(frozen=True, slots=True)
class Difference:
    """A cell of a table: one row minus another."""

    value: Value | None
    standing: Standing
    other: str


@dataclass(frozen=True, slots=True)
class Line:
    """One sentence of a verdict: entries, and what is true of them."""

    tone: Literal["good", "part", "plain", "bad"]
    claim: str
    names: list[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one task's headline metric allows to be said."""

    task: ComparedTask
    metric: str
    floor: str
    lines: list[Line]
    among: str
    notes: list[str]

    @property
    def is_optimistic(self) -> bool:
        """Whether the intervals come from so few clusters that they are known to be too narrow."""
        return any(note.startswith("optimistic") for note in self.notes)


def best_floor(measure: ComparedMeasure, metric: str) -> ComparedRow | None:
    """The floor with the highest value, of an error the lowest; ties go to the first."""
    return _best([row for row in measure.rows if row.kind == "floor"], metric)


def _best(rows: Iterable[ComparedRow], metric: str) -> ComparedRow | None:
    known = [(row.values[metric].value, row) for row in rows if metric in row.values]
    valued = [(value, row) for value, row in known if value is not None and wording.is_number(value)]
    best = min if metric in LOWER_IS_BETTER else max
    return best(valued, key=lambda pair: pair[0])[1] if valued else None


def minus(row: ComparedRow, metric: str, other: str) -> Value | None:
    """A row minus another, if that was computed."""
    return row.minus.get(metric, {}).get(other)


def between(measure: ComparedMeasure, metric: str, row: ComparedRow, other: str) -> Value | None:
    """A row minus another, or else what the other's difference to it says, turned round."""
    own = minus(row, metric, other)
    if own is not None:
        return own
    turned = next((minus(one, metric, row.name) for one in measure.rows if one.name == other), None)
    if turned is None:
        return None
    value, low, high = (-end if end is not None else None for end in (turned.value, turned.high, turned.low))
    return replace(turned, value=value, low=low, high=high)


def verdict(task: ComparedTask) -> Verdict | None:
    """Sentences on the task's first metric; None if nothing was measured."""
    if not task.measures or not task.measures[0].metrics:
        return None
    measure = task.measures[0]
    metric = measure.metrics[0]
    floor = best_floor(measure, metric)
    entries = [row for row in measure.rows if row.kind == "entry"]
    grouped: dict[tuple[Standing, Standing], list[str]] = {}
    for row in entries:
        twin = standing(minus(row, metric, task.twins.get(row.name, "")))
        best = standing(minus(row, metric, floor.name)) if floor else "unknown"
        grouped.setdefault((twin, best), []).append(row.name)
    order = ("above", "alike", "below", "unknown")
    ordered = sorted(grouped, key=lambda pair: (order.index(pair[1]), order.index(pair[0])))
    floor_name = floor.name if floor else ""
    is_one = floor_name in set(task.twins.values()) and len(set(task.twins.values())) == 1
    lines = [
        Line(_tone(metric, *pair), _claim(*pair, is_one=is_one, floor=floor_name), grouped[pair]) for pair in ordered
    ]
    return Verdict(task, metric, floor_name, lines, _among(entries, metric), limits(measure, [metric]))


def _tone(metric: str, twin: Standing, best: Standing) -> Literal["good", "part", "plain", "bad"]:
    better, worse = ("below", "above") if metric in LOWER_IS_BETTER else ("above", "below")
    if worse in (twin, best):
        return "bad"
    if better in (twin, best):
        return "good" if twin == best else "part"
    return "plain"


_VERBS: dict[Standing, str] = {
    "above": "Higher than {}",
    "below": "Lower than {}",
    "alike": "Cannot be told apart from {}",
    "unknown": "No interval against {}",
}


def _claim(twin: Standing, best: Standing, *, is_one: bool, floor: str) -> str:
    if is_one:
        return _VERBS[best].format("random weights, here also the best floor")
    named = f"the best floor ({floor})"
    if twin == best:
        joint = "random weights or " if best in ("alike", "unknown") else "random weights and "
        return _VERBS[best].format(joint + named)
    first, second = _VERBS[twin].format("random weights"), _VERBS[best].format(named)
    return f"{first}, but {second[0].lower()}{second[1:]}"


def _among(entries: list[ComparedRow], metric: str) -> str:
    """How the entries stand to the one with the highest value."""
    top = _best(entries, metric)
    if top is None or len(entries) < 2:
        return ""
    by: dict[Standing, list[str]] = {}
    for row in entries:
        if row is not top:
            by.setdefault(standing(minus(top, metric, row.name)), []).append(row.name)
    said = [f"Highest value among the entries: {top.name}."]
    if not by.get("above") and not by.get("unknown"):
        said.append("None of the others can be told apart from it.")
    else:
        if by.get("alike"):
            said.append(f"Cannot be told apart from it: {'; '.join(by['alike'])}.")
        if by.get("above"):
            said.append(f"Lower: {'; '.join(by['above'])}.")
        if by.get("unknown"):
            said.append(f"Without an interval: {'; '.join(by['unknown'])}.")
    return " ".join(said)


def limits(measure: ComparedMeasure, metrics: Sequence[str]) -> list[str]:
    """What limits the intervals of these metrics, each once."""
    found = []
    for row in measure.rows:
        for metric in metrics:
            found += [row.values[metric]] if metric in row.values else []
            found += row.minus.get(metric, {}).values()
    return list(dict.fromkeys(part for value in found if value.note for part in value.note.split("; ")))


@dataclass(frozen=True, slots=True)
class Overview:
    """All entries and all headline metrics of a task at one glance."""

    metrics: list[str]
    rows: list[tuple[str, list[tuple[str, str]]]]


def overview(task: ComparedTask) -> Overview:
    """By entry and metric, (tone, words): how it stands to random weights and to the best floor."""
    drawn = [(measure, metric) for measure in task.measures for metric in measure.metrics]
    names = list(dict.fromkeys(r.name for m in task.measures for r in m.rows if r.kind == "entry"))
    rows = []
    for name in names:
        cells = []
        for measure, metric in drawn:
            row = next((row for row in measure.rows if row.name == name and metric in row.values), None)
            cells.append(standings_of(measure, row, metric, task.twins) if row else ("plain", wording.MISSING))
        rows.append((name, cells))
    return Overview([metric for _, metric in drawn], rows)


def standings_of(measure: ComparedMeasure, row: ComparedRow, metric: str, twins: Mapping[str, str]) -> tuple[str, str]:
    """(tone, words): how a row stands to its random twin and to the best floor; ("plain", "") where it has neither."""
    floor = best_floor(measure, metric)
    others = {"random": twins.get(row.name, ""), "floor": floor.name if floor else ""}
    found: dict[str, Standing] = {
        name: standing(between(measure, metric, row, other)) for name, other in others.items() if other
    }
    if not found:
        return "plain", ""
    said = list(found.values())
    return _tone(metric, said[0], said[-1]), " ".join(f"{SIGNS[one]} {name}" for name, one in found.items())


def n_differences(document: ComparisonDocument) -> int:
    """How many differences with an interval the verdicts and overviews of the page rest on."""
    return sum(
        len({task.twins.get(row.name, ""), floor.name if floor else ""} & set(row.minus.get(metric, {})))
        for task in document.tasks
        for measure in task.measures
        for metric in measure.metrics
        for floor in [best_floor(measure, metric)]
        for row in measure.rows
        if row.kind == "entry"
    )
