"""Pairs of tiles that lie close together or far apart on a slide (Gildenblat & Klaiman, arXiv 1905.08139)."""

from collections import OrderedDict

import numpy as np
from scipy.spatial import KDTree

from histokin.errors import TrainingError
from histokin.evaluate.spatial_pairs import NEAR_PITCHES, NEAR_SHARE
from histokin.learn.draws import draw_uniforms
from histokin.learn.sampling.draw import Draw
from histokin.learn.sampling.extents import squared_distance
from histokin.learn.sampling.groups import floor_of, spread_ranges
from histokin.learn.sampling.pair_plan import PairPlan, SlideLimits

ANCHOR_TRIES = 16  # anchors drawn until one has a partner; then the plan's known pair gives the anchor
FAR_TRIES = 16  # partners drawn until one is far; then all far tiles are listed and one of them drawn
TREE_TILES = 4_000_000  # tiles whose KD-trees are kept, about 40 bytes each


class PairSampler:
    """Draws pairs: even places of a batch near ones, odd places far ones.

    Each place draws a slide, uniformly over those that give pairs; an anchor, uniformly over its tiles that have a
    partner of the kind asked for; and a partner, uniformly over those with 0 < r < near' or r > far' on the same slide
    (limits of `plan_pairs`). An anchor without a partner is drawn anew, `ANCHOR_TRIES` times in all; the anchor is then
    one end of a pair that the plan knows, and its partner drawn as for any other. What a place gets depends on (seed,
    step, place) alone: a larger batch begins with the same pairs. Tiles may come twice in a batch.

    With the plan's `cross_slide`, far places draw their slide over all slides; the partner of an anchor on a slide too
    small is any tile of any other slide, slides drawn uniformly.

    Args:
        seed: of the run.
        batch: pairs a step, of all ranks together, at least 2; an odd one is reduced by one.
        plan: where pairs can be drawn.
        tree_tiles: for so many tiles KD-trees are kept, those of the slides used last; at least the current one.

    Attributes:
        batch: as reduced.
        note: why, if it is reduced.

    Raises:
        TrainingError: no slide gives pairs.
    """

    def __init__(self, seed: int, batch: int, plan: PairPlan, *, tree_tiles: int = TREE_TILES) -> None:
        if batch < 2:
            raise ValueError(f"a batch of {batch} cannot hold a near and a far pair")
        gives_pairs = np.array([one.state != "too_small_for_pairs" for one in plan.limits], bool)
        if not gives_pairs.any():
            raise _no_pairs(plan.limits)
        self.batch = batch - batch % 2
        self.note = (
            f"half of the pairs are near: a batch holds {self.batch} pairs instead of {batch}" if batch % 2 else ""
        )
        self._seed, self._plan = seed, plan
        self._near_slides = np.flatnonzero(gives_pairs)
        self._far_slides = np.arange(len(gives_pairs)) if plan.cross_slide else self._near_slides
        self._is_lone = ~gives_pairs
        self._near_um = np.array([one.near_um for one in plan.limits])
        self._far_um = np.array([one.far_um for one in plan.limits])
        self._rim_sizes = np.array([len(rim) for rim in plan.rims])
        self._rim_starts = np.cumsum(self._rim_sizes) - self._rim_sizes
        self._rim_rows = np.concatenate(plan.rims)
        self._trees = _Trees(plan, tree_tiles)

    def draw(self, step: int) -> Draw:
        """The whole batch of a step: anchors, partners and which pairs are near."""
        places = np.arange(self.batch)
        near = places % 2 == 0
        (of_slide,) = self._uniforms("pair slide", step, places, 1)
        rows, partners = np.empty((2, self.batch), np.int64)
        slides = np.where(
            near,
            self._near_slides[floor_of(of_slide, len(self._near_slides))],
            self._far_slides[floor_of(of_slide, len(self._far_slides))],
        )
        for chosen, draw in (
            (near, self._draw_near),
            (~near & ~self._is_lone[slides], self._draw_far),
            (~near & self._is_lone[slides], self._draw_across),
        ):
            rows[chosen], partners[chosen] = draw(step, places[chosen], slides[chosen])
        return Draw(rows, partners, near)

    def _draw_near(self, step: int, places: np.ndarray, slides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(b,) anchors and near partners of the slides given."""
        anchors, (of_partner,) = self._anchors(step, places, slides), self._uniforms("pair partner", step, places, 1)
        rows, partners = np.empty((2, len(places)), np.int64)
        known = self._plan.near_known[slides, 0]
        for slide in np.unique(slides):
            tree, of_tree = self._trees.of(int(slide)), self._plan.tiles.rows_of(int(slide))
            pending = np.flatnonzero(slides == slide)
            for candidates in (*anchors, known):
                rows[pending] = candidates[pending]
                found = self._near_of(tree, rows[pending], float(self._near_um[slide]))
                for i, near in zip(pending, found, strict=True):
                    if len(near):
                        partners[i] = of_tree[near[floor_of(of_partner[i], len(near))]]
                pending = pending[[not len(near) for near in found]]
                if not len(pending):
                    break
        return rows, partners

    def _near_of(self, tree: KDTree, rows: np.ndarray, near_um: float) -> list[np.ndarray]:
        """For each row its near tiles, as ascending places in the tree."""
        points = self._plan.positions_um[rows]
        # The ball is a little wider, so that rounding inside the tree decides nothing.
        balls = tree.query_ball_point(points, near_um * (1 + 1e-9), return_sorted=True)
        near = []
        for point, ball in zip(points, balls, strict=True):
            inside = np.array(ball, np.int64)
            squares = squared_distance(np.asarray(tree.data)[inside], point)
            near.append(inside[(squares > 0) & (squares < near_um**2)])
        return near

    def _draw_far(self, step: int, places: np.ndarray, slides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(b,) anchors and far partners of the slides given."""
        positions, squares = self._plan.positions_um, self._far_um[slides] ** 2
        rows = self._plan.far_known[slides, 0]
        pending = np.arange(len(places))
        for candidates in self._anchors(step, places, slides):
            has_far = self._farthest(candidates[pending], slides[pending]) > squares[pending]
            rows[pending[has_far]] = candidates[pending[has_far]]
            pending = pending[~has_far]
        tries = self._plan.tiles.pick(slides, self._uniforms("pair far", step, places, FAR_TRIES))  # (FAR_TRIES, b)
        is_far = squared_distance(positions[tries], positions[rows]) > squares
        partners = tries[is_far.argmax(axis=0), np.arange(len(places))]
        (of_partner,) = self._uniforms("pair partner", step, places, 1)
        for i in np.flatnonzero(~is_far.any(axis=0)):
            points = self._plan.tiles.select(positions, int(slides[i]))
            far = np.flatnonzero(squared_distance(points, positions[rows[i]]) > squares[i])
            partners[i] = self._plan.tiles.rows_of(int(slides[i]))[far[floor_of(of_partner[i], len(far))]]
        return rows, partners

    def _farthest(self, rows: np.ndarray, slides: np.ndarray) -> np.ndarray:
        """(b,) float64 squared distance from each tile to the farthest one of its slide."""
        if not len(rows):
            return np.empty(0)
        sizes = self._rim_sizes[slides]
        rims = self._rim_rows[spread_ranges(self._rim_starts[slides], sizes)]
        positions = self._plan.positions_um
        squares = squared_distance(positions[rims], positions[np.repeat(rows, sizes)])
        return np.maximum.reduceat(squares, np.cumsum(sizes) - sizes)

    def _draw_across(self, step: int, places: np.ndarray, slides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(b,) anchors on slides too small, and partners on other slides."""
        rows = self._anchors(step, places, slides)[0]
        of_slide, of_partner = self._uniforms("pair across", step, places, 2)
        others = floor_of(of_slide, len(self._is_lone) - 1)
        return rows, self._plan.tiles.pick(others + (others >= slides), of_partner)

    def _anchors(self, step: int, places: np.ndarray, slides: np.ndarray) -> np.ndarray:
        """(ANCHOR_TRIES, b) int64: the tiles that each place tries as its anchor."""
        return self._plan.tiles.pick(slides, self._uniforms("pair anchor", step, places, ANCHOR_TRIES))

    def _uniforms(self, purpose: str, step: int, places: np.ndarray, n_draws: int) -> np.ndarray:
        """(n_draws, b) float64 in [0, 1)."""
        return draw_uniforms(self._seed, purpose, step, samples=places, n_views=1, n_draws=n_draws)[0].T


class _Trees:
    """KD-trees of slides, made when first asked for; those used longest ago go first."""

    def __init__(self, plan: PairPlan, max_tiles: int) -> None:
        self._plan, self._max_tiles = plan, max_tiles
        self._trees: OrderedDict[int, KDTree] = OrderedDict()
        self._n_tiles = 0

    def of(self, slide: int) -> KDTree:
        if slide not in self._trees:
            points = self._plan.tiles.select(self._plan.positions_um, slide)
            # Cells halved in the middle rather than at the median: made several times faster, as good on a grid.
            self._trees[slide] = KDTree(points, balanced_tree=False, compact_nodes=False)
            self._n_tiles += len(points)
        self._trees.move_to_end(slide)
        while self._n_tiles > self._max_tiles and len(self._trees) > 1:
            _, oldest = self._trees.popitem(last=False)
            self._n_tiles -= oldest.n
        return self._trees[slide]


def _no_pairs(limits: tuple[SlideLimits, ...]) -> TrainingError:
    if not limits:
        return TrainingError("there are no tiles to draw pairs from", "pretrain", "Tile the slides first.")
    largest = max(limits, key=lambda one: one.extent_um)
    return TrainingError(
        f"none of {len(limits)} slides gives near and far pairs. The largest, slide {largest.slide} with "
        f"{largest.n_tiles} tiles, is {largest.extent_um:.0f} um across; near would be < {largest.near_um:.0f} um and "
        f"far > {largest.far_um:.0f} um: {largest.reason}",
        "pretrain",
        f"Pairs need tissue more than {NEAR_PITCHES / NEAR_SHARE:.0f} tile steps across: cut smaller tiles, or train "
        "with a method that needs no places, such as simclr.",
    )
