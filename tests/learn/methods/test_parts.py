"""A batch encoded in parts: values, gradients and statistics of the whole, activations of a part."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from learn.methods.worlds import recipe_of, two_slides
from learn.test_trainer import KilledError, contents, killing_after
from torch import nn

from histokin.encoders.networks import build_network, seeded_torch
from histokin.learn import pretrain
from histokin.learn.distributed import World
from histokin.learn.methods import METHODS
from histokin.learn.methods.parts import in_parts
from histokin.learn.recipe import with_steps
from histokin.learn.resolve import resolve_recipe
from histokin.learn.steps import Setting, make_batch, new_state
from histokin.learn.trainer import shares_of

CPU = torch.device("cpu")
TINY = {"channels": (8, 8, 16, 24), "stem_width": 8, "layers": (1, 1, 1, 1)}


def network(kind: str) -> nn.Module:
    """A convolutional net with BatchNorm, or a token net without."""
    if kind == "batch norm":
        return build_network("resnet10t", TINY, seed=1)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return build_network("vit_tiny_patch16_224", arguments, seed=1)


def views(n: int = 12) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(n, 3, 32, 32)).astype(np.float32))


def value_and_gradients(encoder: nn.Module, parts: int, n: int = 12) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Of a loss in which every row meets every other."""
    encoder.zero_grad()
    z = in_parts(encoder, views(n), parts)
    (z @ z.T).softmax(1).square().sum().backward()
    return z.detach(), [p.grad.clone() for p in encoder.parameters() if p.grad is not None]


@pytest.mark.parametrize("kind", ["no batch norm", "batch norm in eval"])
@pytest.mark.parametrize(("n", "parts"), [(12, 2), (12, 12), (11, 3), (2, 2)])
def test_parts_give_values_and_gradients_of_the_whole(kind, n, parts):
    encoder = network("no batch norm") if kind == "no batch norm" else network("batch norm").eval()
    whole, expected = value_and_gradients(encoder, 1, n)
    found, gradients = value_and_gradients(encoder, parts, n)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-6)
    assert len(gradients) == len(expected) > 10
    assert max(float(g.abs().max()) for g in expected) > 1e-4
    for mine, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max() + 1e-3))


def test_each_part_is_normalised_by_itself_and_counted_once():
    """The running statistics are those of encoding the parts one after the other, without a backward pass."""
    encoder, apart = network("batch norm").train(), network("batch norm").train()
    with torch.no_grad():
        rows = [apart(part) for part in views().split(4)]
    encoder.zero_grad()
    z = in_parts(encoder, views(), 3)
    z.square().sum().backward()
    torch.testing.assert_close(z.detach(), torch.cat(rows))
    for (name, mine), theirs in zip(encoder.named_buffers(), apart.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0, msg=name)


def test_a_norm_that_averages_all_it_has_seen_counts_each_part_once():
    norm = nn.BatchNorm1d(3, momentum=None)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3), norm)
    for _ in range(2):
        in_parts(encoder, views(), 4).square().sum().backward()
    assert int(norm.state_dict()["num_batches_tracked"]) == 8
    assert norm.momentum is None


def test_dropout_drops_the_same_when_a_part_is_computed_again():
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 64, bias=False), nn.Dropout(0.5))
    with seeded_torch(3):
        z = in_parts(encoder, views(), 3)
        z.sum().backward()
    weight = encoder[1].weight
    kept = (z.detach() != 0).float() * 2  # (12, 64)
    torch.testing.assert_close(weight.grad, kept.T @ views().flatten(1), rtol=1e-4, atol=1e-3)


@contextmanager
def counting() -> Iterator[list[int]]:
    """How many numbers are kept for the backward pass."""
    kept: list[int] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        kept.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        yield kept


def test_fewer_numbers_are_kept_for_the_backward_pass():
    encoder = network("batch norm").train()
    with counting() as whole:
        in_parts(encoder, views(), 1)
    with counting() as parted:
        in_parts(encoder, views(), 4)
    assert sum(parted) == views().numel()  # the parts themselves, to compute them again
    assert sum(whole) > 10 * views().numel()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_loss_sees_the_whole_batch(method):
    """With norms that do not look at the batch, the loss in four parts is the loss at once; that of a part is not."""
    source: Any = two_slides()
    losses: dict[int, tuple[float, torch.Tensor]] = {}
    for parts in (1, 4):
        recipe = recipe_of(method, f"run.parts={parts}", "projector.norm=false", "projector.out_norm=false")
        recipe = with_steps(resolve_recipe(recipe, 32, len(source), CPU), 10)
        setting = Setting(recipe, CPU, 32)
        state = new_state(setting, source)
        for module in state.method.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        share = next(iter(shares_of(METHODS[method].sampler(source, recipe), [3], World())))
        batch = make_batch(share, source.read(share.rows), setting, n_views=state.method.n_views, step=3)
        with seeded_torch(5):
            terms = state.method.loss(batch)
        terms["loss"].backward()
        gradients = torch.cat([p.grad.flatten() for p in state.method.encoder.parameters() if p.grad is not None])
        losses[parts] = terms["loss"].item(), gradients
    assert losses[4][0] == pytest.approx(losses[1][0], rel=1e-4)
    torch.testing.assert_close(losses[4][1], losses[1][1], rtol=1e-2, atol=1e-3 * float(losses[1][1].abs().max()))


def test_a_run_in_parts_killed_and_resumed_equals_never_stopped(tmp_path):
    source: Any = two_slides()
    recipe = recipe_of("simclr", "run.parts=2", "run.steps=4")
    pretrain(source, recipe, tmp_path / "whole", device="cpu")
    for _ in range(4):
        after_one: Any = killing_after(1)
        with pytest.raises(KilledError):
            pretrain(source, recipe, tmp_path / "killed", after_one, device="cpu")
    pretrain(source, recipe, tmp_path / "killed", device="cpu")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
