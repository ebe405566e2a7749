"""`Searcher`: what can be searched, exactly in memory or through an index on disk.

One conformance suite (tests/search/searcher_suite.py) is run by every implementation.
"""

from typing import Literal, Protocol

import numpy as np

from histokin.search.tables import EVERYTHING, Made, Mosaics, SlideTable, SlideTiles, TileHits, Where

Field = Literal["tiles", "mosaics"]
"""What is searched: every tile, or only those that stand for their slides."""


class Searcher(Protocol):
    """Tiles of many slides that can be asked for the nearest to a vector.

    Vectors are stored as float16 of unit length; the score is the float64 inner product with the unit query. Order:
    score descending, slide id ascending, tile id ascending. Neither scores nor order depend on the order in which
    slides were added, on how they lie on disk, on threads, or on how many queries are asked at once.
    """

    @property
    def made(self) -> Made:
        """What the vectors were made by."""
        ...

    @property
    def slides(self) -> SlideTable:
        """The slides; numbers in hits are its rows."""
        ...

    @property
    def n_mosaic(self) -> int:
        """Tiles of the field `mosaics`."""
        ...

    def __len__(self) -> int:
        """Tiles that can be hits."""
        ...

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        where: Where = EVERYTHING,
        field: Field = "tiles",
        exact: bool = False,
    ) -> TileHits:
        """The k nearest allowed tiles of each query.

        Args:
            queries: (Q, d) floating, any scale.
            k: hits a query, at least 1; where fewer tiles are allowed, the rest is empty.
            where: which tiles may be hits.
            field: all tiles, or the slides' mosaics.
            exact: compare with every allowed tile, also where an index would look at the likely ones only.

        Raises:
            SearchError: a query is zero, not finite or of another width; an unknown column.
        """
        ...

    def bag(self, slide: int) -> SlideTiles:
        """All tiles of a slide, by its number."""
        ...

    def mosaics(self, slides: np.ndarray) -> Mosaics:
        """The mosaics of slides, by their numbers, in the order asked."""
        ...

    def means(self, slides: np.ndarray) -> np.ndarray:
        """(S, d) float32 means of slides' unit vectors, by their numbers; zeros for a slide without tiles."""
        ...
