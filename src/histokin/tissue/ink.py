"""Pen marks: what is on the glass and not in it."""

import cv2
import numpy as np
from numpy.typing import NDArray

MIN_INK_MM2 = 0.04  # ink comes in strokes; smaller spots are nuclei clusters or pigment
MARGIN_UM = 40.0


def find_ink(colour: NDArray[np.float32], mpp: float) -> NDArray[np.bool_]:
    """Mark green, blue, red and black ink by colour rules measured at 8 mpp.

    Solid red pen against fresh blood, and blue lines thinner than 40 um, are not separable by colour: they stay.

    Args:
        colour: (H, W, 3) float32, picture divided by its background, about 0-1.
        mpp: um per pixel of the picture.

    Returns:
        (H, W) bool, strokes with a margin of 40 um.
    """
    r, g, b = colour[..., 0], colour[..., 1], colour[..., 2]
    brightest, darkest = colour.max(axis=-1), colour.min(axis=-1)
    dark = 1 - (r + g + b) / 3
    green = (g - np.maximum(r, b) > 0.04) | ((g - r > 0.10) & (b - r > -0.02) & (g - b > -0.06) & (dark > 0.12))
    # Haematoxylin is blue too, but it takes more green than red from the light.
    blue = (b - np.maximum(r, g) > 0.10) & (g - r > -0.03) & (r < 0.62) & (b - r > 0.28)
    red = (r - np.maximum(g, b) > 0.30) & (b - g < 0.14) & (r > 0.58) & (g < 0.55)
    black = (brightest < 0.42) & (brightest - darkest < 0.11)
    marks = (green | blue | red | black).astype(np.uint8)
    if not marks.any():
        return np.zeros(marks.shape, bool)
    marks = cv2.morphologyEx(marks, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(marks, connectivity=8)
    is_stroke = stats[:, cv2.CC_STAT_AREA] >= MIN_INK_MM2 * 1e6 / mpp**2
    is_stroke[0] = False
    margin = max(1, round(MARGIN_UM / mpp))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * margin + 1, 2 * margin + 1))
    return cv2.dilate(is_stroke[np.asarray(labels, np.int32)].astype(np.uint8), disc) > 0
