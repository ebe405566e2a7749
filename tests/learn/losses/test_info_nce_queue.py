"""InfoNCE with a queue against a loop written from the formula, and its laws."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import info_nce_queue, nt_xent


def slow(q, k, queue, temperature, own):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, k, queue)]
    total = 0.0
    for i in range(len(q)):
        positive = unit[0][i] @ unit[1][i] / temperature
        mass = math.exp(positive)
        for j in range(len(queue)):
            if not own[i, j]:
                mass += math.exp(unit[0][i] @ unit[2][j] / temperature)
        total += math.log(mass) - positive
    return total / len(q)


@pytest.mark.parametrize("B", [1, 2, 7])
@pytest.mark.parametrize("D", [1, 5])
@pytest.mark.parametrize("Q", [1, 2, 13])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_equals_the_loop_of_the_formula(B, D, Q, temperature):
    rng = np.random.default_rng(B * 100 + D * 10 + Q)
    q, k, queue = rng.normal(size=(B, D)), rng.normal(size=(B, D)), rng.normal(size=(Q, D))
    own = rng.random((B, Q)) < 0.3
    args = [torch.from_numpy(x) for x in (q, k, queue)]
    for mask in (None, own):
        loss = info_nce_queue(*args, temperature=temperature, own=None if mask is None else torch.from_numpy(mask)).loss
        expected = slow(q, k, queue, temperature, np.zeros_like(own) if mask is None else mask)
        assert loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("queue", [torch.zeros(0, 4), torch.ones(3, 4)])
def test_without_negatives_the_loss_is_zero_and_its_gradient_finite(queue):
    q = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    result = info_nce_queue(q, torch.ones(2, 4), queue, temperature=0.1, own=torch.ones(2, len(queue)).bool())
    result.loss.backward()
    assert result.loss.item() == 0
    assert q.grad.tolist() == [[0] * 4] * 2
    assert result.neg_sim.isnan()


def test_own_rows_are_as_good_as_absent(chirp):
    q, k, queue = chirp(1, 5, 0), chirp(1, 5, 1), chirp(8, 5, 2)
    own = torch.tensor([[True, False] * 4])
    left = info_nce_queue(q, k, queue[1::2], temperature=0.2)
    for got, expected in zip(info_nce_queue(q, k, queue, temperature=0.2, own=own), left, strict=True):
        assert got.item() == pytest.approx(expected.item(), rel=1e-12)


def test_a_collapsed_encoder_gives_log_of_the_rows():
    same = torch.ones(9, 4)
    result = info_nce_queue(same, same, same, temperature=0.05)
    assert result.loss.item() == pytest.approx(math.log(10), rel=1e-6)
    assert (result.pos_sim.item(), result.neg_sim.item()) == pytest.approx((1, 1))


def test_nt_xent_is_info_nce_over_the_other_views(chirp):
    z = torch.cat([chirp(3, 5, 0), chirp(3, 5, 1)])
    rows = []
    for i in range(6):
        others = [j for j in range(6) if j not in {i, (i + 3) % 6}]
        rows.append(info_nce_queue(z[i : i + 1], z[(i + 3) % 6][None], z[others], temperature=0.3).loss)
    assert torch.stack(rows).mean().item() == pytest.approx(nt_xent(z[:3], z[3:], temperature=0.3).item(), rel=1e-12)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"k": torch.ones(3, 4)}, "two equal"),
        ({"q": torch.ones(0, 4), "k": torch.ones(0, 4)}, "B >= 1"),
        ({"queue": torch.ones(5, 3)}, r"queue must be \(Q, 4\)"),
        ({"own": torch.ones(2, 4).bool()}, r"own must be bool \(2, 5\)"),
        ({"own": torch.ones(2, 5)}, "own must be bool"),
        ({"temperature": -1.0}, "temperature must be > 0"),
    ],
)
def test_misuse_is_refused(change, match):
    sound = {"q": torch.ones(2, 4), "k": torch.ones(2, 4), "queue": torch.ones(5, 4), "temperature": 0.1}
    with pytest.raises(ValueError, match=match):
        info_nce_queue(**(sound | change))
