"""Two processes equal one: gathering, gradients, BatchNorm; and a failure in one of them ends both.

All claims about two processes are checked on the results of one pair of them: `in_each` computes, the tests compare.
"""

import contextlib
import os
import socket
import warnings
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from learn.processes import ProcessFailed, fail_in_the_second, run_in_processes
from timm.layers.norm_act import BatchNormAct2d
from torch import nn

from histokin.encoders.networks import seeded_torch
from histokin.learn.distributed import (
    GatheredBatchNorm,
    World,
    any_rank,
    average_gradients,
    broadcast_object,
    broadcast_state,
    gathered,
    gathered_ids,
    start,
    synchronise_batch_norm,
    wait_for_all,
)
from histokin.learn.losses import nt_xent

ALONE = World()
T = 0.5
UNEQUAL = (3, 5)  # rows of each rank where the parts need not be equal


def chirp(n, d, s):
    i, j = np.mgrid[:n, :d]
    return torch.from_numpy(np.sin(0.37 * (i * d + j + 1.0) ** 2 + s))


def noise(*shape, name=0):
    return torch.from_numpy(np.random.default_rng([name, *shape]).normal(size=shape))


def own_anchors(first, second, world):
    """NT-Xent of this process's own anchors against the views of all, in the inputs' precision."""
    B = len(first)
    own = world.own(B * world.size)
    z = F.normalize(torch.cat([gathered(first), gathered(second)]), dim=1)
    logits = (z @ z.T / T).fill_diagonal_(-torch.inf)
    anchors = torch.arange(B * world.size)[own]
    anchors = torch.cat([anchors, anchors + B * world.size])
    return F.cross_entropy(logits[anchors], torch.arange(len(z)).roll(B * world.size)[anchors])


def whole_loss(first, second, world):
    """Every process computes the loss of all anchors."""
    return nt_xent(gathered(first, world), gathered(second, world), temperature=T)


def without_gathering(first, second, world):
    return nt_xent(first, second, temperature=T)


LOSSES = {f.__name__: f for f in (own_anchors, whole_loss, without_gathering)}


def small_net() -> nn.Module:
    """resnet10t of timm, whose norms are BatchNormAct2d or BatchNorm2d, and a projector with BatchNorm1d; float64."""
    with seeded_torch(11):
        encoder = timm.create_model(
            "resnet10t",
            num_classes=0,
            channels=(4, 4, 8, 8),
            stem_width=4,
            layers=(1, 1, 1, 1),
            norm_layer="batchnorm2d",
        )
        head = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(inplace=True), nn.Linear(6, 5))
        net = nn.Sequential(encoder, head)
    return net.double().to(memory_format=torch.channels_last)


def views_of(world):
    """This process's part of 8 tiles' two views, view-major."""
    views = noise(2, 8, 3, 32, 32)
    return views[:, world.own(8)].flatten(0, 1)


def train_once(world, loss) -> dict[str, Any]:
    """Gradients and running statistics of the small net after one backward pass."""
    net = small_net().train()
    if world.size > 1:
        synchronise_batch_norm(net)
    first, second = net(views_of(world)).chunk(2)
    value = LOSSES[loss](first, second, world)
    value.backward()
    average_gradients(net.parameters())
    return {
        "loss": value.item(),
        "gradients": {name: p.grad for name, p in net.named_parameters()},
        "buffers": dict(net.named_buffers()),
        "keys": list(net.state_dict()),
    }


def act_net():
    """A net of BatchNormAct2d with drop and act after the norm."""
    with seeded_torch(5):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            BatchNormAct2d(4, act_layer=nn.LeakyReLU, drop_layer=nn.Identity),
            nn.Conv2d(4, 3, 3, padding=1),
            BatchNormAct2d(3, apply_act=False),
        )


def norms():
    """Name: (a norm, its joint batch of 8 rows, whether in bf16 autocast)."""
    x2, x3, x4 = noise(8, 6), noise(8, 6, 5), noise(8, 6, 4, 3)
    with seeded_torch(6):
        act = BatchNormAct2d(6, act_layer=nn.PReLU)
        norms = {
            "1d": (nn.BatchNorm1d(6), x2),
            "1d with length": (nn.BatchNorm1d(6), x3),
            "2d": (nn.BatchNorm2d(6), x4),
            "2d channels_last": (nn.BatchNorm2d(6), x4.to(memory_format=torch.channels_last)),
            "act": (act, x4),
            "no affine": (nn.BatchNorm1d(6, affine=False), x2),
            "no running statistics": (nn.BatchNorm2d(6, track_running_stats=False), x4),
            "cumulative": (nn.BatchNorm2d(6, momentum=None), x4),
            "large mean": (nn.BatchNorm2d(6), x4 + 3000),
            "bf16": (nn.BatchNorm2d(6), x4.bfloat16()),
            "float64": (nn.BatchNorm2d(6).double(), x4),
        }
        for norm, _ in norms.values():
            if norm.affine:
                nn.init.normal_(norm.weight)
                nn.init.normal_(norm.bias)
    return {
        name: (norm, x if x.dtype == torch.bfloat16 else x.to(torch.float64 if name == "float64" else torch.float32))
        for name, (norm, x) in norms.items()
    }


def apply_norm(norm, x, rows):
    """Two training passes and one in eval mode; the gradient of a fixed weighting of the second pass's output."""
    norm.train()
    weighting = noise(*x.shape, name=4)[rows].float()
    norm(x[rows])
    part = x[rows].clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        y = norm(part)
    (y.to(weighting.dtype) * weighting).sum().backward()
    return {
        "y": y.detach(),
        "dx": part.grad,
        "parameters": {name: p.grad for name, p in norm.named_parameters()},
        "buffers": dict(norm.named_buffers()),
        "eval": norm.eval()(x[rows]).detach(),
    }


def average_uneven(world):
    """Gradients of a net of which rank 1 does not use one part, and nobody another; of two dtypes, strange strides."""
    with seeded_torch(8):
        net = nn.ModuleDict(
            {
                "both": nn.Linear(3, 2),
                "first only": nn.Linear(3, 2),
                "nobody": nn.Linear(3, 2),
                "frozen": nn.Linear(3, 3).requires_grad_(False),
                "wide": nn.Linear(2, 1).double(),
                "kernel": nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last),
            }
        )
    x = noise(8, 3).float()[world.own(8)]
    y = net["both"](net["frozen"](x))
    if world.is_main:
        y = y + net["first only"](x)
    pictures = noise(8, 3, 3, 3).float()[world.own(8)].to(memory_format=torch.channels_last)
    loss = net["wide"](y.double()).square().mean() + net["kernel"](pictures).square().mean()
    loss.backward()
    average_gradients(net.parameters())
    return {name: p.grad for name, p in net.named_parameters()}


def other_state(world):
    """A net that is different on each rank before, in values and buffers of several dtypes."""
    with seeded_torch(world.rank):
        net = nn.Sequential(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(4))
    for buffer in net.buffers():
        buffer.fill_(world.rank + 7)
    net.register_buffer("mask", torch.tensor([world.is_main, True]))
    broadcast_state(net)
    return net.state_dict()


def by_environment(world):
    """Leave the group, and form another as torchrun has it done: by address and port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = broadcast_object(listening.getsockname()[1])
    wait_for_all()
    dist.destroy_process_group()
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    seen = []
    with contextlib.suppress(ZeroDivisionError), start(world, backend="gloo", limit_s=60):
        seen += [World.current(), gathered(torch.tensor([1.0 + world.rank])).sum().item()]
        seen += [1 / 0]
    return [*seen, World.current()]


def in_each(world):
    """Everything that is asked of two processes."""
    first, second = chirp(6, 5, 0), chirp(6, 5, 1)
    own = world.own(6)
    inputs = {}
    for name, loss_of in LOSSES.items():
        a = first[own].clone().requires_grad_()
        loss = loss_of(a, second[own], world)
        loss.backward()
        inputs[name] = loss.item(), a.grad
    rows = slice(0, UNEQUAL[0]) if world.is_main else slice(UNEQUAL[0], sum(UNEQUAL))
    half = noise(2, 3, name=world.rank).bfloat16().requires_grad_()
    (gathered(half) * torch.tensor([[1.0, 256.0, 1 + world.rank]])).sum().backward()
    with torch.no_grad():
        plain = gathered(torch.arange(2.0).view(2, 1) + 10 * world.rank)
    found = {
        "world": world == World.current(),
        "inputs": inputs,
        "nets": {name: train_once(world, name) for name in LOSSES},
        "norms": {name: apply_norm(GatheredBatchNorm.of(norm), x, rows) for name, (norm, x) in norms().items()},
        "one row each": apply_norm(GatheredBatchNorm.of(nn.BatchNorm1d(6)), noise(2, 6).float(), world.own(2)),
        "act net": apply_norm(synchronise_batch_norm(act_net()), noise(8, 3, 9, 9).float(), world.own(8)),
        "uneven": average_uneven(world),
        "state": other_state(world),
        "object": broadcast_object({"port": world.rank, "name": ["a", world.rank]}),
        "ids": gathered_ids(torch.tensor([5, 2**40]) + world.rank),
        "plain": plain,
        "half": half.grad,
        "any": (any_rank(False), any_rank(world.rank == 1), any_rank(True)),
        "compiled": compiled_output(),
    }
    found["environment"] = by_environment(world)
    return found


def compiled_output():
    """A compiled net against the same one uncompiled: the exchange itself is left out of the compiling."""
    net = synchronise_batch_norm(act_net()).train()
    x = noise(2, 3, 9, 9).float()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, while it looks at what it leaves out
        compiled = torch.compile(net, backend="eager")(x)
    return net(x).detach(), compiled.detach()


@pytest.fixture(scope="module")
def pair():
    return run_in_processes(in_each)


def case(golden, name):
    return next(case["expected"] for case in golden["cases"] if case["id"] == name)


def close(found, expected, rtol=1e-5):
    """Equal within a share of the largest expected value."""
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    scale = max(expected.abs().max().item(), 1e-30)
    torch.testing.assert_close(found, expected, rtol=0, atol=rtol * scale)


def differs(found, expected):
    return (found - expected).abs().max() > 1e-3 * expected.abs().max()


def test_gathered_nt_xent_is_the_golden_number_of_one_process(pair, golden):
    expected = case(golden, "ntxent_two_ranks_gathered")
    assert expected == case(golden, "ntxent_t0.5")
    own = [found["inputs"]["own_anchors"][0] for found in pair]
    assert np.mean(own) == pytest.approx(expected, rel=1e-9)
    assert own[0] != pytest.approx(own[1], rel=1e-3)  # each has anchors of its own
    for found in pair:
        assert found["inputs"]["whole_loss"][0] == pytest.approx(expected, rel=1e-5)


def test_without_gathering_it_is_the_other_golden_number(pair, golden):
    values = [found["inputs"]["without_gathering"][0] for found in pair]
    assert np.mean(values) == pytest.approx(case(golden, "ntxent_two_ranks_not_gathered"), rel=1e-5)


@pytest.mark.parametrize("form", ["own_anchors", "whole_loss"])
def test_both_forms_of_gathering_give_the_golden_gradient(pair, golden, form):
    expected = golden["gradients"]["ntxent t=0.5 wrt A"]
    # The mean over processes, for an input that only one of them has.
    gradient = torch.cat([found["inputs"][form][1] for found in pair]) / len(pair)
    assert gradient.norm().item() == pytest.approx(expected["norm"], rel=1e-6)
    np.testing.assert_allclose(gradient[0], expected["first_row"], rtol=1e-5)


@pytest.mark.parametrize(
    ("two", "one"),
    [("own_anchors", "own_anchors"), ("whole_loss", "own_anchors")],
)
def test_a_net_with_batch_norm_has_the_gradients_of_the_joint_batch(pair, two, one):
    expected = train_once(ALONE, one)
    for found in (found["nets"][two] for found in pair):
        assert list(found["gradients"]) == list(expected["gradients"])
        largest = max(gradient.abs().max().item() for gradient in expected["gradients"].values())
        for name, gradient in expected["gradients"].items():
            torch.testing.assert_close(found["gradients"][name], gradient, rtol=1e-5, atol=1e-6 * largest)


def test_a_net_with_batch_norm_has_the_statistics_and_keys_of_the_joint_batch(pair):
    expected = train_once(ALONE, "own_anchors")
    for found in (found["nets"]["own_anchors"] for found in pair):
        assert found["keys"] == expected["keys"]
        for name, buffer in expected["buffers"].items():
            torch.testing.assert_close(found["buffers"][name], buffer, rtol=1e-12, atol=1e-12)


def test_gradients_are_the_same_bits_in_all_processes(pair):
    first, second = (found["nets"]["own_anchors"] for found in pair)
    assert all(torch.equal(first["gradients"][name], second["gradients"][name]) for name in first["gradients"])
    assert all(torch.equal(first["buffers"][name], second["buffers"][name]) for name in first["buffers"])


def test_what_is_not_gathered_has_other_gradients(pair):
    expected = train_once(ALONE, "whole_loss")["gradients"]
    found = pair[0]["nets"]["without_gathering"]["gradients"]
    assert sum(bool(differs(found[name], expected[name])) for name in expected) > len(expected) // 2


def test_the_mean_over_processes_counts_a_missing_gradient_as_nothing(pair):
    first, second = (found["uneven"] for found in pair)
    missing = [name for name, gradient in first.items() if gradient is None]
    assert missing == ["nobody.weight", "nobody.bias", "frozen.weight", "frozen.bias"]
    assert missing == [name for name, gradient in second.items() if gradient is None]
    for name, gradient in first.items():
        assert gradient is None or torch.equal(gradient, second[name])
    close(first["kernel.weight"], average_uneven(ALONE)["kernel.weight"])
    assert first["kernel.weight"].is_contiguous(memory_format=torch.channels_last)
    assert first["wide.weight"].dtype == torch.float64
    assert first["first only.weight"].abs().max() > 0


@pytest.mark.parametrize("name", norms())
def test_batch_norm_over_all_equals_batch_norm_of_the_joint_batch(pair, name):
    norm, x = norms()[name]
    expected = apply_norm(norm, x, slice(None))
    parts = [found["norms"][name] for found in pair]
    # One bf16 value has 8 bits; large means leave 3000 eps / sigma of a float32.
    rtol = {"bf16": 8e-3, "large mean": 1e-3}.get(name, 1e-5)
    for key in ("y", "dx"):
        close(torch.cat([part[key] for part in parts]), expected[key], rtol)
    # Without running statistics eval mode, too, takes the batch's, but never those of other processes.
    evaluated = norm.eval()
    close(torch.cat([part["eval"] for part in parts]), torch.cat([evaluated(own) for own in x.split(UNEQUAL)]).detach())
    for key, gradient in expected["parameters"].items():
        close(sum(part["parameters"][key] for part in parts), gradient, rtol)
    for part in parts:
        assert list(part["buffers"]) == list(expected["buffers"])
        for key, buffer in expected["buffers"].items():
            close(part["buffers"][key], buffer, 1e-5)


def test_one_row_a_process_is_enough(pair):
    expected = apply_norm(nn.BatchNorm1d(6), noise(2, 6).float(), slice(None))
    close(torch.cat([found["one row each"]["y"] for found in pair]), expected["y"])


def test_drop_and_act_stay_behind_the_norm(pair):
    expected = apply_norm(act_net(), noise(8, 3, 9, 9).float(), slice(None))
    for key in ("y", "dx", "eval"):
        close(torch.cat([found["act net"][key] for found in pair]), expected[key])


def test_every_process_gets_the_state_of_the_first(pair):
    with seeded_torch(0):
        expected = nn.Conv2d(3, 4, 3).state_dict()
    for state in (found["state"] for found in pair):
        assert torch.equal(state["0.weight"], expected["weight"])
        assert torch.equal(state["1.running_var"], torch.full((4,), 7.0))
        assert state["1.num_batches_tracked"] == 7
        assert state["mask"].tolist() == [True, True]
        assert state["mask"].dtype == torch.bool
    assert all(found["object"] == {"port": 0, "name": ["a", 0]} for found in pair)


def test_rows_and_ids_come_in_the_order_of_ranks(pair):
    for found in pair:
        assert found["ids"].tolist() == [5, 2**40, 6, 2**40 + 1]
        assert found["plain"].tolist() == [[0.0], [1.0], [10.0], [11.0]]
        assert not found["plain"].requires_grad


def test_gradients_of_half_precision_rows_are_summed_over_processes(pair):
    for found in pair:
        assert found["half"].dtype == torch.bfloat16
        assert found["half"].tolist() == [[2.0, 512.0, 3.0]] * 2


def test_flags_and_worlds_are_those_of_all(pair):
    for rank, found in enumerate(pair):
        assert found["world"]
        assert found["any"] == (False, True, True)
        assert found["environment"] == [World(rank, 2), 3.0, World(0, 1)]  # the group is left after an error too


def test_a_compiled_net_exchanges_as_an_uncompiled_one(pair):
    for found in pair:
        assert torch.equal(*found["compiled"])


def test_a_failure_in_one_process_ends_all_of_them():
    with pytest.raises(ProcessFailed, match="process 1: RuntimeError: the second process has failed"):
        run_in_processes(fail_in_the_second)


def test_in_a_single_process_nothing_is_exchanged():
    x = torch.ones(3, 2, requires_grad=True)
    ids = torch.arange(3)
    assert gathered(x) is x
    assert gathered_ids(ids) is ids
    assert broadcast_object(x) is x
    assert (any_rank(False), any_rank(True)) == (False, True)
    assert World.current() == ALONE == World(0, 1)
    with start(ALONE) as world:
        assert world == ALONE
        assert not dist.is_initialized()
        wait_for_all()
    net = nn.Linear(2, 1)
    net(x).sum().backward()
    before = [(p.detach().clone(), p.grad) for p in net.parameters()]
    average_gradients(net.parameters())
    broadcast_state(net)
    for p, (value, gradient) in zip(net.parameters(), before, strict=True):
        assert p.grad is gradient
        assert torch.equal(p, value)


def test_the_world_divides_a_batch_in_equal_parts_in_order():
    parts = [World(rank, 3).own(12) for rank in range(3)]
    assert [list(range(12))[part] for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [World(rank, 3).is_main for rank in range(3)] == [True, False, False]
    with pytest.raises(ValueError, match="10 rows cannot be divided among 3 processes"):
        World(0, 3).own(10)
    for rank, size in [(2, 2), (-1, 2), (0, 0)]:
        with pytest.raises(ValueError, match="need 0 <= rank < size"):
            World(rank, size)


def test_features_are_not_gathered_as_ids():
    with pytest.raises(TypeError, match=r"whole numbers, got torch\.float32"):
        gathered_ids(torch.ones(2))


def test_alone_a_synchronised_net_is_the_net_itself():
    plain, gathering = small_net(), small_net()
    parameters, buffers = list(gathering.parameters()), list(gathering.buffers())
    assert synchronise_batch_norm(gathering) is gathering
    assert all(a is b for a, b in zip(parameters, gathering.parameters(), strict=True))
    assert all(a is b for a, b in zip(buffers, gathering.buffers(), strict=True))
    assert not [m for m in gathering.modules() if type(m) in (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormAct2d)]
    assert len([m for m in gathering.modules() if isinstance(m, GatheredBatchNorm)]) > 5
    x = views_of(ALONE)
    for net in (plain, gathering):
        net.train()(x).sum().backward()
    for (name, value), (other, same) in zip(plain.state_dict().items(), gathering.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(value, same)
    assert torch.equal(plain.eval()(x), gathering.eval()(x))


def test_one_norm_in_two_places_stays_one_and_a_norm_alone_is_replaced():
    norm = nn.BatchNorm1d(3)
    inner = nn.Sequential(norm)
    net = nn.Sequential(norm, nn.ReLU(), norm, inner)
    synchronise_batch_norm(net)
    first = net[0]
    assert isinstance(first, GatheredBatchNorm)
    assert first is net[2] is inner[0]
    synchronise_batch_norm(net)  # a second time changes nothing
    assert net[0] is first
    alone = synchronise_batch_norm(nn.BatchNorm2d(3).eval())
    assert isinstance(alone, GatheredBatchNorm)
    assert not alone.training


def test_other_norms_are_left_alone_and_unknown_batch_norms_refused():
    net = nn.Sequential(nn.GroupNorm(1, 2), nn.LayerNorm(2))
    synchronise_batch_norm(net)
    assert [type(m) for m in net] == [nn.GroupNorm, nn.LayerNorm]

    class Strange(nn.BatchNorm2d):
        pass

    with pytest.raises(ValueError, match="Strange cannot be synchronised"):
        synchronise_batch_norm(nn.Sequential(Strange(2)))
