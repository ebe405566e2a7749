"""`EmbeddingStore`: a folder with one file a slide, all of one encoder and one tiling."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.embeddings.file import SlideEmbeddings, read_embeddings
from histokin.embeddings.foreign import is_foreign, read_foreign
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
        return slice(*np.searchsorted(self.slide, [number, number + 1]).tolist())

    @property
    def first(self) -> NDArray[np.int64]:
        """The first row of each slide."""
        return np.searchsorted(self.slide, np.arange(len(self.slides)))

    def bag(self, number: int) -> NDArray[np.float32]:
        """The vectors of one slide, (n_i, d)."""
        return self.features[self.rows_of(number)]


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
        StoreError: the folder holds no embeddings.
        EncoderMismatch: it holds vectors of different encoders or tilings; both are named.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._paths = _finished(self.folder)
        if not self._paths:
            raise StoreError("no embeddings here", self.folder, "Make them with `histokin embed`.")
        # One kind a folder: a file of ours among foreign ones, or the reverse, is refused by name.
        self._read = read_foreign if is_foreign(self._paths[0]) else read_embeddings
        self._first = self._read(self._paths[0]).attrs

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def encoder(self) -> str:
        return str(self._first["encoder"])

    @property
    def fingerprint(self) -> str:
        return str(self._first["encoder_fingerprint"])

    @property
    def grid_id(self) -> str:
        return str(self._first["grid_id"])

    def slides(self) -> Iterator[SlideEmbeddings]:
        """Each slide's embeddings in order of file name.

        Raises:
            EncoderMismatch: a file was made by another encoder or from other tiles.
        """
        for path in self._paths:
            found = self._read(path)
            self._check(path, found.attrs)
            yield found

    def load(self) -> Embeddings:
        """All vectors as one float32 matrix; slides without tiles are left out."""
        parts = [part for part in self.slides() if len(part.features)]
        if not parts:
            raise StoreError("not one slide has tiles", self.folder, "See the states of `histokin info`.")
        return Embeddings(
            features=np.concatenate([p.features.astype(np.float32) for p in parts]),
            slide=np.repeat(np.arange(len(parts), dtype=np.int32), [len(p.features) for p in parts]),
            slides=tuple(str(p.attrs["slide_id"]) for p in parts),
            tile_id=np.concatenate([p.tile_id for p in parts]),
            coords=np.concatenate([p.coords for p in parts]),
        )

    def _check(self, path: Path, attrs: dict[str, Any]) -> None:
        for key in ("encoder_fingerprint", "grid_id"):
            if attrs[key] != self._first[key]:
                raise EncoderMismatch(
                    f"{key} differs: {self._first['encoder']} {self._first[key]} in the store, "
                    f"{attrs['encoder']} {attrs[key]} in this file",
                    path,
                    "Keep the embeddings of each encoder in a folder of their own.",
                )
