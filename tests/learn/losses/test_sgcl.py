"""SGCL's losses against loops written from the formulas, and their laws."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import sgcl_inner, sgcl_ramp, sgcl_spatial


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def padded(sets):
    width = max((len(rows) for rows in sets), default=0)
    return torch.tensor([list(rows) + [-1] * (width - len(rows)) for rows in sets]).reshape(len(sets), width).long()


def slow_spatial(q, bank, positives, hard, temperature, as_released):
    q, bank, terms = unit(q), unit(bank), []
    for i in range(len(q)):
        if not positives[i]:
            continue
        P = sum(math.exp(q[i] @ bank[j] / temperature) for j in positives[i])
        rest = sum(math.exp(q[i] @ bank[j] / temperature) for j in hard[i])
        if as_released:
            terms.append(-math.log(P / (P + len(bank) - len(positives[i]) + rest) + 1e-7))
        else:
            terms.append(-math.log(P / (P + rest)))
    return sum(terms) / max(1, len(terms)), len(terms)


@pytest.mark.parametrize("B", [1, 2, 6])
@pytest.mark.parametrize("D", [1, 4])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("as_released", [False, True])
def test_spatial_equals_the_loop_over_ragged_sets(B, D, temperature, as_released):
    rng = np.random.default_rng(B * 10 + D)
    q, bank = rng.normal(size=(B, D)), rng.normal(size=(20, D))
    positives = [rng.choice(20, rng.integers(0, 5), replace=False).tolist() for _ in range(B)]
    hard = [rng.choice(20, rng.integers(0, 7), replace=False).tolist() for _ in range(B)]
    sets = padded(positives), padded(hard)
    settings = {"temperature": temperature, "as_released": as_released}
    result = sgcl_spatial(torch.from_numpy(q), torch.from_numpy(bank), *sets, **settings)
    expected, anchors = slow_spatial(q, bank, positives, hard, **settings)
    assert result.loss.item() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert result.anchor_share.item() == pytest.approx(anchors / B)


def test_anchors_without_positives_leave_the_mean_and_take_no_gradient(chirp):
    bank = chirp(9, 4, 1)
    q = chirp(3, 4, 0).requires_grad_()
    positives, hard = torch.tensor([[0, 1], [-1, -1], [2, -1]]), torch.tensor([[4], [5], [6]])
    loss = sgcl_spatial(q, bank, positives, hard, temperature=0.2).loss
    loss.backward()
    some = sgcl_spatial(q[[0, 2]], bank, positives[[0, 2]], hard[[0, 2]], temperature=0.2).loss
    assert loss.item() == pytest.approx(some.item(), rel=1e-12)
    assert q.grad[1].tolist() == [0] * 4
    assert (q.grad[[0, 2]].abs().sum(1) > 0).all()


@pytest.mark.parametrize("as_released", [False, True])
@pytest.mark.parametrize("hard", [torch.full((3, 2), -1), torch.empty(3, 0).long(), torch.zeros(3, 1).long()])
@pytest.mark.parametrize("width", [0, 2])
def test_a_batch_without_any_positive_gives_zero_with_a_gradient(as_released, hard, width, chirp):
    q = chirp(3, 4, 0).requires_grad_()
    nobody = torch.full((3, width), -1)
    with torch.autograd.set_detect_anomaly(True):  # no NaN on the way back either
        result = sgcl_spatial(q, chirp(9, 4, 1), nobody, hard, temperature=0.2, as_released=as_released)
        result.loss.backward()
    assert result.loss.item() == 0
    assert q.grad.abs().max() == 0
    assert result.anchor_share.item() == 0
    assert result.positive_share.isnan()


def test_without_hard_negatives_the_loss_is_zero(chirp):
    q = chirp(2, 4, 0).requires_grad_()
    result = sgcl_spatial(q, chirp(9, 4, 1), torch.tensor([[1], [2]]), torch.empty(2, 0).long(), temperature=0.2)
    result.loss.backward()
    assert (result.loss.item(), result.positive_share.item()) == (0, 1)
    assert q.grad.isfinite().all()


def test_hard_negatives_push_and_only_the_released_form_forgets_it():
    bank = torch.eye(3)
    q = torch.tensor([[1.0, 1.0, 0.0]])
    pushes = []
    for as_released in (False, True):
        v = q.clone().requires_grad_()
        sets = torch.tensor([[0]]), torch.tensor([[1]])
        sgcl_spatial(v, bank, *sets, temperature=0.5, as_released=as_released).loss.backward()
        # q is unit(1, 1, 0): pulling towards e1 moves it along (1, -1); by p_neg / t for the pull and the push each.
        pushes.append(v.grad[0])
    s = math.exp(math.sqrt(0.5) / 0.5)
    clean, released = 0.5, (s + 2) / (2 * s + 2)
    slope = [-share / 0.5 / math.sqrt(2) * 0.5 for share in (clean, released)]
    assert pushes[0][:2].tolist() == pytest.approx([2 * slope[0], -2 * slope[0]], rel=1e-5)
    assert pushes[1][:2].tolist() == pytest.approx([slope[1], -slope[1]], rel=1e-4)


def test_one_good_positive_is_enough():
    bank = torch.eye(4)
    one = sgcl_spatial(bank[:1], bank, torch.tensor([[0, 1, 2]]), torch.tensor([[3]]), temperature=0.07)
    assert one.loss.item() < 1e-5


@pytest.mark.parametrize("B", [1, 3])
@pytest.mark.parametrize("C", [1, 4])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("exclude_own", [False, True])
def test_inner_equals_the_loop_of_the_formula(B, C, shared, exclude_own):
    rng = np.random.default_rng(B * 10 + C)
    local, banks = rng.normal(size=(C * B, 3)), rng.normal(size=(C, 7, 3))
    index = rng.integers(0, 7, B)
    negatives = rng.integers(0, 7, 3) if shared else rng.integers(0, 7, (B, 2 * C))
    shares = np.tile(negatives, (C * B, 1)) if shared else negatives.reshape(C * B, 2)
    q, u, total = unit(local), unit(banks), 0.0
    for c in range(C):
        for i in range(B):
            row = c * B + i
            positive = math.exp(q[row] @ u[c, index[i]] / 0.2)
            rest = 0.0
            for bank in u:
                for j in shares[row]:
                    rest += 0 if exclude_own and j == index[i] else math.exp(q[row] @ bank[j] / 0.2)
            total += math.log((positive + rest) / positive)
    args = [torch.from_numpy(x) for x in (local, banks, index, negatives)]
    loss = sgcl_inner(*args, temperature=0.2, exclude_own=exclude_own).loss
    assert loss.item() == pytest.approx(total / (C * B), rel=1e-9, abs=1e-12)
    apart = sgcl_inner(args[0], list(args[1]), *args[2:], temperature=0.2, exclude_own=exclude_own).loss
    assert apart.item() == loss.item()


def test_a_collapsed_encoder_gives_log_of_the_choices():
    bank = torch.ones(8, 3)
    loss = sgcl_inner(torch.ones(8, 3), [bank] * 4, torch.tensor([0, 1]), torch.tensor([4, 5]), temperature=0.1).loss
    assert loss.item() == pytest.approx(math.log(1 + 8), rel=1e-5)
    sets = torch.tensor([[0, 1]]), torch.tensor([[2, 3, 4]])
    assert sgcl_spatial(bank[:1], bank, *sets, temperature=0.07).loss.item() == pytest.approx(math.log(2.5), rel=1e-5)


def test_the_ramp_starts_low_and_stays_at_one():
    assert sgcl_ramp(0) == pytest.approx(math.exp(-5))
    assert sgcl_ramp(2.5, length=5) == pytest.approx(math.exp(-1.25))
    assert (sgcl_ramp(10), sgcl_ramp(11)) == (1, 1)
    with pytest.raises(ValueError, match="epoch must be >= 0"):
        sgcl_ramp(-1)
    with pytest.raises(ValueError, match="length must be > 0"):
        sgcl_ramp(1, length=0)


SPATIAL = {"q": torch.ones(2, 3), "bank": torch.ones(5, 3), "positives": torch.ones(2, 1).long()}
INNER = {"local": torch.ones(4, 3), "banks": [torch.ones(5, 3)] * 2, "index": torch.tensor([0, 1])}


@pytest.mark.parametrize(
    ("function", "change", "match"),
    [
        (sgcl_spatial, {"positives": torch.ones(3, 1).long()}, "positives must be integers of shape"),
        (sgcl_spatial, {"positives": torch.full((2, 1), 5)}, r"positives must lie in -1\.\.4"),
        (sgcl_spatial, {"hard": torch.full((2, 1), -2)}, "hard must lie in"),
        (sgcl_spatial, {"hard": torch.ones(2).long()}, "hard must be integers"),
        (sgcl_spatial, {"bank": torch.ones(5, 2)}, "D. bank"),
        (sgcl_spatial, {"temperature": 0}, "temperature must be > 0"),
        (sgcl_inner, {"local": torch.ones(5, 3)}, "C B, D"),
        (sgcl_inner, {"banks": []}, "C equal banks"),
        (sgcl_inner, {"banks": [torch.ones(5, 3), torch.ones(4, 3)]}, "C equal banks"),
        (sgcl_inner, {"negatives": torch.ones(2, 3).long()}, "multiple of 2"),
        (sgcl_inner, {"negatives": torch.ones(0).long()}, "at least one negative"),
        (sgcl_inner, {"index": torch.tensor([0, 7])}, "index must lie in"),
        (sgcl_inner, {"temperature": -1}, "temperature must be > 0"),
    ],
)
def test_misuse_is_refused(function, change, match):
    sound = SPATIAL | {"hard": torch.ones(2, 1).long()} if function is sgcl_spatial else None
    sound = sound or INNER | {"negatives": torch.ones(2, 2).long()}
    with pytest.raises(ValueError, match=match):
        function(**({"temperature": 0.1} | sound | change))
