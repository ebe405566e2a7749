from pathlib import Path

import cv2
import numpy as np
import pytest
from worlds import damage_tile, png, slide_cohort, stained, write_csv

from histokin.cohort import Cohort, take_inventory
from histokin.errors import SlideUnreadable
from histokin.slides import open_slide
from histokin.tiles import TileSpec, TileTable, open_tiles, plan_given, plan_tiles
from histokin.tiles.reading import plan_read, read_band
from histokin.tiles.source import MAX_ERRORS
from histokin.tissue import TissueMask

SPEC = TileSpec(64, 0.5)
FULL = TissueMask(np.ones((60, 60), bool), 8.0)
NAMES = ("whole", "damaged")


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """The same slide twice; in `damaged` one stored tile of 256 px, in `ruined` all but one, are zeroed."""
    root = tmp_path_factory.mktemp("c")
    made = slide_cohort(root, dict.fromkeys((*NAMES, "ruined"), stained(768, 1024)))
    damage_tile(root / "damaged.tiff", (1, 2))
    for column in range(4):
        for row in range(3):
            if (column, row) != (0, 0):
                damage_tile(root / "ruined.tiff", (column, row))
    return made


def table_of(cohort: Cohort, name: str, spec: TileSpec = SPEC) -> TileTable:
    record = cohort.record(name)
    with open_slide(cohort.path_of(record)) as slide:
        return plan_tiles(record, slide.info, FULL, spec)


def read_all(cohort: Cohort, name: str, batch: int = 50, spec: TileSpec = SPEC, rows: np.ndarray | None = None):
    source = open_tiles(cohort, cohort.record(name), table_of(cohort, name, spec), spec, rows)
    batches = list(source.stream(batch))
    found = np.concatenate([b.rows for b in batches]) if batches else np.zeros(0, np.int64)
    pixels = np.concatenate([b.pixels for b in batches]) if batches else np.zeros((0, 64, 64, 3), np.uint8)
    return found, pixels, [len(b.rows) for b in batches], source


@pytest.mark.parametrize("batch", [1, 7, 48, 1000])
def test_tiles_come_in_table_order_whatever_the_batch(batch: int, cohort: Cohort) -> None:
    rows, pixels, sizes, source = read_all(cohort, "whole", batch)
    assert rows.tolist() == table_of(cohort, "whole").kept.tolist() == list(range(12 * 16))
    assert sizes == [batch] * (192 // batch) + ([192 % batch] if 192 % batch else [])
    assert source.n_corrupt == 0
    assert np.array_equal(pixels, read_all(cohort, "whole", 192)[1])


def test_a_tile_is_the_slides_own_pixels(cohort: Cohort) -> None:
    rows, pixels, _, _ = read_all(cohort, "whole")
    table = table_of(cohort, "whole")
    with open_slide(cohort.path_of(cohort.record("whole"))) as slide:
        for i in (0, 17, 191):
            x, y = table.numpy("x")[rows[i]], table.numpy("y")[rows[i]]
            assert np.array_equal(pixels[i], slide.read(int(x), int(y), 64, 64))


def test_rows_can_be_asked_for_in_any_order(cohort: Cohort) -> None:
    wanted = np.random.default_rng(0).permutation(192)[:40].astype(np.int64)
    rows, pixels, _, _ = read_all(cohort, "whole", rows=wanted)
    assert rows.tolist() == wanted.tolist()
    assert np.array_equal(pixels, read_all(cohort, "whole")[1][wanted])


def test_only_the_damaged_tiles_are_left_out_and_the_others_equal_the_undamaged_ones(cohort: Cohort) -> None:
    rows, pixels, _, source = read_all(cohort, "damaged")
    table = table_of(cohort, "damaged")
    x, y = table.numpy("x"), table.numpy("y")
    is_hit = (x >= 256) & (x < 512) & (y >= 512)
    assert source.n_corrupt == is_hit.sum() == 16
    assert rows.tolist() == np.flatnonzero(~is_hit).tolist()
    assert np.array_equal(pixels, read_all(cohort, "whole")[1][rows])


def test_reading_twice_counts_damage_once(cohort: Cohort) -> None:
    _, _, _, source = read_all(cohort, "damaged")
    list(source.stream(10))
    assert source.n_corrupt == 16


def test_a_slide_with_too_much_damage_is_given_up(cohort: Cohort) -> None:
    source = open_tiles(cohort, cohort.record("ruined"), table_of(cohort, "ruined"), SPEC)
    with pytest.raises(SlideUnreadable, match="cannot be decoded"):
        list(source.stream(10))
    assert source.n_corrupt == MAX_ERRORS + 1


def test_positions_come_from_the_lattice_not_from_the_tables_rounded_numbers(tmp_path: Path) -> None:
    """At .2513 um a tile of 32 px at .5 um has 63.67 px: rounding would be 3 px off after ten tiles."""
    cohort = slide_cohort(tmp_path, {"a": stained(200, 1024)}, mpp=0.2513)
    spec = TileSpec(32, 0.5)
    rows, pixels, _, _ = read_all(cohort, "a", spec=spec)
    with open_slide(cohort.path_of(cohort.records[0])) as slide:
        plan = plan_read(slide.info, 0.5, 32)
        for row, tile in zip(rows, pixels, strict=True):
            y, x = divmod(int(row), 16)
            at = np.array([x, y]) * (32 * 0.5 / slide.info.mpp[0])
            assert np.array_equal(tile, read_band(slide, plan, at[:1], at[1:])[0])


def test_coarser_tiles_read_from_a_level_agree_with_the_full_picture(cohort: Cohort) -> None:
    spec = TileSpec(32, 2.0)
    rows, pixels, _, _ = read_all(cohort, "whole", spec=spec)
    picture = stained(768, 1024)
    boxes = picture.reshape(192, 4, 256, 4, 3).mean(axis=(1, 3))
    for row, tile in zip(rows, pixels, strict=True):
        y, x = divmod(int(row), 8)
        assert np.abs(tile - boxes[32 * y : 32 * y + 32, 32 * x : 32 * x + 32]).mean() < 5  # two JPEG generations


# --- given tiles ----------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for name, size in (("a", 64), ("b", 64), ("c", 128)):
        (tmp_path / f"{name}.png").write_bytes(png(stained(size, size, ord(name))))
    return tmp_path


def given(root: Path, rows: list[dict[str, object]], px: int = 64):
    cohort = take_inventory(write_csv(root / "t.csv", rows), mpp=0.5, kind="tiles")
    spec = TileSpec(px, 0.5, min_tissue=0.0, is_given=True)
    (record,) = cohort.records
    source = open_tiles(cohort, record, plan_given(record, cohort.tiles, spec), spec)
    batches = list(source.stream(100))
    return np.concatenate([b.rows for b in batches]), np.concatenate([b.pixels for b in batches]), source


def test_files_of_their_own_come_as_they_are_and_others_are_resized(pictures: Path) -> None:
    rows, pixels, _ = given(pictures, [{"path": f"{n}.png", "label": n} for n in "abc"])
    assert rows.tolist() == [0, 1, 2]
    assert np.array_equal(pixels[0], stained(64, 64, ord("a")))
    large = stained(128, 128, ord("c"))
    assert np.abs(pixels[2] - large.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))).max() <= 0.51


def test_squares_are_cut_where_the_table_says(pictures: Path) -> None:
    corners = [(0, 0), (64, 64), (3, 17), (100, 100)]
    rows = [{"slide": "s", "path": "c.png", "x": x, "y": y, "size": 28} for x, y in corners]
    _, pixels, _ = given(pictures, rows, px=28)
    large = stained(128, 128, ord("c"))
    for (x, y), tile in zip(corners, pixels, strict=True):
        assert np.array_equal(tile, large[y : y + 28, x : x + 28])


def test_a_square_left_of_the_picture_is_no_whole_picture(pictures: Path) -> None:
    """x = -4 is a coordinate, not the -1 of files without coordinates: never the whole file, shrunk."""
    _, pixels, _ = given(pictures, [{"slide": "s", "path": "c.png", "x": -4, "y": 0, "size": 32}], px=32)
    assert (pixels[0][:, :4] == 255).all()
    assert np.array_equal(pixels[0][:, 4:], stained(128, 128, ord("c"))[:32, :28])


def test_small_tiles_are_enlarged_without_ringing(pictures: Path) -> None:
    flat = np.full((16, 16, 3), 200, np.uint8)
    (pictures / "s.png").write_bytes(png(flat))
    _, pixels, _ = given(pictures, [{"path": "s.png", "label": "x"}])
    assert (pixels[0] == 200).all()


def test_a_tile_file_that_cannot_be_decoded_is_counted_and_left_out(pictures: Path) -> None:
    rows = [{"slide": "s", "path": f"{n}.png", "label": n} for n in "abc"]
    (pictures / "b.png").write_bytes(png(stained(64, 64))[:-200])
    found, pixels, source = given(pictures, rows)
    assert found.tolist() == [0, 2]
    assert source.n_corrupt == 1
    assert len(pixels) == 2


def test_grey_and_colour_files_mix(pictures: Path) -> None:
    (pictures / "b.png").write_bytes(cv2.imencode(".png", np.full((64, 64), 99, np.uint8))[1].tobytes())
    _, pixels, _ = given(pictures, [{"slide": "s", "path": f"{n}.png", "label": n} for n in "ab"])
    assert (pixels[1] == 99).all()
