"""What an index consists of, version by version: one file names all others, and one line names that file.

    CURRENT               MANIFEST-000042.json and its SHA-256
    MANIFEST-000042.json  encoder, centroids, segments, deleted slides, size and SHA-256 of every file
    LOCK                  locked by the one writer; readers take no lock

A version is complete before CURRENT is renamed to name it; so a writer killed at any point leaves the last one.
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from histokin.artefacts import digest_file, sweep, write_bytes, write_json, write_text
from histokin.errors import IndexDamaged, IndexLocked, SearchError
from histokin.search.searcher import Field
from histokin.search.tables import Made

FORMAT = "histokin-index"
FORMAT_MAJOR = 1
KEPT_VERSIONS = 3
KEPT_SECONDS = 3600
"""A version that was followed by another so long ago is no longer being opened by any reader."""
_CURRENT = re.compile(r"(MANIFEST-\d{6,}\.json) ([0-9a-f]{64})\n")
_MANIFEST = re.compile(r"MANIFEST-(\d{6,})\.json")
_OURS = re.compile(r"(seg-\d{6,})|(coarse-[0-9a-f]{16}\.npy)")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """How a file is told to be whole."""

    sha256: str
    n_bytes: int

    @classmethod
    def of(cls, path: Path) -> "FileFacts":
        return cls(digest_file(path), path.stat().st_size)


@dataclass(frozen=True, slots=True)
class SegmentFacts:
    """One segment as a version knows it.

    Attributes:
        name: its folder.
        files: by name.
        n_slides, n_tiles, n_mosaic: what was written.
        dead: rows of its slide table that were deleted since.
        n_dead_tiles, n_dead_mosaic: what these slides had.
    """

    name: str
    files: dict[str, FileFacts]
    n_slides: int
    n_tiles: int
    n_mosaic: int
    dead: tuple[int, ...] = ()
    n_dead_tiles: int = 0
    n_dead_mosaic: int = 0


@dataclass(frozen=True, slots=True)
class CoarseFacts:
    """The centroids of one field, shared by all segments.

    Attributes:
        file: its name.
        facts: of that file.
        n_lists: centroids.
        n_planned: rows they were made for.
        n_trained: rows that were there when they were made, 0 at first.
    """

    file: str
    facts: FileFacts
    n_lists: int
    n_planned: int
    n_trained: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """One version of an index.

    Attributes:
        number: of the version; `parent` is the one it was made from.
        made: what the vectors were made by.
        coarse: centroids by field.
        nprobe: lists looked into, by field.
        segments: in the order they were written.
        next_segment: number of the next segment's folder.
        calibration: figures that belong to this content, free in form.
    """

    number: int
    parent: int
    made: Made
    coarse: dict[Field, CoarseFacts]
    nprobe: dict[Field, int]
    segments: tuple[SegmentFacts, ...] = ()
    next_segment: int = 1
    calibration: dict[str, Any] = field(default_factory=dict)

    @property
    def n_tiles(self) -> int:
        return sum(segment.n_tiles - segment.n_dead_tiles for segment in self.segments)

    @property
    def n_mosaic(self) -> int:
        return sum(segment.n_mosaic - segment.n_dead_mosaic for segment in self.segments)

    @property
    def n_slides(self) -> int:
        return sum(segment.n_slides - len(segment.dead) for segment in self.segments)

    def files(self) -> dict[str, FileFacts]:
        """Every file of this version, by its path within the index."""
        found = {coarse.file: coarse.facts for coarse in self.coarse.values()}
        for segment in self.segments:
            found |= {f"{segment.name}/{name}": facts for name, facts in segment.files.items()}
        return found

    def names(self) -> set[str]:
        """The entries of the index's folder that this version needs."""
        return {coarse.file for coarse in self.coarse.values()} | {segment.name for segment in self.segments}


def read_current(folder: Path) -> str:
    """The line that names the version in force.

    Raises:
        SearchError: there is no index here.
    """
    try:
        return (folder / "CURRENT").read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SearchError("no index here", folder, "Build one with `histokin index build`.") from error


def read_manifest(folder: Path, current: str) -> Manifest:
    """The version that a line of CURRENT names.

    Raises:
        IndexDamaged: the line or the manifest is not what it was.
        SearchError: another format version.
        FileNotFoundError: the manifest is gone: a newer one may be in force.
    """
    named = _CURRENT.fullmatch(current)
    if named is None:
        raise IndexDamaged("CURRENT does not name a manifest", folder, "Restore it, or build the index anew.")
    path = folder / named[1]
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != named[2]:
        raise IndexDamaged("the manifest was changed", path, "Restore it, or build the index anew.")
    return _parse(content, path)


def _parse(content: bytes, path: Path) -> Manifest:
    try:
        given = json.loads(content)
        version = str(given["format_version"])
        if given["format"] != FORMAT or version.partition(".")[0] != str(FORMAT_MAJOR):
            raise SearchError(
                f"the index has format {given['format']} {version}, this program knows {FORMAT} {FORMAT_MAJOR}.x",
                path,
                "Open it with the histokin version that wrote it, or build it anew.",
            )
        return Manifest(
            number=given["number"],
            parent=given["parent"],
            made=Made(**given["made"]),
            coarse={name: _coarse(facts) for name, facts in given["coarse"].items()},
            nprobe=given["nprobe"],
            segments=tuple(_segment(facts) for facts in given["segments"]),
            next_segment=given["next_segment"],
            calibration=given["calibration"],
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IndexDamaged("the manifest cannot be read", path, "Build the index anew.") from error


def _coarse(given: Mapping[str, Any]) -> CoarseFacts:
    return CoarseFacts(**{**given, "facts": FileFacts(**given["facts"])})


def _segment(given: Mapping[str, Any]) -> SegmentFacts:
    files = {name: FileFacts(**facts) for name, facts in given["files"].items()}
    return SegmentFacts(**{**given, "files": files, "dead": tuple(given["dead"])})


def put_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a version whose files are all there, and put it in force."""
    path = folder / f"MANIFEST-{manifest.number:06d}.json"
    write_json(path, {"format": FORMAT, "format_version": f"{FORMAT_MAJOR}.0", **asdict(manifest)})
    write_text(folder / "CURRENT", f"{path.name} {digest_file(path)}\n")


def create(folder: Path) -> None:
    """Make the folder of a new index; what a writer killed at this left is taken over.

    Raises:
        SearchError: there is an index, or something else, in the folder.
    """
    if (folder / "CURRENT").exists():
        raise SearchError("there is an index here", folder, "Add to it, or choose another folder.")
    sweep(folder)
    names = [path.name for path in folder.glob("*") if path.name != "LOCK"]
    if any(not _OURS.fullmatch(name) and not _MANIFEST.fullmatch(name) for name in names):
        raise SearchError("the folder is not empty", folder, "Choose another folder for the index.")
    if not (folder / "LOCK").exists():
        write_bytes(folder / "LOCK", b"")


class Writer:
    """The one process that may change an index; see `writer`.

    Attributes:
        folder: the index.
        manifest: the version in force.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self._next_segment = manifest.next_segment

    def new_segment(self) -> Path:
        """A folder for one more segment."""
        path = self.folder / f"seg-{self._next_segment:06d}"
        self._next_segment += 1
        return path

    def put(self, **changes: Any) -> Manifest:
        """Put a version in force that differs from the last in `changes`; versions out of use are removed."""
        last = self.manifest
        self.manifest = replace(
            last, number=last.number + 1, parent=last.number, next_segment=self._next_segment, **changes
        )
        put_manifest(self.folder, self.manifest)
        remove_unused(self.folder, self.manifest)
        return self.manifest


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only writer.

    Raises:
        IndexLocked: another process writes.
        SearchError: no index here, or its file system knows no locks.
    """
    try:
        descriptor = os.open(folder / "LOCK", os.O_RDONLY)
    except OSError as error:
        raise SearchError("no index here", folder, "Build one with `histokin index build`.") from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise IndexLocked(
            "another process is writing this index", folder, "Wait until it is done; reading goes on meanwhile."
        ) from error
    except OSError as error:
        raise SearchError(
            f"the file system gives no lock ({error.strerror})",
            folder,
            "Build the index on a local disk, then copy it.",
        ) from error


@contextmanager
def writer(folder: Path | str) -> Iterator[Writer]:
    """Open an index for writing; what killed writers left is removed first, and what this one leaves if it fails.

    Raises:
        IndexLocked: another process writes.
        SearchError: no index here.
    """
    path = Path(folder)
    with locked(path):
        opened = Writer(path, read_manifest(path, read_current(path)))
        remove_unused(path, opened.manifest)
        try:
            yield opened
        except BaseException:
            remove_unused(path, opened.manifest)
            raise


def remove_unused(folder: Path, manifest: Manifest) -> None:
    """Remove what no version needs that may still be opened: the last three, and any that was in force lately."""
    sweep(folder)
    found = {int(named[1]): path for path in folder.iterdir() if (named := _MANIFEST.fullmatch(path.name))}
    past = sorted((number for number in found if number < manifest.number), reverse=True)
    needed, followed = manifest.names(), found[manifest.number].stat().st_mtime
    kept = {manifest.number}
    for place, number in enumerate(past):
        if place < KEPT_VERSIONS - 1 or followed > time.time() - KEPT_SECONDS:
            needed |= _names_in(found[number])
            kept.add(number)
        followed = found[number].stat().st_mtime
    for number, path in found.items():
        if number not in kept:
            path.unlink()
    for path in list(folder.iterdir()):
        if _OURS.fullmatch(path.name) and path.name not in needed:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _names_in(path: Path) -> set[str]:
    try:
        return _parse(path.read_bytes(), path).names()
    except SearchError:
        return set()  # damaged or of another format: no reader opens it
