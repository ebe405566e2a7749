"""Weighted nearest neighbours on frozen features, as DINO's evaluation weighs them."""

from dataclasses import dataclass

import numpy as np

from histokin.evaluate.probes.outcome import Part, Predicted
from histokin.search import top_k


@dataclass(frozen=True, slots=True)
class NeighbourProbe:
    """The k training rows of largest cosine s vote with weight exp(s / T) (Caron et al. 2021, DINO); ties: lower class.

    Equal cosines at rank k are settled by row number. k is capped at the training rows.

    Attributes:
        k: neighbours.
        temperature: T.
        is_standardised: z-score by the training part first; the reference does not, and the colour and texture floors
            need it.
    """

    k: int = 20
    temperature: float = 0.07
    is_standardised: bool = False

    def __post_init__(self) -> None:
        if self.k < 1 or not self.temperature > 0:
            raise ValueError(f"need k >= 1 and T > 0, got {self.k}, {self.temperature}")

    @property
    def word(self) -> str:
        return "knn"

    def predict(self, train: Part, test: np.ndarray) -> Predicted:
        """Probabilities (n, C): each class's share of the weights."""
        k = min(self.k, len(train.x))
        found = top_k(test, train.x, k)
        # Only ratios count, so the nearest may weigh 1: exp(s / T) itself overflows for a small T.
        weights = np.exp((found.scores - found.scores[:, :1]) / self.temperature)
        votes = np.zeros((len(test), train.n_classes))
        np.add.at(votes, (np.arange(len(test))[:, None], train.truth[found.ids]), weights)
        return Predicted(votes / votes.sum(axis=1, keepdims=True), float(k))
