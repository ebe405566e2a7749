"""Tissue for people: the thumbnail with the outline drawn in."""

import cv2
import numpy as np
from numpy.typing import NDArray

from histokin.tissue.segmentation import TissueMask

OUTLINE_RGB = (0, 140, 90)  # green is no colour of H&E
THUMBNAIL_PX = 640


def shrink(picture: NDArray[np.uint8], max_px: int) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 averaged down to `max_px` on its longer side; smaller pictures stay as they are."""
    height, width = picture.shape[:2]
    scale = min(1.0, max_px / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.ascontiguousarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


def draw_outline(picture: NDArray[np.uint8], tissue: TissueMask, max_px: int = THUMBNAIL_PX) -> NDArray[np.uint8]:
    """Shrink a thumbnail to `max_px` and draw the tissue's borders into it.

    Args:
        picture: (H, W, 3) uint8, the picture that was segmented.
        tissue: its mask, same size.
        max_px: longer side of the result.
    """
    small = shrink(picture, max_px)
    scale = min(1.0, max_px / max(picture.shape[:2]))
    shift = 4  # contours in 1/16 px: a smooth line at any scale
    borders = [np.round((b + 0.5) * scale * (1 << shift)).astype(np.int32) for b in tissue.outlines()]
    thickness = max(1, round(max(small.shape[:2]) / 320))
    cv2.polylines(
        small, borders, isClosed=True, color=OUTLINE_RGB, thickness=thickness, lineType=cv2.LINE_AA, shift=shift
    )
    return np.asarray(small, np.uint8)
