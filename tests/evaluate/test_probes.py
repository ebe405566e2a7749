"""Probes against golden figures, slow fits and negative controls: shuffled groups, planted leaks, missing classes."""

import json
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from histokin.artefacts import plain
from histokin.errors import EvaluationError, StoreError
from histokin.evaluate import (
    LinearProbe,
    NeighbourProbe,
    RidgeProbe,
    Split,
    compare_probes,
    knn_probe,
    linear_probe,
    ridge_probe,
)
from histokin.evaluate.comparison import score_interval
from histokin.evaluate.intervals import patient_weights
from histokin.evaluate.probes.linear import C_GRID, fit, logistic, probabilities
from histokin.evaluate.probes.outcome import Part, class_task
from histokin.evaluate.probes.ridge import ALPHAS, _path
from histokin.evaluate.probes.run import run_probe, svm_probe
from histokin.evaluate.probes.svm import SVMProbe
from histokin.evaluate.vectors import scaled

GOLDEN = {case["id"]: case for case in json.loads(Path(__file__).with_name("golden_probes.json").read_text())["cases"]}


def world(n_patients=8, n_each=12, width=6, signal=1.5, seed=0):
    """Labels of both classes in every patient, patients with an offset of their own."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), n_each)
    label = np.tile(np.arange(n_each) % 2, n_patients)
    x = rng.normal(size=(len(label), width)) + 2 * rng.normal(size=(n_patients, width))[patient]
    x[:, 0] += signal * label
    return x, [f"c{one}" for one in label], [f"p{one}" for one in patient]


def test_golden_logistic_regression(f1):
    case = GOLDEN["logreg_F1"]
    is_train = f1.patient < 16
    train, test = scaled(f1.x[is_train], f1.x[~is_train])
    truth, asked = f1.label[is_train], f1.label[~is_train]
    for c in (0.01, 0.1, 1.0):
        model, expected = logistic(c, 600, is_balanced=False), case["expected"][f"C{c}"]
        assert fit(model, train, truth)
        proba = probabilities(model, test, truth, 4)
        objective = -np.log(model.predict_proba(train)[np.arange(160), truth]).sum() + (model.coef_**2).sum() / (2 * c)
        assert (proba.argmax(axis=1) == asked).mean() == pytest.approx(expected["acc"])
        assert proba[0] == pytest.approx(expected["proba_first"], abs=case["tol"])
        assert -np.log(proba[np.arange(80), asked]).mean() == pytest.approx(expected["nll"], abs=case["tol"])
        assert objective == pytest.approx(expected["train_objective"], rel=case["tol"])


def golden_split(f1):
    """The golden cases' split as one fold of a task: patients 16 to 23 held out."""
    groups = ["train" if p < 16 else "test" for p in f1.patient]
    return class_task([f"c{v}" for v in f1.label], groups, split=Split()), f1.patient >= 16


@pytest.mark.parametrize("k", [5, 10, 20])
def test_golden_neighbours(f1, k):
    expected = GOLDEN["knn_dino_F1"]["expected"][f"k{k}"]
    task, is_test = golden_split(f1)
    outcome = run_probe(f1.x, task, NeighbourProbe(k=k))
    said, truth = outcome.predicted[is_test], f1.label[is_test]
    assert (said == truth).mean() == pytest.approx(expected["acc"])
    recall = [(said[truth == c] == c).mean() for c in range(4)]
    assert np.mean(recall) == pytest.approx(expected["bal_acc"], abs=1e-7)
    assert outcome.probabilities[is_test][0] == pytest.approx(expected["proba_first"], abs=1e-7)


def test_golden_macro_area_through_the_whole_probe(f1):
    expected = GOLDEN["logreg_F1"]["expected"]["C0.1"]["macro_ovr_auc"]
    task, is_test = golden_split(f1)
    outcome = run_probe(f1.x, task, LinearProbe(c=0.1, is_balanced=False))
    from histokin.evaluate.probes.scores import macro_auc

    area = macro_auc(outcome.probabilities[is_test], f1.label[is_test], np.zeros(80, int), 1)
    assert area(np.ones((1, 1)))[0] == pytest.approx(expected, abs=5e-5)


def test_each_row_is_predicted_by_a_model_that_never_saw_its_group():
    x, label, patient = world()
    probed = linear_probe(x, label, patient, probe=LinearProbe(c=0.1))
    from sklearn.linear_model import LogisticRegression

    y, group = np.array(label), np.array(patient)
    for name in sorted(set(patient)):
        own = group == name
        mean, sd = x[~own].mean(axis=0), x[~own].std(axis=0)
        model = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8, max_iter=5000)
        proba = model.fit((x[~own] - mean) / sd, y[~own]).predict_proba((x[own] - mean) / sd)
        assert probed.outcomes["features"][0].probabilities[own] == pytest.approx(proba, abs=1e-4)
    assert [fold.held_out for fold in probed.outcomes["features"][0].folds] == [(f"p{i}",) for i in range(8)]


@pytest.mark.parametrize("shape", [(40, 5), (12, 30)])
def test_ridge_solves_its_normal_equations_in_both_shapes(shape):
    rng = np.random.default_rng(0)
    x, y, test = rng.normal(size=shape), rng.normal(size=shape[0]), rng.normal(size=(4, shape[1]))
    for alpha in (0.1, 10.0):
        xc, yc = x - x.mean(axis=0), y - y.mean()
        w = np.linalg.solve(xc.T @ xc + alpha * np.eye(shape[1]), xc.T @ yc)
        assert _path(x, y).predict(test, [alpha])[0] == pytest.approx((test - x.mean(axis=0)) @ w + y.mean())


@pytest.mark.parametrize("shape", [(20, 4), (9, 15)])
def test_left_out_errors_equal_fits_without_the_row(shape):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=shape), rng.normal(size=shape[0])
    for alpha in (0.5, 20.0):
        errors = [
            (y[i] - _path(np.delete(x, i, 0), np.delete(y, i)).predict(x[i : i + 1], [alpha])[0, 0]) ** 2
            for i in range(len(y))
        ]
        assert _path(x, y).left_out_errors([alpha])[0] == pytest.approx(np.mean(errors))


def test_a_dimension_that_does_not_vary_harms_nothing():
    x, label, patient = world()
    padded = np.hstack([x, np.full((len(x), 1), 7.0)])
    first, second = (linear_probe(v, label, patient, probe=LinearProbe(c=1.0)) for v in (x, padded))
    assert first.figure("accuracy").value == second.figure("accuracy").value
    values = x[:, 0] + x[:, 1]
    first, second = (ridge_probe(v, values, patient) for v in (x, padded))
    assert first.figure("r2").value == pytest.approx(second.figure("r2").value)


@pytest.mark.parametrize("probe", [LinearProbe(c=1.0), NeighbourProbe(k=5)])
def test_rows_in_another_order_give_the_same_figures(probe):
    x, label, patient = world()
    order = np.random.default_rng(5).permutation(len(x))
    first = compare_probes({"e": x}, label, patient, probe=probe)
    second = compare_probes({"e": x[order]}, [label[i] for i in order], [patient[i] for i in order], probe=probe)
    for one, other in zip(first.figures, second.figures, strict=True):
        assert one.value == pytest.approx(other.value, abs=2e-5)


def test_labels_of_the_held_out_part_choose_nothing():
    x, label, patient = world(n_patients=4, n_each=8)
    own = np.array(patient) == "p2"
    wrong = [("c1" if one == "c0" else "c0") if mine else one for one, mine in zip(label, own, strict=True)]
    first, second = (linear_probe(x, y, patient).outcomes["features"][0] for y in (label, wrong))
    assert first.folds[2] == second.folds[2]
    assert (first.probabilities[own] == second.probabilities[own]).all()
    values = x[:, 0] + np.random.default_rng(0).normal(size=len(x))
    moved = np.where(own, 100.0, values)
    first, second = (ridge_probe(x, y, patient).outcomes["features"][0] for y in (values, moved))
    assert first.folds[2] == second.folds[2]
    assert (first.predicted[own] == second.predicted[own]).all()


def test_c_is_chosen_among_the_grid_and_an_edge_is_told():
    x, label, patient = world(signal=6.0, n_patients=5)
    probed = linear_probe(x, label, patient)
    folds = probed.outcomes["features"][0].folds
    assert all(fold.setting in C_GRID for fold in folds)
    n_edge = sum(fold.setting in (C_GRID[0], C_GRID[-1]) for fold in folds)
    assert n_edge == sum(fold.is_at_edge for fold in folds)
    assert any("end of the grid" in said for said in probed.warnings) == (n_edge > 0)
    noise = np.random.default_rng(2).normal(size=(len(x), 40))
    values = noise[:, 0] * 0.1 + np.random.default_rng(3).normal(size=len(x))
    probed = ridge_probe(noise, values, patient, probe=RidgeProbe(alphas=(0.01, 0.1)))
    assert all(fold.is_at_edge for fold in probed.outcomes["features"][0].folds)


def test_two_groups_leave_nothing_to_choose_on_and_say_so():
    x, label, patient = world(n_patients=2)
    for probed in (linear_probe(x, label, patient), ridge_probe(x, x[:, 0], patient)):
        assert all(fold.is_unchosen for fold in probed.outcomes["features"][0].folds)
        assert any("single group" in said for said in probed.warnings)


def test_a_solver_that_stops_early_is_told(monkeypatch):
    monkeypatch.setattr("histokin.evaluate.probes.linear._MAX_ITER", 1)
    x, label, patient = world(n_patients=3)
    probed = linear_probe(x, label, patient, probe=LinearProbe(c=1.0))
    assert "features: 3 of 3 folds did not converge." in probed.warnings


def test_a_class_of_one_group_is_never_predicted_there_and_this_is_told():
    x, label, patient = world(n_patients=4)
    label = ["rare" if p == "p3" and i % 3 == 0 else one for i, (one, p) in enumerate(zip(label, patient, strict=True))]
    for probe in (LinearProbe(c=1.0), NeighbourProbe(k=3)):
        probed = compare_probes({"e": x}, label, patient, probe=probe)
        fold = probed.outcomes["e"][0].folds[3]
        assert fold.missing == ("rare",)
        rare = next(line for line in probed.per_class if line.label == "rare")
        assert (rare.recall, rare.n_rows, rare.n_clusters) == (0.0, 4, 1)
        assert any("With p3 held out no row of rare" in said for said in probed.warnings)


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_margins_claim_no_probabilities(kernel):
    x, label, patient = world(n_patients=5, signal=3.0)
    label = ["rare" if p == "p3" and i % 3 == 0 else one for i, (one, p) in enumerate(zip(label, patient, strict=True))]
    probed = svm_probe(x, label, patient, probe=SVMProbe(kernel=kernel, c=1.0, gamma=0.1 if kernel == "rbf" else None))
    assert [f.metric for f in probed.figures] == ["balanced_accuracy", "accuracy", "macro_f1", "macro_auc"]
    (outcome,) = probed.outcomes["features"]
    assert outcome.probabilities is None
    assert (outcome.predicted == outcome.margins.argmax(axis=1)).all()
    own = np.array(patient) == "p3"
    assert (outcome.margins[own, 2] == -np.inf).all()  # nobody else has it
    areas = [
        roc_auc_score([one == name for one in label], np.maximum(outcome.margins[:, code], -1e9))
        for code, name in enumerate(("c0", "c1", "rare"))
    ]
    assert probed.figure("macro_auc").value == pytest.approx(np.mean(areas))
    assert [line.auc for line in probed.per_class] == pytest.approx(areas)
    line = probed.prediction_rows("features")[0]
    assert line["margin c0"] == outcome.margins[0, 0]
    assert {fold.gamma for fold in outcome.folds} == {0.1 if kernel == "rbf" else None}
    assert json.dumps(probed.to_json())


def test_an_approximated_kernel_is_told(monkeypatch):
    monkeypatch.setattr("histokin.evaluate.probes.svm.MOST_EXACT", 20)
    x, label, patient = world(n_patients=4)
    probed = compare_probes({"e": x}, label, patient, probe=SVMProbe(kernel="rbf", c=1.0, gamma=0.1))
    assert any("e: 4 of 4 folds had more than 10000 rows to fit on, so the kernel" in said for said in probed.warnings)


def test_a_training_part_of_one_class_answers_with_it():
    x = np.random.default_rng(0).normal(size=(6, 2))
    probed = linear_probe(x, list("aaabbb"), list("pppqqq"))
    assert probed.outcomes["features"][0].probabilities.tolist() == [[0, 1]] * 3 + [[1, 0]] * 3
    assert probed.figure("balanced_accuracy").value == 0


def test_balanced_weights_give_the_rare_class_its_due():
    rng = np.random.default_rng(0)
    label = (np.arange(400) % 10 == 0).astype(int)
    x = rng.normal(size=(400, 1)) + label[:, None]
    groups = np.arange(400) // 100
    weighed, plain_fit = (
        linear_probe(x, label, groups, probe=LinearProbe(c=1.0, is_balanced=b)).figure("balanced_accuracy").value
        for b in (True, False)
    )
    assert weighed > plain_fit + 0.1


def test_labels_shuffled_between_groups_fall_to_chance():
    """Labels constant per patient and exchanged between patients, judged by the standard error of 30 exchanges.

    Below chance there is more room: a held-out patient's own class is the rarer one in what is left.
    """
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(12), 8)
    own = rng.permutation(np.arange(12) % 2)
    x = rng.normal(size=(96, 4)) + rng.normal(size=(12, 4))[patient]
    x[:, 0] += 3 * (2 * own[patient] - 1)
    for probe in (LinearProbe(c=0.1), NeighbourProbe(k=5)):

        def score(labels, how=probe):
            task = class_task(labels[patient], patient, split=Split(n_folds=4))
            said = run_probe(x, task, how).predicted
            return np.mean([(said[task.truth == c] == c).mean() for c in (0, 1)])

        assert score(own) > 0.8
        shuffled = [score(rng.permutation(own)) for _ in range(30)]
        error = np.std(shuffled) / np.sqrt(30)
        assert 0.5 - 4 * error - 1 / 11 < np.mean(shuffled) < 0.5 + 4 * error


def test_shuffled_values_are_not_predicted():
    x, _, patient = world(n_patients=6, n_each=20)
    values = x[:, 0] + 0.1 * np.random.default_rng(0).normal(size=len(x))
    assert ridge_probe(x, values, patient).figure("r2").value > 0.9
    rng = np.random.default_rng(1)
    found = [ridge_probe(x, rng.permutation(values), patient).figure("r2").value for _ in range(4)]
    assert max(found) < 0.1


@pytest.mark.parametrize("probe", [LinearProbe(c=10.0), NeighbourProbe(k=3)])
def test_a_group_id_in_the_features_is_no_use_unless_rows_are_left_out_alone(probe):
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(16), 6)
    label = (rng.permutation(16) % 2)[patient]
    x = 0.05 * rng.normal(size=(96, 16)) + np.eye(16)[patient]
    honest = compare_probes({"e": x}, label, patient, probe=probe).figure("balanced_accuracy").value
    leaky = compare_probes({"e": x}, label, np.arange(96), probe=probe, split=Split("tile", n_folds=6))
    assert leaky.figure("balanced_accuracy").value > 0.95
    assert honest < 0.7
    values = rng.normal(size=16)[patient]
    assert ridge_probe(x, values, np.arange(96), split=Split("tile", n_folds=6)).figure("r2").value > 0.9
    assert ridge_probe(x, values, patient).figure("r2").value < 0.1


def test_encoders_are_compared_on_the_same_draws():
    x, label, patient = world(n_patients=12, signal=3.0)
    blind = np.random.default_rng(9).normal(size=x.shape)
    probed = compare_probes({"good": x, "same": x.copy(), "blind": blind}, label, patient, probe=LinearProbe(c=1.0))
    same, lead = (probed.figure("balanced_accuracy", name).delta for name in ("same", "blind"))
    assert probed.figure("balanced_accuracy").delta is None
    assert (same.value, same.interval.low, same.interval.high) == (0, 0, 0)
    assert same.p == 1
    assert lead.interval.low > 0
    assert lead.p < 0.05
    assert lead.p_holm == pytest.approx(2 * lead.p)
    assert lead.value == pytest.approx(
        probed.figure("balanced_accuracy").value - probed.figure("balanced_accuracy", "blind").value
    )
    alone = linear_probe(x, label, patient, probe=LinearProbe(c=1.0))
    assert alone.figure("macro_auc").interval == probed.figure("macro_auc").interval


def test_a_floor_of_several_seeds_is_the_mean_of_its_members():
    x, label, patient = world()
    rng = np.random.default_rng(4)
    members = [rng.normal(size=x.shape) for _ in range(3)]
    probed = compare_probes({"e": x}, label, patient, probe=LinearProbe(c=1.0), floors={"random": members})
    alone = [linear_probe(m, label, patient, probe=LinearProbe(c=1.0)) for m in members]
    for metric in ("balanced_accuracy", "accuracy", "macro_f1", "macro_auc", "nll", "ece"):
        figure = probed.figure(metric, "random")
        assert figure.kind == "floor"
        assert figure.value == pytest.approx(np.mean([one.figure(metric).value for one in alone]))
    recalls = [line.recall for line in probed.per_class if line.name == "random"]
    of_members = np.mean([[line.recall for line in one.per_class] for one in alone], axis=0)
    assert recalls == pytest.approx(of_members)
    assert len(probed.outcomes["random"]) == 3


def test_intervals_resample_the_clusters_given():
    x, label, patient = world(n_patients=4)
    block = [f"{p}-{i % 3}" for i, p in enumerate(patient)]
    probed = linear_probe(x, label, patient, probe=LinearProbe(c=1.0), clusters=block, cluster="block")
    interval = probed.figure("balanced_accuracy").interval
    assert (interval.cluster, interval.n_clusters) == ("block", 12)
    alone = linear_probe(x, label, patient, probe=LinearProbe(c=1.0)).figure("balanced_accuracy").interval
    assert str(alone) == "n/a (4 patients)"


def constant_world(classes, n_each=6, seed=0):
    """Patients of one class each."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(len(classes)), n_each)
    label = np.array(classes)[patient]
    return rng.normal(size=(len(patient), 4)) + 0.5 * label[:, None], label, [f"p{one:02d}" for one in patient]


def test_patients_of_one_class_each_are_resampled_within_classes_for_figures_and_differences():
    x, label, patient = constant_world([0] * 9 + [1] * 3)
    probed = compare_probes({"e": x, "half": x[:, :2]}, label, patient, probe=NeighbourProbe(k=5))
    assert probed.protocol["resampled"] == "patients within classes"
    weights = patient_weights(12, strata=np.array([0] * 9 + [1] * 3))
    drawn = []
    for name in ("e", "half"):
        predicted = probed.outcomes[name][0].predicted
        hits = np.array([(predicted == label)[6 * p : 6 * p + 6].mean() for p in range(12)])
        drawn.append(((weights * hits)[:, :9].sum(axis=1) / 9 + (weights * hits)[:, 9:].sum(axis=1) / 3) / 2)
    delta = probed.figure("balanced_accuracy", "half").delta
    expected = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    assert (delta.interval.low, delta.interval.high) == pytest.approx(tuple(expected))
    again = next(f for f in probed.against("half") if (f.name, f.metric) == ("e", "balanced_accuracy"))
    assert (again.delta.interval.low, again.delta.interval.high) == pytest.approx((-expected[1], -expected[0]))
    # Of 12 patients drawn from all, (9/12)^12 = 3 % lack the class of three.
    assert not any("draws left out" in figure.interval.note for figure in probed.figures)


def test_patients_of_several_classes_are_resampled_as_they_are():
    x, label, patient = world(n_patients=6)
    probed = knn_probe(x, label, patient)
    assert probed.protocol["resampled"] == "patients"
    (score,) = (one for one in probed.scored[0].scores if one.metric == "macro_f1")
    assert probed.figure("macro_f1").interval == score_interval(score, patient_weights(6), cluster="patient")
    assert ridge_probe(x, x[:, 0], patient).protocol["resampled"] == "patients"
    blocks = [f"{p}{one}" for p, one in zip(patient, label, strict=True)]
    finer = knn_probe(x, label, patient, clusters=blocks, cluster="block")
    assert finer.protocol["resampled"] == "blocks within classes"


def test_a_class_of_a_single_patient_never_varies_and_this_is_told():
    x, label, patient = constant_world([0, 0, 0, 1, 1, 1, 2])
    probed = knn_probe(x, label, patient)
    assert (
        "A single patient has 2: drawn within its class it never varies, so bootstrap intervals are too narrow."
        in probed.warnings
    )
    assert not any("single patient" in said for said in knn_probe(x[:36], label[:36], patient[:36]).warnings)
    alone = knn_probe(*constant_world([0, 1, 2, 3, 4]))
    assert alone.protocol["resampled"] == "patients"


def test_rows_without_a_target_are_set_aside_and_counted():
    x, label, patient = world()
    label[0], label[5] = "", None
    x[0] = np.nan  # not looked at
    probed = linear_probe(x, label, patient, probe=LinearProbe(c=1.0))
    assert probed.task.rows.tolist() == [i for i in range(96) if i not in (0, 5)]
    assert probed.protocol["n_unlabelled"] == 2
    assert "2 rows without a target were set aside." in probed.warnings
    values = [None, "", float("nan"), *x[3:, 0]]
    assert len(ridge_probe(np.nan_to_num(x), values, patient).task) == 93


def test_floors_of_neighbours_are_scaled_as_documented():
    x, label, patient = world()
    x[:, 1] += 1000  # all cosines are 1 unless it is centred
    probed = compare_probes({"e": x}, label, patient, probe=NeighbourProbe(k=5), floors={"colour": x, "histogram": x})
    alone = {b: knn_probe(x, label, patient, probe=NeighbourProbe(k=5, is_standardised=b)) for b in (True, False)}
    for name, is_standardised in (("colour", True), ("histogram", False)):
        assert (probed.outcomes[name][0].predicted == alone[is_standardised].outcomes["features"][0].predicted).all()
    asked = NeighbourProbe(
        k=5, is_standardised=True
    )  # for all: a floor of networks must not lack what its encoder gets
    fair = compare_probes({"e": x}, label, patient, probe=asked, floors={"random": x})
    assert (fair.outcomes["random"][0].predicted == fair.outcomes["e"][0].predicted).all()
    assert (probed.outcomes["colour"][0].predicted != probed.outcomes["histogram"][0].predicted).any()


def test_a_cold_vote_takes_the_nearest_and_more_neighbours_than_rows_are_all_of_them():
    x = np.array([[1.0, 0], [0.9, 0.1], [0, 1], [1, 0.05], [0.1, 1], [0.2, 1]])
    label, patient = list("aabaab"), list("pppqqq")
    cold = knn_probe(x, label, patient, probe=NeighbourProbe(k=3, temperature=1e-4))
    assert [cold.task.classes[c] for c in cold.outcomes["features"][0].predicted[3:]] == ["a", "b", "b"]
    many = knn_probe(x, label, patient, probe=NeighbourProbe(k=50, temperature=1e6))
    assert {fold.setting for fold in many.outcomes["features"][0].folds} == {3.0}
    assert many.outcomes["features"][0].probabilities[:3, 0] == pytest.approx([2 / 3] * 3, abs=1e-5)


def test_a_tied_vote_goes_to_the_lower_class():
    x = np.array([[1.0, 0], [1, 0], [1, 0], [2, 0]])
    probed = knn_probe(x, list("baba"), list("ppqq"), probe=NeighbourProbe(k=2))
    assert probed.outcomes["features"][0].predicted.tolist() == [0, 0, 0, 0]


def test_results_are_plain_data():
    x, label, patient = world(n_patients=5)
    probed = compare_probes({"e": x}, label, patient, probe=LinearProbe(c=1.0), floors={"colour": x[:, :3]})
    text = json.dumps(probed.to_json(), allow_nan=False)
    assert {"balanced_accuracy", "macro_auc"} <= {figure["metric"] for figure in json.loads(text)["figures"]}
    assert probed.protocol["settings"] == {"c": 1.0, "is_balanced": True}
    json.dumps(plain(asdict(probed.outcomes["e"][0])), allow_nan=False)
    rows = probed.prediction_rows("colour")
    assert len(rows) == 60
    assert rows[0]["p c0"] + rows[0]["p c1"] == pytest.approx(1)
    assert (rows[0]["group"], rows[0]["truth"]) == ("p0", "c0")
    values = ridge_probe(x, x[:, 0], patient)
    json.dumps(values.to_json(), allow_nan=False)
    assert set(values.prediction_rows("features")[0]) >= {"truth", "predicted", "fold"}


@pytest.mark.parametrize(
    ("labels", "groups", "message"),
    [
        (["a", "a", "a"], ["p", "q", "q"], "all labelled rows are 'a'"),
        (["", None, ""], ["p", "q", "q"], "not one row carries a label"),
        (["a", "b", "a"], ["p", "p", "p"], "all labelled rows belong to one patient"),
        (["a", "b", "a"], ["p", "", "q"], "1 of 3 labelled rows have no patient"),
    ],
)
def test_what_cannot_be_probed_is_refused_with_its_reason(labels, groups, message):
    with pytest.raises(EvaluationError, match=message):
        linear_probe(np.eye(3), labels, groups)


def test_values_that_do_not_differ_are_refused():
    with pytest.raises(EvaluationError, match="all 3 values are alike"):
        ridge_probe(np.eye(3), [1.0, 1, 1], list("pqr"))
    with pytest.raises(EvaluationError, match="not one row carries a value"):
        ridge_probe(np.eye(3), [None, "", np.nan], list("pqr"))


def test_wrong_arguments_are_refused():
    x, label, patient = world(n_patients=3)
    x[4, 1] = np.inf
    with pytest.raises(StoreError, match="features, row 4: the vector holds values that are not finite"):
        linear_probe(x, label, patient)
    with pytest.raises(ValueError, match="e has 35 rows for 36 labels"):
        compare_probes({"e": x[1:]}, label, patient)
    with pytest.raises(ValueError, match="the patient column has 3 rows for 36 labels"):
        linear_probe(x, label, patient[:3])
    with pytest.raises(ValueError, match="reference 'f' is none of the encoders e"):
        compare_probes({"e": x}, label, patient, reference="f")
    with pytest.raises(ValueError, match="e is both an encoder and a floor"):
        compare_probes({"e": x}, label, patient, floors={"e": x})
    with pytest.raises(ValueError, match="`within` is ridge's"):
        compare_probes({"e": x}, label, patient, within=patient)
    with pytest.raises(EvaluationError, match="there is no encoder"):
        compare_probes({}, label, patient)
    for wrong in (lambda: LinearProbe(c=0), lambda: NeighbourProbe(k=0), lambda: RidgeProbe(alphas=())):
        with pytest.raises(ValueError, match=r"must be > 0|need k >= 1"):
            wrong()
    with pytest.raises(KeyError, match="no figure r2 of features"):
        knn_probe(np.nan_to_num(x, posinf=0), label, patient).figure("r2")


def test_importing_the_room_does_not_load_scikit_learn():
    code = (
        "import sys, histokin, histokin.evaluate; raise SystemExit('sklearn' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_part_knows_nothing_of_the_rows_held_out():
    assert {field.name for field in fields(Part)} == {"x", "truth", "groups", "n_classes", "n_inner"}


def test_ties_take_the_stronger_regularisation():
    """Features that do not vary: all settings are equally good."""
    x, (_, label, patient) = np.ones((96, 3)), world()
    assert {fold.setting for fold in linear_probe(x, label, patient).outcomes["features"][0].folds} == {C_GRID[0]}
    values = np.random.default_rng(0).normal(size=96)
    assert {fold.setting for fold in ridge_probe(x, values, patient).outcomes["features"][0].folds} == {ALPHAS[-1]}


def test_c_is_chosen_on_a_part_of_many_rows_as_on_all(monkeypatch):
    x, label, patient = world(n_patients=12, n_each=40, signal=1.0)
    whole = linear_probe(x, label, patient)
    monkeypatch.setattr("histokin.evaluate.probes.choosing.MOST_CHOSEN_ON", 240)
    part = linear_probe(x, label, patient)
    assert part.figure("balanced_accuracy").value == pytest.approx(whole.figure("balanced_accuracy").value, abs=0.03)
    fitted_on_all = [fold.n_train for fold in part.outcomes["features"][0].folds]
    assert fitted_on_all == [fold.n_train for fold in whole.outcomes["features"][0].folds]
