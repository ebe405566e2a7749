"""Asking with a part of a slide: which of its tiles speak for a box, how loudly, and which places answer it.

A region is a weighted bag of tiles. Its answers are windows: places of its own size on other slides.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from histokin.errors import SearchError
from histokin.search.clusters import spherical_k_means
from histokin.search.exact import row_norms
from histokin.search.tables import SlideTable, TileHits
from histokin.streams import stream

MAX_TILES = 64
"""Query tiles of a region; more are stood for by so many medoids."""
_HALF = 1e-12  # how near to one half a sum of weights counts as exactly half
_CELLS = 2**14  # of window scores at a time: they stay in the cache
_PLACES = 2**22  # of windows on one slide


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle on a slide.

    Attributes:
        x, y: top-left corner in level-0 px.
        w, h: size in level-0 px.
    """

    x: float
    y: float
    w: float
    h: float

    def __post_init__(self) -> None:
        if not np.isfinite([self.x, self.y, self.w, self.h]).all() or self.w <= 0 or self.h <= 0:
            raise SearchError(
                f"the box is {self.w:g} x {self.h:g} px at ({self.x:g}, {self.y:g})",
                "region",
                "Give a position, and a width and a height above 0.",
            )

    @classmethod
    def of_um(cls, x_um: float, y_um: float, w_um: float, h_um: float, mpp: float | tuple[float, float]) -> "Box":
        """The box of these micrometres on a slide whose level-0 pixels are `mpp` micrometres wide (and high)."""
        mpp_x, mpp_y = mpp if isinstance(mpp, tuple) else (mpp, mpp)
        if not (mpp_x > 0 and mpp_y > 0):
            raise ValueError(f"mpp must be > 0, got {mpp}")
        return cls(x_um / mpp_x, y_um / mpp_y, w_um / mpp_x, h_um / mpp_y)

    def tile_at_centre(self, side: tuple[float, float], slide_size: tuple[float, float] | None = None) -> "Box":
        """The tile of this side around the box's centre, moved into the slide where that is large enough."""
        corner = [self.x + (self.w - side[0]) / 2, self.y + (self.h - side[1]) / 2]
        if slide_size is not None:
            corner = [max(0.0, min(at, size - s)) for at, size, s in zip(corner, slide_size, side, strict=True)]
        return Box(corner[0], corner[1], *side)


@dataclass(frozen=True, slots=True)
class Region:
    """What a box asks with: tiles that there are, or one that must be cut first.

    Attributes:
        tile: (n,) int64 tile ids, ascending; empty where `cut` is given.
        weight: (n,) float64, positive, sums to 1.
        cut: the one tile to read at the index's mpp and embed, for a box too small for the tiles there are.
    """

    tile: np.ndarray
    weight: np.ndarray
    cut: Box | None


def plan_region(
    box: Box,
    tile: np.ndarray,
    coords: np.ndarray,
    side: tuple[float, float],
    *,
    tissue: np.ndarray | None = None,
    slide_size: tuple[float, float] | None = None,
) -> Region:
    """The tiles that speak for a box, each by the area that it shares with the box times its share of tissue.

    A box that is smaller than a tile both ways, or that holds the centre of no tile with tissue, is cut as one tile at
    its centre. Whoever cuts that tile looks whether there is tissue on it.

    Args:
        box: on the slide of the tiles.
        tile: (n,) int64 tile ids.
        coords: (n, 2) top-left corners in level-0 px, -1 where a tile has no position.
        side: of a tile in level-0 px (x, y).
        tissue: (n,) share of tissue of each tile in [0, 1]; 1 for all if not given.
        slide_size: width and height in level-0 px, to keep the cut tile inside.

    Raises:
        SearchError: no tile of the slide has a position.
    """
    if not (coords >= 0).any():
        raise SearchError(
            "its tiles have no positions, so no box can be drawn on it", "region", "Ask with a tile or the whole slide."
        )
    weight = tile_weights(coords, side, box, tissue=tissue)
    centre = coords + np.asarray(side) / 2
    is_inside = ((centre >= (box.x, box.y)) & (centre < (box.x + box.w, box.y + box.h))).all(axis=1)
    is_small = box.w < side[0] and box.h < side[1]
    if is_small or not (is_inside & (weight > 0)).any():
        return Region(np.empty(0, np.int64), np.empty(0), box.tile_at_centre(side, slide_size))
    rows = np.flatnonzero(weight > 0)
    rows = rows[np.argsort(tile[rows], kind="stable")]
    return Region(tile[rows].astype(np.int64), weight[rows], None)


def tile_weights(
    coords: np.ndarray, side: tuple[float, float], box: Box, *, tissue: np.ndarray | None = None
) -> np.ndarray:
    """(n,) float64: area of each tile within the box times its tissue, as a share of all; 0 throughout if none meets.

    Args:
        coords: (n, 2) top-left corners in level-0 px; tiles at -1 have no position and weigh nothing.
        side: of a tile in level-0 px (x, y).
        box: the region.
        tissue: (n,) share of tissue of each tile; 1 for all if not given.
    """
    low = np.asarray(coords, dtype=np.float64)
    overlap = np.minimum(low + side, (box.x + box.w, box.y + box.h)) - np.maximum(low, (box.x, box.y))
    area = np.maximum(overlap, 0).prod(axis=1)
    area[(coords < 0).any(axis=1)] = 0
    if tissue is not None:
        area *= np.asarray(tissue, dtype=np.float64)
    total = area.sum()
    return area / total if total > 0 else area


def condense(
    vectors: np.ndarray, weight: np.ndarray, tile: np.ndarray, *, limit: int = MAX_TILES, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` tiles that stand for all of a region, each weighing what its cluster does.

    Clusters are of spherical k-means; the tile most like a cluster's centre stands for it, of equal ones the one with
    the lowest id. The order of the rows does not matter.

    Args:
        vectors: (n, d) floating, any scale.
        weight: (n,) >= 0, not all 0.
        tile: (n,) tile ids, no two equal.
        limit: tiles kept; regions that have no more keep all of them.
        seed: of the clusters.

    Returns:
        (m,) int64 rows by ascending tile id and (m,) float64 weights that sum to 1.

    Raises:
        StoreError: a vector is zero or not finite.
        ValueError: weights are negative, not finite or all 0, or limit < 1.
    """
    if limit < 1:
        raise ValueError(f"limit must be >= 1, got {limit}")
    share = _shares(weight)
    row_norms(vectors, "cosine", "query")
    rows = np.argsort(tile, kind="stable")
    rows = rows[share[rows] > 0]
    if len(rows) <= limit:
        return rows, share[rows]
    found = spherical_k_means(vectors[rows], limit, rng=stream(seed, "region", len(rows)))
    by_cluster = np.lexsort((-found.closeness, found.labels))  # stable: of equal ones the lowest tile id
    _, first = np.unique(found.labels[by_cluster], return_index=True)
    medoid = by_cluster[first]
    mass = np.bincount(found.labels, weights=share[rows])[found.labels[medoid]]
    order = np.argsort(medoid)
    return rows[medoid[order]], mass[order]


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The smallest value at which the cumulative weight reaches half; its mean with the next where that is just half.

    Equal weights give the ordinary median. Values without weight count for nothing.

    Args:
        values: (n, ...) finite; the median is taken along the first axis.
        weights: (n,) >= 0, not all 0, any scale.

    Returns:
        (...) float64, 0-d for one column of values.

    Raises:
        ValueError: values are not finite, or weights do not fit.
    """
    share = _shares(weights)
    values = np.asarray(values, dtype=np.float64)
    if values.shape[:1] != share.shape or not np.isfinite(values).all():
        raise ValueError(f"need a finite value for each of {len(share)} weights, got {values.shape}")
    values, share = values[share > 0], share[share > 0]
    order = np.argsort(values, axis=0, kind="stable")
    ordered, reached = np.take_along_axis(values, order, axis=0), np.cumsum(share[order], axis=0)
    first = (reached >= 0.5 - _HALF).argmax(axis=0)[None]
    at = np.take_along_axis(ordered, first, axis=0)[0]
    after = np.take_along_axis(ordered, np.minimum(first + 1, len(ordered) - 1), axis=0)[0]
    is_half = np.abs(np.take_along_axis(reached, first, axis=0)[0] - 0.5) <= _HALF
    return np.where(is_half, (at + after) / 2, at)


@dataclass(frozen=True, slots=True)
class Windows:
    """Places like a region, best first.

    Attributes:
        slide: (n,) int64 numbers of the slides.
        x, y: (n,) int64 top-left corner in level-0 px.
        w, h: (n,) float64 size in level-0 px.
        score: (n,) float64, see `find_windows`.
        met: (n,) float64, share of the query's weight whose tiles have a hit in the window; the rest was imputed.
        slot: (n, Q) int64, the hit of each query tile that counted: its column in the lists given, -1 if imputed.
        n_unplaced: hits on tiles without a position, which lie in no window.
    """

    slide: np.ndarray
    x: np.ndarray
    y: np.ndarray
    w: np.ndarray
    h: np.ndarray
    score: np.ndarray
    met: np.ndarray
    slot: np.ndarray
    n_unplaced: int

    def __len__(self) -> int:
        return len(self.slide)


def find_windows(
    hits: TileHits,
    slides: SlideTable,
    *,
    weights: np.ndarray,
    size: np.ndarray,
    side: np.ndarray,
    n: int = 10,
    per_slide: int = 2,
    per_patient: int = 3,
) -> Windows:
    """Group the tile hits of a region into places of the region's size, none overlapping another.

    With s_q the best score of query tile q among its hits whose centre lies in the window, or the lowest score of its
    list where none does,

        score = sum_q w_q s_q

    Where lists are the k best of each query tile, the lowest score is at least that of any tile not listed: the score
    is then an upper bound of the weighted MaxSim of the window, and equal to it where `met` is 1. Lists of all tiles of
    a slide give the exact score. A slide's windows are taken greedily among those that begin at hits; each is then
    moved to have its hits in the middle, where that leaves it clear of the better ones. Equal scores go by slide
    number, then y, then x.

    Args:
        hits: Q lists, one a query tile.
        slides: that the hits are numbered by; slides of unknown patients count as patients of their own.
        weights: (Q,) of the query tiles, any scale.
        size: (2,) or (S, 2) size of the query's box in level-0 px of each slide; at least a tile is taken.
        side: (2,) or (S, 2) side of a tile in level-0 px of each slide.
        n: windows.
        per_slide: most windows of one slide.
        per_patient: most windows of one patient.

    Raises:
        ValueError: there is not one weight for each list, or weights are negative or all 0.
    """
    share = _shares(weights)
    if len(hits) != len(share):
        raise ValueError(f"need a weight for each query tile, got {len(share)} for {len(hits)}")
    side = np.broadcast_to(np.asarray(side, dtype=np.float64), (len(slides), 2))
    size = np.maximum(np.broadcast_to(np.asarray(size, dtype=np.float64), (len(slides), 2)), side)
    is_hit = hits.slide >= 0
    is_placed = is_hit & (hits.x >= 0) & (hits.y >= 0)
    lowest = np.where(is_hit, hits.score, np.inf).min(axis=1, initial=np.inf)
    lowest[~is_hit.any(axis=1)] = 0  # the same for every window
    found = [
        (number, *window)
        for number, placed in _by_slide(hits, is_placed)
        for window in _windows_of(placed, share, lowest, size[number], side[number], per_slide)
    ]
    found.sort(key=lambda window: (-window[2], window[0], window[1][1], window[1][0]))
    kept, count = [], Counter()
    for window in found:
        unit = slides.patient[window[0]] or window[0]
        if len(kept) < n and count[unit] < per_patient:
            kept.append(window)
            count[unit] += 1
    at = np.array([window[0] for window in kept], dtype=np.int64)
    corner = np.array([window[1] for window in kept], dtype=np.int64).reshape(-1, 2)
    slots = np.array([window[3] for window in kept], dtype=np.int64).reshape(-1, len(share))
    return Windows(
        at,
        corner[:, 0],
        corner[:, 1],
        size[at, 0],
        size[at, 1],
        np.array([window[2] for window in kept], dtype=np.float64),
        np.where(slots >= 0, share, 0).sum(axis=1),
        slots,
        int(is_hit.sum() - is_placed.sum()),
    )


@dataclass(frozen=True, slots=True)
class _Placed:
    """The hits on one slide that have a position."""

    query: np.ndarray  # (H,) int64
    slot: np.ndarray  # (H,) int64
    tile: np.ndarray  # (H,) int64
    corner: np.ndarray  # (H, 2) int64
    score: np.ndarray  # (H,) float64


def _by_slide(hits: TileHits, is_placed: np.ndarray) -> Iterator[tuple[int, _Placed]]:
    """(number, its hits) of each slide that has any."""
    query, slot = np.nonzero(is_placed)
    order = np.argsort(hits.slide[query, slot], kind="stable")
    query, slot = query[order], slot[order]
    number = hits.slide[query, slot]
    for own in np.split(np.arange(len(order)), np.flatnonzero(np.diff(number)) + 1):
        if len(own):
            at = query[own], slot[own]
            corner = np.stack([hits.x[at], hits.y[at]], axis=1)
            yield int(number[own[0]]), _Placed(*at, hits.tile[at], corner, hits.score[at])


def _windows_of(
    hits: _Placed, share: np.ndarray, lowest: np.ndarray, size: np.ndarray, side: np.ndarray, most: int
) -> list[tuple[np.ndarray, float, np.ndarray]]:
    """(corner, score, slots) of a slide's best windows, none overlapping another."""
    hits = _thinned(hits, side)
    xs, ys, scores = _window_scores(hits, share, lowest, size, side)
    found: list[tuple[np.ndarray, float, np.ndarray]] = []
    while len(found) < most and np.isfinite(scores.max()):
        row, column = divmod(int(scores.argmax()), len(xs))
        corner = np.array([xs[column], ys[row]])
        score, slots = _judged(hits, corner, share, lowest, size, side)
        centred = _centred(hits, corner, size, side)
        if not any((np.abs(centred - other) < size).all() for other, _, _ in found):
            moved = _judged(hits, centred, share, lowest, size, side)
            if moved[0] >= score:
                corner, (score, slots) = centred, moved
        found.append((corner, score, slots))
        scores[np.ix_(np.abs(ys - corner[1]) < size[1], np.abs(xs - corner[0]) < size[0])] = -np.inf
    return found


def _thinned(hits: _Placed, side: np.ndarray) -> _Placed:
    """The hits, those of tiles on no grid moved by less than a quarter of a tile to have fewer edges in common."""
    if np.prod([len(np.unique(axis)) for axis in hits.corner.T]) <= _PLACES:
        return hits
    step = np.maximum(side // 4, 1).astype(np.int64)
    return replace(hits, corner=hits.corner // step * step)


def _window_scores(
    hits: _Placed, share: np.ndarray, lowest: np.ndarray, size: np.ndarray, side: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Left edges (C,), top edges (R,) and (R, C) scores of windows that begin there, -inf for those without hits.

    Query tiles without hits on the slide add the same to every window and are left out here.
    """
    xs, column = np.unique(hits.corner[:, 0], return_inverse=True)
    ys, row = np.unique(hits.corner[:, 1], return_inverse=True)
    x_range, y_range = _inside(xs, size[0], side[0]), _inside(ys, size[1], side[1])
    queries, own = np.unique(hits.query, return_inverse=True)
    scores = np.zeros((len(ys), len(xs)))
    has_hits = np.zeros(scores.shape, dtype=bool)
    step = max(1, _CELLS // scores.size)
    for start in range(0, len(queries), step):
        part = queries[start : start + step]
        grid = np.full((len(part), len(ys), len(xs)), -np.inf)
        here = (own >= start) & (own < start + step)
        np.maximum.at(grid, (own[here] - start, row[here], column[here]), hits.score[here])
        grid = _range_max(_range_max(grid, *x_range).swapaxes(1, 2), *y_range).swapaxes(1, 2)
        has_hits |= np.isfinite(grid).any(axis=0)
        for q, best in zip(part, grid, strict=True):
            scores += share[q] * np.maximum(best, lowest[q])
    scores[~has_hits] = -np.inf
    return xs, ys, scores


def _inside(corners: np.ndarray, size: float, side: float) -> tuple[np.ndarray, np.ndarray]:
    """For windows that begin at the sorted corners: the first tile whose centre lies inside, and the first beyond."""
    centres = corners + side / 2
    return np.searchsorted(centres, corners, side="left"), np.searchsorted(centres, corners + size, side="left")


def _range_max(values: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """max(values[..., start_i:stop_i]) for all i, of ranges that are not empty: each is two runs of a power of two."""
    level = np.log2(stop - start).astype(np.int64)
    result = np.empty((*values.shape[:-1], len(start)))
    run = values  # run[..., j] is the maximum of 2^l values from j on
    for length in range(int(level.max()) + 1):
        own = np.flatnonzero(level == length)
        result[..., own] = np.maximum(run[..., start[own]], run[..., stop[own] - 2**length])
        run = np.maximum(run[..., : -(2**length)], run[..., 2**length :])
    return result


def _judged(
    hits: _Placed, corner: np.ndarray, share: np.ndarray, lowest: np.ndarray, size: np.ndarray, side: np.ndarray
) -> tuple[float, np.ndarray]:
    """Score of a window and (Q,) the slots of the hits that made it, -1 for none."""
    own = np.flatnonzero(_is_inside(hits, corner, size, side))
    own = own[np.lexsort((hits.tile[own], -hits.score[own], hits.query[own]))]  # of equal ones the lowest tile id
    query, first = np.unique(hits.query[own], return_index=True)
    best, slots = lowest.copy(), np.full(len(lowest), -1)
    best[query], slots[query] = hits.score[own[first]], hits.slot[own[first]]
    return float((share * best).sum()), slots


def _centred(hits: _Placed, corner: np.ndarray, size: np.ndarray, side: np.ndarray) -> np.ndarray:
    """The corner of the window that has the same hits in its middle, in whole pixels and on the slide."""
    own = hits.corner[_is_inside(hits, corner, size, side)]
    middle = (own.min(axis=0) + own.max(axis=0) + side) / 2
    return np.maximum(np.rint(middle - size / 2), 0).astype(np.int64)


def _is_inside(hits: _Placed, corner: np.ndarray, size: np.ndarray, side: np.ndarray) -> np.ndarray:
    """(H,) bool: tiles whose centre lies in the window."""
    offset = hits.corner + side / 2 - corner
    return np.asarray(((offset >= 0) & (offset < size)).all(axis=1))


def _shares(weights: np.ndarray) -> np.ndarray:
    """(n,) float64 weights that sum to 1."""
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim != 1 or not np.isfinite(w).all() or (w < 0).any() or w.sum() <= 0:
        raise ValueError("weights must be a column of finite numbers >= 0, not all of them 0")
    return w / w.sum()
