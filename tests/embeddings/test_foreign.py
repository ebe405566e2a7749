import hashlib
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from embeddings.foreign_files import (
    CLAM_TILES,
    STORED,
    TRIDENT_TILES,
    WRITERS,
    places,
    vectors,
    write_clam,
    write_clam_places,
    write_stamp,
    write_stamp1,
    write_stamp_slide,
    write_torchmil,
    write_trident,
    write_trident_places,
)
from hypothesis import given
from hypothesis import strategies as st

from histokin.embeddings import EmbeddingStore, read_embeddings, short_id, write_embeddings
from histokin.embeddings.foreign import is_foreign, read_foreign, read_foreign_header, recognise
from histokin.errors import EncoderMismatch, StoreError
from histokin.tiles import TileSpec
from histokin.tiles.table import build_table

SPEC = TileSpec(256, 0.5)


def write_own(path: Path, features: np.ndarray, fingerprint: str = "ab" * 32) -> Path:
    n = len(features)
    meta = {"slide": "s", "mpp": 0.25, "mpp_source": "file", "content_key": "ck", "width": 9000, "height": 9000}
    table = build_table({"x": places(n)[:, 0], "y": places(n)[:, 1]}, meta)
    rows = np.arange(n, dtype=np.int64)
    write_embeddings(path, features.astype(np.float32), rows, table, SPEC, encoder="net", fingerprint=fingerprint)
    return path


def edit(path: Path, change: Callable[[h5py.File], Any]) -> Path:
    with h5py.File(path, "r+") as file:
        change(file)
    return path


def replaced(name: str, data: np.ndarray, *, is_bare: bool = False) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        attrs = {} if is_bare else dict(file[name].attrs)
        del file[name]
        file[name] = data
        file[name].attrs.update(attrs)

    return change


@pytest.mark.parametrize("writer", WRITERS)
@given(st.integers(2, 70), st.integers(1, 40), st.integers(0, 1000))
def test_each_writer_is_recognised_and_its_vectors_come_back_bit_for_bit(
    writer: str, tmp_path: Path, n: int, d: int, seed: int
) -> None:
    features = vectors(n, d, seed=seed, dtype=STORED[writer])
    path = WRITERS[writer](tmp_path / "TCGA-A1.8f.h5", features)
    assert recognise(path).writer == writer
    data = read_foreign(path)
    assert data.features.dtype == STORED[writer]
    assert np.array_equal(data.features, features)
    assert data.tile_id.dtype == np.int64
    assert data.tile_id.tolist() == list(range(n))
    assert data.coords.dtype == np.int64
    pixels = places(n) if writer in {"CLAM", "TRIDENT"} else np.full((n, 2), -1)
    assert np.array_equal(data.coords, pixels)
    assert (data.attrs["slide_id"], data.attrs["writer"], data.attrs["n_tiles"]) == ("TCGA-A1.8f", writer, n)
    header = read_foreign_header(path)
    assert (header.shape, header.attrs) == ((n, d), data.attrs)


@pytest.mark.parametrize(
    ("writer", "why"),
    [
        ("CLAM", "`features` float32 and `coords` int32 without attributes"),
        (
            "TRIDENT",
            "encoder, level0_height, level0_magnification, level0_width, overlap, patch_size_level0, savetodir",
        ),
        ("STAMP", "`feats`, code_hash, extractor, feat_type, stamp_version, tile_size_px, tile_size_um, unit"),
        ("STAMP 1", "`feats`, extractor; no tile size, but tiles 224 apart"),
        ("torchmil", "`features` alone, without attributes"),
    ],
)
def test_what_a_writer_is_recognised_by_is_said(writer: str, why: str, tmp_path: Path) -> None:
    path = WRITERS[writer](tmp_path / "s.h5", vectors())
    assert recognise(path).why.startswith(why)
    assert read_foreign(path).attrs["recognised_by"] == recognise(path).why


@pytest.mark.parametrize(
    ("writer", "known"),
    [
        (
            "CLAM",
            {"encoder": "unnamed (CLAM, 4-d)", "coords_origin": "level0_topleft"},
        ),
        (
            "TRIDENT",
            {"encoder": "uni_v1", "coords_origin": "level0_topleft", "tile_size_px": 256, "target_magnification": 20},
        ),
        (
            "STAMP",
            {
                "encoder": "virchow2",
                "coords_origin": "unknown: STAMP gives micrometres, which are no pixels without the slide's mpp",
                "tile_size_px": 224,
                "tile_size_um_exact": 256.0,
                "mpp": 256 / 224,
            },
        ),
        (
            "STAMP 1",
            {
                "encoder": "STAMP-extract-v1.1.0_ctranspath",
                "tile_size_px": 224,
                "tile_size_um_exact": 256.0,
                "mpp": 256 / 224,
            },
        ),
        ("torchmil", {"encoder": "unnamed (torchmil, 4-d)", "coords_origin": "unknown: the file holds none"}),
    ],
)
def test_what_a_file_states_of_encoder_and_tiles_is_kept_and_nothing_more(
    writer: str, known: dict[str, Any], tmp_path: Path
) -> None:
    attrs = read_foreign(WRITERS[writer](tmp_path / "s.h5", vectors())).attrs
    assert {key: attrs[key] for key in known} == known
    # 10 / 20x is not the scale of TRIDENT's tiles, CLAM states none
    assert ("mpp" in attrs) == ("tile_size_um_exact" in attrs) == writer.startswith("STAMP")


def test_slide_ids_are_file_names_without_the_suffix_of_trident(tmp_path: Path) -> None:
    assert read_foreign(write_trident(tmp_path / "a.b_patches.h5", vectors())).attrs["slide_id"] == "a.b"
    assert read_foreign(write_clam(tmp_path / "a.b_patches.h5", vectors())).attrs["slide_id"] == "a.b_patches"


def identity(path: Path) -> tuple[str, str]:
    attrs = read_foreign(path).attrs
    return attrs["encoder_fingerprint"], attrs["grid_id"]


def test_fingerprints_are_of_writer_encoder_and_width_and_never_like_ours(tmp_path: Path) -> None:
    found = {
        name: identity(path)[0]
        for name, path in {
            "clam": write_clam(tmp_path / "1.h5", vectors()),
            "clam, wider": write_clam(tmp_path / "2.h5", vectors(d=5)),
            "trident": write_trident(tmp_path / "3.h5", vectors()),
            "trident, other": write_trident(tmp_path / "4.h5", vectors(), encoder="conch_v1"),
            "trident, None": write_trident(tmp_path / "5.h5", vectors(), encoder="None"),
            "stamp": write_stamp(tmp_path / "6.h5", vectors()),
            "stamp 1": write_stamp1(tmp_path / "7.h5", vectors()),
            "torchmil": write_torchmil(tmp_path / "8.h5", vectors()),
        }.items()
    }
    assert len(set(found.values())) == len(found)
    assert (
        found["trident"] == identity(write_trident(tmp_path / "9.h5", vectors(9, seed=3), target_magnification=10))[0]
    )
    for fingerprint in found.values():
        assert re.fullmatch(r"foreign-[a-z0-9]+-[0-9a-f]{16}", fingerprint)  # ours: 64 hex digits, or floor-...
        assert short_id(fingerprint) == fingerprint  # it may name a folder
    digest = hashlib.sha256(b'{"dim":4,"encoder":"uni_v1","writer":"TRIDENT"}').hexdigest()
    assert found["trident"] == f"foreign-trident-{digest[:16]}"  # indexes made of it must open in later versions
    assert read_foreign(tmp_path / "5.h5").attrs["encoder"] == "unnamed (TRIDENT, 4-d)"


def test_grids_are_of_the_tiling_and_not_of_the_scanner(tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    grid = identity(write_trident(path, vectors()))[1]
    assert re.fullmatch(r"foreign-trident-256px-20x-0ov-[0-9a-f]{8}", grid)
    scanner = {"level0_magnification": 20, "patch_size_level0": 256, "name": "t", "level0_width": 5}
    assert identity(write_trident(path, vectors(3), **scanner))[1] == grid
    assert identity(write_trident(path, vectors(), target_magnification=np.float32(20)))[1] == grid
    others = [{"target_magnification": 10}, {"patch_size": 512}, {"overlap": 64}]
    assert len({grid, *(identity(write_trident(path, vectors(), **other))[1] for other in others)}) == 4
    stamp = identity(write_stamp(path, vectors()))[1]
    assert re.fullmatch(r"foreign-stamp-256um-224px-[0-9a-f]{8}", stamp)
    assert identity(write_stamp(path, vectors(), tile_size_um=128.0))[1] != stamp
    assert identity(write_stamp(path, vectors(), stamp_version="2.1.0", code_hash="0"))[1] == stamp


def test_stamp_between_1_and_2_named_the_tile_size_otherwise(tmp_path: Path) -> None:
    path = write_stamp(tmp_path / "s.h5", vectors(), tile_size=128.0)
    assert read_foreign(path).attrs["tile_size_um_exact"] == 128.0  # in STAMP's own order, before tile_size_um
    edit(path, lambda file: file.attrs.pop("tile_size_um"))
    data = read_foreign(path)
    assert (data.attrs["writer"], data.attrs["tile_size_um_exact"], data.attrs["mpp"]) == ("STAMP", 128.0, 128 / 224)
    edit(path, lambda file: file.attrs.update(unit="px"))  # then it is no tile size, and the tiles are 256 apart
    with pytest.raises(StoreError, match="states no tile size, and its tiles are 256 apart, not 224"):
        recognise(path)


@pytest.mark.parametrize(("step", "is_old"), [(224, True), (223.6, True), (223.4, False), (256, False), (448, False)])
def test_stamp_1_is_known_only_by_tiles_224_apart(step: float, is_old: bool, tmp_path: Path) -> None:
    path = write_stamp1(tmp_path / "s.h5", vectors())
    edit(path, replaced("coords", places(6, step, dtype=np.float64)))
    if is_old:
        assert recognise(path).writer == "STAMP 1"
    else:
        with pytest.raises(StoreError, match=rf"its tiles are {step:g} apart, not 224"):
            recognise(path)


def test_gaps_between_pieces_of_tissue_do_not_hide_stamp_1(tmp_path: Path) -> None:
    coords = np.array([[0, 0], [224, 0], [448, 0], [1500, 224], [1724, 448]])
    path = edit(write_stamp1(tmp_path / "s.h5", vectors(5)), replaced("coords", coords))
    assert recognise(path).why.endswith("tiles 224 apart")
    with pytest.raises(StoreError, match="its tiles are too few to see how far apart"):
        recognise(write_stamp1(path, vectors(1)))


def test_half_precision_and_other_byte_orders_come_back_as_they_are(tmp_path: Path) -> None:
    half = vectors(dtype=np.float16)
    data = read_foreign(write_trident(tmp_path / "s.h5", half))
    assert data.features.dtype == np.float16
    assert np.array_equal(data.features, half)
    data = read_foreign(write_torchmil(tmp_path / "t.h5", vectors().astype(">f4")))
    assert data.features.dtype == np.dtype("=f4")
    assert np.array_equal(data.features, vectors())


def test_packed_files_are_read_too(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("features", data=vectors(100, 64), compression="gzip", shuffle=True, chunks=(7, 64))
        file.create_dataset("coords", data=places(100, dtype=np.int32), compression="gzip")
    data = read_foreign(tmp_path / "s.h5")
    assert np.array_equal(data.features, vectors(100, 64))
    assert np.array_equal(data.coords, places(100))


def test_a_slide_without_tissue_is_no_fault_of_trident(tmp_path: Path) -> None:
    data = read_foreign(write_trident(tmp_path / "s.h5", np.zeros((0, 4), np.float32)))
    assert (data.features.shape, data.coords.shape, data.tile_id.shape) == ((0, 4), (0, 2), (0,))
    assert (data.attrs["n_tiles"], data.attrs["empty_reason"]) == (0, "TRIDENT found no tiles")
    filled = write_trident(tmp_path / "t.h5", vectors())
    assert identity(tmp_path / "s.h5") == identity(filled)
    assert "empty_reason" not in read_foreign(filled).attrs
    with pytest.raises(StoreError, match="no tiles, and not how wide their vectors are"):
        read_foreign(write_trident(tmp_path / "u.h5", np.zeros(0, np.float32)))


@given(st.integers(0, 40), st.integers(1, 9), st.integers(0, 1000))
def test_no_file_of_ours_is_taken_for_a_foreign_one(tmp_path: Path, n: int, d: int, seed: int) -> None:
    path = write_own(tmp_path / "s.h5", vectors(n, d, seed=seed))
    assert not is_foreign(path)
    for read in (recognise, read_foreign):
        with pytest.raises(StoreError, match="histokin wrote this file itself"):
            read(path)
    edit(path, lambda file: file.attrs.pop("histokin_format"))  # damaged it would pass for TRIDENT's
    with pytest.raises(StoreError, match="histokin wrote this file itself"):
        recognise(path)


@pytest.mark.parametrize("writer", WRITERS)
@given(st.integers(2, 40), st.integers(1, 9), st.integers(0, 1000))
def test_no_foreign_file_is_taken_for_ours(writer: str, tmp_path: Path, n: int, d: int, seed: int) -> None:
    path = WRITERS[writer](tmp_path / "s.h5", vectors(n, d, seed=seed))
    assert is_foreign(path)
    with pytest.raises(StoreError, match="no histokin embedding file"):
        read_embeddings(path)


@pytest.mark.parametrize(
    ("write", "change", "named"),
    [
        (write_trident, lambda f: f.attrs.update(stamp_version="2.5.0", tile_size_um=256.0), ("TRIDENT", "STAMP")),
        (write_trident, lambda f: f["coords"].attrs.update(CLAM_TILES), ("CLAM", "TRIDENT")),
        (write_trident, lambda f: f.update(feats=vectors()), ("TRIDENT", "STAMP")),
        (write_stamp, lambda f: f["coords"].attrs.update(TRIDENT_TILES), ("TRIDENT", "STAMP")),
        (write_stamp, lambda f: f["coords"].attrs.update(CLAM_TILES), ("CLAM", "STAMP")),
        (write_stamp, lambda f: f.update(features=vectors()), ("STAMP", "CLAM, TRIDENT or torchmil")),
        (write_stamp1, lambda f: f.update(features=vectors()), ("STAMP", "CLAM, TRIDENT or torchmil")),
        (write_clam, lambda f: f.attrs.update(unit="um", tile_size_um=256.0), ("STAMP", "CLAM, TRIDENT or torchmil")),
        (write_torchmil, lambda f: f.attrs.update(extractor="uni"), ("STAMP", "CLAM, TRIDENT or torchmil")),
    ],
)
def test_marks_of_two_tools_in_one_file_stop_and_both_are_named(
    write: Callable[..., Path], change: Callable[[h5py.File], Any], named: tuple[str, str], tmp_path: Path
) -> None:
    path = edit(write(tmp_path / "s.h5", vectors()), change)
    for read in (recognise, read_foreign):
        with pytest.raises(StoreError, match=rf"more than one tool: {named[0]} \(.+\); {named[1]} \([^;]+\)\. "):
            read(path)


def test_one_vector_alone_may_be_a_tile_or_a_pooled_slide(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"more than one tool: torchmil .*; Patho-Bench \(pooled\)"):
        recognise(write_torchmil(tmp_path / "s.h5", vectors(1)))


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: write_stamp_slide(path, vectors(1)[0]), r"for a whole slide \(STAMP: `feats` \(4,\)\)"),
        (lambda path: write_stamp_slide(path, vectors(1)), r"for a whole slide \(STAMP: `feats` \(1, 4\)\)"),
        (lambda path: write_stamp_slide(path, vectors(1), "patient"), "for a whole patient"),
        (lambda path: edit(write_stamp_slide(path, vectors(1)), lambda f: f.attrs.pop("feat_type")), "a whole slide"),
        (lambda path: write_stamp(path, vectors(), feat_type="slide"), "for a whole slide"),
        (lambda path: write_trident(path, vectors(1)[0], level="slide"), r"slide \(TRIDENT: `features` \(4,\)\)"),
        (lambda path: write_torchmil(path, vectors(1)[0]), r"slide \(Patho-Bench \(pooled\): `features` \(4,\)\)"),
    ],
)
def test_vectors_of_slides_and_patients_are_refused_as_such(
    write: Callable[[Path], Path], said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "s.h5")
    for read in (recognise, read_foreign):
        with pytest.raises(StoreError, match=rf"it holds one vector .*{said}.*none for its tiles"):
            read(path)


@pytest.mark.parametrize(("write", "writer"), [(write_clam_places, "CLAM"), (write_trident_places, "TRIDENT")])
def test_places_without_vectors_are_refused_as_such(write: Callable[[Path], Path], writer: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=rf"{writer} wrote it .* has no `features`: it holds `coords` \(6, 2\) int64"):
        recognise(write(tmp_path / "s_patches.h5"))


@pytest.mark.parametrize(
    ("write", "change", "held"),
    [
        (write_clam, replaced("coords", places(6)), r"`coords` \(6, 2\) int64, `features` \(6, 4\) float32, with no"),
        (write_clam, replaced("features", vectors().astype(np.float64)), r"`features` \(6, 4\) float64"),
        (write_clam, lambda f: f["coords"].attrs.update(patch_size=256), "with the attributes patch_size"),
        (write_clam, lambda f: f.update(tile_id=np.arange(6)), "`tile_id`"),
        (write_clam, lambda f: f.pop("features"), r"`coords` \(6, 2\) int32, with no"),
        (write_clam, lambda f: (f.pop("features"), f.pop("coords")), "nothing, with no attributes"),
        (write_torchmil, lambda f: f["features"].attrs.update(normalised=1), "attributes normalised"),
        (write_torchmil, lambda f: (f.pop("features"), f.create_group("features")), "`features`, with no"),
        (write_torchmil, replaced("features", np.float32(1)), r"`features` \(\) float32"),
    ],
)
def test_what_no_tool_writes_is_refused_with_what_it_holds(
    write: Callable[..., Path], change: Callable[[h5py.File], Any], held: str, tmp_path: Path
) -> None:
    path = edit(write(tmp_path / "s.h5", vectors()), change)
    with pytest.raises(StoreError, match=f"no known tool writes such a file: it holds .*{held}.*CLAM, TRIDENT, STAMP"):
        recognise(path)


FIVE = replaced("coords", places(5))
FLAT = replaced("coords", np.arange(12).reshape(6, 2, 1))


@pytest.mark.parametrize(
    ("write", "change", "said"),
    [
        (write_trident, FIVE, r"`features` is \(6, 4\), but `coords` is \(5, 2\)"),
        (write_trident, FLAT, r"but `coords` is \(6, 2, 1\)"),
        (write_trident, replaced("coords", places(6).astype(float)), "float64, but TRIDENT means whole pixels"),
        (write_trident, lambda f: f.pop("coords"), "it has no `coords`"),
        (write_trident, replaced("features", vectors()[None]), r"`features` is \(1, 6, 4\), not \(tiles, width\)"),
        (write_trident, replaced("features", vectors().astype(np.float64)), "`features` is float64"),
        (write_trident, replaced("features", np.arange(24).reshape(6, 4)), "`features` is int64"),
        (write_trident, replaced("features", np.zeros((6, 0), np.float32)), r"it is empty: `features` is \(6, 0\)"),
        (
            write_trident,
            lambda f: [f[name].resize(7, axis=0) for name in f],
            r"unfinished: some of its \(7, 2\) values",
        ),
        (write_clam, lambda f: [f[name].resize(33, axis=0) for name in f], r"unfinished: some of its \(33, 2\) values"),
        (write_trident, lambda f: f["coords"].resize(8, axis=0), r"but `coords` is \(8, 2\)"),
        (write_clam, replaced("coords", places(5, dtype=np.int32)), r"but `coords` is \(5, 2\)"),
        (write_clam, replaced("features", vectors()[None]), r"`features` is \(1, 6, 4\)"),
        (write_clam, replaced("features", np.zeros((0, 4), np.float32)), "it is empty"),
        (write_stamp, FIVE, r"`feats` is \(6, 4\), but `coords` is \(5, 2\)"),
        (write_stamp, lambda f: f.pop("coords"), "it has no `coords`"),
        (write_stamp, lambda f: f.pop("feats"), "STAMP wrote it .* has no `feats`"),
        (write_stamp, replaced("feats", vectors()[None]), r"`feats` is \(1, 6, 4\)"),
        (write_stamp, lambda f: (f.pop("feats"), f.create_group("feats")), "has no `feats`"),
        (write_stamp1, FIVE, "its tiles are 512 apart"),
        (write_stamp1, lambda f: f.pop("coords"), "too few to see"),
        (write_torchmil, replaced("features", vectors()[None]), r"`features` is \(1, 6, 4\)"),
        (write_torchmil, replaced("features", np.zeros((0, 4), np.float32)), "it is empty"),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    write: Callable[..., Path], change: Callable[[h5py.File], Any], said: str, tmp_path: Path
) -> None:
    path = edit(write(tmp_path / "s.h5", vectors()), change)
    for read in (read_foreign, read_foreign_header):  # what a header claims is allocated: both check it
        with pytest.raises(StoreError, match=rf"s\.h5: .*{said}.* \[store\]"):
            read(path)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "NaN or infinity"), (-np.inf, "NaN or infinity"), (0, "all zeros, as a killed writer")]
)
def test_vectors_that_are_not_finite_or_only_zeros_are_counted_and_refused(
    writer: str, value: float, said: str, tmp_path: Path
) -> None:
    features = vectors(8)
    features[[1, 5]] = value
    with pytest.raises(StoreError, match=rf"2 of 8 vectors (hold|are) {said}.*Make it again with {writer}\."):
        read_foreign(WRITERS[writer](tmp_path / "s.h5", features))
    features = vectors(8)
    features[3, 2] = value
    if value == 0:  # one zero in a vector is nothing
        assert np.array_equal(read_foreign(WRITERS[writer](tmp_path / "s.h5", features)).features[3, 2], 0)
    else:
        with pytest.raises(StoreError, match="1 of 8 vectors"):
            read_foreign(WRITERS[writer](tmp_path / "s.h5", features))


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(writer: str, share: float, tmp_path: Path) -> None:
    path = WRITERS[writer](tmp_path / "s.h5", vectors(60, 50))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    for read in (recognise, read_foreign):
        with pytest.raises(StoreError, match=r"the file cannot be read .* make it again"):
            read(path)
    assert not is_foreign(path)


def test_texts_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("slide,label\n")
    (tmp_path / "b.h5").mkdir()
    for name in ("a.h5", "b.h5", "none.h5"):
        with pytest.raises(StoreError, match="the file cannot be read"):
            recognise(tmp_path / name)


@pytest.mark.parametrize("chunks", [None, (1, 4), (32, 3)])
def test_rows_that_a_killed_writer_left_out_are_seen_before_they_read_as_zeros(
    chunks: tuple[int, int] | None, tmp_path: Path
) -> None:
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (70, 4), np.float32, chunks=chunks)
        if chunks:
            file["features"][:60] = vectors(60)
    with pytest.raises(StoreError, match=r"unfinished: some of its \(70, 4\) values were never written"):
        read_foreign(path)
    edit(path, lambda file: file["features"].write_direct(vectors(70)))
    assert np.array_equal(read_foreign(path).features, vectors(70))


def test_small_files_that_claim_gigabytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", (6, 2**40), np.float16, chunks=(1, 1024))
    for read in (read_foreign, read_foreign_header):
        with pytest.raises(StoreError, match="never written"):
            read(tmp_path / "a.h5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("features", data=np.ones((1000, 4000), np.float32), chunks=(1000, 4000), compression="gzip")
    for read in (read_foreign, read_foreign_header):
        with pytest.raises(StoreError, match="claims more than the file holds"):
            read(tmp_path / "b.h5")


def test_a_file_does_not_lead_to_other_files(tmp_path: Path) -> None:
    secret = write_torchmil(tmp_path / "other.h5", vectors())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"] = h5py.ExternalLink(secret, "features")
    with pytest.raises(StoreError, match=r"its `features` lies in another file, .*other\.h5"):
        read_foreign(tmp_path / "a.h5")
    layout = h5py.VirtualLayout((6, 4), np.float32)
    layout[:] = h5py.VirtualSource(secret, "features", shape=(6, 4))
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_virtual_dataset("features", layout)
    with pytest.raises(StoreError, match="the values of `features` lie in other files"):
        read_foreign(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("features", (6, 4), np.float32, external=[(secret, 0, h5py.h5f.UNLIMITED)])
    with pytest.raises(StoreError, match="the values of `features` lie in other files"):
        read_foreign(tmp_path / "c.h5")


def test_torch_files_are_refused_with_a_command_that_makes_them_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    torch.save(torch.from_numpy(vectors()), tmp_path / "s.pt")
    with pytest.raises(StoreError, match="slideflow's bags, CLAM's pt_files") as caught:
        recognise(tmp_path / "s.pt")
    command = re.search(r'`python -c "(.+)" SLIDE\.pt SLIDE\.h5`', caught.value.remedy)
    assert command
    monkeypatch.setattr(sys, "argv", ["-c", str(tmp_path / "s.pt"), str(tmp_path / "s.h5")])
    exec(command[1], {})  # as another process would, without its second import of torch
    assert np.array_equal(read_foreign(tmp_path / "s.h5").features, vectors())


def test_a_store_opens_a_folder_of_another_tool(tmp_path: Path) -> None:
    write_trident(tmp_path / "a.h5", vectors(3))
    write_trident(tmp_path / "b.h5", vectors(4, seed=1))
    store = EmbeddingStore(tmp_path)
    rows = store.load()
    assert (store.encoder, rows.slides, len(rows)) == ("uni_v1", ("a", "b"), 7)
    np.testing.assert_array_equal(rows.bag(1), vectors(4, seed=1))
    write_own(tmp_path / "c.h5", vectors(2))
    with pytest.raises(StoreError, match="histokin wrote this file itself"):
        EmbeddingStore(tmp_path).load()
    write_trident(tmp_path / "c.h5", vectors(2), encoder="other")
    with pytest.raises(EncoderMismatch, match="uni_v1"):
        EmbeddingStore(tmp_path).load()


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.mark.parametrize("is_second_whole", [True, False])
def test_a_damaged_first_file_is_not_taken_for_ours(is_second_whole: bool, tmp_path: Path) -> None:
    cut(write_trident(tmp_path / "a.h5", vectors(3)))
    second = write_trident(tmp_path / "b.h5", vectors(3))
    if not is_second_whole:
        cut(second)
    with pytest.raises(StoreError, match=r"a\.h5: the file cannot be read") as caught:
        EmbeddingStore(tmp_path)
    assert caught.value.remedy.endswith("make it again with the tool that wrote it.")


def test_a_damaged_first_file_of_ours_is_known_by_the_next_or_by_the_manifest(tmp_path: Path) -> None:
    cut(write_own(tmp_path / "a.h5", vectors(3)))
    second = write_own(tmp_path / "b.h5", vectors(3))
    with pytest.raises(StoreError, match=r"a\.h5: the file cannot be read .*Run `histokin embed` again"):
        EmbeddingStore(tmp_path)
    cut(second)
    (tmp_path / "manifest.json").write_text('{"entries": [{"file": "a.h5"}, {"file": "b.h5"}]}')
    with pytest.raises(StoreError, match=r"a\.h5: the file cannot be read .*Run `histokin embed` again"):
        EmbeddingStore(tmp_path)


def test_two_files_of_one_slide_are_refused_and_both_are_named(tmp_path: Path) -> None:
    write_trident(tmp_path / "a.h5", vectors(3))
    write_trident(tmp_path / "a_patches.h5", vectors(4, seed=1))
    store = EmbeddingStore(tmp_path)
    for read in (store.load, lambda: list(store.slides())):
        with pytest.raises(StoreError, match=r"a\.h5 and a_patches\.h5 are both of slide a"):
            read()
