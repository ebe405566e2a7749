import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histokin.slides.generated.noise import (
    Grid,
    jittered_lattice,
    nearest_two,
    periodic_grain,
    scatter,
    signed_um,
    smooth_noise,
)
from histokin.streams import stream


@settings(max_examples=100, deadline=None, derandomize=True)
@given(width=st.integers(64, 5000), height=st.integers(64, 5000), mpp=st.floats(0.1, 2.0))
def test_the_grid_covers_the_slide_and_no_cell_more(width, height, mpp):
    grid = Grid.over(width, height, mpp)
    assert grid.width * grid.px >= width > (grid.width - 1) * grid.px
    assert grid.height * grid.px >= height > (grid.height - 1) * grid.px
    assert 1.3 < grid.um < 2.7


@pytest.mark.parametrize("scale_um", [3.0, 25.0, 400.0, 5000.0])
def test_noise_is_standardised_and_smooth_at_its_scale(scale_um):
    grid = Grid.over(700, 500, 0.5)
    field = smooth_noise(stream(0, "noise"), grid, scale_um, octaves=1)
    assert field.shape == grid.shape
    assert field.dtype == np.float32
    assert abs(float(field.mean())) < 1e-3
    assert float(field.std()) == pytest.approx(1, abs=1e-3)
    steepest = max(np.abs(np.diff(field, axis=0)).max(), np.abs(np.diff(field, axis=1)).max())
    if scale_um < 500:  # a field wider than the slide is stretched to unit deviation
        assert steepest * scale_um / grid.um < 16


def test_noise_has_no_stairs():
    """Neither OpenCV's affine warp (rounds to 1/32 cell) nor its bicubic resize (bends straight slopes) passes this."""
    field = smooth_noise(stream(1, "noise"), Grid.over(2048, 2048, 0.5), 600.0, octaves=1)
    slope = np.abs(np.diff(field, axis=1))
    assert np.abs(np.diff(field, n=2, axis=1)).max() < 0.1 * slope.max()


@pytest.mark.parametrize("bandpass", [False, True])
def test_grain_repeats_without_a_seam(bandpass):
    grain = periodic_grain(stream(0, "grain"), 128, 3.0, 2.0, bandpass=bandpass)
    inside = np.abs(np.diff(grain, axis=0)).mean()
    across = np.abs(grain[0] - grain[-1]).mean()
    assert across < 1.6 * inside
    assert float(grain.std()) == pytest.approx(1, abs=1e-4)


def test_nearest_two_equals_brute_force():
    rng = stream(0, "lattice")
    points = jittered_lattice(rng, Grid.over(400, 300, 0.5), 40.0, 0.4)
    x, y = rng.uniform(0, 150, (2, 200))
    every = np.hypot(points[:, 0] - x[:, None], points[:, 1] - y[:, None])
    distances, at = nearest_two(points, x, y)
    np.testing.assert_allclose(distances, np.sort(every, axis=1)[:, :2])
    np.testing.assert_array_equal(at, np.argsort(every, axis=1)[:, :2])


@settings(max_examples=30, deadline=None, derandomize=True)
@given(density=st.floats(200, 20_000), seed=st.integers(0, 1000))
def test_scatter_keeps_to_its_density_and_to_the_slide(density, seed):
    grid = Grid.over(1000, 800, 0.5)
    field = np.full(grid.shape, density, np.float32)
    field[:, : grid.width // 2] = 0
    points = scatter(stream(seed, "scatter"), grid, field, min_um=5.0)
    width, height = grid.size_um
    assert (points > 0).all()
    assert (points < (width, height)).all()
    assert (points[:, 0] >= width / 2 - grid.um).all()
    expected = density * width * height / 2 / 1e6
    assert abs(len(points) - expected) < 5 * np.sqrt(expected) + 5


def test_scatter_of_nothing_is_empty():
    grid = Grid.over(100, 100, 0.5)
    assert scatter(stream(0, "none"), grid, np.zeros(grid.shape, np.float32), min_um=5.0).shape == (0, 2)


def test_signed_distance_is_metric_near_a_straight_edge():
    grid = Grid.over(400, 400, 0.5)
    x, y = grid.centres()
    distance = signed_um(0.01 * (x - 100) + 0 * y, grid)
    near = np.abs(x[0] - 100) < 20
    np.testing.assert_allclose(distance[50, near], x[0, near] - 100, atol=0.2)
