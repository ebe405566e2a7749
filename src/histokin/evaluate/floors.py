"""The floors: features that know nothing of tissue, as pure functions of tiles.

An encoder that does not clear them learned nothing.

`random` (the same architecture with random weights) is made where networks are known; here are the other three, defined
so that the documented figures of real sets come out again (tests/evaluate/test_floors.py).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

LBP_SCALES = ((8, 1), (16, 2), (24, 4))
"""(points, radius in px) of the texture floor."""
_GREY = (2125, 7154, 721)  # ten-thousandths of R, G, B: ITU-R 709 as scikit-image rounds it
_TIE = 1e-3  # grey levels; what float32 cannot tell from equality, with a margin of about ten
_CHUNK = 2**20  # pixels worked on at a time


def colour_statistics(tiles: np.ndarray) -> np.ndarray:
    """Mean and standard deviation of R, G, B in grey levels.

    Args:
        tiles: (n, px, px, 3) uint8.

    Returns:
        (n, 6) float32: three means, three standard deviations (ddof 0).
    """
    _check(tiles)
    pixels = tiles.reshape(len(tiles), -1, 3)
    n_pixels = pixels.shape[1]
    sums = np.empty((len(tiles), 3))
    squares = np.empty((len(tiles), 3))
    for number, tile in enumerate(pixels):
        values = tile.astype(np.float32)  # below 2^24 a sum of uint8 is exact, so blocks are summed in float64
        sums[number] = values.sum(axis=0, dtype=np.float64)
        squares[number] = np.einsum("pc,pc->c", values, values, dtype=np.float64)
    mean = sums / n_pixels
    return np.concatenate([mean, np.sqrt(np.maximum(squares / n_pixels - mean**2, 0))], axis=1).astype(np.float32)


def hsv_histogram(tiles: np.ndarray) -> np.ndarray:
    """Square root of the shares of an 8 x 4 x 4 histogram over hue, saturation and value.

    Euclidean distance of these is Hellinger's. HSV in float64 as scikit-image computes it: many pixels lie exactly on
    a bin's edge, so 8-bit HSV or another rounding moves the figures by up to half a point.

    Args:
        tiles: (n, px, px, 3) uint8.

    Returns:
        (n, 128) float32 of length 1; index = 16 hue + 4 saturation + value.
    """
    _check(tiles)
    level = np.arange(256) * (1 / 255)
    shares = np.empty((len(tiles), 128))
    step = max(1, _CHUNK // (tiles.shape[1] * tiles.shape[2]))
    for start in range(0, len(tiles), step):
        part = tiles[start : start + step].reshape(-1, tiles.shape[1] * tiles.shape[2], 3)
        bins = _hsv_bins(level[part[..., 0]], level[part[..., 1]], level[part[..., 2]])
        shares[start : start + step] = _histograms(bins, 128)
    return np.sqrt(shares).astype(np.float32)


def uniform_lbp(tiles: np.ndarray) -> np.ndarray:
    """Histograms of rotation-invariant uniform local binary patterns at three scales.

    Of P points on a circle of radius R (bilinear, 0 outside the tile) those not darker than the centre are marked;
    the code is their number if the marks change at most twice along the circle, else P + 1 (Ojala et al. 2002;
    scikit-image's method "uniform", which does not count the change from the last point to the first).

    Args:
        tiles: (n, px, px, 3) uint8; grey is truncated to whole levels.

    Returns:
        (n, 54) float32: shares of 10, 18 and 26 codes, each set summing to 1.
    """
    _check(tiles)
    n_tiles, height, width = tiles.shape[:3]
    shares = np.empty((n_tiles, sum(points + 2 for points, _ in LBP_SCALES)))
    step = max(1, _CHUNK // 8 // (height * width))
    for start in range(0, n_tiles, step):
        grey = grey_levels(tiles[start : start + step])
        column = 0
        for points, radius in LBP_SCALES:
            codes = lbp_codes(grey, points, radius)
            shares[start : start + step, column : column + points + 2] = _histograms(
                codes.reshape(len(grey), -1), points + 2
            )
            column += points + 2
    return shares.astype(np.float32)


def grey_levels(tiles: np.ndarray) -> np.ndarray:
    """(n, h, w) uint8 luminance, truncated to whole levels.

    In whole numbers: in floating point a grey pixel of level v comes out as v or v - 1 by the library's order of sums.
    """
    red, green, blue = (np.arange(256, dtype=np.int32) * weight for weight in _GREY)
    grey = red[tiles[..., 0]] + green[tiles[..., 1]]
    grey += blue[tiles[..., 2]]
    return (grey // 10_000).astype(np.uint8)


def lbp_codes(grey: np.ndarray, points: int, radius: float) -> np.ndarray:
    """Rotation-invariant uniform codes 0..points + 1 of every pixel, equal to scikit-image's to the last pixel.

    Args:
        grey: (n, h, w) uint8.
        points: on the circle.
        radius: in px.

    Returns:
        (n, h, w) uint8.
    """
    import cv2

    n_tiles, height, width = grey.shape
    border = math.ceil(radius)
    # One tall picture of all tiles with zeros around them: one filter call a point instead of one a point and tile.
    tall = np.zeros((n_tiles, height + 2 * border, width + 2 * border), dtype=np.float32)
    tall[:, border : border + height, border : border + width] = grey
    tall = tall.reshape(-1, width + 2 * border)
    marked = np.zeros(tall.shape, dtype=np.uint8)
    changes = np.zeros(tall.shape, dtype=np.uint8)
    before: np.ndarray | None = None
    for point in circle(points, radius):
        rise = cv2.filter2D(tall, cv2.CV_32F, point.kernel(border), borderType=cv2.BORDER_CONSTANT)
        is_marked = (rise >= 0).view(np.uint8)
        if not point.is_whole:
            _settle_ties(is_marked, rise, tall, point, border)
        marked += is_marked
        if before is not None:
            changes += before ^ is_marked
        before = is_marked
    codes = np.where(changes <= 2, marked, np.uint8(points + 1)).reshape(n_tiles, height + 2 * border, -1)
    return codes[:, border : border + height, border : border + width]


@dataclass(frozen=True, slots=True)
class CirclePoint:
    """A point beside a pixel: whole steps up-left of it, and the fractions that lie beyond them."""

    top: int
    left: int
    down: float
    right: float

    @property
    def is_whole(self) -> bool:
        """Whether it falls on a pixel, so that nothing is interpolated."""
        return self.down == 0 and self.right == 0

    def kernel(self, reach: int) -> np.ndarray:
        """(2 reach + 1)^2 float32: the bilinear grey value there minus the centre's."""
        kernel = np.zeros((2 * reach + 2, 2 * reach + 2), dtype=np.float32)
        row, column = self.top + reach, self.left + reach
        kernel[row, column] = (1 - self.down) * (1 - self.right)
        kernel[row, column + 1] = (1 - self.down) * self.right
        kernel[row + 1, column] = self.down * (1 - self.right)
        kernel[row + 1, column + 1] = self.down * self.right
        kernel[reach, reach] -= 1
        return kernel[:-1, :-1]  # what falls off weighs nothing: a point on the outermost pixel is whole there


def circle(points: int, radius: float) -> list[CirclePoint]:
    """The points of a circle, counter-clockwise from the right, coordinates rounded to 5 digits."""
    found = []
    for point in range(points):
        angle = 2 * math.pi * point / points
        row, column = round(-radius * math.sin(angle), 5), round(radius * math.cos(angle), 5)
        top, left = math.floor(row), math.floor(column)
        found.append(CirclePoint(top, left, row - top, column - left))
    return found


def _settle_ties(is_marked: np.ndarray, rise: np.ndarray, grey: np.ndarray, point: CirclePoint, border: int) -> None:
    """Decide in float64, in the reference's order of operations, where float32 cannot tell darker from equal.

    Interpolating four equal values may give a little less than them, and then scikit-image sees a darker point. It is
    no merit, but the documented floors have it, and other sums would mark other pixels.
    """
    inner = slice(border, -border)  # columns; rows of the frame are decided too, and not used
    where = np.flatnonzero(np.abs(rise[:, inner]) < _TIE)
    row, column = np.divmod(where, rise.shape[1] - 2 * border)
    is_inside = (row >= border) & (row < len(rise) - border)
    row, column = row[is_inside], column[is_inside] + border
    flat, width = grey.ravel(), grey.shape[1]
    centre = row * width + column
    corner = centre + point.top * width + point.left
    top_left, top_right = flat[corner].astype(np.float64), flat[corner + 1].astype(np.float64)
    low_left, low_right = flat[corner + width].astype(np.float64), flat[corner + width + 1].astype(np.float64)
    top = (1 - point.right) * top_left + point.right * top_right
    low = (1 - point.right) * low_left + point.right * low_right
    value = (1 - point.down) * top + point.down * low
    is_marked[row, column] = value >= flat[centre]


FLOORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "colour": colour_statistics,
    "histogram": hsv_histogram,
    "texture": uniform_lbp,
}
"""Name of a floor -> its features; the fourth, `random`, comes from the encoders' room."""


def floor_distance(name: str) -> tuple[Literal["cosine", "euclidean"], bool]:
    """The distance a row is ranked by, and whether its dimensions are z-scored on the database before.

    `colour` and `texture`: Euclidean after z-scoring; `histogram`: Euclidean as it is; all else, also `random`: cosine.
    """
    if name in ("colour", "texture"):
        return "euclidean", True
    return ("euclidean", False) if name == "histogram" else ("cosine", False)


def _hsv_bins(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> np.ndarray:
    """int64 bin of each pixel, channels in 0..1."""
    value = np.maximum(np.maximum(red, green), blue)
    delta = value - np.minimum(np.minimum(red, green), blue)
    divisor = np.where(delta == 0, 1, delta)
    hue = np.where(
        blue == value,
        4 + (red - green) / divisor,
        np.where(green == value, 2 + (blue - red) / divisor, (green - blue) / divisor),
    )
    hue = np.where(delta == 0, 0, hue / 6 % 1)
    saturation = delta / np.where(value == 0, 1, value)
    return (
        16 * np.minimum((hue * 8).astype(np.int64), 7)
        + 4 * np.minimum((saturation * 4).astype(np.int64), 3)
        + np.minimum((value * 4).astype(np.int64), 3)
    )


def _histograms(bins: np.ndarray, n_bins: int) -> np.ndarray:
    """(n, n_bins) float64 shares of (n, pixels) bins."""
    n, n_pixels = bins.shape
    flat = (bins + n_bins * np.arange(n, dtype=np.int64)[:, None]).ravel()
    return np.bincount(flat, minlength=n * n_bins).reshape(n, n_bins) / n_pixels


def _check(tiles: np.ndarray) -> None:
    if tiles.ndim != 4 or tiles.shape[3] != 3 or tiles.dtype != np.uint8:
        raise ValueError(f"need (n, px, px, 3) uint8 tiles, got {tiles.shape} {tiles.dtype}")
