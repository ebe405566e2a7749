"""Late interaction: every query tile finds its best tile in the slide, and these similarities are averaged."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from histokin.search.slides import best_pairs
from histokin.search.strategies.asked import Asked, best_of_slides, cosine_pairs


@dataclass(frozen=True, slots=True)
class MaxSim:
    """sum_q w_q max_t s_qt: how well the slide covers the query (ColBERT's MaxSim, Khattab & Zaharia 2020)."""

    reads: ClassVar[Literal["mosaics", "means"]] = "mosaics"

    def rough(self, asked: Asked, vectors: np.ndarray, first: np.ndarray) -> np.ndarray:
        """See `PairStrategy.rough`."""
        return self.ceiling(asked, best_of_slides(asked, vectors, first)[1])

    def score(self, asked: Asked, vectors: np.ndarray) -> float:
        """See `PairStrategy.score`."""
        return float((asked.weights * best_pairs(asked.vectors, vectors)[1]).sum())

    def pairs(self, asked: Asked, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PairStrategy.pairs`."""
        return cosine_pairs(asked, vectors)

    def ceiling(self, asked: Asked, best: np.ndarray) -> np.ndarray:
        """See `BoundedStrategy.ceiling`."""
        return asked.weights @ best.astype(np.float64)


@dataclass(frozen=True, slots=True)
class MaxSimBoth:
    """The mean of both directions: (sum_q w_q max_t s_qt + mean_t max_q s_qt) / 2.

    The second half asks how much of the slide the query explains, so a slide that shows much else ranks lower.
    """

    reads: ClassVar[Literal["mosaics", "means"]] = "mosaics"

    def rough(self, asked: Asked, vectors: np.ndarray, first: np.ndarray) -> np.ndarray:
        """See `PairStrategy.rough`."""
        pairs, best = best_of_slides(asked, vectors, first)
        back = np.add.reduceat(pairs.max(axis=0).astype(np.float64), first[:-1]) / np.diff(first)
        return (asked.weights @ best.astype(np.float64) + back) / 2

    def score(self, asked: Asked, vectors: np.ndarray) -> float:
        """See `PairStrategy.score`."""
        there = (asked.weights * best_pairs(asked.vectors, vectors)[1]).sum()
        return float((there + best_pairs(vectors, asked.vectors)[1].mean()) / 2)

    def pairs(self, asked: Asked, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PairStrategy.pairs`: those of the query's direction."""
        return cosine_pairs(asked, vectors)

    def ceiling(self, asked: Asked, best: np.ndarray) -> np.ndarray:
        """See `BoundedStrategy.ceiling`: no tile of the slide is more like the query than its best pair."""
        return (asked.weights @ best.astype(np.float64) + best.max(axis=0)) / 2
