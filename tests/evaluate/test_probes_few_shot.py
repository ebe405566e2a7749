"""Few shots: the golden figures, a slow loop from the rule, and what supports and queries may never share."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.neighbors import NearestCentroid

from histokin.errors import EvaluationError, StoreError
from histokin.evaluate.intervals import bootstrap_interval, mean_of_classes, patient_weights
from histokin.evaluate.probes.episodes import draw_episodes, labelled_rows
from histokin.evaluate.probes.few_shot import _answers, few_shot, simple_shot
from histokin.evaluate.probes.folds import Split
from histokin.evaluate.probes.outcome import class_task

# The reference's case `simpleshot_F1`: patients 0 to 15 are the support, 16 to 23 are asked.
GOLDEN = {"acc": 0.8125, "bal_acc": 0.818926862611, "pred_first10": [2, 0, 1, 2, 3, 2, 3, 1, 2, 1], "tol": 1e-9}


def world(n_patients=10, n_each=12, width=6, n_classes=3, signal=1.5, seed=0):
    """Features, labels, patients and ids; every class in every patient, patients with an offset of their own."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), n_each)
    label = np.tile(np.arange(n_each) % n_classes, n_patients)
    x = rng.normal(size=(len(label), width)) + 0.5 * rng.normal(size=(n_patients, width))[patient]
    x[np.arange(len(x)), label] += signal
    return x, [f"c{v}" for v in label], [f"p{v:03d}" for v in patient], [f"t{i:05d}" for i in range(len(x))]


def coded(labels, patients, ids=None, max_queries=10**6):
    task = class_task(labels, patients, split=Split())
    return task, labelled_rows(task, ids, max_queries, 0)


def slow(x, rows, episodes, shots):
    """(E, 2) balanced accuracy and accuracy by a loop: ask every row of every patient outside the support."""
    found = []
    for support in episodes[:, :, :shots]:
        own = support.ravel()
        is_asked = ~np.isin(rows.patients, rows.patients[own])
        said = simple_shot(x[rows.rows[own]], rows.truth[own], x[rows.rows[is_asked]])
        true = rows.truth[is_asked]
        found.append([balanced_accuracy_score(true, said), accuracy_score(true, said)])
    return np.array(found)


def test_golden_simple_shot(f1):
    is_train = f1.patient < 16
    said = simple_shot(f1.x[is_train], f1.label[is_train], f1.x[~is_train])
    truth = f1.label[~is_train]
    assert said[:10].tolist() == GOLDEN["pred_first10"]
    assert (said == truth).mean() == pytest.approx(GOLDEN["acc"], abs=GOLDEN["tol"])
    recall = [(said[truth == c] == c).mean() for c in range(4)]
    assert np.mean(recall) == pytest.approx(GOLDEN["bal_acc"], abs=GOLDEN["tol"])


@pytest.mark.parametrize(("n", "d", "n_classes"), [(40, 5, 2), (60, 30, 6), (9, 3, 3)])
def test_simple_shot_is_scikit_learns_nearest_centroid(n, d, n_classes):
    rng = np.random.default_rng(n)
    support, query = rng.normal(size=(n, d)) + 3, rng.normal(size=(50, d)) + 3
    truth = np.arange(n) % n_classes * 10
    unit = [
        (v - support.mean(axis=0)) / np.linalg.norm(v - support.mean(axis=0), axis=1)[:, None] for v in (support, query)
    ]
    expected = NearestCentroid().fit(unit[0], truth).predict(unit[1])
    assert (simple_shot(support, truth, query) == expected).all()


def test_simple_shot_by_hand():
    # m = (1, 1); u = (-1, 0), (0, -1) of class 3, (1, 1)/sqrt(2) of class 7: prototypes (-.5, -.5) and (.707, .707).
    support, truth = np.array([[0.0, 1], [1, 0], [2, 2]]), np.array([3, 3, 7])
    asked = np.array([[0.0, 0], [5, 5], [1, 1]])  # the last is m itself: zero, and .5 is nearer to zero than 1
    assert simple_shot(support, truth, asked).tolist() == [3, 7, 3]
    assert simple_shot(support[:1], truth[:1], asked).tolist() == [3, 3, 3]  # a sole class, a zero vector
    even = simple_shot(np.array([[-1.0, 0], [1, 0]]), np.array([5, 4]), np.array([[0.0, 9]]))
    assert even.tolist() == [4]  # equal distances take the lower code


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(1, 5), st.floats(-50, 50), st.floats(0.01, 100))
@settings(derandomize=True, max_examples=40, deadline=None)
def test_shift_scale_and_order_of_the_support_change_no_answer(seed, n_classes, width, shift, scale):
    rng = np.random.default_rng(seed)
    support, query = rng.normal(size=(3 * n_classes, width)), rng.normal(size=(15, width))
    truth = np.arange(len(support)) % n_classes
    first = simple_shot(support, truth, query)
    order = rng.permutation(len(support))
    second = simple_shot(support[order] * scale + shift, truth[order], query * scale + shift)
    assert (first == second).all()


tables = st.integers(0, 10_000).map(
    lambda seed: (
        np.random.default_rng(seed).integers(0, 3, 60),
        np.sort(np.random.default_rng(seed + 1).integers(0, np.random.default_rng(seed).integers(3, 15), 60)),
    )
)


@given(tables, st.integers(1, 12))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_supports_are_of_distinct_patients_first_and_leave_every_class_a_patient(table, wanted):
    truth, patients = (np.unique(column, return_inverse=True)[1] for column in table)
    classes = [f"c{code}" for code in range(int(truth.max()) + 1)]
    try:
        episodes = draw_episodes(truth, patients, classes, wanted=wanted, n_episodes=5)
    except EvaluationError:
        assert any(len(set(patients[truth == code])) < 2 for code in range(len(classes)))
        return
    for support in episodes:
        if (support < 0).all():
            continue
        taught = set(patients[support[support >= 0]])
        for code, own in enumerate(support):
            rows = own[own >= 0]
            assert (own[len(rows) :] == -1).all()
            assert (truth[rows] == code).all()
            assert len(set(rows)) == len(rows)
            assert len(rows) >= 1
            assert set(patients[truth == code]) - taught  # someone is left to ask
            # The n-th tile of a patient comes after every (n-1)-th one of the others.
            seen, rounds = {}, []
            for p in patients[rows]:
                seen[p] = seen.get(p, 0) + 1
                rounds.append(seen[p])
            assert rounds == sorted(rounds)


def test_distinct_patients_serve_a_class_while_there_are_any():
    _, labels, patients, _ = world(n_patients=12)
    task, rows = coded(labels, patients)
    episodes = draw_episodes(rows.truth, rows.patients, task.classes, wanted=16, n_episodes=20)
    for support in episodes:
        n_free = 12 - 1  # one patient has all classes, so one set aside serves all
        for own in support:
            assert len(set(rows.patients[own[:n_free]])) == n_free


def test_fewer_shots_are_the_first_of_more_and_episodes_do_not_depend_on_their_number():
    _, labels, patients, _ = world()
    task, rows = coded(labels, patients)
    many = draw_episodes(rows.truth, rows.patients, task.classes, wanted=8, n_episodes=6)
    few = draw_episodes(rows.truth, rows.patients, task.classes, wanted=2, n_episodes=3)
    assert (many[:3, :, :2] == few).all()
    assert len({episode.tobytes() for episode in many}) == 6
    other = draw_episodes(rows.truth, rows.patients, task.classes, wanted=2, n_episodes=3, seed=1)
    assert (other != few).any()


@pytest.mark.parametrize("n_classes", [2, 3, 4])
@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_figures_equal_a_slow_loop(n_classes, offset):
    x, labels, patients, ids = world(n_classes=n_classes)
    x = x + offset
    task, rows = coded(labels, patients, ids)
    episodes = draw_episodes(rows.truth, rows.patients, task.classes, wanted=4, n_episodes=30)
    found = few_shot(x, labels, patients, ids=ids, shots=(1, 4), n_episodes=30)
    for shots in (1, 4):
        expected = slow(x, rows, episodes, shots)
        for m, metric in enumerate(("balanced_accuracy", "accuracy")):
            figure = found.figure(shots, metric)
            low, median, high = np.quantile(expected[:, m], [0.05, 0.5, 0.95])
            assert (figure.low, figure.median, figure.high) == pytest.approx((low, median, high), abs=1e-12)
            assert figure.n_episodes == 30
    assert found.figure(1).chance == pytest.approx(1 / n_classes)


def test_every_episode_of_weak_features_equals_a_slow_loop():
    x, labels, patients, ids = world(n_patients=9, n_each=30, width=3, signal=0.5)
    task, rows = coded(labels, patients, ids)
    episodes = draw_episodes(rows.truth, rows.patients, task.classes, wanted=5, n_episodes=40)
    found = _answers(x, rows, episodes, (1, 2, 5), 5).values
    for i, shots in enumerate((1, 2, 5)):
        assert found[:, i] == pytest.approx(slow(x, rows, episodes, shots), abs=1e-12)


def test_patients_interval_pools_each_patients_mean_over_the_episodes_that_asked_it():
    x, labels, patients, ids = world(n_patients=24, signal=0.8)
    task, rows = coded(labels, patients, ids)
    found = few_shot(x, labels, patients, ids=ids, shots=(1, 4), n_episodes=40)
    assert found.interval_shots == 4
    episodes = draw_episodes(rows.truth, rows.patients, task.classes, wanted=4, n_episodes=40)
    shares = {row: [] for row in range(len(rows.rows))}
    for support in episodes:
        own = support.ravel()
        asked = np.flatnonzero(~np.isin(rows.patients, rows.patients[own]))
        said = simple_shot(x[rows.rows[own]], rows.truth[own], x[rows.rows[asked]])
        for row, one in zip(asked, said == rows.truth[asked], strict=True):
            shares[row].append(one)
    means = np.array([np.mean(one) for one in shares.values()])
    accuracy, balanced = (next(f for f in found.intervals if f.metric == m) for m in ("accuracy", "balanced_accuracy"))
    assert accuracy.value == pytest.approx(means.mean())
    assert balanced.value == pytest.approx(np.mean([means[rows.truth == c].mean() for c in range(3)]))
    assert (accuracy.interval.n_clusters, accuracy.interval.method) == (24, "wilson-deff")
    assert (balanced.interval.n_clusters, balanced.interval.method) == (24, "bca")
    for figure in (accuracy, balanced):
        assert figure.interval.low < figure.value < figure.interval.high


def test_patients_of_one_class_each_are_resampled_within_classes():
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(12), 5)
    label = (patient >= 8).astype(int)
    x = rng.normal(size=(60, 4)) + label[:, None]
    found = few_shot(x, label, [f"p{one:02d}" for one in patient], shots=(2,), n_episodes=30)
    assert found.protocol["resampled"] == "patients within classes"
    task, rows = coded(label, [f"p{one:02d}" for one in patient])
    episodes = draw_episodes(rows.truth, rows.patients, task.classes, wanted=2, n_episodes=30)
    answers = _answers(x, rows, episodes, (2,), 2)
    weights = patient_weights(12, strata=np.repeat([0, 1], [8, 4]))
    value = mean_of_classes(answers.hits, answers.sizes)
    assert found.intervals[0].interval == bootstrap_interval(value, weights)
    assert found.intervals[0].interval.method == "bca"
    both = few_shot(*world(n_patients=8)[:3], shots=(1,), n_episodes=5)
    assert both.protocol["resampled"] == "patients"


def test_several_encoders_are_compared_on_the_same_episodes():
    x, labels, patients, ids = world(n_patients=12, signal=1.0)
    worse = x + 1.5 * np.random.default_rng(9).normal(size=x.shape)
    found = few_shot({"good": x, "bad": worse}, labels, patients, ids=ids, shots=(2,), n_episodes=50)
    alone = few_shot(worse, labels, patients, ids=ids, shots=(2,), n_episodes=50)
    assert found.figure(2, name="bad").median == alone.figure(2).median
    task, rows = coded(labels, patients, ids)
    episodes = draw_episodes(rows.truth, rows.patients, task.classes, wanted=2, n_episodes=50)
    delta = slow(x, rows, episodes, 2) - slow(worse, rows, episodes, 2)
    for m, difference in enumerate(found.differences):
        assert (difference.name, difference.reference, difference.shots) == ("bad", "good", 2)
        expected = np.quantile(delta[:, m], [0.5, 0.05, 0.95])
        assert (difference.median, difference.low, difference.high) == pytest.approx(tuple(expected), abs=1e-12)
    assert found.differences[0].median > 0.05
    assert found.intervals[0].delta is None
    assert next(f for f in found.intervals if f.name == "bad").delta.interval.low > 0
    other = few_shot({"good": x, "bad": worse}, labels, patients, ids=ids, shots=(2,), n_episodes=50, reference="bad")
    assert other.differences[0].median == -found.differences[0].median


def test_the_same_features_differ_by_nothing():
    x, labels, patients, _ = world()
    found = few_shot({"a": x, "b": x.copy()}, labels, patients, shots=(1, 2), n_episodes=10)
    assert {(d.median, d.low, d.high) for d in found.differences} == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("max_queries", [10**6, 40])
def test_rows_in_another_order_change_nothing(max_queries):
    x, labels, patients, ids = world()
    order = np.random.default_rng(4).permutation(len(x))
    how = {"shots": (1, 4), "n_episodes": 20, "max_queries": max_queries}
    first = few_shot(x, labels, patients, ids=ids, **how)
    moved = [[column[i] for i in order] for column in (labels, patients, ids)]
    second = few_shot(x[order], moved[0], moved[1], ids=moved[2], **how)
    assert first.to_json() == second.to_json()


def test_one_shot_of_separable_classes_is_always_right():
    x, labels, patients, _ = world(signal=1000.0)
    found = few_shot(x, labels, patients, shots=(1, 2), n_episodes=20)
    assert {(f.low, f.median, f.high) for f in found.figures} == {(1.0, 1.0, 1.0)}


def test_shuffled_labels_fall_to_chance():
    x, labels, patients, _ = world(n_patients=30, n_each=20, n_classes=4, signal=2.0)
    shuffled = np.random.default_rng(0).permutation(labels)
    told, blind = (few_shot(x, y, patients, shots=(8,), n_episodes=60) for y in (labels, shuffled))
    assert told.figure(8).median > 0.6
    assert blind.figure(8).median == pytest.approx(0.25, abs=0.05)
    interval = blind.intervals[0].interval
    assert interval.low - 0.02 < 0.25 < interval.high + 0.02  # the support's luck is not in the interval


def test_half_precision_equals_single_within_a_hundredth():
    x, labels, patients, _ = world(n_patients=14, width=32)
    single, half = (few_shot(x.astype(kind), labels, patients, n_episodes=40) for kind in (np.float32, np.float16))
    for one, other in zip(single.figures, half.figures, strict=True):
        assert one.n_episodes == other.n_episodes
        if one.n_episodes:
            assert one.median == pytest.approx(other.median, abs=0.01)


def test_a_sample_of_the_queries_stands_for_all_of_them():
    x, labels, patients, ids = world(n_patients=16, n_each=60, n_classes=3, signal=1.0)
    rare = [
        "rare" if p in {"p003", "p005", "p007"} and i % 60 == 0 else one
        for i, (one, p) in enumerate(zip(labels, patients, strict=True))
    ]
    task, rows = coded(rare, patients, ids, max_queries=200)
    assert 150 < len(rows.queries) <= 200 + 16 * 3 + 3
    cells = set(zip(rows.truth.tolist(), rows.patients.tolist(), strict=True))
    assert {(int(rows.truth[q]), int(rows.patients[q])) for q in rows.queries} == cells
    for code, patient in cells:
        is_own = (rows.truth[rows.queries] == code) & (rows.patients[rows.queries] == patient)
        assert rows.weights[is_own].sum() == ((rows.truth == code) & (rows.patients == patient)).sum()
    whole, part = (few_shot(x, labels, patients, ids=ids, shots=(4,), n_episodes=60, max_queries=n) for n in (960, 240))
    assert part.protocol["n_asked"] == 240
    assert part.figure(4).n_query_tiles == whole.figure(4).n_query_tiles
    for metric in ("accuracy", "balanced_accuracy"):
        assert part.figure(4, metric).median == pytest.approx(whole.figure(4, metric).median, abs=0.05)
    assert task.classes == ("c0", "c1", "c2", "rare")


def test_never_is_a_patient_of_the_support_asked():
    # Each patient's tiles are alike and unlike all others': whoever asked a support's patient would be right.
    rng = np.random.default_rng(0)
    patient = np.repeat(np.arange(12), 6)
    labels = np.tile([0, 0, 0, 1, 1, 1], 12)
    x = 100 * rng.normal(size=(24, 8))[2 * patient + labels] + 0.01 * rng.normal(size=(72, 8))
    found = few_shot(x, labels, patient, shots=(5,), n_episodes=60)
    assert found.figure(5).median == pytest.approx(0.5, abs=0.15)
    task, rows = coded(labels, patient)
    episodes = draw_episodes(rows.truth, rows.patients, task.classes, wanted=5, n_episodes=60)
    n_left = [12 - len(set(rows.patients[support].ravel())) for support in episodes]
    assert found.figure(5).n_query_patients == np.median(n_left)
    assert found.figure(5).n_query_tiles == 6 * np.median(n_left)


def test_shots_beyond_the_tiles_are_left_out_and_told():
    x, labels, patients, _ = world(n_patients=4, n_each=12)  # 16 tiles a class, 12 of them outside the one set aside
    found = few_shot(x, labels, patients, n_episodes=10)
    made = {f.shots: f.n_episodes for f in found.figures}
    assert made == {1: 10, 2: 10, 4: 10, 8: 10, 16: 0, 32: 0}
    assert np.isnan(found.figure(16).median)
    assert found.interval_shots == 8
    assert "At 16 shots 10 of 10 episodes were left out for want of tiles of c0, c1, c2." in found.warnings
    assert any("interval is at 8 shots" in said for said in found.warnings)
    assert found.intervals[0].interval.method == "n/a"  # four patients
    assert json.loads(json.dumps(found.to_json()))["figures"][8]["median"] is None


def test_an_interval_is_taken_at_sixteen_shots_where_more_could_be_made():
    x, labels, patients, _ = world(n_patients=20, n_each=15)
    found = few_shot(x, labels, patients, shots=(1, 16, 32), n_episodes=5)
    assert found.interval_shots == 16
    assert not any("interval" in said for said in found.warnings)


def test_a_class_of_a_single_patient_is_named():
    x, labels, patients, _ = world(n_patients=5)
    rare = ["rare" if p == "p002" and one == "c0" else one for one, p in zip(labels, patients, strict=True)]
    with pytest.raises(EvaluationError, match="rare: a single patient has it"):
        few_shot(x, rare, patients)


def test_episodes_that_cannot_be_split_are_counted_or_refused():
    # Three classes, each in two of three patients: who is asked and who teaches cannot both have all of them.
    labels, patients = list("aabbcc"), ["p", "q", "q", "r", "p", "r"]
    with pytest.raises(EvaluationError, match=r"no episode left every class tiles to learn from \(1 at least\)"):
        few_shot(np.eye(6), labels, patients, n_episodes=5)
    # With a fourth patient who has a and b some draws come through.
    labels, patients = [*labels, "a", "b"], [*patients, "s", "s"]
    found = few_shot(np.random.default_rng(0).normal(size=(8, 3)), labels, patients, shots=(1,), n_episodes=60)
    n_made = found.figure(1).n_episodes
    assert 0 < n_made <= 60
    assert any("no patients could be set aside" in said for said in found.warnings) == (n_made < 60)


def test_unlabelled_rows_are_set_aside_and_told():
    x, labels, patients, ids = world()
    blanks = [None if i % 5 == 0 else one for i, one in enumerate(labels)]
    kept = [i for i, one in enumerate(blanks) if one]
    found = few_shot(x, blanks, patients, ids=ids, shots=(2,), n_episodes=10)
    alone = few_shot(
        x[kept],
        *[[column[i] for i in kept] for column in (labels, patients)],
        ids=[ids[i] for i in kept],
        shots=(2,),
        n_episodes=10,
    )
    assert found.figures == alone.figures
    assert found.warnings[-1] == f"{len(x) - len(kept)} rows without a label were set aside."


def test_queries_and_one_episode_are_all_that_is_held():
    import tracemalloc

    x, labels, patients, _ = world(n_patients=40, n_each=30, width=200)
    task, rows = coded(labels, patients, max_queries=300)
    episodes = draw_episodes(rows.truth, rows.patients, task.classes, wanted=4, n_episodes=100)
    tracemalloc.start()
    _answers(x, rows, episodes, (1, 4), 4)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * len(rows.queries) * 200 * 8  # 100 episodes at once would be 100 times the queries


def test_what_does_not_fit_is_refused():
    x, labels, patients, ids = world()
    with pytest.raises(ValueError, match="the same id"):
        few_shot(x, labels, patients, ids=["t"] * len(x))
    with pytest.raises(ValueError, match="there are 3 ids"):
        few_shot(x, labels, patients, ids=ids[:3])
    with pytest.raises(ValueError, match="shots, episodes and queries >= 1"):
        few_shot(x, labels, patients, shots=(0, 1))
    with pytest.raises(ValueError, match="none of the encoders"):
        few_shot(x, labels, patients, reference="other")
    with pytest.raises(ValueError, match=r"needs \(120, D\) features"):
        few_shot(x[:5], labels, patients)
    with pytest.raises(EvaluationError, match="no encoder"):
        few_shot({}, labels, patients)
    bad = x.copy()
    bad[7, 2] = np.nan
    with pytest.raises(StoreError, match="row 7"):
        few_shot(bad, labels, patients)
    with pytest.raises(ValueError, match="need"):
        simple_shot(x, np.zeros(3), x)
    with pytest.raises(ValueError, match="need"):
        simple_shot(x, np.zeros(len(x)), x[:, :2])
    found = few_shot(x, labels, patients, shots=(1,), n_episodes=3)
    with pytest.raises(KeyError, match="at 2 shots"):
        found.figure(2)
