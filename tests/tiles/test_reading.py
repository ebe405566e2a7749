from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import Exact, area_average, phase_position, stained, waves

from histokin.slides import Level, SlideInfo, open_slide
from histokin.slides.generated import write_pyramid
from histokin.tiles import TileSpec
from histokin.tiles.grid import plan_grid
from histokin.tiles.reading import bands, plan_read, read_band


def info(mpp: float, *downsamples: int) -> SlideInfo:
    levels = tuple(Level(10_000 // d, 10_000 // d, float(d), float(d)) for d in downsamples)
    return SlideInfo(10_000, 10_000, (mpp, mpp), "file", levels, "v", "r", "w")


# --- what is read ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mpp", "target", "level", "box", "rest"),
    [
        (0.25, 0.25, 0, 1, 1.0),
        (0.25, 0.5, 0, 2, 1.0),
        (0.25, 1.0, 1, 1, 1.0),
        (0.25, 0.75, 0, 3, 1.0),
        (0.25, 2.0, 1, 2, 1.0),
        (0.25, 4.0, 2, 1, 1.0),
        (0.2513, 0.5, 0, 2, 0.99483),  # a factor of two that is off by half a per cent
        (0.2198, 0.5, 0, 2, 1.13740),
        (0.25, 0.4, 0, 1, 1.6),
        (0.1725, 0.5, 0, 2, 1.44928),
        (0.25, 0.45, 0, 1, 1.8),  # too much for the warp alone, too little for two boxes
        (0.5, 0.25, 0, 1, 0.5),  # the slide is coarser
    ],
)
def test_level_box_and_rest_by_hand(mpp: float, target: float, level: int, box: int, rest: float) -> None:
    plan = plan_read(info(mpp, 1, 4, 16), target, 256)
    assert (plan.level, plan.box, plan.rest) == (level, box, pytest.approx(rest, abs=1e-5))


@given(st.floats(0.1, 1.0), st.floats(0.1, 16.0))
def test_nothing_is_ever_averaged_to_less_than_asked_for(mpp: float, target: float) -> None:
    plan = plan_read(info(mpp, 1, 4, 16), target, 64)
    assert plan.rest * plan.box * plan.downsample[0] == pytest.approx(target / mpp)
    assert plan.rest < 1.97
    if target >= 0.98 * mpp:
        assert plan.rest >= 0.98
    else:
        assert (plan.level, plan.box) == (0, 1)


def test_whole_number_factors_need_no_warp_also_on_levels_that_scanners_rounded() -> None:
    levels = tuple(Level.of(w, h, 4443, 2001) for w, h in ((4443, 2001), (2221, 1000), (1111, 501)))
    slide = SlideInfo(4443, 2001, (0.25, 0.25), "file", levels, "v", "r", "w")
    for target, level in ((0.5, 1), (1.0, 2)):
        plan = plan_read(slide, target, 256)
        assert (plan.level, plan.box, plan.is_exact) == (level, 1, True)


def test_axes_that_differ_are_both_resampled() -> None:
    slide = SlideInfo(1000, 1000, (0.5, 0.504), "file", (Level(1000, 1000, 1.0, 1.0),), "v", "r", "w")
    plan = plan_read(slide, 1.0, 256)
    assert not plan.is_exact
    assert plan.scale == pytest.approx((2.0, 1.98413), abs=1e-5)


def test_a_slide_without_mpp_cannot_be_planned() -> None:
    slide = SlideInfo(9, 9, None, "none", (Level(9, 9, 1.0, 1.0),), "v", "r", "w")
    with pytest.raises(ValueError, match="without mpp"):
        plan_read(slide, 1.0, 256)


# --- pixels against exact area integration --------------------------------------------------------------------------


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second) ** 2)))


@pytest.mark.parametrize(
    ("mpp", "target", "floor"),
    [(0.25, 0.5, 55), (0.25, 1.0, 55), (0.25, 0.75, 55), (0.2513, 0.5, 33), (0.2198, 0.5, 33), (0.25, 0.4, 33),
     (0.1725, 0.5, 33), (0.25, 0.45, 33), (0.26, 1.0, 33), (0.25, 1.7, 33)],
)  # fmt: skip
def test_tiles_equal_the_exact_area_integral(mpp: float, target: float, floor: float) -> None:
    """On a picture with structure down to 4 px: whole factors exact to rounding, the rest to 33 dB."""
    rng = np.random.default_rng(3)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (700, 700, 3), np.uint8), (0, 0), 1.2)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    slide, plan = Exact([picture], mpp), plan_read(info(mpp, 1), target, 48)
    step = target / mpp
    worst = 99.0
    corners = (
        ((0.0, 0.0), (41.0, 78.0), (211.0, 300.0)) if plan.is_exact else ((0.0, 0.0), (41.3, 77.77), (211.5, 300.2))
    )
    for x, y in corners:
        tile = read_band(slide, plan, np.array([x]), np.array([y]))[0]
        expected = area_average(picture, x, y, step, 48)
        inner = slice(1, -1)  # at the slide's very edge the warp sees the white outside by a hair
        worst = min(worst, psnr(tile[inner, inner], expected[inner, inner]))
    assert worst >= floor


def test_one_box_and_a_wider_warp_beats_two_boxes_that_are_too_coarse() -> None:
    rng = np.random.default_rng(3)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (400, 400, 3), np.uint8), (0, 0), 1.2)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    expected = area_average(picture, 100.0, 100.0, 1.8, 64)
    slide, chosen = Exact([picture], 0.25), plan_read(info(0.25, 1), 0.45, 64)
    from dataclasses import replace

    coarse = replace(chosen, box=2, rest=0.9)
    scores = [psnr(read_band(slide, p, np.array([100.0]), np.array([100.0]))[0], expected) for p in (chosen, coarse)]
    assert scores[0] > scores[1] + 2


@pytest.mark.parametrize(("mpp", "target"), [(0.2513, 0.5), (0.2198, 0.5), (0.25, 0.45), (0.2527, 1.0)])
def test_positions_are_true_to_a_tenth_of_a_pixel_over_a_long_row(mpp: float, target: float) -> None:
    width, step = 6000, target / mpp
    period = 16 * step  # two waves a tile: the phase is well determined
    slide = Exact([waves(width, 160, period)], mpp)
    spec = TileSpec(32, target)
    grid = plan_grid(width, 160, (mpp, mpp), spec)
    plan = plan_read(slide.info, target, 32)
    first = grid.row == 0
    x, y = grid.x[first], grid.y[first]
    errors = []
    for run in bands(plan, x, y):
        for at, tile in zip(x[run], read_band(slide, plan, x[run], y[run]), strict=True):
            inner = tile[1:-1, 1:-1, 0].mean(axis=0)  # its first sample is the tile's second pixel
            errors.append(phase_position(inner, 16, at / step + 1.5) - (at / step + 1.5))
    assert len(errors) > width / (33 * step)
    assert np.abs(errors).max() < 0.1
    assert abs(np.polyfit(np.arange(len(errors)), errors, 1)[0]) * len(errors) < 0.02  # no drift along the row


@pytest.mark.parametrize(("target", "px"), [(0.5, 64), (1.0, 64), (1.13, 64), (4.0, 32), (4.5, 32)])
def test_positions_are_true_on_a_real_pyramid_at_every_level(tmp_path: Path, target: float, px: int) -> None:
    step = target / 0.25
    write_pyramid(tmp_path / "a.tiff", waves(4443, 700, 16 * step), mpp=0.25, quality=98, levels=(1, 4, 16))
    with open_slide(tmp_path / "a.tiff") as slide:
        plan = plan_read(slide.info, target, px)
        grid = plan_grid(4443, 700, (0.25, 0.25), TileSpec(px, target))
        x, y = grid.x[grid.row == 0], grid.y[grid.row == 0]
        for at, tile in zip(x, read_band(slide, plan, x, y), strict=True):
            found = phase_position(tile[1:-1, 1:-1, 0].mean(axis=0), 16, at / step + 1.5)
            # half a level-0 px of rounding by OpenSlide's whole coordinates, and what JPEG adds
            assert abs(found - at / step - 1.5) < 0.5 / step + 0.05, at


@pytest.mark.parametrize("target", [0.3, 0.49, 0.5, 0.6, 0.9, 1.0, 1.13, 2.2])
def test_a_ramp_stays_a_ramp_to_the_very_edge_of_every_tile(target: float) -> None:
    """Linear interpolation and averaging keep a ramp exactly, so tiles show no seam, enlarged ones included."""
    ramp = np.zeros((256, 500, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = (np.arange(500) // 2)[None, :], np.arange(256)[:, None]
    slide, step = Exact([ramp], 0.5), target / 0.5
    plan = plan_read(slide.info, target, 40)
    for x, y in ((20.0, 30.0), (20.0 + 7 * step, 30.0 + 3 * step)):
        x, y = (round(x), round(y)) if plan.is_exact else (x, y)  # noqa: PLW2901
        tile = read_band(slide, plan, np.array([x]), np.array([y]))[0]
        at = (np.arange(40) + 0.5) * step - 0.5
        assert np.abs(tile[..., 0] - ((x + at) / 2 - 0.25)[None, :]).max() <= 1.01  # two roundings
        assert np.abs(tile[..., 1] - (y + at)[:, None]).max() <= 1.01


# --- bands ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mpp", "target"), [(0.5, 1.0), (0.5, 0.5), (0.5, 1.13), (0.5, 0.85), (0.5, 0.3)])
@pytest.mark.parametrize("stride", [0, 20])
def test_a_band_equals_its_tiles_read_one_by_one_bit_for_bit(tmp_path: Path, mpp: float, target: float, stride: int):
    write_pyramid(tmp_path / "a.tiff", stained(400, 700), mpp=mpp)
    with open_slide(tmp_path / "a.tiff") as slide:
        plan = plan_read(slide.info, target, 40)
        grid = plan_grid(700, 400, (mpp, mpp), TileSpec(40, target, stride))
        rows = np.flatnonzero(np.random.default_rng(0).random(len(grid.x)) < 0.6)
        x, y = grid.x[rows], grid.y[rows]
        n_bands = 0
        for run in bands(plan, x, y):
            n_bands += 1
            band = read_band(slide, plan, x[run], y[run])
            for i, tile in zip(range(run.start, run.stop), band, strict=True):
                assert np.array_equal(tile, read_band(slide, plan, x[i : i + 1], y[i : i + 1])[0])
    assert n_bands < len(rows)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60), st.booleans())
@settings(max_examples=60)
def test_bands_hold_every_tile_once_in_order_and_waste_little(cells: list[tuple[int, int]], is_sorted: bool) -> None:
    cells = sorted(set(cells)) if is_sorted else cells
    plan = plan_read(info(0.25, 1), 0.45, 64)
    x, y = (np.array([c[axis] for c in cells], float) * 115.2 for axis in (1, 0))
    runs = list(bands(plan, x, y))
    assert [i for run in runs for i in range(run.start, run.stop)] == list(range(len(cells)))
    for run in runs:
        assert len(set(y[run])) == 1
        assert (np.diff(x[run]) >= 0).all()
        width = x[run][-1] - x[run][0] + plan.span
        assert width <= 2.0 * (run.stop - run.start) * plan.span + 2


def test_a_band_is_bounded_however_long_the_row() -> None:
    plan = plan_read(info(0.25, 1), 1.0, 256)
    x = np.arange(400) * 1024.0
    for run in bands(plan, x, np.zeros(400)):
        assert (x[run][-1] - x[run][0] + plan.span) * plan.span <= 16_000_000


def test_the_edge_of_the_slide_shows_nothing_of_what_lies_outside() -> None:
    slide = Exact([np.full((300, 300, 3), 90, np.uint8)], 0.26)
    for target in (0.26, 0.5, 0.52):
        plan = plan_read(slide.info, target, 32)
        grid = plan_grid(300, 300, (0.26, 0.26), TileSpec(32, target))
        tiles = np.concatenate(
            [read_band(slide, plan, grid.x[i : i + 1], grid.y[i : i + 1]) for i in range(len(grid.x))]
        )
        assert np.abs(tiles.astype(int) - 90).max() <= 3
