"""Unit rows on the grid: near enough to be true, coarse enough to be exact."""

from fractions import Fraction

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from histokin.learn.state.sphere import unit_float32, unit_on_grid


def normals(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_rows_are_unit_to_half_a_grid_step():
    x = normals(40, 9)
    exact = x / x.norm(dim=1, keepdim=True)
    assert (unit_on_grid(3 * x) - exact).abs().max() <= 2.0**-27
    torch.testing.assert_close(unit_float32(3 * x), exact.float())


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 100, 1536]))
def test_dot_products_and_sums_are_exact_in_any_order(seed, D):
    grid = unit_on_grid(normals(3, D, seed=seed))
    order = torch.from_numpy(np.random.default_rng(seed).permutation(D))
    a, b = ([Fraction(v) for v in row.tolist()] for row in grid[:2])
    exact = sum((p * q for p, q in zip(a, b, strict=True)), Fraction(0))
    assert Fraction((grid[0] @ grid[1]).item()) == exact
    assert Fraction((grid[0][order] @ grid[1][order]).item()) == exact
    assert Fraction((grid @ grid.T)[0, 1].item()) == exact
    assert Fraction(grid[0].sum().item()) == sum(a)


def test_zero_rows_stay_zero_and_infinities_become_nan():
    assert unit_on_grid(torch.zeros(2, 3)).tolist() == [[0, 0, 0]] * 2
    assert unit_on_grid(torch.tensor([[torch.inf, 1.0]])).isnan().any()
    assert unit_float32(torch.zeros(1, 2)).tolist() == [[0, 0]]
