"""What counts as near and as far on each slide, before any pair is drawn (Gildenblat & Klaiman, arXiv 1905.08139)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from histokin.evaluate.spatial_pairs import NEAR_PITCHES, PairLimits, pair_limits
from histokin.learn.sampling.extents import find_close_pair, measure_extent
from histokin.learn.sampling.groups import Groups, group_rows

PairState = Literal["ok", "fallback", "too_small_for_pairs"]


@dataclass(frozen=True, slots=True)
class SlideLimits:
    """The limits of one slide.

    Attributes:
        slide: its number.
        n_tiles: how many tiles it has.
        extent_um: largest distance between two of its tiles' centres.
        near_um: near pairs have 0 < r < near_um.
        far_um: far pairs have r > far_um.
        state: `ok`, the limits asked for; `fallback`, limits shrunk to the slide; `too_small_for_pairs`, no pairs
            within the slide (the limits are then those that were tried).
        reason: why not `ok`, in words; empty for `ok`.
    """

    slide: int
    n_tiles: int
    extent_um: float
    near_um: float
    far_um: float
    state: PairState
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PairPlan:
    """Where pairs can be drawn, slide by slide.

    Attributes:
        tiles: rows by slide.
        positions_um: (n, 2) float64 tile centres.
        limits: one of each slide, in the order of `tiles`.
        near_known, far_known: (S, 2) int64 rows of a near and of a far pair of each slide; -1 where it has none.
        rims: of each slide the int64 rows at the corners of its tiles' convex hull: the farthest tile from any place is
            among them.
        cross_slide: whether slides too small for pairs give far pairs with other slides.
    """

    tiles: Groups
    positions_um: np.ndarray
    limits: tuple[SlideLimits, ...]
    near_known: np.ndarray
    far_known: np.ndarray
    rims: tuple[np.ndarray, ...]
    cross_slide: bool

    @property
    def summary(self) -> str:
        """The plan in a sentence, for logs."""
        by_state = {
            state: [one for one in self.limits if one.state == state]
            for state in ("ok", "fallback", "too_small_for_pairs")
        }
        parts = []
        if ok := by_state["ok"]:
            parts.append(f"{len(ok)} with near < {ok[0].near_um:.0f} um and far > {ok[0].far_um:.0f} um")
        if shrunk := by_state["fallback"]:
            parts.append(
                f"{len(shrunk)} smaller than that ({_span(one.extent_um for one in shrunk)} um across), with near < "
                f"{_span(one.near_um for one in shrunk)} um and far > {_span(one.far_um for one in shrunk)} um"
            )
        if small := by_state["too_small_for_pairs"]:
            gives = "far pairs with other slides only" if self.cross_slide else "no pairs"
            parts.append(
                f"{len(small)} too_small_for_pairs ({_span(one.extent_um for one in small)} um across): {gives}"
            )
        return f"pairs on {len(self.limits)} slides: {'; '.join(parts)}" if parts else "pairs on 0 slides"


def plan_pairs(
    slides: np.ndarray,
    positions_um: np.ndarray,
    pitch_um: float | np.ndarray,
    near_um: float = 2000.0,
    far_um: float = 10000.0,
    *,
    cross_slide: bool = False,
) -> PairPlan:
    """Decide for each slide what is near and what is far.

    With L the largest distance between two tiles of a slide: where L > far_um, the limits asked for hold; elsewhere

        near' = min(near_um, 0.15 L),  far' = 0.6 L,

    since no pair could be far. A slide is `too_small_for_pairs` where near' is then below 1.5 tile pitches, and
    wherever no two tiles lie at 0 < r < near': a slide seen in far pairs alone would teach that its stain means far.
    Time O(n log n), memory O(n), for any number of tiles on a slide.

    Args:
        slides: (n,) int number of each tile's slide.
        positions_um: (n, 2) floating, x and y of the tiles' centres in um.
        pitch_um: step between neighbouring tiles; (n,) floating where slides differ in it.
        near_um, far_um: the limits asked for, 0 < near_um < far_um.
        cross_slide: let slides too small give far pairs with other slides. They differ in stain and scanner too, which
            an encoder then learns instead of tissue.
    """
    if slides.ndim != 1 or positions_um.shape != (len(slides), 2):
        raise ValueError(f"need (n,) slides and (n, 2) positions, got {slides.shape} and {positions_um.shape}")
    pitches = np.broadcast_to(pitch_um, slides.shape)
    if not (0 < near_um < far_um < np.inf and (pitches > 0).all() and np.isfinite(pitches).all()):
        raise ValueError(f"need 0 < near < far and positive pitches, got {near_um} and {far_um} um")
    if not np.isfinite(positions_um).all():
        raise ValueError("positions must be finite")
    positions = np.ascontiguousarray(positions_um, np.float64)
    tiles = group_rows(slides)
    near_known, far_known = np.full((2, len(tiles.labels), 2), -1)
    limits, rims = [], []
    for slide, number in enumerate(tiles.labels):
        rows, points = tiles.rows_of(slide), tiles.select(positions, slide)
        extent = measure_extent(points)
        pitch = float(pitches[rows[0]])
        found = pair_limits(extent.length, near_um, far_um, pitch_um=pitch)
        pair, state, reason = _judge(points, extent.length, found, pitch_um=pitch, far_um=far_um)
        if pair is not None:
            near_known[slide], far_known[slide] = rows[list(pair)], rows[list(extent.ends)]
        limits.append(SlideLimits(int(number), len(rows), extent.length, found.near_um, found.far_um, state, reason))
        rims.append(rows[extent.rim])
    return PairPlan(tiles, positions, tuple(limits), near_known, far_known, tuple(rims), cross_slide)


def _judge(
    points: np.ndarray, length_um: float, found: PairLimits, *, pitch_um: float, far_um: float
) -> tuple[tuple[int, int] | None, PairState, str]:
    """A near pair, the slide's state and the reason for it, given its limits."""
    is_small, near_um = found.is_fallback, found.near_um
    reason = f"no two tiles lie more than {far_um:.0f} um apart, the farthest {length_um:.0f} um" if is_small else ""
    if found.is_too_small and near_um > 0:
        shrunk = f"near would be below {near_um:.0f} um, less than {NEAR_PITCHES:g} steps of {pitch_um:.0f} um"
        return None, "too_small_for_pairs", f"{reason}; {shrunk}"
    pair = find_close_pair(points, near_um)
    if pair is None:
        lonely = f"no two tiles lie less than {near_um:.0f} um apart"
        return None, "too_small_for_pairs", f"{reason}; {lonely}" if reason else lonely
    return pair, "fallback" if is_small else "ok", reason


def _span(values: Iterable[float]) -> str:
    rounded = sorted(round(value) for value in values)
    return f"{rounded[0]}" if rounded[0] == rounded[-1] else f"{rounded[0]} to {rounded[-1]}"
