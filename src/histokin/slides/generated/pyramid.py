"""Writing pyramidal tiled JPEG TIFF files that OpenSlide opens as generic-tiff; knows nothing of tissue."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import simplejpeg
import tifffile

from histokin.artefacts import writing
from histokin.slides.generated.noise import U8

_MIN_LEVEL_PX = 128
_BIG_BYTES = 2**32  # of raw pixels; JPEG needs less, so a classic TIFF is always large enough below


class Rows(Protocol):
    """Pixels that can be had a band at a time: an array, or anything that makes or reads rows when asked."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, 3)."""
        ...

    def __getitem__(self, rows: slice, /) -> U8:
        """Rows [start:stop], (n, width, 3) uint8."""
        ...


def write_pyramid(
    path: Path,
    rgb: Rows,
    *,
    mpp: float,
    quality: int = 85,
    tile: int = 256,
    levels: Sequence[int] = (1, 4, 16),
    description: str = "",
) -> None:
    """Write a pyramidal tiled JPEG TIFF (YCbCr 4:2:0) whose bytes depend on the arguments alone.

    Rows are asked for once, in order, `tile` at a time or as many as the smallest level needs; what is kept of the
    smaller levels is JPEG, so a slide of any size needs little memory. A pixel of a smaller level is the exact mean of
    downsample^2 pixels; rows and columns left over at the right and bottom are in no smaller level, as scanners do it.

    Args:
        path: file to write, whole or not at all.
        rgb: (height, width, 3) uint8, or anything with that `shape` that gives rows when sliced.
        mpp: um a pixel of level 0.
        quality: of JPEG, 1 to 100.
        tile: side of the tiles in pixels, a multiple of 16.
        levels: downsamples, ascending, from 1; those whose longer side would be under 128 px are left out.
        description: ImageDescription of level 0; ASCII.

    Raises:
        ValueError: not (height, width, 3) uint8, or tile or levels impossible.
    """
    height, width = _check(rgb, tile, levels, mpp)
    downsamples = [d for d in levels if d == 1 or (max(width, height) >= d * _MIN_LEVEL_PX and min(width, height) >= d)]
    below = [_Level(d, width // d, tile, quality) for d in downsamples[1:]]
    resolution = (1e4 / mpp, 1e4 / mpp)

    with writing(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=height * width * 3 >= _BIG_BYTES) as tiff:

        def write_level(tiles: Iterator[bytes], downsample: int) -> None:
            tiff.write(
                tiles,
                shape=(height // downsample, width // downsample, 3),
                dtype=np.uint8,
                tile=(tile, tile),
                compression="jpeg",
                photometric="ycbcr",  # with ready tiles this only names what they hold
                subsampling=(2, 2),
                resolution=(resolution[0] / downsample, resolution[1] / downsample),
                resolutionunit="CENTIMETER",
                subfiletype=0 if downsample == 1 else 1,
                description=description if downsample == 1 else None,
                software="histokin",
                metadata=None,
            )

        write_level(_encode_base(rgb, tile, quality, below), 1)
        for level in below:
            write_level(iter(level.finish()), level.downsample)


def _check(rgb: Rows, tile: int, levels: Sequence[int], mpp: float) -> tuple[int, int]:
    shape = tuple(rgb.shape)
    if len(shape) != 3 or shape[2] != 3 or min(shape) < 1:
        raise ValueError(f"need (height, width, 3) pixels, got {shape}")
    if tile < 16 or tile % 16:
        raise ValueError(f"tile must be a multiple of 16, got {tile}")
    if not levels or levels[0] != 1 or any(b <= a for a, b in pairwise(levels)):
        raise ValueError(f"levels must ascend from 1, got {tuple(levels)}")
    if not mpp > 0:
        raise ValueError(f"mpp must be above 0, got {mpp}")
    return shape[0], shape[1]


def _encode_base(rgb: Rows, tile: int, quality: int, below: list["_Level"]) -> Iterator[bytes]:
    """Level 0's tiles in order; hands every band of rows on to the smaller levels."""
    for y in range(0, rgb.shape[0], tile):
        rows = np.asarray(rgb[y : y + tile])
        if rows.dtype != np.uint8 or rows.shape[1:] != tuple(rgb.shape[1:]):
            raise ValueError(f"rows {y} to {y + tile} are {rows.dtype} {rows.shape}, not uint8 of the slide's width")
        for level in below:
            level.add(rows)
        yield from _encode_row(rows, tile, quality)


def _encode_row(rows: U8, tile: int, quality: int) -> Iterator[bytes]:
    """One row of tiles; what sticks out repeats the edge, since zeros would ring into the visible part."""
    height, width, _ = rows.shape
    short, narrow = -height % tile, -width % tile
    if short or narrow:
        rows = np.asarray(cv2.copyMakeBorder(rows, 0, short, 0, narrow, cv2.BORDER_REPLICATE), np.uint8)
    for x in range(0, width, tile):
        yield simplejpeg.encode_jpeg(np.ascontiguousarray(rows[:, x : x + tile]), quality, "RGB", "420")


@dataclass(slots=True)
class _Level:
    """A smaller level being made: full-size rows not yet averaged, averaged rows not yet encoded, finished tiles."""

    downsample: int
    width: int
    tile: int
    quality: int
    tiles: list[bytes] = field(default_factory=list)
    _waiting: list[U8] = field(default_factory=list)
    _averaged: list[U8] = field(default_factory=list)

    def add(self, rows: U8) -> None:
        d = self.downsample
        rows = np.concatenate([*self._waiting, rows]) if self._waiting else rows
        n = len(rows) // d
        self._waiting = [rows[n * d :].copy()] if len(rows) % d else []
        if n:
            whole = np.ascontiguousarray(rows[: n * d, : self.width * d])
            self._averaged.append(
                np.asarray(cv2.resize(whole, (self.width, n), interpolation=cv2.INTER_AREA), np.uint8)
            )
        while sum(map(len, self._averaged)) >= self.tile:
            self._encode(self.tile)

    def finish(self) -> list[bytes]:
        """All tiles, the last row of them included; to be called once."""
        if self._averaged:
            self._encode(sum(map(len, self._averaged)))
        return self.tiles

    def _encode(self, n: int) -> None:
        rows = np.concatenate(self._averaged)
        self.tiles += _encode_row(rows[:n], self.tile, self.quality)
        self._averaged = [rows[n:]] if len(rows) > n else []
