"""The KDE regulariser against a loop written from the formula, its bounds, and its sign."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import kde


@pytest.mark.parametrize("B", [2, 3, 12])
@pytest.mark.parametrize("D", [1, 7])
@pytest.mark.parametrize("kappa", [0.5, 5.0])
@pytest.mark.parametrize("include_self", [True, False])
def test_equals_the_loop_of_the_formula(B, D, kappa, include_self):
    x = np.random.default_rng(B * 10 + D).normal(size=(B, D))
    u, total = x / np.linalg.norm(x, axis=1, keepdims=True), 0.0
    for i in range(B):
        terms = [math.exp(kappa * (u[i] @ u[j])) for j in range(B) if include_self or j != i]
        total += math.log(sum(terms) / len(terms))
    loss = kde(torch.from_numpy(x), kappa=kappa, include_self=include_self)
    assert loss.item() == pytest.approx(total / B, rel=1e-9, abs=1e-12)


def test_collapsed_rows_cost_more_than_spread_rows():
    collapsed, spread = kde(torch.ones(6, 6)), kde(torch.eye(6))
    assert collapsed.item() == pytest.approx(5, rel=1e-6)
    assert spread.item() == pytest.approx(math.log((math.exp(5) + 5) / 6), rel=1e-6)
    assert kde(torch.ones(6, 6), include_self=False).item() == pytest.approx(5, rel=1e-6)
    assert kde(torch.eye(6), include_self=False).item() == pytest.approx(0, abs=1e-6)


def test_descent_lowers_the_mean_similarity():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 8, generator=generator) + 1.5

    def similarity(x):
        unit = torch.nn.functional.normalize(x, dim=1)
        return (unit @ unit.T).mean().item()

    start = similarity(x)
    for _ in range(50):
        x = x.detach().requires_grad_()
        kde(x).backward()
        x = x - 5 * x.grad
    assert start > 0.5
    assert similarity(x) < 0.2


@pytest.mark.parametrize(
    ("x", "kappa", "match"), [(torch.ones(1, 3), 5, "B >= 2"), (torch.ones(2, 3), 0, "kappa must be > 0")]
)
def test_misuse_is_refused(x, kappa, match):
    with pytest.raises(ValueError, match=match):
        kde(x, kappa=kappa)
