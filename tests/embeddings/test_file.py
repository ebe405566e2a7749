from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.embeddings import read_embeddings, write_embeddings
from histokin.embeddings.file import read_header
from histokin.errors import StoreError
from histokin.tiles import TileSpec, TileTable
from histokin.tiles.table import build_table

SPEC = TileSpec(256, 0.5, 192)


def table(n: int = 6, mpp: float | None = 0.2513) -> TileTable:
    x = np.arange(n) * 382
    meta = {"slide": "s/1", "mpp": mpp, "mpp_source": "file", "content_key": "ck", "width": 5000, "height": 400}
    return build_table({"x": x, "y": x + 1, "patient": ["p"] * n}, meta)


def write(path: Path, features: np.ndarray, rows: np.ndarray | None = None, **changed: object) -> Path:
    rows = np.arange(len(features), dtype=np.int64) if rows is None else rows
    options = {"encoder": "e", "fingerprint": "sha256:ff"} | changed
    write_embeddings(path, features.astype(np.float32), rows, table(max(6, len(features))), SPEC, **options)
    return path


@given(st.integers(0, 6), st.integers(1, 5), st.integers(0, 1000))
def test_vectors_come_back_to_half_precision_with_their_places(tmp_path: Path, n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.normal(0, 3, (n, d)).astype(np.float32)
    rows = np.sort(rng.permutation(6)[:n]).astype(np.int64)
    data = read_embeddings(write(tmp_path / "a.h5", features, rows))
    assert data.features.dtype == np.float16
    assert np.allclose(data.features, features, rtol=2**-10, atol=1e-6)
    assert np.array_equal(data.tile_id, rows)
    assert data.coords.tolist() == [[382 * i, 382 * i + 1] for i in rows]


def test_equal_content_gives_equal_bytes_without_time_host_or_path(tmp_path: Path) -> None:
    features = np.random.default_rng(0).normal(size=(6, 4))
    (tmp_path / "sub").mkdir()
    first = write(tmp_path / "a.h5", features).read_bytes()
    assert write(tmp_path / "sub" / "b.h5", features).read_bytes() == first
    assert str(tmp_path).encode() not in first


@pytest.mark.parametrize(
    ("value", "dtype"), [(59_999.0, np.float16), (60_001.0, np.float32), (-1e6, np.float32), (1e-3, np.float16)]
)
def test_what_would_overflow_half_precision_is_kept_in_single(value: float, dtype: type, tmp_path: Path) -> None:
    features = np.full((2, 3), 0.5)
    features[1, 2] = value
    data = read_embeddings(write(tmp_path / "a.h5", features))
    assert data.features.dtype == dtype
    assert data.features[1, 2] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_and_nothing_is_written(value: float, tmp_path: Path) -> None:
    features = np.zeros((4, 3))
    features[2, 1] = value
    with pytest.raises(StoreError, match="e gave NaN or infinity for 1 of 4 tiles of s/1"):
        write(tmp_path / "a.h5", features)
    assert list(tmp_path.iterdir()) == []


def test_no_tiles_make_a_valid_file_with_a_reason(tmp_path: Path) -> None:
    data = read_embeddings(write(tmp_path / "a.h5", np.zeros((0, 7)), empty_reason="all tiles were damaged"))
    assert (data.features.shape, data.coords.shape, data.tile_id.shape) == ((0, 7), (0, 2), (0,))
    assert (data.attrs["empty_reason"], data.attrs["n_tiles"]) == ("all tiles were damaged", 0)
    assert "empty_reason" not in read_embeddings(write(tmp_path / "b.h5", np.zeros((1, 7)))).attrs


def test_attributes_are_those_that_trident_readers_use(tmp_path: Path) -> None:
    with h5py.File(write(tmp_path / "a.h5", np.zeros((6, 2)))) as file:
        coords = dict(file["coords"].attrs)
        assert coords == {
            "patch_size": 256,
            "patch_size_level0": round(256 * 0.5 / 0.2513),
            "level0_magnification": pytest.approx(10 / 0.2513),
            "target_magnification": 20.0,
            "overlap": 64,
            "name": "s/1",
            "savetodir": "",
            "level0_width": 5000,
            "level0_height": 400,
        }
        assert dict(file["features"].attrs) == {"encoder": "e", "name": "s/1", "savetodir": "", "normalized": 0}
        assert file["coords"].dtype == np.int64
        assert file["features"].chunks is None  # contiguous


def test_nothing_in_it_would_make_another_tool_misread_it(tmp_path: Path) -> None:
    """STAMP takes pixels for micrometres where it finds these; CLAM reads another area by patch_level."""
    with h5py.File(write(tmp_path / "a.h5", np.zeros((6, 2)))) as file:
        assert not {"tile_size_um", "tile_size", "unit"} & set(file.attrs)
        assert "feats" not in file
        assert "patch_level" not in file["coords"].attrs
        assert file.attrs["tile_size_um_exact"] == 128.0
        assert file.attrs["coords_origin"] == "level0_topleft"
        assert (file.attrs["slide_id"], file.attrs["patient"], file.attrs["grid_id"]) == ("s/1", "p", SPEC.spec_id)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write(tmp_path / "a.h5", np.ones((2, 2))).read_bytes()

    def broken(*arguments: object) -> dict:
        raise OSError("No space left on device")

    monkeypatch.setattr("histokin.embeddings.file.versions", broken)
    with pytest.raises(OSError, match="No space"):
        write(tmp_path / "a.h5", np.zeros((2, 2)))
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_bytes() == old


def edit(path: Path, change) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replaced(name: str, data: np.ndarray):
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = data

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.attrs.pop("complete"), "unfinished"),
        (lambda f: f.attrs.update(complete=0), "unfinished"),
        (lambda f: f.attrs.update(n_tiles=5), "unfinished or damaged"),
        (lambda f: f.attrs.update(n_tiles="six"), "unfinished or damaged"),
        (lambda f: f.attrs.pop("encoder_fingerprint"), "unfinished or damaged"),
        (lambda f: f.attrs.pop("histokin_format"), "no histokin embedding file"),
        (lambda f: f.attrs.update(format_version="2.0"), r"format 2\.0"),
        (lambda f: f.pop("tile_id"), "cannot be read"),
        (replaced("features", np.zeros((6, 2, 2))), "damaged"),
        (replaced("features", np.float32(1)), "damaged"),
        (replaced("coords", np.zeros((6, 3), np.int64)), "damaged"),
        (replaced("tile_id", np.zeros((6, 1), np.int64)), "damaged"),
        (lambda f: (f.pop("features"), f.create_group("features")), "cannot be read"),
    ],
)
def test_unfinished_foreign_and_inconsistent_files_are_refused(change, said: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=said):
        read_embeddings(edit(write(tmp_path / "a.h5", np.zeros((6, 2))), change))
    with pytest.raises(StoreError, match=said):
        read_header(tmp_path / "a.h5")


def test_a_header_is_what_the_file_says_of_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", np.ones((5, 3)))
    header = read_header(path)
    assert header.shape == (5, 3)
    assert header.attrs == read_embeddings(path).attrs
    assert read_header(write(tmp_path / "b.h5", np.zeros((0, 7)))).shape == (0, 7)


def test_a_small_file_that_claims_gigabytes_is_refused_before_it_is_read(tmp_path: Path) -> None:
    def change(file: h5py.File) -> None:
        del file["features"]
        file.create_dataset("features", (6, 2**40), np.float16, chunks=(1, 1024))

    path = edit(write(tmp_path / "a.h5", np.zeros((6, 2))), change)
    for read in (read_embeddings, read_header):
        with pytest.raises(StoreError, match="claims more than it holds"):
            read(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_truncated_files_and_texts_are_refused(share: float, tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", np.zeros((6, 200)))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(StoreError, match="cannot be read"):
        read_embeddings(path)
    with pytest.raises(StoreError, match="cannot be read"):
        read_embeddings(tmp_path / "none.h5")
