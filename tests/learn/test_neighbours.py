"""Spatial neighbours against all pairs, SGCL's golden sets, and memory by the neighbours."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histokin.learn import neighbours
from histokin.learn.neighbours import neighbours_within


def slow_neighbours(slides, points, radius, *, include_equal=False):
    found = []
    for i in range(len(slides)):
        squares = ((points - points[i]) ** 2).sum(axis=1)
        is_within = squares <= radius**2 if include_equal else squares < radius**2
        found.append(np.flatnonzero((slides == slides[i]) & (squares > 0) & is_within).tolist())
    return found


def listed(found):
    return [found.indices[found.indptr[i] : found.indptr[i + 1]].tolist() for i in range(len(found))]


def grid(n, pitch=1.0):
    return np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) * pitch


@pytest.fixture(scope="module")
def sgcl() -> tuple[np.ndarray, np.ndarray]:
    i = np.arange(50)
    return i // 25, np.stack([i % 25 % 5, i % 25 // 5], -1).astype(float)


def test_the_golden_sets_of_sgcl(sgcl):
    slides, points = sgcl
    found = listed(neighbours_within(slides, points, 2.0))
    expected = [[1, 5, 6], [6, 7, 8, 11, 13, 16, 17, 18], [25, 26, 31, 35, 36], [43, 44, 48]]
    assert [found[anchor] for anchor in (0, 12, 30, 49)] == expected


def test_the_golden_sets_of_sgcl_at_three_steps(sgcl):
    slides, points = sgcl
    found = listed(neighbours_within(slides, points, 3.0))
    assert found[0] == [1, 2, 5, 6, 7, 10, 11, 12]
    assert found[12] == [j for j in range(25) if j != 12]
    assert found[30] == [25, 26, 27, 31, 32, 35, 36, 37, 40, 41, 42]
    assert found[49] == [37, 38, 39, 42, 43, 44, 47, 48]


@pytest.mark.parametrize(("radius", "include_equal", "n"), [(1, False, 0), (1, True, 4), (2, False, 8), (2, True, 12)])
def test_a_tile_at_the_radius_counts_only_if_asked(radius, include_equal, n):
    found = neighbours_within(np.zeros(81, int), grid(9, 112.5), radius * 112.5, include_equal=include_equal)
    assert len(listed(found)[40]) == n


@settings(deadline=None, max_examples=80, derandomize=True)
@given(
    n=st.integers(0, 60),
    n_slides=st.integers(1, 4),
    kind=st.sampled_from(["cloud", "whole", "line", "far off"]),
    radius=st.sampled_from([0.3, 1.0, 2.0, 7.5, 1e3]),
    include_equal=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_all_pairs(n, n_slides, kind, radius, include_equal, seed):
    rng = np.random.default_rng(seed)
    slides = rng.integers(0, n_slides, n) * 5 - 3
    points = {
        "cloud": rng.normal(0, 3, (n, 2)),
        "whole": rng.integers(-3, 4, (n, 2)).astype(float),  # repeated places, distances on the radius
        "line": np.arange(n)[:, None] * np.array([1.0, 0.0]),
        "far off": rng.integers(0, 4, (n, 2)) + np.array([1e6, -1e6]),
    }[kind]
    found = neighbours_within(slides, points, radius, include_equal=include_equal)
    assert listed(found) == slow_neighbours(slides, points, radius, include_equal=include_equal)
    assert found.indptr.dtype == np.int64
    assert found.indices.dtype == np.int32


@pytest.mark.parametrize(("pairs", "tiles"), [(1, 1), (7, 5), (30, 1000), (1000, 3)])
def test_the_size_of_the_blocks_changes_nothing(pairs, tiles, monkeypatch):
    rng = np.random.default_rng(0)
    slides, points = rng.integers(0, 3, 120), rng.integers(0, 9, (120, 2)).astype(float)
    expected = slow_neighbours(slides, points, 2.5)
    monkeypatch.setattr(neighbours, "_PAIRS", pairs)
    monkeypatch.setattr(neighbours, "_TILES", tiles)
    assert listed(neighbours_within(slides, points, 2.5)) == expected


def test_a_radius_tiny_against_the_slide_is_no_trouble():
    # Cells of the radius would be 1e20 along an axis, too many for int64.
    points = np.array([[0.0, 0.0], [5e-13, 0.0], [1e8, 1e8], [1e8, 1e8 + 5]])
    assert listed(neighbours_within(np.zeros(4, int), points, 1e-12)) == [[1], [0], [], []]


def test_rounding_at_the_border_of_a_cell_loses_no_neighbour():
    # 2 - (1 - 2^-53) rounds to 1: at the radius, though in cells of side 1 there would be a whole one between the two.
    points = np.array([[0.0, 0.0], [np.nextafter(1.0, 0.0), 0.0], [2.0, 0.0]])
    found = listed(neighbours_within(np.zeros(3, int), points, 1.0, include_equal=True))
    assert found == [[1], [0, 2], [1]]


def test_many_slides_of_one_tile_have_no_neighbours():
    found = neighbours_within(np.arange(5000), np.zeros((5000, 2)), 10.0)
    assert len(found) == 5000
    assert len(found.indices) == 0


def test_part_of_the_neighbours_is_that_of_the_rows_asked_for(sgcl):
    slides, points = sgcl
    whole = neighbours_within(slides, points, 3.0)
    rows = np.array([49, 3, 3, 12, 0])
    indptr, indices = whole.of(rows)
    assert indptr.dtype == np.int64
    parts = [indices[indptr[k] : indptr[k + 1]].tolist() for k in range(len(rows))]
    assert parts == [listed(whole)[row] for row in rows]
    empty = whole.of(np.empty(0, np.int64))
    assert (empty[0].tolist(), empty[1].tolist()) == ([0], [])


def test_memory_goes_with_the_neighbours():
    points = grid(200, 112.0)  # 40 000 tiles: all pairs would be 1.6e9
    tracemalloc.start()
    try:
        found = neighbours_within(np.zeros(len(points), int), points, 336.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found.of(np.array([100 * 200 + 100]))[1]) == 24
    result = found.indices.nbytes + found.indptr.nbytes
    assert peak < 2 * result + 110 * len(points) + 100 * neighbours._PAIRS  # the last is one block's


def test_misuse_is_refused():
    with pytest.raises(ValueError, match=r"\(n,\) slides and \(n, 2\) finite positions"):
        neighbours_within(np.zeros(3, int), np.zeros((2, 2)), 1.0)
    with pytest.raises(ValueError, match="finite positions"):
        neighbours_within(np.zeros(2, int), np.array([[0, np.inf], [0, 1]]), 1.0)
    with pytest.raises(ValueError, match="radius must be positive, got 0"):
        neighbours_within(np.zeros(2, int), np.zeros((2, 2)), 0)
