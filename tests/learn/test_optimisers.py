"""Optimisers: LARS against the golden steps and a loop, who is decayed and adapted, resume, rates, clipping."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from histokin.encoders.networks import seeded_torch
from histokin.learn.optimisers import LARS, build_optimiser, clip_gradients, scaled_lr, set_rates
from histokin.learn.recipe import OptimiserSpec

NAMES = ["adamw", "sgd", "lars"]


def small_net():
    with seeded_torch(3):
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))


def give_gradients(net, step):
    rng = np.random.default_rng(step)
    for p in net.parameters():
        if p.requires_grad:
            p.grad = torch.from_numpy(rng.normal(size=p.shape).astype(np.float32))


def one_step(net, optimiser, step):
    set_rates(optimiser, lr=0.1 / (step + 1), weight_decay=0.01)
    give_gradients(net, step)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)


def slow_lars(p, grads, *, lr, momentum, weight_decay, eta):
    velocity = np.zeros_like(p)
    for g in grads:
        d, q = g, 1.0
        if p.ndim > 1:
            d = g + weight_decay * p
            p_norm, d_norm = math.sqrt((p**2).sum()), math.sqrt((d**2).sum())
            q = eta * p_norm / d_norm if p_norm > 0 and d_norm > 0 else 1.0
        velocity = momentum * velocity + q * d
        p = p - lr * velocity
    return p


def test_lars_takes_the_golden_two_steps(golden):
    case = next(case for case in golden["cases"] if case["id"] == "lars_two_steps")
    inputs = case["inputs"]
    p = nn.Parameter(torch.tensor(inputs["p"], dtype=torch.float64))
    lars = LARS(
        [p],
        lr=inputs["lr"],
        momentum=inputs["momentum"],
        weight_decay=inputs["weight_decay"],
        eta=inputs["eta"],
    )
    for gradient, expected in zip(inputs["grads"], case["expected"], strict=True):
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        lars.step()
        np.testing.assert_allclose(p.detach(), expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3, 2), (4, 3, 2, 2), (5,), (), (1, 1)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lars_equals_the_loop_of_the_formula(shape, weight_decay):
    rng = np.random.default_rng(len(shape))
    start, grads = rng.normal(size=shape), [rng.normal(size=shape) for _ in range(3)]
    options = {"lr": 0.3, "momentum": 0.8, "weight_decay": weight_decay, "eta": 0.02}
    p = nn.Parameter(torch.tensor(start))
    lars = LARS([p], **options)
    for g in grads:
        p.grad = torch.tensor(g)
        lars.step()
    np.testing.assert_allclose(p.detach(), slow_lars(start, grads, **options), rtol=1e-12)


@pytest.mark.parametrize(("value", "gradient"), [(0.0, 2.0), (2.0, 0.0), (0.0, 0.0)])
def test_lars_does_not_adapt_where_a_norm_is_nothing(value, gradient):
    p = nn.Parameter(torch.full((2, 2), value))
    p.grad = torch.full((2, 2), gradient)
    LARS([p], lr=0.5).step()
    assert torch.equal(p.detach(), torch.full((2, 2), value - 0.5 * gradient))


def test_lars_leaves_gradients_and_parameters_without_one_alone():
    p, still = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    p.grad = torch.ones(2, 2)
    LARS([p, still], lr=0.1, weight_decay=0.3).step()
    assert torch.equal(p.grad, torch.ones(2, 2))
    assert torch.equal(still.detach(), torch.ones(2, 2))


@pytest.mark.parametrize("name", NAMES)
def test_matrices_and_kernels_are_decayed_and_vectors_are_not(name):
    net = small_net()
    optimiser = build_optimiser(net, OptimiserSpec(name=name, weight_decay=0.3))
    decayed, plain = optimiser.param_groups
    assert [tuple(p.shape) for p in decayed["params"]] == [(4, 3, 3, 3), (2, 16)]
    assert [tuple(p.shape) for p in plain["params"]] == [(4,), (4,), (4,), (2,)]
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.3, 0.0)
    before = copy.deepcopy(net)
    set_rates(optimiser, lr=0.1, weight_decay=0.5)
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    moved = [not torch.equal(a, b) for a, b in zip(before.parameters(), net.parameters(), strict=True)]
    assert moved == [p.ndim > 1 for p in net.parameters()]


def test_lars_adapts_matrices_and_not_vectors():
    net = small_net()
    optimiser = build_optimiser(net, OptimiserSpec(name="lars", weight_decay=0.0, eta=1e-3))
    before = copy.deepcopy(net)
    give_gradients(net, 0)
    set_rates(optimiser, lr=1.0, weight_decay=0.0)
    optimiser.step()
    for a, b in zip(before.parameters(), net.parameters(), strict=True):
        moved = (a - b).norm().item()
        assert b.grad is not None
        expected = b.grad.norm().item() if a.ndim == 1 else 1e-3 * a.norm().item()
        assert moved == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_the_recipe_reaches_the_optimiser(name):
    spec = OptimiserSpec(name=name, lr=0.2, beta1=0.8, beta2=0.95, momentum=0.7, eta=0.01)
    group = build_optimiser(small_net(), spec).param_groups[0]
    assert group["lr"] == 0.2
    if name == "adamw":
        assert group["betas"] == (0.8, 0.95)
    else:
        assert group["momentum"] == 0.7
    assert group.get("eta") == (0.01 if name == "lars" else None)


@pytest.mark.parametrize("name", NAMES)
def test_frozen_parameters_are_not_trained(name):
    net = small_net()
    frozen = net[0].requires_grad_(False)
    before = copy.deepcopy(frozen.state_dict())
    optimiser = build_optimiser(net, OptimiserSpec(name=name, lr=1.0))
    assert sum(len(group["params"]) for group in optimiser.param_groups) == 4
    one_step(net, optimiser, 0)
    assert all(torch.equal(value, before[key]) for key, value in frozen.state_dict().items())
    with pytest.raises(ValueError, match="no parameter of the module requires a gradient"):
        build_optimiser(net.requires_grad_(False), OptimiserSpec(name=name))


@pytest.mark.parametrize("name", NAMES)
def test_a_net_without_vectors_can_be_trained(name):
    net = nn.Linear(3, 2, bias=False)
    before = net.weight.detach().clone()
    one_step(net, build_optimiser(net, OptimiserSpec(name=name)), 0)
    assert not torch.equal(net.weight, before)


@pytest.mark.parametrize("name", NAMES)
def test_resume_through_state_dict_continues_bit_for_bit(name):
    spec = OptimiserSpec(name=name, weight_decay=0.1)
    net = small_net()
    optimiser = build_optimiser(net, spec)
    for step in range(3):
        one_step(net, optimiser, step)
    again = copy.deepcopy(net)
    resumed = build_optimiser(again, spec)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    fresh_net = copy.deepcopy(net)
    fresh = build_optimiser(fresh_net, spec)
    for step in range(3, 6):
        for n, o in ((net, optimiser), (again, resumed), (fresh_net, fresh)):
            one_step(n, o, step)
    for a, b in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    # The state matters: without it the steps are others.
    assert not all(torch.equal(a, b) for a, b in zip(net.parameters(), fresh_net.parameters(), strict=True))


@pytest.mark.parametrize(
    ("scaling", "batch", "expected"),
    [("none", 64, 0.3), ("sqrt", 64, 0.15), ("sqrt", 1024, 0.6), ("linear", 64, 0.075), ("linear", 512, 0.6)],
)
def test_rates_scale_with_the_batch(scaling, batch, expected):
    assert scaled_lr(OptimiserSpec(lr=0.3, scaling=scaling), batch) == pytest.approx(expected)


def test_gradients_are_clipped_together_and_the_norm_before_is_told():
    net = nn.Linear(2, 1)
    net.weight.grad, net.bias.grad = torch.tensor([[3.0, 0.0]]), torch.tensor([4.0])
    assert clip_gradients(net.parameters(), 10) == pytest.approx(5.0)
    assert torch.equal(net.weight.grad, torch.tensor([[3.0, 0.0]]))
    assert clip_gradients(net.parameters(), 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(net.weight.grad, [[0.6, 0.0]], rtol=1e-5)
    np.testing.assert_allclose(net.bias.grad, [0.8], rtol=1e-5)
    assert clip_gradients(net.parameters(), math.inf) == pytest.approx(1.0)
    net.bias.grad = torch.tensor([math.nan])
    assert math.isnan(clip_gradients(net.parameters(), 1.0))


@pytest.mark.parametrize("largest", [0, -1.0, math.nan])
def test_a_norm_that_nothing_can_have_is_refused(largest):
    with pytest.raises(ValueError, match="largest must be > 0"):
        clip_gradients([], largest)
