"""One slide's embeddings: an HDF5 file that CLAM- and TRIDENT-style readers open.

`/features` (n, d), `/coords` (n, 2) int64 top-left in level-0 px (-1 without coordinates), `/tile_id` (n,) row in the
tile table. Contiguous and uncompressed: 33 times faster to read whole than one row a chunk. Nothing in it tells time,
host or path, so equal content gives equal bytes. `complete` is written last: a file killed after a flush opens
normally and reads zeros.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import canonical_json, versions, writing
from histokin.errors import StoreError
from histokin.tiles import TileSpec, TileTable

FORMAT_VERSION = "1.0"
_DATASETS = ("features", "coords", "tile_id")
_REQUIRED = {"slide_id", "encoder", "encoder_fingerprint", "grid_id"}
_LIBVER = ("earliest", "v110")  # h5py's default range changes with its version, and with it the bytes


@dataclass(frozen=True, slots=True)
class SlideHeader:
    """What one file says of itself, without its values.

    Attributes:
        shape: (n, d) of its features.
        attrs: root attributes.
        dtype: of the stored features.
    """

    shape: tuple[int, int]
    attrs: dict[str, Any]
    dtype: str


@dataclass(frozen=True, slots=True)
class SlideEmbeddings:
    """What one file holds.

    Attributes:
        features: (n, d) float16 or float32, not normalised.
        coords: (n, 2) int64.
        tile_id: (n,) int64.
        attrs: root attributes.
    """

    features: NDArray[Any]
    coords: NDArray[np.int64]
    tile_id: NDArray[np.int64]
    attrs: dict[str, Any]


def write_embeddings(
    path: Path,
    features: NDArray[np.float32],
    rows: NDArray[np.int64],
    table: TileTable,
    spec: TileSpec,
    *,
    encoder: str,
    fingerprint: str,
    empty_reason: str = "",
) -> None:
    """Write one slide's file, whole or not at all.

    Args:
        path: the file.
        features: (n, d); stored as float16, or float32 where a value would overflow.
        rows: (n,) rows of `table` that the features belong to.
        table: the slide's tile table.
        spec: its tiling.
        encoder, fingerprint: what made the features.
        empty_reason: why there are none, if there are none.

    Raises:
        StoreError: a value is not finite; every later mean and distance would be poisoned by it.
    """
    n_broken = int(np.sum(~np.isfinite(features).all(axis=1)))
    if n_broken:
        raise StoreError(
            f"{encoder} gave NaN or infinity for {n_broken} of {len(features)} tiles of {table.meta['slide']}",
            path,
            "Check the encoder's weights and precision.",
        )
    dtype = np.float16 if features.size == 0 or float(np.abs(features).max()) < 6e4 else np.float32
    slide_mpp = float(table.meta["mpp"] or 0)
    coords = np.stack([table.numpy("x")[rows], table.numpy("y")[rows]], axis=1).astype(np.int64)
    with writing(path) as temporary, h5py.File(temporary, "w", libver=_LIBVER) as opened:
        file: Any = opened  # h5py's types promise only that an item is something
        file["features"] = features.astype(dtype)
        file["coords"] = coords
        file["tile_id"] = rows.astype(np.int64)
        file["features"].attrs.update(
            {"encoder": encoder, "name": str(table.meta["slide"]), "savetodir": "", "normalized": 0}
        )
        file["coords"].attrs.update(_trident_attrs(table, spec, slide_mpp))
        file.create_group("histokin")["provenance"] = canonical_json({"versions": versions(), "tiles": spec})
        file.attrs.update(
            {
                "histokin_format": "embeddings",
                "format_version": FORMAT_VERSION,
                "slide_id": str(table.meta["slide"]),
                "patient": _patient(table),
                "content_key": str(table.meta["content_key"]),
                "grid_id": spec.spec_id,
                "encoder": encoder,
                "encoder_fingerprint": fingerprint,
                "mpp": float(spec.mpp),
                "slide_mpp_x": slide_mpp,
                "slide_mpp_y": slide_mpp,
                "mpp_source": str(table.meta["mpp_source"]),
                "tile_size_px": spec.tile_px,
                "tile_size_um_exact": float(spec.tile_um),
                "stride_um": float(spec.step_px * spec.mpp),
                "coords_origin": "level0_topleft",
                "n_tiles": len(rows),
            }
        )
        if len(rows) == 0:
            file.attrs["empty_reason"] = empty_reason or "no tile could be read"
        file.attrs["complete"] = 1


def _patient(table: TileTable) -> str:
    patients = set(table.numpy("patient"))
    return patients.pop() if len(patients) == 1 else ""


def _trident_attrs(table: TileTable, spec: TileSpec, slide_mpp: float) -> dict[str, Any]:
    """TRIDENT's attributes with true magnifications (10 / mpp), so that it cuts the true scale, not its bins."""
    side = round(spec.tile_um / slide_mpp) if slide_mpp else spec.tile_px
    return {
        "patch_size": spec.tile_px,
        "patch_size_level0": side,
        "level0_magnification": 10 / slide_mpp if slide_mpp else 0.0,
        "target_magnification": 10 / spec.mpp,
        "overlap": spec.tile_px - spec.step_px,
        "name": str(table.meta["slide"]),
        "savetodir": "",
        "level0_width": int(table.meta["width"]),
        "level0_height": int(table.meta["height"]),
    }


def read_header(path: Path) -> SlideHeader:
    """Read what one slide's file says of itself; its vectors stay on the disk.

    Raises:
        StoreError: as `read_embeddings`.
    """
    with _opened(path) as file:
        return _header(file, path)


def read_embeddings(path: Path) -> SlideEmbeddings:
    """Read one slide's file.

    Raises:
        StoreError: not an embedding file of ours, unfinished, or its parts disagree; nothing is allocated before.
    """
    with _opened(path) as file:
        header = _header(file, path)
        return SlideEmbeddings(file["features"][:], file["coords"][:], file["tile_id"][:], header.attrs)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with h5py.File(path, "r", locking=False) as opened:
            yield opened
    except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"the file cannot be read ({error})", path, "Run `histokin embed` again.") from error


def _header(file: Any, path: Path) -> SlideHeader:
    attrs: dict[str, Any] = dict(file.attrs)
    if attrs.get("histokin_format") != "embeddings":
        raise StoreError("this is no histokin embedding file", path, "Make it with `histokin embed`.")
    version = str(attrs.get("format_version"))
    if version.partition(".")[0] != FORMAT_VERSION.partition(".")[0]:
        raise StoreError(f"the file has format {version}", path, "Open it with the version that wrote it.")
    if sum(file[name].nbytes for name in _DATASETS) > path.stat().st_size:  # ours are stored as they are
        raise StoreError("it claims more than it holds", path, "Delete it and run `histokin embed` again.")
    features, coords, tile_id = (file[name].shape for name in _DATASETS)
    n = attrs.get("n_tiles", -1)
    is_whole = len(features) == 2 and (features[0], coords, tile_id) == (n, (n, 2), (n,))
    if attrs.get("complete") != 1 or not is_whole or not attrs.keys() >= _REQUIRED:
        raise StoreError("the file is unfinished or damaged", path, "Delete it and run `histokin embed` again.")
    return SlideHeader(features, attrs, str(file["features"].dtype))
