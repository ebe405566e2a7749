"""The mean embedding: the baseline of every table."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from histokin.search.exact import exact_scores
from histokin.search.strategies.asked import Asked, cosine_pairs


@dataclass(frozen=True, slots=True)
class Mean:
    """Cosine of the query's weighted mean unit vector and the slide's mean over all its tiles.

    As a prefilter for other strategies it loses too much: recall 0.57 at the best 200 of 10^4 simulated slides.
    """

    reads: ClassVar[Literal["mosaics", "means"]] = "means"

    def rough(self, asked: Asked, vectors: np.ndarray, first: np.ndarray) -> np.ndarray:
        """See `PairStrategy.rough`; one vector a slide, so `first` says nothing new."""
        del first
        rows = np.asarray(vectors, dtype=np.float32)
        norms = np.sqrt(np.einsum("sd,sd->s", rows, rows, dtype=np.float64))
        return (rows @ _direction(asked).astype(np.float32)) / np.where(norms > 0, norms, 1.0)

    def score(self, asked: Asked, vectors: np.ndarray) -> float:
        """See `PairStrategy.score`."""
        norm = np.sqrt((vectors[0] ** 2).sum())
        return float(exact_scores(_direction(asked)[None], vectors[:1] / (norm or 1.0), "cosine")[0])

    def pairs(self, asked: Asked, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PairStrategy.pairs`: for the eye, the score has no pairs."""
        return cosine_pairs(asked, vectors)


def _direction(asked: Asked) -> np.ndarray:
    """(d,) unit vector of the weighted mean; zero where the tiles cancel, which is like nothing."""
    mean = (asked.weights[:, None] * asked.vectors).sum(axis=0)
    return mean / (np.sqrt((mean**2).sum()) or 1.0)
