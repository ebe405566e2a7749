"""Keeping an index in step with its archive: new slides are added, changed ones replaced, vanished ones deleted."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histokin.artefacts import plain, write_json
from histokin.pipeline.indexing.archive import SOURCE, ArchiveSource
from histokin.progress import Reporter, silent
from histokin.search.index import Index, Version, add_slides, compact, create_index, delete_slides

BATCH_TILES = 131_072
"""Tiles that become visible together: a killed build goes on after the last such batch."""
_POINTS = 40  # sample vectors a list


@dataclass(frozen=True, slots=True)
class IndexOutcome:
    """What a build did.

    Attributes:
        folder: of the index.
        n_slides, n_tiles: that it holds now.
        added, replaced, removed: slides.
        note: what compaction did, "" if nothing was due.
    """

    folder: Path
    n_slides: int
    n_tiles: int
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    note: str

    @property
    def text(self) -> str:
        """One line for a terminal."""
        done = [
            f"{len(slides)} {what}"
            for slides, what in ((self.added, "added"), (self.replaced, "replaced"), (self.removed, "removed"))
            if slides
        ]
        said = f"{self.folder}: {self.n_tiles} tiles of {self.n_slides} slides; {', '.join(done) or 'up to date'}"
        return f"{said}; {self.note}" if self.note else said

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {**plain(self), "index": self.folder.name}

    @property
    def is_changed(self) -> bool:
        """Whether the index is another than before."""
        return bool(self.added or self.replaced or self.removed)


def is_index(folder: Path) -> bool:
    """Whether there is an index with at least one version."""
    return (folder / "CURRENT").exists()


def build_index(folder: Path, source: ArchiveSource, report: Reporter = silent) -> IndexOutcome:
    """Make or update an index; what it holds already is left as it is.

    Raises:
        EncoderMismatch: the index there is of another encoder or tiling.
        IndexLocked: another process writes it.
        SearchError: the archive has no tiles, or tiles of several patients on one slide.
        StoreError: vectors that cannot be compared; slide and row are named.
    """
    began = time.monotonic()
    known, made = source.known, source.made
    if not is_index(folder):
        n_mosaic = sum(min(source.mosaic.n_tiles, header.shape[0]) for _, header in source.headers.values())
        n_sample = _POINTS * max(1, round(4 * source.n_tiles**0.5))
        create_index(folder, made, source.sample(n_sample), source.n_tiles, planned_mosaics=n_mosaic)
    index = Index(folder)
    index.made.check(made, folder)
    held = dict(zip(index.slides.slide.tolist(), made_from(index), strict=True))
    due = sorted(slide for slide, what in known.items() if held.get(slide) != what.columns[SOURCE])
    gone = sorted(held.keys() - known.keys())
    with report("index", len(due), "slides") as line:
        for batch in _batches(due, source):
            add_slides(folder, made, source.entries(batch))
            line.advance(len(batch), batch[-1])
    if gone:
        delete_slides(folder, gone)
    note = ""
    if due or gone:
        done = compact(folder)
        note = f"lists made anew: {done.retrained}" if done.retrained else ""
        n_built = sum(_size(slide, source) for slide in due)
        write_json(folder / "build.json", {"seconds": round(time.monotonic() - began, 3), "tiles": n_built})
    index = Index(folder)
    added, replaced = (tuple(s for s in due if (s in held) == there) for there in (False, True))
    return IndexOutcome(folder, len(index.slides), len(index), added, replaced, tuple(gone), note)


def made_from(index: Index | Version) -> list[str]:
    """Of each slide of an index the digest of what its rows were made from, "" where it has none."""
    columns = index.slides.columns
    return columns[SOURCE].tolist() if SOURCE in columns else [""] * len(index.slides)


def _batches(slides: Sequence[str], source: ArchiveSource) -> Iterator[list[str]]:
    """Runs of slides of about BATCH_TILES tiles."""
    batch: list[str] = []
    n_held = 0
    for slide in slides:
        batch.append(slide)
        n_held += _size(slide, source)
        if n_held >= BATCH_TILES:
            yield batch
            batch, n_held = [], 0
    if batch:
        yield batch


def _size(slide: str, source: ArchiveSource) -> int:
    return source.headers[slide][1].shape[0]
