"""The momentum copy against the formula; its buffers stay its own."""

import pytest
import torch
from torch import nn

from histokin.encoders.networks import seeded_torch
from histokin.learn.state import momentum_copy, update_momentum


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    @property
    def mean(self):
        return self.norm.get_buffer("running_mean")

    @property
    def count(self):
        return self.norm.get_buffer("num_batches_tracked")

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu())


def network(seed=0):
    with seeded_torch(seed):
        return Network()


def inputs(seed=0):
    return torch.randn(16, 3, generator=torch.Generator().manual_seed(seed))


def parameters_of(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def buffers_of(module):
    return {name: value.clone() for name, value in module.named_buffers()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_copy_has_weights_of_its_own_that_take_no_gradient():
    module = network()
    copy = momentum_copy(module)
    assert equal(parameters_of(copy), parameters_of(module))
    assert not any(p.requires_grad for p in copy.parameters())
    assert all(p.requires_grad for p in module.parameters())
    with torch.no_grad():
        module.first.weight.add_(1)
    assert torch.equal(copy.first.weight + 1, module.first.weight)
    assert not torch.equal(copy.first.weight, module.first.weight)
    assert copy.training


@pytest.mark.parametrize("momentum", [0.0, 0.3, 0.996, 1.0])
def test_parameters_move_by_the_formula(momentum):
    module, copy = network(1), momentum_copy(network(2))
    before = parameters_of(copy)
    update_momentum(copy, module, momentum)
    for name, value in copy.named_parameters():
        own, other = before[name].double(), module.get_parameter(name).detach().double()
        torch.testing.assert_close(value.double(), momentum * own + (1 - momentum) * other, rtol=1e-6, atol=1e-7)


def test_momentum_0_takes_the_module_and_1_keeps_the_copy_bit_for_bit():
    module, copy = network(1), momentum_copy(network(2))
    before = parameters_of(copy)
    update_momentum(copy, module, 1.0)
    assert equal(parameters_of(copy), before)
    update_momentum(copy, module, 0.0)
    assert equal(parameters_of(copy), parameters_of(module))


def test_a_copy_that_equals_its_module_stays_so_bit_for_bit():
    module = network()
    copy = momentum_copy(module)
    for _ in range(50):
        update_momentum(copy, module, 0.996)
    assert equal(parameters_of(copy), parameters_of(module))


def test_the_module_is_left_alone():
    module, copy = network(1), momentum_copy(network(2))
    before, buffers = parameters_of(module), buffers_of(module)
    update_momentum(copy, module, 0.5)
    assert equal(parameters_of(module), before)
    assert equal(buffers_of(module), buffers)
    assert all(p.requires_grad for p in module.parameters())


def test_own_buffers_stay_and_are_gathered_by_the_copy_itself():
    module = network()
    copy = momentum_copy(module)
    module(inputs())
    copy(inputs(1))
    own = buffers_of(copy)
    update_momentum(copy, module, 0.9)
    assert equal(buffers_of(copy), own)
    assert not torch.equal(copy.mean, module.mean)
    assert copy.count.item() == 1


def test_updating_between_the_modules_forward_and_backward_leaves_its_gradient_right():
    module, reference = network(), network()
    copy = momentum_copy(module)
    loss = (module(inputs()) - copy(inputs(1)).detach()).square().mean()
    update_momentum(copy, module, 0.5)
    loss.backward()
    (reference(inputs()) - momentum_copy(reference)(inputs(1))).square().mean().backward()
    for name, value in module.named_parameters():
        torch.testing.assert_close(value.grad, reference.get_parameter(name).grad, rtol=0, atol=0)


def test_lower_precision_modules_are_followed_in_float32():
    module, copy = network(1).bfloat16(), momentum_copy(network(2))
    before = parameters_of(copy)
    update_momentum(copy, module, 0.999)
    for name, value in copy.named_parameters():
        assert value.dtype == torch.float32
        expected = 0.999 * before[name] + 0.001 * module.get_parameter(name).detach().float()
        torch.testing.assert_close(value, expected)
    assert not equal(parameters_of(copy), before)


def test_modules_without_parameters_or_buffers_are_followed_too():
    update_momentum(momentum_copy(nn.ReLU()), nn.ReLU(), 0.5)
    update_momentum(momentum_copy(nn.Linear(1, 1)), nn.Linear(1, 1), 0.5)


@pytest.mark.parametrize(
    ("copy", "module", "match"),
    [
        (nn.Linear(2, 3), nn.Linear(2, 4), r"2 of their parameters, first 'bias': \(3,\) and \(4,\)"),
        (nn.Linear(2, 3, bias=False), nn.Linear(2, 3), "1 of their parameters, first 'bias': absent"),
        (nn.Linear(2, 3).half(), nn.Linear(2, 3), r"float32 parameters, this one has torch\.float16"),
    ],
)
def test_modules_that_do_not_match_are_refused(copy, module, match):
    with pytest.raises(ValueError, match=match):
        update_momentum(momentum_copy(copy), module, 0.5)


def test_misuse_is_refused():
    module = network()
    with pytest.raises(ValueError, match=r"momentum must be in \[0, 1\], got 1.1"):
        update_momentum(momentum_copy(module), module, 1.1)
