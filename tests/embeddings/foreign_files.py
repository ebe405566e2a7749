"""Small files as other tools write them (reference/formats.md sections 2 to 4 and 8): names, types, chunks, attributes.

Each writer takes the file's path, the vectors (n, d) and what it may state otherwise, and returns the path.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

TRIDENT_TILES: dict[str, Any] = {
    "patch_size": 256,
    "patch_size_level0": 512,
    "level0_magnification": 40,
    "target_magnification": 20,
    "overlap": 0,
    "name": "s",
    "savetodir": "/data/job/20x_256px_0px_overlap",
    "level0_width": 90_000,
    "level0_height": 70_000,
}
CLAM_TILES: dict[str, Any] = {
    "patch_size": 256,
    "patch_level": 0,
    "downsample": (1.0, 1.0),
    "downsampled_level_dim": (90_000, 70_000),
    "level_dim": (90_000, 70_000),
    "name": "s",
    "save_path": "/data/clam/patches",
}


def vectors(n: int = 6, d: int = 4, *, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    """(n, d), none of them zero."""
    return (np.random.default_rng(seed).normal(0, 2, (n, d)) + 0.01).astype(dtype)


def places(n: int, step: float = 512, *, dtype: type = np.int64) -> np.ndarray:
    """(n, 2) top-left corners in rows of four, the first not at 0."""
    return np.stack([(1 + np.arange(n) % 4) * step, (2 + np.arange(n) // 4) * step], axis=1).astype(dtype)


def write_clam(path: Path, features: np.ndarray, coords: np.ndarray | None = None) -> Path:
    """`h5_files/<slide_id>.h5`: chunks of 32 rows that grow, no attributes."""
    coords = places(len(features)) if coords is None else coords
    with h5py.File(path, "w") as file:
        for name, data in (("features", features.astype(np.float32)), ("coords", coords.astype(np.int32))):
            rest = data.shape[1:]
            file.create_dataset(name, data=data, chunks=(32, *rest), maxshape=(None, *rest))
    return path


def write_clam_places(path: Path, n: int = 6) -> Path:
    """`patches/<slide_id>.h5`: no vectors."""
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=places(n), chunks=(32, 2), maxshape=(None, 2)).attrs.update(CLAM_TILES)
    return path


def write_trident(path: Path, features: np.ndarray, *, encoder: str = "uni_v1", level: str = "", **tiles: Any) -> Path:
    """`features_<encoder>/<slide>.h5`; with `level` as of slide_features, where `features` is (d,)."""
    n = len(features) if features.ndim > 1 and not level else 6 * (features.size > 0)
    with h5py.File(path, "w") as file:
        for name, data in (("features", features), ("coords", places(n))):
            rest = data.shape[1:]
            file.create_dataset(name, data=data, chunks=(1, *rest), maxshape=(None, *rest))
        file["coords"].attrs.update(TRIDENT_TILES | tiles)
        file["features"].attrs.update({"name": "s", "savetodir": "/data/job", "encoder": encoder})
    return path


def write_trident_places(path: Path, n: int = 6) -> Path:
    """`patches/<slide>_patches.h5`: no vectors."""
    with h5py.File(path, "w") as file:
        file.create_dataset("coords", data=places(n), chunks=(1, 2), maxshape=(None, 2)).attrs.update(TRIDENT_TILES)
    return path


def write_stamp(path: Path, feats: np.ndarray, *, extractor: str = "virchow2", **stated: Any) -> Path:
    """STAMP from version 2: places in micrometres."""
    root = {
        "stamp_version": "2.5.0",
        "extractor": extractor,
        "unit": "um",
        "tile_size_um": 256.0,
        "tile_size_px": 224,
        "code_hash": "deadbeef",
        "feat_type": "tile",
    } | stated
    with h5py.File(path, "w") as file:
        file["coords"] = places(len(feats), 256, dtype=np.float32)
        file["feats"] = feats.astype(np.float16)
        file.attrs.update(root)
    return path


def write_stamp_slide(path: Path, feats: np.ndarray, feat_type: str = "slide") -> Path:
    """One vector (d,) or (1, d) of a slide or patient."""
    with h5py.File(path, "w") as file:
        file["feats"] = feats
        file.attrs.update({"encoder": "cobra", "precision": "torch.float32", "stamp_version": "2.5.0"})
        file.attrs.update({"version": "2.5.0", "code_hash": "deadbeef", "feat_type": feat_type})
    return path


def write_stamp1(path: Path, feats: np.ndarray, *, step: float = 224) -> Path:
    """STAMP 1: places in units of 256/224 um, no tile size."""
    with h5py.File(path, "w") as file:
        file["coords"] = places(len(feats), step)
        file["feats"] = feats.astype(np.float16)
        file["augmented"] = np.zeros(len(feats), dtype=bool)
        file.attrs["extractor"] = "STAMP-extract-v1.1.0_ctranspath"
    return path


def write_torchmil(path: Path, features: np.ndarray) -> Path:
    """A bag of `ProcessedMILDataset`, or what Patho-Bench pools: `features` alone."""
    with h5py.File(path, "w") as file:
        file["features"] = features
    return path


WRITERS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    "CLAM": write_clam,
    "TRIDENT": write_trident,
    "STAMP": write_stamp,
    "STAMP 1": write_stamp1,
    "torchmil": write_torchmil,
}
STORED = {"CLAM": np.float32, "TRIDENT": np.float32, "STAMP": np.float16, "STAMP 1": np.float16, "torchmil": np.float32}
