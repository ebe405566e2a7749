"""An evaluation for a terminal: the metrics that count of each chapter, what limits them, and what was not measured.

All else is named in a line and stands on the page and in its tables.
"""

from collections.abc import Iterable, Mapping, Sequence

from histokin.report import wording
from histokin.report.comparison.document import ComparedMeasure, ComparedRow
from histokin.report.comparison.verdicts import limits, minus
from histokin.report.document import Value
from histokin.report.evaluation.document import Chapter, EvaluationDocument, Quantity
from histokin.report.evaluation.words import counted, left_out, prevalence_words
from histokin.report.lines import WIDTH, fitted, wrapped

_NAME, _COLUMN = 30, 26  # a name and three columns fill a line


def evaluation_text(document: EvaluationDocument) -> str:
    """All chapters, then what was not measured, at most 110 columns wide."""
    blocks = [
        _head(document),
        *(_chapter(chapter, document.reference, document.floors) for chapter in document.chapters),
    ]
    refused = [f"{protocol}: {sentence}" for protocol, sentence in document.refusals]
    if refused:
        blocks.append(["Not measured:", *wrapped(refused, "  ")])
    return wording.clean("\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks))


def _head(document: EvaluationDocument) -> list[str]:
    said = [", ".join(counted(document.counts)), left_out(document.leave_out)]
    text = f"{document.title}: {'; '.join(part for part in said if part)}; 95 % intervals; * floor"
    if len(document.stores) + len(document.floors) > 1:
        text += f"; last column: {document.reference} minus the row, by the first metric"
    return [*wrapped([text]), *wrapped(document.notes, "  ")]


def _chapter(chapter: Chapter, reference: str, floors: Sequence[str]) -> list[str]:
    about = [", ".join(counted(chapter.counts)), prevalence_words(chapter.prevalence)]
    lines = wrapped([f"{chapter.title} ({'; '.join(part for part in about if part) or 'nothing was counted'})"])
    for measure in chapter.measures:
        lines += _measure(measure, reference)
    if chapter.quantities and not chapter.measures:
        lines += _quantities(chapter.quantities, floors)
    elif chapter.quantities:
        lines += _further([quantity.name for quantity in chapter.quantities], "without intervals")
    if chapter.shots:
        lines += _shots(chapter)
    if not (chapter.measures or chapter.quantities or chapter.shots or chapter.notes or chapter.controls):
        lines.append("  nothing was measured")
    return [*lines, *wrapped([*chapter.notes, *chapter.controls], "  ! ")]


def _measure(measure: ComparedMeasure, reference: str) -> list[str]:
    """The first metrics that fit beside each other, and the reference minus each row for the one that counts."""
    if not measure.metrics:
        return []
    main = next((row for row in measure.rows if row.name == reference and row.kind == "entry"), None)
    first = measure.metrics[0]
    is_compared = main is not None and any(minus(main, first, row.name) for row in measure.rows)
    shown = measure.metrics[: 2 if is_compared else 3]
    lines = _table(measure, shown, main if is_compared else None, measure.name)
    said = dict.fromkeys([*limits(measure, shown), *measure.warnings])
    return [*lines, *_further(measure.metrics[len(shown) :], "further metrics"), *wrapped(said, "  ! ")]


def _further(names: Sequence[str], what: str) -> list[str]:
    """What the page and its tables hold besides."""
    return wrapped([f"on the page, {what}: {', '.join(names)}"], "  ") if names else []


def _table(measure: ComparedMeasure, metrics: Sequence[str], main: ComparedRow | None, title: str) -> list[str]:
    heads = [*metrics, *([f"{main.name} - row"] if main else [])]
    lines = [_line(title, heads)]
    for row in measure.rows:
        cells = [_span(row.values.get(metric)) for metric in metrics]
        if main:
            cells.append(_span(minus(main, metrics[0], row.name), "+") if row is not main else "")
        lines.append(_line(_row_name(row.name, is_floor=row.kind == "floor"), cells))
    return [*lines, _line("  chance", [_number(measure.chance.get(metric)) for metric in metrics])]


def _quantities(quantities: Sequence[Quantity], floors: Sequence[str]) -> list[str]:
    """Rows down, encoders first, quantities across."""
    named = dict.fromkeys(name for quantity in quantities for name in quantity.values)
    names = sorted(named, key=lambda name: floors.index(name) if name in floors else -1)
    lines = []
    for start in range(0, len(quantities), 3):
        some = quantities[start : start + 3]
        lines.append(_line("without intervals", [quantity.name for quantity in some]))
        lines += [
            _line(_row_name(name, is_floor=name in floors), [_number(quantity.values.get(name)) for quantity in some])
            for name in names
        ]
    return lines


def _shots(chapter: Chapter) -> list[str]:
    """Medians by the number of shots, as many as fit."""
    numbers = sorted({n for curve in chapter.shots for n, *_ in curve.points})
    width = 10
    kept = numbers[: (WIDTH - _NAME) // width]
    lines = [_line("median over episodes, shots", [str(n) for n in kept], width)]
    for curve in chapter.shots:
        medians: Mapping[int, float] = {n: middle for n, middle, _, _ in curve.points}
        name = _row_name(curve.row, is_floor=curve.kind == "floor")
        lines.append(_line(name, [_number(medians.get(n)) for n in kept], width))
    return [*lines, _line("  chance", [_number(chapter.shots_chance)], width)]


# ---- cells


def _row_name(name: str, *, is_floor: bool) -> str:
    """A row's name, cut before its mark is."""
    return f"  {fitted(name, _NAME - 4).rstrip()}{' *' if is_floor else ''}"


def _line(name: str, cells: Iterable[str], width: int = _COLUMN) -> str:
    return fitted(name, _NAME) + "".join(fitted(cell, width) for cell in cells)


def _number(value: float | None, sign: str = "") -> str:
    if value is None or not wording.is_number(value):
        return wording.MISSING
    return f"{value:{sign}.{3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0}f}"


def _span(found: Value | None, sign: str = "") -> str:
    if found is None:
        return wording.MISSING
    ends = (found.low, found.high)
    if not all(wording.is_number(number) for number in (found.value, *ends)):
        return _number(found.value, sign)
    return f"{_number(found.value, sign)} [{', '.join(_number(end, sign) for end in ends)}]"
