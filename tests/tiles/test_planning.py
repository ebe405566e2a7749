from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.cohort import SlideRecord, TileRow
from histokin.slides import Level, SlideInfo
from histokin.tiles import ClassMap, TileSpec, native_spec, plan_given, plan_tiles
from histokin.tissue import TissueMask

RECORD = SlideRecord("s", "s.tiff", patient="p", mpp=0.5, mpp_source="file", width=1000, height=600, content_key="k")


def info(width: int = 1000, height: int = 600, mpp: float = 0.5) -> SlideInfo:
    return SlideInfo(width, height, (mpp, mpp), "file", (Level(width, height, 1.0, 1.0),), "v", "r", "w")


def mask(width: int, height: int, *box: int) -> TissueMask:
    values = np.zeros((height, width), bool)
    values[box[1] : box[3], box[0] : box[2]] = True
    return TissueMask(values, 8.0)


def test_tiles_are_kept_by_share_and_the_others_stay_with_their_reason() -> None:
    # a mask px is 20 slide px; tiles of 200 px are 10 mask px: tissue covers 1, .5, .4 of the first three
    values = np.zeros((30, 50), bool)
    values[:10, :10] = values[:10, 10:15] = values[:10, 20:24] = True
    table = plan_tiles(RECORD, info(), TissueMask(values, 10.0), TileSpec(100, 1.0))
    assert table.numpy("x").tolist() == [0, 200, 400]
    assert table.numpy("tissue") == pytest.approx([1.0, 0.5, 0.4])
    assert table.numpy("keep").tolist() == [True, True, False]
    assert table.numpy("reason").tolist() == ["", "", "background"]
    assert table.kept.tolist() == [0, 1]
    assert set(table.numpy("w0")) == {200}
    assert set(table.numpy("patient")) == {"p"}
    assert table.meta["content_key"] == "k"


@given(st.floats(0.11, 1.9), st.integers(8, 80), st.integers(0, 10))
def test_a_slide_full_of_tissue_keeps_every_tile_also_when_all_of_it_is_asked_for(
    mpp: float, px: int, seed: int
) -> None:
    """Shares are differences of large sums: a covered tile must not miss 1 by rounding."""
    width, height = 3000 + 7 * seed, 2000 + 11 * seed
    whole = TissueMask(np.ones((height // 16, width // 16), bool), 8.0)
    table = plan_tiles(RECORD, info(width, height, mpp), whole, TileSpec(px, 8.0 * mpp, min_tissue=1.0))
    assert len(table) > 0
    assert table.numpy("keep").all()


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.11, 1.9))
def test_tiles_without_tissue_get_no_row(x: int, y: int, mpp: float) -> None:
    """Only the tiles that touch the box; rounding in the sums makes no tissue far away."""
    table = plan_tiles(RECORD, info(1999, 1999, mpp), mask(124, 124, x, y, x + 40, y + 40), TileSpec(16, 6 * mpp))
    scale, side = 1999 / 124, 16 * 6.0
    columns, rows = table.numpy("col") * side, table.numpy("row") * side
    assert (columns + side > x * scale - 1e-6).all()
    assert (columns < (x + 40) * scale + 1e-6).all()
    assert (rows + side > y * scale - 1e-6).all()
    assert (rows < (y + 40) * scale + 1e-6).all()


def test_positions_are_rounded_once_and_half_goes_up() -> None:
    record = info(4000, 200, 0.5)
    table = plan_tiles(RECORD, record, TissueMask(np.ones((10, 200), bool), 8.0), TileSpec(17, 0.75, min_tissue=0.0))
    first = table.numpy("row") == 0
    assert table.numpy("x")[first].tolist() == [int(np.floor(i * 25.5 + 0.5)) for i in range(first.sum())]


def test_a_class_map_labels_each_tile_with_its_share() -> None:
    values = np.zeros((6, 10), np.uint8)
    values[:, :3], values[:, 3:] = 1, 2
    table = plan_tiles(
        RECORD, info(), TissueMask(np.ones((6, 10), bool), 8.0), TileSpec(100, 1.0), ClassMap(values, {1: "a", 2: "b"})
    )
    assert table.numpy("label")[:5].tolist() == ["a", "a", "b", "b", "b"]
    assert table.numpy("label_frac")[:5] == pytest.approx([1.0, 0.5, 1.0, 1.0, 1.0])
    assert table.label_columns == ("label",)


def test_a_slide_without_tissue_or_smaller_than_a_tile_has_an_empty_table() -> None:
    for size, spec in (((1000, 600), TileSpec(100, 1.0)), ((100, 100), TileSpec(256, 1.0))):
        table = plan_tiles(RECORD, info(*size), mask(20, 20, 0, 0, 0, 0), spec)
        assert len(table) == 0
        assert table.kept.tolist() == []


def test_without_mpp_there_is_no_plan() -> None:
    unknown = SlideInfo(9, 9, None, "none", (Level(9, 9, 1.0, 1.0),), "v", "r", "w")
    with pytest.raises(ValueError, match="without mpp"):
        plan_tiles(RECORD, unknown, mask(5, 5, 0, 0, 5, 5), TileSpec())


# --- given tiles ----------------------------------------------------------------------------------------------------


def test_given_tiles_are_all_kept_except_those_with_a_reason() -> None:
    tiles = [
        TileRow("s", "a.png", 3, 4, 50, "p1", "r", "train", {"label": "t", "organ": "lung"}),
        TileRow("s", "b.png"),
    ]
    table = plan_given(RECORD, tiles, TileSpec(is_given=True))
    assert table.numpy("keep").all()
    assert table.numpy("x").tolist() == [3, -1]
    assert table.numpy("w0").tolist() == [50, -1]
    assert table.numpy("path").tolist() == ["a.png", "b.png"]
    assert table.labels("organ").tolist() == ["lung", ""]
    assert (table.numpy("region")[0], table.numpy("split")[0], table.numpy("patient")[0]) == ("r", "train", "p1")
    assert table.label_columns == ("label", "organ")
    table = plan_given(RECORD, tiles, TileSpec(is_given=True), ["", "unreadable"])
    assert table.kept.tolist() == [0]
    assert table.numpy("reason").tolist() == ["", "unreadable"]


@pytest.mark.parametrize(
    ("sizes", "picture", "asked", "px", "mpp"),
    [([100, 100, 50], 0, None, 100, 0.5), ([], 64, None, 64, 0.5), ([100], 0, 50, 50, 1.0), ([], 64, 128, 128, 0.25)],
)
def test_a_tile_sets_own_size_and_scale_by_hand(
    sizes: list, picture: int, asked: int | None, px: int, mpp: float
) -> None:
    tiles = [TileRow("s", "a", 0, 0, size) for size in sizes]
    spec = native_spec(tiles, picture, 0.5, asked)
    assert (spec.tile_px, spec.mpp, spec.is_given) == (px, mpp, True)


def test_planning_touches_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr(Path, "open", refuse)
    plan_given(RECORD, [TileRow("s", "a.png")], TileSpec(is_given=True))
