"""The colour of the glass: what every other colour on the slide is measured against."""

import numpy as np
from numpy.typing import NDArray

_BINS, _FIRST_BRIGHT_BIN = 64, 37  # bins of 4 grey levels; the glass is never darker than 148
_SMOOTH = np.array([1, 2, 3, 2, 1], float)
_MIN_SHARE = 0.02
_DARK_MEDIAN = 60  # darker pictures are not bright field


def find_background(picture: NDArray[np.uint8], is_void: NDArray[np.bool_]) -> NDArray[np.float32] | None:
    """Find the glass: the brightest local maximum of the luminance histogram holding 2 % of the pixels.

    Args:
        picture: (H, W, 3) uint8 thumbnail.
        is_void: (H, W) pixels that were never scanned.

    Returns:
        (3,) float32 in 0-255; where the slide is full of tissue a neutral near-white; None if it is not bright field.
    """
    step = 2 if min(is_void.shape) >= 64 else 1
    pixels = picture[::step, ::step][~is_void[::step, ::step]].astype(np.float32)
    if len(pixels) == 0:
        return None
    luminance = pixels.mean(axis=1)
    if np.median(luminance) < _DARK_MEDIAN:
        return None
    counts = np.histogram(luminance, _BINS, (0, 256))[0]
    smooth = np.convolve(counts, _SMOOTH, "same")
    enough = _MIN_SHARE * _SMOOTH.sum() * len(luminance)
    for peak in range(_BINS - 1, _FIRST_BRIGHT_BIN - 1, -1):
        if smooth[peak] > enough and smooth[peak] >= smooth[max(peak - 2, 0) : peak + 3].max():
            glass = np.median(pixels[np.abs(luminance - (peak + 0.5) * 4) < 10], axis=0)
            if glass.min() > 150 and glass.max() - glass.min() < 0.17 * glass.max():
                return glass.astype(np.float32)
            break
    # No glass in sight: a neutral white as bright as the brightest half per cent, within what scanners give.
    return np.full(3, np.clip(np.quantile(pixels, 0.995), 225, 250), np.float32)
