"""Small worlds with known truth: pictures, pyramids, damaged files, cohorts. All seeded; nothing is downloaded."""

import csv
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
import tifffile

from histokin.cohort import Cohort, SlideRecord
from histokin.embeddings import short_id
from histokin.slides.generated import write_pyramid
from histokin.tiles import TileSpec

GLASS = (243, 241, 245)


def glass(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Empty glass with a little noise, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    return np.clip(rng.normal(GLASS, 1.0, (height, width, 3)), 0, 255).astype(np.uint8)


def stained(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Something as coloured and as rough as H&E tissue, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.2, 1.0, (max(2, height // 6), max(2, width // 6))).astype(np.float32)
    density = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    return np.clip(243 * np.exp(-density * np.array([0.45, 0.85, 0.30])), 0, 255).astype(np.uint8)


def tissue_on_glass(height: int, width: int, box: tuple[int, int, int, int], seed: int = 0) -> np.ndarray:
    """A rectangle of tissue (x0, y0, x1, y1) on glass."""
    x0, y0, x1, y1 = box
    picture = glass(height, width, seed)
    picture[y0:y1, x0:x1] = stained(y1 - y0, x1 - x0, seed)
    return picture


def waves(width: int, height: int, period: float) -> np.ndarray:
    """Smooth sinusoids along x (red) and y (green), (H, W, 3) uint8: positions can be read off their phase."""
    x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
    picture = np.full((height, width, 3), 128.0)
    picture[..., 0] += 100 * np.sin(2 * np.pi * x / period)[None, :]
    picture[..., 1] += 100 * np.sin(2 * np.pi * y / period)[:, None]
    return np.round(picture).astype(np.uint8)


def phase_position(values: np.ndarray, period: float, guess: float) -> float:
    """Where the first sample of a row of a wave lies, in units of its step; `period` in steps, `guess` to a quarter."""
    at = guess + np.arange(len(values))
    angle = 2 * np.pi * at / period
    design = np.stack([np.sin(angle), np.cos(angle), np.ones(len(at))], axis=1)
    sine, cosine, _ = np.linalg.lstsq(design, values.astype(float), rcond=None)[0]
    return guess + np.arctan2(cosine, sine) / (2 * np.pi) * period


class Exact:
    """A slide whose pixels are an array in memory; stands in for `Slide` where codecs would blur a comparison."""

    def __init__(self, levels: Sequence[np.ndarray], mpp: float) -> None:
        from histokin.slides import Level, SlideInfo

        h0, w0 = levels[0].shape[:2]
        sizes = tuple(Level.of(a.shape[1], a.shape[0], w0, h0) for a in levels)
        self.info = SlideInfo(w0, h0, (mpp, mpp), "user", sizes, "array", "array", "test")
        self._levels = levels
        self.n_reads = 0

    def read(self, x: int, y: int, w: int, h: int, level: int = 0) -> np.ndarray:
        self.n_reads += 1
        picture, size = self._levels[level], self.info.levels[level]
        column, row = round(x / size.downsample_x), round(y / size.downsample_y)
        out = np.full((h, w, 3), 255, np.uint8)
        x0, y0, x1, y1 = max(column, 0), max(row, 0), min(column + w, size.width), min(row + h, size.height)
        if x1 > x0 and y1 > y0:
            out[y0 - row : y1 - row, x0 - column : x1 - column] = picture[y0:y1, x0:x1]
        return out


def area_average(picture: np.ndarray, x: float, y: float, step: float, px: int) -> np.ndarray:
    """The exact area integral of a picture over a px x px lattice of squares of side `step` at x, y: (px, px, 3)."""
    total = np.zeros((picture.shape[0] + 1, picture.shape[1] + 1, 3))
    total[1:, 1:] = picture.astype(float).cumsum(0).cumsum(1)

    def at(v: np.ndarray, table: np.ndarray, axis: int) -> np.ndarray:
        v = np.clip(v, 0, table.shape[axis] - 1)
        i = np.minimum(v.astype(int), table.shape[axis] - 2)
        rest = (v - i).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        return np.take(table, i, axis) * (1 - rest) + np.take(table, i + 1, axis) * rest

    edges = np.arange(px + 1) * step
    corners = at(x + edges, at(y + edges, total, 0), 1)
    return np.diff(np.diff(corners, axis=0), axis=1) / step**2


def png(picture: np.ndarray) -> bytes:
    """RGB(A) as PNG."""
    order = cv2.COLOR_RGB2BGR if picture.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    return cv2.imencode(".png", cv2.cvtColor(picture, order))[1].tobytes()


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A table with the columns of its first row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def set_tag(path: Path, tag: int, value: int) -> None:
    """Overwrite one tag of a classic little-endian TIFF's first directory by a LONG."""
    raw = bytearray(path.read_bytes())
    start = struct.unpack_from("<I", raw, 4)[0]
    for i in range(struct.unpack_from("<H", raw, start)[0]):
        if struct.unpack_from("<H", raw, start + 2 + 12 * i)[0] == tag:
            struct.pack_into("<HHII", raw, start + 2 + 12 * i, tag, 4, 1, value)
    path.write_bytes(raw)


def damage_tile(path: Path, tile: tuple[int, int], level: int = 0) -> None:
    """Zero the middle of one stored tile (column, row) of a pyramid."""
    with tifffile.TiffFile(path) as file:
        page = file.pages[level]
        number = tile[1] * -(-page.imagewidth // page.tilewidth) + tile[0]
        offset, count = page.dataoffsets[number], page.databytecounts[number]
    raw = bytearray(path.read_bytes())
    raw[offset + count // 4 : offset + count] = bytes(count - count // 4)
    path.write_bytes(raw)


def bad_slides(root: Path) -> dict[str, str]:
    """Write the catalogue of bad input into a folder; returns the state that each id must come to."""
    rough = stained(512, 512)

    def pyramid(name: str, picture: np.ndarray = rough, mpp: float = 0.5) -> Path:
        write_pyramid(root / name, picture, mpp=mpp)
        return root / name

    def cut(name: str, data: bytes, share: float) -> None:
        (root / name).write_bytes(data[: int(len(data) * share)])

    (root / "text.svs").write_text("this is no slide")
    (root / "empty.svs").write_bytes(b"")
    whole = pyramid("good.tiff").read_bytes()
    cut("half.tiff", whole, 0.5)
    cut("most.tiff", whole, 0.95)
    cut("short.jpg", simplejpeg.encode_jpeg(rough), 0.7)
    tifffile.imwrite(root / "striped.tif", rough)
    tifffile.imwrite(root / "grey16.tif", rough[..., 0].astype(np.uint16) * 257)
    (root / "plain.png").write_bytes(png(rough))
    tifffile.imwrite(root / "unscaled.tiff", rough, tile=(256, 256), compression="jpeg", resolutionunit="NONE")
    dpi = {"tile": (256, 256), "compression": "jpeg", "resolutionunit": "INCH", "resolution": (72, 72)}
    tifffile.imwrite(root / "dpi72.tiff", rough, **dpi)
    oblong = dpi | {"resolutionunit": "CENTIMETER", "resolution": (40000, 20000)}
    tifffile.imwrite(root / "oblong.tiff", rough, **oblong)
    pyramid("white.tiff", glass(512, 512))
    pyramid("black.tiff", np.full((512, 512, 3), 2, np.uint8))
    pen = glass(512, 512)
    cv2.line(pen, (60, 60), (450, 400), (20, 150, 60), 100)
    pyramid("pen.tiff", pen, mpp=2.0)
    set_tag(pyramid("claims.tiff"), 322, 1 << 30)
    return {
        "text": "unreadable",
        "empty": "unreadable",
        "good": "ok",
        "half": "unreadable",
        "most": "unreadable",
        "short": "unreadable",
        "striped": "no_mpp",
        "grey16": "unsupported",
        "plain": "no_mpp",
        "unscaled": "no_mpp",
        "dpi72": "no_mpp",
        "oblong": "unsupported",
        "white": "no_tissue",
        "black": "no_tissue",
        "pen": "no_tissue",
        "claims": "unreadable",
    }


def slide_cohort(root: Path, pictures: Mapping[str, np.ndarray], mpp: float = 0.5) -> Cohort:
    """A cohort of pyramids, one a patient, without the inventory's look."""
    records = []
    for name, picture in pictures.items():
        write_pyramid(root / f"{name}.tiff", picture, mpp=mpp)
        height, width = picture.shape[:2]
        records.append(
            SlideRecord(
                name, f"{name}.tiff", patient=f"p-{name}", mpp=mpp, mpp_source="file", width=width, height=height,
                content_key=f"content-{name}",
            )
        )  # fmt: skip
    return Cohort(root, "slides", tuple(records))


class MeanColour:
    """The smallest embedder: mean colour; `fail` and `scale` make it misbehave."""

    def __init__(
        self,
        name: str = "mean",
        fingerprint: str = "sha256:" + "ab" * 32,
        *,
        spec: TileSpec | None = None,
        transform: Callable[[np.ndarray], np.ndarray] = lambda x: x,
    ) -> None:
        self.name, self.fingerprint, self.dim = name, fingerprint, 3
        self.mpp, self.tile_px = (spec.mpp, spec.tile_px) if spec else (None, None)
        self.transform, self.n_tiles = transform, 0

    @property
    def folder(self) -> str:
        return short_id(self.fingerprint)

    def embed(self, tiles: np.ndarray) -> np.ndarray:
        self.n_tiles += len(tiles)
        return self.transform(tiles.mean(axis=(1, 2)).astype(np.float32))


def chapter_of(found: Mapping, protocol: str, level: str) -> dict:
    """One chapter of an evaluation.json."""
    return next(c for c in found["chapters"] if (c["protocol"], c["level"]) == (protocol, level))
