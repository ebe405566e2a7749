"""NT-Xent against golden numbers, a loop written from the formula, and its laws."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import nt_xent


def chirp(n, d, s):
    i, j = np.mgrid[:n, :d]
    return torch.from_numpy(np.sin(0.37 * (i * d + j + 1.0) ** 2 + s))


def slow_nt_xent(first, second, temperature):
    z = [row / np.linalg.norm(row) for row in (*first.astype(np.float64), *second.astype(np.float64))]
    B, total = len(first), 0.0
    for i in range(2 * B):
        s = [z[i] @ z[j] / temperature for j in range(2 * B)]
        others = [s[j] for j in range(2 * B) if j != i]
        total += math.log(sum(math.exp(v - max(others)) for v in others)) + max(others) - s[(i + B) % (2 * B)]
    return total / (2 * B)


def test_the_generator_is_the_references(golden):
    np.testing.assert_allclose(chirp(2, 3, 0), golden["generator_check"]["chirp(2,3,0)"], rtol=1e-13)


@pytest.mark.parametrize("case_id", ["ntxent_t1.0", "ntxent_t0.5", "ntxent_t0.1", "ntxent_t0.07"])
def test_golden_numbers(golden, case_id):
    case = next(case for case in golden["cases"] if case["id"] == case_id)
    first, second = (chirp(*case["inputs"][key]["chirp"]) for key in ("z1", "z2"))
    loss = nt_xent(first, second, temperature=case["inputs"]["temperature"])
    assert loss.item() == pytest.approx(case["expected"], rel=1e-5)  # the loss computes in float32 by contract


@pytest.mark.parametrize("temperature", [0.5, 0.07])
def test_golden_gradients(golden, temperature):
    expected = golden["gradients"][f"ntxent t={temperature:g} wrt A"]
    first = chirp(6, 5, 0).float().requires_grad_()
    nt_xent(first, chirp(6, 5, 1).float(), temperature=temperature).backward()
    assert first.grad.norm().item() == pytest.approx(expected["norm"], rel=1e-5)
    np.testing.assert_allclose(first.grad[0], expected["first_row"], rtol=1e-4, atol=1e-6)


def test_hand_cases(golden):
    for case in golden["hand"]:
        if case["case"].startswith("ntxent I2/I2"):
            temperature = float(case["case"].split("t=")[1])
            loss = nt_xent(torch.eye(2), torch.eye(2), temperature=temperature)
            assert loss.item() == pytest.approx(case["expected"], rel=1e-6)


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


def test_scale_and_order_of_views_do_not_matter():
    first, second = chirp(6, 5, 0).float(), chirp(6, 5, 1).float()
    loss = nt_xent(first, second, temperature=0.2)
    assert nt_xent(second * 9, first / 7, temperature=0.2).item() == pytest.approx(loss.item(), rel=1e-6)


def test_gradient_equals_central_differences():
    first, second = chirp(4, 3, 0).float().requires_grad_(), chirp(4, 3, 1).numpy()
    nt_xent(first, torch.from_numpy(second), temperature=0.2).backward()
    base = first.detach().double().numpy()
    for i, j in np.ndindex(*base.shape):
        step = np.zeros_like(base)
        step[i, j] = 1e-5
        slope = (slow_nt_xent(base + step, second, 0.2) - slow_nt_xent(base - step, second, 0.2)) / 2e-5
        assert first.grad[i, j].item() == pytest.approx(slope, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_half_features_under_autocast_keep_value_and_direction(dtype, temperature):
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 64, 32, generator=generator)
    second = first + 0.5 * second
    exact, half = first.clone().requires_grad_(), first.to(dtype).requires_grad_()
    expected = nt_xent(exact, second, temperature=temperature)
    expected.backward()
    with torch.autocast("cpu", dtype=dtype):
        loss = nt_xent(half, second.to(dtype), temperature=temperature)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    assert torch.cosine_similarity(half.grad.float().flatten(), exact.grad.flatten(), dim=0) > 0.999


@pytest.mark.parametrize(
    ("first", "second", "temperature", "match"),
    [
        (torch.ones(3, 2), torch.ones(2, 2), 0.1, "two equal"),
        (torch.ones(1, 2), torch.ones(1, 2), 0.1, "B >= 2"),
        (torch.ones(2), torch.ones(2), 0.1, "two equal"),
        (torch.ones(2, 2), torch.ones(2, 2), 0.0, "temperature must be > 0"),
    ],
)
def test_misuse_is_refused(first, second, temperature, match):
    with pytest.raises(ValueError, match=match):
        nt_xent(first, second, temperature=temperature)
