"""`ExactSearcher`: vectors in memory, every allowed tile compared; the referee of every index."""

from collections.abc import Iterable

import numpy as np

from histokin.errors import SearchError
from histokin.search.exact import TOLERANCE
from histokin.search.ranking import check_k, pair_scores, rank_pairs, take_hits, unit_queries
from histokin.search.searcher import Field
from histokin.search.stored import StoredSlide, slide_table
from histokin.search.tables import (
    EVERYTHING,
    Made,
    Mosaics,
    SlideEntry,
    SlideTable,
    SlideTiles,
    TileHits,
    Where,
    allowed_labels,
    texts,
)

_ROWS = 8192  # compared at a time
_QUERIES = 256
_NONE = np.empty(0, dtype=np.int64)


class ExactSearcher:
    """A `Searcher` over float16 vectors held in memory, sorted by slide and tile.

    Args:
        made: what the vectors were made by.
        entries: the slides in any order, each once.

    Raises:
        StoreError: a vector is zero or not finite.
        SearchError: a slide comes twice, or its vectors are of another width.
    """

    def __init__(self, made: Made, entries: Iterable[SlideEntry]) -> None:
        self._made = made
        held: dict[str, StoredSlide] = {}
        for entry in entries:
            if entry.slide in held:
                raise SearchError("the slide comes twice", f"slide {entry.slide}", "Give each slide once.")
            held[entry.slide] = StoredSlide.of(entry, made)
        slides = [held[slide] for slide in sorted(held)]
        self._slides = slide_table((slide.slide, slide.patient, slide.columns) for slide in slides)
        self._vectors = _joined([slide.vectors for slide in slides], np.empty((0, made.dim), np.float16))
        self._tile = _joined([slide.tile for slide in slides], _NONE)
        self._coords = _joined([slide.coords for slide in slides], np.empty((0, 2), np.int64))
        self._label = _joined([slide.label for slide in slides], texts([]))
        self._first = np.cumsum([0, *(len(slide.tile) for slide in slides)])
        self._slide = np.repeat(np.arange(len(slides)), np.diff(self._first))
        self._means = _joined([slide.mean[None] for slide in slides], np.empty((0, made.dim), np.float32))
        self._mosaic = _joined([self._first[n] + slide.mosaic for n, slide in enumerate(slides)], _NONE)

    @property
    def made(self) -> Made:
        return self._made

    @property
    def slides(self) -> SlideTable:
        return self._slides

    @property
    def n_mosaic(self) -> int:
        return len(self._mosaic)

    def __len__(self) -> int:
        return len(self._tile)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        where: Where = EVERYTHING,
        field: Field = "tiles",
        exact: bool = True,  # noqa: ARG002  # there is no other way here
    ) -> TileHits:
        """See `Searcher.search`."""
        check_k(k)
        asked = unit_queries(queries, self._made.dim)
        rows = self._allowed(where, field)
        parts = [self._nearest(asked[start : start + _QUERIES], rows, k) for start in range(0, len(asked), _QUERIES)]
        query = _joined([start * _QUERIES + query for start, (query, _, _) in enumerate(parts)], _NONE)
        row = _joined([row for _, row, _ in parts], _NONE)
        score = _joined([score for _, _, score in parts], np.empty(0))
        places = rank_pairs(query, score, self._slide[row], self._tile[row], len(asked), k)
        return take_hits(places, score, self._slide[row], self._tile[row], self._coords[row], self._label[row])

    def bag(self, slide: int) -> SlideTiles:
        """See `Searcher.bag`."""
        rows = slice(self._first[slide], self._first[slide + 1])
        vectors = self._vectors[rows].astype(np.float32)
        return SlideTiles(vectors, self._tile[rows], self._coords[rows], self._label[rows])

    def mosaics(self, slides: np.ndarray) -> Mosaics:
        """See `Searcher.mosaics`."""
        ends = np.searchsorted(self._mosaic, self._first)
        rows = _joined([self._mosaic[ends[slide] : ends[slide + 1]] for slide in slides], _NONE)
        first = np.concatenate([[0], np.cumsum(np.diff(ends)[slides])])
        return Mosaics(self._vectors[rows], first, self._tile[rows], self._coords[rows])

    def means(self, slides: np.ndarray) -> np.ndarray:
        """See `Searcher.means`."""
        return self._means[slides]

    def _allowed(self, where: Where, field: Field) -> np.ndarray:
        """Rows that may be hits, ascending."""
        rows = self._mosaic if field == "mosaics" else np.arange(len(self._tile))
        rows = rows[self._slides.allowed(where)[self._slide[rows]]]
        kinds, kind = np.unique(self._label, return_inverse=True)
        return rows[allowed_labels(kinds, where)[kind[rows]]]

    def _nearest(self, asked: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The k best rows of each query as (query, row, float64 score) of M pairs.

        Float32 products choose, float64 decides: all rows within rounding of the k-th product found so far are
        rescored, so that no row is lost and equal ones fall by slide and tile, which is the order of rows.
        """
        query, row, score = _NONE, _NONE, np.empty(0)
        floor = np.full(len(asked), -np.inf, dtype=np.float32)
        left = asked.astype(np.float32)
        for start in range(0, len(rows), _ROWS):
            block = rows[start : start + _ROWS]
            products = left @ self._vectors[block].astype(np.float32).T
            if k <= len(block):
                floor = np.maximum(floor, np.partition(products, -k, axis=1)[:, -k] - TOLERANCE)
            near, column = np.nonzero(products >= floor[:, None])
            found = block[column]
            query, row = np.concatenate([query, near]), np.concatenate([row, found])
            score = np.concatenate([score, pair_scores(asked, near, found, lambda rows: self._vectors[rows])])
            places = rank_pairs(query, score, self._slide[row], self._tile[row], len(asked), k)
            is_full = places[:, -1] >= 0
            floor[is_full] = np.maximum(floor[is_full], score[places[is_full, -1]] - TOLERANCE)
            keep = places[places >= 0]
            query, row, score = query[keep], row[keep], score[keep]
        return query, row, score


def _joined(parts: list[np.ndarray], none: np.ndarray) -> np.ndarray:
    return np.concatenate(parts) if parts else none
