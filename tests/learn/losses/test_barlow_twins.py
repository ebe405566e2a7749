"""Barlow Twins against a loop written from the formula, and its laws."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import barlow_twins


@pytest.mark.parametrize("B", [2, 3, 9])
@pytest.mark.parametrize("D", [1, 2, 6])
@pytest.mark.parametrize("off_diagonal", [0.0, 0.0051, 1.0])
def test_equals_the_loop_of_the_formula(B, D, off_diagonal):
    rng = np.random.default_rng(B * 10 + D)
    first, second = rng.normal(size=(2, B, D)) * 3 + 5
    z = [[[(x[b, d] - x[:, d].mean()) / math.sqrt(x[:, d].var() + 1e-5) for d in range(D)] for b in range(B)]
         for x in (first, second)]  # fmt: skip
    on = off = 0.0
    for i in range(D):
        for j in range(D):
            C = sum(z[0][b][i] * z[1][b][j] for b in range(B)) / B
            on, off = (on + (C - 1) ** 2, off) if i == j else (on, off + C**2)
    result = barlow_twins(torch.from_numpy(first), torch.from_numpy(second), off_diagonal=off_diagonal)
    assert result.loss.item() == pytest.approx(on + off_diagonal * off, rel=1e-9)
    assert (result.on_diagonal.item(), result.off_diagonal.item()) == pytest.approx((on, off), rel=1e-9)


def test_a_collapsed_encoder_gives_the_width():
    assert barlow_twins(torch.ones(4, 7), torch.ones(4, 7)).loss.item() == pytest.approx(7)


def test_shift_and_scale_of_a_dimension_do_not_matter():
    first, second = torch.randn(2, 16, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = barlow_twins(first * torch.arange(1, 6) + 3, second / 2, eps=0).loss
    assert moved.item() == pytest.approx(barlow_twins(first, second, eps=0).loss.item(), rel=1e-9)


@pytest.mark.parametrize(
    ("first", "settings", "match"),
    [
        (torch.ones(1, 3), {}, "B >= 2"),
        (torch.ones(3), {}, "two equal"),
        (torch.ones(2, 3), {"off_diagonal": -1}, "must be >= 0"),
        (torch.ones(2, 3), {"eps": -1}, "must be >= 0"),
    ],
)
def test_misuse_is_refused(first, settings, match):
    with pytest.raises(ValueError, match=match):
        barlow_twins(first, first, **settings)
