"""Calibration errors, Brier scores and temperature against golden figures, scikit-learn, slow loops and known truth."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from histokin.errors import EvaluationError
from histokin.evaluate.calibration import (
    adaptive_calibration_error,
    binary_brier,
    brier,
    expected_calibration_error,
    fit_temperature,
    reliability,
    tempered,
)
from histokin.evaluate.probes import scores

GOLDEN = {case["id"]: case for case in json.loads(Path(__file__).with_name("golden_probes.json").read_text())["cases"]}


@st.composite
def predictions(draw):
    """Coarse probabilities, so that edges of bins and ties are met, and truth."""
    n, n_classes = draw(st.integers(1, 30)), draw(st.integers(2, 4))
    parts = draw(arrays(np.int64, (n, n_classes), elements=st.integers(0, 5))) + np.eye(n_classes, dtype=int)[0]
    truth = draw(arrays(np.int64, n, elements=st.integers(0, n_classes - 1)))
    return parts / parts.sum(axis=1, keepdims=True), truth


def simulated(seed, n=4000, n_classes=3, sharpness=1.5):
    """Logits whose softmax is the truth's distribution."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(n, n_classes))
    reached = tempered(logits, 1).cumsum(axis=1)
    return logits, (rng.uniform(size=(n, 1)) > reached[:, :-1]).sum(axis=1)


def nll(probabilities, truth):
    return -np.log(probabilities[np.arange(len(truth)), truth]).mean()


def test_calibration_meets_the_golden_figures(f1):
    generator = sys.modules[type(f1).__module__]  # conftest's, which no test can import by name
    case = GOLDEN["calibration"]
    n, expected = case["input"]["n"], case["expected"]
    truth = np.array([int(3 * generator.uniform(62, i)) for i in range(n)])
    logits = np.array([[2.5 * generator.gaussian(61, 3 * i + j) for j in range(3)] for i in range(n)])
    logits[np.arange(n), truth] += 2
    before, found = tempered(logits, 1), fit_temperature(logits, truth)
    after = tempered(logits, found.t)
    figures = {
        "acc": (before.argmax(axis=1) == truth).mean(),
        "ece15": expected_calibration_error(before, truth),
        "ace10": adaptive_calibration_error(before, truth),
        "brier_multi": brier(before, truth),
        "brier_binary_class0": binary_brier(before[:, 0], truth == 0),
        "nll": nll(before, truth),
        "T": found.t,
        "ece15_T": expected_calibration_error(after, truth),
        "nll_T": nll(after, truth),
        "brier_T": brier(after, truth),
    }
    assert figures.keys() == expected.keys()
    for name, value in figures.items():
        assert value == pytest.approx(expected[name], abs=1e-6), name
    assert not found.is_at_end


def test_calibration_meets_the_hand_case():
    case = GOLDEN["calibration_tiny"]
    p, truth, n_bins = np.array(case["input"]["p"]), np.array(case["input"]["y"]), case["input"]["bins"]
    assert expected_calibration_error(p, truth, n_bins) == pytest.approx(case["expected"]["ece"])
    assert brier(p, truth) == pytest.approx(case["expected"]["brier_multi"])
    table = reliability(p, truth, n_bins)  # .6 lies in (.4, .6], .8 in (.6, .8]
    assert table.n.tolist() == [0, 0, 1, 2, 1]
    assert table.low == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    assert table.high == pytest.approx([0.2, 0.4, 0.6, 0.8, 1])
    assert table.confidence == pytest.approx([np.nan, np.nan, 0.6, 0.75, 0.9], nan_ok=True)
    assert table.accuracy == pytest.approx([np.nan, np.nan, 1, 0.5, 1], nan_ok=True)


@given(predictions(), st.integers(1, 20))
def test_the_error_is_that_of_the_table_and_of_the_one_with_patient_weights(case, n_bins):
    p, truth = case
    found = expected_calibration_error(p, truth, n_bins)
    table, surest = reliability(p, truth, n_bins), p.max(axis=1)
    slow = 0.0
    for k in range(n_bins):
        inside = (surest > table.low[k]) & (surest <= table.high[k])
        assert table.n[k] == inside.sum()
        assert math.isnan(table.accuracy[k]) == math.isnan(table.confidence[k]) == (not inside.any())
        if inside.any():
            accuracy = (p.argmax(axis=1) == truth)[inside].mean()
            assert (table.accuracy[k], table.confidence[k]) == pytest.approx((accuracy, surest[inside].mean()))
            slow += inside.mean() * abs(accuracy - surest[inside].mean())
    assert table.n.sum() == len(truth)
    assert found == pytest.approx(slow, abs=1e-12)
    clusters = np.arange(len(truth)) % 3
    weighed = scores.ece_statistic(p, truth, clusters, 3, n_bins=n_bins)
    assert found == pytest.approx(weighed(np.ones((1, 3)))[0], abs=1e-12)


@given(predictions(), st.integers(1, 40))
def test_the_adaptive_error_is_that_of_equal_parts(case, n_bins):
    p, truth = case
    surest, right = p.max(axis=1), p.argmax(axis=1) == truth
    rows = sorted(range(len(truth)), key=lambda i: surest[i])  # stable
    slow, start = 0.0, 0
    for k in range(n_bins):
        size = len(rows) // n_bins + (k < len(rows) % n_bins)
        own, start = rows[start : start + size], start + size
        slow += abs(sum(right[own]) - sum(surest[own])) / len(rows)
    assert adaptive_calibration_error(p, truth, n_bins) == pytest.approx(slow, abs=1e-12)
    one_bin = abs(right.mean() - surest.mean())
    assert adaptive_calibration_error(p, truth, 1) == pytest.approx(one_bin, abs=1e-12)
    assert adaptive_calibration_error(p, truth) >= one_bin - 1e-12  # finer bins hide less


def test_rows_that_tie_across_a_cut_fall_as_they_were_given():
    p = np.tile([0.75, 0.25], (400, 1))
    p[::2] = [0.5, 0.5]  # something to sort
    truth = (np.arange(400) >= 200).astype(int)  # the earlier rows are right, the later wrong
    assert adaptive_calibration_error(p, truth, 4) == (0.5 + 0.5 + 0.25 + 0.75) / 4
    assert adaptive_calibration_error(p, truth, 2) == (0.0 + 0.25) / 2


@given(predictions())
def test_brier_is_scikit_learns_class_by_class(case):
    from sklearn.metrics import brier_score_loss

    p, truth = case
    own = [binary_brier(p[:, c], truth == c) for c in range(p.shape[1])]
    for c, value in enumerate(own):
        assert value == pytest.approx(brier_score_loss(truth == c, p[:, c], pos_label=True), abs=1e-12)
    assert brier(p, truth) == pytest.approx(sum(own), abs=1e-12)
    assert 0 <= brier(p, truth) <= 2
    if p.shape[1] == 2:
        assert brier(p, truth) == pytest.approx(2 * binary_brier(p[:, 1], truth))


def test_right_without_doubt_costs_nothing_and_wrong_without_doubt_everything():
    p = np.eye(3)[[0, 1, 2]]
    for truth, ece, worst in ((np.array([0, 1, 2]), 0, 0), (np.array([1, 2, 0]), 1, 2)):
        assert expected_calibration_error(p, truth) == ece
        assert adaptive_calibration_error(p, truth) == ece
        assert brier(p, truth) == worst
        assert reliability(p, truth).n.tolist() == [0] * 14 + [3]


def test_calibrated_logits_have_a_small_error_and_a_temperature_of_one():
    logits, truth = simulated(1)
    p, found = tempered(logits, 1), fit_temperature(logits, truth)
    variance = (p * logits**2).sum(axis=1) - (p * logits).sum(axis=1) ** 2
    se = 1 / math.sqrt(variance.sum())  # of beta = 1 / T, by Fisher's information
    assert abs(1 / found.t - 1) < 4 * se
    assert se < 0.03
    # A bin of n rows is off by about sqrt(2 p (1 - p) / (pi n)), at most .4 / sqrt(n): 15 bins of 4000 rows give .024.
    assert expected_calibration_error(p, truth) < 0.024 + 0.01
    assert expected_calibration_error(tempered(logits, 0.4), truth) > 0.1


@pytest.mark.parametrize("factor", [0.1, 0.5, 3.0, 15.0])
def test_scaling_the_logits_scales_the_temperature(factor):
    logits, truth = simulated(2, n=300)
    base, scaled = fit_temperature(logits, truth), fit_temperature(factor * logits, truth)
    assert scaled.t == pytest.approx(factor * base.t, rel=1e-9)
    assert tempered(factor * logits, scaled.t) == pytest.approx(tempered(logits, base.t), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_the_temperature_is_the_minimum_of_the_likelihood(seed):
    from scipy.optimize import minimize_scalar

    logits, truth = simulated(seed, n=200, sharpness=4)
    logits = logits * 2.5
    found = fit_temperature(logits, truth)
    best = dict(minimize_scalar(lambda t: nll(tempered(logits, t), truth), bounds=(0.01, 20), method="bounded"))
    assert found.t == pytest.approx(best["x"], rel=1e-3)
    assert nll(tempered(logits, found.t), truth) <= best["fun"] + 1e-12
    # Log probabilities are logits less a constant of the row.
    assert fit_temperature(np.log(tempered(logits, 1)), truth).t == pytest.approx(found.t, rel=1e-9)


def test_a_temperature_at_an_end_says_so():
    logits = np.array([[2.0, 0, 0], [0, 3, 0], [0, 0, 1]])
    right = fit_temperature(logits, np.array([0, 1, 2]))
    assert (right.t, right.is_at_end) == (0.01, True)
    wrong = fit_temperature(logits, np.array([1, 2, 0]))
    assert (wrong.t, wrong.is_at_end) == (20, True)
    silent = fit_temperature(np.full((3, 3), 5.0), np.array([0, 1, 2]))
    assert (silent.t, silent.is_at_end) == (1, False)


def test_huge_logits_and_absent_classes_are_borne():
    logits = np.array([[1e5, 0, -np.inf], [0, 1e5, -np.inf], [1e5, 0, -np.inf], [40.0, 0, -np.inf]])
    truth = np.array([0, 1, 0, 1])
    found = fit_temperature(logits, truth)
    assert found == fit_temperature(logits[:, :2], truth)
    assert tempered(logits, 0.01)[:, 2].tolist() == [0] * 4
    with pytest.raises(EvaluationError, match="1 of 4 rows give their true class probability 0"):
        fit_temperature(logits, np.array([0, 1, 0, 2]))


@given(predictions(), st.floats(0.01, 20))
def test_tempering_keeps_the_order_and_one_keeps_the_probabilities(case, t):
    p, _ = case
    with np.errstate(divide="ignore"):
        logs = np.log(p)
    assert tempered(logs, 1) == pytest.approx(p, abs=1e-12)
    after = tempered(logs, t)
    assert after.sum(axis=1) == pytest.approx(np.ones(len(p)))
    first, second = p[:, 0], p[:, 1]
    assert (after[first > second, 0] >= after[first > second, 1]).all()
    assert (after[p == 0] == 0).all()


def test_float16_rows_are_taken_for_what_they_are():
    logits, truth = simulated(3, n=500, n_classes=9)
    exact, rounded = tempered(logits, 1), tempered(logits, 1).astype(np.float16)
    assert brier(rounded, truth) == pytest.approx(brier(exact, truth), abs=1e-3)
    assert fit_temperature(logits.astype(np.float16), truth).t == pytest.approx(
        fit_temperature(logits, truth).t, rel=1e-3
    )


@pytest.mark.parametrize("measure", [reliability, expected_calibration_error, adaptive_calibration_error, brier])
def test_what_is_no_probability_or_class_is_refused(measure):
    p, truth = np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1])
    for wrong in (p * 2, np.array([[1.2, -0.2], [0.2, 0.8]]), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="sum to 1"):
            measure(wrong, truth)
    for wrong in (p[:, 0], p[:, :1], p[:0]):
        with pytest.raises(ValueError, match="C >= 2"):
            measure(wrong, truth)
    for wrong in (np.array([0, 2]), np.array([-1, 0]), np.array([0.0, 1.0])):
        with pytest.raises(ValueError, match="whole numbers from 0 to 1"):
            measure(p, wrong)
    with pytest.raises(ValueError, match="code for each row"):
        measure(p, np.array([0]))
    if measure is not brier:
        with pytest.raises(ValueError, match="n_bins must be >= 1"):
            measure(p, truth, 0)


def test_binary_brier_and_temperature_refuse_what_they_cannot_read():
    for p, y, said in (
        ([0.5, 1.5], [0, 1], "outside"),
        ([0.5, np.nan], [0, 1], "outside"),
        ([0.5, 0.5], [0, 2], "0 and 1"),
        ([[0.5, 0.5]], [0], "equal"),
        ([], [], "equal"),
    ):
        with pytest.raises(ValueError, match=said):
            binary_brier(np.array(p), np.array(y))
    logits = np.array([[1.0, 0.0], [0.0, 1.0]])
    for t in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="t must be > 0"):
            tempered(logits, t)
    for row in ([np.nan, 0], [np.inf, 0], [-np.inf, -np.inf]):
        with pytest.raises(ValueError, match="a row of logits"):
            tempered(np.array([[1.0, 0], row]), 1)
    with pytest.raises(ValueError, match="C >= 2"):
        fit_temperature(logits[:, 0], np.array([0, 1]))
