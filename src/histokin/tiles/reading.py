"""Pixels of tiles at their true mpp: which level to read, and how to resample what is left.

r = mpp / slide_mpp level-0 px make one tile px; level l has q = r / downsample(l) of its px in one. Whole factors of q
are box-averaged (exact, in phase); a rest s in [.98, 1.7] (1.96 where no box fits) is one linear warp from the exact
float origin. Linear equals LANCZOS there; beyond it aliases, which is why the whole factor is taken out first.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from histokin.slides import Slide, SlideInfo

Pixels = NDArray[np.uint8]

_EXACT = 0.0005  # a rest this close to 1 needs no resampling: under half a pixel over 1000
MIN_REST, _MAX_REST = 0.98, 1.7
_MAX_BAND_PX = 16_000_000  # pixels of one region read for several neighbouring tiles
_MAX_WASTE = 2.0  # read neighbours together unless more than half of the region would be thrown away


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """How one slide's tiles are read.

    Attributes:
        level: pyramid level that is read.
        box: whole factor that is box-averaged.
        rest: what remains for the warp (1 = nothing).
        scale: (x, y) level px in one tile px.
        downsample: (x, y) level-0 px in one level px.
        tile_px: side of a tile.
    """

    level: int
    box: int
    rest: float
    scale: tuple[float, float]
    downsample: tuple[float, float]
    tile_px: int

    @property
    def is_exact(self) -> bool:
        return all(abs(scale / self.box - 1) < _EXACT for scale in self.scale)

    @property
    def span(self) -> int:
        """Level px read for one tile, both axes; with a margin for the warp unless it is exact."""
        return self.tile_px * self.box if self.is_exact else int(np.ceil(self.tile_px * max(self.scale))) + 3 * self.box


def plan_read(info: SlideInfo, mpp: float, tile_px: int) -> ReadPlan:
    """Choose the smallest level that is not coarser than the tiles, and its box factor.

    Raises:
        ValueError: the slide has no mpp (the inventory keeps such slides out).
    """
    if info.mpp is None:
        raise ValueError("a slide without mpp cannot be tiled")
    rx, ry = mpp / info.mpp[0], mpp / info.mpp[1]
    level = max((i for i, lv in enumerate(info.levels) if rx / lv.downsample_x >= MIN_REST), default=0)
    chosen = info.levels[level]
    qx, qy = rx / chosen.downsample_x, ry / chosen.downsample_y
    box = 1
    # One px too many for the warp alone, one too few for the next box: the warp loses less (36 dB against 31 at 1.8).
    while qx / box > _MAX_REST and qx / (box + 1) >= MIN_REST:
        box += 1
    # A whole factor that leaves (almost) nothing to the warp beats the smallest one.
    whole = round(qx)
    if whole >= 1 and abs(qx / whole - 1) < 0.02:
        box = whole
    return ReadPlan(level, box, qx / box, (qx, qy), (chosen.downsample_x, chosen.downsample_y), tile_px)


def level_origin(plan: ReadPlan, x: float, y: float) -> tuple[int, int]:
    """First level px read for a tile whose exact corner is x, y (level-0 px)."""
    u, v = x / plan.downsample[0], y / plan.downsample[1]
    if plan.is_exact:
        return int(np.floor(u + 0.5)), int(np.floor(v + 0.5))
    return int(np.floor(u)) - plan.box, int(np.floor(v)) - plan.box


def resample(region: Pixels, plan: ReadPlan, x: float, y: float) -> Pixels:
    """Turn the level px read for one tile, (span, span, 3), into the tile, (tile_px, tile_px, 3)."""
    box = plan.box
    if box > 1:
        n = region.shape[0] // box
        region = np.asarray(cv2.resize(region[: n * box, : n * box], (n, n), interpolation=cv2.INTER_AREA), np.uint8)
    if plan.is_exact:
        return region[: plan.tile_px, : plan.tile_px]
    ox, oy = level_origin(plan, x, y)
    sx, sy = plan.scale[0] / box, plan.scale[1] / box
    # output pixel centre i lies at ((u - origin) + (i + .5) q) / box - .5 of the box-averaged region
    to_source = np.array(
        [
            [sx, 0, (x / plan.downsample[0] - ox) / box + 0.5 * sx - 0.5],
            [0, sy, (y / plan.downsample[1] - oy) / box + 0.5 * sy - 0.5],
        ]
    )
    size = (plan.tile_px, plan.tile_px)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(region, to_source, size, flags=flags, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def bands(plan: ReadPlan, x: NDArray[np.float64], y: NDArray[np.float64]) -> Iterator[slice]:
    """Runs of consecutive tiles in one row that are cheaper to read together than one by one."""
    start, n = 0, len(x)
    while start < n:
        stop = start + 1
        first_x, first_y = level_origin(plan, x[start], y[start])
        while stop < n and y[stop] == y[start]:
            width = level_origin(plan, x[stop], first_y)[0] + plan.span - first_x
            is_wasteful = width * plan.span > _MAX_WASTE * (stop + 1 - start) * plan.span**2
            if is_wasteful or width * plan.span > _MAX_BAND_PX or x[stop] < x[stop - 1]:
                break
            stop += 1
        yield slice(start, stop)
        start = stop


def read_band(slide: Slide, plan: ReadPlan, x: NDArray[np.float64], y: NDArray[np.float64]) -> Pixels:
    """Read neighbouring tiles of one row in one go: (n, tile_px, tile_px, 3); equals reading them one by one.

    Raises:
        SlideUnreadable: a pixel of the region cannot be decoded.
    """
    origins = [level_origin(plan, float(xi), float(yi)) for xi, yi in zip(x, y, strict=True)]
    left, top = origins[0]
    width = origins[-1][0] + plan.span - left
    base_x, base_y = int(np.floor(left * plan.downsample[0] + 0.5)), int(np.floor(top * plan.downsample[1] + 0.5))
    region = slide.read(base_x, base_y, width, plan.span, plan.level)
    out = np.empty((len(x), plan.tile_px, plan.tile_px, 3), np.uint8)
    for i, (ox, _) in enumerate(origins):
        part = np.ascontiguousarray(region[:, ox - left : ox - left + plan.span])
        out[i] = resample(part, plan, float(x[i]), float(y[i]))
    return out
