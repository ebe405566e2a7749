from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from worlds import glass, png, slide_cohort, tissue_on_glass

from histokin.errors import NoResolution
from histokin.slides import open_slide
from histokin.tissue import TissueSpec, draw_outline, mask_ledger, read_tissue, segment_slide, write_tissue

SPEC = TissueSpec()


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory):
    picture = tissue_on_glass(640, 800, (160, 96, 560, 480))
    return slide_cohort(tmp_path_factory.mktemp("c"), {"a": picture, "empty": glass(400, 400)}, mpp=1.0)


def write(cohort, name: str, root: Path, inputs: object = 1):
    record = cohort.record(name)
    with open_slide(cohort.path_of(record)) as slide:
        return write_tissue(root / "masks", root / "thumbs", record, slide, spec=SPEC, inputs=inputs)


@pytest.mark.parametrize("name", ["a", "empty"])
def test_a_mask_comes_back_from_disk_as_it_was(name: str, cohort, tmp_path: Path) -> None:
    tissue, receipt = write(cohort, name, tmp_path)
    again = read_tissue(tmp_path / "masks", receipt, SPEC)
    assert np.array_equal(again.mask, tissue.mask)
    for field in ("mpp", "threshold", "background", "ink_mm2", "reason", "spec", "area_mm2"):
        assert getattr(again, field) == getattr(tissue, field)
    assert receipt.status == ("done" if name == "a" else "empty")


def test_the_receipt_found_again_reads_the_same(cohort, tmp_path: Path) -> None:
    _, receipt = write(cohort, "a", tmp_path)
    assert mask_ledger(tmp_path / "masks", SPEC).find("a", 1) == receipt
    assert mask_ledger(tmp_path / "masks", replace(SPEC, disc_um=17.0)).find("a", 1) is None


def test_equal_slides_give_equal_bytes(cohort, tmp_path: Path) -> None:
    for root in (tmp_path / "1", tmp_path / "2"):
        write(cohort, "a", root)
    for path in (tmp_path / "1").rglob("*.*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "2" / path.relative_to(tmp_path / "1")).read_bytes()


def test_the_mask_is_a_picture_of_the_tissue(cohort, tmp_path: Path) -> None:
    write(cohort, "a", tmp_path)
    mask = cv2.imread(str(tmp_path / "masks" / "a.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (80, 100)
    assert set(np.unique(mask)) == {0, 255}
    assert (mask[14:58, 22:68] == 255).all()


def test_the_outline_is_drawn_where_the_tissue_ends_at_any_scale(cohort) -> None:
    record = cohort.record("a")
    with open_slide(cohort.path_of(record)) as slide:
        picture, tissue = segment_slide(slide, SPEC)
    for max_px in (100, 50):
        drawn = draw_outline(picture, tissue, max_px)
        scale = max_px / 100
        plain = cv2.resize(picture, drawn.shape[1::-1], interpolation=cv2.INTER_AREA)
        changed = np.abs(drawn.astype(int) - plain).max(axis=2) > 40
        rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
        expected = np.array([96, 480, 160, 560]) / 8 * scale
        assert np.abs(np.array([rows[0], rows[-1] + 1, columns[0], columns[-1] + 1]) - expected).max() <= 2


def test_a_slide_without_mpp_cannot_be_segmented(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(glass(60, 60)))
    with open_slide(tmp_path / "a.png") as slide, pytest.raises(NoResolution, match="--mpp"):
        segment_slide(slide, SPEC)


def test_the_masks_pixel_size_is_the_true_one_where_the_slide_is_no_multiple(tmp_path: Path) -> None:
    odd = slide_cohort(tmp_path, {"a": glass(700, 1003)}, mpp=1.0)
    with open_slide(odd.path_of(odd.records[0])) as slide:
        picture, tissue = segment_slide(slide, SPEC)
    assert picture.shape[:2] == tissue.mask.shape == (88, 125)
    assert tissue.mpp == pytest.approx(1003 / 125)
