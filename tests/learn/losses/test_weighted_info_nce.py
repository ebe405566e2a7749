"""Weighted InfoNCE and the rules of its weights."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import cluster_weights, hardness_weights, info_nce_queue, weighted_info_nce


@pytest.mark.parametrize("B", [1, 2, 6])
@pytest.mark.parametrize("Q", [1, 9])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_equals_the_loop_of_the_formula(B, Q, temperature):
    rng = np.random.default_rng(B * 10 + Q)
    q, k, queue = rng.normal(size=(B, 4)), rng.normal(size=(B, 4)), rng.normal(size=(Q, 4))
    weights, own = rng.random((B, Q)) * (rng.random((B, Q)) < 0.7), rng.random((B, Q)) < 0.3
    uq, uk, uu = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k, queue))
    total = 0.0
    for i in range(B):
        positive, mass = uq[i] @ uk[i] / temperature, 0.0
        for j in range(Q):
            mass += 0 if own[i, j] else weights[i, j] * math.exp(uq[i] @ uu[j] / temperature)
        total += math.log(math.exp(positive) + mass) - positive
    args = [torch.from_numpy(x) for x in (q, k, queue, weights)]
    loss = weighted_info_nce(*args, temperature=temperature, own=torch.from_numpy(own)).loss
    assert loss.item() == pytest.approx(total / B, rel=1e-9, abs=1e-12)


def test_weights_of_one_are_the_plain_loss_with_its_parts(chirp):
    args = chirp(6, 5, 0), chirp(6, 5, 1), chirp(8, 5, 2)
    weighted = weighted_info_nce(*args, torch.ones(6, 8), temperature=0.2)
    for got, expected in zip(weighted, info_nce_queue(*args, temperature=0.2), strict=True):
        assert got.item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_weight_of_zero_removes_a_negative_and_its_gradient(chirp):
    q, k, queue = chirp(6, 5, 0).requires_grad_(), chirp(6, 5, 1), chirp(8, 5, 2)
    weights = torch.ones(6, 8)
    weights[:, 3:] = 0
    weighted = weighted_info_nce(q, k, queue, weights, temperature=0.1).loss
    removed = info_nce_queue(q, k, queue[:3], temperature=0.1).loss
    assert weighted.item() == pytest.approx(removed.item(), rel=1e-12)
    (with_zero,), (without,) = torch.autograd.grad(weighted, q), torch.autograd.grad(removed, q)
    assert torch.allclose(with_zero, without, rtol=1e-10)
    nothing = weighted_info_nce(q, k, queue, torch.zeros(6, 8), temperature=0.1).loss
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, q)[0].isfinite().all()


def test_a_tiny_weight_tends_to_none(chirp):
    args = chirp(6, 5, 0), chirp(6, 5, 1), chirp(8, 5, 2)
    tiny, none = (weighted_info_nce(*args, torch.full((6, 8), w), temperature=0.1).loss for w in (1e-30, 0.0))
    assert tiny.item() == pytest.approx(none.item(), abs=1e-12)


def test_a_collapsed_encoder_gives_log_of_the_weights():
    same = torch.ones(3, 4)
    loss = weighted_info_nce(same, same, torch.ones(5, 4), torch.full((3, 5), 0.25), temperature=0.1).loss
    assert loss.item() == pytest.approx(math.log(1 + 5 / 4), rel=1e-6)


def test_cluster_weights_by_hand():
    weights = cluster_weights(torch.tensor([0, 1]), torch.tensor([1, 0, 2]), beta=0.75)
    assert weights.tolist() == [[1, 0.25, 1], [0.25, 1, 1]]
    with pytest.raises(ValueError, match="beta must lie in"):
        cluster_weights(torch.tensor([0]), torch.tensor([0]), beta=1.5)


def test_hardness_weights_grow_with_the_cosine_and_have_mean_one():
    weights = hardness_weights(torch.tensor([[2.0, 0]]), torch.tensor([[1.0, 0], [0, 3], [-1, 0]]), sharpness=1.0)
    assert weights.mean().item() == pytest.approx(1)
    assert (weights[0, 0] / weights[0, 1]).item() == pytest.approx(math.e, rel=1e-6)
    assert hardness_weights(torch.ones(2, 3), torch.ones(4, 3), sharpness=0.0).tolist() == [[1.0] * 4] * 2


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"weights": torch.ones(2, 4)}, r"weights must be \(2, 5\)"),
        ({"weights": -torch.ones(2, 5)}, "finite and >= 0"),
        ({"weights": torch.full((2, 5), torch.nan)}, "finite and >= 0"),
        ({"weights": torch.full((2, 5), torch.inf)}, "finite and >= 0"),
        ({"queue": torch.ones(5, 3)}, "queue must be"),
        ({"temperature": 0}, "temperature must be > 0"),
    ],
)
def test_misuse_is_refused(change, match):
    sound = {"q": torch.ones(2, 4), "k": torch.ones(2, 4), "queue": torch.ones(5, 4), "weights": torch.ones(2, 5)}
    with pytest.raises(ValueError, match=match):
        weighted_info_nce(**({"temperature": 0.1} | sound | change))
