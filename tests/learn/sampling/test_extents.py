"""Outlines, largest distances and close pairs against all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histokin.learn.sampling.extents import find_close_pair, measure_extent


def all_distances(points):
    return np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))


def turned(points, degrees):
    angle = np.deg2rad(degrees)
    return points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])


def layouts():
    rng = np.random.default_rng(5)
    grid = np.stack(np.meshgrid(np.arange(9.0), np.arange(7.0)), -1).reshape(-1, 2) * 256
    line = np.stack([np.arange(30) * 100.0, np.full(30, 50.0)], -1)
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    return {
        "one": np.array([[3.0, 4.0]]),
        "two": np.array([[0.0, 0.0], [3.0, 4.0]]),
        "one place twice": np.array([[3.0, 4.0], [3.0, 4.0]]),
        "one place thrice and another": np.array([[0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 6.0]]),
        "grid": grid,
        "turned grid": turned(grid, 17),
        "row": line,
        "column": line[:, ::-1],
        "turned line": turned(line, 33.3),
        "almost a column": np.stack([np.arange(40) * 1e-13, np.random.default_rng(1).permutation(40) * 100.0], -1),
        "cloud": rng.normal(0, 3000, (300, 2)),
        "clusters": rng.normal(0, 50, (200, 2)) + rng.integers(0, 3, (200, 1)) * 20000,
        "repeated": rng.integers(0, 4, (100, 2)) * 300.0,
        "far from the origin": grid + 1e7,
        "circle": 9000 * np.stack([np.cos(angles), np.sin(angles)], -1),
        # Its ends, at 170 and 370, are among the last corners.
        "ellipse": turned(
            np.stack([9000 * np.cos(angles - angles[170]), 7000 * np.sin(angles - angles[170])], -1), 153
        ),
    }


every_layout = pytest.mark.parametrize("name", list(layouts()))


@every_layout
def test_the_extent_is_the_largest_of_all_distances(name):
    points = layouts()[name]
    extent = measure_extent(points)
    assert extent.length == pytest.approx(all_distances(points).max(), rel=1e-12, abs=0)
    assert np.hypot(*(points[extent.ends[0]] - points[extent.ends[1]])) == pytest.approx(extent.length, rel=1e-12)


@every_layout
def test_from_every_point_the_farthest_is_on_the_rim(name):
    points = layouts()[name]
    distances = all_distances(points)
    rim = measure_extent(points).rim
    np.testing.assert_allclose(distances[:, rim].max(axis=1), distances.max(axis=1), rtol=1e-9)
    assert len(set(rim.tolist())) == len(rim)


@every_layout
def test_the_size_of_the_chunks_changes_nothing(name, monkeypatch):
    points = layouts()[name]
    expected = measure_extent(points).length
    monkeypatch.setattr("histokin.learn.sampling.extents._CHUNK", 3)
    extent = measure_extent(points)
    assert extent.length == expected
    assert np.hypot(*(points[extent.ends[0]] - points[extent.ends[1]])) == pytest.approx(expected, rel=1e-12)


def test_the_rim_of_a_grid_is_its_corners():
    grid = layouts()["grid"]
    np.testing.assert_array_equal(measure_extent(grid).rim, [0, 8, 54, 62])


@every_layout
@pytest.mark.parametrize("share", [0.5, 0.999999, 1.000001, 3.0])
def test_a_close_pair_is_found_exactly_where_there_is_one(name, share):
    points = layouts()[name]
    distances = all_distances(points)
    apart = distances[distances > 0]
    limit = share * float(apart.min()) if len(apart) else 1e9
    pair = find_close_pair(points, limit)
    if share <= 1 or not len(apart):
        assert pair is None
    else:
        assert 0 < distances[pair] < limit


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=25),
    st.floats(0, 90),
    st.sampled_from([1.0, 1.5, 2.3]),
)
def test_small_layouts_of_any_kind_agree_with_all_pairs(places, degrees, limit):
    points = turned(np.array(places, float), degrees)
    distances = all_distances(points)
    assert measure_extent(points).length == pytest.approx(distances.max(), rel=1e-9, abs=1e-9)
    pair = find_close_pair(points, limit)
    wanted = (distances > 1e-6) & (distances < limit - 1e-6)  # turning may part or join what lies on the limit
    assert pair is not None or not wanted.any()
    assert pair is None or 0 < distances[pair] < limit + 1e-9
