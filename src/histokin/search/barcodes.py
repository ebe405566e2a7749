"""Binary codes of embeddings: the two published polarities of first differences, and signs after a rotation."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from histokin.search.clusters import unit_on_grid
from histokin.streams import stream

_WORDS = 2**22  # 64-bit words compared at a time (32 MiB)


@dataclass(frozen=True, slots=True)
class Barcodes:
    """Packed codes.

    Attributes:
        codes: (n, 8 w) uint8, the bits of a row from the left, zeros up to a multiple of 64.
        n_bits: bits that mean something.
    """

    codes: np.ndarray
    n_bits: int

    def __len__(self) -> int:
        return len(self.codes)

    def words(self) -> np.ndarray:
        """(n, w) uint64 view, for counting."""
        return self.codes.view(np.uint64)


class Code(Protocol):
    """Something that turns embeddings into bits."""

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(n, d) floating to (n, b) bool."""
        ...


def falling(vectors: np.ndarray) -> np.ndarray:
    """(n, d - 1) bool of Yottixel: where the next number is smaller, [x_{i+1} - x_i < 0].

    Unchanged by a shift and a positive scale of the whole vector; depends on the order of the dimensions, which means
    nothing for an encoder. The paper names it "MinMax"; the released code is meant.
    """
    return vectors[:, 1:] < vectors[:, :-1]


def rising(vectors: np.ndarray) -> np.ndarray:
    """(n, d) bool of FISH: a 0, then where the next number is not smaller: the complement of `falling`.

    Hamming distances are those of `falling`: the constant bit and the polarity cancel.
    """
    return np.concatenate([np.zeros((len(vectors), 1), dtype=bool), vectors[:, 1:] >= vectors[:, :-1]], axis=1)


@dataclass(frozen=True, slots=True)
class RotatedSign:
    """Signs after centring and a random rotation: as many bits, and none depends on how dimensions are ordered.

    The Hamming distance of two codes estimates the angle of the centred vectors (Charikar 2002); centring matters
    because embeddings of tissue share a large common part, which would give nearly all tiles the same signs.

    Attributes:
        mean: (d,) float64, subtracted from unit vectors.
        rotation: (d, b) float64, unit columns; orthogonal to each other within every d of them.
    """

    mean: np.ndarray
    rotation: np.ndarray

    @classmethod
    def of(cls, sample: np.ndarray, *, n_bits: int | None = None, seed: int = 0) -> "RotatedSign":
        """Centre on a sample (n, d) of the archive; `n_bits` None is d."""
        d = sample.shape[1]
        parts = [
            np.linalg.qr(stream(seed, "rotation", d, number).normal(size=(d, d)))[0]
            for number in range(-(-(n_bits or d) // d))
        ]
        rotation = np.concatenate(parts, axis=1)[:, : n_bits or d]
        # On the grid all products are exact: a sign then depends on no shape, thread or block.
        return cls(np.rint(unit_on_grid(sample).mean(axis=0) * 2**24) / 2**24, unit_on_grid(rotation.T).T)

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(n, d) floating to (n, b) bool."""
        return (unit_on_grid(vectors) - self.mean) @ self.rotation >= 0


def pack(bits: np.ndarray) -> Barcodes:
    """Pack (n, b) bool."""
    n, n_bits = bits.shape
    codes = np.zeros((n, 8 * -(-n_bits // 64)), dtype=np.uint8)
    codes[:, : -(-n_bits // 8)] = np.packbits(bits, axis=1)
    return Barcodes(codes, n_bits)


def hamming(first: Barcodes, second: Barcodes) -> np.ndarray:
    """(n, m) int32 numbers of differing bits.

    Raises:
        ValueError: codes of different lengths.
    """
    if first.n_bits != second.n_bits:
        raise ValueError(f"codes of {first.n_bits} and {second.n_bits} bits cannot be compared")
    left, right = first.words(), second.words()
    distances = np.zeros((len(left), len(right)), dtype=np.int32)
    step = max(1, _WORDS // max(1, len(left)))
    for start in range(0, len(right), step):
        part = slice(start, start + step)
        for word in range(left.shape[1]):  # a word at a time: two-dimensional, contiguous, never (n, m, w)
            distances[:, part] += np.bitwise_count(left[:, word, None] ^ right[None, part, word])
    return distances
