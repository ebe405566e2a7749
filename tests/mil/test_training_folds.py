"""Cross-validation: folds judge, inner folds choose, and no test label reaches what is chosen."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mil.mil_worlds import CLASSES, bytes_below, planted, task_of
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from histokin.errors import EvaluationError, TrainingError
from histokin.evaluate.calibration import fit_temperature
from histokin.evaluate.splits import SplitTable, inner_folds, leave_one_out, splits_from_csv
from histokin.mil.reading import BagSource
from histokin.mil.training import CrossValidated, MilSpec, MilTask, Targets, cross_validate, fit_ensemble, read_ensemble
from histokin.mil.training import ensembles as training_ensembles
from histokin.mil.training.ensembles import balancing_threshold
from histokin.mil.training.floors import floor_features, floor_predictions

SPEC = MilSpec(
    options={"hidden": (8,), "attention": 4, "dropout": 0.1},
    lr=2e-2,
    epochs=6,
    patience=3,
    min_epochs=2,
    n_seeds=2,
    n_folds=3,
    n_inner=2,
)
N = 36


def a_task() -> MilTask:
    bags, truth, _ = planted(N, n_tiles=8, n_planted=2, shift=1.5)
    return task_of(bags, truth, slides_a_patient=2, n_sites=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[CrossValidated, Path]:
    folder = tmp_path_factory.mktemp("run")
    return cross_validate(a_task(), SPEC, folder), folder


def test_every_slide_is_told_once_by_models_that_never_saw_its_patient(run: tuple[CrossValidated, Path]) -> None:
    found, folder = run
    task = found.task
    assert sorted(found.rows.tolist()) == list(range(N))
    assert found.members.shape == (4, N, 2)
    for place, (repeat, fold) in enumerate(found.outer.folds):
        tested = {task.items.patient[row] for row in found.rows[found.places == place]}
        inner = splits_from_csv((folder / f"fold-{repeat}-{fold}" / "inner-splits.csv").read_text())
        assert not tested & set(inner.patient)
        for one in inner.folds:
            parts = [set(inner.patient[inner.rows(*one, part)]) for part in ("train", "val")]
            assert not parts[0] & parts[1]
            assert len(parts[0] | parts[1]) == len(set(task.items.patient)) - len(tested)


def test_the_ensemble_is_the_mean_of_softmax_at_the_inner_validations_temperature(
    run: tuple[CrossValidated, Path],
) -> None:
    found, _ = run
    task = found.task
    for place, ensemble in enumerate(found.ensembles.values()):
        inner = splits_from_csv((ensemble.folder / "inner-splits.csv").read_text())
        logits, truth, told = [], [], []
        own = found.rows[found.places == place]
        for number, name in enumerate(ensemble.members):
            member = ensemble.member(number)
            val = set(inner.item[inner.rows(0, int(name[5]), "val")])
            rows = [row for row in range(N) if task.items.item[row] in val]
            logits.append(member.val_logits.numpy())
            truth += [task.targets.values[row] for row in rows]
            bags = [task.source.numbers([task.items.slide[row]])[0] for row in own]
            z = training_ensembles.logits_of(member.model, task.source, np.array(bags)).double()
            told.append((z / ensemble.temperature).softmax(1).numpy())
        fitted = fit_temperature(np.concatenate(logits), np.array(truth))
        assert ensemble.temperature == pytest.approx(1.0 if fitted.is_at_end else fitted.t)
        assert np.allclose(found.told[found.places == place], np.mean(told, axis=0), atol=1e-6)


def test_random_test_labels_change_no_byte_of_what_is_trained_and_chosen(
    run: tuple[CrossValidated, Path], tmp_path: Path
) -> None:
    found, folder = run
    task, outer = found.task, found.outer
    tested = found.rows[found.places == 0]
    labels = task.items.label.copy()
    labels[tested] = [CLASSES[int(place > 0)] for place in range(len(tested))]  # other shares of the classes, too
    other = MilTask.of(
        task.source,
        task.items.slide.tolist(),
        Targets.of_classes(labels.tolist(), CLASSES),
        patients=task.items.patient.tolist(),
        sites=task.items.site.tolist(),
    )
    part = np.full(N, "train", dtype=object)
    part[tested] = "test"
    same_split = SplitTable.of_parts(other.items, {outer.folds[0]: part})
    random = cross_validate(other, SPEC, tmp_path, outer=same_split)
    first, second = bytes_below(folder / "fold-0-0"), bytes_below(tmp_path / "fold-0-0")
    assert first.keys() == second.keys()
    assert all(first[name] == second[name] for name in first)
    # They do reach the figures; the one negative slide shares its patient with a positive one.
    assert any("no judged patient is none" in warning for warning in random.warnings)
    assert random.patients == ()
    assert random.slides[3].value == pytest.approx(roc_auc_score(other.targets.values[random.rows], random.told[:, 1]))


def test_a_killed_run_goes_on_where_it_was_and_ends_in_the_same_bytes(
    run: tuple[CrossValidated, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = run
    fit, n_fitted = training_ensembles.fit, 0

    def counting(*args, **settings):
        nonlocal n_fitted
        if n_fitted == 5:
            raise KeyboardInterrupt
        n_fitted += 1
        return fit(*args, **settings)

    monkeypatch.setattr(training_ensembles, "fit", counting)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(a_task(), SPEC, tmp_path)
    n_fitted = -7  # twelve models in all, five are there
    cross_validate(a_task(), SPEC, tmp_path)
    assert n_fitted == 0
    assert bytes_below(tmp_path) == bytes_below(folder)


def test_a_changed_setting_trains_anew_and_the_old_one_gives_the_old_bytes(tmp_path: Path) -> None:
    task = a_task()
    (inner,) = inner_folds(SplitTable.of_parts(task.items, {(0, 0): np.full(N, "train", dtype=object)}), 2)
    spec = replace(SPEC, epochs=1, patience=None, n_seeds=1)
    fit_ensemble(task, inner, spec, tmp_path)
    first = bytes_below(tmp_path)
    fit_ensemble(task, inner, replace(spec, weight_decay=0.5), tmp_path)
    changed = bytes_below(tmp_path)
    assert all(first[name] != changed[name] for name in ("inner0-seed0.safetensors", "inner1-seed0.safetensors"))
    fit_ensemble(task, inner, spec, tmp_path)
    assert bytes_below(tmp_path) == first


def test_figures_are_those_of_scikit_learn(run: tuple[CrossValidated, Path]) -> None:
    found, _ = run
    truth = found.task.targets.values[found.rows]
    of = {figure.metric: figure for figure in found.slides if figure.name == "ensemble"}
    assert of["macro_auc"].value == pytest.approx(roc_auc_score(truth, found.told[:, 1]))
    assert of["accuracy"].value == pytest.approx((found.told.argmax(axis=1) == truth).mean())
    assert of["macro_auc"].interval.low < of["macro_auc"].value < of["macro_auc"].interval.high
    assert of["macro_auc"].interval.n_clusters == 18
    single = [roc_auc_score(truth, one[:, 1]) for one in found.members]
    spread = next(one for one in found.spread if one.metric == "macro_auc")
    assert (spread.mean, spread.sd, spread.n) == pytest.approx((np.mean(single), np.std(single, ddof=1), 4))


def test_a_patient_is_the_mean_of_its_slides(run: tuple[CrossValidated, Path]) -> None:
    found, folder = run
    patients = pq.read_table(folder / "patients.parquet").to_pylist()
    assert len(patients) == 18
    for row in patients:
        own = [place for place, at in enumerate(found.rows) if found.task.items.patient[at] == row["patient"]]
        assert len(own) == 2
        assert row["told_some"] == pytest.approx(found.told[own, 1].mean())
    by_hand = roc_auc_score([row["truth"] == "some" for row in patients], [row["told_some"] for row in patients])
    assert found.patients[3].value == pytest.approx(by_hand)


def test_tables_say_the_same_as_csv_and_parquet(run: tuple[CrossValidated, Path]) -> None:
    found, folder = run
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    texts = list(csv.DictReader((folder / "predictions.csv").read_text().splitlines()))
    assert [row["slide"] for row in rows] == found.task.items.slide[found.rows].tolist()
    for row, text in zip(rows, texts, strict=True):
        assert float(text["told_some"]) == row["told_some"]
        assert {name: str(value) for name, value in row.items()} == text
        assert row["predicted"] == CLASSES[int(row["told_some"] > row["told_none"])]
    document = json.loads((folder / "result.json").read_text())
    assert document["n_patients"] == 18
    assert len(document["chosen"]) == 3
    assert all(len(one["epochs"]) == 4 for one in document["chosen"])


def test_floors_are_fitted_on_the_same_folds(run: tuple[CrossValidated, Path]) -> None:
    found, _ = run
    names = {figure.name for figure in found.slides}
    assert names == {"ensemble", "bag size", "mean + logistic", "min-max + logistic", "site"}
    features = floor_features(found.task)
    mean = features["mean + logistic"]
    by_hand = np.array([bag.mean(axis=0) for bag in planted(N, n_tiles=8, n_planted=2, shift=1.5)[0]])
    assert np.allclose(mean, by_hand, atol=1e-6)
    told = floor_predictions({"mean + logistic": mean}, found.task, found.outer, n_inner=2)["mean + logistic"]
    # The regularisation is chosen inside; of the grid one choice must reproduce the first fold.
    tested = found.rows[found.places == 0]
    train = np.setdiff1d(np.arange(N), tested)
    scale = mean[train].mean(axis=0), mean[train].std(axis=0)
    x, asked = (mean[train] - scale[0]) / scale[1], (mean[tested] - scale[0]) / scale[1]
    candidates = [
        LogisticRegression(C=10.0**e, class_weight="balanced", max_iter=5000, tol=1e-8)
        .fit(x, found.task.targets.values[train])
        .predict_proba(asked)
        for e in range(-4, 3)
    ]
    assert min(np.abs(told[: len(tested)] - one).max() for one in candidates) < 1e-3


def test_the_same_tile_in_slides_of_two_parts_is_refused_and_within_a_patient_is_not(tmp_path: Path) -> None:
    bags, truth, _ = planted(N, n_tiles=8)
    bags[7][0] = bags[4][1]
    task = task_of(bags, truth)
    with pytest.raises(TrainingError, match=r"1 pairs of slides.*s004 and s007 \(1\)"):
        cross_validate(task, SPEC, tmp_path)
    bags, truth, _ = planted(N, n_tiles=8)
    bags[6][0] = bags[4][1]  # s004 and s006 are of one patient
    spec = replace(SPEC, epochs=1, patience=None, n_seeds=1)
    assert len(cross_validate(task_of(bags, truth, slides_a_patient=2), spec, tmp_path, with_floors=False).rows) == N


def test_a_patient_in_two_parts_is_refused(tmp_path: Path) -> None:
    task = a_task()
    part = np.array(["train", "test"] * (N // 4) + ["train"] * (N // 2), dtype=object)
    part[2] = "test"  # of one patient with s000
    with pytest.raises(EvaluationError, match="patients stand in two parts"):
        cross_validate(task, SPEC, tmp_path, outer=SplitTable.of_parts(task.items, {(0, 0): part}))


def test_a_slide_with_two_labels_is_refused_by_name() -> None:
    bags, _, _ = planted(4)
    source = BagSource.of_arrays(bags, ["a", "b", "c", "d"])
    with pytest.raises(TrainingError, match="slide b has 2 labels: none, some"):
        MilTask.of(source, ["a", "b", "b"], Targets.of_classes(["none", "none", "some"], CLASSES))
    with pytest.raises(TrainingError, match="slide b stands there twice"):
        MilTask.of(source, ["a", "b", "b"], Targets.of_classes(["some", "none", "none"], CLASSES))


def test_shuffled_labels_are_at_chance(tmp_path: Path) -> None:
    bags, truth, _ = planted(60, n_tiles=6, n_planted=3)
    shuffled = np.random.default_rng(3).permutation(truth)
    spec = replace(SPEC, epochs=4, patience=2, n_seeds=1, n_folds=3)
    names = [f"s{number}" for number in range(60)]
    task = MilTask.of(
        BagSource.of_arrays(bags, names), names, Targets.of_classes([CLASSES[code] for code in shuffled], CLASSES)
    )
    found = cross_validate(task, spec, tmp_path, with_floors=False)
    auc = next(figure for figure in found.slides if figure.metric == "macro_auc")
    assert auc.interval.low < 0.5 < auc.interval.high


def test_a_threshold_balances_the_recalls_as_well_as_any_does() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 5, 40):
        p, positive = np.round(rng.random(n), 1), np.arange(n) % 2 == 0
        t = balancing_threshold(p, positive)

        def score(t: float, p: np.ndarray = p, positive: np.ndarray = positive) -> float:
            return float((p >= t)[positive].mean() + (p < t)[~positive].mean())

        assert score(t) == pytest.approx(max(score(x) for x in np.linspace(-0.01, 1.01, 103)))


def test_logits_that_are_always_right_are_left_uncalibrated_and_said_to_be(tmp_path: Path) -> None:
    bags, truth, _ = planted(24, n_tiles=4, n_planted=9, shift=8.0)
    bags = [bag - 4 for bag in bags]  # on both sides of 0
    spec = replace(SPEC, model="mean", options={}, lr=0.1, batch=4, epochs=10, patience=None, n_seeds=1)
    found = cross_validate(task_of(bags, truth), spec, tmp_path, with_floors=False)
    assert [one.temperature for one in found.ensembles.values()] == [1.0] * 3
    assert all("not calibrated" in warning for warning in found.warnings)


def test_folds_given_by_site_hold_whole_sites_out(tmp_path: Path) -> None:
    task = a_task()
    spec = replace(SPEC, epochs=1, patience=None, n_seeds=1)
    found = cross_validate(task, spec, tmp_path, outer=leave_one_out(task.items, "site"), with_floors=False)
    assert sorted(found.rows.tolist()) == list(range(N))
    for place in range(3):
        assert len(set(task.items.site[found.rows[found.places == place]])) == 1
    assert json.loads((tmp_path / "result.json").read_text())["split"]["unit"] == "site"


def test_two_stage_models_are_cross_validated_like_others(tmp_path: Path) -> None:
    spec = replace(SPEC, model="mil_rnn", options={"steps": 3, "state": 4}, epochs=2, patience=None, n_seeds=1)
    found = cross_validate(a_task(), spec, tmp_path, with_floors=False)
    assert np.isfinite(found.told).all()
    assert torch.equal(
        found.ensembles[0, 0].member(0).model.state_dict()["tile_head.1.weight"],
        read_ensemble(tmp_path / "fold-0-0").member(0).model.state_dict()["tile_head.1.weight"],
    )
