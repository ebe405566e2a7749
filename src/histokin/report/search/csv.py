"""The answers as a CSV text, for a spreadsheet: unrounded, in rank order."""

import csv
import io

from histokin.report import wording
from histokin.report.search.document import SearchDocument

_COLUMNS = ("rank", "score", "percentile", "p", "patient", "slide", "tile", "x", "y", "w", "h")
_FORMULA = ("=", "+", "-", "@", "\t")  # what a spreadsheet would run


def answers_csv(document: SearchDocument) -> str:
    """A line an answer and a column a label; tile, x, y, w, h (level-0 pixels) are empty for whole slides.

    Texts that a spreadsheet would take for a formula get an apostrophe before them.
    """
    labels = sorted({column for answer in document.answers for column in answer.labels})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_COLUMNS, *map(_text, labels)])
    for answer in document.answers:
        box = answer.box
        places = (box.x, box.y, box.w, box.h) if box else ("", "", "", "")
        figures = (answer.rank, *map(_number, (answer.score, answer.percentile, answer.p)))
        texts = [_text(text) for text in (answer.patient, answer.slide)]
        tile = "" if answer.tile is None else answer.tile
        writer.writerow([*figures, *texts, tile, *places, *(_text(answer.labels.get(column, "")) for column in labels)])
    return wording.clean(out.getvalue())


def _number(value: float | None) -> str:
    return "" if value is None else repr(float(value))


def _text(text: str) -> str:
    text = text.replace("\r", " ")  # the csv module leaves it unquoted, and readers end a line there
    return f"'{text}" if text.startswith(_FORMULA) or text.lstrip().startswith(_FORMULA) else text
