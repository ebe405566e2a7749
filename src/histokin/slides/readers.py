"""The readers behind one small protocol: OpenSlide for whole-slide formats, decoded pictures for the rest."""

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from histokin.errors import SlideUnreadable, SlideUnsupported
from histokin.slides.info import Level

# A plain picture is decoded whole; 400 megapixels are 1.2 GB. Larger ones belong into a pyramid.
MAX_PLAIN_PIXELS = 400_000_000

MAX_TILE_PIXELS = 1 << 26  # of one stored tile; OpenSlide aborts the whole process where a header claims terabytes

# What parsers and decoders raise on damaged bytes; found by flipping bytes of sound files.
_DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, OSError, RuntimeError, SyntaxError, struct.error)

Pixels = NDArray[np.uint8]


class Reader(Protocol):
    """What a slide needs of a file format; the fast tile reader will be another of these."""

    name: str
    vendor: str
    levels: tuple[Level, ...]
    stated_mpp: tuple[float | None, float | None]

    def read(self, x: int, y: int, w: int, h: int, level: int) -> Pixels:
        """Pixels (h, w, 3) uint8; x, y in level-0 px, w, h in px of that level; white outside the slide."""
        ...

    def close(self) -> None:
        """Give the file back."""
        ...


class OpenSlideReader:
    """Any format that OpenSlide knows."""

    name = "openslide"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._slide = _open_with_openslide(path)
        self.vendor = str(self._slide.properties.get("openslide.vendor", "unknown"))
        (w0, h0), *_ = dims = self._slide.level_dimensions
        self.levels = tuple(Level.of(w, h, w0, h0) for w, h in dims)
        # OpenSlide takes one factor a level, the mean of both axes: 2.0002 for 4443 / 2221, where 2 is true. Unmended
        # that moves pixels by up to a level pixel and more at the far edge.
        self._bend = [
            (factor / lv.downsample_x, factor / lv.downsample_y)
            for factor, lv in zip(self._slide.level_downsamples, self.levels, strict=True)
        ]
        self.stated_mpp = (self._number("openslide.mpp-x"), self._number("openslide.mpp-y"))

    def _number(self, key: str) -> float | None:
        try:
            return float(self._slide.properties[key])
        except (KeyError, ValueError):
            return None

    def read(self, x: int, y: int, w: int, h: int, level: int) -> Pixels:
        """Read a region; areas outside the slide and unscanned blocks come back white."""
        import openslide

        if x < 0 or y < 0:
            # OpenSlide drops the fraction of a level pixel here: a picture that begins at -4 / 4.001 would begin at 0.
            size = self.levels[level]
            left, top = round(max(-x, 0) / size.downsample_x), round(max(-y, 0) / size.downsample_y)
            out = np.full((h, w, 3), 255, np.uint8)
            if left < w and top < h:
                out[top:, left:] = self.read(max(x, 0), max(y, 0), w - left, h - top, level)
            return out
        bend_x, bend_y = self._bend[level]
        try:
            rgba = np.asarray(self._slide.read_region((round(x * bend_x), round(y * bend_y)), level, (w, h)))
        except openslide.OpenSlideError as error:
            # A handle that failed once fails for ever after, also for good tiles: take a fresh one.
            self._slide.close()
            self._slide = _open_with_openslide(self._path)
            raise SlideUnreadable(
                f"pixels at {x}, {y} (level {level}) cannot be decoded ({error})", self._path, "The file is damaged."
            ) from error
        return _composite(rgba)

    def close(self) -> None:
        """Close the OpenSlide handle."""
        self._slide.close()


def _open_with_openslide(path: Path) -> Any:
    import openslide

    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideError as error:
        raise SlideUnreadable(
            f"OpenSlide cannot open it ({error})", path, "Check that the file is complete."
        ) from error


class PictureReader:
    """A plain JPEG, PNG or TIFF: decoded once, one level, no pixel size of its own."""

    name = "picture"
    stated_mpp: tuple[float | None, float | None] = (None, None)

    def __init__(self, path: Path) -> None:
        self._path = path
        self.vendor, self._pixels = _decode_picture(path)
        h, w = self._pixels.shape[:2]
        self.levels = (Level(w, h, 1.0, 1.0),)

    def read(self, x: int, y: int, w: int, h: int, level: int) -> Pixels:
        """Cut a region; white outside the picture."""
        if level != 0:
            raise ValueError(f"a plain picture has level 0 only, got {level}")
        height, width = self._pixels.shape[:2]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, width), min(y + h, height)
        if (x0, y0, x1, y1) == (x, y, x + w, y + h):
            return self._pixels[y0:y1, x0:x1].copy()
        out = np.full((h, w, 3), 255, np.uint8)
        if x1 > x0 and y1 > y0:
            out[y0 - y : y1 - y, x0 - x : x1 - x] = self._pixels[y0:y1, x0:x1]
        return out

    def close(self) -> None:
        """Let go of the pixels."""
        self._pixels = np.empty((0, 0, 3), np.uint8)


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height from the header of a JPEG, PNG or TIFF, without decoding it.

    Raises:
        SlideUnreadable: none of these formats, or the header is damaged.
    """
    head = _head(path, 32)
    try:
        if head[:3] == b"\xff\xd8\xff":
            import simplejpeg

            height, width, *_ = simplejpeg.decode_jpeg_header(path.read_bytes(), strict=False)
            return int(width), int(height)
        if head[:8] == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack(">II", head[16:24])
            return width, height
        if head[:4] in _TIFF_MAGIC:
            return _tiff_size(path)
    except _DAMAGE as error:
        raise SlideUnreadable(f"the header is damaged ({error})", path, "Replace the file.") from error
    raise SlideUnreadable("neither a slide nor a JPEG, PNG or TIFF", path, "Remove it from the cohort.")


_TIFF_MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def _head(path: Path, n: int) -> bytes:
    with path.open("rb") as file:
        return file.read(n)


@contextmanager
def _tiff(path: Path) -> Iterator[Any]:
    """A TIFF's directory; tifffile's remarks on odd tags are kept from the user, who gets our own sentence."""
    import tifffile

    log = logging.getLogger("tifffile")
    was, log.disabled = log.disabled, True
    try:
        with tifffile.TiffFile(path) as file:
            yield file
    finally:
        log.disabled = was


def _tiff_size(path: Path) -> tuple[int, int]:
    try:
        with _tiff(path) as file:
            page = file.pages[0]
            size, end = path.stat().st_size, max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)))
            if end > size:
                raise SlideUnreadable(
                    f"the file is truncated: it has {size} bytes, its pixels end at {end}", path, "Copy it again."
                )
            return int(page.imagewidth), int(page.imagelength)
    except _DAMAGE as error:
        raise SlideUnreadable(
            f"the TIFF directory cannot be read ({error}); the file is probably truncated", path, "Copy it again."
        ) from error


def _decode_picture(path: Path) -> tuple[str, Pixels]:
    width, height = picture_size(path)
    if width * height > MAX_PLAIN_PIXELS:
        raise SlideUnsupported(
            f"a plain picture of {width} x {height} px would take {width * height * 3 / 1e9:.1f} GB",
            path,
            "Convert it to a tiled pyramidal TIFF.",
        )
    head = _head(path, 8)
    try:
        if head[:3] == b"\xff\xd8\xff":
            import simplejpeg

            # strict: a truncated JPEG is an error, not a half grey picture
            return "jpeg", simplejpeg.decode_jpeg(path.read_bytes(), colorspace="RGB")
        if head[:4] in _TIFF_MAGIC:
            return "tiff", _decode_tiff(path)
        import cv2

        return "png", _on_white(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED), path)
    except _DAMAGE as error:
        raise SlideUnreadable(f"the picture cannot be decoded ({error})", path, "Replace the file.") from error


def _on_white(picture: Any, path: Path) -> Pixels:
    """A decoded PNG of any depth and channels as RGB; what is transparent shows the glass, not black."""
    import cv2

    if picture is None:
        raise SlideUnreadable("the picture cannot be decoded", path, "Replace the file.")
    if picture.dtype != np.uint8:
        picture = (picture // 257).astype(np.uint8)
    if picture.ndim == 2:
        return np.asarray(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB), np.uint8)
    if picture.shape[2] == 4:
        picture = _composite(picture)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def _composite(rgba: NDArray[np.uint8]) -> Pixels:
    alpha, rgb = rgba[..., 3], rgba[..., :3]
    if alpha.min() == 255:
        return np.ascontiguousarray(rgb)
    weight = alpha[..., None].astype(np.uint16)
    return ((rgb * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)


def _decode_tiff(path: Path) -> Pixels:
    """Decode by Pillow, which brings libtiff's codecs along; tifffile needs a second package for most of them."""
    from PIL import Image, UnidentifiedImageError

    try:
        # Our own limit was checked before, with a clearer sentence than Pillow's warning; what it warns of in damaged
        # directories either decodes or raises.
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            if picture.mode not in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr"):
                raise SlideUnsupported(
                    f"pixels are of mode {picture.mode}, not 8-bit colour", path, "Convert it to 8-bit RGB."
                )
            return np.asarray(picture.convert("RGB"), np.uint8)
    except (UnidentifiedImageError, Image.DecompressionBombError, *_DAMAGE) as error:
        raise SlideUnreadable(f"the TIFF cannot be decoded ({error})", path, "Convert it to 8-bit RGB.") from error


def open_reader(path: Path) -> tuple[Reader, str]:
    """The reader for a file, chosen by content (never by extension), and why."""
    import openslide

    if _head(path, 4) in _TIFF_MAGIC:
        _check_claims(path)
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor is not None:
        return OpenSlideReader(path), f"OpenSlide recognises {vendor}"
    return PictureReader(path), "no whole-slide format: decoded as a plain picture"


def is_pyramid(path: Path) -> bool:
    """Whether OpenSlide knows the file as a slide."""
    import openslide

    return openslide.OpenSlide.detect_format(path) is not None


def _check_claims(path: Path) -> None:
    """Refuse a TIFF whose header claims stored tiles that no scanner writes."""
    try:
        with _tiff(path) as file:
            largest = max((int(page.tilewidth * page.tilelength) for page in file.pages if page.is_tiled), default=0)
    except _DAMAGE:
        return  # whoever reads it will say what is wrong
    if largest > MAX_TILE_PIXELS:
        raise SlideUnreadable(
            f"its header claims tiles of {largest} pixels", path, "The file is damaged: copy it again."
        )
