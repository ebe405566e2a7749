"""One segment: an immutable folder with the tiles of some slides, written once and mapped by its readers.

tiles.faiss       every vector, list after list; a row is numbered by its place in this order
rows.parquet      row -> slide (row of slides.parquet), tile, x, y, label
slides.parquet    slide, patient, further columns, ascending by slide
means.npy         (slides, d) float32 means of the slides' vectors
mosaics.faiss     the vectors of mosaics once more, in lists of their own
mosaics.parquet   row of mosaics.faiss -> row of tiles.faiss
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from histokin.artefacts import digest_file, write_bytes, writing
from histokin.errors import IndexDamaged
from histokin.search.index.lists import Lists, write_lists
from histokin.search.index.manifest import FileFacts, SegmentFacts
from histokin.search.searcher import Field
from histokin.search.tables import SlideTable, texts

FILES = ("tiles.faiss", "rows.parquet", "slides.parquet", "means.npy", "mosaics.faiss", "mosaics.parquet")
_OWN = "slide:"  # before the names of texts, which are the archive's own choice
FIELDS: tuple[Field, ...] = ("tiles", "mosaics")


@dataclass(frozen=True, slots=True)
class Rows:
    """What a segment is written from: n tiles in any order.

    Attributes:
        slides: its slides.
        means: (S, d) float32.
        slide: (n,) int32 row of `slides`.
        tile: (n,) int64.
        coords: (n, 2) int64.
        label: (n,) int32 number in `labels`.
        labels: (L,) object.
        mosaic: (m,) int64 tiles that stand for their slides.
        lists: for each field the list of every tile (n,), of every mosaic tile (m,).
        n_lists: for each field.
        vectors: gives the (i, d) float16 of i tiles; asked for a bounded number at a time.
    """

    slides: SlideTable
    means: np.ndarray
    slide: np.ndarray
    tile: np.ndarray
    coords: np.ndarray
    label: np.ndarray
    labels: np.ndarray
    mosaic: np.ndarray
    lists: dict[Field, np.ndarray]
    n_lists: dict[Field, int]
    vectors: Callable[[np.ndarray], np.ndarray]


def write_segment(folder: Path, rows: Rows) -> SegmentFacts:
    """Write a segment's files; equal rows in another order give equal bytes."""
    dim = rows.means.shape[1]

    def put(field: Field, order: np.ndarray) -> None:
        sizes = np.bincount(rows.lists[field], minlength=rows.n_lists[field])
        write_lists(folder / f"{field}.faiss", dim, sizes, lambda start, stop: rows.vectors(order[start:stop]))

    order = np.lexsort((rows.tile, rows.slide, rows.lists["tiles"]))
    put("tiles", order)
    labels, label = _only_used(rows.labels, rows.label)
    columns = {
        "slide": rows.slide[order],
        "tile": rows.tile[order],
        "x": rows.coords[order, 0],
        "y": rows.coords[order, 1],
        "label": pa.DictionaryArray.from_arrays(label[order].astype(np.int32), pa.array(labels.tolist(), pa.string())),
    }
    _write_table(folder / "rows.parquet", columns)
    stood = rows.mosaic
    chosen = stood[np.lexsort((rows.tile[stood], rows.slide[stood], rows.lists["mosaics"]))]
    put("mosaics", chosen)
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    _write_table(folder / "mosaics.parquet", {"row": place[chosen]})
    named = {"slide": rows.slides.slide, "patient": rows.slides.patient, **rows.slides.columns}
    counts = {
        "n_tiles": np.bincount(rows.slide, minlength=len(rows.slides)),
        "n_mosaic": np.bincount(rows.slide[stood], minlength=len(rows.slides)),
    }
    texts_of = {f"{_OWN}{name}": pa.array(values.tolist(), pa.string()) for name, values in named.items()}
    _write_table(folder / "slides.parquet", {**counts, **texts_of})
    means = io.BytesIO()
    np.save(means, rows.means)
    write_bytes(folder / "means.npy", means.getvalue())
    return SegmentFacts(
        name=folder.name,
        files={name: FileFacts.of(folder / name) for name in FILES},
        n_slides=len(rows.slides),
        n_tiles=len(rows.tile),
        n_mosaic=len(stood),
    )


def _only_used(labels: np.ndarray, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels that occur, ascending and each once, and the numbers that say the same with them."""
    each, number = np.unique(labels, return_inverse=True)
    used, label = np.unique(number[label], return_inverse=True)
    return each[used], label


def _write_table(path: Path, columns: dict[str, Any]) -> None:
    with writing(path) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")


@dataclass(frozen=True, slots=True)
class SlidesOf:
    """The slides of one segment and what they brought: (S,) int64 tiles, (S,) int64 of them in mosaics."""

    slides: SlideTable
    n_tiles: np.ndarray
    n_mosaic: np.ndarray


def read_slides(folder: Path) -> SlidesOf:
    """Read a segment's table of slides."""
    table = pq.read_table(folder / "slides.parquet")
    named = {
        name.removeprefix(_OWN): texts(table[name].to_pylist()) for name in table.column_names if name.startswith(_OWN)
    }
    slides = SlideTable(named.pop("slide"), named.pop("patient"), named)
    return SlidesOf(slides, table["n_tiles"].to_numpy(), table["n_mosaic"].to_numpy())


class Segment:
    """An open segment; nothing of it ever changes, so versions share it.

    Attributes:
        facts: what the manifest says of it.
        slides: its slides, living or not.
        lists: by field.
        slide: (n,) int32 row of `slides` of each tile.
        tile: (n,) int64.
        coords: (n, 2) int64.
        label: (n,) int32 number in `labels`.
        labels: (L,) object.
        mosaic: (m,) int64 tile of each mosaic row.

    Raises:
        IndexDamaged: a file is not what the manifest says.
        FileNotFoundError: a file is gone.
    """

    def __init__(self, folder: Path, facts: SegmentFacts, dim: int, n_lists: dict[Field, int]) -> None:
        self.facts = facts
        for name, file in facts.files.items():
            check_size(folder / name, file)
        try:
            self._read(folder, facts, dim, n_lists)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException, ValueError, LookupError) as error:
            raise IndexDamaged("its tables cannot be read", folder, "Build the index anew.") from error

    def _read(self, folder: Path, facts: SegmentFacts, dim: int, n_lists: dict[Field, int]) -> None:
        counts: dict[Field, int] = {"tiles": facts.n_tiles, "mosaics": facts.n_mosaic}
        self.lists = {f: Lists(folder / f"{f}.faiss", dim, n_lists[f], counts[f]) for f in FIELDS}
        self.slides = read_slides(folder).slides
        self.means = np.load(folder / "means.npy", mmap_mode="r")
        rows = pq.read_table(folder / "rows.parquet")
        self.slide, self.tile = rows["slide"].to_numpy(), rows["tile"].to_numpy()
        self.coords = np.stack([rows["x"].to_numpy(), rows["y"].to_numpy()], axis=1)
        label = rows["label"].unify_dictionaries().combine_chunks()
        self.label, self.labels = label.indices.to_numpy(), texts(label.dictionary.to_pylist())
        self.mosaic = pq.read_table(folder / "mosaics.parquet")["row"].to_numpy()
        parts = (self.slide, self.mosaic, self.slides, self.means)
        if [len(part) for part in parts] != [facts.n_tiles, facts.n_mosaic, facts.n_slides, facts.n_slides]:
            raise IndexDamaged("its tables differ in length", folder, "Build the index anew.")

    def tiles(self, field: Field) -> np.ndarray | slice:
        """Which tile each row of a field is."""
        return self.mosaic if field == "mosaics" else slice(None)

    @cached_property
    def _by_slide(self) -> tuple[np.ndarray, np.ndarray]:
        order = np.lexsort((self.tile, self.slide))
        return order, np.searchsorted(self.slide[order], np.arange(len(self.slides) + 1))

    @cached_property
    def _mosaic_by_slide(self) -> tuple[np.ndarray, np.ndarray]:
        slide = self.slide[self.mosaic]
        order = np.lexsort((self.tile[self.mosaic], slide))
        return order, np.searchsorted(slide[order], np.arange(len(self.slides) + 1))

    def rows_of(self, slide: int, field: Field) -> np.ndarray:
        """Rows of one slide in a field, in the order of tile ids."""
        order, first = self._mosaic_by_slide if field == "mosaics" else self._by_slide
        return order[first[slide] : first[slide + 1]]


def check_size(path: Path, facts: FileFacts) -> None:
    """Refuse a file of another size than was written.

    Raises:
        IndexDamaged: it is longer or shorter.
        FileNotFoundError: it is gone.
    """
    n_bytes = path.stat().st_size
    if n_bytes != facts.n_bytes:
        raise IndexDamaged(
            f"it has {n_bytes} bytes, the manifest says {facts.n_bytes}", path, "Restore it, or build the index anew."
        )


def check_content(path: Path, facts: FileFacts) -> None:
    """Refuse a file of another content than was written.

    Raises:
        IndexDamaged: its SHA-256 differs, or it is gone.
    """
    if not path.exists() or digest_file(path) != facts.sha256:
        raise IndexDamaged("its content is not what was written", path, "Restore it, or build the index anew.")
