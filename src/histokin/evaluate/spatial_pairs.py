"""Pairs of near and of distant tiles inside slides, drawn fairly and repeatably."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histokin.errors import EvaluationError
from histokin.streams import stream

NEAR_UM = 2_000.0
FAR_UM = 10_000.0
N_PAIRS = 2_000
"""Pairs of each kind a slide."""
_MAX_ANCHORS = 2_048
_MOST_PAIRS = 20_000_000  # of a slide where all are asked for: some 2 GB
_BLOCK = 256  # anchors whose distances to all tiles are held at once
# On tissue smaller than the far limit: near and far as shares of its largest tile distance, and the smallest near limit
# in tile pitches, below which hardly a tile but the four beside it would be near.
NEAR_SHARE, FAR_SHARE, NEAR_PITCHES = 0.15, 0.6, 1.5


@dataclass(frozen=True, slots=True)
class PairLimits:
    """Centre distances that make a pair near (0 < r < near_um) or distant (r > far_um).

    Attributes:
        near_um: in um.
        far_um: in um.
        is_fallback: the tissue is smaller than the far limit asked for, so both were shrunk to it.
        is_too_small: the shrunk near limit is below a tile pitch and a half, or nothing lies apart at all.
    """

    near_um: float
    far_um: float
    is_fallback: bool
    is_too_small: bool


def pair_limits(
    largest_um: float, near_um: float = NEAR_UM, far_um: float = FAR_UM, *, pitch_um: float = 0.0
) -> PairLimits:
    """The limits for a slide whose most distant tiles lie `largest_um` apart.

    As asked where the tissue is larger than the far limit, else near' = min(near, 0.15 L) and far' = 0.6 L: small
    sections are measured on their own scale, and say so.

    Args:
        largest_um: L, the largest centre distance on the slide.
        near_um: asked for.
        far_um: asked for.
        pitch_um: between neighbouring tiles; 0 where unknown, then only L = 0 is too small.

    Raises:
        ValueError: limits are not 0 < near_um < far_um, or a length is negative.
    """
    if not 0 < near_um < far_um or largest_um < 0 or pitch_um < 0:
        raise ValueError(
            f"need 0 < near_um < far_um and lengths >= 0, got near {near_um}, far {far_um}, largest {largest_um}, "
            f"pitch {pitch_um}"
        )
    if largest_um > far_um:
        return PairLimits(near_um, far_um, is_fallback=False, is_too_small=False)
    near = min(near_um, NEAR_SHARE * largest_um)
    is_too_small = near <= 0 or near < NEAR_PITCHES * pitch_um
    return PairLimits(near, FAR_SHARE * largest_um, is_fallback=True, is_too_small=is_too_small)


def largest_distance(positions: np.ndarray) -> float:
    """Largest distance between two of (N, 2) positions, in their unit; 0 for fewer than two."""
    from scipy.spatial import ConvexHull, QhullError

    points = np.unique(np.asarray(positions, dtype=np.float64), axis=0)
    if len(points) > _BLOCK:
        try:
            points = points[ConvexHull(points).vertices]
        except QhullError:  # all on one line: the ends of the sorted points
            points = points[[0, -1]]
    if len(points) < 2:
        return 0.0
    return math.sqrt(max(float(_squares(points[i : i + _BLOCK], points).max()) for i in range(0, len(points), _BLOCK)))


@dataclass(frozen=True, slots=True)
class SlidePairs:
    """The pairs of one slide, the same for all encoders.

    Attributes:
        slide: its id.
        rows: (n,) int64 rows of its tiles among all.
        near: (m, 2) int64 rows among all.
        far: (m', 2) int64.
        limits: in use.
        n_near_possible: near pairs there are (an estimate on slides of more than 2048 tiles).
        n_far_possible: distant ones.
    """

    slide: str
    rows: np.ndarray
    near: np.ndarray
    far: np.ndarray
    limits: PairLimits
    n_near_possible: int
    n_far_possible: int


def draw_pairs(
    slides: Sequence[Any] | np.ndarray,
    positions_um: np.ndarray,
    *,
    near_um: float = NEAR_UM,
    far_um: float = FAR_UM,
    pitch_um: float = 0.0,
    n_pairs: int | None = N_PAIRS,
    seed: int = 0,
) -> tuple[tuple[SlidePairs, ...], dict[str, str]]:
    """Near and distant pairs of each slide, drawn by the slide's name, whatever other slides there are.

    Uniformly among all pairs, each at most once, equally many of both kinds; on slides of more than 2048 tiles among
    the pairs of 2048 drawn tiles with any other, so that the work grows with the tiles and not with their square.

    Args:
        slides: (N,) ids.
        positions_um: (N, 2) tile centres.
        near_um, far_um, pitch_um: see `pair_limits`.
        n_pairs: of each kind a slide; None takes all there are.
        seed: of the draw.

    Returns:
        Slides with pairs in the order of their names, and why the others have none.

    Raises:
        EvaluationError: not one slide has pairs, or all of some twenty million are asked for.
        ValueError: shapes do not fit or positions are not finite.
    """
    where = np.asarray(positions_um, dtype=np.float64)
    if where.shape != (len(slides), 2) or not np.isfinite(where).all():
        raise ValueError(f"need ({len(slides)}, 2) finite positions, got {where.shape}")
    if n_pairs is not None and n_pairs < 1:
        raise ValueError(f"n_pairs must be at least 1 or None, got {n_pairs}")
    names, codes = np.unique(np.array([str(slide) for slide in slides], dtype=str), return_inverse=True)
    found, dropped = [], {}
    for code, name in enumerate(names.tolist()):
        rows = np.flatnonzero(codes == code)
        own = where[rows]
        limits = pair_limits(largest_distance(own), near_um, far_um, pitch_um=pitch_um)
        if limits.is_too_small:
            dropped[name] = "too small for pairs"
            continue
        near, far, possible = _pairs_of(own, limits, n_pairs, seed, name)
        if not len(near) or not len(far):
            dropped[name] = "no near pair" if not len(near) else "no distant pair"
            continue
        found.append(SlidePairs(name, rows, rows[near], rows[far], limits, *possible))
    if not found:
        raise EvaluationError(
            f"not one of {len(names)} slides has near and distant tile pairs",
            "evaluation",
            "Check the positions' unit (um), or lower near_um and far_um.",
        )
    return tuple(found), dropped


def _pairs_of(
    where: np.ndarray, limits: PairLimits, n_pairs: int | None, seed: int, slide: str
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Near and far (m, 2) rows of one slide, and how many there are of each."""
    n = len(where)
    if n_pairs is None:
        anchors = np.arange(n)
    else:
        rng = stream(seed, "spatial-anchors", slide)
        anchors = np.arange(n) if n <= _MAX_ANCHORS else np.sort(rng.choice(n, _MAX_ANCHORS, replace=False))
    counts = np.zeros((2, len(anchors)), dtype=np.int64)
    for start in range(0, len(anchors), _BLOCK):
        part = slice(start, start + _BLOCK)
        counts[:, part] = [mask.sum(axis=1) for mask in _masks(where, anchors[part], limits)]
    ordered = counts.sum(axis=1)  # pairs of two anchors are counted from both ends
    if n_pairs is None and ordered.sum() // 2 > _MOST_PAIRS:
        raise EvaluationError(
            f"slide {slide} has {ordered.sum() // 2} pairs, more than fit into memory", "evaluation", "Set n_pairs."
        )
    most = int(ordered.min()) // 2
    takes = [int(total) // 2 for total in ordered] if n_pairs is None else [min(n_pairs, most)] * 2
    near, far = (
        _draw(where, anchors, counts[kind], takes[kind], limits, kind, stream(seed, "spatial-pairs", kind, slide))
        for kind in (0, 1)
    )
    scale = n / len(anchors) / 2
    return near, far, (round(float(ordered[0]) * scale), round(float(ordered[1]) * scale))


def _draw(
    where: np.ndarray,
    anchors: np.ndarray,
    counts: np.ndarray,
    n_wanted: int,
    limits: PairLimits,
    kind: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """(n_wanted, 2) distinct unordered pairs of a kind, uniformly.

    A pair has at most two places in the list of ordered pairs, so 2n distinct places hold at least n distinct pairs.
    """
    total = int(counts.sum())
    places = np.sort(rng.choice(total, 2 * n_wanted, replace=False)) if 2 * n_wanted < total else np.arange(total)
    stops = np.cumsum(counts)
    anchor = np.searchsorted(stops, places, side="right")
    rank = places - (stops - counts)[anchor]
    partner = np.zeros(len(places), dtype=np.int64)
    used = np.unique(anchor)
    for start in range(0, len(used), _BLOCK):
        block = used[start : start + _BLOCK]
        mask = _masks(where, anchors[block], limits)[kind]
        here = np.flatnonzero((anchor >= block[0]) & (anchor <= block[-1]))
        row = np.searchsorted(block, anchor[here])
        columns = np.flatnonzero(mask.ravel()) % mask.shape[1]
        first = np.cumsum(mask.sum(axis=1)) - mask.sum(axis=1)
        partner[here] = columns[first[row] + rank[here]]
    pairs = np.sort(np.column_stack([anchors[anchor], partner]), axis=1)
    distinct = np.unique(pairs, axis=0)
    if len(distinct) <= n_wanted:
        return distinct
    return distinct[np.sort(rng.choice(len(distinct), n_wanted, replace=False))]


def _masks(where: np.ndarray, anchors: np.ndarray, limits: PairLimits) -> tuple[np.ndarray, np.ndarray]:
    """(a, n) bool: near and distant partners of each anchor."""
    squares = _squares(where[anchors], where)
    return (squares > 0) & (squares < limits.near_um**2), squares > limits.far_um**2


def _squares(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(a, b) squared distances of (a, 2) and (b, 2) positions; symmetric to the last bit."""
    return (first[:, None, 0] - second[None, :, 0]) ** 2 + (first[:, None, 1] - second[None, :, 1]) ** 2
