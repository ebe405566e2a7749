"""Bags: what each query tile found by itself, and the strategies that rank slides from all of them together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from histokin.search.exact import exact_scores
from histokin.search.tables import TileHits
from histokin.streams import stream

Draw = Callable[[], tuple[np.ndarray, np.ndarray]]
"""Gives (n, d) mosaic tiles of an archive and (n,) their patients; called only where it is needed."""


@dataclass(frozen=True, slots=True)
class Bags:
    """The hits of n query tiles, bag after bag, each best first.

    Attributes:
        first: (n + 1,) int64; query tile q has the hits first[q] to first[q + 1] - 1.
        slide: (H,) int64 numbers.
        tile: (H,) int64 ids.
        place: (H, 2) int64 level-0 px, -1 where unknown.
        value: (H,) float64 cosine, or Hamming distance where `n_bits` is not 0.
        label: (H,) object label of the slide.
        n_bits: of the codes compared, 0 for cosines.
    """

    first: np.ndarray
    slide: np.ndarray
    tile: np.ndarray
    place: np.ndarray
    value: np.ndarray
    label: np.ndarray
    n_bits: int = 0

    @classmethod
    def of_hits(cls, hits: TileHits, labels: np.ndarray, threshold: float) -> "Bags":
        """The hits with a cosine of at least `threshold` on labelled slides; `labels` (S,) object by slide number."""
        is_kept = (hits.slide >= 0) & (np.nan_to_num(hits.score, nan=-np.inf) >= threshold)
        is_kept[is_kept] = [bool(label) for label in labels[hits.slide[is_kept]]]
        slide = hits.slide[is_kept]
        place = np.stack([hits.x[is_kept], hits.y[is_kept]], axis=1)
        return cls(_ends(is_kept.sum(axis=1)), slide, hits.tile[is_kept], place, hits.score[is_kept], labels[slide])

    def __len__(self) -> int:
        return len(self.first) - 1

    def of(self, bag: int) -> slice:
        """The hits of a query tile."""
        return slice(int(self.first[bag]), int(self.first[bag + 1]))

    def similarity(self) -> np.ndarray:
        """(H,) float64 cosine, or the share of equal bits."""
        return 1 - self.value / self.n_bits if self.n_bits else self.value


@dataclass(frozen=True, slots=True)
class Ranked:
    """Slides in the order of a bag strategy.

    Attributes:
        slide: (R,) int64 numbers.
        score: (R,) float64; it need not fall, the order is the strategy's.
        used: (n,) bool query tiles whose bags had a say.
    """

    slide: np.ndarray
    score: np.ndarray
    used: np.ndarray

    @classmethod
    def of(cls, entries: Sequence[tuple[int, float]], used: np.ndarray) -> "Ranked":
        """From (slide, score) pairs in order."""
        return cls(np.array([s for s, _ in entries], np.int64), np.array([v for _, v in entries], np.float64), used)


@runtime_checkable
class BagStrategy(Protocol):
    """One that ranks slides from the bags of all query tiles; both published ones need labels."""

    by: ClassVar[Literal["cosine", "hamming"]]
    """What bags are filled by."""

    @property
    def label(self) -> str:
        """The column of the slide table that holds the labels."""
        ...

    @property
    def sum_to(self) -> float:
        """What the class weights sum to."""
        ...

    @property
    def depth(self) -> int:
        """Hits looked at for each query tile; published engines have no such limit, memory has."""
        ...

    def limit(self, n_bits: int) -> float:
        """The least cosine, or the largest Hamming distance of codes of `n_bits`, in a bag."""
        ...

    def rank(self, bags: Bags, weights: Mapping[str, float]) -> Ranked:
        """Order the slides of the bags; `weights` of labels from `class_weights`."""
        ...


def cross_patient_quantiles(
    sample: np.ndarray, patients: np.ndarray, quantiles: np.ndarray, *, n_pairs: int = 20_000, seed: int = 0
) -> np.ndarray:
    """Quantiles of the similarity of two random tiles of different patients: what a score or threshold means.

    A fixed cosine says nothing across encoders: the published 0.7 held 11 % of random cross-patient pairs with one
    encoder and none with the same encoder after its spectrum had been flattened.

    Args:
        sample: (n, d) unit rows.
        patients: (n,) whose they are.
        quantiles: (m,) in [0, 1].
        n_pairs: pairs drawn, those of one patient are dropped.
        seed: of the pairs.

    Returns:
        (m,) cosines; NaN where no two tiles are of different patients.
    """
    if not len(sample):
        return np.full(len(quantiles), np.nan)
    first, second = stream(seed, "cross-patient pairs").integers(len(sample), size=(2, n_pairs))
    differ = patients[first] != patients[second]
    found = [
        exact_scores(np.asarray(sample[a], dtype=np.float64), np.asarray(sample[b], dtype=np.float64), "cosine")
        for a, b in zip(np.array_split(first[differ], 16), np.array_split(second[differ], 16), strict=True)
    ]
    scores = np.concatenate(found)
    return np.quantile(scores, quantiles) if len(scores) else np.full(len(quantiles), np.nan)


def cross_patient_quantile(
    sample: np.ndarray, patients: np.ndarray, quantile: float = 0.99, *, n_pairs: int = 20_000, seed: int = 0
) -> float:
    """One of `cross_patient_quantiles`."""
    return float(cross_patient_quantiles(sample, patients, np.array([quantile]), n_pairs=n_pairs, seed=seed)[0])


def _ends(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
