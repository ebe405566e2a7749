"""BYOL against a loop written from the formula."""

import numpy as np
import pytest
import torch

from histokin.learn.losses import byol


@pytest.mark.parametrize("B", [1, 2, 7])
@pytest.mark.parametrize("D", [1, 5])
def test_equals_the_loop_of_the_formula(B, D):
    p1, z2, p2, z1 = arrays = np.random.default_rng(B * 10 + D).normal(size=(4, B, D))
    total = 0.0
    for p, z in ((p1, z2), (p2, z1)):
        for i in range(B):
            total += 2 - 2 * (p[i] @ z[i]) / np.sqrt(p[i] @ p[i]) / np.sqrt(z[i] @ z[i])
    assert byol(*torch.from_numpy(arrays)).item() == pytest.approx(total / B, rel=1e-9, abs=1e-12)


def test_it_runs_from_equal_to_opposite():
    x = torch.eye(3)
    assert byol(x, x, 2 * x, 3 * x).item() == pytest.approx(0, abs=1e-6)
    assert byol(x, -x, x, -x).item() == pytest.approx(8)


def test_views_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="four equal"):
        byol(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3), torch.ones(3, 3))
