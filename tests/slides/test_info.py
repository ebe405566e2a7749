import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.slides import Level, SlideInfo
from histokin.slides.info import plausible_mpp


@given(st.integers(2, 64), st.integers(1000, 200_000), st.booleans())
def test_whole_factors_snap_however_the_scanner_rounds(factor: int, base: int, is_ceiling: bool) -> None:
    size = -(-base // factor) if is_ceiling else base // factor
    if size > 2 * factor:  # below that any factor would look whole
        assert Level.of(size, size, base, base).downsample_x == factor


@pytest.mark.parametrize(
    ("base", "size", "factor"),
    [(4443, 2221, 2.0), (4443, 2222, 2.0), (1000, 1000, 1.0), (46000, 2874, 46000 / 2874), (3000, 2000, 1.5)],
)
def test_factors_by_hand(base: int, size: int, factor: float) -> None:
    level = Level.of(size, 10, base, 10)
    assert (level.downsample_x, level.downsample_y) == (factor, 1.0)


def test_the_axes_snap_each_for_itself() -> None:
    level = Level.of(277, 43, 4443, 700)
    assert (level.downsample_x, level.downsample_y) == (16.0, 16.0)


@pytest.mark.parametrize(
    ("x", "y", "found"),
    [
        (0.25, 0.25, (0.25, 0.25)),
        (0.05, 20.0, (0.05, 20.0)),
        (352.8, 352.8, None),  # 72 dpi
        (264.6, 264.6, None),  # 96 dpi
        (0.0, 0.25, None),
        (-0.25, 0.25, None),
        (None, 0.25, None),
        (0.25, None, None),
        (float("nan"), 0.25, None),
        (float("inf"), 0.25, None),
    ],
)
def test_only_believable_pixel_sizes_count(x: float | None, y: float | None, found: tuple | None) -> None:
    assert plausible_mpp(x, y) == found


def test_area_is_in_square_millimetres_and_unknown_without_mpp() -> None:
    levels = (Level(2000, 1000, 1.0, 1.0),)
    assert SlideInfo(2000, 1000, (0.5, 0.5), "file", levels, "v", "r", "w").area_mm2 == pytest.approx(0.5)
    assert SlideInfo(2000, 1000, None, "none", levels, "v", "r", "w").area_mm2 is None
