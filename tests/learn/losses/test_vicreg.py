"""VICReg against a loop written from the formula, and its laws."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import vicreg


@pytest.mark.parametrize("B", [2, 3, 9])
@pytest.mark.parametrize("D", [1, 2, 6])
@pytest.mark.parametrize("weights", [(25, 25, 1), (1, 0, 0), (0, 2, 3)])
def test_equals_the_loop_of_the_formula(B, D, weights):
    rng = np.random.default_rng(B * 10 + D)
    first, second = rng.normal(size=(2, B, D)) * 0.8 + 5
    inv = sum((first[b, d] - second[b, d]) ** 2 for b in range(B) for d in range(D)) / (B * D)
    var = cov = 0.0
    for x in (first, second):
        m = x.mean(0)
        for i in range(D):
            for j in range(D):
                c = sum((x[b, i] - m[i]) * (x[b, j] - m[j]) for b in range(B)) / (B - 1)
                if i == j:
                    var += max(0.0, 1 - math.sqrt(c + 1e-4)) / D / 2
                else:
                    cov += c**2 / D
    settings = dict(zip(("invariance", "variance", "covariance"), weights, strict=True))
    result = vicreg(torch.from_numpy(first), torch.from_numpy(second), **settings)
    expected = weights[0] * inv + weights[1] * var + weights[2] * cov
    assert result.loss.item() == pytest.approx(expected, rel=1e-9)
    assert [part.item() for part in result[1:]] == pytest.approx([inv, var, cov], rel=1e-9)


def test_a_collapsed_encoder_pays_for_its_variance_with_a_finite_gradient():
    same = torch.ones(4, 7, requires_grad=True)
    result = vicreg(same, torch.ones(4, 7))
    result.loss.backward()
    assert result.loss.item() == pytest.approx(25 * (1 - 0.01), rel=1e-6)
    assert same.grad.isfinite().all()


@pytest.mark.parametrize(
    ("first", "settings", "match"),
    [(torch.ones(1, 3), {}, "B >= 2"), (torch.ones(2, 3), {"eps": 0}, "eps must be > 0")],
)
def test_misuse_is_refused(first, settings, match):
    with pytest.raises(ValueError, match=match):
        vicreg(first, first, **settings)
