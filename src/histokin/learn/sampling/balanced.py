"""Batches balanced over cohorts and slides: a cohort with ten times the tiles gives no more samples for it."""

import numpy as np

from histokin.learn.draws import draw_uniforms
from histokin.learn.sampling.draw import Draw, note_few_tiles
from histokin.learn.sampling.groups import floor_of, group_rows, spread_ranges

SLIDE_TRIES = 16  # redraws of a slide whose tiles are all in the batch already


class BalancedSampler:
    """Every sample draws a cohort, a slide of it and a tile of it, each uniformly.

    No tile comes twice in a batch. Within a slide, tiles are therefore drawn without replacement, which leaves the
    shares of cohorts and slides as they are. Only a slide drawn more often in a batch than it has tiles falls short:
    the samples too many draw cohort and slide anew, up to `SLIDE_TRIES` times, and what then still finds no room takes
    free tiles one after another from a drawn place on, whatever their slide. A step costs O(B log B), independent of
    how many tiles there are.

    Args:
        seed: of the run.
        batch: samples a step, of all ranks together; reduced to the number of tiles.
        slides: (n,) int number of each tile's slide.
        cohorts: (n,) int number of each tile's cohort; all tiles of a slide are of one cohort.

    Attributes:
        batch: as reduced.
        note: why, if it is reduced.
        slide_numbers: (S,) int64, the slides that have tiles, ascending.
        slide_shares: (S,) float64, the chance that a sample is of each: 1 / (cohorts * slides of its cohort). A tile's
            is that of its slide by the slide's tiles. Exact for slides never drawn more often than they have tiles.
    """

    def __init__(self, seed: int, batch: int, slides: np.ndarray, cohorts: np.ndarray) -> None:
        if slides.shape != cohorts.shape or slides.ndim != 1 or len(slides) < 1 or batch < 1:
            raise ValueError(f"cannot draw {batch} tiles of slides {slides.shape} and cohorts {cohorts.shape}")
        self.batch = min(batch, len(slides))
        self.note = note_few_tiles(self.batch, batch, len(slides))
        self._seed = seed
        self._tiles = group_rows(slides)
        self._cohorts = group_rows(_one_each(cohorts, self._tiles.order, self._tiles.starts))
        self.slide_numbers = self._tiles.labels
        self.slide_shares = np.empty(len(self.slide_numbers))
        for cohort, size in enumerate(self._cohorts.sizes):
            self.slide_shares[self._cohorts.rows_of(cohort)] = 1 / (len(self._cohorts.labels) * size)

    def draw(self, step: int) -> Draw:
        """The whole batch of a step."""
        return Draw(self._draw_tiles(step, self._draw_slides(step)))

    def _draw_slides(self, step: int) -> np.ndarray:
        """(B,) int64 slides, by place among `slide_numbers`, none more often than it has tiles."""
        slides, sizes = np.empty(self.batch, np.int64), self._tiles.sizes
        pending = np.arange(self.batch)
        for attempt in range(1 + SLIDE_TRIES):
            of_cohort, of_slide = self._uniforms(f"balanced slide {attempt}", step, pending, 2)
            cohorts = floor_of(of_cohort, len(self._cohorts.labels))
            slides[pending] = self._cohorts.pick(cohorts, of_slide)
            pending = _surplus(slides, pending, sizes[slides])
            if not len(pending):
                return slides
        free = sizes - np.bincount(np.delete(slides, pending), minlength=len(sizes))
        n_free = int(free.sum())  # >= len(pending), for the batch is no larger than the number of tiles
        (start,) = self._uniforms("balanced free tile", step, pending[:1], 1)
        chosen = (floor_of(start, n_free) + np.arange(len(pending))) % n_free
        slides[pending] = np.searchsorted(np.cumsum(free), chosen, side="right")
        return slides

    def _draw_tiles(self, step: int, slides: np.ndarray) -> np.ndarray:
        """(B,) int64 tiles of the slides given, all different."""
        rows, sizes = np.empty(self.batch, np.int64), self._tiles.sizes
        _, place, counts = np.unique(slides, return_inverse=True, return_counts=True)
        # Redrawing ends fast only while most of a slide is free; of the others all tiles together are less than 2 B.
        is_crowded = 2 * counts[place] > sizes[slides]
        crowded = np.flatnonzero(is_crowded)
        if len(crowded):
            rows[crowded] = self._shuffle(step, slides[crowded])
        pending = np.flatnonzero(~is_crowded)
        attempt = 0
        while len(pending):  # a sample is refused with a chance below 1/2
            (of_tile,) = self._uniforms(f"balanced tile {attempt}", step, pending, 1)
            rows[pending] = self._tiles.pick(slides[pending], of_tile)
            pending = _surplus(rows, pending, np.ones(self.batch, np.int64))
            attempt += 1
        return rows

    def _shuffle(self, step: int, slides: np.ndarray) -> np.ndarray:
        """(b,) int64: the k-th sample of a slide gets the k-th of the slide's tiles in an order drawn for the step."""
        chosen, counts = np.unique(slides, return_counts=True)
        sizes = self._tiles.sizes[chosen]
        places = spread_ranges(self._tiles.starts[chosen], sizes)
        (keys,) = self._uniforms("balanced crowded", step, places, 1)
        shuffled = places[np.lexsort((keys, np.repeat(chosen, sizes)))]
        taken = shuffled[spread_ranges(np.cumsum(sizes) - sizes, counts)]  # slide by slide, `counts` of each
        rows = np.empty(len(slides), np.int64)
        rows[np.argsort(slides, kind="stable")] = taken if self._tiles.order is None else self._tiles.order[taken]
        return rows

    def _uniforms(self, purpose: str, step: int, samples: np.ndarray, n_draws: int) -> np.ndarray:
        """(n_draws, len(samples)) float64 in [0, 1)."""
        return draw_uniforms(self._seed, purpose, step, samples=samples, n_views=1, n_draws=n_draws)[0].T


def _one_each(cohorts: np.ndarray, order: np.ndarray | None, starts: np.ndarray) -> np.ndarray:
    """(S,) the cohort of each slide."""
    ordered = cohorts if order is None else cohorts[order]
    lowest, highest = (extreme.reduceat(ordered, starts[:-1]) for extreme in (np.minimum, np.maximum))
    if not np.array_equal(lowest, highest):
        raise ValueError(f"{np.count_nonzero(lowest != highest)} slides have tiles of more than one cohort")
    return lowest


def _surplus(values: np.ndarray, pending: np.ndarray, room: np.ndarray) -> np.ndarray:
    """Which of the pending find no room: of equal values the settled come first, then the pending in their order.

    Args:
        values: (B,) int.
        pending: (b,) int64 places just drawn; the rest is settled and has room.
        room: (B,) int, how many may have the value that stands at each place.

    Returns:
        int64 places, ascending.
    """
    is_pending = np.zeros(len(values), bool)
    is_pending[pending] = True
    order = np.lexsort((is_pending, values))
    ordered, at = values[order], np.arange(len(order))
    begins = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    rank = at - np.maximum.accumulate(np.where(begins, at, 0))
    return np.sort(order[rank >= room[order]])
