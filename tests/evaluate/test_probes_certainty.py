"""A probe's temperature against slow inner folds and known over-confidence; certainty against the plain measures."""

import json

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix

from histokin.evaluate import (
    LinearProbe,
    NeighbourProbe,
    Split,
    SVMProbe,
    certainty,
    compare_probes,
    confusion_counts,
    knn_probe,
    linear_probe,
    ridge_probe,
    svm_probe,
)
from histokin.evaluate.calibration import (
    adaptive_calibration_error,
    brier,
    expected_calibration_error,
    fit_temperature,
    reliability,
    tempered,
)
from histokin.evaluate.probes import Fold, Outcome, Probed
from histokin.evaluate.probes.folds import grouped_folds
from histokin.evaluate.probes.linear import C_GRID, _InnerFold, _temperature
from histokin.evaluate.probes.outcome import Part, class_task
from histokin.evaluate.probes.run import run_probe
from histokin.evaluate.vectors import scaled


def world(n_patients=4, n_each=12, width=5, n_classes=2, signal=1.0, seed=0):
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), n_each)
    label = np.tile(np.arange(n_each) % n_classes, n_patients)
    x = rng.normal(size=(len(label), width)) + 0.5 * rng.normal(size=(n_patients, width))[patient]
    x[np.arange(len(x)), label] += signal
    return x, label, patient


@pytest.fixture(scope="module")
def three_classes():
    """Three classes, an encoder and a floor of two members, probed with C chosen."""
    x, label, patient = world(n_classes=3)
    return compare_probes({"e": x}, label, patient, floors={"random": [x[:, :2], x[:, 2:]]}, split=Split(n_folds=2))


def predicted(x, label, patient, probe=None):
    """Out-of-fold predictions without the figures, whose intervals take most of the time."""
    task = class_task(label, patient, split=Split())
    return run_probe(x, task, probe or LinearProbe())


def judged(probabilities, truth, temperatures, fold):
    """A probe's result around given probabilities."""
    n = len(truth)
    task = class_task([f"c{v}" for v in truth], [str(f) for f in fold], split=Split())
    folds = tuple(Fold((str(f),), n, n, 1.0, temperature=t) for f, t in enumerate(temperatures))
    outcome = Outcome(probabilities.argmax(axis=1), probabilities, folds)
    return Probed((), (), (), {"probe": "given"}, (), "e", {"e": (outcome,)}, task, (), 0)


@pytest.mark.parametrize(("n_classes", "width"), [(2, 5), (3, 5), (2, 700), (4, 400)])
def test_temperature_is_that_of_slow_inner_folds_at_the_chosen_c(n_classes, width):
    """From scikit-learn's decision function and a fine grid of T; wide features are chosen on in float32."""
    x, label, patient = world(n_classes=n_classes, width=width)
    own = patient == 3
    said = LinearProbe().predict(
        Part(scaled(x[~own], x[own])[0], label[~own], patient[~own], n_classes, 3), np.zeros((1, width))
    )
    train, _ = scaled(x[~own], x[own])
    y, inner = label[~own], grouped_folds(patient[~own], 3, label[~own])
    logits = np.zeros((len(y), n_classes))
    for f in range(3):
        fitted, asked = scaled(train[inner != f], train[inner == f])
        model = LogisticRegression(C=said.setting, class_weight="balanced", tol=1e-8, max_iter=9000)
        margins = model.fit(fitted, y[inner != f]).decision_function(asked)
        logits[inner == f] = margins if margins.ndim == 2 else np.stack([np.zeros_like(margins), margins], axis=1)
    ts = np.geomspace(0.01, 20, 2000)
    losses = [-np.log(np.maximum(tempered(logits, t)[np.arange(len(y)), y], 1e-300)).mean() for t in ts]
    assert said.temperature == pytest.approx(ts[np.argmin(losses)], rel=0.03 if width > 5 else 0.005)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("exaggeration", [0.5, 1.0, 4.0])
def test_a_known_exaggeration_is_found_again(n_classes, exaggeration):
    rng = np.random.default_rng(n_classes)
    x = 1.5 * rng.normal(size=(1500, n_classes))
    if n_classes == 2:
        x[:, 0] = 0  # the second against the first, as scikit-learn has it
    reached = tempered(x, 1).cumsum(axis=1)
    truth = (rng.uniform(size=(1500, 1)) > reached[:, :-1]).sum(axis=1)
    groups = np.arange(1500) % 3
    part = Part(x, truth, groups, n_classes, 3)
    folds = grouped_folds(groups, 3, truth)
    coef = exaggeration * (np.eye(n_classes) if n_classes > 2 else np.array([[0.0, 1.0]]))
    inner = [
        _InnerFold(x[folds == f], np.arange(n_classes), [coef], [np.zeros(len(coef))]) for f in range(folds.max() + 1)
    ]
    # The standard deviation of log T over 200 other draws was 0.059 of two classes and 0.041 of three.
    assert np.log(_temperature(part, inner, 0)) == pytest.approx(np.log(exaggeration), abs=4 * 0.059)


def test_labels_of_the_held_out_part_leave_its_temperature_unchanged():
    x, label, patient = world()
    own = patient == 2
    mixed = label.copy()
    mixed[own] = np.random.default_rng(0).permutation(label[own])
    assert (mixed != label).any()
    first, second = (predicted(x, y, patient).folds for y in (label, mixed))
    assert 0.01 < first[2].temperature == second[2].temperature
    assert first[3].temperature != second[3].temperature  # there they were fitted on


def test_a_temperature_changes_no_probability_and_is_none_where_nothing_is_chosen():
    x, label, patient = world(n_patients=3)
    chosen = predicted(x, label, patient)
    own, last = patient == 2, chosen.folds[2]
    alone = predicted(x, label, patient, LinearProbe(c=last.setting))
    assert (alone.probabilities[own] == chosen.probabilities[own]).all()
    assert [fold.temperature for fold in alone.folds] == [None] * 3
    assert all(fold.temperature is not None for fold in chosen.folds)
    assert [fold.temperature for fold in predicted(*world(n_patients=2)).folds] == [None, None]
    assert predicted(x, label, patient, NeighbourProbe()).folds[0].temperature is None


def test_inner_rows_of_a_class_that_was_not_fitted_on_are_left_out():
    x, label, patient = world()
    alone = label.copy()
    alone[patient == 0] = 2  # one patient's class: the inner fold that holds it out was not fitted on it
    train = Part(x, alone, patient, 3, 4)
    folds = grouped_folds(patient, 4, alone)
    said = LinearProbe().predict(train, x)
    part = folds != folds[patient == 0][0]
    logits = []
    for fold in np.unique(folds[part]):
        fitted, asked = scaled(x[folds != fold], x[folds == fold])
        model = LogisticRegression(C=said.setting, class_weight="balanced", tol=1e-8, max_iter=9000)
        logits.append(model.fit(fitted, alone[folds != fold]).decision_function(asked))
    truth = np.concatenate([alone[folds == fold] for fold in np.unique(folds[part])])
    assert said.temperature == pytest.approx(fit_temperature(np.concatenate(logits), truth).t, rel=0.01)


def test_inner_folds_of_a_single_class_leave_no_temperature():
    x, _, patient = world(n_patients=2)
    said = LinearProbe().predict(Part(x, patient, patient, 2, 3), x)
    assert said.setting == C_GRID[0]
    assert said.temperature is None


def test_certainty_is_that_of_the_plain_measures(three_classes):
    found, outcome = certainty(three_classes, "e"), three_classes.outcomes["e"][0]
    p, truth = outcome.probabilities, three_classes.task.truth
    after = np.zeros_like(p)
    for f, fold in enumerate(outcome.folds):
        own = three_classes.task.fold == f
        raised = p[own] ** (1 / fold.temperature)
        after[own] = raised / raised.sum(axis=1, keepdims=True)
    assert found.ece == three_classes.figure("ece").value == pytest.approx(expected_calibration_error(p, truth))
    assert found.nll == pytest.approx(three_classes.figure("nll").value)
    assert found.ace == adaptive_calibration_error(p, truth)
    assert found.brier == brier(p, truth)
    assert found.ece_tempered == pytest.approx(expected_calibration_error(after, truth))
    assert found.nll_tempered == pytest.approx(-np.log(after[np.arange(len(p)), truth]).mean())
    assert found.temperature == pytest.approx(np.mean([fold.temperature for fold in outcome.folds]))
    bins = reliability(p, truth)
    assert found.bins.n.tolist() == bins.n.tolist()
    assert found.bins.accuracy == pytest.approx(bins.accuracy, nan_ok=True)
    first, second = (brier(one.probabilities, truth) for one in three_classes.outcomes["random"])
    assert certainty(three_classes, "random").brier == first != second


def test_certainty_of_four_rows_by_hand():
    p = np.array([[0.8, 0.2], [0.8, 0.2], [0.5, 0.5], [0.0, 1.0]])
    truth, fold = np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])
    found = certainty(judged(p, truth, (2.0, 0.01), fold), "e")
    assert found.brier == pytest.approx((2 * 0.04 + 2 * 0.64 + 0.5 + 0) / 4)
    assert found.nll == pytest.approx(-np.log([0.8, 0.2, 0.5, 1.0]).mean())
    # .8 twice and half right: gap .3 of 2 rows; .5 and right: .5; 1 and right: 0.
    assert found.ece == pytest.approx((2 * 0.3 + 0.5) / 4)
    assert (found.temperature, found.n_at_end) == (pytest.approx(1.005), 1)
    # At T = 2 the odds of 4 become 2; one half stays one half and 0 stays 0 at any T.
    assert found.nll_tempered == pytest.approx(-np.log([2 / 3, 1 / 3, 0.5, 1.0]).mean())
    assert found.ece_tempered == pytest.approx((2 * (2 / 3 - 0.5) + 0.5) / 4)
    partly = certainty(judged(p, truth, (2.0, None), fold), "e")
    assert (partly.temperature, partly.ece_tempered, partly.nll_tempered) == (None, None, None)
    assert partly.nll == found.nll


def test_a_true_class_of_probability_zero_costs_the_same_at_any_temperature():
    p = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = certainty(judged(p, np.array([1, 0]), (3.0, 3.0), np.array([0, 1])), "e")
    assert found.nll == found.nll_tempered == pytest.approx(36.0437, abs=1e-4)


def test_an_overfitted_probe_is_too_sure_and_its_temperature_mends_it(monkeypatch):
    monkeypatch.setattr("histokin.evaluate.probes.linear.C_GRID", (C_GRID[-1],) * 2)
    x, label, patient = world(n_each=30, width=40, signal=0.8)
    found = certainty(linear_probe(x, label, patient), "features")
    assert found.temperature > 1.5
    assert found.nll_tempered < found.nll - 0.1
    assert found.ece_tempered < found.ece - 0.03


def test_probes_without_probabilities_have_no_certainty():
    x, label, patient = world()
    margins = svm_probe(x, label, patient, probe=SVMProbe(c=1.0))
    assert certainty(margins, "features") is None
    values = ridge_probe(x, x[:, 0], patient)
    assert certainty(values, "features") is None
    assert confusion_counts(margins, "features").sum() == len(x)
    with pytest.raises(ValueError, match="ridge predicts values"):
        confusion_counts(values, "features")
    for ask in (certainty, confusion_counts):
        with pytest.raises(KeyError, match="no row 'e'; there are features"):
            ask(margins, "e")
    shares = certainty(knn_probe(x, label, patient), "features")
    assert (shares.temperature, shares.nll_tempered, shares.n_at_end) == (None, None, 0)


def test_confusions_are_those_of_scikit_learn_and_of_a_floors_first_member(three_classes):
    truth = three_classes.task.truth
    for name in ("e", "random"):
        found = confusion_counts(three_classes, name)
        assert found.dtype == np.int64
        assert (found == confusion_matrix(truth, three_classes.outcomes[name][0].predicted)).all()
    assert found.sum(axis=1).tolist() == np.bincount(truth).tolist()
    assert (found != confusion_matrix(truth, three_classes.outcomes["random"][1].predicted)).any()


def test_temperatures_are_stored_with_the_folds(three_classes):
    folds = json.loads(json.dumps(three_classes.to_json(), allow_nan=False))["folds"]["e"][0]
    assert [fold["temperature"] for fold in folds] == [f.temperature for f in three_classes.outcomes["e"][0].folds]
