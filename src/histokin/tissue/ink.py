"""Pen marks: what is on the glass and not in it."""

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_INK_MM2 = 0.04  # ink comes in strokes; smaller spots are nuclei clusters or pigment
MARGIN_UM = 40.0


def looks_like_ink(colour: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark the colours of green, blue, red and black ink, pixel by pixel, by rules measured at 8 mpp.

    Solid red pen against fresh blood is not separable by colour: it stays tissue.

    Args:
        colour: (..., 3) float32, picture divided by its background, about 0-1.
    """
    r, g, b = colour[..., 0], colour[..., 1], colour[..., 2]
    brightest, darkest = colour.max(axis=-1), colour.min(axis=-1)
    dark = 1 - (r + g + b) / 3
    green = (g - np.maximum(r, b) > 0.04) | ((g - r > 0.10) & (b - r > -0.02) & (g - b > -0.06) & (dark > 0.12))
    # Haematoxylin is blue too, but it takes more green than red from the light.
    blue = (b - np.maximum(r, g) > 0.10) & (g - r > -0.03) & (r < 0.62) & (b - r > 0.28)
    red = (r - np.maximum(g, b) > 0.30) & (b - g < 0.14) & (r > 0.58) & (g < 0.55)
    black = (brightest < 0.42) & (brightest - darkest < 0.11)
    return np.asarray(green | blue | red | black)


def find_strokes(is_ink: NDArray[np.bool_], mpp: float) -> NDArray[np.bool_]:
    """Keep what is large enough for a pen stroke, with a margin of 40 um; thinner blue lines than that are lost.

    Args:
        is_ink: (H, W) pixels of an ink's colour.
        mpp: um per pixel of the picture.
    """
    if not is_ink.any():
        return np.zeros(is_ink.shape, bool)
    marks = cv2.morphologyEx(is_ink.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(marks, connectivity=8)
    is_stroke = stats[:, cv2.CC_STAT_AREA] >= MIN_INK_MM2 * 1e6 / mpp**2
    is_stroke[0] = False
    margin = max(1, round(MARGIN_UM / mpp))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return cv2.dilate(is_stroke[np.asarray(labels, np.int32)].astype(np.uint8), disc) > 0
