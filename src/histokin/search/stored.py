"""A slide as an archive stores it: float16 vectors of unit length, in the order of tile ids."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from histokin.errors import EncoderMismatch
from histokin.search.exact import row_norms
from histokin.search.tables import Made, SlideEntry, SlideTable, texts

_BLOCK = 2**21  # values of one float64 step (16 MiB)


@dataclass(frozen=True, slots=True)
class StoredSlide:
    """One slide, ready to be kept.

    Attributes:
        slide, patient: ids.
        columns: further texts of the slide.
        vectors: (n, d) float16 of unit length.
        tile: (n,) int64, ascending.
        coords: (n, 2) int64 level-0 px.
        label: (n,) object, "" where none.
        mosaic: (m,) int64 rows of `vectors`, ascending.
    """

    slide: str
    patient: str
    columns: Mapping[str, str]
    vectors: np.ndarray
    tile: np.ndarray
    coords: np.ndarray
    label: np.ndarray
    mosaic: np.ndarray

    @classmethod
    def of(cls, entry: SlideEntry, made: Made) -> "StoredSlide":
        """Make an entry's vectors unit (in float64), sort its tiles.

        Raises:
            EncoderMismatch: its vectors are of another width.
            StoreError: a vector is zero or not finite; slide and row are named.
        """
        if entry.vectors.shape[1] != made.dim:
            raise EncoderMismatch(
                f"its vectors are {entry.vectors.shape[1]} wide, those of {made.encoder} {made.dim}",
                f"slide {entry.slide}",
                "Embed it with the archive's encoder.",
            )
        order = np.argsort(entry.tile, kind="stable")
        label = np.full(len(order), "") if entry.label is None else np.asarray(entry.label, dtype=object)
        mosaic = np.zeros(len(order), dtype=bool)
        if entry.mosaic is not None:
            mosaic[entry.mosaic] = True
        return cls(
            entry.slide,
            entry.patient,
            entry.columns,
            unit_rows(entry.vectors, np.float16, f"slide {entry.slide},")[order],
            np.asarray(entry.tile, dtype=np.int64)[order],
            np.asarray(entry.coords, dtype=np.int64)[order],
            texts(text or "" for text in label[order].tolist()),
            np.flatnonzero(mosaic[order]),
        )

    @property
    def mean(self) -> np.ndarray:
        """(d,) float32 mean of the vectors, summed in float64; zeros where there is none."""
        total = np.zeros(self.vectors.shape[1])
        for part in _blocks(self.vectors):
            total += self.vectors[part].sum(axis=0, dtype=np.float64)
        return (total / max(1, len(self.vectors))).astype(np.float32)


def slide_table(slides: Iterable[tuple[str, str, Mapping[str, str]]]) -> SlideTable:
    """A table of (slide, patient, columns) in any order; a column that a slide does not have is "" there."""
    rows = list(slides)
    names = sorted({name for _, _, columns in rows for name in columns})
    return SlideTable.of(
        (slide for slide, _, _ in rows),
        (patient for _, patient, _ in rows),
        {name: [columns.get(name, "") for _, _, columns in rows] for name in names},
    )


def unit_rows(vectors: np.ndarray, dtype: type[np.floating], what: str) -> np.ndarray:
    """(n, d) vectors made unit in float64, a bounded number at a time.

    Raises:
        StoreError: a vector is zero or not finite; `what` and its row are named.
    """
    rows = np.empty(vectors.shape, dtype=dtype)
    for part in _blocks(vectors):
        block = np.asarray(vectors[part], dtype=np.float64)
        rows[part] = block / row_norms(block, "cosine", what, part.start)[:, None]
    return rows


def _blocks(rows: np.ndarray) -> list[slice]:
    step = max(1, _BLOCK // max(1, rows.shape[1]))
    return [slice(start, start + step) for start in range(0, len(rows), step)]
