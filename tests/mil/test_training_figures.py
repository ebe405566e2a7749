"""Figures of out-of-fold predictions against slow referees."""

import numpy as np
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import r2_score, roc_auc_score

from histokin.mil.training.figures import Judged, concordance


def judged(kind: str, truth: np.ndarray, names: tuple[str, ...] = (), n_patients: int = 12) -> Judged:
    n = len(truth)
    patients = np.array([f"p{i % n_patients}" for i in range(n)], dtype=object)
    return Judged(kind, names, truth, patients, np.arange(n) % 3)


def test_concordance_equals_counting_pairs_with_ties_in_time_and_risk() -> None:
    rng = np.random.default_rng(0)
    time, event = rng.integers(1, 6, 40).astype(float), rng.random(40) < 0.6
    risk = rng.integers(0, 4, 40).astype(float)
    won = pairs = 0.0
    for i in range(40):
        for j in range(40):
            if event[i] and (time[j] > time[i] or (time[j] == time[i] and not event[j])):
                pairs += 1
                won += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    clusters = np.arange(40) % 7
    value = concordance(risk, time, event, clusters)
    assert value(np.ones((1, 7)))[0] == pytest.approx(won / pairs)
    # A patient drawn twice counts as two.
    weights = np.array([[2.0, 1, 1, 1, 1, 1, 0]])
    rows = np.concatenate([np.flatnonzero(clusters == c) for c in (0, 0, 1, 2, 3, 4, 5)])
    again = concordance(risk[rows], time[rows], event[rows], np.arange(len(rows)))
    assert value(weights)[0] == pytest.approx(again(np.ones((1, len(rows))))[0])


def test_values_are_scored_as_scipy_and_scikit_learn_do() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(size=60)
    told = truth + rng.normal(size=60)
    of = {figure.metric: figure.value for figure in judged("value", truth).figures({"ensemble": told[:, None]})}
    assert of["r2"] == pytest.approx(r2_score(truth, told))
    assert of["mae"] == pytest.approx(np.abs(truth - told).mean())
    assert of["pearson"] == pytest.approx(pearsonr(truth, told).statistic)


def test_labels_are_the_mean_area_over_labels_on_the_slides_that_are_known() -> None:
    rng = np.random.default_rng(2)
    truth = (rng.random((60, 3)) < 0.4).astype(float)
    truth[rng.random((60, 3)) < 0.2] = np.nan
    told = rng.random((60, 3))
    (figure,) = judged("labels", truth, ("a", "b", "c")).figures({"ensemble": told})
    known = ~np.isnan(truth)
    by_hand = [roc_auc_score(truth[known[:, c], c], told[known[:, c], c]) for c in range(3)]
    assert figure.value == pytest.approx(np.mean(by_hand))


def test_the_largest_of_a_patients_slides_is_offered_and_sums_to_one() -> None:
    truth = np.array([0, 0, 1, 1])
    told = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.5, 0.5]])
    data = Judged("classes", ("a", "b"), truth, np.array(list("xxyz"), dtype=object), np.zeros(4, dtype=np.int64))
    found, values, left_out = data.by_patient(told, "max")
    assert found.patients.tolist() == ["x", "y", "z"]
    assert values == pytest.approx(np.array([[0.6, 0.4], [0.2, 0.8], [0.5, 0.5]]))
    assert left_out == ()


def test_a_patient_whose_slides_differ_in_truth_is_left_out_by_name() -> None:
    truth = np.array([0, 1, 1])
    data = Judged("classes", ("a", "b"), truth, np.array(list("xxy"), dtype=object), np.zeros(3, dtype=np.int64))
    found, _, left_out = data.by_patient(np.full((3, 2), 0.5), "mean")
    assert (found.patients.tolist(), left_out) == (["y"], ("x",))
