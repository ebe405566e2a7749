"""NT-Xent against a loop written from the formula, and its laws."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import nt_xent


def slow_nt_xent(first, second, temperature):
    z = [row / np.linalg.norm(row) for row in (*first.astype(np.float64), *second.astype(np.float64))]
    B, total = len(first), 0.0
    for i in range(2 * B):
        s = [z[i] @ z[j] / temperature for j in range(2 * B)]
        others = [s[j] for j in range(2 * B) if j != i]
        total += math.log(sum(math.exp(v - max(others)) for v in others)) + max(others) - s[(i + B) % (2 * B)]
    return total / (2 * B)


@pytest.mark.parametrize("B", [2, 3, 9])
@pytest.mark.parametrize("D", [1, 4, 33])
@pytest.mark.parametrize("temperature", [0.05, 0.2, 1.0])
def test_equals_the_loop_of_the_formula(B, D, temperature):
    rng = np.random.default_rng(B * 100 + D)
    first, second = rng.normal(size=(2, B, D)).astype(np.float32)
    loss = nt_xent(torch.from_numpy(first), torch.from_numpy(second), temperature=temperature)
    assert loss.item() == pytest.approx(slow_nt_xent(first, second, temperature), rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("B", [2, 17])
def test_a_collapsed_encoder_gives_log_of_the_other_views(B):
    same = torch.ones(B, 6)
    assert nt_xent(same, same, temperature=0.1).item() == pytest.approx(math.log(2 * B - 1), rel=1e-6)


def test_scale_and_order_of_views_do_not_matter(chirp):
    first, second = chirp(6, 5, 0).float(), chirp(6, 5, 1).float()
    loss = nt_xent(first, second, temperature=0.2)
    assert nt_xent(second * 9, first / 7, temperature=0.2).item() == pytest.approx(loss.item(), rel=1e-6)


def test_gradient_equals_central_differences(chirp):
    first, second = chirp(4, 3, 0).float().requires_grad_(), chirp(4, 3, 1).numpy()
    nt_xent(first, torch.from_numpy(second), temperature=0.2).backward()
    base = first.detach().double().numpy()
    for i, j in np.ndindex(*base.shape):
        step = np.zeros_like(base)
        step[i, j] = 1e-5
        slope = (slow_nt_xent(base + step, second, 0.2) - slow_nt_xent(base - step, second, 0.2)) / 2e-5
        assert first.grad[i, j].item() == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(
    ("first", "second", "temperature", "match"),
    [
        (torch.ones(3, 2), torch.ones(2, 2), 0.1, "two equal"),
        (torch.ones(1, 2), torch.ones(1, 2), 0.1, "B >= 2"),
        (torch.ones(2), torch.ones(2), 0.1, "two equal"),
        (torch.ones(2, 0), torch.ones(2, 0), 0.1, "two equal"),
        (torch.ones(2, 2), torch.ones(2, 2), 0.0, "temperature must be > 0"),
        (torch.ones(2, 2), torch.ones(2, 2), math.nan, "temperature must be > 0"),
    ],
)
def test_misuse_is_refused(first, second, temperature, match):
    with pytest.raises(ValueError, match=match):
        nt_xent(first, second, temperature=temperature)
