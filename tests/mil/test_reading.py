"""Bags out of embedding stores: what is packed, what is read, and what is refused."""

import shutil
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from embeddings.foreign_files import TRIDENT_TILES, vectors, write_clam, write_trident

from histokin.embeddings import EmbeddingStore, read_embeddings, write_embeddings
from histokin.errors import EncoderMismatch, StoreError, TrainingError
from histokin.mil.reading import (
    BagSource,
    Draw,
    open_pack,
    pack_stores,
    read_ahead,
    read_bags,
    whole_bags,
)
from histokin.tiles import TileSpec
from histokin.tiles.table import build_table

SPEC = TileSpec(64, 0.5)
CPU = torch.device("cpu")
SIZES = {"a": 5, "b": 0, "c": 40, "d": 1}


def write(folder: Path, slide: str, features: np.ndarray, mark: str = "aa") -> Path:
    folder.mkdir(exist_ok=True)
    n = len(features)
    meta = {"slide": slide, "mpp": 0.5, "mpp_source": "file", "content_key": slide, "width": 100, "height": 100}
    table = build_table({"x": np.arange(n) * 10, "y": np.full(n, 7)}, meta)
    path, rows = folder / f"{slide}.h5", np.arange(n, dtype=np.int64)
    write_embeddings(path, features.astype(np.float32), rows, table, SPEC, encoder="net", fingerprint=f"sha256:{mark}")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, (slide, n) in enumerate(SIZES.items()):
        write(tmp_path / "store", slide, vectors(n, 6, seed=number))
    return tmp_path / "store"


def whole(source: BagSource) -> list[torch.Tensor]:
    """Every bag, read through the plan of an evaluation."""
    draws = whole_bags(source.lengths, np.arange(len(source)), n_bags=2, max_tiles=10**6)
    return [bag.x for _, packed in read_ahead(source, draws, CPU) for bag in packed.split()]


def test_a_pack_gives_back_every_slide_in_the_order_of_its_file(folder: Path, tmp_path: Path) -> None:
    source = pack_stores(tmp_path / "pack", [EmbeddingStore(folder)])
    assert source.slides == ("a", "c", "d")
    assert source.empty == ("b",)
    assert source.lengths.tolist() == [5, 40, 1]
    assert (source.encoder, source.fingerprint) == ("net", "sha256:aa")
    for slide, found in zip(source.slides, whole(source), strict=True):
        assert np.array_equal(found.numpy(), read_embeddings(folder / f"{slide}.h5").features.astype(np.float32))
    packed = read_bags(source, Draw(np.array([1]), np.array([0]), np.array([40])), CPU)
    assert packed.coords is not None
    assert packed.coords[:, 0].tolist() == list(range(0, 400, 10))


def test_rows_lie_in_a_random_order_that_depends_on_slide_and_seed_alone(folder: Path, tmp_path: Path) -> None:
    first = pack_stores(tmp_path / "pack", [EmbeddingStore(folder)])
    other = pack_stores(tmp_path / "other", [EmbeddingStore(folder)], seed=1)
    (tmp_path / "alone").mkdir()
    shutil.copy(folder / "c.h5", tmp_path / "alone")
    alone = pack_stores(tmp_path / "pack-of-one", [EmbeddingStore(tmp_path / "alone")])
    own = first.order[first.offsets[1] : first.offsets[2]]
    assert sorted(own.tolist()) == list(range(40))
    assert own.tolist() != list(range(40))
    assert alone.order.tolist() == own.tolist()
    assert other.order.tolist() != first.order.tolist()


@pytest.mark.parametrize("writer", ["clam", "trident"])
def test_other_tools_stores_become_bags(tmp_path: Path, writer: str) -> None:
    store = tmp_path / "store"
    store.mkdir()
    features = {slide: vectors(n, 5, seed=n) for slide, n in (("s1", 9), ("s2", 3))}
    for slide, x in features.items():
        if writer == "clam":
            write_clam(store / f"{slide}.h5", x)
        else:
            write_trident(store / f"{slide}.h5", x, name=slide, patch_size_level0=TRIDENT_TILES["patch_size_level0"])
    source = pack_stores(tmp_path / "pack", [EmbeddingStore(store)])
    for x, found in zip(features.values(), whole(source), strict=True):
        assert np.array_equal(found.numpy(), x.astype(np.float16).astype(np.float32))
    with h5py.File(store / "s1.h5") as file:
        packed = read_bags(source, Draw(np.array([0]), np.array([0]), np.array([9])), CPU)
        assert packed.coords is not None
        assert packed.coords.tolist() == file["coords"][:].tolist()


def test_a_pack_is_made_once_and_again_when_a_file_changes(folder: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    first = pack_stores(pack, [EmbeddingStore(folder)])
    (pack / "features.f16").touch()
    stamp = (pack / "features.f16").stat().st_mtime_ns
    assert pack_stores(pack, [EmbeddingStore(folder)]).digest == first.digest
    assert (pack / "features.f16").stat().st_mtime_ns == stamp
    write(folder, "d", vectors(2, 6, seed=9))
    changed = pack_stores(pack, [EmbeddingStore(folder)])
    assert changed.lengths.tolist() == [5, 40, 2]
    assert changed.digest != first.digest


def test_equal_stores_give_equal_bytes(folder: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        pack_stores(tmp_path / name, [EmbeddingStore(folder)])
    names = sorted(path.name for path in (tmp_path / "one").iterdir() if path.is_file())
    assert names == ["coords.i64", "features.f16", "hashes.u64", "offsets.i64", "order.i64", "pack.json"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_torn_pack_is_made_again_and_never_opened(folder: Path, tmp_path: Path) -> None:
    pack = tmp_path / "pack"
    whole_bags_of = [bag.numpy() for bag in whole(pack_stores(pack, [EmbeddingStore(folder)]))]
    (pack / "features.f16").write_bytes((pack / "features.f16").read_bytes()[:-2])
    with pytest.raises(StoreError, match="no whole pack"):
        open_pack(pack)
    again = whole(pack_stores(pack, [EmbeddingStore(folder)]))
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(whole_bags_of, again, strict=True))


def test_dimensions_too_large_for_half_precision_are_scaled_and_the_others_left_alone(tmp_path: Path) -> None:
    x = vectors(20, 3, seed=3).astype(np.float32)
    x[:, 1] *= 3e5
    (tmp_path / "store").mkdir()
    write_clam(tmp_path / "store" / "s.h5", x)
    source = pack_stores(tmp_path / "pack", [EmbeddingStore(tmp_path / "store")])
    assert source.scale is not None
    assert source.scale[[0, 2]].tolist() == [1, 1]
    assert source.scale[1] in 2.0 ** np.arange(1, 20)
    (found,) = whole(source)
    assert np.allclose(found.numpy(), x, rtol=1e-3, atol=1e-3)
    assert np.array_equal(found[:, [0, 2]].numpy(), x[:, [0, 2]].astype(np.float16).astype(np.float32))


def test_stores_of_different_encoders_are_refused_showing_both(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", "z", vectors(3, 6), mark="bb")
    with pytest.raises(EncoderMismatch, match=r"sha256:aa.*sha256:bb"):
        pack_stores(tmp_path / "pack", [EmbeddingStore(folder), EmbeddingStore(tmp_path / "other")])


def test_two_stores_of_one_encoder_are_joined_and_a_slide_in_both_is_refused(folder: Path, tmp_path: Path) -> None:
    write(tmp_path / "other", "z", vectors(3, 6))
    stores = [EmbeddingStore(folder), EmbeddingStore(tmp_path / "other")]
    assert pack_stores(tmp_path / "pack", stores).slides == ("a", "c", "d", "z")
    write(tmp_path / "other", "a", vectors(3, 6))
    with pytest.raises(StoreError, match="slide a is in two stores"):
        pack_stores(tmp_path / "pack", [EmbeddingStore(folder), EmbeddingStore(tmp_path / "other")])


def test_a_slide_without_a_bag_is_named_with_the_reason(folder: Path, tmp_path: Path) -> None:
    source = pack_stores(tmp_path / "pack", [EmbeddingStore(folder)])
    assert source.numbers(["d", "a"]).tolist() == [2, 0]
    with pytest.raises(TrainingError, match="1 of 2 slides have no bag; slide b: it has no tiles"):
        source.numbers(["a", "b"])
    with pytest.raises(TrainingError, match="slide q: it is not among the embeddings"):
        source.numbers(["q"])


def test_packing_holds_one_slide_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    for number in range(12):
        write_clam(tmp_path / "store" / f"s{number:02d}.h5", vectors(500, 64, seed=number).astype(np.float32))
    one = 500 * 64 * 4
    tracemalloc.start()
    pack_stores(tmp_path / "pack", [EmbeddingStore(tmp_path / "store")])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * one  # the file's rows, shuffled, as half floats, hashed; all twelve would be 12


def test_arrays_become_bags_without_loss_and_empty_or_broken_ones_are_named() -> None:
    bags = [vectors(n, 4, seed=n) for n in (3, 7)]
    source = BagSource.of_arrays(bags, ["x", "y"])
    assert all(np.array_equal(found.numpy(), x) for x, found in zip(bags, whole(source), strict=True))
    with pytest.raises(TrainingError, match="slide y is empty"):
        BagSource.of_arrays([bags[0], bags[1][:0]], ["x", "y"])
    with pytest.raises(TrainingError, match="slide 0 holds NaN"):
        BagSource.of_arrays([np.full((2, 3), np.nan)])


def test_equal_vectors_have_equal_hashes_across_slides_and_others_do_not() -> None:
    bags = [vectors(30, 4, seed=1), vectors(30, 4, seed=2)]
    bags[1][5] = bags[0][8]
    hashes = BagSource.of_arrays(bags).hashes
    assert len(np.unique(hashes)) == 59
