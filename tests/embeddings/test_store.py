import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from histokin.embeddings import EmbeddingStore, write_embeddings
from histokin.errors import EncoderMismatch, StoreError
from histokin.tiles import TileSpec
from histokin.tiles.table import build_table

SPEC = TileSpec(64, 0.5)


def write(folder: Path, slide: str, n: int, *, spec: TileSpec = SPEC, encoder: str = "net", mark: str = "aa") -> Path:
    meta = {"slide": slide, "mpp": 0.5, "mpp_source": "file", "content_key": slide, "width": 100, "height": 100}
    table = build_table({"x": np.arange(n) * 10, "y": np.zeros(n, int)}, meta)
    features = np.arange(n * 3).reshape(n, 3) + 100 * (ord(slide[0]) - 96)
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
    import h5py

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
