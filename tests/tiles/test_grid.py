import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.tiles import TileSpec
from histokin.tiles.grid import CoverageMap, cover, majority_class, plan_grid


def test_a_grid_by_hand() -> None:
    grid = plan_grid(1000, 600, (0.5, 0.5), TileSpec(100, 1.0))
    assert grid.x.tolist() == [0, 200, 400, 600, 800] * 3
    assert grid.y.tolist() == [0] * 5 + [200] * 5 + [400] * 5
    assert grid.col.tolist() == [0, 1, 2, 3, 4] * 3
    assert grid.row.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert grid.side == (200.0, 200.0)


@given(
    st.integers(1, 5000), st.integers(1, 5000), st.floats(0.1, 2.0), st.integers(8, 600), st.floats(0.1, 8.0),
    st.integers(0, 700),
)  # fmt: skip
def test_a_grid_holds_every_whole_tile_and_no_other(w: int, h: int, slide: float, px: int, mpp: float, stride: int):
    spec = TileSpec(px, mpp, stride)
    if (w * slide / (spec.step_px * mpp)) * (h * slide / (spec.step_px * mpp)) > 100_000:
        return
    grid = plan_grid(w, h, (slide, slide), spec)
    side, step = px * mpp / slide, spec.step_px * mpp / slide
    n = [
        0 if size < side else 1 + max(i for i in range(5001) if i * step + side <= size * (1 + 1e-9)) for size in (w, h)
    ]
    assert len(grid.x) == n[0] * n[1]
    assert np.allclose(grid.x, grid.col * step)
    assert np.allclose(grid.y, grid.row * step)


def test_a_long_row_at_a_fractional_mpp_does_not_drift() -> None:
    """Rounding the step instead of the position is 71 px off at the far edge here."""
    spec = TileSpec(224, 0.5)
    grid = plan_grid(100_000, 500, (0.2513, 0.2513), spec)
    exact = np.arange(len(grid.x)) * (224 * 0.5 / 0.2513)
    assert len(grid.x) == 224
    assert np.abs(np.floor(grid.x + 0.5) - exact).max() <= 0.5
    assert 100_000 - 2 * grid.side[0] < grid.x[-1] <= 100_000 - grid.side[0]


def test_tiles_without_overlap_cover_every_point_once() -> None:
    grid = plan_grid(3001, 1999, (0.2513, 0.2513), TileSpec(64, 0.5))
    rng = np.random.default_rng(0)
    inside = (grid.x.max() + grid.side[0], grid.y.max() + grid.side[1])
    points = rng.uniform(0, 1, (300, 2)) * inside
    x, y = points[:, :1], points[:, 1:]
    hits = (x >= grid.x) & (x < grid.x + grid.side[0]) & (y >= grid.y) & (y < grid.y + grid.side[1])
    assert (hits.sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    ("px", "mpp", "slide", "n", "width"),
    [(100, 1.0, 0.5, 5, 1000), (64, 0.5, 0.3, 3, 320), (64, 1.0, 0.3, 3, 640), (64, 0.3, 0.7, 7, 192)],
)
def test_a_slide_of_exactly_n_tiles_holds_n_in_spite_of_rounding(px: int, mpp: float, slide: float, n: int, width: int):
    assert plan_grid(width, width, (slide, slide), TileSpec(px, mpp)).col.max() + 1 == n
    assert plan_grid(width - 1, width, (slide, slide), TileSpec(px, mpp)).col.max() + 1 == n - 1


def test_a_slide_smaller_than_a_tile_holds_none() -> None:
    assert len(plan_grid(99, 99, (1.0, 1.0), TileSpec(100, 1.0)).x) == 0
    assert len(plan_grid(99, 1000, (1.0, 1.0), TileSpec(100, 1.0)).x) == 0


# --- coverage -------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(0, 11), st.floats(0, 7), st.floats(0.05, 6), st.floats(0.05, 6))
def test_coverage_equals_64_fold_oversampling(seed: int, x: float, y: float, w: float, h: float) -> None:
    mask = np.random.default_rng(seed).random((7, 11)) < 0.5
    share = CoverageMap(mask).share(*(np.array([v]) for v in (x, y, x + w, y + h)))[0]
    centres = (np.arange(64) + 0.5) / 64
    column, row = np.floor(x + centres * w).astype(int), np.floor(y + centres * h).astype(int)
    inside = (row < 7)[:, None] & (column < 11)[None, :]
    sampled = (mask[np.minimum(row, 6)][:, np.minimum(column, 10)] & inside).mean()
    # a sample stands for 1/64 of a side; every mask border that is crossed is off by at most half of that
    assert share == pytest.approx(sampled, abs=(np.ceil(w) + np.ceil(h) + 2) / 128)


def test_coverage_by_hand() -> None:
    mask = np.array([[1, 0], [0, 1]], bool)
    area = CoverageMap(mask)
    boxes = {(0, 0, 1, 1): 1.0, (0, 0, 2, 2): 0.5, (0.5, 0, 1.5, 1): 0.5, (0.25, 0.25, 1.25, 1.25): 10 / 16,
             (1, 0, 2, 1): 0.0, (-1, 0, 1, 1): 0.5, (5, 5, 6, 6): 0.0}  # fmt: skip
    for box, expected in boxes.items():
        assert area.share(*(np.array([float(v)]) for v in box))[0] == pytest.approx(expected)


def test_a_mask_is_stretched_over_the_whole_slide() -> None:
    mask = np.zeros((3, 10), bool)
    mask[:, 5:] = True
    grid = plan_grid(1000, 300, (1.0, 1.0), TileSpec(150, 1.0))
    share = cover(grid, mask, (1000, 300)).reshape(2, 6)
    assert share == pytest.approx(np.array([[0, 0, 0, 2 / 3, 1, 1]] * 2))


def test_the_class_of_most_area_wins_and_background_never_does() -> None:
    values = np.zeros((10, 30), np.uint8)
    values[:, 0:3], values[:, 3:10] = 1, 0  # 30 % of class 1, the rest background
    values[:, 10:14], values[:, 14:20] = 1, 2
    values[:, 20:25], values[:, 25:30] = 2, 1  # a tie: the lower number
    grid = plan_grid(300, 100, (1.0, 1.0), TileSpec(100, 1.0))
    label, share = majority_class(grid, values, {0: "background", 1: "a", 2: "b", 9: "absent"}, (300, 100))
    assert label.tolist() == ["a", "b", "a"]
    assert share == pytest.approx([0.3, 0.6, 0.5])
    label, share = majority_class(grid, values * 0, {0: "background", 1: "a"}, (300, 100))
    assert label.tolist() == ["", "", ""]
    assert share.tolist() == [0, 0, 0]
