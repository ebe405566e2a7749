"""`EmbeddingStore`: a folder with one file a slide, all of one encoder and one tiling."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import digest_file
from histokin.embeddings.file import SlideEmbeddings, SlideHeader, read_embeddings, read_header
from histokin.embeddings.foreign import are_foreign, read_foreign, read_foreign_header
from histokin.errors import EncoderMismatch, StoreError


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Vectors of many slides in one matrix.

    Attributes:
        features: (n, d) float32.
        slide: (n,) int32 number in `slides`, ascending: a slide's rows are one slice.
        slides: slide ids in order.
        tile_id: (n,) row in the slide's tile table.
        coords: (n, 2) level-0 px.
    """

    features: NDArray[np.float32]
    slide: NDArray[np.int32]
    slides: tuple[str, ...]
    tile_id: NDArray[np.int64]
    coords: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.features)

    def rows_of(self, number: int) -> slice:
        """Where one slide's rows are."""
        ends = np.array([number, number + 1], self.slide.dtype)  # of another type the whole column would be converted
        return slice(*np.searchsorted(self.slide, ends).tolist())

    @property
    def first(self) -> NDArray[np.int64]:
        """The first row of each slide."""
        return np.searchsorted(self.slide, np.arange(len(self.slides)))

    def bag(self, number: int) -> NDArray[np.float32]:
        """The vectors of one slide, (n_i, d)."""
        return self.features[self.rows_of(number)]


def _holds_foreign(folder: Path, paths: list[Path]) -> bool:
    """Whether other tools made a folder's files: only our stage leaves a manifest, else the first that opens tells.

    Where not one opens, the reader of foreign files takes them: its remedy is to run the tool that wrote them.
    """
    return not (folder / "manifest.json").exists() and are_foreign(paths) is not False


def _finished(folder: Path) -> list[Path]:
    manifest = folder / "manifest.json"
    if manifest.exists():
        try:
            return sorted(folder / entry["file"] for entry in json.loads(manifest.read_text("utf-8"))["entries"])
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError("the manifest is damaged", manifest, "Run `histokin embed` again.") from error
    return sorted(path for path in folder.glob("*.h5") if not path.name.startswith("."))


def count_vectors(folder: Path) -> int:
    """Vectors in a finished store, from its manifest."""
    entries = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["entries"]
    return sum(entry["facts"]["n_tiles"] for entry in entries)


class EmbeddingStore:
    """Read access to the embeddings of a cohort: the files that the folder's manifest names, without one all.

    What an earlier, larger cohort left behind is thereby not mixed in.

    Raises:
        StoreError: the folder holds no embeddings, or its first file is damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._paths = _finished(self.folder)
        if not self._paths:
            raise StoreError("no embeddings here", self.folder, "Make them with `histokin embed`.")
        # One kind a folder: a file of ours among foreign ones, or the reverse, is refused by name.
        is_foreign = _holds_foreign(self.folder, self._paths)
        self._read = read_foreign if is_foreign else read_embeddings
        self._read_header = read_foreign_header if is_foreign else read_header
        first = self._read_header(self._paths[0])
        self._first, self.dtype = first.attrs, first.dtype

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def encoder(self) -> str:
        return str(self._first["encoder"])

    @property
    def writer(self) -> str:
        """The tool that made it."""
        return str(self._first.get("writer", "histokin"))

    @property
    def fingerprint(self) -> str:
        return str(self._first["encoder_fingerprint"])

    @property
    def grid_id(self) -> str:
        return str(self._first["grid_id"])

    def headers(self) -> dict[str, tuple[Path, SlideHeader]]:
        """File and header of every slide that has tiles, by its id; no vectors are read.

        Raises:
            EncoderMismatch, StoreError: as `load`.
        """
        return {str(header.attrs["slide_id"]): (path, header) for path, header in self._headers_of_filled().items()}

    def read(self, path: Path) -> SlideEmbeddings:
        """One file of `headers`, checked to be of this store.

        Raises:
            EncoderMismatch, StoreError: as `slides`.
        """
        found = self._read(path)
        self._check(path, found.attrs)
        return found

    def digests(self) -> dict[Path, str]:
        """SHA-256 of every file: as the manifest has it, of other tools' files by reading them."""
        manifest = self.folder / "manifest.json"
        if not manifest.exists():
            return {path: digest_file(path) for path in self._paths}
        entries = json.loads(manifest.read_text("utf-8"))["entries"]
        return {self.folder / entry["file"]: entry["digest"] for entry in entries}

    def slides(self) -> Iterator[SlideEmbeddings]:
        """Each slide's embeddings in order of file name.

        Raises:
            EncoderMismatch: a file was made by another encoder or from other tiles.
            StoreError: a file cannot be used, or two are of one slide; both are named.
        """
        path_of: dict[str, Path] = {}
        for path in self._paths:
            found = self._read(path)
            self._check(path, found.attrs)
            _add_slide(path_of, path, found.attrs)
            yield found

    def load(self) -> Embeddings:
        """All vectors as one float32 matrix; slides without tiles are left out.

        The headers are read first, so that the matrix is allocated once: beside it, one slide is in memory at a time.

        Raises:
            EncoderMismatch: a file was made by another encoder or from other tiles, or is of another width.
            StoreError: as `slides`; no slide has tiles; or a file changes meanwhile.
        """
        parts = self._headers_of_filled()
        if not parts:
            raise StoreError("not one slide has tiles", self.folder, "See the states of `histokin info`.")
        counts = [header.shape[0] for header in parts.values()]
        n, d = sum(counts), next(iter(parts.values())).shape[1]
        rows = Embeddings(
            features=np.empty((n, d), dtype=np.float32),
            slide=np.repeat(np.arange(len(parts), dtype=np.int32), counts),
            slides=tuple(str(header.attrs["slide_id"]) for header in parts.values()),
            tile_id=np.empty(n, dtype=np.int64),
            coords=np.empty((n, 2), dtype=np.int64),
        )
        for number, (path, header) in enumerate(parts.items()):
            self._fill(rows, number, path, header)
        return rows

    def _headers_of_filled(self) -> dict[Path, SlideHeader]:
        """The headers of the slides that have tiles; those without are checked too."""
        path_of: dict[str, Path] = {}
        found: dict[Path, SlideHeader] = {}
        for path in self._paths:
            header = self._read_header(path)
            self._check(path, header.attrs)
            _add_slide(path_of, path, header.attrs)
            if header.shape[0]:
                found[path] = header
                _check_width(next(iter(found.values())), header, path)
        return found

    def _fill(self, rows: Embeddings, number: int, path: Path, header: SlideHeader) -> None:
        """Read one slide into its rows; on return its own copy is freed, before the next slide is read."""
        found = self._read(path)
        keys = ("slide_id", "encoder_fingerprint", "grid_id")
        if found.features.shape != header.shape or any(found.attrs[key] != header.attrs[key] for key in keys):
            raise StoreError("it changed while the store was read", path, "Try again when nothing writes to it.")
        at = rows.rows_of(number)
        rows.features[at], rows.tile_id[at], rows.coords[at] = found.features, found.tile_id, found.coords

    def _check(self, path: Path, attrs: dict[str, Any]) -> None:
        for key in ("encoder_fingerprint", "grid_id"):
            if attrs[key] != self._first[key]:
                raise EncoderMismatch(
                    f"{key} differs: {self._first['encoder']} {self._first[key]} in the store, "
                    f"{attrs['encoder']} {attrs[key]} in this file",
                    path,
                    "Keep the embeddings of each encoder in a folder of their own.",
                )


def _add_slide(path_of: dict[str, Path], path: Path, attrs: dict[str, Any]) -> None:
    """Note a file's slide; refuse the second file of one, such as TRIDENT's a.h5 and a_patches.h5."""
    slide = str(attrs["slide_id"])
    if slide in path_of:
        raise StoreError(
            f"{path_of[slide].name} and {path.name} are both of slide {slide}",
            path.parent,
            "Keep one file a slide in this folder.",
        )
    path_of[slide] = path


def _check_width(first: SlideHeader, header: SlideHeader, path: Path) -> None:
    if header.shape[1] != first.shape[1]:
        raise EncoderMismatch(
            f"its vectors are {header.shape[1]} wide, those of the store {first.shape[1]}",
            path,
            "Keep the embeddings of each encoder in a folder of their own.",
        )
