"""Which tiles of which bags make a batch: planned ahead, so that nothing depends on threads or restarts."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from histokin.streams import stream


@dataclass(frozen=True, slots=True)
class Draw:
    """Tiles of B bags.

    Attributes:
        bags: (B,) int64 numbers in the source; one may occur twice.
        starts: (B,) int64 first row of each block in its bag; a block goes round at the bag's end.
        lengths: (B,) int64 rows of each block, at least 1.
    """

    bags: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.bags)


def whole_bags(lengths: NDArray[np.int64], numbers: NDArray[np.int64], *, n_bags: int, max_tiles: int) -> list[Draw]:
    """All tiles of some bags in the order given, in batches of at most `n_bags` bags and `max_tiles` tiles.

    A bag of more tiles makes a batch of its own.

    Args:
        lengths: (B,) of the source.
        numbers: (N,) of the bags.
        n_bags, max_tiles: of a batch.
    """
    starts = np.zeros(len(numbers), dtype=np.int64)
    return list(_batches(numbers, starts, lengths[numbers], n_bags, max_tiles))


def sampled_bags(
    lengths: NDArray[np.int64],
    numbers: NDArray[np.int64],
    *,
    n_bags: int,
    max_tiles: int,
    tile_cap: int,
    seed: int,
    epoch: int,
    weights: NDArray[np.float64] | None = None,
    fewest: int = 1,
) -> list[Draw]:
    """The batches of a training epoch: every bag once in a random order, at most `tile_cap` random tiles of each.

    Everything follows from (seed, epoch).

    Args:
        lengths, numbers, n_bags, max_tiles: as in `whole_bags`.
        tile_cap: at least 1.
        seed: of the run.
        epoch: from 0.
        weights: (N,) to draw N bags with replacement instead, such as N / n_c; None takes each once.
        fewest: a last batch of fewer bags joins the one before it.
    """
    rng = stream(seed, "bags", epoch)
    if weights is None:
        drawn = rng.permutation(numbers)
    else:
        drawn = rng.choice(numbers, size=len(numbers), p=weights / weights.sum())
    n = lengths[drawn]
    starts = (stream(seed, "tiles", epoch).random(len(drawn)) * n).astype(np.int64)
    starts, n = np.where(n > tile_cap, starts, 0), np.minimum(n, tile_cap)
    return list(_batches(drawn, starts, n, n_bags, max_tiles, fewest))


def _batches(
    numbers: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    n_bags: int,
    max_tiles: int,
    fewest: int = 1,
) -> Iterator[Draw]:
    if min(n_bags, max_tiles) < 1:
        raise ValueError(f"a batch needs n_bags and max_tiles of at least 1, got {n_bags}, {max_tiles}")
    ends = _ends(lengths.tolist(), n_bags, max_tiles)
    if len(ends) > 1 and ends[-1] - ends[-2] < fewest:
        del ends[-2]
    for first, end in pairwise([0, *ends]):
        yield Draw(numbers[first:end], starts[first:end], lengths[first:end])


def _ends(lengths: list[int], n_bags: int, max_tiles: int) -> list[int]:
    ends: list[int] = []
    first, n_tiles = 0, 0
    for place, n in enumerate(lengths):
        if place > first and (place - first == n_bags or n_tiles + n > max_tiles):
            ends.append(place)
            first, n_tiles = place, 0
        n_tiles += n
    return [*ends, len(lengths)] if lengths else ends
