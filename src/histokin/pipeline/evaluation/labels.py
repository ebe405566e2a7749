"""A user's table of labels: one row a slide, or one row a tile, whatever tool made the embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histokin.cohort.sources import ALIASES, SLIDE_SUFFIXES, read_rows
from histokin.errors import EvaluationError

_NO_LABELS = {"path", "file", "filename", "wsi", "tile_id", "x", "y", "size"}
_UNKNOWN = {"na", "n/a", "nan", "none", "null", "unknown", "-", "?"}
Texts = NDArray[np.object_]
Key = tuple[str, int, int]
"""Slide, then tile_id and -1, or x and y; both -1 for a row that is a slide's."""


@dataclass(frozen=True, slots=True)
class LabelTable:
    """What a CSV says, by slide or by tile.

    Attributes:
        path: of the file.
        columns: its label columns.
        by: what names a tile: "tile_id", or "place" (x, y of its top-left corner in level-0 px); "slide" if rows are
            slides.
        rows: by key, the cells by column: labels, and `patient`, `site` and `mpp` where the table has them.
        has_patient, has_site: whether it does.
    """

    path: Path
    columns: tuple[str, ...]
    by: str
    rows: dict[Key, dict[str, str]]
    has_patient: bool
    has_site: bool

    @property
    def slides(self) -> set[str]:
        """Slides that are named."""
        return {slide for slide, _, _ in self.rows}

    def of_tiles(self, column: str, slide: Texts, tile_id: NDArray[np.int64], xy: NDArray[np.int64]) -> Texts:
        """(n,) cells of one column by tile, "" where the table says nothing; a slide's row speaks for all its tiles.

        Args:
            column: a label, patient or site.
            slide, tile_id, xy: (n,), (n,), (n, 2) of the tiles.
        """
        if self.by == "slide":
            said = {name: row.get(column, "") for (name, _, _), row in self.rows.items()}
            return np.array([said.get(name, "") for name in slide], object)
        other = np.full(len(tile_id), -1)
        first, second = (tile_id, other) if self.by == "tile_id" else (xy[:, 0], xy[:, 1])
        keys = zip(slide, first.tolist(), second.tolist(), strict=True)
        return np.array([self.rows.get(key, {}).get(column, "") for key in keys], object)

    def units_of(self, unit: str, slides: Sequence[str]) -> list[set[str]]:
        """The patients (sites) that a slide's rows name; empty cells say nothing against the filled ones."""
        said: dict[str, set[str]] = {}
        for (name, _, _), row in self.rows.items():
            if row.get(unit):
                said.setdefault(name, set()).add(row[unit])
        return [said.get(name, set()) for name in slides]

    def of_slides(self, column: str, slides: Sequence[str]) -> list[str]:
        """One cell a slide: its row's, or what all its tiles share; "" where they differ or nothing is said."""
        said: dict[str, set[str]] = {}
        for (name, _, _), row in self.rows.items():
            said.setdefault(name, set()).add(row.get(column, ""))
        return [next(iter(said[name])) if len(said.get(name, ())) == 1 else "" for name in slides]


def read_labels(path: Path) -> LabelTable:
    """Read a CSV (or TSV) with a column `slide`, for tiles `tile_id` or `x` and `y`, and any columns of labels.

    `patient` and `site` are known by the names that other tools give them too; a slide's file name stands for its id.

    Raises:
        CohortError: no table, or no column names slides.
        EvaluationError: a row names no slide or tile, or two rows say different things of one.
    """
    lines, names = read_rows(path)
    column = {ours: next((n for n in aliases if n in names), "") for ours, aliases in ALIASES.items()}
    key = column["slide"] or column["path"]
    if not key:
        raise EvaluationError(
            f"there is no slide column among {', '.join(names)}", path, "Add a column `slide` with the slides' names."
        )
    by = "tile_id" if "tile_id" in names else "place" if {"x", "y"} <= names.keys() else "slide"
    known = {column[ours] for ours in ("slide", "path", "patient", "site", "mpp")} | _NO_LABELS
    labels = tuple(name for name in names if name and name not in known)
    rows: dict[Key, dict[str, str]] = {}
    for line, cells in lines:
        slide = slide_of(cells[key])
        if not slide:
            raise EvaluationError(f"line {line} names no slide", path, f"Fill the column {key}.")
        found = {name: _known(cells[name]) for name in labels}
        found |= {ours: _known(cells.get(column[ours], "")) for ours in ("patient", "site", "mpp")}
        place = _tile_of(cells, by, line, path)
        if rows.setdefault((slide, *place), found) != found:
            raise EvaluationError(
                f"line {line} says something else of {slide} than a line before", path, "Keep one row a slide or tile."
            )
    return LabelTable(path, labels, by, rows, bool(column["patient"]), bool(column["site"]))


def _known(cell: str) -> str:
    """A cell's text; what people write for "not known" is no class and no patient."""
    return "" if cell.lower() in _UNKNOWN else cell


def slide_of(text: str) -> str:
    """A slide's id from a cell that may be its file's name."""
    name = Path(text.replace("\\", "/")).name if "/" in text or "\\" in text else text
    suffix = Path(name).suffix.lower()
    return name[: -len(suffix)] if suffix in SLIDE_SUFFIXES | {".h5"} else name


def _tile_of(cells: dict[str, str], by: str, line: int, path: Path) -> tuple[int, int]:
    if by == "slide":
        return -1, -1
    wanted = ("tile_id",) if by == "tile_id" else ("x", "y")
    try:
        first, *second = (int(float(cells[name])) for name in wanted)
    except (ValueError, OverflowError) as error:
        raise EvaluationError(
            f"line {line}: {' and '.join(wanted)} must be whole numbers", path, "Name each row's tile."
        ) from error
    return first, second[0] if second else -1
