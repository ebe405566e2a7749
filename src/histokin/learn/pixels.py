"""Where training pixels come from: the protocol, and tiles held in memory."""

import hashlib
from typing import Protocol

import numpy as np


class PixelSource(Protocol):
    """Tiles by row number. Whoever implements it says nothing about slides' files.

    `read` may be called from one background thread; its result depends on `rows` alone.
    """

    @property
    def px(self) -> int:
        """Side of a tile in pixels."""
        ...

    @property
    def mpp(self) -> float:
        """Micrometres a pixel."""
        ...

    @property
    def slides(self) -> np.ndarray:
        """(n,) int: the number of each tile's slide."""
        ...

    @property
    def digest(self) -> str:
        """Changes whenever any pixel or the order of the tiles does."""
        ...

    def __len__(self) -> int: ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(B,) int64 rows to (B, px, px, 3) uint8 RGB."""
        ...


class ArrayPixels:
    """Tiles held in memory, for notebooks and tests.

    Args:
        tiles: (n, px, px, 3) uint8 RGB.
        mpp: micrometres a pixel.
        slides: (n,) int, the slide of each tile; all of one slide if left out.
    """

    def __init__(self, tiles: np.ndarray, mpp: float, slides: np.ndarray | None = None) -> None:
        if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1] != tiles.shape[2] or tiles.shape[3] != 3:
            raise ValueError(f"need (n, px, px, 3) uint8 tiles, got {tiles.shape} {tiles.dtype}")
        if slides is not None and slides.shape != (len(tiles),):
            raise ValueError(f"need a slide for each of {len(tiles)} tiles, got {slides.shape}")
        self.tiles = np.ascontiguousarray(tiles)
        self.px, self.mpp = int(tiles.shape[1]), float(mpp)
        self.slides = np.zeros(len(tiles), np.int64) if slides is None else slides.astype(np.int64)
        digest = hashlib.sha256(f"{tiles.shape}\x1f{self.mpp!r}\x1f".encode())
        digest.update(self.tiles.data)
        digest.update(np.ascontiguousarray(self.slides).data)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(B,) int64 rows to (B, px, px, 3) uint8 RGB."""
        return self.tiles[rows]
