from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import GLASS, glass, stained, tissue_on_glass

from histokin.slides import open_slide
from histokin.slides.generated import GeneratedSlideSpec, render_slide
from histokin.tissue import TissueMask, TissueSpec, segment_slide, segment_tissue

BOX = (60, 50, 220, 170)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def boxed(height: int = 240, width: int = 300, box: tuple[int, int, int, int] = BOX) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return mask


# --- against truth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patient", "pen"), [(0, False), (1, False), (2, True)])
def test_generated_tissue_is_found_against_its_truth(patient: int, pen: bool) -> None:
    """2 um a pixel keeps drawing fast; fat and what lies under pen are not scored, as in the note's measurements."""
    truth = render_slide(GeneratedSlideSpec(width=1024, height=1024, mpp=2.0, patient=patient, pen=pen, seed=4))
    small = cv2.resize(truth.rgb, (256, 256), interpolation=cv2.INTER_AREA)
    share = cv2.resize(truth.tissue.astype(np.float32), (256, 256), interpolation=cv2.INTER_AREA)
    fat = cv2.resize((truth.classes == 5).astype(np.float32), (256, 256), interpolation=cv2.INTER_AREA)
    ink = cv2.dilate(cv2.resize(truth.ink.astype(np.uint8), (256, 256)), np.ones((13, 13), np.uint8))
    scored = (ink == 0) & (fat < 0.05)
    found = segment_tissue(small, 8.0)
    assert iou(found.mask[scored], (share > 0.5)[scored]) >= 0.9
    assert (found.ink_mm2 > 0) == pen
    assert not found.mask[cv2.resize(truth.ink.astype(np.uint8), (256, 256)) > 0].any()


def test_slides_of_the_small_cohort_agree_with_their_truth(small_cohort: Path) -> None:
    for path in sorted((small_cohort.parent / "slides").glob("*.tiff"))[:2]:
        truth = cv2.imread(str(small_cohort.parent / "truth" / f"{path.stem}.png"), cv2.IMREAD_GRAYSCALE)
        with open_slide(path) as slide:
            _, found = segment_slide(slide, TissueSpec())
        shares = [(truth > 0), (truth == 5)]
        tissue, fat = (cv2.resize(s.astype(np.float32), (40, 40), interpolation=cv2.INTER_AREA) for s in shares)
        scored = fat < 0.05
        assert iou(found.mask[scored], (tissue > 0.5)[scored]) >= 0.75  # 40 px a side: a ring of border px weighs 20 %
        assert found.mpp == pytest.approx(8.0)


def test_a_box_of_tissue_is_found_to_the_pixel_nearly() -> None:
    found = segment_tissue(tissue_on_glass(240, 300, BOX), 8.0)
    assert iou(found.mask, boxed()) >= 0.95
    assert found.n_pieces == 1
    assert found.area_mm2 == pytest.approx(160 * 120 * 64e-6, rel=0.05)
    assert found.reason == ""


@pytest.mark.parametrize("tint", [(0.85, 0.85, 0.85), (1.0, 0.86, 0.93), (1.0, 0.99, 0.88)])
def test_the_colour_of_the_glass_does_not_matter(tint: tuple[float, float, float]) -> None:
    picture = tissue_on_glass(240, 300, BOX)
    found = segment_tissue((picture * np.array(tint)).astype(np.uint8), 8.0)
    assert iou(found.mask, boxed()) >= 0.93


@given(st.sampled_from([lambda a: a[::-1], lambda a: a[:, ::-1], lambda a: np.swapaxes(a, 0, 1)]))
@settings(max_examples=3)
def test_turning_the_slide_turns_the_mask(turn) -> None:
    picture = tissue_on_glass(240, 240, BOX)
    straight = segment_tissue(picture, 8.0).mask
    turned = segment_tissue(np.ascontiguousarray(turn(picture)), 8.0).mask
    assert iou(turned, turn(straight)) > 0.99


# --- what is no tissue ----------------------------------------------------------------------------------------------


def test_an_empty_slide_is_empty_and_says_so() -> None:
    found = segment_tissue(glass(300, 300), 8.0)
    assert not found.mask.any()
    assert "empty" in found.reason
    assert (found.n_pieces, found.area_mm2, found.outlines()) == (0, 0.0, [])


@pytest.mark.parametrize("grey", [0, 4, 40])
def test_a_black_slide_is_not_bright_field(grey: int) -> None:
    found = segment_tissue(np.full((200, 200, 3), grey, np.uint8), 8.0)
    assert not found.mask.any()
    assert found.reason == "not a bright-field slide"
    assert found.background is None


def test_pen_alone_is_said_to_be_pen() -> None:
    picture = glass(300, 300)
    cv2.circle(picture, (150, 150), 80, (20, 150, 60), 12)
    found = segment_tissue(picture, 8.0)
    assert not found.mask.any()
    assert found.reason == "only pen marks, no tissue"
    assert found.ink_mm2 > 0.3


def test_a_pen_ring_round_the_tissue_is_cut_out_and_the_tissue_stays() -> None:
    picture = tissue_on_glass(300, 300, (110, 110, 190, 190))
    cv2.circle(picture, (150, 150), 100, (20, 150, 60), 10)
    found = segment_tissue(picture, 8.0)
    assert iou(found.mask, boxed(300, 300, (110, 110, 190, 190))) >= 0.93


def test_a_smooth_pink_halo_is_not_tissue() -> None:
    """As eosin in the mounting medium: coloured like pale tissue, but without structure."""
    picture = np.full((300, 360, 3), GLASS, float)
    y, x = np.mgrid[:300, :360]
    halo = np.exp(-(((x - 180) / 110.0) ** 2 + ((y - 150) / 90.0) ** 2))[..., None]
    picture -= halo * np.array([8.0, 40.0, 22.0])
    picture[110:190, 140:220] = stained(80, 80)
    picture += np.random.default_rng(0).normal(0, 0.8, picture.shape)
    found = segment_tissue(np.clip(picture, 0, 255).astype(np.uint8), 8.0)
    tissue = boxed(300, 360, (140, 110, 220, 190))
    assert found.mask[tissue].mean() > 0.95
    assert found.mask.sum() < 1.4 * tissue.sum()


def test_unscanned_black_blocks_are_neither_tissue_nor_ink() -> None:
    picture = tissue_on_glass(240, 300, BOX)
    picture[:, 250:] = 0
    picture[200:] = 0
    found = segment_tissue(picture, 8.0)
    assert iou(found.mask, boxed()) >= 0.95
    assert found.ink_mm2 == 0


def test_dust_is_dropped_and_small_pieces_are_kept() -> None:
    picture = glass(200, 200)
    picture[20:35, 20:35] = stained(15, 15)  # .0144 mm2
    picture[100:130, 100:130] = stained(30, 30)  # .0576 mm2
    found = segment_tissue(picture, 8.0)
    assert found.n_pieces == 1
    assert found.mask[105:125, 105:125].all()


# --- holes ----------------------------------------------------------------------------------------------------------


def test_lumens_are_filled_and_large_holes_stay() -> None:
    picture = stained(300, 300)
    picture[50:80, 50:80] = GLASS  # .0576 mm2
    picture[150:220, 150:220] = GLASS  # .31 mm2
    found = segment_tissue(picture, 8.0).mask
    assert found[50:80, 50:80].all()
    assert not found[160:210, 160:210].any()


@pytest.mark.parametrize("side", [60, 300])
@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_background_that_touches_the_border_is_no_hole(corner: tuple[int, int], side: int) -> None:
    """.058 mm2, less than the largest hole that is filled; on a slide of .23 mm2 all background is so small."""
    picture = stained(side, side)
    y, x = (slice(0, 30) if c == 0 else slice(side - 30, side) for c in corner)
    picture[y, x] = GLASS
    mask = segment_tissue(picture, 8.0).mask
    assert mask[y, x].mean() < 0.3
    assert mask.mean() > 0.6


# --- the smallest ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (2, 3), (5, 5), (12, 9), (33, 1)])
@pytest.mark.parametrize("make", [glass, stained, lambda h, w: np.zeros((h, w, 3), np.uint8)])
def test_thumbnails_of_a_few_pixels_are_segmented_without_fuss(size: tuple[int, int], make) -> None:
    found = segment_tissue(make(*size), 8.0)
    assert found.mask.shape == size
    assert bool(found.reason) == (not found.mask.any())


def test_a_tiny_empty_slide_is_empty_rather_than_dark() -> None:
    assert "empty" in segment_tissue(glass(9, 9), 8.0).reason


def test_outlines_enclose_the_mask() -> None:
    mask = boxed()
    mask[80:100, 100:140] = False
    tissue = TissueMask(mask, 8.0)
    drawn = np.zeros(mask.shape, np.uint8)
    cv2.fillPoly(drawn, tissue.outlines(), 1)
    # even-odd filling of outer and inner borders; a hole's border runs along the tissue's own pixels
    assert (drawn.astype(bool) ^ mask).sum() <= 2 * (20 + 40)
    assert len(tissue.outlines()) == 2
