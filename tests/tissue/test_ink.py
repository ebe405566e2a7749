import cv2
import numpy as np
import pytest
from worlds import GLASS, glass, stained

from histokin.tissue.ink import MARGIN_UM, find_strokes, looks_like_ink

INKS = {"green": (20, 150, 60), "blue": (40, 60, 190), "red": (220, 40, 30), "black": (25, 25, 28)}


def over_glass(picture: np.ndarray) -> np.ndarray:
    return np.clip(picture.astype(np.float32) / np.array(GLASS, np.float32), 0.01, 1.15)


@pytest.mark.parametrize("ink", INKS)
def test_a_stroke_is_found_with_its_margin_and_nothing_else(ink: str) -> None:
    picture = glass(200, 200)
    cv2.line(picture, (40, 60), (160, 120), INKS[ink], 14)
    is_stroke = (np.abs(picture.astype(int) - INKS[ink]).max(axis=2) == 0).astype(np.uint8)
    found = find_strokes(looks_like_ink(over_glass(picture)), 8.0)
    assert found[is_stroke > 0].all()
    margin = round(MARGIN_UM / 8.0)
    reach = cv2.dilate(is_stroke, np.ones((2 * margin + 3, 2 * margin + 3), np.uint8))
    assert not found[reach == 0].any()


@pytest.mark.parametrize("ink", INKS)
def test_a_spot_smaller_than_a_stroke_stays(ink: str) -> None:
    picture = glass(100, 100)
    picture[50:70, 50:70] = INKS[ink]  # .0256 mm2 at 8 um
    assert not find_strokes(looks_like_ink(over_glass(picture)), 8.0).any()
    assert find_strokes(looks_like_ink(over_glass(picture)), 16.0).any()


def test_tissue_and_empty_glass_are_no_ink() -> None:
    for picture in (stained(200, 200), glass(200, 200)):
        assert not find_strokes(looks_like_ink(over_glass(picture)), 8.0).any()


def test_a_spray_of_dark_specks_is_no_stroke() -> None:
    picture = glass(200, 200)
    picture[40:160:2, 40:160:2] = INKS["black"]
    assert not find_strokes(looks_like_ink(over_glass(picture)), 8.0).any()
