"""What a search asks and answers in: slides as columns, filters, hits of tiles, and what one slide brings."""

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path

import numpy as np

from histokin.errors import EncoderMismatch, SearchError

TILE_LABEL = "tile_label"
"""The one column of a filter that belongs to tiles and not to slides."""
_Columns = tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Made:
    """What vectors were made by; only vectors of one fingerprint and one grid may meet.

    Attributes:
        encoder: its name, for people.
        fingerprint: of architecture, weights and normalisation.
        grid_id: of the tiling.
        mpp: um per pixel of the tiles, 0.0 where unknown.
        tile_px: side of a tile in pixels at that mpp, 0 where unknown.
        dim: numbers a vector.
    """

    encoder: str
    fingerprint: str
    grid_id: str
    mpp: float
    tile_px: int
    dim: int

    def check(self, other: "Made", where: Path | str) -> None:
        """Refuse vectors of another encoder, tiling or width than this one.

        Raises:
            EncoderMismatch: both sides are named.
        """
        differing = [name for name in ("fingerprint", "grid_id", "dim") if getattr(self, name) != getattr(other, name)]
        if differing:
            shown = "; ".join(f"{name} {getattr(other, name)} instead of {getattr(self, name)}" for name in differing)
            raise EncoderMismatch(
                f"vectors of {other.encoder} do not fit those of {self.encoder}: {shown}",
                where,
                "Embed with the same encoder and tiles, or keep an index for each.",
            )


@dataclass(frozen=True, slots=True)
class Where:
    """Which rows may be hits: hashable, so that what is derived from it can be kept.

    A row is allowed when for every kept column its value is among the values, and for no left-out column it is.
    Columns are those of the `SlideTable`, or `tile_label`.
    """

    keep: _Columns = ()
    leave_out: _Columns = ()

    @classmethod
    def of(
        cls,
        keep: Mapping[str, Iterable[str]] | None = None,
        leave_out: Mapping[str, Iterable[str]] | None = None,
    ) -> "Where":
        """A filter from columns and their values; the order in which they are named makes no difference."""
        return cls(_sorted_columns(keep or {}), _sorted_columns(leave_out or {}))

    def of_slides(self) -> "Where":
        """The part that speaks of slides."""
        return Where(*(tuple(c for c in part if c[0] != TILE_LABEL) for part in (self.keep, self.leave_out)))

    def of_tiles(self) -> "Where":
        """The part that speaks of tiles."""
        return Where(*(tuple(c for c in part if c[0] == TILE_LABEL) for part in (self.keep, self.leave_out)))


EVERYTHING = Where()


def _sorted_columns(columns: Mapping[str, Iterable[str]]) -> _Columns:
    for name, values in columns.items():
        if isinstance(values, str):
            raise TypeError(f"the values of {name} must be a list of texts, got the text {values!r}")
    return tuple(sorted((name, tuple(sorted(set(values)))) for name, values in columns.items()))


@dataclass(frozen=True, slots=True)
class SlideTable:
    """Slides as columns of one entry a slide, sorted by slide id (text, by code points).

    Attributes:
        slide: (S,) object, ids, ascending, each once.
        patient: (S,) object, "" where unknown.
        columns: further columns of text (site, organ, stain, label, scanner ...), "" where unknown.
    """

    slide: np.ndarray
    patient: np.ndarray
    columns: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(
        cls, slide: Iterable[str], patient: Iterable[str], columns: Mapping[str, Iterable[str]] | None = None
    ) -> "SlideTable":
        """A table of slides given in any order."""
        ids = list(slide)
        order = sorted(range(len(ids)), key=ids.__getitem__)
        return cls(
            texts(ids)[order],
            texts(patient)[order],
            {name: texts(values)[order] for name, values in sorted((columns or {}).items())},
        )

    def __post_init__(self) -> None:
        reserved = {"slide", "patient", TILE_LABEL} & self.columns.keys()
        if reserved:
            raise ValueError(f"a further column cannot be named {min(reserved)}")
        for name, column in {"patient": self.patient, **self.columns}.items():
            if len(column) != len(self.slide):
                raise ValueError(f"column {name} has {len(column)} entries for {len(self.slide)} slides")
        ids = self.slide.tolist()
        unordered = next((b for a, b in pairwise(ids) if not a < b), None)
        if unordered is not None:
            raise ValueError(f"slide ids must be ascending and each occur once; {unordered!r} is out of place")

    def __len__(self) -> int:
        return len(self.slide)

    def number(self, slide: str) -> int:
        """The row of a slide.

        Raises:
            SearchError: there is no such slide; the nearest id is named.
        """
        row = bisect.bisect_left(self.slide, slide)
        if row == len(self.slide) or self.slide[row] != slide:
            near = get_close_matches(slide, self.slide.tolist(), n=1, cutoff=0.5)
            meant = f"Did you mean {near[0]}?" if near else "Look at the list of slides."
            raise SearchError(f"there is no slide {slide!r} among {len(self)}", "the archive", meant)
        return row

    def column(self, name: str) -> np.ndarray:
        """(S,) object values of `slide`, `patient` or a further column.

        Raises:
            SearchError: no such column; the known ones are named.
        """
        known = {"slide": self.slide, "patient": self.patient, **self.columns}
        if name not in known:
            raise SearchError(
                f"slides have no column {name!r}", "the archive", f"Known: {', '.join(known)} (tiles: {TILE_LABEL})."
            )
        return known[name]

    def named(self, rows: np.ndarray) -> list[tuple[str, str, dict[str, str]]]:
        """(slide, patient, further columns) of rows."""
        slide, patient = self.slide.tolist(), self.patient.tolist()
        columns = [(name, column.tolist()) for name, column in self.columns.items()]
        return [(slide[row], patient[row], {name: column[row] for name, column in columns}) for row in rows.tolist()]

    def allowed(self, where: Where) -> np.ndarray:
        """(S,) bool: slides that the slide columns of a filter allow."""
        is_allowed = np.ones(len(self), dtype=bool)
        for name, values in where.of_slides().keep:
            is_allowed &= _is_among(self.column(name), values)
        for name, values in where.of_slides().leave_out:
            is_allowed &= ~_is_among(self.column(name), values)
        return is_allowed


def _is_among(column: np.ndarray, values: Iterable[str]) -> np.ndarray:
    wanted = frozenset(values)
    return np.fromiter((value in wanted for value in column.tolist()), dtype=bool, count=len(column))


def texts(values: Iterable[str]) -> np.ndarray:
    """A column of Python texts."""
    entries = list(values)
    column = np.empty(len(entries), dtype=object)
    column[:] = entries
    return column


def allowed_labels(labels: np.ndarray, where: Where) -> np.ndarray:
    """(L,) bool: which tile labels the tile column of a filter allows."""
    is_allowed = np.ones(len(labels), dtype=bool)
    for _, values in where.of_tiles().keep:
        is_allowed &= _is_among(labels, values)
    for _, values in where.of_tiles().leave_out:
        is_allowed &= ~_is_among(labels, values)
    return is_allowed


@dataclass(frozen=True, slots=True)
class SlideEntry:
    """What one slide brings to an archive.

    Attributes:
        slide, patient: ids; patient "" where unknown.
        vectors: (n, d) floating, any scale; n may be 0.
        tile: (n,) int64 tile ids, each once.
        coords: (n, 2) int64 top-left in level-0 px, -1 where unknown.
        label: (n,) tile labels, "" where none; None: none has one.
        columns: further texts of the slide (site, organ, stain ...).
        mosaic: (m,) int64 positions in `vectors` of the tiles that stand for the slide; None: none are kept.
    """

    slide: str
    patient: str
    vectors: np.ndarray
    tile: np.ndarray
    coords: np.ndarray
    label: np.ndarray | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    mosaic: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.vectors)
        if self.vectors.ndim != 2 or np.shape(self.tile) != (n,) or np.shape(self.coords) != (n, 2):
            raise ValueError(
                f"slide {self.slide}: need (n, d) vectors, (n,) tiles and (n, 2) coords, got "
                f"{self.vectors.shape}, {np.shape(self.tile)}, {np.shape(self.coords)}"
            )
        if self.label is not None and len(self.label) != n:
            raise ValueError(f"slide {self.slide}: {len(self.label)} labels for {n} tiles")
        if len(np.unique(self.tile)) != n:
            raise ValueError(f"slide {self.slide}: a tile id occurs twice")
        if self.mosaic is not None and len(self.mosaic):
            rows = np.asarray(self.mosaic)
            if rows.min() < 0 or rows.max() >= n or len(np.unique(rows)) != len(rows):
                raise ValueError(f"slide {self.slide}: mosaic rows must be different rows of its {n} vectors")


@dataclass(frozen=True, slots=True)
class SlideTiles:
    """All tiles of one slide, in the order of tile ids.

    Attributes:
        vectors: (n, d) float32, the stored values.
        tile: (n,) int64.
        coords: (n, 2) int64 level-0 px.
        label: (n,) object.
    """

    vectors: np.ndarray
    tile: np.ndarray
    coords: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.tile)


@dataclass(frozen=True, slots=True)
class Mosaics:
    """The tiles that stand for S slides, slide after slide, each slide's in the order of tile ids.

    Attributes:
        vectors: (M, d) float16.
        first: (S + 1,) int64; slide s has the rows first[s] to first[s + 1] - 1.
        tile: (M,) int64.
        coords: (M, 2) int64 level-0 px.
    """

    vectors: np.ndarray
    first: np.ndarray
    tile: np.ndarray
    coords: np.ndarray

    def __len__(self) -> int:
        return len(self.first) - 1


@dataclass(frozen=True, slots=True)
class TileHits:
    """The k best tiles of Q queries: score descending, then slide id, then tile id.

    Attributes:
        score: (Q, k) float64 cosine, NaN where there are fewer hits.
        slide: (Q, k) int64 number in the `SlideTable`, -1 where none.
        tile: (Q, k) int64 tile id, -1 where none.
        x, y: (Q, k) int64 top-left in level-0 px, -1 where none or unknown.
        label: (Q, k) object tile label, "" where none.
    """

    score: np.ndarray
    slide: np.ndarray
    tile: np.ndarray
    x: np.ndarray
    y: np.ndarray
    label: np.ndarray

    def __len__(self) -> int:
        return len(self.score)
