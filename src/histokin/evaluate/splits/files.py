"""The split table as the text of a CSV file, a row an item and fold."""

import csv
import io
import re
from collections.abc import Iterator, Sequence

from histokin.errors import EvaluationError
from histokin.evaluate.splits.table import PARTS, UNITS, SplitTable, Unit

_WHERE = "split file"
_HEADER: tuple[str, ...] = ("item", "slide", "patient", "site", "label", "repeat", "fold", "part")
_NEEDED = ("item", "slide", "patient", "repeat", "fold", "part")
_WHERE_TOLD = ("picture", "group", "unit")  # left out where they say nothing: slide, patient, patient
_NUMBER = re.compile("[0-9]{1,9}")


def splits_csv(table: SplitTable) -> str:
    """The text of a table's file: item, slide, patient, site, label, repeat, fold, part.

    Three more columns follow where they say something: picture (it is not the slide itself), group (it is not the
    patient) and unit (it is not the patient that was kept whole). Kind and warnings stay outside.

    Args:
        table: any.
    """
    header = list(_HEADER)
    columns = [getattr(table, name).tolist() for name in header]
    for name, default in (("picture", table.slide), ("group", table.patient)):
        if (getattr(table, name) != default).any():
            header.append(name)
            columns.append(getattr(table, name).tolist())
    if table.unit != "patient":
        header.append("unit")
        columns.append([table.unit] * len(table))
    lines = [header, *zip(*columns, strict=True)]
    return "".join(",".join(map(_quoted, cells)) + "\n" for cells in lines)


def splits_from_csv(text: str, *, kind: str = "given", warnings: Sequence[str] = ()) -> SplitTable:
    """The table of such a text, with the same checks as any other.

    Args:
        text: columns in any order, those of `splits_csv`; site and label may be missing too.
        kind: how it was made, which the text does not say.
        warnings: that belong to it.

    Raises:
        EvaluationError: a column is missing, unknown or there twice; a cell cannot be read, named by line and column;
            or as `SplitTable`.
    """
    lines = _lines(text)
    header = [name.strip() for name in next(lines, (1, []))[1]]
    _check_header(header)
    columns: dict[str, list[str]] = {name: [] for name in header}
    units: dict[str, int] = {}
    for line, cells in lines:
        if len(cells) != len(header):
            raise EvaluationError(
                f"line {line} has {len(cells)} cells, the header {len(header)}", _WHERE, "Fill empty cells with commas."
            )
        row = dict(zip(header, cells, strict=True))
        units.setdefault(row.get("unit") or "patient", line)
        _check_row(row, line)
        for name in header:
            columns[name].append(row[name])
    unit = _unit(units)
    numbers = {name: [int(cell) for cell in columns[name]] for name in ("repeat", "fold")}
    try:
        return SplitTable.of_columns({**columns, **numbers}, unit=unit, kind=kind, warnings=warnings)
    except EvaluationError as cause:
        raise EvaluationError(cause.what, f"{_WHERE}, rows counted from 0 below the header", cause.remedy) from cause


def _quoted(value: object) -> str:
    """A cell as the csv module writes it, but for a lone carriage return, which Python 3.11 leaves unquoted."""
    cell = str(value)
    return '"' + cell.replace('"', '""') + '"' if any(sign in cell for sign in ',"\r\n') else cell


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and cells; a row of several lines has the number of its last."""
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as cause:
            raise EvaluationError(
                f"line {reader.line_num} is no line of a CSV: {cause}", _WHERE, "Close its quotation marks."
            ) from cause
        if cells:
            yield reader.line_num, cells


def _check_header(header: Sequence[str]) -> None:
    known = (*_HEADER, *_WHERE_TOLD)
    for names, what in (
        ([name for name in _NEEDED if name not in header], "columns are missing"),
        ([name for name in header if name not in known], "unknown columns"),  # a misspelt `picture` guards nothing
        (sorted({name for name in header if header.count(name) > 1}), "columns are there twice"),
    ):
        if names:
            raise EvaluationError(
                f"line 1: {what}: {', '.join(names)}",
                _WHERE,
                f"A split has {', '.join(_HEADER)} and, where needed, {', '.join(_WHERE_TOLD)}.",
            )


def _check_row(row: dict[str, str], line: int) -> None:
    unit = row.get("unit") or "patient"
    has_group = bool(row.get("group") or row["patient"])
    for name, is_wrong, remedy in (
        ("item", not row["item"], "Give every item its id."),
        ("patient", unit != "slide" and not has_group, "Fill the patient in, or leave the row out."),
        ("site", unit == "site" and not row.get("site"), "Fill the site in, or leave the row out."),
        ("slide", unit == "slide" and not row["slide"], "Fill the slide in, or leave the row out."),
        ("repeat", not _NUMBER.fullmatch(row["repeat"]), "Count repeats from 0."),
        ("fold", not _NUMBER.fullmatch(row["fold"]), "Count folds from 0."),
        ("part", row["part"] not in PARTS, f"Use {', '.join(PARTS)}."),
    ):
        if is_wrong:
            raise _unreadable(line, name, row.get(name, ""), remedy)


def _unit(lines: dict[str, int]) -> Unit:
    """The one unit, of the lines where each first stands."""
    first = next(iter(lines), "patient")
    for name, line in lines.items():
        if name != first or name not in UNITS:
            raise _unreadable(line, "unit", name, f"Name one for the whole split: {', '.join(UNITS)}.")
    return next(unit for unit in UNITS if unit == first)


def _unreadable(line: int, column: str, cell: str, remedy: str) -> EvaluationError:
    what = f"holds {cell!r}" if cell else "is empty"
    return EvaluationError(f"line {line}, column {column} {what}", _WHERE, remedy)
