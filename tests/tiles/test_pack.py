from pathlib import Path

import numpy as np
import pytest
from worlds import slide_cohort, stained

from histokin.artefacts import Receipt, digest_file
from histokin.cohort import Cohort
from histokin.errors import TableError
from histokin.slides import open_slide
from histokin.tiles import PackedTiles, TileSpec, open_tiles, pack_ledger, plan_tiles, write_pack
from histokin.tissue import TissueMask

SPEC = TileSpec(48, 0.5)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return slide_cohort(tmp_path_factory.mktemp("c"), {"a": stained(300, 400, 1), "b": stained(200, 300, 2)})


def source_of(cohort: Cohort, name: str):
    record = cohort.record(name)
    with open_slide(cohort.path_of(record)) as slide:
        table = plan_tiles(record, slide.info, TissueMask(np.ones((9, 9), bool), 8.0), SPEC)
    return open_tiles(cohort, record, table, SPEC)


def pack(cohort: Cohort, folder: Path) -> list[Receipt]:
    return [write_pack(folder, name, source_of(cohort, name), SPEC, inputs=1) for name in "ab"]


@pytest.fixture(scope="module")
def packed(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Receipt]]:
    folder = tmp_path_factory.mktemp("p")
    return folder, pack(cohort, folder)


def test_cached_tiles_are_the_fresh_ones_within_one_jpeg_generation(cohort: Cohort, packed) -> None:
    tiles = PackedTiles(packed[0], SPEC, packed[1])
    fresh = [(i, b) for i, name in enumerate("ab") for b in source_of(cohort, name).stream(1000)]
    assert len(tiles) == sum(len(b.rows) for _, b in fresh) == 48 + 24
    assert tiles.slides.tolist() == [0] * 48 + [1] * 24
    assert tiles.table_rows.tolist() == [row for _, b in fresh for row in b.rows]
    cached = tiles.read(np.arange(len(tiles)))
    difference = np.abs(cached.astype(int) - np.concatenate([b.pixels for _, b in fresh]))
    assert difference.mean() < 1.5
    assert difference.max() <= 24
    tiles.close()


def test_any_order_and_repetition_gives_the_same_tiles(packed) -> None:
    tiles = PackedTiles(packed[0], SPEC, packed[1])
    everything = tiles.read(np.arange(len(tiles)))
    rows = np.random.default_rng(0).integers(0, len(tiles), 100)
    assert np.array_equal(tiles.read(rows), everything[rows])
    assert tiles.read(np.zeros(0, np.int64)).shape == (0, 48, 48, 3)
    tiles.close()


def test_few_open_files_serve_any_number_of_slides(packed, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = PackedTiles(packed[0], SPEC, packed[1]).read(np.arange(72))
    monkeypatch.setattr("histokin.tiles.pack._OPEN_FILES", 1)
    tiles = PackedTiles(packed[0], SPEC, packed[1])
    order = np.arange(72).reshape(3, 24).T.ravel()  # from slide to slide and back
    assert np.array_equal(tiles.read(order), expected[order])
    assert len(tiles._files) == 1
    tiles.close()
    assert len(tiles._files) == 0


def test_equal_slides_give_equal_packs(cohort: Cohort, packed, tmp_path: Path) -> None:
    again = pack(cohort, tmp_path)
    assert again == packed[1]
    for name in ("a.pack", "b.pack", "a.npy", "b.npy"):
        assert digest_file(tmp_path / name) == digest_file(packed[0] / name)
    assert PackedTiles(tmp_path, SPEC, again).digest == PackedTiles(packed[0], SPEC, packed[1]).digest
    assert PackedTiles(tmp_path, SPEC, again[:1]).digest != PackedTiles(tmp_path, SPEC, again).digest


def test_a_pack_of_another_tiling_or_quality_is_not_taken(packed) -> None:
    assert pack_ledger(packed[0], SPEC).find("a", 1) is not None
    assert pack_ledger(packed[0], TileSpec(48, 0.5, 24)).find("a", 1) is None
    assert pack_ledger(packed[0], SPEC).find("a", 2) is None


def test_a_damaged_cache_says_that_it_may_be_deleted(cohort: Cohort, tmp_path: Path) -> None:
    receipts = pack(cohort, tmp_path)
    data = (tmp_path / "a.pack").read_bytes()
    (tmp_path / "a.pack").write_bytes(data[: len(data) // 2])
    tiles = PackedTiles(tmp_path, SPEC, receipts)
    with pytest.raises(TableError, match="Delete the workspace's cache"):
        tiles.read(np.arange(48))
    tiles.close()


def test_a_kill_between_pack_and_index_leaves_nothing_that_looks_whole(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old receipt must not vouch for an old pack beside a new index."""
    write_pack(tmp_path, "a", source_of(cohort, "b"), SPEC, inputs="old")
    index = (tmp_path / "a.npy").read_bytes()

    rename, n_renamed = Path.replace, []

    def killed_at_the_second(self: Path, target: Path) -> Path:
        n_renamed.append(target)
        if len(n_renamed) == 2:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        write_pack(tmp_path, "a", source_of(cohort, "a"), SPEC, inputs="new")
    ledger = pack_ledger(tmp_path, SPEC)
    assert ledger.find("a", "new") is None
    assert (ledger.find("a", "old") is None) or (tmp_path / "a.npy").read_bytes() == index


def test_no_tiles_make_an_empty_pack(cohort: Cohort, tmp_path: Path) -> None:
    class Nothing:
        n_corrupt = 3

        def stream(self, batch: int):  # noqa: ARG002 - the protocol's
            return iter(())

    receipt = write_pack(tmp_path, "a", Nothing(), SPEC, inputs=1)
    assert receipt.facts == {"n_tiles": 0, "n_corrupt": 3}
    assert len(PackedTiles(tmp_path, SPEC, [receipt])) == 0
    assert len(PackedTiles(tmp_path, SPEC, [])) == 0
