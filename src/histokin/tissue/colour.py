"""The colour of tissue in CIELAB, and moving one slide's to another's.

After Reinhard et al. 2001, who used another opponent space. CIELAB as OpenCV has it for floats: L in 0 to 100, a and b
about zero, white point D65.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# Distances from white in LAB. Empty glass measures 0 to 10 in most scans, the palest stroma and mucin about 15.
TISSUE_FROM, GLASS_TO = 15.0, 5.0
LEAST_STD = 1.0  # flatter channels are noise, which must not be spread to a target's width


def _linear_light() -> NDArray[np.float32]:
    """(256,) float32: sRGB's transfer function, IEC 61966-2-1."""
    v = np.arange(256) / 255
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


# OpenCV's own way from sRGB to LAB interpolates a coarse table: 0.45 off where this is 0.03 off.
_LINEAR = _linear_light()


@dataclass(frozen=True, slots=True)
class LabStatistics:
    """Mean and standard deviation of tissue in LAB.

    Attributes:
        mean, std: (3,) float64 of L, a, b; NaN where there was no tissue.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]

    @property
    def is_known(self) -> bool:
        """Whether there was any tissue to measure."""
        return bool(np.isfinite(self.mean).all() and np.isfinite(self.std).all())


# What H&E looks like on the whole. Medians over the pictures of a set of lab_statistics(picture[None]):
#                                            L     a      b      std: L     a     b
#   121 pictures of GlaS                  59.3  45.3  -28.7        14.6  11.0  10.7
#   30 of MoNuSeg                         48.3  28.2  -14.1        16.2   6.9   7.3
#   5 whole sections of her2st, halved    77.0  12.4  -11.6        18.8   4.1   8.2
#   12 generated patients, 1024 px        53.3  40.5  -28.2        13.5   9.4   9.0
# and the mean of the four, rounded.
TARGET = LabStatistics(np.array([60.0, 32.0, -21.0]), np.array([16.0, 8.0, 9.0]))


def lab_statistics(tiles: NDArray[np.uint8]) -> LabStatistics:
    """Measure the colour of all tissue in some tiles, as if they were one picture.

    A pixel is tissue if it is at least `TISSUE_FROM` from white in LAB: darkness and colour both count, so that pale
    pink stroma is in and grey glass is out.

    Args:
        tiles: (n, h, w, 3) uint8 RGB, n >= 0.

    Returns:
        Population mean and standard deviation; sums in float64. NaN without any tissue.
    """
    n, total, squares = 0, np.zeros(3), np.zeros(3)
    for tile in tiles:
        lab = _to_lab(tile)
        is_tissue = (_from_white(lab) >= TISSUE_FROM).astype(np.uint8)
        here = cv2.countNonZero(is_tissue)
        mean, std = (found[:, 0] for found in cv2.meanStdDev(lab, mask=is_tissue))
        n += here
        total += here * mean
        squares += here * (std**2 + mean**2)
    if n == 0:
        return LabStatistics(np.full(3, np.nan), np.full(3, np.nan))
    mean = total / n
    return LabStatistics(mean, np.sqrt(np.maximum(squares / n - mean**2, 0)))


def normalise_lab(tiles: NDArray[np.uint8], have: LabStatistics, want: LabStatistics = TARGET) -> NDArray[np.uint8]:
    """Move the colour of tissue from one slide's to another's.

    For each channel of LAB (Reinhard et al. 2001, eq. 10 and 11): (x - have.mean) * want.std / have.std + want.mean.
    This holds for tissue. White stays white: the change fades out from `TISSUE_FROM` to `GLASS_TO` away from white.

    Args:
        tiles: (n, h, w, 3) uint8 RGB.
        have: of the whole slide they are from; with NaN (no tissue) the tiles come back as they are.
        want: of the target.

    Returns:
        (n, h, w, 3) uint8; colours that no screen has are cut off.
    """
    if not have.is_known:
        return tiles.copy()
    gain = want.std / np.maximum(have.std, LEAST_STD)
    shift = want.mean - have.mean * gain
    change = np.column_stack([np.diag(gain - 1), shift]).astype(np.float32)  # (3, 4): from a colour to its change
    out = np.empty(tiles.shape, np.uint8)
    for tile, moved in zip(tiles, out, strict=True):
        lab = _to_lab(tile)
        share = _from_white(lab)
        share -= GLASS_TO
        share *= 1 / (TISSUE_FROM - GLASS_TO)
        np.clip(share, 0, 1, out=share)
        lab += cv2.transform(lab, change) * share[..., None]
        light = cv2.cvtColor(lab, cv2.COLOR_Lab2RGB)  # within [0, 1]
        cv2.convertScaleAbs(light, moved, alpha=255)
    return out


def _to_lab(tile: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(h, w, 3) uint8 RGB to float32 LAB."""
    return np.asarray(cv2.cvtColor(cv2.LUT(np.ascontiguousarray(tile), _LINEAR), cv2.COLOR_LRGB2Lab), np.float32)


def _from_white(lab: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) float32 distance from white."""
    light, a, b = cv2.split(lab)
    return np.sqrt((100 - light) ** 2 + a * a + b * b)
