"""A comparison for a terminal: the tables, what limits them, and what went wrong in training."""

from histokin.report import wording
from histokin.report.comparison.document import ComparedMeasure, ComparedRow, ComparedTask, ComparisonDocument
from histokin.report.comparison.verdicts import best_floor, limits, minus
from histokin.report.comparison.words import transduction
from histokin.report.document import Value

_NAME, _VALUE, _MINUS = 36, 23, 25


def comparison_text(document: ComparisonDocument) -> str:
    """All tables, then alarms and notes of the trainings."""
    blocks = [_task(task) for task in document.tasks]
    said = [f"{entry.name}: {text}" for entry in document.entries for text in (*entry.alarms, *entry.notes)]
    return "\n\n".join([*blocks, *(["\n".join(said)] if said else [])])


def _task(task: ComparedTask) -> str:
    lines = [f"{task.title} ({wording.counted(task.n_judged, 'tile')}); 95 % intervals; * floor"]
    lines += [f"  {text}" for text in (transduction(task),) if text]
    for measure in task.measures:
        for metric in measure.metrics:
            lines += _table(task, measure, metric)
        said = [*limits(measure, measure.metrics), *measure.warnings]
        lines += [f"    {measure.name}: {text}" for text in dict.fromkeys(said)]
    lines += [f"  {refusal}" for refusal in task.refusals]
    return "\n".join(lines)


def _table(task: ComparedTask, measure: ComparedMeasure, metric: str) -> list[str]:
    """Value and interval of each row, and what remains of an entry after random weights and the best floor."""
    best = best_floor(measure, metric)
    against = f"- best floor ({best.name})" if best else ""
    lines = [f"  {metric:<{_NAME + 2}}{'value':<{_VALUE}}{'- random':<{_MINUS}}{against}".rstrip()]
    for row in measure.rows:
        others = [task.twins.get(row.name, ""), best.name if best else ""] if row.kind == "entry" else []
        lines.append(f"    {row.name + (' *' if row.kind == 'floor' else ''):<{_NAME}}{_cells(row, metric, others)}")
    return [line.rstrip() for line in lines]


def _cells(row: ComparedRow, metric: str, others: list[str]) -> str:
    differences = "".join(f"{_span(minus(row, metric, other), '+'):<{_MINUS}}" for other in others)
    return f"{_span(row.values.get(metric)):<{_VALUE}}{differences}"


def _span(found: Value | None, sign: str = "") -> str:
    if found is None or found.value is None or not wording.is_number(found.value):
        return wording.MISSING
    if found.low is None or found.high is None or not wording.is_number(found.low):
        return f"{found.value:{sign}.3f}"
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
