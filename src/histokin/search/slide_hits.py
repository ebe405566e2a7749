"""What a slide search asks and answers in."""

from dataclasses import dataclass

import numpy as np

from histokin.search.mosaics import MosaicSpec, choose_mosaic
from histokin.search.strategies.asked import Asked, shares
from histokin.search.tables import SlideTiles


@dataclass(frozen=True, slots=True)
class QueryBag:
    """The tiles of a query slide or region.

    Attributes:
        vectors: (n, d) floating, any scale; up to about 64 tiles, for cost and evidence grow with n.
        weights: (n,) >= 0: how much each tile counts.
        tile: (n,) int64 ids of the tiles.
        coords: (n, 2) int64 level-0 px, -1 where unknown.
    """

    vectors: np.ndarray
    weights: np.ndarray
    tile: np.ndarray
    coords: np.ndarray

    @classmethod
    def of(cls, tiles: SlideTiles, spec: MosaicSpec | None = None) -> "QueryBag":
        """The mosaic of a slide as a query, each tile weighted by the share of the slide that it stands for."""
        chosen = choose_mosaic(tiles.vectors, tiles.tile, spec, coords=tiles.coords)
        return cls(tiles.vectors[chosen.rows], chosen.weights, chosen.tile, tiles.coords[chosen.rows])

    def __len__(self) -> int:
        return len(self.vectors)


@dataclass(frozen=True, slots=True)
class PairEvidence:
    """Which query tile met which tile of a hit; H hits, one pair a query tile, the greatest share first.

    Attributes:
        query_row: (H, n) int64 rows of the query, -1 where a query tile found nothing.
        tile: (H, n) int64 tile ids of the hit slide.
        place: (H, n, 2) int64 level-0 px of that tile.
        similarity: (H, n) float64 of the pair (binary codes: the share of equal bits), NaN where there is none.
        share: (H, n) float64 w s / sum w s, negative similarities counted as 0.
    """

    query_row: np.ndarray
    tile: np.ndarray
    place: np.ndarray
    similarity: np.ndarray
    share: np.ndarray

    @classmethod
    def of(
        cls, asked: Asked, rows: np.ndarray, similarity: np.ndarray, tile: np.ndarray, place: np.ndarray
    ) -> "PairEvidence":
        """From (H, n) rows of (M,) tiles and (M, 2) places, -1 for none, and (H, n) similarities, NaN for none."""
        share = np.array([shares(asked.weights, row) for row in similarity]).reshape(rows.shape)
        # By share, then the better pair, then the earlier query tile; what found nothing stands last (share 0, -inf).
        order = np.lexsort((-np.nan_to_num(similarity, nan=-np.inf), -share))
        taken = np.take_along_axis(rows, order, axis=1)
        is_pair = taken >= 0
        tiles, places = np.full(rows.shape, -1, dtype=np.int64), np.full((*rows.shape, 2), -1, dtype=np.int64)
        tiles[is_pair], places[is_pair] = tile[taken[is_pair]], place[taken[is_pair]]
        return cls(
            np.where(is_pair, order, -1),
            tiles,
            places,
            np.take_along_axis(similarity, order, axis=1),
            np.take_along_axis(share, order, axis=1),
        )


@dataclass(frozen=True, slots=True)
class SlideHits:
    """The slides most like a query, best first.

    Attributes:
        slide: (H,) int64 numbers in the searcher's `SlideTable`.
        score: (H,) float64, larger is more alike. Equal scores come by slide id. RetCCL and FISH order slides by
            more than their score, which then need not fall.
        evidence: the pairs of tiles behind each hit.
        n_allowed: slides that could have been hits.
        n_compared: of these, slides whose score was computed; the others were ruled out by tile search.
        bound: no slide that was not compared scores more than this (given exact tile search); -inf where all were.
        is_complete: the last hit scores more than `bound`, or all were compared: no slide is missing (given the same).
        notes: what a reader must know besides.
    """

    slide: np.ndarray
    score: np.ndarray
    evidence: PairEvidence
    n_allowed: int
    n_compared: int
    bound: float
    is_complete: bool
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.slide)
