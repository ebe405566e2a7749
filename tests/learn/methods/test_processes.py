"""Two processes that share a batch do what one does with all of it: loss, weights and state, step by step."""

import numpy as np
import pytest
import torch
from learn.methods.worlds import recipe_of, two_slides
from learn.processes import run_in_processes

from histokin.learn.distributed import World
from histokin.learn.methods import METHODS
from histokin.learn.recipe import with_steps
from histokin.learn.resolve import resolve_recipe
from histokin.learn.steps import Setting, new_state, train_step
from histokin.learn.trainer import shares_of

STEPS = 4
# Every anchor of one process sees the batch of both; without warm-up the first steps move the weights.
SETTINGS = ["optimiser.warmup=0", "optimiser.name=sgd", "optimiser.lr=0.002"]


def train_all(world):
    """Each method's losses, and its whole state after the last step, as one vector of numbers."""
    torch.set_num_threads(1)
    source, found = two_slides(), {}
    for method in sorted(METHODS):
        recipe = recipe_of(method, *SETTINGS)
        cpu = torch.device("cpu")
        setting = Setting(with_steps(resolve_recipe(recipe, 32, len(source), cpu), STEPS), cpu, 32)
        state = new_state(setting, source)
        draws = METHODS[method].sampler(source, setting.recipe)
        losses = [
            train_step(state, share, source.read(share.rows), setting).loss
            for share in shares_of(draws, range(STEPS), world)
        ]
        content = {key: value.double().numpy().ravel() for key, value in state.method.state_dict().items()}
        found[method] = losses, content
    return found


@pytest.fixture(scope="module")
def results():
    return train_all(World()), run_in_processes(train_all, size=2, limit_s=300)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_two_processes_equal_one_with_the_joined_batch(results, method):
    one, (first, second) = results
    losses, state = one[method]
    for rank in (first, second):
        np.testing.assert_allclose(rank[method][0], losses, rtol=5e-4)
    for key, expected in state.items():
        np.testing.assert_allclose(first[method][1][key], expected, rtol=5e-3, atol=5e-4, err_msg=key)
        if "running" not in key:
            np.testing.assert_array_equal(first[method][1][key], second[method][1][key], err_msg=key)
