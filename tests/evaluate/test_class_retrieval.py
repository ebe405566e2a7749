"""Class retrieval against a loop, exact chance, planted leaks and the retrieval protocol it must agree with."""

import json
import math

import numpy as np
import pytest

from histokin.errors import EvaluationError, StoreError
from histokin.evaluate import Items, evaluate_retrieval, retrieve_classes
from histokin.evaluate.intervals import patient_weights, wilson_interval


def cohort(n_patients=12, n_tiles=10, shares=(0.7, 0.2, 0.1), seed=0):
    """Items with classes c0, c1, .. of given shares inside every patient, two slides a patient, three sites."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), n_tiles)
    label = rng.choice(len(shares), len(patient), p=shares)
    slide = patient * 2 + np.arange(len(patient)) % 2
    return Items.of(
        [f"c{one}" for one in label],
        [f"p{one:02d}" for one in patient],
        [f"s{one:03d}" for one in slide],
        [f"h{one % 3}" for one in patient],
    ), label


def slow(x, items, leave_out, *, is_cosine=True):
    """By class, of its queries one at a time: hits by patient, and the mean share of it among the allowed."""
    z = x / np.linalg.norm(x, axis=1, keepdims=True) if is_cosine else x
    hits, shares = {}, {}
    labelled = [i for i in range(len(z)) if items.label[i] is not None]
    for i in labelled:
        if leave_out == "self":
            allowed = [j for j in labelled if j != i]
        else:
            column = getattr(items, leave_out)
            allowed = [j for j in labelled if column[j] != column[i]]
        # Equal distances: the earlier row.
        best = min(allowed, key=lambda j: (round(float(((z[i] - z[j]) ** 2).sum()), 9), j))
        own = hits.setdefault(items.label[i], {}).setdefault(items.patient[i], [])
        own.append(items.label[best] == items.label[i])
        shares.setdefault(items.label[i], []).append(np.mean([items.label[j] == items.label[i] for j in allowed]))
    return hits, {label: float(np.mean(one)) for label, one in shares.items()}


@pytest.mark.parametrize("leave_out", ["patient", "slide", "site", "self"])
def test_shares_chance_and_intervals_equal_a_loop_with_ties(leave_out):
    items, label = cohort()
    items.label[3] = items.label[17] = None
    rng = np.random.default_rng(1)
    kind = 3 * label + rng.integers(0, 6, len(label))
    x = rng.normal(size=(12, 4))[kind]  # a dozen different tiles: the nearest is one of many that tie
    found = retrieve_classes({"e": x}, items, floors={"histogram": x}, leave_out=leave_out)
    for name, is_cosine in (("e", True), ("histogram", False)):
        hits, chance = slow(x, items, leave_out, is_cosine=is_cosine)
        for one, of_patient in hits.items():
            figure = found.figure(one, name)
            every = np.concatenate(list(of_patient.values()))
            assert figure.value == pytest.approx(every.mean())
            assert figure.chance == pytest.approx(chance[one])
            assert (found.n_queries[one], found.n_patients[one]) == (len(every), len(of_patient))
            assert found.prevalence[one] == pytest.approx(len(every) / (len(label) - 2))
            assert found.protocol["lift"][name][one] == pytest.approx(every.mean() / chance[one])
            if leave_out == "patient":
                sums = np.array([[sum(v), len(v)] for v in of_patient.values()], dtype=float)
                assert figure.interval == wilson_interval(*sums.T)
    assert [one.metric for one in found.figures] == ["c0", "c1", "c2"] * 2


def test_values_are_those_of_the_retrieval_protocol_at_one_neighbour(f1):
    found = retrieve_classes({"e": f1.x}, f1.items)
    lines = [line for line in evaluate_retrieval({"e": f1.x}, f1.items).per_class if line.metric == "acc@1"]
    assert len(lines) == 4
    for line in lines:
        figure = found.figure(line.label)
        assert (figure.value, figure.interval) == (line.value, line.interval)
        assert figure.chance == pytest.approx(line.chance)
        assert (found.n_queries[line.label], found.n_patients[line.label]) == (line.n_queries, line.n_patients)
    everyone = sum(found.figure(line.label).value * line.n_queries for line in lines) / 240
    assert everyone == pytest.approx(0.675)  # golden case retrieval_F1, k = 1


def test_shuffled_labels_fall_to_chance_in_every_class():
    items, label = cohort(n_patients=10, n_tiles=12)
    x = np.eye(3)[label] * 3 + np.random.default_rng(0).normal(size=(len(label), 3))
    told = retrieve_classes({"e": x}, items)
    assert told.figure("c2").value > told.figure("c2").chance + 0.3
    gaps = []
    for seed in range(40):
        order = np.random.default_rng(seed).permutation(len(label))
        mixed = Items(items.label[order], items.patient, items.slide, items.site)
        found = retrieve_classes({"e": x}, mixed)
        gaps.append([found.figure(one).value - found.figure(one).chance for one in ("c0", "c1", "c2")])
    error = np.std(gaps, axis=0, ddof=1) / math.sqrt(len(gaps))
    assert (np.abs(np.mean(gaps, axis=0)) < 4 * error).all()
    assert (error < 0.03).all()


def test_tiles_that_only_resemble_their_own_slide_answer_under_self_and_not_under_patient():
    # Each slide has one class and a place of its own in feature space: the class is known to its neighbours alone.
    rng = np.random.default_rng(0)
    slide = np.repeat(np.arange(40), 5)
    label = (rng.permutation(40) % 4 == 0)[slide]
    items = Items.of(np.where(label, "tumour", "normal"), slide // 2, slide)
    x = 5 * rng.normal(size=(40, 12))[slide] + 0.1 * rng.normal(size=(200, 12))
    leaky = retrieve_classes({"e": x}, items, leave_out="self", classes=["tumour"])
    clean = retrieve_classes({"e": x}, items, classes=["tumour"])
    assert leaky.figure("tumour").value == 1
    assert clean.figure("tumour").interval.low < clean.figure("tumour").chance < clean.figure("tumour").interval.high
    assert clean.figure("tumour").value < 0.5
    assert leaky.warnings[0].endswith("neighbours share its slide and patient. This is not a result.")
    assert clean.warnings == ()


def test_other_classes_answer_though_they_are_not_asked():
    items, label = cohort()
    x = np.random.default_rng(0).normal(size=(len(label), 4))
    x[:, 0] += label
    whole = retrieve_classes({"e": x}, items)
    some = retrieve_classes({"e": x}, items, classes=["c2", "c1", "c2"])
    assert [one.metric for one in some.figures] == ["c2", "c1"]
    for one in ("c1", "c2"):
        assert some.figure(one) == whole.figure(one)
    assert some.protocol["classes"] == ["c0", "c1", "c2"]
    assert set(some.n_queries) == set(some.prevalence) == {"c1", "c2"}


def test_encoders_are_compared_class_by_class_on_the_patients_that_have_it():
    items, label = cohort(n_patients=14)
    for i in np.flatnonzero(np.isin(items.patient, ["p00", "p01", "p02"])):
        items.label[i], label[i] = "c0", 0
    rng = np.random.default_rng(2)
    good = np.eye(3)[label] * 4 + rng.normal(size=(len(label), 3))
    bad = rng.normal(size=good.shape)
    found = retrieve_classes({"good": good, "bad": bad}, items, floors={"random": [bad, good]})
    n_clusters = found.protocol["n_clusters_of"]["c2"]
    assert n_clusters <= 11
    hits = [slow(x, items, "patient")[0]["c2"] for x in (good, bad)]
    sums = [np.array([sum(own) for own in one.values()]) for one in hits]
    sizes = np.array([len(own) for own in hits[0].values()])
    weights = patient_weights(n_clusters)
    drawn = (weights @ (sums[0] - sums[1])) / (weights @ sizes)
    delta = found.figure("c2", "bad").delta
    assert (delta.interval.low, delta.interval.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert delta.interval.n_clusters == n_clusters
    assert delta.p < 0.05
    assert delta.p_holm >= delta.p
    half = (found.figure("c2", "good").value + found.figure("c2", "bad").value) / 2
    assert found.figure("c2", "random").value == pytest.approx(half)
    assert found.figure("c2").delta is None
    turned = next(one for one in found.against("bad") if (one.name, one.metric) == ("good", "c2"))
    assert turned.delta.value == -delta.value
    assert turned.value == found.figure("c2", "good").value
    with pytest.raises(KeyError, match="no row 'none'; there are good, bad, random"):
        found.against("none")
    with pytest.raises(KeyError, match="no figure c9 of good"):
        found.figure("c9")
    text = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {one["metric"] for one in text["figures"]} == {"c0", "c1", "c2"}


def test_queries_are_sampled_equally_per_class_and_patient_while_all_tiles_answer():
    items, label = cohort(n_patients=10, n_tiles=40)
    x = np.random.default_rng(0).normal(size=(len(label), 4)) + label[:, None]
    few, whole = (retrieve_classes({"e": x}, items, max_queries=n) for n in (90, 400))
    assert sum(few.n_queries.values()) == 90
    assert set(few.n_queries.values()) == {30}
    assert min(few.n_patients.values()) == 10
    assert few.prevalence == whole.prevalence
    for one in few.n_queries:  # the same tiles may answer; patients count equally, not by their tiles
        assert few.figure(one).chance == pytest.approx(whole.figure(one).chance, abs=0.01)
    assert few.protocol["query_sampling"] == "equal per class, then per patient, at most 90"
    assert whole.protocol["query_sampling"] == "all"
    assert few.figures != retrieve_classes({"e": x}, items, max_queries=90, seed=1).figures


def test_a_class_of_one_patient_misses_always_and_this_is_told():
    items, label = cohort()
    own = np.flatnonzero(items.patient == "p05")[:4]
    items.label[own] = "rare"
    x = np.random.default_rng(0).normal(size=(len(label), 3))
    found = retrieve_classes({"e": x}, items)
    figure = found.figure("rare")
    assert (figure.value, figure.chance, str(figure.interval)) == (0, 0, "n/a (1 patient)")
    assert math.isnan(found.protocol["lift"]["e"]["rare"])
    assert found.to_json()["protocol"]["lift"]["e"]["rare"] is None
    told = "4 of 4 queries of rare cannot be answered: no candidate outside their own patient carries it."
    assert found.warnings == (f"{told} They count as misses.",)


def test_other_units_of_inference_can_be_given():
    items, label = cohort()
    x = np.random.default_rng(0).normal(size=(len(label), 3))
    found = retrieve_classes({"e": x}, items, clusters=[f"b{i // 4}" for i in range(len(label))], cluster="block")
    assert (found.figure("c0").interval.cluster, found.figure("c0").interval.n_clusters) == ("block", 30)


def test_misuse_is_refused():
    items, label = cohort(n_patients=4)
    x = np.random.default_rng(0).normal(size=(len(label), 3))
    with pytest.raises(EvaluationError, match=r"no labelled item is 'tumour'.*Ask about some of: c0, c1, c2"):
        retrieve_classes({"e": x}, items, classes=["c0", "tumour"])
    with pytest.raises(EvaluationError, match="no class is asked about"):
        retrieve_classes({"e": x}, items, classes=[])
    with pytest.raises(ValueError, match="max_queries must be at least one for each of 3 classes, got 2"):
        retrieve_classes({"e": x}, items, max_queries=2)
    with pytest.raises(ValueError, match=r"e has shape \(39, 3\) for 40 items"):
        retrieve_classes({"e": x[1:]}, items)
    with pytest.raises(ValueError, match="e is both an encoder and a floor"):
        retrieve_classes({"e": x}, items, floors={"e": x})
    with pytest.raises(EvaluationError, match="there is no encoder"):
        retrieve_classes({}, items)
    x[7] = 0
    with pytest.raises(StoreError, match="e, row 7: the vector is zero"):
        retrieve_classes({"e": x}, items)
