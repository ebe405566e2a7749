"""Metrics of probes as functions of cluster weights, against repeated rows, scikit-learn, scipy and golden figures."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from histokin.evaluate.comparison import score_interval
from histokin.evaluate.intervals import patient_weights
from histokin.evaluate.probes.folds import Split
from histokin.evaluate.probes.outcome import Fold, Outcome, class_task, value_task
from histokin.evaluate.probes.scores import (
    chance_levels,
    class_figures,
    ece_statistic,
    macro_auc,
    probe_scores,
    r_squared,
    weighted_spearman,
)

P, N = 6, 90
GOLDEN = {case["id"]: case for case in json.loads(Path(__file__).with_name("golden_probes.json").read_text())["cases"]}
FOLDS = (Fold(("a",), 1, 1, 1.0),)


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def classes(rng):
    """Three classes, six patients, coarse probabilities (ties)."""
    truth, patients = rng.integers(0, 3, N), np.arange(N) % P
    proba = rng.integers(1, 5, (N, 3)).astype(float)
    proba[np.arange(N), truth] += 2
    proba /= proba.sum(axis=1, keepdims=True)
    task = class_task([f"c{t}" for t in truth], [f"p{p}" for p in patients], split=Split())
    return task, Outcome(proba.argmax(axis=1), proba, FOLDS)


@pytest.fixture
def values(rng):
    truth, patients = np.round(rng.normal(size=N), 1), np.arange(N) % P
    predicted = np.round(truth + rng.normal(size=N), 1)
    section = [f"s{s}" if s else "" for s in np.arange(N) // 15]
    task = value_task(truth, [f"p{p}" for p in patients], split=Split(), within=section)
    return task, Outcome(predicted, None, FOLDS)


def repeated(task, weights):
    """Rows as often as their cluster was drawn."""
    return np.repeat(np.arange(len(task)), weights[task.clusters].astype(int))


def test_class_metrics_are_those_of_scikit_learn(classes):
    from sklearn import metrics

    task, outcome = classes
    found = {score.metric: score.value(P) for score in probe_scores(task, outcome)}
    y, said, proba = task.truth, outcome.predicted, outcome.probabilities
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(y, said))
    assert found["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(y, said))
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(y, said, average="macro"))
    assert found["macro_auc"] == pytest.approx(metrics.roc_auc_score(y, proba, multi_class="ovr"))
    assert found["nll"] == pytest.approx(metrics.log_loss(y, proba))
    for line, f1 in zip(class_figures("x", task, (outcome,)), metrics.f1_score(y, said, average=None), strict=True):
        own = y == task.classes.index(line.label)
        assert line.f1 == pytest.approx(f1)
        assert line.recall == pytest.approx((said[own] == y[own]).mean())
        assert line.auc == pytest.approx(metrics.roc_auc_score(own, proba[:, task.classes.index(line.label)]))
        assert (line.n_rows, line.n_clusters) == (own.sum(), P)


@pytest.mark.parametrize("seed", range(4))
def test_a_resample_scores_as_its_repeated_rows(classes, values, seed):
    weights = np.random.default_rng(seed).multinomial(P, [1 / P] * P).astype(float)
    for task, outcome in (classes, values):
        for score in probe_scores(task, outcome):
            rows = repeated(task, weights)
            again = Outcome(
                outcome.predicted[rows], None if outcome.probabilities is None else outcome.probabilities[rows], FOLDS
            )
            if task.classes:
                other = class_task([task.classes[c] for c in task.truth[rows]], task.groups[rows], split=Split())
            else:
                within = ["" if w < 0 else f"{w}" for w in task.within[rows]]
                other = value_task(task.truth[rows], task.groups[rows], split=Split(), within=within)
            expected = next(s for s in probe_scores(other, again) if s.metric == score.metric)
            value = float(score.statistic(weights[None])[0])
            if score.metric == "spearman_within":
                continue  # its groups span patients here; weighed by their drawn share, see below
            assert value == pytest.approx(expected.value(other.n_clusters)), score.metric


def test_value_metrics_are_those_of_scikit_learn_and_scipy(values):
    from scipy.stats import spearmanr
    from sklearn.metrics import r2_score

    task, outcome = values
    found = {score.metric: score.value(P) for score in probe_scores(task, outcome)}
    assert found["r2"] == pytest.approx(r2_score(task.truth, outcome.predicted))
    assert found["spearman"] == pytest.approx(spearmanr(task.truth, outcome.predicted).statistic)
    inside = [
        spearmanr(task.truth[own], outcome.predicted[own]).statistic for own in (task.within == g for g in range(5))
    ]
    assert found["spearman_within"] == pytest.approx(np.mean(inside))


def test_groups_inside_a_cluster_count_as_often_as_it_was_drawn(values):
    task, outcome = values
    inside = np.arange(N) % P * 3 + np.arange(N) // 30  # three images a patient
    nested = value_task(task.truth, task.groups, split=Split(), within=[str(i) for i in inside])
    score = probe_scores(nested, outcome)[-1]
    rho = [
        weighted_spearman(task.truth[own], outcome.predicted[own], np.zeros(own.sum(), int), np.ones((1, 1)))[0]
        for own in (inside == image for image in range(18))
    ]
    assert score.value(P) == pytest.approx(np.mean(rho))
    weights = np.array([[2.0, 0, 0, 1, 3, 0]])
    assert score.statistic(weights)[0] == pytest.approx(np.average(rho, weights=np.repeat(weights[0], 3)))
    assert score.added.sum() == pytest.approx(score.value(P))


def test_what_clusters_add_is_the_value(classes, values):
    for task, outcome in (classes, values):
        for score in probe_scores(task, outcome):
            if score.added is not None and score.metric != "r2":
                assert score.added.sum() == pytest.approx(score.value(P)), score.metric
    task, outcome = values
    other = Outcome(outcome.predicted / 2, None, FOLDS)
    first, second = (probe_scores(task, o)[0] for o in (outcome, other))
    assert (first.added - second.added).sum() == pytest.approx(first.value(P) - second.value(P))


def test_constant_predictions_rank_nothing_and_constant_truth_is_undefined():
    clusters, one = np.zeros(4, dtype=int), np.ones((1, 1))
    rising = np.arange(4.0)
    assert weighted_spearman(rising, np.zeros(4), clusters, one)[0] == 0
    assert np.isnan(weighted_spearman(np.zeros(4), rising, clusters, one)[0])
    assert np.isnan(r_squared(np.full(4, 0.1), rising, clusters)(one)[0])
    assert r_squared(rising, np.full(4, 1.5), clusters)(one)[0] == pytest.approx(0)


def test_a_group_whose_truth_is_constant_is_left_out_of_the_mean():
    truth = [1.0, 1, 1, 1, 2, 3]
    task = value_task(truth, list("aabbab"), split=Split(), within=list("xxxyyy"))
    score = probe_scores(task, Outcome(np.array([1.0, 2, 3, 3, 2, 1]), None, FOLDS))[-1]
    assert score.value(2) == pytest.approx(-1)


def test_area_is_undefined_where_a_resample_lacks_a_class():
    proba = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    area = macro_auc(proba, np.array([0, 1, 1]), np.array([0, 1, 1]), 2)
    found = area(np.array([[1.0, 1], [2, 0], [0, 2]]))
    assert found[0] == 1
    assert np.isnan(found[1:]).all()


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "macro_auc"])
def test_means_over_classes_are_undefined_where_a_resample_lacks_a_class(metric):
    task = class_task(["a", "a", "b", "b"], ["p", "p", "q", "q"], split=Split())
    outcome = Outcome(np.array([0, 1, 1, 1]), np.eye(2)[[0, 1, 1, 1]], FOLDS)
    score = next(one for one in probe_scores(task, outcome) if one.metric == metric)
    found = score.statistic(np.array([[1.0, 1], [2, 0], [0, 2]]))
    assert np.isfinite(found[0])
    assert np.isnan(found[1:]).all()


def test_a_class_of_few_patients_does_not_lend_the_interval_the_others_recall():
    recalls = np.array([0.3, 0.5] + [0.9, 1.0] * 11)  # of two patients of class b and 22 of class a
    n_rows = 20
    labels = np.repeat(["b", "b"] + ["a"] * 22, n_rows)
    patients = np.repeat([f"p{p:02d}" for p in range(24)], n_rows)
    task = class_task(labels, patients, split=Split())
    is_right = (np.arange(n_rows) < n_rows * recalls[:, None]).ravel()
    outcome = Outcome(np.where(is_right, task.truth, 1 - task.truth), np.eye(2)[task.truth], FOLDS)
    score = probe_scores(task, outcome)[0]
    weights = patient_weights(task.n_clusters)
    interval = score_interval(score, weights, cluster="patient")
    assert score.value(task.n_clusters) == pytest.approx(0.675)
    assert interval.high <= 0.75  # (.5 + 1) / 2: more, such as the common class alone, it cannot be
    n_lost = int(((weights[:, [task.clusters[0], task.clusters[n_rows]]]).sum(axis=1) == 0).sum())
    assert f"{n_lost} of {len(weights)} draws left out" in interval.note


def test_calibration_meets_the_golden_figures(f1):
    generator = sys.modules[type(f1).__module__]  # conftest's, which no test can import by name
    gaussian, uniform = generator.gaussian, generator.uniform
    n = GOLDEN["calibration"]["input"]["n"]
    truth = np.array([int(3 * uniform(62, i)) for i in range(n)])
    logits = np.array([[2.5 * gaussian(61, 3 * i + j) for j in range(3)] for i in range(n)])
    logits[np.arange(n), truth] += 2
    assert logits[:2] == pytest.approx(np.array(GOLDEN["calibration"]["input"]["first_logits"]))
    proba = np.exp(logits - logits.max(axis=1, keepdims=True))
    proba /= proba.sum(axis=1, keepdims=True)
    task = class_task([str(t) for t in truth], [str(i % 2) for i in range(n)], split=Split())
    found = {s.metric: s.value(2) for s in probe_scores(task, Outcome(proba.argmax(axis=1), proba, FOLDS))}
    expected = GOLDEN["calibration"]["expected"]
    assert found["accuracy"] == pytest.approx(expected["acc"])
    assert found["ece"] == pytest.approx(expected["ece15"], abs=1e-6)
    assert found["nll"] == pytest.approx(expected["nll"], abs=1e-6)


def test_calibration_meets_the_hand_case():
    case = GOLDEN["calibration_tiny"]
    proba, truth = np.array(case["input"]["p"]), np.array(case["input"]["y"])
    found = ece_statistic(proba, truth, np.zeros(4, int), 1, n_bins=case["input"]["bins"])
    assert found(np.ones((1, 1)))[0] == pytest.approx(case["expected"]["ece"])


def test_a_class_that_was_never_predicted_costs_a_bounded_loss():
    task = class_task(["a", "b"], ["p", "q"], split=Split())
    found = {s.metric: s.value(2) for s in probe_scores(task, Outcome(np.array([1, 0]), np.eye(2)[[1, 0]], FOLDS))}
    assert found["nll"] == pytest.approx(36.04, abs=0.01)


def test_chance_is_the_commonest_class_always():
    task = class_task(list("aaab"), list("pqpq"), split=Split())
    levels = chance_levels(task)
    outcome = Outcome(np.zeros(4, int), np.tile([0.75, 0.25], (4, 1)), FOLDS)
    for score in probe_scores(task, outcome):
        if score.metric in levels:
            assert score.value(2) == pytest.approx(levels[score.metric]), score.metric
