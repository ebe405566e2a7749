"""Tile values as colours: the scales of the maps, and PNGs of a slide painted with them.

A PNG holds no legend; `gradient` gives the page the very colours the picture was painted with.
"""

import io
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from histokin.report.mil.document import Heatmap, MapKind

# Stops at equal distances. Rising scales rise in luminance, so that they can be read without colour; the signed one is
# lightest at 0 and has one hue a side.
_RISING = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725")
_GLOWING = ("#0b0724", "#320a5e", "#5c126e", "#8a226a", "#bb3754", "#dd513a", "#f37819", "#fcb519", "#f6e97f")
_SIGNED = ("#053061", "#2166ac", "#4393c3", "#92c5de", "#f7f7f7", "#f4a582", "#d6604d", "#b2182b", "#67001f")
COLOURS: dict[MapKind, tuple[str, ...]] = {
    "percentile": _RISING,
    "relative": _GLOWING,
    "contribution": _SIGNED,
    "tile": _RISING,
}
STRENGTH = 0.75
"""How much of a tile's colour stands over the tissue's grey where both are painted into one picture."""
_LEVELS = 255  # index 0 of a palette is what is clear


@dataclass(frozen=True, slots=True)
class ValueScale:
    """From a tile's value to its place on a map's colours.

    Attributes:
        kind: of the map.
        low, high: values at the ends; of `relative` both > 0.
    """

    kind: MapKind
    low: float
    high: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.low) or not math.isfinite(self.high) or self.high < self.low:
            raise ValueError(f"need finite ends low <= high, got {self.low} and {self.high}")
        if self.is_log and self.low <= 0:
            raise ValueError(f"a log scale needs an end > 0, got {self.low}")

    @property
    def is_log(self) -> bool:
        """Whether equal distances are equal factors."""
        return self.kind == "relative"

    @classmethod
    def percentile(cls) -> "ValueScale":
        """0 to 100 %."""
        return cls("percentile", 0.0, 100.0)

    @classmethod
    def relative(cls, low: float, high: float) -> "ValueScale":
        """Of multiples of uniform attention."""
        return cls("relative", low, high)

    @classmethod
    def contribution(cls, limit: float) -> "ValueScale":
        """Symmetric about 0; the same limit for all slides of a cohort."""
        return cls("contribution", -limit, limit)

    @classmethod
    def tile(cls) -> "ValueScale":
        """Of probabilities."""
        return cls("tile", 0.0, 1.0)

    def __call__(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Places in [0, 1], NaN kept; the middle where both ends are one."""
        low, high, found = self.low, self.high, np.asarray(values, dtype=np.float64)
        if self.is_log:
            low, high = math.log(low), math.log(high)
            found = np.log(np.maximum(found, self.low))  # NaN passes
        if low == high:
            return np.where(np.isnan(found), np.nan, 0.5)
        return ((found - low) / (high - low)).clip(0, 1)


def gradient(kind: MapKind) -> str:
    """A map's colours as a CSS gradient from left to right."""
    return f"linear-gradient(90deg,{','.join(COLOURS[kind])})"


def colour_table(kind: MapKind) -> NDArray[np.uint8]:
    """(255, 3) RGB of a map from low to high: straight lines between the stops, as a CSS gradient has them."""
    stops = np.array([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in COLOURS[kind]], dtype=np.float64)
    at, known = np.linspace(0, 1, _LEVELS), np.linspace(0, 1, len(stops))
    return np.stack([np.interp(at, known, stops[:, channel]) for channel in range(3)], axis=1).round().astype(np.uint8)


def paint(field: NDArray[np.floating], scale: ValueScale) -> bytes:
    """A PNG of tile values, clear where there is no tile, to lie over the slide's thumbnail.

    Args:
        field: (H, W) of `mil.heatmaps.blend_tiles`, NaN where there is no tile.
        scale: of the values.
    """
    index = _indices(field, scale)
    picture = Image.fromarray(index, mode="P")
    picture.putpalette([0, 0, 0, *colour_table(scale.kind).ravel().tolist()])
    return _png(picture, transparency=0)


def paint_over(
    field: NDArray[np.floating], scale: ValueScale, thumbnail: NDArray[np.uint8], *, strength: float = STRENGTH
) -> bytes:
    """A PNG of tile values over the slide in grey, for use outside the page; tissue without a tile keeps its colours.

    Args:
        field: (H, W), NaN where there is no tile.
        scale: of the values.
        thumbnail: (H, W, 3) uint8.
        strength: share of the value's colour, 0 to 1.
    """
    if thumbnail.shape != (*field.shape, 3):
        raise ValueError(f"need a thumbnail of shape {(*field.shape, 3)}, got {thumbnail.shape}")
    index = _indices(field, scale)
    grey = (thumbnail @ np.array([0.299, 0.587, 0.114]))[..., None]
    colours = colour_table(scale.kind)[np.maximum(index, 1) - 1]
    painted = np.where((index > 0)[..., None], strength * colours + (1 - strength) * grey, thumbnail)
    return _png(Image.fromarray(painted.round().astype(np.uint8)))


def heatmap(field: NDArray[np.floating], scale: ValueScale) -> Heatmap:
    """A map of the page's gallery."""
    return Heatmap(scale.kind, paint(field, scale), scale.low, scale.high)


def _indices(field: NDArray[np.floating], scale: ValueScale) -> NDArray[np.uint8]:
    """(H, W) 1 to 255 by value, 0 where there is none."""
    at = scale(field)
    return np.where(np.isnan(at), 0, 1 + np.nan_to_num(at) * (_LEVELS - 1)).round().astype(np.uint8)


def _png(picture: Image.Image, transparency: Literal[0] | None = None) -> bytes:
    out = io.BytesIO()
    given = {} if transparency is None else {"transparency": transparency}
    picture.save(out, "PNG", optimize=True, **given)
    return out.getvalue()
