"""Probes under given splits against scikit-learn split by split, the corrected t by hand, and planted leaks."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from histokin.errors import EvaluationError, StoreError
from histokin.evaluate import LinearProbe, NeighbourProbe, RidgeProbe, SVMProbe
from histokin.evaluate.probes.given import METRICS, probe_splits
from histokin.evaluate.probes.outcome import Part
from histokin.evaluate.splits import (
    ClamSplit,
    SplitItems,
    SplitTable,
    import_clam_splits,
    leave_one_out,
    monte_carlo,
    splits_csv,
    splits_from_csv,
    stratified_folds,
)
from histokin.evaluate.vectors import scaled

FIXED = LinearProbe(c=0.1)


def world(n_patients=18, n_slides=2, n_classes=3, signal=1.0, seed=0):
    """Slides of patients, each of one class, with an offset of the patient's own; features by two encoders."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), n_slides)
    label = patient % n_classes
    items = SplitItems.of(
        slide=[f"s{i:03d}" for i in range(len(patient))],
        patient=[f"p{one:02d}" for one in patient],
        label=[f"c{one}" for one in label],
    )
    x = rng.normal(size=(len(patient), 5)) + rng.normal(size=(n_patients, 5))[patient]
    x[np.arange(len(patient)), label] += signal
    noisy = x + 1.5 * rng.normal(size=x.shape)
    return items, {"good": x, "noisy": noisy}


def probed(items, encoders, table, **settings):
    return probe_splits(encoders, items.label, table, items=items.item, **{"probe": FIXED} | settings)


def told_by(found, name, metric):
    return next(one for one in found.scores if (one.name, one.metric) == (name, metric))


def rows_of(items, table, key, *parts):
    chosen = set().union(*(table.item[table.rows(*key, part)] for part in parts))
    return np.array([item in chosen for item in items.item])


def expected_scores(truth, said, proba):
    classes = np.unique(truth)
    return {
        "balanced_accuracy": balanced_accuracy_score(truth, said),
        "accuracy": accuracy_score(truth, said),
        "macro_f1": f1_score(truth, said, labels=classes, average="macro"),
        "macro_auc": roc_auc_score(truth, proba, multi_class="ovr", average="macro"),
    }


@pytest.mark.parametrize("val_share", [0.0, 0.3])
def test_every_split_is_scikit_learns_fit_on_train_and_validation_part(val_share):
    items, encoders = world()
    table = monte_carlo(items, 6, test_share=0.3, val_share=val_share, seed=1)
    found = probed(items, encoders, table)
    for name, x in encoders.items():
        values = []
        for key in table.folds:
            train, test = (rows_of(items, table, key, *parts) for parts in (("train", "val"), ("test",)))
            assert (train | test).all()
            mean, sd = x[train].mean(axis=0), x[train].std(axis=0)
            model = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8, max_iter=5000)
            model.fit((x[train] - mean) / sd, items.label[train])
            asked = (x[test] - mean) / sd
            values.append(expected_scores(items.label[test], model.predict(asked), model.predict_proba(asked)))
        for metric in METRICS:
            told, slow = told_by(found, name, metric), [one[metric] for one in values]
            assert told.values == pytest.approx(slow, abs=1e-9)
            assert told.mean == found.figure(metric, name).value == pytest.approx(np.mean(slow))
            assert told.sd == pytest.approx(np.std(slow, ddof=1))
    assert found.protocol["n_train"] == 12
    assert found.protocol["n_test"] == 6


def test_neighbours_vote_among_the_training_part_alone():
    items, encoders = world(seed=3)
    table = stratified_folds(items, 3)
    found = probed(items, encoders, table, probe=NeighbourProbe(k=5))
    unit = encoders["good"] / np.linalg.norm(encoders["good"], axis=1, keepdims=True)
    for key, got in zip(table.folds, told_by(found, "good", "accuracy").values, strict=True):
        train, test = (rows_of(items, table, key, part) for part in ("train", "test"))
        near = NearestNeighbors(n_neighbors=5).fit(unit[train]).kneighbors(unit[test])[1]
        cosines = np.take_along_axis(unit[test] @ unit[train].T, near, axis=1)
        votes = [
            [np.exp(c[items.label[train][n] == label] / 0.07).sum() for label in ("c0", "c1", "c2")]
            for c, n in zip(cosines, near, strict=True)
        ]
        said = np.array(["c0", "c1", "c2"])[np.argmax(votes, axis=1)]
        assert got == pytest.approx((said == items.label[test]).mean())


def test_the_lead_is_the_corrected_t_of_the_splits_with_holm_over_the_rows():
    items, encoders = world()
    encoders["third"] = encoders["noisy"] + np.random.default_rng(9).normal(size=encoders["noisy"].shape)
    table = monte_carlo(items, 8, test_share=0.34, seed=2)
    found = probed(items, encoders, table)
    reversed_found = found.against("noisy")
    for metric in ("accuracy", "macro_auc"):
        p = {}
        for name in ("noisy", "third"):
            d = np.subtract(told_by(found, "good", metric).values, told_by(found, name, metric).values)
            se = math.sqrt((1 / 8 + found.protocol["n_test"] / found.protocol["n_train"]) * d.var(ddof=1))
            delta = found.figure(metric, name).delta
            p[name] = 2 * student.sf(abs(d.mean() / se), 7)
            assert delta.value == pytest.approx(d.mean())
            assert delta.p == pytest.approx(p[name])
            ends = student.interval(0.95, 7, d.mean(), se)
            assert (delta.interval.low, delta.interval.high) == pytest.approx(ends)
            assert (delta.interval.method, delta.interval.n_clusters) == ("corrected-t", 8)
        low, high = sorted(p.values())
        adjusted = sorted(found.figure(metric, name).delta.p_holm for name in p)
        assert adjusted == pytest.approx([min(1, 2 * low), min(1, max(2 * low, high))])
        back = next(one for one in reversed_found if (one.name, one.metric) == ("good", metric))
        assert back.delta.value == -found.figure(metric, "noisy").delta.value
        assert back.delta.p == found.figure(metric, "noisy").delta.p
    assert found.figure("accuracy").delta is None
    assert [(one.name, one.metric) for one in found.figures] == [(name, m) for name in encoders for m in METRICS]
    with pytest.raises(KeyError, match="no row 'fourth'; there are good, noisy, third"):
        found.against("fourth")


def test_sizes_are_patients_of_the_splits_that_define_the_metric():
    items, encoders = world(n_patients=9, n_classes=3)
    parts = {
        (0, 0): {"p00": "test", "p01": "test", "p02": "test"},  # all classes
        (1, 0): {"p03": "test", "p04": "test", "p05": "test", "p06": "test"},
        (2, 0): {"p00": "test", "p03": "test"},  # one class: no area
    }
    columns = {key: np.array([own.get(p, "train") for p in items.patient], object) for key, own in parts.items()}
    found = probed(items, encoders, SplitTable.of_parts(items, columns))
    area = found.figure("macro_auc", "noisy")
    values = {name: told_by(found, name, "macro_auc").values for name in encoders}
    assert [math.isnan(value) for value in values["good"]] == [False, False, True]
    d = np.subtract(values["good"], values["noisy"])[:2]
    se = math.sqrt((1 / 2 + 3.5 / 5.5) * d.var(ddof=1))
    assert area.delta.p == pytest.approx(2 * student.sf(abs(d.mean() / se), 1))
    assert area.value == pytest.approx(np.mean(values["noisy"][:2]))
    assert area.interval.n_clusters == 2
    assert "In 1 of 3 splits no row of c1 is tested, so macro_auc is undefined." in found.warnings


def test_no_interval_is_made_of_the_spread():
    items, encoders = world()
    found = probed(items, encoders, stratified_folds(items, 3))
    for figure in found.figures:
        assert math.isnan(figure.interval.low)
        assert str(figure.interval) == "n/a (no interval: 3 splits of the same patients)"
    assert found.protocol["spread"] == "sd over splits (ddof 1), neither standard error nor interval"
    single = probed(items, encoders, leave_two(items))
    delta = single.figure("accuracy", "noisy").delta
    first, second = (told_by(single, name, "accuracy").values[0] for name in ("good", "noisy"))
    assert delta.value == first - second
    assert math.isnan(delta.p)
    assert delta.interval.note == "1 split"
    assert math.isnan(told_by(single, "good", "accuracy").sd)
    assert any(said.startswith("There is one split") for said in single.warnings)


def leave_two(items):
    part = np.where(np.isin(items.patient, ["p00", "p01"]), "test", "train").astype(object)
    return SplitTable.of_parts(items, {(0, 0): part})


def test_c_is_chosen_by_inner_folds_of_whole_patients_and_the_test_part_has_no_say():
    items, encoders = world(n_patients=10, n_classes=2)
    table = stratified_folds(items, 2, val_share=0.3)
    x, classes = encoders["good"][:, :2], np.array(["c0", "c1"])
    found = probed(items, {"good": x}, table, probe=LinearProbe())
    for key, outcome in zip(table.folds, found.outcomes["good"][0], strict=True):
        train, test = (rows_of(items, table, key, *parts) for parts in (("train", "val"), ("test",)))
        patients = np.unique(items.patient[train], return_inverse=True)[1]
        truth = np.searchsorted(classes, items.label[train])
        asked = scaled(x[train], x[test])
        said = LinearProbe().predict(Part(asked[0], truth, patients, 2, 3), asked[1])
        assert outcome.folds[0].setting == said.setting
        assert outcome.probabilities == pytest.approx(said.values, abs=1e-12)
    label = items.label.copy()
    tested = rows_of(items, table, (0, 0), "test")
    label[tested] = np.where(label[tested] == "c0", "c1", "c0")
    other = probe_splits({"good": x}, label, table, items=items.item, probe=LinearProbe())
    assert (other.outcomes["good"][0][0].probabilities == found.outcomes["good"][0][0].probabilities).all()
    assert told_by(other, "good", "accuracy").values != told_by(found, "good", "accuracy").values


def test_slides_of_one_picture_choose_and_count_as_one_patient():
    items, encoders = world(n_patients=12, n_classes=2)
    twins = replace(items, picture=np.where(items.slide == "s004", "s000", items.slide))  # p00 and p02, class c0
    table = stratified_folds(twins, 3)
    found = probed(twins, {"good": encoders["good"]}, table)
    assert sum(one.n_test for one in found.task.splits) == 11
    tested = [one for one in found.task.splits if "p00" in one.tested]
    assert len(tested) == 1
    assert not any("p02" in one.tested for one in found.task.splits)
    assert "patients that show the same picture are held out as one: p00 = p02" in found.warnings


def test_tiles_are_judged_under_a_split_of_clams_slides():
    slides, encoders = world(n_patients=12, n_classes=2)
    rng = np.random.default_rng(4)
    at = rng.permutation(np.repeat(np.arange(len(slides)), 3))
    tiles = encoders["good"][at] + 0.3 * rng.normal(size=(len(at), 5))
    splits = []
    for seed in range(4):
        shuffled = [f"p{i:02d}" for i in np.random.default_rng(seed).permutation(12)]
        splits.append(
            ClamSplit(
                *(
                    tuple(slides.slide[np.isin(slides.patient, own)])
                    for own in (shuffled[:6], shuffled[6:8], shuffled[8:])
                )
            )
        )
    table = import_clam_splits(splits, slides)
    back = splits_from_csv(splits_csv(table), kind=table.kind, warnings=table.warnings)
    found = probe_splits({"e": tiles}, slides.label[at], back, items=slides.slide[at], probe=FIXED)
    overlap = [said for said in found.warnings if "Monte-Carlo, as CLAM's splits are by design" in said]
    assert len(overlap) == 1
    assert "Nadeau-Bengio" in overlap[0]
    for split, clam, got in zip(found.task.splits, splits, told_by(found, "e", "accuracy").values, strict=True):
        train, test = (np.isin(slides.slide[at], own) for own in (clam.train + clam.val, clam.test))
        mean, sd = tiles[train].mean(axis=0), tiles[train].std(axis=0)
        model = LogisticRegression(C=0.1, class_weight="balanced", tol=1e-8, max_iter=5000)
        model.fit((tiles[train] - mean) / sd, slides.label[at][train])
        assert got == pytest.approx(model.score((tiles[test] - mean) / sd, slides.label[at][test]))
        assert (split.n_train, split.n_test) == (8, 4)


def test_a_split_by_slide_flatters_features_that_know_only_the_patient():
    items, _ = world(n_patients=24, n_classes=2)
    rng = np.random.default_rng(5)
    x = {"e": rng.normal(size=(24, 8)).repeat(2, axis=0) + 0.3 * rng.normal(size=(48, 8))}
    probe = NeighbourProbe(k=1)
    by_patient = probed(items, x, stratified_folds(items, 4), probe=probe).figure("accuracy")
    leaking = probed(items, x, leave_one_out(items, "slide"), probe=probe)
    trial = math.sqrt(0.25 / 24)  # a patient is the unit
    assert abs(by_patient.value - 0.5) < 4 * trial
    assert leaking.figure("accuracy").value > 0.5 + 4 * trial
    assert leaking.figure("accuracy").chance == 0.5
    assert leaking.protocol["held_out"] == leaking.protocol["unit"] == "slide"
    assert any("say nothing about new patients" in said for said in leaking.warnings)


def test_chance_is_what_the_commonest_class_scores():
    items, encoders = world(n_patients=10, n_classes=2)
    label = np.where(np.isin(items.patient, ["p00", "p01", "p02"]), "rare", "usual").astype(object)
    items = replace(items, label=label)
    table = stratified_folds(items, 3)
    found = probed(items, encoders, table)
    expected = {"balanced_accuracy": [], "accuracy": [], "macro_f1": [], "macro_auc": []}
    for key in table.folds:
        truth = items.label[rows_of(items, table, key, "test")]
        said = np.full(len(truth), "usual", dtype=object)
        expected["accuracy"].append(accuracy_score(truth, said))
        expected["balanced_accuracy"].append(balanced_accuracy_score(truth, said))
        expected["macro_f1"].append(f1_score(truth, said, average="macro"))
        expected["macro_auc"].append(0.5)
    for metric, values in expected.items():
        assert found.figure(metric).chance == pytest.approx(np.mean(values))


def test_a_floor_of_several_seeds_is_the_mean_of_its_members():
    items, encoders = world()
    table = stratified_folds(items, 3)
    seeds = [np.random.default_rng(seed).normal(size=(len(items), 4)) for seed in range(3)]
    found = probed(items, {"good": encoders["good"]}, table, floors={"random": seeds})
    alone = [probed(items, {"one": x}, table) for x in seeds]
    for metric in METRICS:
        told = told_by(found, "random", metric)
        assert told.kind == "floor"
        assert told.values == pytest.approx(np.mean([told_by(one, "one", metric).values for one in alone], axis=0))
    assert found.protocol["members"] == {"good": 1, "random": 3}
    assert len(found.outcomes["random"]) == 3


def test_colour_is_z_scored_for_neighbours_and_an_encoder_is_not():
    items, encoders = world()
    table, x = stratified_folds(items, 3), encoders["good"] * np.array([1000.0, 1, 1, 1, 1])
    found = probed(items, {"e": x}, table, probe=NeighbourProbe(k=3), floors={"colour": x})
    plain, scored = (
        probed(items, {"e": x}, table, probe=NeighbourProbe(k=3, is_standardised=is_scaled)) for is_scaled in (0, 1)
    )
    assert told_by(found, "e", "accuracy").values == told_by(plain, "e", "accuracy").values
    assert told_by(found, "colour", "accuracy").values == told_by(scored, "e", "accuracy").values
    assert told_by(plain, "e", "accuracy").values != told_by(scored, "e", "accuracy").values


def test_margins_rank_within_a_split():
    items, encoders = world(n_classes=2)
    table = stratified_folds(items, 3)
    found = probed(items, encoders, table, probe=SVMProbe(c=0.1))
    for key, outcome, got in zip(
        table.folds, found.outcomes["good"][0], told_by(found, "good", "macro_auc").values, strict=True
    ):
        truth = items.label[rows_of(items, table, key, "test")] == "c1"
        assert outcome.probabilities is None
        assert got == pytest.approx(roc_auc_score(truth, outcome.margins[:, 1]))
    assert {"margin c0", "margin c1"} <= set(found.prediction_rows("good")[0])


def test_predictions_recompute_the_figures():
    items, encoders = world()
    found = probed(items, encoders, monte_carlo(items, 3, test_share=0.3))
    lines = found.prediction_rows("noisy")
    values = []
    for repeat in range(3):
        own = [line for line in lines if line["repeat"] == repeat]
        assert {items.item[line["row"]] == line["item"] for line in own} == {True}
        assert {items.label[line["row"]] == line["truth"] for line in own} == {True}
        for line in own:
            shares = {name: line[f"p {name}"] for name in ("c0", "c1", "c2")}
            assert line["predicted"] == max(shares, key=lambda name: shares[name])
        values.append(np.mean([line["truth"] == line["predicted"] for line in own]))
    assert told_by(found, "noisy", "accuracy").values == pytest.approx(values)


def test_rows_and_items_without_each_other_are_set_aside_and_told():
    items, encoders = world()
    table = stratified_folds(items, 3)
    label = items.label.copy()
    label[3], label[5] = None, "c0"  # s005 is of class c2
    asked = np.where(items.item == "s007", "elsewhere", items.item)
    found = probe_splits(encoders, label, table, items=asked, probe=FIXED)
    assert (found.protocol["n_rows"], found.protocol["n_unlabelled"], found.protocol["n_unnamed"]) == (34, 1, 1)
    assert found.warnings[-4:] == (
        "1 rows without a label were set aside.",
        "1 rows of items that the split does not name were set aside.",
        "1 items of the split have no row: s007.",
        "1 of 34 rows have another label than in the split, which did not balance these.",
    )
    kept = np.delete(np.arange(len(items)), [3, 7])
    few = {name: x[kept] for name, x in encoders.items()}
    same = probe_splits(few, label[kept], table, items=items.item[kept], probe=FIXED)
    assert [one.values for one in same.scores] == [one.values for one in found.scores]


def test_the_order_of_rows_changes_no_score():
    items, encoders = world()
    table = stratified_folds(items, 3)
    order = np.random.default_rng(1).permutation(len(items))
    first = probed(items, encoders, table)
    second = probed(items.take(order), {name: x[order] for name, x in encoders.items()}, table)
    for one, other in zip(first.scores, second.scores, strict=True):
        assert one.values == pytest.approx(other.values, abs=1e-9)


def test_a_class_that_a_training_part_lacks_is_told():
    items, encoders = world(n_patients=6, n_classes=3)
    found = probed(items, encoders, leave_one_out(items))
    assert not any("left to fit on" in said for said in found.warnings)
    rare = replace(items, label=np.where(items.patient == "p00", "rare", items.label))
    found = probed(rare, encoders, leave_one_out(rare))
    assert "In 1 of 6 splits no row of rare is left to fit on." in found.warnings
    assert told_by(found, "good", "accuracy").values[0] == 0


def test_it_is_plain_data_with_all_splits():
    items, encoders = world()
    found = probed(items, encoders, leave_two(items), reference="noisy")
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["reference"] == "noisy"
    assert told["protocol"]["splits"] == [{"repeat": 0, "fold": 0, "n_train": 16, "n_test": 2}]
    assert told["folds"]["good"][0][0]["held_out"] == ["p00", "p01"]
    assert told["folds"]["good"][0][0]["setting"] == 0.1
    area = next(one for one in told["scores"] if (one["name"], one["metric"]) == ("good", "macro_auc"))
    assert (area["values"], area["mean"], area["sd"]) == ([None], None, None)
    assert told["figures"][0]["delta"]["interval"]["note"] == "1 split"


def test_progress_counts_every_fit():
    items, encoders = world()
    told = []

    class Line:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def advance(self, n=1.0, note=""):
            told.append((n, note))

    def reporter(stage, total, unit):
        told.append((stage, total, unit))
        return Line()

    probed(items, encoders, stratified_folds(items, 3), progress=reporter)
    assert told == [("evaluate", 6, "splits"), *[(1, "good")] * 3, *[(1, "noisy")] * 3]


def test_what_cannot_be_judged_is_refused():
    items, encoders = world()
    table = stratified_folds(items, 3)
    one_class = replace(items, label=np.full(len(items), "c0", dtype=object))
    with pytest.raises(EvaluationError, match="all labelled rows are 'c0'"):
        probed(one_class, encoders, table)
    with pytest.raises(EvaluationError, match="not one row of the split carries a label"):
        probe_splits(encoders, [None] * len(items), table, items=items.item)
    with pytest.raises(EvaluationError, match="not one of 36 ids is in the split"):
        probe_splits(encoders, items.label, table, items=[f"{name}.svs" for name in items.item])
    tested = table.item[table.rows(0, 1, "test")]
    label = np.where(np.isin(items.item, tested), "", items.label)
    with pytest.raises(EvaluationError, match=r"repeat 0, fold 1 of the split has 24 labelled rows .* and 0 to test"):
        probe_splits(encoders, label, table, items=items.item)
    broken = encoders["good"].copy()
    broken[7, 0] = np.nan
    with pytest.raises(StoreError, match="good, row 7: the vector holds values that are not finite"):
        probed(items, {"good": broken}, table)
    with pytest.raises(StoreError, match="good, row 8: the vector is zero"):
        probed(items, {"good": np.where(np.arange(36)[:, None] == 8, 0, 1.0)}, table, probe=NeighbourProbe())
    with pytest.raises(ValueError, match=r"good has shape \(35, 5\) for 36 labels"):
        probed(items, {"good": encoders["good"][:35]}, table)
    with pytest.raises(ValueError, match="35 items for 36 labels"):
        probe_splits(encoders, items.label, table, items=items.item[:35])
    with pytest.raises(TypeError, match="ridge predicts numbers"):
        probed(items, encoders, table, probe=RidgeProbe())
    with pytest.raises(KeyError, match="no figure r2 of good"):
        probed(items, encoders, table).figure("r2")
