"""Optimisers and rates against slow referees, and the published settings."""

import math

import pytest
import torch

from histokin.errors import RecipeError
from histokin.mil.models import MODELS
from histokin.mil.training import MilSpec, faithful_spec
from histokin.mil.training.optimisers import LookaheadRAdam, build_optimiser


def gradients(n: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, generator=generator, dtype=torch.float64) for _ in range(n)]


def test_lookahead_radam_is_the_papers_equations_step_by_step() -> None:
    lr, betas, decay, k, alpha = 0.02, (0.9, 0.99), 0.1, 4, 0.5
    start = torch.linspace(-1, 1, 5, dtype=torch.float64)
    p = torch.nn.Parameter(start.clone())
    optimiser = LookaheadRAdam([p], lr, betas=betas, weight_decay=decay, k=k, alpha=alpha)
    fast, slow, m, v = (start.clone(), start.clone(), torch.zeros_like(start), torch.zeros_like(start))
    rho_inf = 2 / (1 - betas[1]) - 1
    for t, g in enumerate(gradients(30), start=1):
        p.grad = g.clone()
        optimiser.step()
        m, v = betas[0] * m + (1 - betas[0]) * g, betas[1] * v + (1 - betas[1]) * g * g
        unbiased = m / (1 - betas[0] ** t)
        rho = rho_inf - 2 * t * betas[1] ** t / (1 - betas[1] ** t)
        fast = fast * (1 - lr * decay)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
            adaptive = math.sqrt(1 - betas[1] ** t) / (v.sqrt() + 1e-8)
            fast = fast - lr * unbiased * r * adaptive
        else:
            fast = fast - lr * unbiased
        if t % k == 0:
            slow = slow + alpha * (fast - slow)
            fast = slow.clone()
        assert torch.allclose(p.detach(), fast, atol=1e-12), t


def test_the_rate_rises_for_an_epoch_and_falls_by_half_a_cosine() -> None:
    spec = MilSpec(lr=1.0, warmup=1, end_lr=0.1, epochs=11)
    assert [spec.rate(x) for x in (0.25, 0.5, 1.0)] == pytest.approx([0.25, 0.5, 1.0])
    assert spec.rate(6.0) == pytest.approx(0.55)
    assert spec.rate(11.0) == pytest.approx(0.1)
    constant = MilSpec(lr=0.3, warmup=0, end_lr=None)
    assert {constant.rate(x) for x in (0.0, 50.0, 99.9)} == {0.3}


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_has_settings_faithful_to_its_code_that_build(name: str) -> None:
    spec = faithful_spec(name, seed=4)
    assert (spec.model, spec.preset, spec.seed) == (name, "faithful", 4)
    assert build_optimiser(torch.nn.Linear(2, 2), spec).param_groups[0]["lr"] == spec.lr


def test_published_settings_are_those_of_the_reference() -> None:
    clam, dsmil, transmil, rnn = (faithful_spec(name) for name in ("clam_sb", "dsmil", "transmil", "mil_rnn"))
    assert (clam.optimiser, clam.lr, clam.weight_decay, clam.epochs, clam.patience) == ("adam", 1e-4, 1e-5, 200, 20)
    assert (clam.balance, clam.min_epochs, clam.batch) == ("sampler", 52, 1)
    assert (dsmil.beta1, dsmil.lr, dsmil.weight_decay, dsmil.end_lr, dsmil.epochs) == (0.5, 1e-4, 1e-3, 5e-6, 50)
    assert (transmil.optimiser, transmil.accumulate, transmil.patience) == ("radam-lookahead", 2, 10)
    assert (rnn.optimiser, rnn.lr, rnn.batch, rnn.beta1) == ("sgd", 0.1, 128, 0.9)
    assert build_optimiser(torch.nn.Linear(2, 2), rnn).param_groups[0]["nesterov"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lr": 0.0}, "lr must be > 0"),
        ({"end_lr": 1.0}, "end_lr must be in"),
        ({"n_folds": 1}, "n_folds must be >= 2, got 1"),
        ({"patience": 0}, "patience must be >= 1 or none"),
        ({"beta1": 1.0}, "beta1 must be in"),
        ({"survival": "cox"}, "batch must be >= 16"),
    ],
)
def test_impossible_settings_are_refused_with_what_is_allowed(change: dict, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        MilSpec(**change)
