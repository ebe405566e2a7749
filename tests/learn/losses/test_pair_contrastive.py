"""The pair loss against a loop written from the formula, and its laws."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import pair_contrastive


@pytest.mark.parametrize("B", [1, 2, 9])
@pytest.mark.parametrize("D", [1, 6])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("margin", [0.5, 1.4])
def test_equals_the_loop_of_the_formula(B, D, power, normalise, margin):
    rng = np.random.default_rng(B * 10 + D)
    a, b, near = rng.normal(size=(B, D)), rng.normal(size=(B, D)), rng.random(B) < 0.5
    total, far = 0.0, []
    for i in range(B):
        x, y = (a[i] / np.linalg.norm(a[i]), b[i] / np.linalg.norm(b[i])) if normalise else (a[i], b[i])
        d = math.sqrt(sum((x - y) ** 2))
        total += d**power if near[i] else max(0.0, margin - d) ** power
        far += [] if near[i] else [d]
    result = pair_contrastive(
        *(torch.from_numpy(x) for x in (a, b, near)), margin=margin, power=power, normalise=normalise
    )
    assert result.loss.item() == pytest.approx(total / B, rel=1e-6, abs=1e-5)  # 1e-12 under the root shows near d = 0
    if far:
        assert result.far_distance.item() == pytest.approx(np.mean(far), rel=1e-6, abs=1e-5)
        assert result.beyond_margin.item() == pytest.approx(np.mean(np.array(far) >= margin))
    else:
        assert result.far_distance.isnan()


@pytest.mark.parametrize("power", [1, 2])
def test_equal_tiles_give_the_margin_of_far_pairs_and_a_finite_gradient(power):
    a = torch.ones(4, 3, requires_grad=True)
    near = torch.tensor([True, False, False, False])
    result = pair_contrastive(a, torch.ones(4, 3), near, margin=2, power=power, normalise=False)
    result.loss.backward()
    assert result.loss.item() == pytest.approx(0.75 * 2**power, rel=1e-5)
    assert result.beyond_margin.item() == 0
    assert a.grad.abs().max() == 0


def test_a_step_pulls_near_pairs_together_and_far_pairs_apart(chirp):
    a, b = chirp(6, 5, 0).requires_grad_(), chirp(6, 5, 1)
    near = torch.tensor([True, False] * 3)
    before = pair_contrastive(a, b, near, margin=5, power=2, normalise=False)
    before.loss.backward()
    after = pair_contrastive(a - 0.1 * a.grad, b, near, margin=5, power=2, normalise=False)
    assert after.near_distance < before.near_distance
    assert after.far_distance > before.far_distance


def test_far_pairs_beyond_the_margin_pull_nothing():
    a = torch.tensor([[9.0, 0]], requires_grad=True)
    result = pair_contrastive(a, torch.zeros(1, 2), torch.tensor([False]), margin=1, power=1, normalise=False)
    result.loss.backward()
    assert (result.loss.item(), result.beyond_margin.item(), a.grad.abs().sum().item()) == (0, 1, 0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"b": torch.ones(2, 2)}, "two equal"),
        ({"near": torch.ones(3)}, "near must be bool"),
        ({"near": torch.ones(2).bool()}, "near must be bool"),
        ({"margin": 0}, "margin must be > 0"),
        ({"power": 3}, "power must be 1 or 2"),
    ],
)
def test_misuse_is_refused(change, match):
    sound = {"a": torch.ones(3, 2), "b": torch.ones(3, 2), "near": torch.ones(3).bool(), "margin": 1, "power": 1}
    with pytest.raises(ValueError, match=match):
        pair_contrastive(**({"normalise": False} | sound | change))
