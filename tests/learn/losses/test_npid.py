"""The NPID family against loops written from the formulas, and its laws."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import estimate_z, npid_nce, npid_proximal, npid_sampled_ce, npid_softmax


def world(B, D, N, m, seed=0):
    rng = np.random.default_rng(seed + B * 100 + D * 10 + N)
    v, bank = rng.normal(size=(B, D)), rng.normal(size=(N, D))
    return v, bank, rng.integers(0, N, B), rng.integers(0, N, (B, m))


def cosines(v, bank):
    v, bank = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (v, bank))
    return v @ bank.T


def tensors(*arrays):
    return [torch.from_numpy(array) for array in arrays]


@pytest.mark.parametrize("B", [1, 2, 5])
@pytest.mark.parametrize(("D", "N"), [(1, 2), (4, 1), (4, 17)])
@pytest.mark.parametrize("chunk", [1, 5, 17, 100])
def test_softmax_equals_the_loop_of_the_formula_at_any_chunk(B, D, N, chunk):
    v, bank, index, _ = world(B, D, N, 1)
    c = cosines(v, bank)
    total, others = 0.0, []
    for i in range(B):
        s = [value / 0.1 for value in c[i]]
        total += math.log(sum(math.exp(x - max(s)) for x in s)) + max(s) - s[index[i]]
        others += [c[i, j] for j in range(N) if j != index[i]]
    result = npid_softmax(*tensors(v, bank, index), temperature=0.1, chunk=chunk)
    assert result.loss.item() == pytest.approx(total / B, rel=1e-9, abs=1e-12)
    assert result.pos_sim.item() == pytest.approx(np.mean(c[range(B), index]))
    if others:
        assert result.neg_sim.item() == pytest.approx(np.mean(others), rel=1e-9, abs=1e-12)
    else:
        assert result.neg_sim.isnan()


@pytest.mark.parametrize("N", [1, 40])
def test_softmax_gradient_is_that_of_cross_entropy_at_any_chunk(N):
    v, bank, index = tensors(*world(6, 4, N, 1)[:3])
    whole, chunked = v.clone().requires_grad_(), v.clone().requires_grad_()
    unit = torch.nn.functional.normalize
    torch.nn.functional.cross_entropy(unit(whole, dim=1) @ unit(bank, dim=1).T / 0.07, index).backward()
    npid_softmax(chunked, bank, index, temperature=0.07, chunk=7).loss.backward()
    assert torch.allclose(whole.grad, chunked.grad, rtol=1e-9, atol=1e-12)


def test_softmax_keeps_nothing_of_the_banks_length_for_backward():
    v, bank, index = tensors(*world(4, 3, 5000, 1)[:3])
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        npid_softmax(v.requires_grad_(), bank, index, temperature=0.07, chunk=64)
    assert max(kept) < 100


@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("eps", [0.0, 1e-7, 0.1])
@pytest.mark.parametrize("m", [1, 6])
def test_nce_equals_the_loop_of_the_formula(temperature, eps, m):
    v, bank, index, negatives = world(5, 4, 30, m)
    c, a, total, Z = cosines(v, bank), m / 30, 0.0, 50.0
    for i in range(5):
        P = math.exp(c[i, index[i]] / temperature) / Z
        total -= math.log(P / (P + a + eps))
        for j in negatives[i]:
            P = math.exp(c[i, j] / temperature) / Z
            total -= math.log(a / (P + a + eps))
    settings = {"temperature": temperature, "eps": eps}
    args = tensors(v, bank, index, negatives)
    assert npid_nce(*args, Z=Z, **settings).loss.item() == pytest.approx(total / 5, rel=1e-9)
    assert npid_nce(*args, Z=torch.tensor(Z), **settings).loss.item() == pytest.approx(total / 5, rel=1e-9)


def test_nce_does_not_overflow_where_the_exponential_would():
    v, bank, index, negatives = tensors(*world(5, 4, 30, 3))
    v = bank[index].float().requires_grad_()
    result = npid_nce(v, bank.float(), index, negatives, temperature=0.005, Z=1e30)
    result.loss.backward()
    assert result.loss.isfinite()
    assert v.grad.isfinite().all()


def test_z_is_the_pooled_mean_times_n():
    v, bank, index, negatives = world(5, 4, 30, 3)
    c = cosines(v, bank)
    pooled = [math.exp(c[i, j] / 0.2) for i in range(5) for j in (index[i], *negatives[i])]
    Z = estimate_z(*tensors(v, bank, index, negatives), temperature=0.2)
    assert Z.dtype == torch.float64
    assert Z.item() == pytest.approx(30 * np.mean(pooled), rel=1e-12)


@pytest.mark.parametrize("B", [1, 4])
@pytest.mark.parametrize("m", [1, 7])
@pytest.mark.parametrize("exclude_own", [False, True])
def test_sampled_ce_equals_the_loop_of_the_formula(B, m, exclude_own):
    v, bank, index, negatives = world(B, 3, 6, m)
    c, total = cosines(v, bank), 0.0
    for i in range(B):
        mass = math.exp(c[i, index[i]] / 0.2)
        mass += sum(math.exp(c[i, j] / 0.2) for j in negatives[i] if not (exclude_own and j == index[i]))
        total += math.log(mass) - c[i, index[i]] / 0.2
    loss = npid_sampled_ce(*tensors(v, bank, index, negatives), temperature=0.2, exclude_own=exclude_own).loss
    assert loss.item() == pytest.approx(total / B, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("function", ["nce", "sampled_ce", "z"])
def test_shared_negatives_are_the_same_rows_for_every_anchor(function):
    v, bank, index, negatives = tensors(*world(5, 4, 30, 8))
    call = {
        "nce": lambda rows: npid_nce(v, bank, index, rows, temperature=0.1, Z=9.0).loss,
        "sampled_ce": lambda rows: npid_sampled_ce(v, bank, index, rows, temperature=0.1, exclude_own=True).loss,
        "z": lambda rows: estimate_z(v, bank, index, rows, temperature=0.1),
    }[function]
    assert call(negatives[0]).item() == pytest.approx(call(negatives[:1].repeat(5, 1)).item(), rel=1e-12)


def test_all_other_rows_as_sample_are_the_exact_softmax():
    v, bank, index, _ = tensors(*world(5, 4, 12, 1))
    others = torch.stack([torch.tensor([j for j in range(12) if j != i]) for i in index.tolist()])
    sampled = npid_sampled_ce(v, bank, index, others, temperature=0.1)
    exact = npid_softmax(v, bank, index, temperature=0.1)
    for got, expected in zip(sampled, exact, strict=True):
        assert got.item() == pytest.approx(expected.item(), rel=1e-9)


def test_an_own_row_among_negatives_holds_the_loss_above_log_2():
    v, index = torch.eye(4), torch.arange(4)
    negatives = torch.arange(4)
    kept = npid_sampled_ce(v, v, index, negatives, temperature=0.05).loss
    left_out = npid_sampled_ce(v, v, index, negatives, temperature=0.05, exclude_own=True).loss
    assert kept.item() == pytest.approx(math.log(2), rel=1e-6)
    assert left_out.item() < 1e-8


def test_a_collapsed_encoder_gives_log_of_the_choices():
    v, bank, index = torch.ones(3, 4), torch.ones(11, 4), torch.tensor([0, 1, 2])
    assert npid_softmax(v, bank, index, temperature=0.07).loss.item() == pytest.approx(math.log(11), rel=1e-5)
    sampled = npid_sampled_ce(v, bank, index, torch.arange(3, 8), temperature=0.07).loss
    assert sampled.item() == pytest.approx(math.log(6), rel=1e-5)


def test_proximal_by_hand():
    v, bank = torch.tensor([[2.0, 0], [0, 1]]), torch.tensor([[5.0, 0], [0, -1]])
    assert npid_proximal(v, bank, torch.tensor([0, 0])).item() == pytest.approx(1)  # 0 and 2
    assert npid_proximal(v, bank, torch.tensor([0, 1])).item() == pytest.approx(2)  # 0 and 4


SOUND = {"v": torch.ones(2, 3), "bank": torch.ones(5, 3), "index": torch.tensor([0, 1])}
SAMPLE = {"negatives": torch.tensor([2, 3])}


@pytest.mark.parametrize(
    ("function", "change", "match"),
    [
        (npid_softmax, {"bank": torch.ones(5, 4)}, "D. bank"),
        (npid_softmax, {"bank": torch.ones(0, 3)}, "N >= 1"),
        (npid_softmax, {"index": torch.tensor([0, 5])}, "index must lie in 0..4"),
        (npid_softmax, {"index": torch.tensor([0])}, "index must be integers"),
        (npid_softmax, {"temperature": 0}, "temperature must be > 0"),
        (npid_softmax, {"chunk": 0}, "chunk must be > 0"),
        (npid_proximal, {"index": torch.tensor([-1, 0])}, "index must lie in"),
        (npid_sampled_ce, {"negatives": torch.zeros(3, 2).long()}, "negatives must be integers"),
        (npid_sampled_ce, {"negatives": torch.tensor([9])}, "negatives must lie in"),
        (npid_sampled_ce, {"negatives": torch.zeros(0).long()}, "at least one negative"),
        (npid_nce, {"Z": 0.0}, "Z must be > 0"),
        (npid_nce, {"eps": -1.0}, "eps must be >= 0"),
        (npid_nce, {"temperature": -1.0}, "temperature must be > 0"),
        (estimate_z, {"temperature": 0.0}, "temperature must be > 0"),
    ],
)
def test_misuse_is_refused(function, change, match):
    settings = SOUND | ({} if function is npid_proximal else {"temperature": 0.1})
    settings |= SAMPLE if function in {npid_nce, npid_sampled_ce, estimate_z} else {}
    settings |= {"Z": 1.0} if function is npid_nce else {}
    with pytest.raises(ValueError, match=match):
        function(**(settings | change))
