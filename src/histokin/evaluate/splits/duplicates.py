"""Tiles that are nearly the same picture: close hashes and a high cosine, found without comparing all pairs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.splits.table import coded, listed

HAMMING = 2
COSINE = 0.99
"""Near duplicates differ in at most so many bits of their hashes and have at least this cosine; not tuned."""
MOST_PAIRS = 100_000
"""Near-duplicate pairs after which the search ends; the finding then says so."""
MOST_WORK = 2**33
"""Products of two vectors after which it ends as well: those of 130 000 tiles of one hash, a minute at 384 numbers."""
_ROWS, _COLUMNS = 8, 9  # of the grey picture that is hashed
_GREY = (299.0, 587.0, 114.0)  # luma of ITU-R BT.601 in thousandths: whole numbers keep flat tiles exactly flat
_TILES = 8  # hashed at once: 0.9 ms a tile of 256 px
_BANDS = 16  # of 4 bits; hashes that differ in 2 bits agree in all but 2 bands, which have 256 values at most
_PAIRS = 2**17  # looked at one by one in a block
_SIDE = 1024  # tiles on either side of a block of products
_FEW = 64  # pairs of two hashes, below which they are looked at one by one: a block costs as much
_READ, _LOOK = 128, 8  # products that take the time of reading a vector, of looking up whether two tiles are apart
_KEPT = 16  # blocks of scaled vectors kept for reuse


def dhash(tiles: np.ndarray) -> np.ndarray:
    """(n,) uint64 difference hashes: alike where pictures are, whatever their size and brightness.

    The tile in grey is averaged by area to 8 rows of 9 values a; bit 8 r + c, the lowest first, says whether
    a[r, c + 1] > a[r, c]. Averages are sums of whole numbers, so equal values are equal and an empty tile gives 0.

    Args:
        tiles: (n, h, w, 3) uint8.

    Raises:
        ValueError: another shape or dtype.
    """
    if tiles.ndim != 4 or tiles.shape[3] != 3 or tiles.dtype != np.uint8 or 0 in tiles.shape[1:]:
        raise ValueError(f"tiles must be (n, h, w, 3) uint8, got {tiles.shape} {tiles.dtype}")
    (_, height, width, _), down = tiles.shape, _area_weights(tiles.shape[1], _ROWS)
    across = (_area_weights(width, _COLUMNS)[:, :, None] * np.array(_GREY)).reshape(_COLUMNS, -1).T
    hashes = np.empty(len(tiles), dtype=np.uint64)
    for start in range(0, len(tiles), _TILES):
        block = tiles[start : start + _TILES]
        lines = block.reshape(len(block) * height, width * 3).astype(np.float64)
        hashes[start : start + _TILES] = hash_bits(down @ (lines @ across).reshape(len(block), height, _COLUMNS))
    return hashes


def hash_bits(grey: np.ndarray) -> np.ndarray:
    """(n,) uint64 of (n, 8, 9) values: bit 8 r + c says whether a[r, c + 1] > a[r, c]."""
    bits = (np.diff(grey, axis=2) > 0).reshape(len(grey), 64)
    return np.packbits(bits, axis=1, bitorder="little").view("<u8")[:, 0].astype(np.uint64)


def near_duplicates(
    hashes: np.ndarray,
    features: np.ndarray,
    parts: np.ndarray,
    *,
    max_hamming: int = HAMMING,
    min_cosine: float = COSINE,
    max_pairs: int = MOST_PAIRS,
) -> tuple[np.ndarray, bool]:
    """Pairs of tiles in different parts that are nearly the same picture: few different bits and a high cosine.

    Both are needed: hashes of smooth tissue collide, and vectors of like tissue lie close. The result is that of
    comparing all pairs unless the search ends early: at `max_pairs`, or after `MOST_WORK`.

    Time is about linear in N but for many tiles of one hash or of neighbouring ones, whose pairs are all compared: by
    products of float32 vectors, and those that may reach `min_cosine` in float64. The largest groups come last, so that
    white tiles take no work from the others. Memory is linear in `hashes`, `parts` and `max_pairs`, and some 100 kB for
    each of the d numbers of a vector.

    Args:
        hashes: (N,) uint64.
        features: (N, d) floating.
        parts: (N,) or (N, J) whole numbers, -1 where absent; a pair counts where it is apart in one of J folds.
        max_hamming: 0, 1 or 2.
        min_cosine: smallest cosine.
        max_pairs: after which the search ends.

    Returns:
        (M, 2) int64 rows, ascending within and between pairs; and whether the search ended early.

    Raises:
        EvaluationError: a candidate's vector is zero or not finite.
        ValueError: max_hamming beyond 2.
    """
    if not 0 <= max_hamming <= 2:
        raise ValueError(f"max_hamming must be 0, 1 or 2, got {max_hamming}")
    tiles = _Alike.of(np.asarray(hashes, dtype=np.uint64), part_codes(parts))
    found, n_found, work_left = [np.zeros((0, 2), dtype=np.int64)], 0, MOST_WORK
    for pairs, work in _likely(tiles, features, max_hamming, float(min_cosine)):
        is_near = _cosines(features, pairs) >= min_cosine
        if is_near.any():  # a million empty blocks would be memory, too
            found.append(np.sort(pairs[is_near], axis=1))
            n_found += int(is_near.sum())
        if n_found >= max_pairs or work_left <= 0:
            return _ascending(np.concatenate(found))[:max_pairs], True
        work_left -= work
    return _ascending(np.concatenate(found)), False


def part_codes(parts: np.ndarray) -> np.ndarray:
    """(N, J) int64 of (N,) or (N, J) parts: whole numbers as they are, -1 where absent; texts by name, "" absent."""
    given = np.asarray(parts)
    codes = given if given.dtype.kind in "iu" else coded(given.ravel())[1].reshape(given.shape)
    return codes.reshape(len(codes), -1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Alike:
    """Tiles sorted by hash, and those of one hash by the parts they stand in: H groups of N' tiles.

    Attributes:
        hashes: (H,) uint64, distinct and ascending.
        order: (N',) int64 the tile at each place; those in no part are left out.
        parts: (N', J) int64 of each place.
        starts: (H,) int64 first place of each group.
        sizes: (H,) int64.
    """

    hashes: np.ndarray
    order: np.ndarray
    parts: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, hashes: np.ndarray, parts: np.ndarray) -> "_Alike":
        kept = np.flatnonzero((parts >= 0).any(axis=1))
        stands = np.unique(parts[kept], axis=0, return_inverse=True)[1].ravel()
        order = kept[np.lexsort((stands, hashes[kept]))]
        distinct, starts, sizes = np.unique(hashes[order], return_index=True, return_counts=True)
        return cls(distinct, order, parts[order], starts, sizes)

    def crossed(self, groups: np.ndarray) -> Iterator[np.ndarray]:
        """(m, 2) places: all pairs of a member of one and of the other of (n, 2) groups, block by block."""
        (starts, starts_other), (sizes, sizes_other) = self.starts[groups].T, self.sizes[groups].T
        ends = np.cumsum(sizes * sizes_other)
        for start in range(0, int(ends[-1]) if len(ends) else 0, _PAIRS):
            number = np.arange(start, min(start + _PAIRS, int(ends[-1])))
            k = np.searchsorted(ends, number, side="right")
            one, other = np.divmod(number - ends[k] + sizes[k] * sizes_other[k], sizes_other[k])
            yield np.stack([starts[k] + one, starts_other[k] + other], axis=1)

    def apart(self, places: np.ndarray) -> np.ndarray:
        """(m', 2) tiles: those of (m, 2) ascending places that stand in different parts."""
        places = places[places[:, 0] < places[:, 1]]  # else a group crossed with itself gives each pair twice
        one, other = self.parts[places[:, 0]], self.parts[places[:, 1]]
        return self.order[places[((one != other) & (one >= 0) & (other >= 0)).any(axis=1)]]

    def spans(self, group: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n, 2) first and past places of its blocks; (n, J) lowest and highest parts there, beyond all if none."""
        first, past = int(self.starts[group]), int(self.starts[group] + self.sizes[group])
        starts, parts = np.arange(first, past, _SIDE), self.parts[first:past]
        present = np.where(parts >= 0, parts, np.iinfo(np.int64).max)
        low, high = np.minimum.reduceat(present, starts - first), np.maximum.reduceat(parts, starts - first)
        return np.stack([starts, np.minimum(starts + _SIDE, past)], axis=1), low, high

    def blocks_apart(self, groups: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
        """First and past places of two blocks, one of each of (n, 2) groups, that have tiles apart; each pair once."""
        for group, group_other in groups.tolist():
            (ones, low, high), (others, low_other, high_other) = self.spans(group), self.spans(group_other)
            for i, (start, stop) in enumerate(ones.tolist()):
                are_there = (high[i] >= 0) & (high_other >= 0)
                differ = np.minimum(low[i], low_other) < np.maximum(high[i], high_other)
                is_apart = (are_there & differ).any(axis=1) & (others[:, 1] > start)  # a group with itself: from i on
                for other in others[is_apart].tolist():
                    yield start, stop, *other


def _likely(
    tiles: _Alike, features: np.ndarray, max_hamming: int, min_cosine: float
) -> Iterator[tuple[np.ndarray, int]]:
    """(m, 2) tiles apart, with close hashes, among them all of `min_cosine`; and the work done for them, in products.

    The pairs of large groups come last, the largest at the very end: there are at most 2 N of them, since a hash has
    2080 neighbours and one of the two groups has `_SIDE` tiles.
    """

    @lru_cache(maxsize=_KEPT)
    def units(start: int, stop: int) -> np.ndarray:
        return _unit_vectors(features, tiles.order[start:stop])

    # Twice the bound on the error of a sum of d products in float32, in any order, and of rounding the vectors.
    least = min_cosine - (features.shape[1] + 8) * 2.0**-23
    own, large = np.flatnonzero(tiles.sizes > 1), [np.zeros((0, 2), dtype=np.int64)]
    for groups in chain([np.stack([own, own], axis=1)], _close(tiles.hashes, max_hamming)):
        n_pairs = tiles.sizes[groups].prod(axis=1)
        is_few, is_large = n_pairs < _FEW, n_pairs > _SIDE**2
        for places in tiles.crossed(groups[is_few]):
            pairs = tiles.apart(places)
            yield pairs, _LOOK * len(places) + 2 * _READ * len(pairs)
        for block in tiles.blocks_apart(groups[~is_few & ~is_large]):
            yield from _likely_in(tiles, units, block, least)
        if is_large.any():
            large.append(groups[is_large])
    last = np.concatenate(large)
    for block in tiles.blocks_apart(last[np.argsort(tiles.sizes[last].prod(axis=1), kind="stable")]):
        yield from _likely_in(tiles, units, block, least)


def _likely_in(
    tiles: _Alike, units: Callable[[int, int], np.ndarray], block: tuple[int, int, int, int], least: float
) -> Iterator[tuple[np.ndarray, int]]:
    """As `_likely`, of one block of products."""
    start, stop, start_other, stop_other = block
    with np.errstate(invalid="ignore"):
        products = units(start, stop) @ units(start_other, stop_other).T
    likely = np.flatnonzero(~(products < least))  # NaN is likely
    work = products.size + _READ * (sum(products.shape) + _FEW)
    for at in range(0, max(1, len(likely)), _PAIRS):
        one, other = np.divmod(likely[at : at + _PAIRS], products.shape[1])
        pairs = tiles.apart(np.stack([start + one, start_other + other], axis=1))
        yield pairs, work + _LOOK * len(one) + 2 * _READ * len(pairs)
        work = 0


def _unit_vectors(features: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(m, d) float32 of length 1, NaN where that is beyond float32 or none: the exact cosine decides there."""
    vectors = np.asarray(features[rows], dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("md,md->m", vectors, vectors)
        is_plain = (squares > 1e-150) & (squares < 1e150)
        return (vectors * np.where(is_plain, squares, np.nan)[:, None] ** -0.5).astype(np.float32)


def _close(hashes: np.ndarray, max_hamming: int) -> Iterator[np.ndarray]:
    """(m, 2) ascending rows of (H,) distinct hashes that differ in at most `max_hamming` bits, each pair once.

    At most 256 hashes agree in all but two bands, so that time and memory are linear in H, sorting aside.
    """
    width = 64 // _BANDS
    bands = np.uint64(2**width - 1) << np.arange(0, 64, width, dtype=np.uint64)
    met = np.uint64(0)  # bands that an earlier choice left free
    for a, b in combinations(bands, 2) if max_hamming else ():
        for first, second in _equal_pairs(hashes & ~(a | b)):
            bits = hashes[first] ^ hashes[second]
            is_new = ((bits & a != 0) & (bits & b != 0)) | (bits & met == 0)
            kept = is_new & _has_few_bits(bits, max_hamming)
            if kept.any():
                yield np.stack([first[kept], second[kept]], axis=1)
        met |= a | b


def _equal_pairs(key: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of rows with equal keys: those d places apart in sorted order, for d = 1, 2, ...; O(N) memory."""
    order = np.argsort(key, kind="stable")
    ranked, at, apart = key[order], np.arange(len(key)), 1
    while len(at):
        at = at[at + apart < len(key)]
        at = at[ranked[at + apart] == ranked[at]]
        yield order[at], order[at + apart]
        apart += 1


def _has_few_bits(bits: np.ndarray, most: int) -> np.ndarray:
    """(n,) bool: whether at most so many of each of (n,) uint64 are set."""
    for _ in range(most):
        bits = bits & (bits - np.uint64(1))  # without the lowest; 0 stays 0
    return bits == 0


def _cosines(features: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """(m,) float64 of (m, 2) rows; each is summed over its own values alone, whatever the block."""
    cosines = np.empty(len(pairs))
    block = max(1, 2**17 // features.shape[1])  # fits the cache: 2 us a pair of 384 numbers, not 5
    for start in range(0, len(pairs), block):
        rows = pairs[start : start + block]
        one, other = (np.asarray(features[rows[:, side]], dtype=np.float64) for side in (0, 1))
        squares = np.stack([(one**2).sum(axis=1), (other**2).sum(axis=1)], axis=1)
        bad = rows[~np.isfinite(squares) | (squares == 0)]
        if len(bad):
            raise EvaluationError(
                f"the vectors of rows {listed(np.unique(bad))} are zero or not finite",
                "leak check",
                "Embed their slides again, or leave the tiles out.",
            )
        cosines[start : start + block] = (one * other).sum(axis=1) / np.sqrt(squares.prod(axis=1))
    return cosines


def _ascending(pairs: np.ndarray) -> np.ndarray:
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _area_weights(size: int, n: int) -> np.ndarray:
    """(n, size) float64 whole numbers: how much of each pixel, in nths, lies in each of n equal stretches."""
    pixel, stretch = n * np.arange(size), size * np.arange(n)[:, None]
    overlap = np.minimum(pixel + n, stretch + size) - np.maximum(pixel, stretch)
    return np.maximum(overlap, 0).astype(np.float64)
