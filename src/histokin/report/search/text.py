"""A search for a terminal: what was searched, whether anything is alike, a table of answers, and what they share."""

from collections.abc import Sequence

from histokin.report import wording
from histokin.report.lines import columns_of, cut, wrapped
from histokin.report.search import words
from histokin.report.search.document import Answer, SearchDocument

_WIDEST = 20  # columns of a terminal for one text; three of them and the numbers fill a line


def search_text(document: SearchDocument) -> str:
    """At most 110 columns wide: sentences are wrapped, texts of the table are cut."""
    query = document.query
    lines = wrapped([f"{words.kind(document)}: {'; '.join([query.name, *words.asked(document)])}"])
    lines += wrapped([words.summary(document)])
    lines += wrapped([f"{name}: {text}" for name, text in words.searched_facts(document.searched)], "  ")
    if document.test:
        lines += ["", *wrapped([". ".join(words.verdict_sentences(document.test))])]
    if document.answers:
        lines += ["", *_table(document)]
    agreed = [f"{found.column}: {words.agreement(found)}" for found in document.by_patient]
    said = [*wrapped(agreed), *wrapped(document.warnings, "! "), *wrapped(document.notes, "  ")]
    return wording.clean("\n".join(line.rstrip() for line in [*lines, *([""] if said else []), *said]))


def _table(document: SearchDocument) -> list[str]:
    """Numbers to the right, texts to the left; columns without anything are left out."""
    heads = ("#", "score", "% lower", "p", document.label_column, "patient", "slide", "tile", "x y")
    rows = [_row(document, answer) for answer in document.answers]
    kept = [at for at in range(len(heads)) if any(row[at] for row in rows)]
    table = [[cut(row[at], _WIDEST) for at in kept] for row in (heads, *rows)]
    wide = [max(columns_of(line[at]) for line in table) for at in range(len(kept))]
    return [_line(line, wide) for line in table]


def _row(document: SearchDocument, answer: Answer) -> tuple[str, ...]:
    box = answer.box
    return (
        str(answer.rank),
        f"{answer.score:.{words.SCORE_DIGITS}f}",
        words.percentile(answer.percentile).removesuffix(" %"),
        "" if answer.p is None else f"{answer.p:.3f}",
        document.label_of(answer),
        answer.patient,
        answer.slide,
        "" if answer.tile is None else str(answer.tile),
        f"{box.x:.0f} {box.y:.0f}" if box else "",
    )


def _line(cells: Sequence[str], wide: Sequence[int]) -> str:
    filled = []
    for index, (cell, width) in enumerate(zip(cells, wide, strict=True)):
        room = " " * (width - columns_of(cell))
        filled.append(room + cell if index < 2 else cell + room)
    return "  ".join(filled)
