"""An evaluation's numbers as CSV texts, for people who draw their own figures: unrounded and in a stable order."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

from histokin.report import wording
from histokin.report.document import Value
from histokin.report.evaluation.document import Chapter, EvaluationDocument, PartLine
from histokin.report.evaluation.words import n_asked

_OF = ("protocol", "level", "column")
_VALUE = ("value", "low", "high", "note")
Cell = str | int | float | None


def tables(document: EvaluationDocument) -> dict[str, str]:
    """By file name the text of each table; numbers as Python writes them, an empty cell where there is none.

    `figures.csv` holds a line for each chapter, measure, row and metric, `differences.csv` each row minus another;
    `per_class.csv`, `per_group.csv` and `quantities.csv` what their names say. A table without lines has its header.
    """
    chapters = document.chapters
    by_class = (line for chapter in chapters for line in _parts(chapter, chapter.per_class))
    by_group = (line for chapter in chapters for line in _parts(chapter, chapter.per_group))
    part = ("metric", *_VALUE, "chance", "n", "n_patients")
    return {
        "figures.csv": _text(
            (*_OF, "measure", "row", "kind", "metric", *_VALUE, "chance", "n_queries", "n_patients"),
            (line for chapter in chapters for line in _figures(chapter)),
        ),
        "differences.csv": _text(
            (*_OF, "measure", "metric", "row", "other", *_VALUE, "p"),
            (line for chapter in chapters for line in _differences(chapter)),
        ),
        "per_class.csv": _text((*_OF, "row", "class", *part), by_class),
        "per_group.csv": _text((*_OF, "row", "group", *part), by_group),
        "quantities.csv": _text(
            (*_OF, "quantity", "row", "value", "meaning"),
            (line for chapter in chapters for line in _quantities(chapter)),
        ),
    }


def _figures(chapter: Chapter) -> Iterator[Sequence[Cell]]:
    asked = (n_asked(chapter), chapter.counts.get("patients"))
    for measure in chapter.measures:
        for row in measure.rows:
            for metric, value in row.values.items():
                chance = measure.chance.get(metric)
                yield *_of(chapter), measure.name, row.name, row.kind, metric, *_value(value), chance, *asked


def _differences(chapter: Chapter) -> Iterator[Sequence[Cell]]:
    for measure in chapter.measures:
        for row in measure.rows:
            for metric, others in row.minus.items():
                for other, value in others.items():
                    yield *_of(chapter), measure.name, metric, row.name, other, *_value(value), value.p


def _parts(chapter: Chapter, lines: Iterable[PartLine]) -> Iterator[Sequence[Cell]]:
    for line in lines:
        size = (line.chance, line.n, line.n_patients)
        yield *_of(chapter), line.row, line.part, line.metric, *_value(line.value), *size


def _quantities(chapter: Chapter) -> Iterator[Sequence[Cell]]:
    for quantity in chapter.quantities:
        for row, value in quantity.values.items():
            yield *_of(chapter), quantity.name, row, value, quantity.meaning


def _of(chapter: Chapter) -> tuple[str, str, str]:
    return chapter.protocol, chapter.level, chapter.column


def _value(value: Value) -> tuple[Cell, ...]:
    return value.value, value.low, value.high, value.note


def _text(header: Sequence[str], lines: Iterable[Sequence[Cell]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(cell) for cell in line] for line in lines)
    return wording.clean(out.getvalue())


def _cell(cell: Cell) -> str:
    if cell is None:
        return ""
    return repr(float(cell)) if isinstance(cell, float) else str(cell)  # float: NumPy's own repr names its type
