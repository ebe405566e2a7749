"""KoLeo against a loop written from the formula, and its laws."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import koleo


@pytest.mark.parametrize("B", [2, 3, 12])
@pytest.mark.parametrize("D", [2, 7])
def test_equals_the_loop_of_the_formula(B, D):
    x = np.random.default_rng(B * 10 + D).normal(size=(B, D))
    u, total = x / np.linalg.norm(x, axis=1, keepdims=True), 0.0
    for i in range(B):
        nearest = min((j for j in range(B) if j != i), key=lambda j: -(u[i] @ u[j]))
        total -= math.log(math.sqrt(sum((u[i] - u[nearest] + 1e-8) ** 2)) + 1e-8)
    assert koleo(torch.from_numpy(x)).item() == pytest.approx(total / B, rel=1e-9)


def test_a_step_pushes_nearest_neighbours_apart():
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = koleo(x)
    loss.backward()
    assert koleo(x - 0.1 * x.grad) < loss


def test_twins_add_sixteen_each_and_stay_finite():
    x = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    x[1] = x[0]
    x = x.requires_grad_()
    loss = koleo(x)
    loss.backward()
    assert 2 * 15 / 6 - 0.5 < loss.item() < 2 * 18 / 6
    assert x.grad.isfinite().all()


def test_the_only_row_of_one_dimension_is_allowed():
    assert koleo(torch.tensor([[3.0], [-2.0]])).item() == pytest.approx(-math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    ("x", "eps", "match"), [(torch.ones(1, 3), 1e-8, "B >= 2"), (torch.ones(2, 3), 0.0, "eps must be > 0")]
)
def test_misuse_is_refused(x, eps, match):
    with pytest.raises(ValueError, match=match):
        koleo(x, eps=eps)
