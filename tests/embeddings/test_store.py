import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from embeddings.foreign_files import vectors, write_clam

from histokin.embeddings import Embeddings, EmbeddingStore, write_embeddings
from histokin.errors import EncoderMismatch, StoreError
from histokin.tiles import TileSpec
from histokin.tiles.table import build_table

SPEC = TileSpec(64, 0.5)


def write(
    folder: Path, slide: str, n: int, d: int = 3, *, spec: TileSpec = SPEC, encoder: str = "net", mark: str = "aa"
) -> Path:
    meta = {"slide": slide, "mpp": 0.5, "mpp_source": "file", "content_key": slide, "width": 100, "height": 100}
    table = build_table({"x": np.arange(n) * 10, "y": np.zeros(n, int)}, meta)
    features = np.arange(n * d).reshape(n, d) % 1000 + 100 * (ord(slide[0]) - 96)
    path = folder / f"{slide}.h5"
    rows = np.arange(n, dtype=np.int64)
    write_embeddings(
        path, features.astype(np.float32), rows, table, spec, encoder=encoder, fingerprint=f"sha256:{mark}"
    )
    return path


def test_a_store_is_the_matrix_of_its_slides_in_order_of_names(tmp_path: Path) -> None:
    for slide, n in (("b", 2), ("a", 3), ("c", 0)):
        write(tmp_path, slide, n)
    store = EmbeddingStore(tmp_path)
    data = store.load()
    assert len(store) == 3
    assert (store.encoder, store.fingerprint, store.grid_id) == ("net", "sha256:aa", SPEC.spec_id)
    assert data.slides == ("a", "b")  # a slide without tiles is left out
    assert data.slide.tolist() == [0, 0, 0, 1, 1]
    assert data.tile_id.tolist() == [0, 1, 2, 0, 1]
    assert data.features.dtype == np.float32
    assert len(data) == 5
    assert np.array_equal(data.bag(1), np.arange(6).reshape(2, 3) + 200)
    assert data.coords[:, 0].tolist() == [0, 10, 20, 0, 10]


@pytest.mark.parametrize("counts", [(1,), (0, 3), (2, 0, 1), (4, 1, 0, 0, 2)])
def test_the_matrix_is_its_slides_joined(counts: tuple[int, ...], tmp_path: Path) -> None:
    for slide, n in zip("abcde", counts, strict=False):
        write(tmp_path, slide, n)
    store = EmbeddingStore(tmp_path)
    data, parts = store.load(), [part for part in store.slides() if len(part.features)]
    assert data.slides == tuple(part.attrs["slide_id"] for part in parts)
    assert data.slide.tolist() == [i for i, part in enumerate(parts) for _ in part.features]
    assert (data.slide.dtype, data.tile_id.dtype, data.coords.dtype) == (np.int32, np.int64, np.int64)
    for name in ("features", "tile_id", "coords"):
        assert np.array_equal(getattr(data, name), np.concatenate([getattr(part, name) for part in parts]))


def peak_bytes(call: Callable[[], object]) -> int:
    """The most bytes that were allocated at once while it ran, its result among them."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def n_bytes(rows: Embeddings) -> int:
    return sum(part.nbytes for part in (rows.features, rows.slide, rows.tile_id, rows.coords))


@pytest.mark.parametrize("is_own", [True, False])
def test_loading_takes_little_more_memory_than_the_matrix(is_own: bool, tmp_path: Path) -> None:
    for slide in "abcdefgh":
        if is_own:
            write(tmp_path, slide, 300, 256)
        else:
            write_clam(tmp_path / f"{slide}.h5", vectors(300, 256))
    store = EmbeddingStore(tmp_path)
    size = n_bytes(store.load())
    assert size > 2400 * 256 * 4
    assert size < peak_bytes(store.load) < 1.25 * size  # the matrix, and one slide of eight


@pytest.mark.parametrize("is_own", [True, False])
def test_opening_reads_no_vectors(is_own: bool, tmp_path: Path) -> None:
    path = write(tmp_path, "a", 2000, 256) if is_own else write_clam(tmp_path / "a.h5", vectors(2000, 256))
    assert peak_bytes(lambda: EmbeddingStore(tmp_path).encoder) < path.stat().st_size / 5


def test_two_files_of_one_slide_are_refused_and_both_are_named(tmp_path: Path) -> None:
    shutil.copy(write(tmp_path, "a", 2), tmp_path / "a copy.h5")
    store = EmbeddingStore(tmp_path)
    for read in (store.load, lambda: list(store.slides())):
        with pytest.raises(StoreError, match=r"a copy\.h5 and a\.h5 are both of slide a"):
            read()


@pytest.mark.parametrize("d", [1, 4])  # NumPy would repeat a width of 1 in silence
def test_vectors_of_another_width_are_refused(d: int, tmp_path: Path) -> None:
    write(tmp_path, "a", 2)
    write(tmp_path, "b", 2, d)
    with pytest.raises(EncoderMismatch, match=rf"b\.h5: its vectors are {d} wide, those of the store 3"):
        EmbeddingStore(tmp_path).load()


@pytest.mark.parametrize(("n", "mark"), [(1, "aa"), (3, "aa"), (2, "bb")])
def test_a_file_that_changes_while_the_store_is_read_is_refused(
    n: int, mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").mkdir()
    new = write(tmp_path / "new", "b", n, mark=mark)
    for slide in "ab":
        write(tmp_path, slide, 2)
    openings: list[str] = []

    def opening(path: Path, *arguments: Any, **options: Any) -> h5py.File:
        openings.append(path.name)
        if openings.count("b.h5") == 2:  # after its header
            new.replace(path)
        return original(path, *arguments, **options)

    original = h5py.File
    store = EmbeddingStore(tmp_path)
    monkeypatch.setattr(h5py, "File", opening)
    with pytest.raises(StoreError, match=r"b\.h5: it changed while the store was read"):
        store.load()


def test_mixed_encoders_are_refused_and_both_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a", 1, encoder="resnet18", mark="aa")
    write(tmp_path, "b", 1, encoder="resnet50", mark="bb")
    with pytest.raises(EncoderMismatch, match=r"resnet18 sha256:aa in the store, resnet50 sha256:bb in this file"):
        EmbeddingStore(tmp_path).load()


def test_mixed_tilings_are_refused_and_both_are_named(tmp_path: Path) -> None:
    write(tmp_path, "a", 1)
    other = TileSpec(64, 1.0)
    write(tmp_path, "b", 1, spec=other)
    with pytest.raises(EncoderMismatch, match=rf"grid_id differs.*{SPEC.spec_id}.*{other.spec_id}"):
        EmbeddingStore(tmp_path).load()


def test_half_and_single_precision_mix(tmp_path: Path) -> None:
    write(tmp_path, "a", 1)
    meta = {"slide": "b", "mpp": 0.5, "mpp_source": "file", "content_key": "b", "width": 1, "height": 1}
    write_embeddings(
        tmp_path / "b.h5", np.full((1, 3), 1e6, np.float32), np.zeros(1, np.int64),
        build_table({"x": [0], "y": [0]}, meta), SPEC, encoder="net", fingerprint="sha256:aa",
    )  # fmt: skip
    assert EmbeddingStore(tmp_path).load().features[1].tolist() == [1e6] * 3


def test_what_another_process_is_writing_is_no_part_of_the_store(tmp_path: Path) -> None:
    write(tmp_path, "a", 1)
    (tmp_path / f".b.h5.{os.getppid()}-0123456789abcdef.tmp.h5").write_bytes(b"half")
    assert EmbeddingStore(tmp_path).load().slides == ("a",)


def test_an_empty_folder_and_one_of_empty_slides_say_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no embeddings here"):
        EmbeddingStore(tmp_path)
    write(tmp_path, "a", 0)
    with pytest.raises(StoreError, match="not one slide has tiles"):
        EmbeddingStore(tmp_path).load()


def test_a_foreign_file_among_them_is_named(tmp_path: Path) -> None:
    write(tmp_path, "a", 1)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["features"] = np.zeros((2, 3))
    with pytest.raises(StoreError, match=r"b\.h5: this is no histokin embedding file"):
        EmbeddingStore(tmp_path).load()


def test_a_store_may_be_moved(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    write(tmp_path / "1", "a", 2)
    first = EmbeddingStore(tmp_path / "1").load()
    shutil.move(tmp_path / "1", tmp_path / "2")
    assert np.array_equal(EmbeddingStore(str(tmp_path / "2")).load().features, first.features)


@pytest.mark.parametrize("text", ["", "[]", '{"entries": [{}]}'])
def test_a_damaged_manifest_is_said_so(text: str, tmp_path: Path) -> None:
    write(tmp_path, "a", 1)
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match="manifest is damaged"):
        EmbeddingStore(tmp_path)
