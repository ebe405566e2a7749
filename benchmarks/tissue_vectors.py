"""Many embeddings of real tissue without a network: what an index is measured on.

Random vectors and mixtures flatter every index (recall .99 where tissue gives .83), so these are made of the her2st
sections of HISTOKIN_DATA: 512 filters learned by spherical k-means on whitened patches of 6 x 6 px, mean-pooled over
windows of 80 px at half size, square root, centred; the spectrum flattened by lambda^(-1/4), rotated at random.
Five copies of each section, four of them turned, rescaled and with shifted stains, cut into slides of
about 2000 tiles. One section is left out altogether: the queries come from it.
"""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from histokin.artefacts import write_json, writing
from histokin.streams import stream

DIM = 512
SLIDE_TILES = 2000
QUERY_SECTION = "C4"
COPIES = 5
_PATCH, _STEP, _CELL, _WINDOW = 6, 4, 8, 10  # patch px; px between patches; px between windows; cells a window
_BAND = 48  # rows of windows worked on at a time
_VERSION = 1


@dataclass(frozen=True, slots=True)
class TissueVectors:
    """The vectors on the disk and who they are.

    Attributes:
        path: (n, DIM) float16 rows, raw; read it in parts.
        n: rows.
        section: (n,) number in `sections`.
        copy: (n,) 0 to COPIES - 1.
        coords: (n, 2) int64 px of the section.
        sections: names; patients of the benchmark, since all are of one real patient.
        queries: (q, DIM) float32 unit vectors of the section that is left out.
    """

    path: Path
    n: int
    section: np.ndarray
    copy: np.ndarray
    coords: np.ndarray
    sections: tuple[str, ...]
    queries: np.ndarray

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop - 1 as (m, DIM) float16, read and not mapped, so that memory can be measured."""
        count = (stop - start) * DIM
        return np.fromfile(self.path, dtype=np.float16, count=count, offset=2 * DIM * start).reshape(-1, DIM)

    def slides(self) -> Iterator[tuple[str, int, slice]]:
        """(slide, section, rows): runs of at most SLIDE_TILES rows of one copy."""
        group = self.section * COPIES + self.copy
        starts = np.concatenate([[0], 1 + np.flatnonzero(np.diff(group)), [self.n]])
        for first, last in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            name = f"{self.sections[self.section[first]]}-{self.copy[first]}"
            for number, start in enumerate(range(first, last, SLIDE_TILES)):
                yield f"{name}-{number:03d}", int(self.section[first]), slice(start, min(start + SLIDE_TILES, last))


def tissue_vectors(folder: Path, rows: int) -> TissueVectors:
    """So many vectors, from `folder` where they were made before.

    Args:
        folder: where they are kept.
        rows: fewer come back if the tissue does not give as many.
    """
    base = folder / f"tissue-{rows}-v{_VERSION}"
    if not base.with_suffix(".json").exists():
        _make(base, rows)
    facts = json.loads(base.with_suffix(".json").read_text(encoding="utf-8"))
    with np.load(base.with_suffix(".npz")) as held:
        columns = {name: held[name] for name in ("section", "copy", "coords", "queries")}
    return TissueVectors(path=base.with_suffix(".f16"), n=facts["n"], sections=tuple(facts["sections"]), **columns)


def _make(base: Path, rows: int) -> None:
    images = _section_images()
    names = sorted(set(images) - {QUERY_SECTION})
    filters = _learn_filters([images[name] for name in names])
    parts: list[tuple[int, int, np.ndarray, np.ndarray]] = []
    for number, name in enumerate(names):
        for copy in range(COPIES):
            n_missing = rows - sum(len(vectors) for _, _, vectors, _ in parts)
            quota = -(-n_missing // (len(names) * COPIES - len(parts)))  # small copies are made up for by later ones
            vectors, places = _windows(_copied(images[name], name, copy), filters, f"{name}-{copy}", quota)
            parts.append((number, copy, vectors, places))
            print(f"  {name} copy {copy}: {len(vectors)} windows")
    asked, _ = _windows(images[QUERY_SECTION], filters, "queries", 5000)
    sample = np.concatenate([vectors[:: max(1, len(vectors) // 4000)] for _, _, vectors, _ in parts]).astype(np.float64)
    centre = sample.mean(axis=0)
    flatten = _flattening(sample - centre)
    n = 0
    with writing(base.with_suffix(".f16")) as temporary, temporary.open("wb") as file:
        for _, _, vectors, _ in parts:
            file.write(_unit((vectors - centre) @ flatten).astype(np.float16).data)
            n += len(vectors)
    counts = [len(vectors) for _, _, vectors, _ in parts]
    with writing(base.with_suffix(".npz")) as temporary:
        np.savez(
            temporary,
            section=np.repeat([part[0] for part in parts], counts).astype(np.int8),
            copy=np.repeat([part[1] for part in parts], counts).astype(np.int8),
            coords=np.concatenate([places for _, _, _, places in parts]),
            queries=_unit((asked - centre) @ flatten).astype(np.float32),
        )
    write_json(base.with_suffix(".json"), {"n": n, "sections": names})


def _section_images() -> dict[str, np.ndarray]:
    """Sections at half size, (H, W, 3) uint8 RGB."""
    data = Path(os.environ.get("HISTOKIN_DATA", Path(__file__).parents[2] / "shared" / "data")) / "her2st"
    with (data / "sections.csv").open(encoding="utf-8", newline="") as file:
        names = [row["section"] for row in csv.DictReader(file)]
    found = {}
    for name in names:
        image = cv2.imread(str(data / "images" / f"{name}.jpg"), cv2.IMREAD_REDUCED_COLOR_2)
        if image is None:
            raise SystemExit(f"{data}: no picture of section {name}; set HISTOKIN_DATA")
        found[name] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return found


def _copied(image: np.ndarray, name: str, copy: int) -> np.ndarray:
    """The section itself, or turned, rescaled by up to 15 % and with its stains shifted in optical density."""
    if copy == 0:
        return image
    rng = stream(0, "copy", name, copy)
    scale = rng.uniform(0.85, 1.15)
    turned = cv2.resize(np.rot90(image, copy), None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    density = -np.log((np.arange(256) + 1) / 256)
    gains, shifts = rng.uniform(0.85, 1.15, 3), rng.uniform(-0.04, 0.04, 3)
    table = np.clip(256 * np.exp(-(gains * density[:, None] + shifts * (density[:, None] > 0.05))) - 1, 0, 255)
    return np.dstack([cv2.LUT(turned[..., channel], table[:, channel].astype(np.uint8)) for channel in range(3)])


def _patches(views: np.ndarray) -> np.ndarray:
    """(n, 108) float32 patches, each without its mean and of unit spread."""
    patches = views.reshape(len(views), 3 * _PATCH**2).astype(np.float32)
    patches -= patches.mean(axis=1, keepdims=True)
    patches /= np.sqrt(np.einsum("nd,nd->n", patches, patches) / patches.shape[1] + 10)[:, None]
    return patches


def _views(image: np.ndarray) -> np.ndarray:
    """(rows, columns, 3, 6, 6) view of every patch."""
    return np.lib.stride_tricks.sliding_window_view(image, (_PATCH, _PATCH), axis=(0, 1))


def _learn_filters(images: list[np.ndarray]) -> np.ndarray:
    """(108, DIM) float32: whitening and the centres of spherical k-means on whitened patches, in one matrix."""
    rng = stream(0, "filters")
    drawn = []
    for image in images:
        row, column = np.nonzero(_is_tissue(image))
        chosen = rng.choice(len(row), 20_000)
        views = _views(image)
        drawn.append(_patches(views[row[chosen] * _CELL + 40, column[chosen] * _CELL + 40]))  # a window's middle
    patches = np.concatenate(drawn)
    values, axes = np.linalg.eigh(np.cov(patches, rowvar=False))
    whiten = (axes / np.sqrt(np.maximum(values, 0) + 0.01)) @ axes.T
    points = _unit(patches @ whiten).astype(np.float32)
    centres = points[rng.choice(len(points), DIM, replace=False)]
    for _ in range(10):
        nearest = (points @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, points)
        centres = _unit(np.where(np.any(sums, axis=1)[:, None], sums, centres)).astype(np.float32)
    return (whiten @ centres.T).astype(np.float32)


def _is_tissue(image: np.ndarray) -> np.ndarray:
    """(rows, columns) bool of windows: stained tissue differs between the channels."""
    rows, columns = (side // _CELL - 1 for side in image.shape[:2])
    pixels = image[: rows * _CELL, : columns * _CELL]
    spread = (pixels.max(axis=2) - pixels.min(axis=2)).reshape(rows, _CELL, columns, _CELL).mean(axis=(1, 3))
    spread = _pooled(spread[..., None])[..., 0]
    limit, _ = cv2.threshold(spread.astype(np.uint8), 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return spread > limit


def _windows(image: np.ndarray, filters: np.ndarray, name: str, quota: int) -> tuple[np.ndarray, np.ndarray]:
    """(n, DIM) float32 square roots of pooled responses of tissue windows, and (n, 2) int64 (x, y); at most `quota`."""
    is_wanted = _is_tissue(image)
    row, column = np.nonzero(is_wanted)
    if len(row) > quota:
        keep = np.sort(stream(0, "windows", name).choice(len(row), quota, replace=False))
        is_wanted[:] = False
        is_wanted[row[keep], column[keep]] = True
        row, column = row[keep], column[keep]
    views = _views(image)
    found = [
        np.sqrt(_pooled(_responses(views, filters, is_wanted[top : top + _BAND], top))[is_wanted[top : top + _BAND]])
        for top in range(0, len(is_wanted), _BAND)
    ]
    return np.concatenate(found), 2 * _CELL * np.stack([column, row], axis=1).astype(np.int64)


def _responses(views: np.ndarray, filters: np.ndarray, is_wanted: np.ndarray, top: int) -> np.ndarray:
    """(rows + 9, columns + 9, DIM) mean responses of the cells of wanted windows, 0 elsewhere."""
    shape = tuple(side + _WINDOW - 1 for side in is_wanted.shape)
    is_needed = np.zeros(shape, dtype=np.uint8)
    is_needed[: is_wanted.shape[0], : is_wanted.shape[1]] = is_wanted
    is_needed = cv2.dilate(is_needed, np.ones((_WINDOW, _WINDOW), np.uint8), anchor=(_WINDOW - 1, _WINDOW - 1))
    row, column = np.nonzero(is_needed)
    total = np.zeros((len(row), DIM), dtype=np.float32)
    for y in range(0, _CELL, _STEP):
        for x in range(0, _CELL, _STEP):
            patches = _patches(views[(top + row) * _CELL + y, column * _CELL + x])
            total += np.maximum(patches @ filters - 1.0, 0)
    cells = np.zeros((*shape, DIM), dtype=np.float32)
    cells[row, column] = total / (_CELL // _STEP) ** 2
    return cells


def _pooled(cells: np.ndarray) -> np.ndarray:
    """Means over windows of 10 x 10 cells, (rows - 9, columns - 9, channels)."""
    for _ in range(2):
        twos = cells[:-1] + cells[1:]
        eights = twos[:-6] + twos[2:-4] + twos[4:-2] + twos[6:]
        cells = np.swapaxes((eights[:-2] + twos[8:]) / _WINDOW, 0, 1)
    return cells


def _flattening(centred: np.ndarray) -> np.ndarray:
    """(DIM, DIM): principal axes scaled by lambda^(-1/4), rotated at random."""
    values, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    rotation, _ = np.linalg.qr(stream(0, "rotation").standard_normal((DIM, DIM)))
    return (axes * np.maximum(values, 1e-9 * values.max()) ** -0.25) @ rotation


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
