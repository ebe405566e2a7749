"""What every strategy is asked with, and what a strategy is."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from histokin.search.ranking import unit_queries
from histokin.search.slides import best_pairs

SLACK = 1e-5
"""How far a float32 score is trusted (30 times the largest error measured, as in `exact.TOLERANCE`)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The tiles of a query and how much each of them counts.

    Attributes:
        vectors: (n, d) float64 unit rows.
        weights: (n,) float64 >= 0, sum 1.
    """

    vectors: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, weights: np.ndarray | None = None, *, dim: int | None = None) -> "Asked":
        """Make vectors unit and weights sum to 1; equal weights where none are given.

        Raises:
            SearchError: a vector is zero or not finite, or not `dim` wide.
            ValueError: no tile, or weights that are negative, not finite or all zero.
        """
        if not len(vectors):
            raise ValueError("a query needs at least one tile")
        unit = unit_queries(vectors, vectors.shape[-1] if dim is None else dim)
        mass = np.ones(len(unit)) if weights is None else np.asarray(weights, dtype=np.float64)
        if mass.shape != (len(unit),) or not np.isfinite(mass).all() or (mass < 0).any() or not mass.any():
            raise ValueError(f"need {len(unit)} weights >= 0, not all 0, got {mass}")
        return cls(unit, mass / mass.sum())


@runtime_checkable
class PairStrategy(Protocol):
    """A score of the query and one slide, whatever else the archive holds."""

    reads: ClassVar[Literal["mosaics", "means"]]
    """What of a slide is compared: its mosaic, or one mean vector of all its tiles."""

    def rough(self, asked: Asked, vectors: np.ndarray, first: np.ndarray) -> np.ndarray:
        """(S,) float64 scores of many slides, good to `SLACK`.

        Args:
            asked: the query.
            vectors: (M, d) floating, slide after slide.
            first: (S + 1,) where each slide begins; none is empty.
        """
        ...

    def score(self, asked: Asked, vectors: np.ndarray) -> float:
        """The score of one slide (m, d) float64, larger is more alike; the same bits whatever else is compared."""
        ...

    def pairs(self, asked: Asked, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each query tile its best row of a mosaic (m, d), the lowest of equals, and the similarity of the two."""
        ...


@runtime_checkable
class BoundedStrategy(PairStrategy, Protocol):
    """One whose score is bounded by the query tiles' best similarities, so that tile search finds candidates."""

    def ceiling(self, asked: Asked, best: np.ndarray) -> np.ndarray:
        """(S,) the largest score a slide can have where query tile q is at most `best[q, s]` like any of its tiles."""
        ...


def best_of_slides(asked: Asked, vectors: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(n, M) float32 similarities and (n, S) float32 best ones of each slide."""
    pairs = asked.vectors.astype(np.float32) @ vectors.astype(np.float32).T
    return pairs, np.maximum.reduceat(pairs, first[:-1], axis=1)


def cosine_pairs(asked: Asked, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`PairStrategy.pairs` by cosine."""
    return best_pairs(asked.vectors, vectors)


def shares(weights: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """w_q s_q / sum w s: what part of the likeness each query tile carries, negative similarities counted as 0.

    Args:
        weights: (n,) of the query tiles.
        similarity: (n,) of their best pairs, NaN where there is none.
    """
    mass = weights * np.nan_to_num(np.maximum(similarity, 0))
    return mass / (mass.sum() or 1.0)
