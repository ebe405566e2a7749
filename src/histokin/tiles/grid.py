"""The mpp-true grid and how much tissue, and of which class, lies under each of its tiles."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from histokin.tiles.spec import TileSpec

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Grid:
    """Positions of all tiles that fit on a slide, row by row.

    Attributes:
        x, y: (n,) float64 exact top-left corners in level-0 px; rounded only where pixels are read.
        row, col: (n,) int32 place in the lattice.
        side: (2,) side of a tile in level-0 px (x, y).
    """

    x: Floats
    y: Floats
    row: NDArray[np.int32]
    col: NDArray[np.int32]
    side: tuple[float, float]


def plan_grid(width: int, height: int, slide_mpp: tuple[float, float], spec: TileSpec) -> Grid:
    """Lay the grid from the slide's origin; only whole tiles.

    Positions are i * stride * mpp / slide_mpp in float64: rounding the step instead drifts by a sixth of a tile over
    100,000 px at .2513 mpp.
    """
    axes = []
    for size, mpp in ((width, slide_mpp[0]), (height, slide_mpp[1])):
        side, step = spec.tile_px * spec.mpp / mpp, spec.step_px * spec.mpp / mpp
        n = int(np.floor((size - side) / step + 1e-9)) + 1 if size >= side else 0
        axes.append((np.arange(n) * step, side))
    (xs, side_x), (ys, side_y) = axes
    row, col = np.divmod(np.arange(len(xs) * len(ys), dtype=np.int32), max(len(xs), 1))
    return Grid(xs[col], ys[row], row.astype(np.int32), col.astype(np.int32), (side_x, side_y))


class CoverageMap:
    """Exact area shares of a binary map under rectangles, by an integral image read at fractional corners."""

    def __init__(self, mask: NDArray[np.bool_]) -> None:
        self._integral = cv2.integral(mask.astype(np.uint8), sdepth=cv2.CV_32S)  # exact up to 2^31 map pixels

    def share(self, x0: Floats, y0: Floats, x1: Floats, y1: Floats) -> Floats:
        """Share of set area in each rectangle (map pixels, may be fractional); outside the map counts as unset."""
        total = self._at(x1, y1) - self._at(x0, y1) - self._at(x1, y0) + self._at(x0, y0)
        return np.clip(total / ((x1 - x0) * (y1 - y0)), 0.0, 1.0)

    def _at(self, x: Floats, y: Floats) -> Floats:
        # The integral of a piecewise constant map is bilinear between pixel corners: interpolation is exact.
        table = self._integral
        x = np.clip(x, 0, table.shape[1] - 1)
        y = np.clip(y, 0, table.shape[0] - 1)
        i = np.minimum(x.astype(np.int64), table.shape[1] - 2)
        j = np.minimum(y.astype(np.int64), table.shape[0] - 2)
        u, v = x - i, y - j
        top = table[j, i] * (1 - u) + table[j, i + 1] * u
        bottom = table[j + 1, i] * (1 - u) + table[j + 1, i + 1] * u
        return top * (1 - v) + bottom * v


def cover(grid: Grid, mask: NDArray[np.bool_], slide_size: tuple[int, int]) -> Floats:
    """Share of each tile of the grid that `mask`, stretched over the whole slide, covers."""
    fx, fy = mask.shape[1] / slide_size[0], mask.shape[0] / slide_size[1]
    x0, y0 = grid.x * fx, grid.y * fy
    return CoverageMap(mask).share(x0, y0, x0 + grid.side[0] * fx, y0 + grid.side[1] * fy)


def majority_class(
    grid: Grid, class_map: NDArray[np.uint8], names: dict[int, str], slide_size: tuple[int, int]
) -> tuple[NDArray[np.object_], NDArray[np.float32]]:
    """The class that covers most of each tile and its share of the tile; class 0 is background and never wins."""
    best = np.zeros(len(grid.x))
    label = np.full(len(grid.x), "", object)
    for value, name in sorted(names.items()):
        if value == 0 or not (class_map == value).any():
            continue
        share = cover(grid, class_map == value, slide_size)
        wins = share > best
        best[wins], label[wins] = share[wins], name
    return label, best.astype(np.float32)
