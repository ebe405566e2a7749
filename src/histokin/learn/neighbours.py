"""The spatial neighbours of every tile, as compressed rows: memory by the number of neighbours, never tiles x tiles."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from histokin.learn.sampling.groups import spread_ranges

_PAIRS, _TILES = 1_000_000, 65_536  # looked at together, whichever is less


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """Neighbours by tile.

    Attributes:
        indptr: (n + 1,) int64.
        indices: int32 rows; those of tile i are indices[indptr[i] : indptr[i + 1]], ascending.
    """

    indptr: np.ndarray
    indices: np.ndarray

    def __len__(self) -> int:
        """Of how many tiles."""
        return len(self.indptr) - 1

    def of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The neighbours of some tiles, in the order given.

        Args:
            rows: (k,) int, repeats allowed.

        Returns:
            (k + 1,) int64 indptr and int32 indices of the part.
        """
        starts = self.indptr[rows]
        counts = self.indptr[np.asarray(rows) + 1] - starts
        return np.concatenate([[0], np.cumsum(counts)]), self.indices[spread_ranges(starts, counts)]


def neighbours_within(
    slides: np.ndarray, positions: np.ndarray, radius: float, *, include_equal: bool = False
) -> Neighbours:
    """The tiles around each tile: same slide, 0 < r < radius.

    A tile in the same place as another (r = 0) is none of its neighbours. SGCL's set S is that of radius = delta x tile
    pitch (Lin et al. 2023; delta 3 in the released code, 24 neighbours inside tissue).

    Tiles are sorted into square cells a little wider than the radius, and each looks at the 3 x 3 cells around it: time
    grows with the tiles in these, memory is at most the result twice and about 100 bytes a tile.

    Args:
        slides: (n,) int number of each tile's slide.
        positions: (n, 2) floating, finite, x and y of the tiles' centres, in um or in tile pitches.
        radius: positive, in the same unit.
        include_equal: count r = radius too.

    Returns:
        Neighbours of all n tiles.
    """
    n = len(slides)
    if slides.ndim != 1 or positions.shape != (n, 2) or not np.isfinite(positions).all():
        raise ValueError(f"need (n,) slides and (n, 2) finite positions, got {slides.shape} and {positions.shape}")
    if not 0 < radius < np.inf:
        raise ValueError(f"the radius must be positive, got {radius}")
    if n >= 2**31:
        raise ValueError(f"{n} tiles cannot be numbered by int32")
    positions = np.asarray(positions, np.float64)
    order, keys, per_column = _into_cells(slides, positions, radius)
    ordered, x, y = keys[order], positions[order, 0], positions[order, 1]
    counts, parts = np.zeros(n, np.int64), [np.empty(0, np.int32)]
    for first, last, starts, sizes in _blocks(keys, ordered, per_column):
        totals = sizes.sum(axis=1)
        places = spread_ranges(starts.ravel(), sizes.ravel())
        dx = x[places] - np.repeat(positions[first:last, 0], totals)
        dy = y[places] - np.repeat(positions[first:last, 1], totals)
        squares = dx * dx + dy * dy
        is_near = (squares > 0) & ((squares <= radius**2) if include_equal else (squares < radius**2))
        of_tile = np.repeat(np.arange(first, last), totals)[is_near]
        found = np.sort(of_tile << 32 | order[places[is_near]])  # by tile, then by neighbour
        counts[first:last] = np.bincount((found >> 32) - first, minlength=last - first)
        parts.append((found & 0xFFFFFFFF).astype(np.int32))
    return Neighbours(np.concatenate([[0], np.cumsum(counts)]), np.concatenate(parts))


def _into_cells(slides: np.ndarray, positions: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Sort tiles by slide, column and row of their cell.

    Returns:
        (n,) int64 rows in that order, (n,) int64 key of each row's cell, and by how much keys of adjacent columns
        differ; those of adjacent rows differ by 1.
    """
    numbers, slide = np.unique(slides, return_inverse=True)
    corner = positions.min(axis=0, initial=np.inf)
    extent = float((positions.max(axis=0, initial=-np.inf) - corner).max()) if len(slides) else 0.0
    most = math.isqrt(2**62 // max(len(numbers), 1)) - 4  # cells along an axis, so that keys fit int64
    # A little wider than the radius, so that rounding never puts a neighbour two cells away.
    side = max(radius * (1 + 1e-6), extent / most)
    # An empty row ends each column and an empty column each slide: no cell lies beside one of another column or slide.
    column, row = ((positions - corner) / side).astype(np.int64).T
    n_columns, n_rows = int(column.max(initial=0)) + 2, int(row.max(initial=0)) + 2
    keys = (slide * n_columns + column) * n_rows + row
    return np.argsort(keys, kind="stable"), keys, n_rows


def _blocks(
    keys: np.ndarray, ordered: np.ndarray, per_column: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Runs of tiles first to last with, for each, the (k, 3) starts and sizes of its candidates in the cells' order."""
    for begin in range(0, len(keys), _TILES):
        columns = keys[begin : begin + _TILES, None] + per_column * np.array([-1, 0, 1])  # (k, 3)
        starts = np.searchsorted(ordered, columns - 1, side="left")
        sizes = np.searchsorted(ordered, columns + 1, side="right") - starts
        ends = np.cumsum(sizes.sum(axis=1))
        first = 0
        while first < len(ends):
            before = ends[first - 1] if first else 0
            last = max(first + 1, int(np.searchsorted(ends, before + _PAIRS, side="right")))
            yield begin + first, begin + last, starts[first:last], sizes[first:last]
            first = last
