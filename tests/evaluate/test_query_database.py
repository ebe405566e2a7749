"""Queries and database apart: against slow loops, enumerations and planted leaks, with patients on both sides."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from histokin.errors import EvaluationError
from histokin.evaluate import Items, evaluate_retrieval, evaluate_slides, retrieve_classes, shuffled_labels_control
from histokin.evaluate.chance import exchanged
from histokin.evaluate.items import make_task
from histokin.evaluate.robustness.index import placed_task
from histokin.evaluate.vectors import nearest_allowed
from histokin.evaluate.votes import votes_right
from histokin.streams import stream

RULES = ["patient", "slide", "region", "site", "self"]


class World:
    """Tiles of `n_patients` patients, two slides each, two regions a slide; some unlabelled; both sides share patients.

    Attributes:
        x: (N, 4), a few distinct vectors many times over, so that most neighbours tie.
        queries, database: (N,) bool; a tile may be on both sides or on neither.
    """

    def __init__(self, n_patients: int = 9, n_tiles: int = 8, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        patient = np.repeat(np.arange(n_patients), n_tiles)
        spot = np.arange(len(patient)) % n_tiles
        label = rng.choice(3, len(patient), p=[0.5, 0.3, 0.2])
        self.items = Items.of(
            [None if i % 11 == 5 else f"c{one}" for i, one in enumerate(label)],
            [f"p{one}" for one in patient],
            [f"s{one}-{n % 2}" for one, n in zip(patient, spot, strict=True)],
            [f"h{one % 3}" for one in patient],
            ["ab"[2 * n // n_tiles] for n in spot],
        )
        self.x = rng.normal(size=(15, 4))[3 * label + rng.integers(0, 6, len(patient))]
        self.queries, self.database = rng.random(len(patient)) < 0.4, rng.random(len(patient)) < 0.6

    @property
    def sides(self) -> dict[str, np.ndarray]:
        return {"queries": self.queries, "database": self.database}

    def allowed(self, leave_out: str) -> dict[int, list[int]]:
        """By query, the rows that may answer it: a loop over the definition."""
        found = {}
        labelled = [i for i, label in enumerate(self.items.label) if label is not None]
        for i in labelled:
            if self.queries[i]:
                found[i] = [
                    j for j in labelled if self.database[j] and self.unit(i, leave_out) != self.unit(j, leave_out)
                ]
        return found

    def unit(self, i: int, leave_out: str) -> object:
        if leave_out == "region":
            return self.items.slide[i], self.items.region[i]
        return i if leave_out == "self" else getattr(self.items, leave_out)[i]

    def nearest(self, leave_out: str, k: int) -> dict[int, list[int]]:
        z = self.x / np.linalg.norm(self.x, axis=1, keepdims=True)
        return {
            i: sorted(rows, key=lambda j: (round(float(((z[i] - z[j]) ** 2).sum()), 9), j))[:k]
            for i, rows in self.allowed(leave_out).items()
        }


def test_half_the_sides_share_patients_in_these_worlds() -> None:
    world = World()
    asking, answering = (set(world.items.patient[side]) for side in (world.queries, world.database))
    assert len(asking & answering) > 4


@pytest.mark.parametrize("leave_out", RULES)
def test_answers_candidates_and_figures_equal_a_loop(leave_out: str) -> None:
    world = World()
    found = evaluate_retrieval({"e": world.x}, world.items, leave_out=leave_out, **world.sides)
    frame, task = found.frames["e"][0], found.task
    allowed, nearest = world.allowed(leave_out), world.nearest(leave_out, 5)
    assert task.rows[frame.query].tolist() == list(allowed)
    label = world.items.label
    assert [[int(task.rows[i]) for i in row if i >= 0] for row in frame.ids] == list(nearest.values())
    assert frame.n_allowed.tolist() == [len(rows) for rows in allowed.values()]
    assert frame.n_relevant.tolist() == [sum(label[j] == label[i] for j in rows) for i, rows in allowed.items()]
    for k in (1, 3, 5):
        hits = [any(label[j] == label[i] for j in rows[:k]) for i, rows in nearest.items()]
        assert found.result("e", f"acc@{k}").value == pytest.approx(np.mean(hits))
    assert found.protocol["query_database"] == "split"
    assert found.protocol["n_database"] == sum(
        side and one is not None for side, one in zip(world.database, label, strict=True)
    )
    assert found.protocol["n_queries"] == len(allowed)


def test_macro_f1_is_given_at_every_length_and_is_scikit_learns() -> None:
    world = World(seed=4)
    found = evaluate_retrieval({"e": world.x}, world.items, **world.sides)
    label, nearest = world.items.label, world.nearest("patient", 5)
    for k in (1, 3, 5):
        said = [max((label[j] for j in rows[:k]), key=[label[j] for j in rows[:k]].count) for rows in nearest.values()]
        truth = [label[i] for i in nearest]
        expected = f1_score(truth, said, labels=sorted(set(truth)), average="macro")
        assert found.result("e", f"macro_f1@{k}").value == pytest.approx(expected)


def test_chance_equals_the_mean_over_every_draw_of_candidates() -> None:
    world = World(n_patients=4, n_tiles=5, seed=3)
    found = evaluate_retrieval({"e": world.x}, world.items, k=(1, 3), **world.sides)
    label, acc, mmv = world.items.label, [], []
    for i, rows in world.allowed("patient").items():
        orders = np.array([[label[j] for j in order] for order in itertools.permutations(rows, 3)])
        codes = np.unique(orders, return_inverse=True)[1].reshape(orders.shape)
        own = codes[orders == label[i]]
        acc.append((orders == label[i]).any(axis=1).mean())
        truth = np.full(len(codes), own[0] if len(own) else 99)
        mmv.append(votes_right(codes, truth, rule="rank").mean())
    assert found.result("e", "acc@3").chance == pytest.approx(np.mean(acc))
    assert found.result("e", "mmv@3").chance == pytest.approx(np.mean(mmv))


@pytest.mark.parametrize("leave_out", RULES)
def test_everyone_on_both_sides_is_no_split_at_all(leave_out: str) -> None:
    world = World()
    everyone = np.ones(len(world.x), dtype=bool)
    how = {
        "floors": {"colour": world.x[:, :2], "random": [world.x, -world.x]},
        "leave_out": leave_out,
        "max_queries": 40,
    }
    plain = evaluate_retrieval({"e": world.x}, world.items, **how)
    divided = evaluate_retrieval({"e": world.x}, world.items, queries=everyone, database=everyone, **how)
    assert repr(divided.results) == repr(plain.results)  # NaN equals no NaN
    assert divided.per_class == plain.per_class
    assert divided.warnings == plain.warnings
    assert plain.protocol["query_database"] == "all"
    more = {"query_database": "split", "n_database": plain.protocol["n_labelled"]}
    assert divided.protocol == plain.protocol | more
    first, second = (
        shuffled_labels_control(world.x, world.items, leave_out=leave_out, n_shuffles=9, **sides)
        for sides in ({}, {"queries": everyone, "database": everyone})
    )
    assert first == second


def test_a_patient_on_both_sides_never_answers_himself_though_a_copy_of_the_query_is_there() -> None:
    world = World(seed=1)
    copies = np.flatnonzero(world.queries)
    x = np.concatenate([np.random.default_rng(0).normal(size=world.x.shape), np.zeros((len(copies), 4))])
    x[len(world.x) :] = x[copies]
    both = [world.items.take(np.arange(len(world.x))), world.items.take(copies)]
    items = Items(
        *(np.concatenate([getattr(one, name) for one in both]) for name in ("label", "patient", "slide", "site"))
    )
    is_copy = np.arange(len(x)) >= len(world.x)
    sides = {
        "queries": np.concatenate([world.queries, np.zeros(len(copies), bool)]),
        "database": np.concatenate([world.database & ~world.queries, np.ones(len(copies), bool)]),
    }
    leaky = evaluate_retrieval({"e": x}, items, leave_out="self", **sides)
    clean = evaluate_retrieval({"e": x}, items, **sides)
    assert leaky.result("e", "acc@1").value == 1.0
    assert is_copy[leaky.task.rows[leaky.frames["e"][0].ids[:, 0]]].all()
    assert "neighbours share its slide and patient. This is not a result." in leaky.warnings[0]
    frame = clean.frames["e"][0]
    patient = clean.items.patient[clean.task.rows]
    assert (patient[frame.ids] != patient[frame.query][:, None])[frame.ids >= 0].all()
    assert clean.result("e", "acc@1").value < 0.7


def test_floors_are_scaled_by_the_database_alone() -> None:
    world = World(seed=2)
    x = np.random.default_rng(0).normal(size=(len(world.x), 3)).astype(np.float32)
    x[world.queries & ~world.database] *= [40, 1, 1]  # queries of another scanner must not set the scale
    found = evaluate_retrieval({"e": world.x}, world.items, floors={"colour": x}, **world.sides)
    frame, rows = found.frames["colour"][0], found.task.rows
    labelled = np.array([label is not None for label in world.items.label])
    held = x[world.database & labelled].astype(np.float64)
    z = (x.astype(np.float64) - held.mean(axis=0)) / held.std(axis=0)
    for i, answer in zip(rows[frame.query], rows[frame.ids[:, 0]], strict=True):
        allowed = world.allowed("patient")[int(i)]
        assert answer == min(allowed, key=lambda j: float(((z[i] - z[j]) ** 2).sum()))


def test_another_order_of_the_rows_gives_the_same_figures() -> None:
    world = World()
    world.x = np.random.default_rng(5).normal(size=world.x.shape)
    order = np.random.default_rng(6).permutation(len(world.x))
    first = evaluate_retrieval({"e": world.x}, world.items, **world.sides)
    turned = {side: mask[order] for side, mask in world.sides.items()}
    second = evaluate_retrieval({"e": world.x[order]}, world.items.take(order), **turned)
    for a, b in zip(first.results, second.results, strict=True):
        assert (a.metric, a.value) == (b.metric, pytest.approx(b.value))
        if a.vote != "rank" or a.metric.startswith("mmv"):  # macro-F1's chance is a mean of random orders
            assert a.chance == pytest.approx(b.chance)
        assert (a.interval.low, a.interval.high) == pytest.approx((b.interval.low, b.interval.high), nan_ok=True)
    assert json.dumps(first.protocol) == json.dumps(second.protocol)


def _labelled_patients(sides: str, labels: str, n_tiles: int = 3) -> tuple[Items, dict[str, np.ndarray]]:
    """Patients of one label each, and by a letter the side of each: Q asks, D answers, B does both, N neither."""
    patient = np.repeat(np.arange(len(labels)), n_tiles)
    side = np.array(list(sides))[patient]
    items = Items.of([labels[p] for p in patient], patient, [f"{p}-{i}" for i, p in enumerate(patient)])
    return items, {"queries": np.isin(side, ["Q", "B"]), "database": np.isin(side, ["D", "B"])}


def test_the_null_keeps_the_classes_of_either_side() -> None:
    # One query in six is `a`, and five candidates in six: exchanged over all patients half of the answers would agree.
    items, sides = _labelled_patients("QQQQQQDDDDDD", "abbbbbaaaaab")
    x = np.random.default_rng(0).normal(size=(len(items), 4))
    result = evaluate_retrieval({"e": x}, items, k=(1, 3), **sides).result("e", "acc@1")
    assert result.chance == pytest.approx((1 * 5 + 5 * 1) / 36)
    assert result.null == pytest.approx(result.chance, abs=0.03)


def test_the_null_is_that_of_a_loop_over_exchanges_within_roles() -> None:
    items, sides = _labelled_patients("QQQQDDDDDBBB", "aabbabbbbaab")
    x = np.random.default_rng(1).normal(size=(len(items), 4))
    found = evaluate_retrieval({"e": x}, items, k=(1, 3), **sides)
    frame, task = found.frames["e"][0], found.task
    rng, drawn = np.random.default_rng(2), []
    of_patient = np.array(list("aabbabbbbaab"))
    for _ in range(1000):
        label = of_patient.copy()
        for own in (slice(0, 4), slice(4, 9), slice(9, 12)):
            label[own] = rng.permutation(label[own])
        of_tile = label[items.patient[task.rows].astype(int)]
        drawn.append((of_tile[frame.ids] == of_tile[frame.query][:, None]).any(axis=1).mean())
    spread = np.std(drawn, ddof=1)
    assert found.result("e", "acc@3").null == pytest.approx(np.mean(drawn), abs=4 * spread / np.sqrt(200))


@pytest.mark.parametrize("leave_out", ["patient", "slide"])  # patients exchange their labels, or items do
@pytest.mark.parametrize("sides", ["QQQDDDB", "QQDDDBB", "QQBBBBB", "QQQQQQB"])
def test_the_controls_chance_is_the_mean_over_every_exchange(leave_out: str, sides: str) -> None:
    labels = "abbaabb"
    items, masks = _labelled_patients(sides, labels, n_tiles=1)
    x = np.random.default_rng(3).normal(size=(len(labels), 3))
    control = shuffled_labels_control(x, items, leave_out=leave_out, n_shuffles=50, **masks)
    task = make_task(items, leave_out=leave_out, max_queries=99, seed=0, **masks)
    nearest = nearest_allowed("e", x, task, 1).ids[:, 0]
    own = [[i for i, side in enumerate(sides) if side == role] for role in "QDB"]
    values = []
    for orders in itertools.product(*(itertools.permutations(rows) for rows in own)):
        label = np.array(list(labels))
        for rows, order in zip(own, orders, strict=True):
            label[list(rows)] = [labels[i] for i in order]
        values.append(np.mean([n >= 0 and label[n] == label[q] for q, n in zip(task.queries, nearest, strict=True)]))
    assert control.chance == pytest.approx(np.mean(values), abs=1e-12)
    assert control.unit == ("patient" if leave_out == "patient" else "tile")
    assert control.is_at_chance


def test_labels_change_places_within_their_role_only() -> None:
    labels, roles = np.arange(12), np.repeat([0, 2, 3], 4)
    drawn = exchanged(labels, roles, stream(0, "test"))
    assert [sorted(drawn[roles == role]) for role in (0, 2, 3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert (drawn != labels).any()


def test_queries_whose_class_no_candidate_has_are_counted_misses() -> None:
    items, sides = _labelled_patients("QQQQQDDDDD", "abcabababb")
    x = np.eye(3)[[ord(label) - ord("a") for label in items.label]]
    found = evaluate_retrieval({"e": x}, items, **sides)
    result = found.result("e", "acc@1")
    assert (result.value, result.n_unanswerable, result.n_queries) == (0.8, 3, 15)
    assert "3 of 15 queries cannot be answered: no candidate outside their own patient carries c." in found.warnings[0]
    everyone = retrieve_classes({"e": x}, items, **sides)
    assert everyone.figure("c").value == everyone.figure("c").chance == 0
    assert any("3 of 3 queries of c cannot be answered" in warning for warning in everyone.warnings)


def test_patients_apart_make_lenient_rules_honest_and_rows_of_neither_side_are_counted() -> None:
    items, sides = _labelled_patients("QQQNNDDDD", "abaababba")
    x = np.random.default_rng(0).normal(size=(len(items), 3))
    for rule in ("self", "patient"):
        found = evaluate_retrieval({"e": x}, items, leave_out=rule, **sides)
        assert found.warnings == ("6 labelled items are neither queries nor database: they took no part.",)
        assert found.protocol["n_labelled"] == 27
    assert "NaN" not in json.dumps(found.to_json())


def test_classes_are_asked_and_answered_across_the_split_as_in_retrieval() -> None:
    world = World(seed=7)
    found = retrieve_classes({"e": world.x}, world.items, **world.sides)
    whole = evaluate_retrieval({"e": world.x}, world.items, **world.sides)
    lines = [line for line in whole.per_class if line.metric == "acc@1"]
    assert [one.metric for one in found.figures] == [line.label for line in lines]
    for line in lines:
        figure = found.figure(line.label)
        assert (figure.value, figure.interval) == (line.value, line.interval)
        assert (figure.chance, found.n_queries[line.label]) == (pytest.approx(line.chance), line.n_queries)
    assert found.protocol["n_database"] == whole.protocol["n_database"]
    few = retrieve_classes({"e": world.x}, world.items, max_queries=6, **world.sides)
    assert sum(few.n_queries.values()) == 6
    assert few.protocol["query_sampling"].startswith("equal per class")
    labels = ["x" if i == 3 else label for i, label in enumerate(world.items.label)]
    rare, asking = Items.of(labels, world.items.patient, world.items.slide), np.arange(len(labels)) != 3
    assert [one.metric for one in retrieve_classes({"e": world.x}, rare, queries=asking).figures] == ["c0", "c1", "c2"]
    with pytest.raises(EvaluationError, match=r"no query is 'x'.*Ask about some of: c0, c1, c2"):
        retrieve_classes({"e": world.x}, rare, classes=["x"], queries=asking)


def test_only_those_that_may_ask_are_sampled_and_all_candidates_stay() -> None:
    world = World(n_patients=6, n_tiles=20)
    whole = evaluate_retrieval({"e": world.x}, world.items, **world.sides)
    found = evaluate_retrieval({"e": world.x}, world.items, max_queries=12, **world.sides)
    asked = found.task.rows[found.task.queries]
    assert world.queries[asked].all()
    assert np.unique(world.items.patient[asked], return_counts=True)[1].tolist() == [2] * 6
    assert found.protocol["n_database"] == whole.protocol["n_database"]
    assert found.protocol["query_sampling"] == "equal per patient, at most 12"
    assert whole.protocol["query_sampling"] == "all"
    place = np.searchsorted(whole.task.queries, found.task.queries)
    assert (found.frames["e"][0].ids == whole.frames["e"][0].ids[place]).all()


@pytest.mark.parametrize("leave_out", ["patient", "self"])
def test_slides_answer_across_the_split_as_a_loop_says(leave_out: str) -> None:
    rng = np.random.default_rng(8)
    patient = np.arange(16) // 2
    items = Items.of([f"c{p % 2}" for p in patient], patient, [f"s{i:02d}" for i in range(16)])
    bags = [rng.normal(size=(rng.integers(3, 7), 5)) + 0.5 * (i // 2 % 2) for i in range(16)]
    queries, database = np.arange(16) % 3 == 0, np.arange(16) % 4 != 1
    scaled = [bag * [1, 9, 1, 1, 1] for bag in bags]
    found = evaluate_slides(
        {"e": bags}, items, floors={"colour": scaled}, leave_out=leave_out, queries=queries, database=database, k=(1, 3)
    )
    held = np.concatenate([scaled[i] for i in np.flatnonzero(database)])
    z = [(bag - held.mean(axis=0)) / held.std(axis=0) for bag in scaled]
    unit = [(bag / np.linalg.norm(bag, axis=1, keepdims=True)) for bag in bags]
    for row, strategy in (("e", "mean"), ("e", "median_min"), ("colour", "mean")):
        frame = found.frames[f"{row} ({strategy})"][0]
        for number, q in enumerate(np.flatnonzero(queries)):
            scores = {}
            for j in np.flatnonzero(database):
                if (patient[j] == patient[q]) if leave_out == "patient" else j == q:
                    continue
                if strategy == "median_min":
                    scores[j] = np.median((unit[q] @ unit[j].T).max(axis=1))
                elif row == "e":
                    a, b = unit[q].mean(axis=0), unit[j].mean(axis=0)
                    scores[j] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
                else:
                    scores[j] = -np.linalg.norm(z[q].mean(axis=0) - z[j].mean(axis=0))
            expected = sorted(scores, key=lambda j: (-scores[j], j))[:3]
            assert found.task.rows[frame.ids[number]].tolist() == expected
    assert found.protocol["n_database"] == 12


def test_the_null_of_the_robustness_index_counts_candidates_alone() -> None:
    rng = np.random.default_rng(9)
    patients, classes, centres = np.repeat(np.arange(8), 5), rng.integers(0, 2, 40), rng.integers(0, 3, 40)
    placed = placed_task(classes, centres, patients, patients, leave_out="patient", max_queries=99, seed=0)
    database = np.flatnonzero(np.arange(40) % 3 > 0)
    divided = replace(placed, task=replace(placed.task, database=database))
    so, either = 0.0, 0.0
    for q in range(40):
        rows = [j for j in database if patients[j] != patients[q]]
        kinds = [(classes[j] == classes[q], centres[j] == centres[q]) for j in rows]
        so += min(3, len(rows)) * kinds.count((True, False)) / len(rows)
        either += min(3, len(rows)) * (kinds.count((True, False)) + kinds.count((False, True))) / len(rows)
    assert divided.null(3) == pytest.approx(so / either)


def test_a_side_without_labelled_items_or_another_shape_is_refused() -> None:
    world = World()
    nobody = np.zeros(len(world.x), dtype=bool)
    unlabelled = np.array([label is None for label in world.items.label])
    for mask in (nobody, unlabelled):
        with pytest.raises(EvaluationError, match="not one labelled item is a query"):
            evaluate_retrieval({"e": world.x}, world.items, queries=mask)
        with pytest.raises(EvaluationError, match="not one labelled item is in the database"):
            shuffled_labels_control(world.x, world.items, database=mask)
    with pytest.raises(ValueError, match="queries must be one bool for each of 72 items, got bool of shape"):
        evaluate_retrieval({"e": world.x}, world.items, queries=nobody[1:])
    with pytest.raises(ValueError, match="database must be one bool for each of 72 items, got int64"):
        retrieve_classes({"e": world.x}, world.items, database=np.arange(72))
    own = world.items.patient == "p3"
    with pytest.raises(EvaluationError, match=r"belong to one patient \(p3\)"):
        evaluate_retrieval({"e": world.x}, world.items, queries=own, database=own)
