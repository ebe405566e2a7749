"""An opened slide: pixels of a level, or the whole picture at a stated pixel size."""

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from histokin.errors import NoResolution, SlideError, SlideMissing, SlideUnreadable, SlideUnsupported
from histokin.slides.info import ISOTROPY, SlideInfo, plausible_mpp
from histokin.slides.readers import Reader, open_reader

Pixels = NDArray[np.uint8]
_STRIP_PIXELS, _STRIP_ROWS = 500_000, 256  # of a level read at once for a thumbnail; never less than a row of its tiles


class Slide:
    """An open slide; a context manager, picklable by its path."""

    def __init__(self, path: Path, reader: Reader, info: SlideInfo, given_mpp: float | None) -> None:
        self.path, self.info = path, info
        self._reader, self._given_mpp = reader, given_mpp

    def read(self, x: int, y: int, w: int, h: int, level: int = 0) -> Pixels:
        """Pixels (h, w, 3) uint8: x, y in level-0 px, w, h in px of `level`, as OpenSlide has it.

        Raises:
            SlideUnreadable: the file is damaged there.
        """
        return self._reader.read(x, y, w, h, level)

    def thumbnail(self, *, mpp: float | None = None, max_px: int | None = None) -> Pixels:
        """The whole slide, box-averaged from the best level, in strips of bounded memory.

        Args:
            mpp: wanted pixel size in um (needs a slide with mpp), or
            max_px: wanted length of the longer side.
        """
        factor = self._thumbnail_factor(mpp, max_px)
        info = self.info
        level = max(
            (i for i, lv in enumerate(info.levels) if lv.downsample_x <= factor * 1.02), default=0
        )  # the smallest level that is not smaller than what is wanted
        chosen = info.levels[level]
        k = max(1, int(factor / chosen.downsample_x + 1e-6))
        coarse = self._box_average(level, k)
        width, height = max(1, round(info.width / factor)), max(1, round(info.height / factor))
        if coarse.shape[:2] == (height, width):
            return coarse
        import cv2

        return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_AREA), np.uint8)

    def _thumbnail_factor(self, mpp: float | None, max_px: int | None) -> float:
        if (mpp is None) == (max_px is None):
            raise ValueError("give either mpp or max_px")
        if max_px is not None:
            return max(1.0, max(self.info.width, self.info.height) / max_px)
        if self.info.mpp is None or mpp is None:
            raise NoResolution("the file states no pixel size", self.path, "Pass --mpp or fill the mpp column.")
        return max(1.0, mpp / self.info.mpp[0])

    def _box_average(self, level: int, k: int) -> Pixels:
        import cv2

        size = self.info.levels[level]
        rows = max(k, max(_STRIP_ROWS, _STRIP_PIXELS // size.width) // k * k)
        tops = range(0, size.height, rows)
        heights = [max(1, min(rows, size.height - y) // k) for y in tops]
        out = np.empty((sum(heights), max(1, size.width // k), 3), np.uint8)
        done = 0
        for y, n in zip(tops, heights, strict=True):
            h = min(rows, size.height - y)
            strip = self.read(0, round(y * size.downsample_y), size.width, h, level)
            if k > 1:
                # An incomplete last box is left to the final resize: cut to whole boxes, keep at least one.
                strip = strip[: n * k, : out.shape[1] * k]
                strip = np.asarray(cv2.resize(strip, (out.shape[1], n), interpolation=cv2.INTER_AREA), np.uint8)
            out[done : done + n] = strip
            done += n
        return out

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, tuple[Path, float | None]]:
        return open_slide, (self.path, self._given_mpp)


def open_slide(path: Path | str, mpp: float | None = None) -> Slide:
    """Open any OpenSlide format, or a plain JPEG, PNG or TIFF.

    Args:
        path: the file.
        mpp: level-0 pixel size in um; overrides what the file states.

    Raises:
        SlideMissing, SlideUnreadable, SlideUnsupported: each says what and what to do. A slide without a pixel
            size opens (`info.mpp` is None); what needs one raises `NoResolution`.
    """
    path = Path(path)
    try:
        is_there = path.exists()
    except OSError as error:
        raise SlideUnreadable(f"the path cannot be looked at ({error.strerror})", path, "Correct it.") from error
    if not is_there:
        raise SlideMissing("there is no such file", path, "Correct the path or remove the row.")
    if path.is_dir():
        raise SlideUnsupported("this is a folder", path, "Name the slide file inside it.")
    if not path.is_file():
        raise SlideUnsupported("this is no ordinary file", path, "Name a slide file.")
    try:
        reader, reason = open_reader(path)
    except OSError as error:
        raise SlideUnreadable(
            f"the file cannot be read ({error.strerror or error})", path, "Check the disk and your permissions."
        ) from error
    try:
        return Slide(path, reader, _describe(path, reader, reason, mpp), mpp)
    except SlideError:
        reader.close()
        raise


def _describe(path: Path, reader: Reader, reason: str, mpp: float | None) -> SlideInfo:
    stated = plausible_mpp(*reader.stated_mpp)
    chosen = plausible_mpp(mpp, mpp) if mpp is not None else stated
    if mpp is not None and chosen is None:
        raise impossible_mpp(mpp, path)
    if chosen is not None and abs(chosen[0] / chosen[1] - 1) > ISOTROPY:
        raise SlideUnsupported(
            f"pixels are not square ({chosen[0]:g} x {chosen[1]:g} um)", path, "Resample the slide, or pass --mpp."
        )
    base = reader.levels[0]
    source = "none" if chosen is None else "user" if mpp is not None else "file"
    return SlideInfo(base.width, base.height, chosen, source, reader.levels, reader.vendor, reader.name, reason)


def impossible_mpp(mpp: float, path: Path) -> SlideUnsupported:
    """The refusal of a pixel size that the user gave."""
    return SlideUnsupported(f"a pixel size of {mpp} um cannot be", path, "Give --mpp in micrometres per pixel.")


def content_key(path: Path, info: SlideInfo) -> str:
    """A slide's identity by content: size, SHA-256 of its first, middle and last MiB, and its levels."""
    size, chunk = path.stat().st_size, 1 << 20
    digest = hashlib.sha256(f"{size}:{[(lv.width, lv.height) for lv in info.levels]}".encode())
    with path.open("rb") as file:
        for start in (0, max(0, size // 2 - chunk // 2), max(0, size - chunk)):
            file.seek(start)
            digest.update(file.read(chunk))
    return digest.hexdigest()
