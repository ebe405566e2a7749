"""Embeddings that other tools made, read as they are: CLAM, TRIDENT, STAMP and torchmil.

They all say `coords` and mean three things by it, so the writer is recognised first, and where no rule or two rules
match, the file is refused. Such files have no mark of being finished either: what was never written reads as zeros.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import digest_of
from histokin.embeddings.file import SlideEmbeddings, SlideHeader
from histokin.errors import StoreError

PREFIX = "foreign"
"""Begins fingerprint and grid_id of foreign files; ours begin with a hex digit or "floor-", and with a number."""

_STAMP = {"stamp_version", "extractor", "unit", "tile_size", "tile_size_um", "tile_size_px", "code_hash", "feat_type"}
_TRIDENT = {"patch_size_level0", "level0_magnification", "target_magnification", "overlap", "savetodir"}
_TRIDENT |= {"level0_width", "level0_height", "encoder"}
_CLAM = {"patch_level", "downsample", "downsampled_level_dim", "level_dim", "save_path"}
_IN_PIXELS = {"CLAM", "TRIDENT"}
_STAMP_1_UM, _STAMP_1_PX = 256.0, 224.0  # its tiles, and the unit of its places: 256/224 um
_MOST_PACKED = 64  # embeddings pack to some 86 %; what claims more than this would only fill the memory
_UNITS = {
    "patch_size": "px",
    "patch_level": "level",
    "tile_size_um_exact": "um",
    "tile_size_px": "px",
    "target_magnification": "x",
    "overlap": "ov",
}
_TO_HDF5 = (
    """python -c "import sys, h5py, torch; """
    """h5py.File(sys.argv[2], 'w')['features'] = torch.load(sys.argv[1], weights_only=True).float().numpy()" """
    """SLIDE.pt SLIDE.h5"""
)


@dataclass(frozen=True, slots=True)
class Recognised:
    """Which tool wrote a file.

    Attributes:
        writer: CLAM, TRIDENT, STAMP, STAMP 1 (its historic files) or torchmil.
        why: what in the file says so.
    """

    writer: str
    why: str


@dataclass(frozen=True, slots=True)
class _Contents:
    """All of an open file but its values.

    Attributes:
        names: of everything at its root.
        root: its own attributes, read when asked for: damaged ones can hang or crash HDF5.
        data: `features`, `feats` and `coords`, as far as they are datasets.
        attrs: their attributes.
    """

    names: tuple[str, ...]
    root: Mapping[str, Any]
    data: dict[str, Any]
    attrs: dict[str, Mapping[str, Any]]

    def carries(self, name: str, known: set[str]) -> list[str]:
        """Which of the known attributes a dataset has."""
        return sorted(self.attrs.get(name, {}).keys() & known)

    def __str__(self) -> str:
        held = [f"`{name}`" + self._kind(name) for name in self.names[:8]] + ["more"] * (len(self.names) > 8)
        stated = sorted({*self.root, *(key for attrs in self.attrs.values() for key in attrs)})
        shown = ", ".join(stated[:8]) + (" and more" if len(stated) > 8 else "")
        return f"{', '.join(held) or 'nothing'}, with {f'the attributes {shown}' if stated else 'no attributes'}"

    def _kind(self, name: str) -> str:
        return f" {self.data[name].shape} {self.data[name].dtype}" if name in self.data else ""


def is_foreign(path: Path) -> bool:
    """Whether a file is HDF5 without a mark of ours; what cannot be opened is not."""
    return bool(are_foreign([path]))


def are_foreign(paths: Iterable[Path]) -> bool | None:
    """Whether files of one folder are foreign, told by the first that opens; None where not one does."""
    for path in paths:
        try:
            with _opened(path) as file:
                return not _is_own(file)
        except StoreError:
            continue
    return None


def recognise(path: Path) -> Recognised:
    """Tell which tool wrote a file of tile embeddings, by names, shapes, types and attributes; no vector is read.

    Raises:
        StoreError: no rule matches or several do (all are named); it is a file of ours; it holds a vector of a whole
            slide or patient, or places without vectors; or it cannot be read.
    """
    with _opened(path) as file:
        return _recognise(_look(file, path), path)


def read_foreign_header(path: Path) -> SlideHeader:
    """Read what another tool's file says of itself; its vectors stay on the disk.

    Returns:
        `SlideHeader`: the shape (n, d) of what `read_foreign` gives, and the same attrs.

    Raises:
        StoreError: as `read_foreign`, but that no value of a vector is looked at.
    """
    with _opened(path) as file:
        return _header(_look(file, path), path)


def read_foreign(path: Path) -> SlideEmbeddings:
    """Read one slide's embeddings from another tool's file.

    `encoder_fingerprint` is of writer, encoder and width. CLAM and torchmil name no encoder: two of one width are not
    told apart. `grid_id` is of the writer and what it states of its tiles.

    Args:
        path: the file; its name without the suffix is the slide's id.

    Returns:
        `SlideEmbeddings`: features (n, d) float16 or float32 as stored; coords top-left in level-0 px, -1 where they
        are not known, as `coords_origin` in attrs says; tile_id 0 to n - 1, in the file's order. attrs also hold
        `writer`, `recognised_by`, what is stated of the tiles, and `mpp` and `tile_size_um_exact` where known.

    Raises:
        StoreError: as `recognise`; or it is damaged, unfinished or empty, its parts disagree, or a vector is not
            finite or all zeros.
    """
    with _opened(path) as file:
        found = _look(file, path)
        header = _header(found, path)
        writer = header.attrs["writer"]
        features = _read_features(found, writer, path)
        coords = _read_coords(found, writer)
    return SlideEmbeddings(features, coords, np.arange(len(features), dtype=np.int64), header.attrs)


def _header(found: _Contents, path: Path) -> SlideHeader:
    recognised = _recognise(found, path)
    writer = recognised.writer
    _check_parts(found, writer, path)
    vectors = found.data[_vectors(writer)]
    n, d = vectors.shape
    stated = _tiling(found, writer)
    encoder = _text(found.root.get("extractor")) or _text(found.attrs.get("features", {}).get("encoder"))
    attrs: dict[str, Any] = {
        **stated,
        **_scale(stated),
        "slide_id": path.stem.removesuffix("_patches") if writer == "TRIDENT" else path.stem,
        "encoder": encoder or f"unnamed ({writer}, {d}-d)",
        "encoder_fingerprint": f"{_begin(writer)}-{digest_of({'writer': writer, 'encoder': encoder, 'dim': d})[:16]}",
        "grid_id": _grid_id(stated, writer),
        "writer": writer,
        "recognised_by": recognised.why,
        "coords_origin": _coords_origin(writer),
        "n_tiles": n,
    }
    if n == 0:
        attrs["empty_reason"] = "TRIDENT found no tiles"
    return SlideHeader((n, d), attrs, str(vectors.dtype))


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.suffix.lower() in {".pt", ".pth"}:
        raise StoreError(
            "a .pt file (slideflow's bags, CLAM's pt_files) is a pickle, and to open one can run any code",
            path,
            f"Take the folder h5_files of CLAM; of slideflow, convert the vectors with `{_TO_HDF5}`.",
        )
    try:
        with h5py.File(path, "r", locking=False) as opened:
            yield opened
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        remedy = "It is damaged, unfinished or no HDF5 file: make it again with the tool that wrote it."
        raise StoreError(f"the file cannot be read ({error})", path, remedy) from error


def _is_own(file: Any) -> bool:
    return "histokin_format" in file.attrs or "histokin" in file


def _look(file: Any, path: Path) -> _Contents:
    if _is_own(file):
        raise StoreError(
            "histokin wrote this file itself", path, "Keep embeddings of other tools in a folder of their own."
        )
    data: dict[str, Any] = {}
    for name in ("features", "feats", "coords"):
        link = file.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise StoreError(f"its `{name}` lies in another file, {link.filename}", path, "Open that one.")
        item = file.get(name)
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            data[name] = item
    return _Contents(tuple(file), file.attrs, data, {name: item.attrs for name, item in data.items()})


def _recognise(found: _Contents, path: Path) -> Recognised:
    matches = {writer: why for writer, rule in _RULES.items() if (why := rule(found))}
    if not matches:
        raise StoreError(
            f"no known tool writes such a file: it holds {found}",
            path,
            "CLAM, TRIDENT, STAMP and torchmil are known; a file with `features` (n, d) float32 alone is read too.",
        )
    if len(matches) > 1:
        raise StoreError(
            "it has the marks of more than one tool: " + "; ".join(f"{name} ({why})" for name, why in matches.items()),
            path,
            "What its vectors and places are cannot be told: keep what one tool wrote, or leave it out.",
        )
    writer, why = matches.popitem()
    _check_level(found, writer, path)
    if writer == "STAMP" and not _stamp_um(found):
        return Recognised("STAMP 1", f"{why}; no tile size, but tiles {_stride(found, path)} apart")
    return Recognised(writer, why)


def _is_stamp(found: _Contents) -> str:
    marks = ["`feats`"] if "feats" in found.names else []
    stated = sorted(found.root.keys() & _STAMP)
    return ", ".join([*marks, *stated])


def _is_other_than_stamp(found: _Contents) -> str:
    is_named = _is_clam(found) or _is_trident(found)
    return "`features`" if "features" in found.names and _is_stamp(found) and not is_named else ""


def _is_trident(found: _Contents) -> str:
    return ", ".join(sorted({*found.carries("coords", _TRIDENT), *found.carries("features", _TRIDENT)}))


def _is_clam(found: _Contents) -> str:
    stated = found.carries("coords", _CLAM)
    if stated:
        return ", ".join(stated)
    if sorted(found.names) != ["coords", "features"] or len(found.data) != 2 or _has_attrs(found):
        return ""
    is_so = found.data["features"].dtype == np.float32 and found.data["coords"].dtype == np.int32
    return "`features` float32 and `coords` int32 without attributes" if is_so else ""


def _is_torchmil(found: _Contents) -> str:
    return "`features` alone, without attributes" if _is_bare(found) and found.data["features"].ndim > 1 else ""


def _is_pooled(found: _Contents) -> str:
    if not _is_bare(found):
        return ""
    shape = found.data["features"].shape
    is_one = (len(shape) == 1 and shape != (0,)) or (len(shape) == 2 and shape[0] == 1)
    return f"`features` alone, of one vector {shape}" if is_one else ""


def _is_bare(found: _Contents) -> bool:
    return found.names == ("features",) and "features" in found.data and not _has_attrs(found)


def _has_attrs(found: _Contents) -> bool:
    return bool(found.root) or any(found.attrs.values())


_RULES: dict[str, Callable[[_Contents], str]] = {
    "CLAM": _is_clam,
    "TRIDENT": _is_trident,
    "STAMP": _is_stamp,
    "CLAM, TRIDENT or torchmil": _is_other_than_stamp,
    "torchmil": _is_torchmil,
    "Patho-Bench (pooled)": _is_pooled,
}


def _vectors(writer: str) -> str:
    return "feats" if writer.startswith("STAMP") else "features"


def _check_level(found: _Contents, writer: str, path: Path) -> None:
    """Refuse what holds no vectors of tiles: one of a whole slide or patient, or places alone."""
    name = _vectors(writer)
    if name not in found.data:
        raise StoreError(
            f"{writer} wrote it ({_RULES[writer](found)}), but it has no `{name}`: it holds {found}",
            path,
            "Name the folder of the tiles' vectors, not that of their places.",
        )
    shape = found.data[name].shape
    level = _text(found.root.get("feat_type")) if writer == "STAMP" else ""
    is_pooled = len(shape) == 1 and shape != (0,)
    is_encoded = writer == "STAMP" and "coords" not in found.names and {"encoder", "precision"} <= found.root.keys()
    if level not in {"", "tile"} or is_pooled or is_encoded:
        raise StoreError(
            f"it holds one vector for a whole {level.replace('tile', '') or 'slide'} ({writer}: `{name}` {shape}), "
            "none for its tiles",
            path,
            "Name the folder of the tiles' vectors that it was made from.",
        )


def _stamp_um(found: _Contents) -> float | None:
    """The tile size that STAMP states, in the order in which it looks for it itself."""
    keys = ("tile_size", "tile_size_um") if _text(found.root.get("unit")) == "um" else ("tile_size_um",)
    sides = [_number(found.root.get(key)) or 0 for key in keys]
    return next((side for side in sides if side > 0), None)


def _stride(found: _Contents, path: Path) -> str:
    """Files of STAMP 1 state no tile size: only the median step between their columns and rows, 224, tells them."""
    stride = math.nan
    if "coords" in found.data and found.data["coords"].shape[1:] == (2,):
        _check_written(found, "coords", "STAMP", path)
        places: NDArray[np.float64] = found.data["coords"][:].astype(np.float64)
        steps = np.array([step for axis in places.T for step in np.diff(np.unique(axis))], dtype=np.float64)
        stride = float(np.median(steps)) if len(steps) else math.nan
    if math.isfinite(stride) and round(stride) == _STAMP_1_PX:
        return f"{stride:g}"
    raise StoreError(
        f"it looks like STAMP's ({_is_stamp(found)}), but states no tile size, and its tiles are "
        f"{f'{stride:g}' if math.isfinite(stride) else 'too few to see how far'} apart, not 224 as in STAMP 1",
        path,
        "Make it again with STAMP 2, which states the tile size.",
    )


def _check_parts(found: _Contents, writer: str, path: Path) -> None:
    """Refuse vectors and places that do not fit each other or were never written; nothing is allocated before."""
    name = _vectors(writer)
    vectors, again = found.data[name], f"Make it again with {writer}."
    shape = vectors.shape or ()
    if shape == (0,):
        raise StoreError("it holds no tiles, and not how wide their vectors are", path, "Leave it out.")
    if len(shape) != 2:
        raise StoreError(f"`{name}` is {shape}, not (tiles, width)", path, "Write it as (n, d).")
    if shape[1] == 0 or (shape[0] == 0 and writer != "TRIDENT"):
        raise StoreError(f"it is empty: `{name}` is {shape}", path, again)
    if vectors.dtype.newbyteorder("=") not in (np.float16, np.float32):
        raise StoreError(f"`{name}` is {vectors.dtype}", path, "Store it as float16 or float32.")
    if writer != "torchmil":
        if "coords" not in found.data:
            raise StoreError(f"it has no `coords`: it holds {found}", path, again)
        places = found.data["coords"]
        if places.shape != (shape[0], 2):
            raise StoreError(f"`{name}` is {shape}, but `coords` is {places.shape}", path, again)
        if not writer.startswith("STAMP") and places.dtype.kind not in "iu" and shape[0]:
            raise StoreError(f"`coords` is {places.dtype}, but {writer} means whole pixels", path, again)
        _check_written(found, "coords", writer, path)
    _check_written(found, name, writer, path)


def _check_written(found: _Contents, name: str, writer: str, path: Path) -> None:
    data, again = found.data[name], f"Make it again with {writer}."
    if data.is_virtual or data.external:
        raise StoreError(f"the values of `{name}` lie in other files", path, "Copy them into one file.")
    n_bytes = math.prod(data.shape) * data.dtype.itemsize
    if data.chunks is None:
        is_whole = data.id.get_storage_size() >= n_bytes
    else:
        n_chunks = math.prod(-(-side // step) for side, step in zip(data.shape, data.chunks, strict=True))
        is_whole = data.id.get_num_chunks() == n_chunks
    if not is_whole:
        raise StoreError(f"`{name}` is unfinished: some of its {data.shape} values were never written", path, again)
    if n_bytes > _MOST_PACKED * path.stat().st_size:
        raise StoreError(f"`{name}` claims more than the file holds", path, again)


def _read_features(found: _Contents, writer: str, path: Path) -> NDArray[Any]:
    vectors = found.data[_vectors(writer)]
    features = vectors[:].astype(vectors.dtype.newbyteorder("="), copy=False)
    broken = {
        "hold NaN or infinity": ~np.isfinite(features).all(axis=1),
        "are all zeros, as a killed writer leaves them": ~features.any(axis=1),
    }
    for what, rows in broken.items():
        if rows.any():
            raise StoreError(f"{rows.sum()} of {len(rows)} vectors {what}", path, f"Make it again with {writer}.")
    return features


def _coords_origin(writer: str) -> str:
    if writer in _IN_PIXELS:
        return "level0_topleft"
    if writer.startswith("STAMP"):
        return "unknown: STAMP gives micrometres, which are no pixels without the slide's mpp"
    return "unknown: the file holds none"


def _read_coords(found: _Contents, writer: str) -> NDArray[np.int64]:
    """Places (n, 2) in level-0 px, -1 where they are not known."""
    if writer in _IN_PIXELS:
        return found.data["coords"][:].astype(np.int64)
    return np.full((len(found.data[_vectors(writer)]), 2), -1, dtype=np.int64)


def _tiling(found: _Contents, writer: str) -> dict[str, float]:
    """What a file states of its tiles; what differs between slides of one tiling is left out.

    That is why level0_magnification and patch_size_level0 of TRIDENT, which follow the scanner, are not here.
    """
    if writer.startswith("STAMP"):
        is_old = writer == "STAMP 1"
        side = _STAMP_1_UM if is_old else _stamp_um(found)
        stated = {"tile_size_um_exact": side, "tile_size_px": _STAMP_1_PX if is_old else found.root.get("tile_size_px")}
    else:
        keys = ["patch_size", *(["target_magnification", "overlap"] if writer == "TRIDENT" else ["patch_level"])]
        stated = {key: found.attrs.get("coords", {}).get(key) for key in keys}
    return {key: number for key, value in stated.items() if (number := _number(value)) is not None}


def _scale(stated: dict[str, float]) -> dict[str, float]:
    """The tile's side in px under our own name, and the mpp where its side in um is stated too.

    TRIDENT's 10 / target_magnification is not the scale of its tiles: it bins magnifications, up to 38 % off.
    """
    um, px = stated.get("tile_size_um_exact", 0), round(stated.get("tile_size_px") or stated.get("patch_size") or 0)
    if px < 1:
        return {}
    return {"tile_size_px": px} | ({"mpp": um / px} if um else {})


def _begin(writer: str) -> str:
    return f"{PREFIX}-{writer.lower().replace(' ', '')}"


def _grid_id(stated: dict[str, float], writer: str) -> str:
    words = [f"{number:g}{_UNITS[key]}" for key, number in stated.items()]
    return "-".join([_begin(writer), *words, digest_of({"writer": writer, "tiles": stated})[:8]])


def _number(value: Any) -> float | None:
    """A finite number of an attribute, None where there is none."""
    try:
        number = float(_alone(value))
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _text(value: Any) -> str:
    """The text of an attribute; "" where there is none, for which TRIDENT writes "None"."""
    value = _alone(value)
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return "" if text == "None" else text.strip()


def _alone(value: Any) -> Any:
    return value.item() if isinstance(value, np.ndarray | np.generic) and value.size == 1 else value
