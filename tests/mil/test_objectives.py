"""Objectives: golden numbers, loops written from the formulas, finite differences and what blends mean."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from histokin.errors import TrainingError
from histokin.mil import Classes, Cox, Hazards, MultiLabel, Regression
from histokin.mil.objectives import harrell_c, hazard_edges, smooth_top1_svm

GOLDEN = json.loads((Path(__file__).parent / "golden_mil.json").read_text(encoding="utf-8"))["golden"]
near = pytest.approx


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def survival(n, seed=0):
    rng = np.random.default_rng(seed)
    pairs = np.stack([rng.integers(1, 6, n), rng.random(n) < 0.6], 1)
    pairs[0, 1] = 1
    return torch.from_numpy(pairs.astype(np.float64))


# --- classes and labels ---------------------------------------------------------------------------------------------


def test_classes_equal_scikit_learns_log_loss():
    logits, target = normal(9, 3), torch.arange(9) % 3
    probabilities = Classes(3).predict(logits)
    assert Classes(3).loss(logits, target).item() == near(log_loss(target.numpy(), probabilities.numpy()), rel=1e-12)


def test_a_class_weight_counts_in_a_batch_of_one_bag():
    logits = normal(1, 2)
    plain = Classes(2).loss(logits, torch.tensor([1])).item()
    assert Classes(2, (0.5, 3.0)).loss(logits, torch.tensor([1])).item() == near(3 * plain, rel=1e-12)


def test_weighted_batches_average_to_the_weighted_mean_over_bags():
    logits, target, objective = normal(6, 2), torch.tensor([0, 0, 1, 0, 1, 0]), Classes(2, (0.75, 1.5))
    alone = [objective.loss(logits[i : i + 1], target[i : i + 1]).item() for i in range(6)]
    assert objective.loss(logits, target).item() == near(np.mean(alone), rel=1e-12)


def test_labels_equal_scikit_learns_log_loss_of_each_and_unknown_ones_are_left_out():
    logits, target = normal(8, 2), (normal(8, 2, seed=1) > 0).double()
    probabilities = MultiLabel(2).predict(logits).numpy()
    each = [log_loss(target[:, i].numpy(), probabilities[:, i]) for i in range(2)]
    assert MultiLabel(2).loss(logits, target).item() == near(np.mean(each), rel=1e-12)
    unknown = target.clone()
    unknown[3:, 1] = math.nan
    kept = [log_loss(target[:, 0].numpy(), probabilities[:, 0]), log_loss(target[:3, 1].numpy(), probabilities[:3, 1])]
    assert MultiLabel(2).loss(logits, unknown).item() == near((8 * kept[0] + 3 * kept[1]) / 11, rel=1e-12)
    assert MultiLabel(2).loss(logits, torch.full_like(target, math.nan)).item() == 0


def test_a_label_weight_multiplies_its_positives():
    logits, target = normal(5, 1), torch.ones(5, 1)
    assert MultiLabel(1, (4.0,)).loss(logits, target) == near(4 * MultiLabel(1).loss(logits, target).item())
    assert MultiLabel(1, (4.0,)).loss(logits, 0 * target) == near(MultiLabel(1).loss(logits, 0 * target).item())


# --- the smooth SVM -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scores", "y", "tau", "alpha", "loss"), GOLDEN["smooth_top1_svm"]["rows"])
def test_the_smooth_svm_equals_the_authors(scores, y, tau, alpha, loss):
    scores = torch.tensor([scores], dtype=torch.float64)
    assert smooth_top1_svm(scores, torch.tensor([y]), tau=tau, alpha=alpha).item() == near(loss, abs=1e-9)


def test_the_smooth_svm_of_a_batch_and_its_gradient_equal_the_authors():
    golden = GOLDEN["smooth_top1_svm"]["batch"]
    scores = torch.tensor(golden["scores"], dtype=torch.float64, requires_grad=True)
    loss = smooth_top1_svm(scores, torch.tensor(golden["y"]))
    loss.backward()
    assert loss.item() == near(golden["mean_loss"], abs=1e-9)
    np.testing.assert_allclose(scores.grad, golden["grad"], atol=1e-9)


@pytest.mark.parametrize("tau", [1.0, 0.5])
def test_the_smooth_svm_turns_hard_where_scores_are_6_907755_tau_apart(tau):
    switch = 6.907755278982137 * tau
    for margin, is_hard in ((switch - 1e-9, False), (switch + 1e-9, True)):
        right = torch.tensor([[margin, 0.0]], dtype=torch.float64, requires_grad=True)
        loss = smooth_top1_svm(right, torch.tensor([0]), tau=tau)
        loss.backward()
        assert (loss.item() == 0) is is_hard
        assert bool((right.grad == 0).all()) is is_hard
        smooth = tau * math.log1p(math.exp((1 - margin) / tau))
        assert loss.item() == near(0 if is_hard else smooth, abs=1e-12)
        wrong = smooth_top1_svm(right.detach(), torch.tensor([1]), tau=tau).item()
        assert wrong - margin - 1 == near(0 if is_hard else tau * math.log1p(math.exp(-(1 + margin) / tau)), abs=1e-12)


# --- survival -------------------------------------------------------------------------------------------------------


def slow_cox(risk, pairs, ties):
    time, event = pairs[:, 0], pairs[:, 1] > 0
    total = 0.0
    for t in np.unique(time[event]):
        tied = np.flatnonzero((time == t) & event)
        everyone, those = np.exp(risk[time >= t]).sum(), np.exp(risk[tied]).sum()
        for rank, i in enumerate(tied):
            share = rank / len(tied) if ties == "efron" else 0.0
            total += math.log(everyone - share * those) - risk[i]
    return total / event.sum()


@pytest.mark.parametrize("ties", ["breslow", "efron"])
@pytest.mark.parametrize("n", [2, 5, 40])
def test_cox_equals_the_loop_of_the_formula(ties, n):
    logits, pairs = normal(n, 1), survival(n)
    expected = slow_cox(logits[:, 0].numpy(), pairs.numpy(), ties)
    assert Cox(ties).loss(logits, pairs).item() == near(expected, rel=1e-12)


def golden_cox():
    golden = GOLDEN["cox"]
    logits = torch.tensor(golden["risk"], dtype=torch.float64)[:, None].requires_grad_()
    return golden, logits, torch.tensor([golden["time"], golden["event"]], dtype=torch.float64).T


def test_cox_of_tied_cases_and_its_gradient_equal_golden_numbers():
    golden, logits, pairs = golden_cox()
    loss = Cox("breslow").loss(logits, pairs)
    assert loss.item() == near(golden["breslow_mean_per_event"], abs=1e-9)
    (5 * loss).backward()
    np.testing.assert_allclose(logits.grad[:, 0], golden["breslow_grad"], atol=1e-9)
    logits.grad = None
    loss = 5 * Cox("efron").loss(logits, pairs)
    assert loss.item() == near(golden["efron_sum"], abs=1e-9)
    loss.backward()
    np.testing.assert_allclose(logits.grad[:, 0], golden["efron_grad_fd"], atol=1e-6)


def test_harrells_c_equals_the_golden_number_and_counts_pairs():
    golden = GOLDEN["cox"]
    assert harrell_c(golden["risk"], golden["time"], golden["event"]) == near(golden["harrell_c"], abs=1e-12)
    assert harrell_c([3, 2, 1], [1, 2, 3], [1, 1, 1]) == 1
    assert harrell_c([3, 3, 1], [1, 2, 3], [1, 0, 1]) == 0.75  # (1, 2) tied, (1, 3) right, 2 is censored
    assert math.isnan(harrell_c([1, 2], [1, 2], [0, 0]))


def test_cox_survives_risks_that_are_far_apart():
    logits = torch.tensor([[200.0], [-200.0], [-200.0], [0.0]], requires_grad=True)
    pairs = torch.tensor([[1.0, 1], [2, 1], [2, 1], [3, 0]])
    for ties in ("breslow", "efron"):
        loss = Cox(ties).loss(logits, pairs)
        assert loss.item() == near(400 / 3, rel=1e-5)
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_cox_of_one_slide_is_refused_and_without_events_is_zero():
    with pytest.raises(TrainingError, match="16 or more slides"):
        Cox().loss(normal(1, 1), survival(1))
    logits = normal(3, 1).requires_grad_()
    loss = Cox().loss(logits, torch.tensor([[1.0, 0], [2, 0], [3, 0]]))
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_hazards_equal_golden_numbers(alpha):
    golden = GOLDEN["nll_discrete"]
    target = torch.tensor([golden["bin"], golden["event"]], dtype=torch.float64).T
    loss = Hazards(4, alpha).loss(torch.tensor(golden["logits"], dtype=torch.float64), target)
    assert loss.item() == near(golden[f"loss_alpha{alpha}"], abs=1e-9)


def test_a_survival_curve_is_the_product_of_what_hazards_leave_and_ranks_by_its_sum():
    logits = normal(5, 4)
    curve = np.cumprod(1 - 1 / (1 + np.exp(-logits.numpy())), axis=1)
    np.testing.assert_allclose(Hazards(4).predict(logits), curve, atol=1e-12)
    assert Hazards(4).risk(logits).argsort().tolist() == np.argsort(-curve.sum(1)).tolist()


def test_bins_hold_equally_many_events_and_cannot_outnumber_them():
    rng = np.random.default_rng(0)
    time, event = rng.exponential(size=400), rng.random(400) < 0.5
    edges = hazard_edges(time, event, 4)
    counts = np.bincount(np.searchsorted(edges, time[event], side="right"), minlength=4)
    assert counts.max() - counts.min() <= 1
    for few in ([], [0, 0], [0, 1]):
        with pytest.raises(TrainingError, match="do not fill 4 bins"):
            hazard_edges(np.asarray(few, dtype=float), np.ones(len(few)), 4)


# --- numbers --------------------------------------------------------------------------------------------------------


def test_regression_is_huber_of_the_standardised_target():
    objective = Regression(mean=50.0, sd=10.0)
    logits, target = torch.tensor([[0.5], [-3.0]], dtype=torch.float64), torch.tensor([52.0, 60.0])
    # Standardised .2 and 1: errors .3 (squared) and -4 (linear).
    assert objective.loss(logits, target).item() == near((0.5 * 0.3**2 + 4 - 0.5) / 2, rel=1e-12)
    assert objective.predict(logits).tolist() == [55.0, 20.0]


# --- all of them ----------------------------------------------------------------------------------------------------

CASES = [
    (Classes(3), torch.arange(7) % 3),
    (Classes(2, (0.5, 2.0)), torch.arange(7) % 2),
    (MultiLabel(2, (3.0, 0.5)), torch.tensor([[1, 0], [0, 1], [1, math.nan], [1, 1], [0, 0], [0, 1], [1, 0]])),
    (Cox("breslow"), survival(7)),
    (Cox("efron"), survival(7)),
    (Hazards(4, 0.3), torch.tensor([[0, 1], [3, 0], [1, 1], [2, 0], [3, 1], [0, 0], [2, 1]])),
    (Regression(1.0, 2.0), normal(7, seed=4)),
]
every_objective = pytest.mark.parametrize(("objective", "target"), CASES, ids=lambda it: str(it)[:24])


@every_objective
def test_gradients_equal_finite_differences(objective, target):
    logits = normal(7, objective.n_outputs, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda it: objective.loss(it, target), logits, eps=1e-6, atol=1e-7)


def test_gradients_of_the_smooth_svm_equal_finite_differences():
    scores = (3 * normal(12, 3, seed=2)).requires_grad_()
    target = torch.arange(12) % 3
    assert torch.autograd.gradcheck(lambda it: smooth_top1_svm(it, target, tau=0.7), scores, eps=1e-6, atol=1e-7)


@every_objective
def test_losses_are_computed_in_float32_of_half_logits(objective, target):
    logits = normal(7, objective.n_outputs, seed=2).bfloat16()
    loss = objective.loss(logits, target)
    assert loss.dtype == torch.float32
    assert loss.item() == near(objective.loss(logits.double(), target).item(), rel=1e-5)


@every_objective
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_a_blend_predicts_the_mean_of_both_predictions(objective, target, scale):
    first, second = (scale * normal(7, objective.n_outputs, seed=seed) for seed in (5, 6))
    mean = (objective.predict(first) + objective.predict(second)) / 2
    blend = objective.blend(first, second)
    assert blend.isfinite().all()
    torch.testing.assert_close(objective.predict(blend), mean, atol=1e-7, rtol=1e-6)


def test_blends_of_certain_predictions_stay_finite():
    certain = torch.full((1, 3), -300.0)
    for objective in (Classes(3), MultiLabel(3), Hazards(3)):
        for first, second in ((certain, certain), (-certain, -certain), (certain, -certain)):
            assert objective.blend(first, second).isfinite().all()


@every_objective
def test_a_target_of_another_shape_is_refused(objective, target):
    with pytest.raises(ValueError, match=r"need .* of shape"):
        objective.loss(normal(6, objective.n_outputs), target)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Classes(1), "at least 2 classes"),
        (lambda: Classes(2, (1.0,)), "2 weights"),
        (lambda: Classes(2, (1.0, 0.0)), "2 weights > 0"),
        (lambda: MultiLabel(0), "at least 1 label"),
        (lambda: Cox("exact"), "breslow or efron"),
        (lambda: Hazards(1), "n_bins >= 2"),
        (lambda: Hazards(4, 2.0), "alpha in"),
        (lambda: Regression(0.0, 0.0), "sd > 0"),
        (lambda: smooth_top1_svm(normal(2, 2), torch.tensor([0, 1]), tau=0.0), "tau > 0"),
    ],
)
def test_impossible_settings_are_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
