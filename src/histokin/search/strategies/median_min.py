"""Yottixel's slide distance, the median over query tiles of the least distance, on vectors and on barcodes."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from histokin.search.barcodes import Barcodes, Code, RotatedSign, falling, hamming, pack
from histokin.search.region import weighted_median
from histokin.search.strategies.asked import Asked, best_of_slides, cosine_pairs
from histokin.search.strategies.bags import Draw


@dataclass(frozen=True, slots=True)
class MedianMin:
    """1 - median_q min_t (1 - s_qt), the median weighted: directed, and blind to the worse half of the query tiles.

    Kalra et al. 2020 on cosine distances instead of barcodes.
    """

    reads: ClassVar[Literal["mosaics", "means"]] = "mosaics"

    def rough(self, asked: Asked, vectors: np.ndarray, first: np.ndarray) -> np.ndarray:
        """See `PairStrategy.rough`."""
        return self.ceiling(asked, best_of_slides(asked, vectors, first)[1])

    def score(self, asked: Asked, vectors: np.ndarray) -> float:
        """See `PairStrategy.score`."""
        return float(weighted_median(cosine_pairs(asked, vectors)[1], asked.weights))

    def pairs(self, asked: Asked, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PairStrategy.pairs`."""
        return cosine_pairs(asked, vectors)

    def ceiling(self, asked: Asked, best: np.ndarray) -> np.ndarray:
        """See `BoundedStrategy.ceiling`: a median rises with its values."""
        return weighted_median(best, asked.weights)


@dataclass(frozen=True, slots=True)
class BinaryMedianMin:
    """1 - median_q min_t ham(b_q, b_t) / bits: Yottixel's distance as its released code has it.

    Codes are made of the mosaics when asked; the cost grows with the archive.

    Attributes:
        code: what makes the bits; `falling` is Yottixel's.
    """

    reads: ClassVar[Literal["mosaics", "means"]] = "mosaics"
    code: Code = falling

    def rough(self, asked: Asked, vectors: np.ndarray, first: np.ndarray) -> np.ndarray:
        """See `PairStrategy.rough`; exact, distances are integers."""
        codes, distance = self._distances(asked, vectors)
        nearest = np.minimum.reduceat(distance, first[:-1], axis=1)
        return 1 - weighted_median(nearest, asked.weights) / codes.n_bits

    def score(self, asked: Asked, vectors: np.ndarray) -> float:
        """See `PairStrategy.score`."""
        return float(self.rough(asked, vectors, np.array([0, len(vectors)]))[0])

    def pairs(self, asked: Asked, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `PairStrategy.pairs`; the similarity is the share of equal bits."""
        codes, distance = self._distances(asked, vectors)
        row = distance.argmin(axis=1)
        return row, 1 - distance[np.arange(len(row)), row] / codes.n_bits

    def _distances(self, asked: Asked, vectors: np.ndarray) -> tuple[Barcodes, np.ndarray]:
        codes = pack(self.code(vectors))
        return codes, hamming(pack(self.code(asked.vectors)), codes)


@dataclass(frozen=True, slots=True)
class RotatedMedianMin:
    """`BinaryMedianMin` on signs after a rotation that is centred on the archive searched.

    Attributes:
        n_bits: of a code; None: as many as dimensions.
        seed: of the rotation.
    """

    n_bits: int | None = None
    seed: int = 0

    def fitted(self, draw: Draw) -> BinaryMedianMin:
        """The strategy for one archive."""
        return BinaryMedianMin(RotatedSign.of(draw()[0], n_bits=self.n_bits, seed=self.seed))
