"""Building an index: its centroids, slides added and deleted, figures kept with it."""

import hashlib
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from histokin.artefacts import write_bytes
from histokin.errors import SearchError
from histokin.search.index.coarse import assign, count_lists
from histokin.search.index.lists import train_centroids
from histokin.search.index.manifest import (
    CoarseFacts,
    FileFacts,
    Manifest,
    SegmentFacts,
    Writer,
    create,
    locked,
    put_manifest,
    writer,
)
from histokin.search.index.segment import FIELDS, Rows, read_slides, write_segment
from histokin.search.searcher import Field
from histokin.search.stored import StoredSlide, slide_table, unit_rows
from histokin.search.tables import Made, SlideEntry, texts
from histokin.streams import seed64

SEGMENT_ROWS = 131_072
"""Tiles after which a segment is closed: what building holds in memory (128 MiB at 512 numbers a tile), thrice."""
NPROBE: dict[Field, int] = {"tiles": 64, "mosaics": 16}
"""Lists looked into until they are measured (search.md: 3.3 for tiles, 5 for mosaics)."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a change did.

    Attributes:
        version: the version now in force.
        slides: slides added, or deleted.
        tiles: theirs.
        replaced: slides that were there before and gave way.
    """

    version: int
    slides: int
    tiles: int
    replaced: tuple[str, ...] = ()


def create_index(
    folder: Path | str,
    made: Made,
    sample: np.ndarray,
    planned_tiles: int,
    *,
    planned_mosaics: int | None = None,
    seed: int = 0,
) -> Manifest:
    """Make an empty index whose lists fit the archive to come.

    Args:
        folder: a new or empty folder.
        made: what made its vectors.
        sample: (n, d) floating vectors, drawn evenly from many slides: 40 a list serve best, and lists are 4 sqrt(N)
            for N planned tiles. May be empty for archives under 10,000 tiles, which need one list only.
        planned_tiles: tiles expected; a change by 8 times calls for `retrain`.
        planned_mosaics: tiles expected in mosaics; a fiftieth of all if None.
        seed: of k-means.

    Returns:
        The first version.

    Raises:
        SearchError: there is something in the folder, or the sample is of another width.
        StoreError: a vector of the sample is zero or not finite.
    """
    path = Path(folder)
    create(path)
    with locked(path):
        planned: dict[Field, int] = {
            "tiles": planned_tiles,
            "mosaics": planned_tiles // 50 if planned_mosaics is None else planned_mosaics,
        }
        coarse = train(path, made, sample, planned, seed)
        manifest = Manifest(number=1, parent=0, made=made, coarse=coarse, nprobe=dict(NPROBE))
        put_manifest(path, manifest)
    return manifest


def train(
    folder: Path, made: Made, sample: np.ndarray, planned: Mapping[Field, int], seed: int
) -> dict[Field, CoarseFacts]:
    """Write the centroids of each field; fields of as many lists share them."""
    if sample.ndim != 2 or sample.shape[1] != made.dim:
        raise SearchError(
            f"the sample has the shape {sample.shape} for vectors {made.dim} wide", folder, "Draw it from the archive."
        )
    unit = unit_rows(sample, np.float32, "sample")
    found: dict[Field, CoarseFacts] = {}
    for field in FIELDS:
        n_lists = count_lists(planned[field], len(unit))
        if n_lists == 1:
            centroids = np.zeros((1, made.dim), dtype=np.float32)
        else:
            centroids = train_centroids(unit, n_lists, seed64(seed, "coarse", n_lists) % 2**31)
        content = io.BytesIO()
        np.save(content, centroids)
        file = f"coarse-{hashlib.sha256(content.getvalue()).hexdigest()[:16]}.npy"
        write_bytes(folder / file, content.getvalue())
        found[field] = CoarseFacts(file, FileFacts.of(folder / file), n_lists, planned[field])
    return found


def read_centroids(folder: Path, manifest: Manifest) -> dict[Field, np.ndarray]:
    """(nlist, d) float32 of each field."""
    return {field: np.load(folder / manifest.coarse[field].file) for field in FIELDS}


def add_slides(
    folder: Path | str, made: Made, entries: Iterable[SlideEntry], *, segment_rows: int = SEGMENT_ROWS
) -> Written:
    """Add slides; one that is there already is replaced. All become visible together, or none.

    One segment's slides are in memory at a time. Call `compact` after many small additions.

    Args:
        folder: the index.
        made: what made these vectors; must be what made the index's.
        entries: slides, each once.
        segment_rows: tiles after which a segment is closed; a slide is never divided.

    Raises:
        EncoderMismatch: vectors of another encoder, tiling or width.
        IndexLocked: another process writes.
        SearchError: a slide comes twice, or there is no index.
        StoreError: a vector is zero or not finite; slide and row are named.
    """
    with writer(folder) as opened:
        opened.manifest.made.check(made, opened.folder)
        added = _Added(opened, segment_rows)
        for entry in entries:
            added.take(StoredSlide.of(entry, made))
        added.close()
        if not added.segments:
            return Written(opened.manifest.number, 0, 0)
        left, replaced = without(opened, added.names)
        manifest = opened.put(segments=(*left, *added.segments))
        n_tiles = sum(segment.n_tiles for segment in added.segments)
        return Written(manifest.number, len(added.names), n_tiles, replaced)


class _Added:
    """Slides on their way into segments."""

    def __init__(self, opened: Writer, segment_rows: int) -> None:
        self._opened, self._segment_rows = opened, segment_rows
        self._coarse = read_centroids(opened.folder, opened.manifest)
        self._held: list[StoredSlide] = []
        self._n_held = 0
        self.segments: list[SegmentFacts] = []
        self.names: set[str] = set()

    def take(self, slide: StoredSlide) -> None:
        """Hold a slide; write a segment when enough are held."""
        if slide.slide in self.names:
            raise SearchError("the slide comes twice", f"slide {slide.slide}", "Give each slide once.")
        self.names.add(slide.slide)
        self._held.append(slide)
        self._n_held += len(slide.tile)
        if self._n_held >= self._segment_rows:
            self.close()

    def close(self) -> None:
        """Write what is held."""
        if self._held:
            held, self._held, self._n_held = sorted(self._held, key=lambda slide: slide.slide), [], 0
            self.segments.append(write_segment(self._opened.new_segment(), _rows(held, self._coarse)))


def _rows(slides: list[StoredSlide], coarse: Mapping[Field, np.ndarray]) -> Rows:
    first = np.cumsum([0, *(len(slide.tile) for slide in slides)])
    known: dict[str, int] = {}
    label = np.array([known.setdefault(text, len(known)) for slide in slides for text in slide.label], dtype=np.int32)
    vectors = np.concatenate([slide.vectors for slide in slides])
    mosaic = np.concatenate([start + slide.mosaic for start, slide in zip(first[:-1], slides, strict=True)])
    return Rows(
        slides=slide_table((slide.slide, slide.patient, slide.columns) for slide in slides),
        means=np.stack([slide.mean for slide in slides]),
        slide=np.repeat(np.arange(len(slides), dtype=np.int32), np.diff(first)),
        tile=np.concatenate([slide.tile for slide in slides]),
        coords=np.concatenate([slide.coords for slide in slides]),
        label=label,
        labels=texts(known),
        mosaic=mosaic,
        lists={"tiles": assign(vectors, coarse["tiles"]), "mosaics": assign(vectors[mosaic], coarse["mosaics"])},
        n_lists={field: len(coarse[field]) for field in FIELDS},
        vectors=lambda rows: vectors[rows],
    )


def delete_slides(folder: Path | str, slides: Iterable[str]) -> Written:
    """Delete slides: one small file is written, and the next query no longer finds them.

    Their vectors stay on the disk until `compact`.

    Raises:
        IndexLocked: another process writes.
        SearchError: there is no such slide (nothing is deleted then), or no index.
    """
    wanted = set(slides)
    with writer(folder) as opened:
        left, gone = without(opened, wanted)
        missing = sorted(wanted.difference(gone))
        if missing:
            raise SearchError(
                f"{len(missing)} of {len(wanted)} slides are not in the index: {', '.join(missing[:5])}",
                opened.folder,
                "Nothing was deleted. Name slides that are there.",
            )
        if not gone:
            return Written(opened.manifest.number, 0, 0)
        n_before = opened.manifest.n_tiles
        manifest = opened.put(segments=left)
        return Written(manifest.number, len(gone), n_before - manifest.n_tiles)


def without(opened: Writer, slides: set[str]) -> tuple[tuple[SegmentFacts, ...], tuple[str, ...]]:
    """The segments with these slides marked dead, and which of them were living."""
    left: list[SegmentFacts] = []
    gone: list[str] = []
    for segment in opened.manifest.segments:
        table = read_slides(opened.folder / segment.name)
        dead = set(segment.dead)
        dying = [row for row, slide in enumerate(table.slides.slide.tolist()) if slide in slides and row not in dead]
        gone += table.slides.slide[dying].tolist()
        left.append(
            replace(
                segment,
                dead=tuple(sorted({*dead, *dying})),
                n_dead_tiles=segment.n_dead_tiles + int(table.n_tiles[dying].sum()),
                n_dead_mosaic=segment.n_dead_mosaic + int(table.n_mosaic[dying].sum()),
            )
        )
    return tuple(left), tuple(sorted(gone))


def set_nprobe(folder: Path | str, nprobe: int, *, field: Field = "tiles") -> Manifest:
    """Keep how many lists a query looks into."""
    if nprobe < 1:
        raise ValueError(f"nprobe must be at least 1, got {nprobe}")
    with writer(folder) as opened:
        return opened.put(nprobe={**opened.manifest.nprobe, field: nprobe})


def set_calibration(folder: Path | str, calibration: Mapping[str, Any]) -> Manifest:
    """Keep figures that belong to the present content (JSON: texts, numbers, lists)."""
    with writer(folder) as opened:
        return opened.put(calibration=dict(calibration))
