import numpy as np
import pytest
from worlds import GLASS, glass, stained, tissue_on_glass

from histokin.tissue.background import find_background


def nothing(picture: np.ndarray) -> np.ndarray:
    return np.zeros(picture.shape[:2], bool)


@pytest.mark.parametrize(
    "colour", [(243, 241, 245), (205, 205, 205), (250, 230, 235), (240, 236, 215), (170, 168, 172)]
)
def test_the_glass_is_found_whatever_its_tint(colour: tuple[int, int, int]) -> None:
    picture = tissue_on_glass(300, 300, (50, 50, 200, 250))
    tinted = np.clip(picture * (np.array(colour) / np.array(GLASS)), 0, 255).astype(np.uint8)
    found = find_background(tinted, nothing(tinted))
    assert found is not None
    assert np.abs(found - np.array(colour)).max() <= 3


def test_a_slide_full_of_tissue_gets_a_neutral_white() -> None:
    picture = np.minimum(stained(300, 300), 150)
    found = find_background(picture, nothing(picture))
    assert found is not None
    assert np.ptp(found) == 0
    assert 225 <= found[0] <= 250


def test_a_dark_or_never_scanned_picture_is_not_bright_field() -> None:
    dark = np.full((100, 100, 3), 30, np.uint8)
    assert find_background(dark, nothing(dark)) is None
    assert find_background(glass(100, 100), np.ones((100, 100), bool)) is None


def test_void_pixels_do_not_count() -> None:
    picture = glass(200, 200)
    is_void = np.zeros((200, 200), bool)
    picture[:150], is_void[:150] = 0, True
    found = find_background(picture, is_void)
    assert found is not None
    assert np.abs(found - np.array(GLASS)).max() <= 3


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (9, 9), (63, 64)])
def test_the_smallest_pictures_have_a_background_too(size: tuple[int, int]) -> None:
    picture = glass(*size)
    found = find_background(picture, nothing(picture))
    assert found is not None
    assert found.min() >= 225
