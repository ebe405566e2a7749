"""What a search answers: ranked hits as columns, with the evidence that carried each of them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from histokin.search.exact import Neighbours


@dataclass(frozen=True, slots=True)
class Archive:
    """Who the database rows are; every column has one entry a row (tiles or slides).

    Attributes:
        slide: (N,) object, slide ids.
        patient: (N,) object, patient ids, "" where unknown.
        label: (N,) object, "" or None where unlabelled.
        tile: (N,) int64 row of the tile within its slide, -1 where the row is a whole slide.
        x: (N,) int64 level-0 pixels of the tile's left edge, -1 where there is no position.
        y: (N,) int64, its top edge.
    """

    slide: np.ndarray
    patient: np.ndarray
    label: np.ndarray
    tile: np.ndarray
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of_slides(cls, slide: np.ndarray, patient: np.ndarray, label: np.ndarray | None = None) -> "Archive":
        """An archive whose rows are whole slides."""
        none = np.full(len(slide), -1, dtype=np.int64)
        return cls(_objects(slide), _objects(patient), _objects(label, len(slide)), none, none, none)

    @classmethod
    def of_tiles(
        cls,
        slide: np.ndarray,
        patient: np.ndarray,
        tile: np.ndarray,
        coords: np.ndarray | None = None,
        label: np.ndarray | None = None,
    ) -> "Archive":
        """An archive whose rows are tiles; `coords` (N, 2) int64 are level-0 (x, y)."""
        places = np.full((len(slide), 2), -1, dtype=np.int64) if coords is None else np.asarray(coords, dtype=np.int64)
        return cls(
            _objects(slide),
            _objects(patient),
            _objects(label, len(slide)),
            np.asarray(tile, dtype=np.int64),
            places[:, 0],
            places[:, 1],
        )

    def __post_init__(self) -> None:
        lengths = {len(getattr(self, name)) for name in ("slide", "patient", "label", "tile", "x", "y")}
        if len(lengths) != 1:
            raise ValueError(f"the columns of an archive differ in length: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.slide)


@dataclass(frozen=True, slots=True)
class Evidence:
    """Which query tile met which tile of the hit; H hits, at most E pairs each, best pair first.

    Attributes:
        query_tile: (H, E) int64 rows of the query's bag, -1 where there are fewer pairs.
        tile: (H, E) int64 rows of the hit slide's bag.
        score: (H, E) float64 similarity of the pair, NaN where there is none.
        share: (H, E) float64 part of the sum of best similarities over all query tiles, negative ones counted as 0.
    """

    query_tile: np.ndarray
    tile: np.ndarray
    score: np.ndarray
    share: np.ndarray


@dataclass(frozen=True, slots=True)
class Hits:
    """Ranked answers as columns of length H, query by query, best first.

    Attributes:
        query: (H,) int64, number of the query.
        rank: (H,) int64 from 1.
        score: (H,) float64, larger is more alike; its meaning is named by `strategy`.
        row: (H,) int64, the database row.
        slide, patient, label: (H,) object.
        tile, x, y: (H,) int64, -1 for whole slides.
        strategy: how the score was made.
        notes: what a reader must know besides (left out, subsampled).
        evidence: pairs of tiles for hits of slides, None for hits of tiles.
    """

    query: np.ndarray
    rank: np.ndarray
    score: np.ndarray
    row: np.ndarray
    slide: np.ndarray
    patient: np.ndarray
    label: np.ndarray
    tile: np.ndarray
    x: np.ndarray
    y: np.ndarray
    strategy: str
    notes: tuple[str, ...] = ()
    evidence: Evidence | None = None

    @classmethod
    def of(
        cls,
        found: Neighbours,
        archive: Archive,
        strategy: str,
        notes: tuple[str, ...] = (),
        evidence: Evidence | None = None,
    ) -> "Hits":
        """Name the rows of `found`; `evidence`, if given, has one row for each id that is not -1, in order."""
        query, slot = np.nonzero(found.ids >= 0)
        row = found.ids[query, slot]
        return cls(
            query,
            slot + 1,
            found.scores[query, slot],
            row,
            archive.slide[row],
            archive.patient[row],
            archive.label[row],
            archive.tile[row],
            archive.x[row],
            archive.y[row],
            strategy,
            notes,
            evidence,
        )

    def __len__(self) -> int:
        return len(self.rank)

    def to_rows(self) -> list[dict[str, Any]]:
        """Plain dictionaries for JSON and tables, one a hit; `evidence` is a list of pairs where there is any."""
        names: tuple[str, ...] = ("query", "rank", "score", "row", "slide", "patient", "label", "tile", "x", "y")
        rows: list[dict[str, Any]] = [
            dict(zip(names, values, strict=True))
            for values in zip(*(getattr(self, n).tolist() for n in names), strict=True)
        ]
        for number, row in enumerate(rows):
            if self.evidence is not None:
                row["evidence"] = self._pairs(self.evidence, number)
        return rows

    @staticmethod
    def _pairs(evidence: Evidence, number: int) -> list[dict[str, Any]]:
        columns = (evidence.query_tile, evidence.tile, evidence.score, evidence.share)
        return [
            {"query_tile": query_tile, "tile": tile, "score": score, "share": share}
            for query_tile, tile, score, share in zip(*(column[number].tolist() for column in columns), strict=True)
            if tile >= 0
        ]


def _objects(values: np.ndarray | None, n: int = 0) -> np.ndarray:
    """A column of Python objects; "" throughout where there is none."""
    if values is None:
        return np.full(n, "", dtype=object)
    column = np.empty(len(values), dtype=object)
    column[:] = list(values)
    return column
