"""CLAM's split files as text: `splits_i.csv`, `splits_i_bool.csv`, `splits_i_descriptor.csv` (CLAM `save_splits`)."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, zip_longest
from typing import Literal

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.splits.table import (
    PARTS,
    SplitItems,
    SplitTable,
    coded,
    listed,
    overlapping_tests,
    stands_in_two,
)

_WHERE = "CLAM split"
_HEADER = ["", *PARTS]
_TRUTHS = {"True": True, "False": False}
_MOST_PATIENTS = 20  # named in the refusal of a leaking file
SUFFIXES = (
    *(".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".svslide", ".dcm", ".czi", ".isyntax"),
    *(".ome.tiff", ".ome.tif", ".tiff", ".tif", ".jpeg", ".jpg", ".png", ".h5", ".pt"),
)
"""Endings taken off an id that is not found; any other dot belongs to the id (TCGA's have one before the UUID)."""


@dataclass(frozen=True, slots=True)
class ClamSplit:
    """The slide ids of one file, as it has them.

    Attributes:
        train, val, test: ids, in their order.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]

    def of_part(self, part: str) -> tuple[str, ...]:
        """The ids of a part by its name."""
        return {"train": self.train, "val": self.val, "test": self.test}[part]


def parse_clam_split(text: str) -> ClamSplit:
    """Read `splits_i.csv` (three columns of ids, shorter ones filled with empty cells) or `splits_i_bool.csv`.

    Args:
        text: of the file. The row numbers may be missing from the first form.

    Raises:
        EvaluationError: header or rows are of neither form.
    """
    header, rows = _read(text)
    if header == list(PARTS):
        header, rows = _HEADER, [["", *row] for row in rows]
    if header != _HEADER:
        raise EvaluationError(
            f"the header is {','.join(header)!r}", _WHERE, f"A split of CLAM begins with {','.join(_HEADER)!r}."
        )
    for number, row in enumerate(rows, start=2):
        if len(row) > len(_HEADER):
            raise EvaluationError(f"line {number} has {len(row)} cells", _WHERE, "Keep train, val and test alone.")
    padded = [row + [""] * (len(_HEADER) - len(row)) for row in rows]
    if padded and all(set(row[1:]) <= set(_TRUTHS) for row in padded):
        return _of_truths(padded)
    return ClamSplit(*(tuple(row[i].strip() for row in padded if row[i].strip()) for i in (1, 2, 3)))


def parse_clam_descriptor(text: str) -> dict[str, dict[str, int]]:
    """Read `splits_i_descriptor.csv`: by class and part, how many slides.

    Raises:
        EvaluationError: header or rows are not of that form.
    """
    header, rows = _read(text)
    if header != _HEADER or any(len(row) != 4 or not all(cell.isdecimal() for cell in row[1:]) for row in rows):
        raise EvaluationError(
            "this is no table of classes by train, val and test", _WHERE, "Pass a splits_i_descriptor.csv."
        )
    return {row[0]: dict(zip(PARTS, map(int, row[1:]), strict=True)) for row in rows}


def render_clam_split(split: ClamSplit, form: Literal["lists", "bool"] = "lists") -> str:
    """The text of `splits_i.csv` or, as `bool`, of `splits_i_bool.csv`, byte by byte as CLAM writes it.

    Raises:
        ValueError: unknown form.
    """
    if form == "lists":
        columns = zip_longest(split.train, split.val, split.test, fillvalue="")
        return _written([str(number), *row] for number, row in enumerate(columns))
    if form == "bool":
        return _written([slide, *(str(part == own) for part in PARTS)] for own in PARTS for slide in split.of_part(own))
    raise ValueError(f"form must be lists or bool, got {form!r}")


def render_clam_descriptor(split: ClamSplit, labels: Mapping[str, str]) -> str:
    """The text of `splits_i_descriptor.csv`: a row a class, slides counted by part.

    Args:
        split: slides by part.
        labels: class by slide; classes come in their sorted order.

    Raises:
        KeyError: a slide has no label.
    """
    counts = {part: Counter(labels[slide] for slide in split.of_part(part)) for part in PARTS}
    return _written([name, *(str(counts[part][name]) for part in PARTS)] for name in sorted(set(labels.values())))


def clam_split_of(table: SplitTable, repeat: int, fold: int) -> ClamSplit:
    """The slides of one fold as CLAM lists them.

    Raises:
        EvaluationError: a slide holds tiles of several parts.
        KeyError: there is no such fold.
    """
    rows = table.rows(repeat, fold)
    names, codes = coded(table.slide[rows])
    part = np.array([PARTS.index(text) for text in table.part[rows]], dtype=np.int64)
    is_mixed = stands_in_two(codes, part[:, None])
    if is_mixed.any():
        mixed = [name for name, mark in zip(names, is_mixed, strict=True) if mark]
        raise EvaluationError(
            f"tiles of one slide stand in several parts: {listed(mixed)}",
            _WHERE,
            "CLAM's files list whole slides: divide slides.",
        )
    return ClamSplit(*(tuple(dict.fromkeys(table.slide[table.rows(repeat, fold, own)])) for own in PARTS))


def import_clam_splits(
    splits: Sequence[ClamSplit], slides: SplitItems, *, allow_shared_patients: bool = False
) -> SplitTable:
    """Splits made for CLAM as a table, checked against the cohort's patients.

    Files made by slide are common (a patient's slides on both sides), so the check is not optional. Test parts that
    are disjoint are folds 0..F-1 of repeat 0; overlapping ones are Monte-Carlo repeats, as CLAM makes them.

    Args:
        splits: of `splits_0.csv`, `splits_1.csv`, ...
        slides: the cohort, an item a slide.
        allow_shared_patients: import splits by slide all the same; the table is then one by slide, and its warnings
            name the patients.

    Raises:
        EvaluationError: slides that the cohort does not have, a slide named twice, patients in two parts, or one
            picture under several names in two, which no split may have.
        ValueError: there are no splits.
    """
    if not splits:
        raise ValueError("there are no splits to import")
    place = _places(slides)
    columns, warnings = [], []
    for number, split in enumerate(splits):
        columns.append(_column(split, place, len(slides), number))
        n_absent = int((columns[-1] == "").sum())
        if n_absent:
            warnings.append(f"split {number} leaves out {n_absent} of {len(slides)} slides of the cohort")
    codes = np.stack([[PARTS.index(text) if text else -1 for text in column] for column in columns], axis=1)
    shared = _shared(slides, codes)
    if shared:
        sentence = f"{len(shared)} patients have slides in two parts of a split: {listed(shared, _MOST_PATIENTS)}"
        if not allow_shared_patients:
            raise EvaluationError(
                sentence, _WHERE, "Make a split by patient, or import it as one by slide, marked as leaking."
            )
        warnings.append(sentence)
    is_overlapping = any((a & b).any() for a, b in combinations([column == "test" for column in columns], 2))
    table = SplitTable.of_parts(
        slides,
        {((i, 0) if is_overlapping else (0, i)): column for i, column in enumerate(columns)},
        unit="slide" if shared else "patient",
        kind="CLAM, monte-carlo" if is_overlapping else "CLAM, folds",
        warnings=warnings,
    )
    return replace(table, warnings=(*table.warnings, *overlapping_tests(table)))


def _read(text: str) -> tuple[list[str], list[list[str]]]:
    lines = [row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline="")) if row]
    return ([cell.strip() for cell in lines[0]], lines[1:]) if lines else ([], [])


def _written(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_HEADER)
    writer.writerows(rows)
    return text.getvalue()


def _of_truths(rows: list[list[str]]) -> ClamSplit:
    found: dict[str, list[str]] = {part: [] for part in PARTS}
    for number, (slide, *cells) in enumerate(rows, start=2):
        chosen = [part for part, cell in zip(PARTS, cells, strict=True) if _TRUTHS[cell]]
        if len(chosen) > 1:
            raise EvaluationError(
                f"line {number} puts {slide} into {' and '.join(chosen)}", _WHERE, "Mark one part a slide."
            )
        if chosen:
            found[chosen[0]].append(slide.strip())
    return ClamSplit(*(tuple(found[part]) for part in PARTS))


def _places(slides: SplitItems) -> dict[str, int]:
    if len(set(slides.slide)) < len(slides):
        raise EvaluationError("the cohort has several items a slide", _WHERE, "Import into a table of slides.")
    exact = {slide: i for i, slide in enumerate(slides.slide)}
    stripped = Counter(_stem(slide) for slide in slides.slide)
    # Two slides that differ by their ending alone are only found by their full ids.
    return {_stem(slide): i for slide, i in exact.items() if stripped[_stem(slide)] == 1} | exact


def _stem(slide: str) -> str:
    for suffix in SUFFIXES:
        if slide.lower().endswith(suffix):
            return slide[: -len(suffix)]
    return slide


def _column(split: ClamSplit, place: dict[str, int], n_slides: int, number: int) -> np.ndarray:
    column = np.full(n_slides, "", dtype=object)
    unknown, repeated = [], []
    for part in PARTS:
        for slide in split.of_part(part):
            at = place.get(slide, place.get(_stem(slide), -1))
            if at < 0:
                unknown.append(slide)
            elif column[at]:
                repeated.append(f"{slide} ({column[at]} and {part})")
            else:
                column[at] = part
    if unknown:
        raise EvaluationError(
            f"split {number} names slides that the cohort does not have: {listed(unknown)}",
            _WHERE,
            "Import it into the cohort it was made for; ids must agree but for an ending such as .svs.",
        )
    if repeated:
        raise EvaluationError(
            f"split {number} names slides twice: {listed(repeated)}", _WHERE, "Keep each slide in one part."
        )
    return column


def _shared(slides: SplitItems, parts: np.ndarray) -> list[str]:
    """The patients, and groups of slides that are one picture, that stand in two parts of a split."""
    found = []
    for column in (slides.patient, slides.group):
        names, codes = coded(column)
        is_shared = stands_in_two(codes, parts)
        found += [name for name, mark in zip(names, is_shared, strict=True) if mark]
    return list(dict.fromkeys(found))
