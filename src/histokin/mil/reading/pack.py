"""One memory-mapped file of all bags: what training reads from, a cache that may be deleted at any time.

HDF5 as other tools chunk it takes 3 to 23 times as long to read. Each slide's rows lie in a seeded random order, so
that any contiguous block of them is a uniform sample of its tiles.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import Ledger, digest_of, write_json, writing
from histokin.embeddings import EmbeddingStore, SlideEmbeddings
from histokin.errors import EncoderMismatch, StoreError
from histokin.mil.reading.source import BagSource, row_hashes, shuffled
from histokin.progress import Reporter, silent

FORMAT_VERSION = "1.0"
LARGEST = 1e4
"""A dimension with larger values is divided by a power of two: float16 ends at 65504."""
_KEY = "pack"
_FEATURES, _COORDS, _ORDER, _HASHES, _OFFSETS = (
    "features.f16",
    "coords.i64",
    "order.i64",
    "hashes.u64",
    "offsets.i64",
)


def pack_stores(
    folder: Path, stores: Sequence[EmbeddingStore], *, seed: int = 0, report: Reporter = silent
) -> BagSource:
    """The bags of one or several stores, packed unless a pack of the same files is there already.

    One slide at a time is in memory.

    Args:
        folder: of the pack alone.
        stores: of one encoder and one tiling, ours or other tools'; each slide in one of them.
        seed: of the order of the rows.
        report: progress.

    Raises:
        EncoderMismatch: the stores are of different encoders, tilings or widths; both sides are shown.
        StoreError: a file cannot be used, a slide occurs twice, or not one slide has tiles.
    """
    if not stores:
        raise ValueError("need at least one store")
    for store in stores[1:]:
        _check_alike(stores[0], store)
    inputs = [{path.name: digest for path, digest in store.digests().items()} for store in stores]
    ledger = Ledger(folder, _KEY, {"seed": seed, "largest": LARGEST, "version": FORMAT_VERSION})
    if ledger.find(_KEY, inputs) is None or not _is_whole(folder):
        ledger.forget(_KEY)
        _write(folder, stores, seed, report)
        ledger.commit(_KEY, inputs, folder / "pack.json")
    return open_pack(folder)


def open_pack(folder: Path) -> BagSource:
    """The bags of a pack, memory-mapped.

    Raises:
        StoreError: it is missing, of another version, or damaged.
    """
    about = _about(folder)
    if about is None or not _is_whole(folder):
        raise StoreError("there is no whole pack of bags here", folder, "Delete the folder: it is made again.")
    shapes = _shapes(about)
    arrays = {name: np.memmap(folder / name, dtype, "r", shape=shape) for name, (dtype, shape) in shapes.items()}
    return BagSource(
        slides=tuple(about["slides"]),
        offsets=np.array(arrays[_OFFSETS], dtype=np.int64),
        features=arrays[_FEATURES],
        order=arrays[_ORDER],
        coords=arrays[_COORDS],
        hashes=arrays[_HASHES],
        scale=None if about["scale"] is None else np.array(about["scale"], dtype=np.float32),
        encoder=about["encoder"],
        fingerprint=about["fingerprint"],
        digest=about["digest"],
        empty=tuple(about["empty"]),
    )


@dataclass(slots=True)
class _Rows:
    """What is known once all rows are on disk."""

    lengths: dict[str, int] = field(default_factory=dict)
    largest: NDArray[np.float32] | None = None  # (D,) of |x|, over what was not float16 already
    width: int = 0
    digest: str = ""


def _write(folder: Path, stores: Sequence[EmbeddingStore], seed: int, report: Reporter) -> None:
    rows = _write_rows(folder, stores, seed, None, report)
    scale = _scale(rows.largest)
    if scale is not None:  # known only at the end, and rare: everything is written a second time
        rows = _write_rows(folder, stores, seed, scale, report)
    filled = {slide: n for slide, n in rows.lengths.items() if n}
    if not filled:
        raise StoreError("not one slide has tiles", stores[0].folder, "See the states of `histokin info`.")
    offsets = np.concatenate([[0], np.cumsum(list(filled.values()))])
    with writing(folder / _OFFSETS) as temporary, temporary.open("wb") as file:
        file.write(offsets.astype("<i8").tobytes())
    about = {
        "format": "bags",
        "format_version": FORMAT_VERSION,
        "slides": list(filled),
        "empty": sorted(rows.lengths.keys() - filled.keys()),
        "n_tiles": int(offsets[-1]),
        "dim": rows.width,
        "scale": None if scale is None else scale.tolist(),
        "encoder": stores[0].encoder,
        "fingerprint": stores[0].fingerprint,
        "seed": seed,
    }
    write_json(folder / "pack.json", {**about, "digest": digest_of([about, rows.digest])})


def _write_rows(
    folder: Path, stores: Sequence[EmbeddingStore], seed: int, scale: NDArray[np.float32] | None, report: Reporter
) -> _Rows:
    rows, digest = _Rows(), hashlib.sha256()
    with (
        writing(folder / _FEATURES) as features_path,
        writing(folder / _COORDS) as coords_path,
        writing(folder / _ORDER) as order_path,
        writing(folder / _HASHES) as hashes_path,
        features_path.open("wb") as features,
        coords_path.open("wb") as coords,
        order_path.open("wb") as order,
        hashes_path.open("wb") as hashes,
        report("pack", sum(len(store) for store in stores), "slides") as task,
    ):
        for found in _slides(stores):
            slide, n = str(found.attrs["slide_id"]), len(found.features)
            if slide in rows.lengths:
                raise StoreError(f"slide {slide} is in two stores", stores[-1].folder, "Keep it in one of them.")
            rows.lengths[slide] = n
            if n:
                _check_width(rows, found, slide, stores[0])
                moved = shuffled(slide, n, seed)
                packed = _as_float16(found.features[moved], rows, scale)
                for file, block in (
                    (features, packed),
                    (coords, found.coords[moved].astype("<i8")),
                    (order, moved.astype("<i8")),
                    (hashes, row_hashes(packed).astype("<u8")),
                ):
                    _append(file, block, digest)
            task.advance()
    rows.digest = digest.hexdigest()
    return rows


def _append(file: BinaryIO, block: NDArray[Any], digest: Any) -> None:
    data = np.ascontiguousarray(block).data
    file.write(data)
    digest.update(data)


def _slides(stores: Sequence[EmbeddingStore]) -> Iterator[SlideEmbeddings]:
    for store in stores:
        yield from store.slides()


def _as_float16(x: NDArray[Any], rows: _Rows, scale: NDArray[np.float32] | None) -> NDArray[np.float16]:
    if x.dtype != np.float16:  # what is float16 has all it can hold
        largest = np.abs(x).max(axis=0).astype(np.float32)
        rows.largest = largest if rows.largest is None else np.maximum(rows.largest, largest)
    with np.errstate(over="ignore"):  # what overflows is written anew with a scale
        return (x if scale is None else x.astype(np.float32) / scale).astype("<f2")


def _scale(largest: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
    """(D,) powers of two that bring each dimension to `LARGEST` or below, 1 where it is; None where all are."""
    if largest is None or float(largest.max()) <= LARGEST:
        return None
    return np.exp2(np.ceil(np.log2(np.maximum(largest / LARGEST, 1)))).astype(np.float32)


def _check_width(rows: _Rows, found: SlideEmbeddings, slide: str, first: EmbeddingStore) -> None:
    width = found.features.shape[1]
    if rows.width and width != rows.width:
        raise EncoderMismatch(
            f"the vectors of slide {slide} are {width} wide, those before it {rows.width}",
            first.folder,
            "Keep the embeddings of each encoder in a folder of their own.",
        )
    rows.width = width


def _check_alike(first: EmbeddingStore, other: EmbeddingStore) -> None:
    for what in ("fingerprint", "grid_id"):
        mine, theirs = getattr(first, what), getattr(other, what)
        if mine != theirs:
            raise EncoderMismatch(
                f"{what} differs: {first.encoder} {mine} in {first.folder}, {other.encoder} {theirs} here",
                other.folder,
                "Train on embeddings of one encoder and one tiling.",
            )


def _about(folder: Path) -> dict[str, Any] | None:
    path = folder / "pack.json"
    if not path.exists():
        return None
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return about if about.get("format_version") == FORMAT_VERSION else None


def _shapes(about: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    n = about["n_tiles"]
    return {
        _FEATURES: ("<f2", (n, about["dim"])),
        _COORDS: ("<i8", (n, 2)),
        _ORDER: ("<i8", (n,)),
        _HASHES: ("<u8", (n,)),
        _OFFSETS: ("<i8", (len(about["slides"]) + 1,)),
    }


def _is_whole(folder: Path) -> bool:
    """Whether all files are there in their full length."""
    about = _about(folder)
    if about is None:
        return False
    sizes = {name: np.dtype(dtype).itemsize * int(np.prod(shape)) for name, (dtype, shape) in _shapes(about).items()}
    return all((folder / name).exists() and (folder / name).stat().st_size == size for name, size in sizes.items())
