"""What is known of a slide before a pixel is read: size, pixel size, levels, reader."""

from dataclasses import dataclass

PLAUSIBLE_MPP = (0.05, 20.0)  # 72 dpi in a TIFF header means 352.8 um: outside this the value is no pixel size
ISOTROPY = 0.01  # axes may differ by 1 %


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid.

    Downsamples are width(0) / width(level), an integer where the level is the floor or ceiling of an integer
    factor: 4443 / 2221 is a factor of 2, not 2.0005.
    """

    width: int
    height: int
    downsample_x: float
    downsample_y: float

    @classmethod
    def of(cls, width: int, height: int, base_width: int, base_height: int) -> "Level":
        """The level of this size in a pyramid with this base."""
        return cls(width, height, _snap(base_width, width), _snap(base_height, height))


def _snap(base: int, size: int) -> float:
    exact = base / size
    nearest = round(exact)
    return float(nearest) if nearest >= 1 and abs(nearest * size - base) < nearest else exact


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """Size, pixel size and levels of an opened slide.

    Attributes:
        width, height: level-0 pixels.
        mpp: micrometres per level-0 pixel (x, y); None if neither the file nor the user gives a believable value.
        mpp_source: "user", "file" or "none".
        levels: largest first.
        vendor: the format as the reader names it.
        reader: which reader was used, `reader_reason` why.
    """

    width: int
    height: int
    mpp: tuple[float, float] | None
    mpp_source: str
    levels: tuple[Level, ...]
    vendor: str
    reader: str
    reader_reason: str

    @property
    def area_mm2(self) -> float | None:
        """Area of the whole picture."""
        return self.width * self.mpp[0] * self.height * self.mpp[1] / 1e6 if self.mpp else None


def plausible_mpp(x: float | None, y: float | None) -> tuple[float, float] | None:
    """The pixel size if both values can be one, else None."""
    low, high = PLAUSIBLE_MPP
    if x is None or y is None or not (low <= x <= high and low <= y <= high):
        return None
    return (x, y)
