"""Protocols end to end: golden figures, exclusion, floors, comparisons, leaks and controls."""

import json

import numpy as np
import pytest
from planted import with_planted_copies

from histokin.errors import EvaluationError, StoreError
from histokin.evaluate import Items, evaluate_retrieval, evaluate_slides, shuffled_labels_control
from histokin.evaluate.vectors import standardised


def make_world(*, n_patients=12, per_patient=20, effect=0.0, patient_effect=0.5, label="patient", seed=0, d=16):
    """Features with a class effect, a patient effect and noise; labels per patient or per tile."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), per_patient)
    classes = np.arange(n_patients) % 3
    labels = classes[patient] if label == "patient" else rng.integers(0, 3, len(patient))
    x = (
        effect * rng.normal(size=(3, d))[labels]
        + patient_effect * rng.normal(size=(n_patients, d))[patient]
        + rng.normal(size=(len(patient), d))
    )
    slide = [f"s{p}-{i % 2}" for i, p in enumerate(patient)]
    return x, Items.of([f"class {c}" for c in labels], [f"p{p:02d}" for p in patient], slide)


def test_set_f1_gives_the_golden_figures(golden, f1):
    expected = golden["retrieval_F1"]["expected"]["patient"]
    evaluation = evaluate_retrieval({"main": f1.x}, f1.items)
    for metric, value in {
        "acc@1": expected["k1"]["acc"],
        "acc@5": expected["k5"]["acc"],
        "mmv@5": expected["k5"]["mmv_ranktie"],
        "map@5": expected["k5"]["map_over_min"],
        "macro_f1@1": expected["k1"]["macro_f1"],
        "macro_f1@5": expected["k5"]["macro_f1"],
    }.items():
        assert evaluation.result("main", metric).value == pytest.approx(value, abs=1e-9)
    acc = evaluation.result("main", "acc@5")
    assert acc.chance == pytest.approx(expected["chance_acc"]["k5"], abs=1e-9)
    assert (acc.n_queries, acc.n_patients, acc.n_unanswerable) == (240, 24, 0)
    assert acc.prevalence == pytest.approx({"c0": 51 / 240, "c1": 56 / 240, "c2": 67 / 240, "c3": 66 / 240})
    assert acc.interval.method == "wilson-deff"
    assert acc.interval.low < acc.value < acc.interval.high
    assert acc.null is None  # tiles of one patient carry several labels
    assert evaluation.result("main", "map@5").interval.method == "bca"
    assert acc.leave_out == "patient"
    assert evaluation.result("main", "mmv@5").vote == "rank"


def test_the_chance_level_of_macro_f1_is_that_of_real_random_orders():
    labels = list("aaaaabbb")
    items = Items.of(labels, [f"p{i}" for i in range(8)], [f"s{i}" for i in range(8)])
    x = np.random.default_rng(0).normal(size=(8, 4))
    chance = evaluate_retrieval({"e": x}, items, k=(5,), level="slide").result("e", "macro_f1@5").chance
    rng, drawn = np.random.default_rng(1), []
    truth = np.array([label == "b" for label in labels])
    for _ in range(2000):
        said = []
        for query in range(8):
            first = truth[rng.permutation(np.delete(np.arange(8), query))[:5]]
            said.append(first.sum() >= 3)
        said, f1 = np.array(said), []
        for code in (False, True):
            right = ((said == code) & (truth == code)).sum()
            f1.append(2 * right / max(1, (said == code).sum() + (truth == code).sum()))
        drawn.append(np.mean(f1))
    assert chance == pytest.approx(np.mean(drawn), abs=5 * np.std(drawn) / 10)  # of 100 orders


def test_rows_are_compared_with_any_other_and_with_none_that_is_not_there():
    x, items = make_world(n_patients=12)
    found = evaluate_retrieval({"a": x, "b": x[:, :2]}, items, floors={"colour": x[:, :1]})
    again = evaluate_retrieval({"a": x, "b": x[:, :2]}, items, floors={"colour": x[:, :1]}, reference="b")
    assert repr(found.against("b")) == repr(again.results)  # NaN equals no NaN
    with pytest.raises(KeyError, match=r"no row 'c'; there are a, b, colour"):
        found.against("c")


def test_a_name_is_one_row():
    x, items = make_world(n_patients=12)
    with pytest.raises(ValueError, match="colour is both an encoder and a floor"):
        evaluate_retrieval({"colour": x}, items, floors={"colour": x})


def test_unknown_patients_are_no_patient_of_their_own():
    x, items = make_world(n_patients=12)
    patients = [None if i < 10 else patient for i, patient in enumerate(items.patient)]
    some = Items.of(items.label, patients, items.slide)
    with pytest.raises(EvaluationError, match=r"10 of \d+ labelled items have no patient"):
        evaluate_retrieval({"e": x}, some, leave_out="slide")


def test_no_signal_looks_like_a_result_under_self_and_like_chance_under_patient():
    x, items = make_world(n_patients=24, patient_effect=1.0)
    honest = evaluate_retrieval({"main": x}, items).result("main", "acc@1")
    naive = evaluate_retrieval({"main": x}, items, leave_out="self")
    assert naive.result("main", "acc@1").value > 0.85
    assert any("not a result" in warning for warning in naive.warnings)
    assert honest.interval.low < honest.chance < honest.interval.high
    assert honest.null == pytest.approx(honest.chance, abs=0.02)
    assert honest.chance < 1 / 3  # the query's patient, of the same class, is out


def test_planted_copies_raise_the_self_rule_and_leave_patient_out_unmoved():
    x, items = make_world(effect=0.3, label="tile")
    leaky_x, leaky_items = with_planted_copies(x, items)
    values = {}
    for rule in ("self", "patient"):
        plain = evaluate_retrieval({"main": x}, items, leave_out=rule)
        leaky = evaluate_retrieval({"main": leaky_x}, leaky_items, leave_out=rule)
        values[rule] = [e.result("main", "acc@1").value for e in (plain, leaky)]
        if rule == "patient":  # the same rows ask; their own patient's copies are never seen
            own = leaky.frames["main"][0]
            assert (leaky_items.patient[own.ids[: len(x)]] != items.patient[:, None]).all()
    assert values["self"][1] == 1.0
    assert values["self"][0] < 0.6
    assert values["patient"][1] == pytest.approx(values["patient"][0], abs=0.05)


def test_the_query_patients_copies_change_not_one_answer_under_leave_patient_out():
    x, items = make_world(effect=0.3)
    own = np.flatnonzero(items.patient == "p00")
    more_x = np.concatenate([x, x[own] + 1e-4])
    more = Items(
        *(np.concatenate([getattr(items, n), getattr(items, n)[own]]) for n in ("label", "patient", "slide", "site"))
    )
    plain = evaluate_retrieval({"main": x}, items).frames["main"][0]
    leaky = evaluate_retrieval({"main": more_x}, more).frames["main"][0]
    assert (leaky.ids[own] == plain.ids[own]).all()
    assert (leaky.scores[own] == plain.scores[own]).all()


def test_shuffled_labels_fall_to_chance_whatever_the_features_know():
    for label, unit in (("patient", "patient"), ("tile", "tile")):
        x, items = make_world(effect=2.0, label=label)
        assert evaluate_retrieval({"main": x}, items).result("main", "acc@1").value > 0.9
        control = shuffled_labels_control(x, items)
        assert control.is_at_chance
        assert control.unit == unit
        assert control.low < control.chance < control.high
    expected = 3 * 4 * 3 / (12 * 11)  # three classes of four patients
    assert shuffled_labels_control(*make_world(effect=2.0)).chance == pytest.approx(expected)


def test_perfect_embeddings_score_one_and_one_class_always_does():
    _, items = make_world()
    perfect = np.eye(3)[[int(text[-1]) for text in items.label]]
    evaluation = evaluate_retrieval({"main": perfect}, items)
    assert {r.value for r in evaluation.results if not r.metric.startswith("p@")} == {1.0}
    x, items = make_world(n_patients=6)
    one = Items.of(["a"] * len(items), items.patient, items.slide)
    assert evaluate_retrieval({"main": x}, one).result("main", "acc@1").chance == 1


def test_floors_answer_the_same_queries_by_their_own_distance():
    x, items = make_world(effect=1.0)
    rng = np.random.default_rng(5)
    colour = rng.normal(size=(len(x), 6)) * [100, 1, 1, 1, 1, 1]
    seeds = [rng.normal(size=(len(x), 8)) for _ in range(3)]
    evaluation = evaluate_retrieval({"main": x}, items, floors={"colour": colour, "random": seeds})
    assert evaluation.result("colour", "acc@1").distance == "euclidean, z-scored"
    assert evaluation.result("random", "acc@1").distance == "cosine"
    singles = [evaluate_retrieval({"random": s}, items).result("random", "acc@1").value for s in seeds]
    assert evaluation.result("random", "acc@1").value == pytest.approx(np.mean(singles))
    z = standardised(colour)
    nearest = [
        min((np.linalg.norm(z[q] - z[r]), r) for r in range(len(z)) if items.patient[r] != items.patient[q])[1]
        for q in range(0, len(z), 40)
    ]
    assert evaluation.frames["colour"][0].ids[::40, 0].tolist() == nearest


def test_differences_are_paired_and_adjusted_over_rows():
    x, items = make_world(n_patients=14, effect=1.5)
    rng = np.random.default_rng(6)
    evaluation = evaluate_retrieval(
        {"weak": rng.normal(size=x.shape), "main": x, "same": 3 * x}, items, reference="main"
    )
    weak, same = (evaluation.result(name, "acc@1") for name in ("weak", "same"))
    main = evaluation.result("main", "acc@1")
    assert main.delta is None
    assert weak.delta is not None
    assert same.delta is not None
    assert weak.delta.value == pytest.approx(main.value - weak.value)
    assert weak.delta.interval.low > 0
    assert weak.delta.p_holm == pytest.approx(2 * weak.delta.p)
    assert weak.delta.p_holm < 0.01
    assert same.delta.value == 0
    assert same.delta.p == 1


def test_rows_and_patients_in_another_order_give_the_same_figures():
    x, items = make_world(effect=0.5)
    order = np.random.default_rng(1).permutation(len(x))
    first = evaluate_retrieval({"main": x}, items)
    second = evaluate_retrieval({"main": x[order]}, items.take(order))
    for a, b in zip(first.results, second.results, strict=True):
        assert a.value == pytest.approx(b.value)
        assert (a.interval.low, a.interval.high) == pytest.approx((b.interval.low, b.interval.high))


def test_the_same_call_gives_the_same_json():
    x, items = make_world(effect=0.5)
    runs = [evaluate_retrieval({"main": x}, items, floors={"colour": x[:, :6]}) for _ in range(2)]
    assert json.dumps(runs[0].to_json()) == json.dumps(runs[1].to_json())


def test_one_patient_is_refused_with_the_way_out_and_slide_is_named():
    x, items = make_world(n_patients=3, per_patient=40, effect=1.0, label="tile")
    alone = Items.of(items.label, ["p"] * len(x), [f"s{i % 6}" for i in range(len(x))])
    with pytest.raises(EvaluationError, match=r"one patient \(p\).*--leave-out slide"):
        evaluate_retrieval({"main": x}, alone)
    evaluation = evaluate_retrieval({"main": x}, alone, leave_out="slide")
    result = evaluation.result("main", "acc@1")
    assert (result.interval.cluster, result.interval.n_clusters) == ("slide", 6)
    assert "Not about new patients" in evaluation.to_table()


def test_sites_are_left_out_and_resampled():
    x, items = make_world(effect=1.0)
    sites = [f"h{int(p[1:]) // 2}" for p in items.patient]
    evaluation = evaluate_retrieval(
        {"main": x}, Items.of(items.label, items.patient, items.slide, sites), leave_out="site"
    )
    frame = evaluation.frames["main"][0]
    assert (np.array(sites)[frame.ids] != np.array(sites)[:, None]).all()
    assert evaluation.result("main", "acc@1").interval.cluster == "site"
    with pytest.raises(EvaluationError, match="240 of 240 labelled items have no site"):
        evaluate_retrieval({"main": x}, items, leave_out="site")


def test_unlabelled_items_neither_ask_nor_answer_and_are_counted():
    x, items = make_world(effect=1.0)
    label = items.label.copy()
    label[::3] = None
    label[1::3] = ""
    evaluation = evaluate_retrieval({"main": x}, Items.of(label, items.patient, items.slide))
    assert evaluation.result("main", "acc@1").n_queries == 80
    assert any("160 unlabelled" in warning for warning in evaluation.warnings)
    rows = evaluation.query_rows("main")
    assert {row["item"] % 3 for row in rows} == {2}
    assert all(int(found) % 3 == 2 for row in rows for found in row["ids"].split())
    with pytest.raises(EvaluationError, match="not one item carries a label"):
        evaluate_retrieval({"main": x}, Items.of([None] * len(x), items.patient, items.slide))


def test_a_class_of_one_patient_is_a_counted_miss():
    x, items = make_world(effect=1.0)
    label = items.label.copy()
    label[items.patient == "p00"] = "rare"
    evaluation = evaluate_retrieval({"main": x}, Items.of(label, items.patient, items.slide))
    assert evaluation.result("main", "acc@1").n_unanswerable == 20
    assert any("20 of 240 queries cannot be answered" in w and "rare" in w for w in evaluation.warnings)
    rare = next(line for line in evaluation.per_class if line.label == "rare" and line.metric == "acc@1")
    assert (rare.value, rare.chance, rare.n_patients, rare.interval.method) == (0, 0, 1, "n/a")


def test_queries_are_sampled_equally_per_patient_from_a_whole_database():
    x, items = make_world(n_patients=6, per_patient=50, effect=0.5, label="tile")
    keep = np.flatnonzero((items.patient != "p00") | (np.arange(len(x)) % 50 < 4))
    items = items.take(keep)
    evaluation = evaluate_retrieval({"main": x[keep]}, items, max_queries=54)
    frame = evaluation.frames["main"][0]
    counts = {p: int((items.patient[frame.query] == p).sum()) for p in np.unique(items.patient)}
    assert counts == {"p00": 4, "p01": 10, "p02": 10, "p03": 10, "p04": 10, "p05": 10}
    assert frame.n_allowed.max() == len(keep) - 4
    whole = evaluate_retrieval({"main": x[keep]}, items).frames["main"][0]
    assert (frame.ids == whole.ids[frame.query]).all()


def test_few_patients_give_no_interval_but_a_value():
    x, items = make_world(n_patients=4, effect=1.0, label="tile")
    result = evaluate_retrieval({"main": x}, items).result("main", "acc@1")
    assert str(result.interval) == "n/a (4 patients)"
    assert np.isfinite(result.value)


def test_slides_vote_once_each_by_both_strategies():
    rng = np.random.default_rng(8)
    labels = np.arange(24) % 3
    centres = 2 * rng.normal(size=(3, 8))
    bags = [centres[label] + rng.normal(size=(rng.integers(4, 12), 8)) for label in labels]
    noise = [rng.normal(size=(6, 6)) for _ in labels]
    items = Items.of([f"c{v}" for v in labels], [f"p{i // 2}" for i in range(24)], [f"s{i:02d}" for i in range(24)])
    evaluation = evaluate_slides({"main": bags}, items, floors={"colour": noise, "random": [noise, noise]})
    assert {(r.name, r.strategy) for r in evaluation.results} == {
        (name, strategy) for name in ("main", "colour", "random") for strategy in ("mean", "median_min")
    }
    for strategy in ("mean", "median_min"):
        result = evaluation.result("main", "acc@1", strategy)
        assert result.level == "slide"
        assert result.n_queries == 24
        assert result.value > 0.9
        frame = evaluation.frames[f"main ({strategy})"][0]
        assert (items.patient[frame.ids] != items.patient[:, None]).all()
        assert all(len(set(found)) == 5 for found in frame.ids.tolist())
    assert evaluation.protocol["strategies"] == ["mean", "median_min"]
    assert "main (median_min)" in evaluation.to_table()


def test_wrong_input_is_refused_by_name():
    x, items = make_world()
    with pytest.raises(ValueError, match="main has 239 rows for 240 items"):
        evaluate_retrieval({"main": x[1:]}, items)
    with pytest.raises(ValueError, match="reference 'other' is none of the encoders main"):
        evaluate_retrieval({"main": x}, items, reference="other")
    with pytest.raises(ValueError, match="leave_out must be one of patient, slide, site, self"):
        evaluate_retrieval({"main": x}, items, leave_out="none")  # pyright: ignore[reportArgumentType]
    with pytest.raises(EvaluationError, match="there is no encoder"):
        evaluate_retrieval({}, items)
    with pytest.raises(StoreError, match="main, row 3: the vector is zero"):
        evaluate_retrieval({"main": np.where(np.arange(len(x))[:, None] == 3, 0, x)}, items)


def test_a_bad_vector_is_named_by_its_place_among_all_items():
    x, items = make_world(n_patients=12)
    labels = [None if i < 10 else label for i, label in enumerate(items.label)]
    some = Items.of(labels, items.patient, items.slide)
    x[20] = 0
    with pytest.raises(StoreError, match="e, row 20: the vector is zero"):
        evaluate_retrieval({"e": x}, some)
