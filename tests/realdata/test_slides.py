"""Quick looks at real tissue: files open or get their state, known areas are found, known tables understood."""

import os
from pathlib import Path

import numpy as np
import pytest

from histokin.cohort import Cohort, take_inventory
from histokin.errors import CohortError
from histokin.slides import open_slide
from histokin.tiles import TileSpec, native_spec, open_tiles, plan_given
from histokin.tiles.planning import plan_tiles
from histokin.tissue import TissueSpec, segment_slide

DATA = Path(os.environ.get("HISTOKIN_DATA") or Path(__file__).parents[3] / "shared" / "data")
pytestmark = [
    pytest.mark.realdata,
    pytest.mark.skipif(not (DATA / "README.md").exists(), reason="the real data of HISTOKIN_DATA are absent"),
]
TCGA, CMU = "TCGA-CR-7395-01A-01-TS1", "CMU-1-Small-Region"


@pytest.fixture(scope="module")
def slides() -> Cohort:
    return take_inventory(DATA / "slides")


def test_every_file_opens_or_gets_its_state(slides: Cohort) -> None:
    assert {r.slide: r.state for r in slides.records} == {
        CMU: "ok",
        TCGA: "no_mpp",
        "histoprep_slide": "no_mpp",
        "histoprep_tma_spots": "no_mpp",
        "sm_image_test": "ok",
    }
    assert "--mpp" in slides.record(TCGA).reason


def test_formats_are_recognised_and_described(slides: Cohort) -> None:
    found = {r.slide: (r.vendor, r.width, r.height, r.n_levels) for r in slides.records}
    assert found == {
        CMU: ("aperio", 2220, 2967, 1),
        TCGA: ("aperio", 4443, 3567, 2),
        "histoprep_slide": ("jpeg", 2500, 2500, 1),
        "histoprep_tma_spots": ("jpeg", 1331, 3206, 1),
        "sm_image_test": ("dicom", 50, 50, 1),
    }
    assert slides.record(CMU).mpp == pytest.approx(0.499)


def test_a_given_mpp_makes_all_of_them_usable() -> None:
    assert take_inventory(DATA / "slides", mpp=0.5).states == {"ok": 5}


def test_a_level_of_4443_by_2221_px_is_a_factor_of_two() -> None:
    with open_slide(DATA / "slides" / f"{TCGA}.svs", 0.25) as slide:
        second = slide.info.levels[1]
        assert (second.width, second.downsample_x, second.downsample_y) == (2221, 2.0, 2.0)


@pytest.mark.parametrize(("name", "mpp"), [(CMU, None), (TCGA, 0.25)])
def test_tiles_of_real_slides_are_the_averaged_pixels_of_level_0(name: str, mpp: float | None) -> None:
    with open_slide(DATA / "slides" / f"{name}.svs", mpp) as slide:
        own = slide.info.mpp[0]  # type: ignore[index]
        _, tissue = segment_slide(slide, TissueSpec())
        cohort = take_inventory(DATA / "slides" / f"{name}.svs", mpp=mpp)
        (record,) = cohort.records
        spec = TileSpec(64, 2 * own)
        table = plan_tiles(record, slide.info, tissue, spec)
        rows = table.kept[:: max(1, len(table.kept) // 8)]
        (batch,) = open_tiles(cohort, record, table, spec, rows).stream(100)
        for row, tile in zip(batch.rows, batch.pixels, strict=True):
            full = slide.read(int(table.numpy("x")[row]), int(table.numpy("y")[row]), 128, 128)
            boxes = full.reshape(64, 2, 64, 2, 3).mean(axis=(1, 3))
            if name == CMU:  # the average is ours and exact
                assert np.abs(tile - boxes).max() <= 0.51
                continue
            # level 1 of the TCGA slide is the scanner's own picture: like the average, and nowhere else as like
            error = {
                (dx, dy): np.abs(np.roll(tile, (dy, dx), (0, 1))[1:-1, 1:-1] - boxes[1:-1, 1:-1]).mean()
                for dx in (-1, 0, 1)
                for dy in (-1, 0, 1)
            }
            assert min(error, key=lambda shift: error[shift]) == (0, 0)
            assert error[0, 0] < 12


@pytest.mark.parametrize("section", ["C2", "C4"])
def test_tissue_of_a_real_section_excludes_the_pink_halo(section: str) -> None:
    """C2 lies on a white, C4 on a pink background; printed spots and halo together would be above 10 mm2."""
    with open_slide(DATA / "her2st" / "images" / f"{section}.jpg", 0.688) as slide:
        _, tissue = segment_slide(slide, TissueSpec())
    assert 7.0 <= tissue.area_mm2 <= 8.2
    assert tissue.n_pieces <= 3


@pytest.mark.parametrize(("name", "mpp", "n_tiles", "n_patients", "px"), [
    ("glas", 0.62, 718, 9, 256), ("monuseg", 0.25, 480, 30, 250),
])  # fmt: skip
def test_tile_tables_are_understood(name: str, mpp: float, n_tiles: int, n_patients: int, px: int) -> None:
    cohort = take_inventory(DATA / name / "labels.csv", mpp=mpp)
    assert (cohort.kind, len(cohort.tiles), cohort.n_patients) == ("tiles", n_tiles, n_patients)
    assert cohort.states == {"ok": 121 if name == "glas" else 30}
    spec = native_spec(cohort.tiles, 0, mpp, None)
    assert (spec.tile_px, spec.mpp) == (px, mpp)
    record = cohort.records[0]
    own = [tile for tile in cohort.tiles if tile.slide == record.slide]
    (batch,) = open_tiles(cohort, record, plan_given(record, own, spec), spec).stream(1000)
    with open_slide(cohort.path_of(own[-1])) as picture:
        expected = picture.read(own[-1].x, own[-1].y, px, px)
    assert np.array_equal(batch.pixels[-1], expected)


def test_tiles_given_by_their_centres_must_be_said_to_be(tmp_path: Path) -> None:
    table = DATA / "her2st" / "labels.csv"
    with pytest.raises(CohortError, match="--tile-origin"):
        take_inventory(table, mpp=0.688)
    cohort = take_inventory(table, mpp=0.688, origin="centre")
    assert (len(cohort.tiles), cohort.n_patients, cohort.states) == (860, 1, {"ok": 5})
    first = cohort.tiles[0]
    assert (first.x, first.y, first.size) == (5899, 3630, 292)  # 6045.2 - 146 + .5, 3776.4 - 146 + .5, cut
