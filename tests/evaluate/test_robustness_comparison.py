"""Robustness of several encoders on the same neighbours and draws: golden figures, loops, k by PathoROB's rule."""

import json
import math

import numpy as np
import pytest

from histokin.errors import EvaluationError, StoreError
from histokin.evaluate import compare_robustness
from histokin.evaluate.intervals import patient_weights
from histokin.evaluate.robustness import choose_k, robustness_index

INDEX_F1 = {1: 0.558558558559, 11: 0.550438596491, 46: 0.540577481633, 60: 0.526183216227}


class World:
    """Patients of one centre each whose tiles are of two classes; two slides a patient."""

    def __init__(self, n_patients=16, n_tiles=12, seed=0):
        self.rng = np.random.default_rng(seed)
        self.patients = np.repeat(np.arange(n_patients), n_tiles)
        self.centres = self.patients % 2
        self.slides = self.patients * 2 + np.arange(len(self.patients)) % 2
        self.classes = self.rng.integers(0, 2, len(self.patients))
        self.columns = self.classes, self.centres, self.patients, self.slides

    def features(self, *, biology=0.0, site=0.0, d=8):
        x = self.rng.normal(size=(len(self.patients), d))
        x[:, 0] += biology * (2 * self.classes - 1)
        x[:, 1] += site * (2 * self.centres - 1)
        return x


def slow_index(x, world, k, *, is_scaled=None):
    """(P, 2) SO and OS of each patient's queries one at a time: by cosine, or Euclidean, z-scored or not."""
    if is_scaled is None:
        z = x / np.linalg.norm(x, axis=1, keepdims=True)
    else:
        z = (x - x.mean(axis=0)) / x.std(axis=0) if is_scaled else x
    found = np.zeros((len(set(world.patients.tolist())), 2))
    for i in range(len(z)):
        allowed = [j for j in range(len(z)) if world.patients[j] != world.patients[i]]
        for j in sorted(allowed, key=lambda j: (round(float(((z[i] - z[j]) ** 2).sum()), 9), j))[:k]:
            is_class, is_centre = world.classes[i] == world.classes[j], world.centres[i] == world.centres[j]
            found[world.patients[i]] += [is_class and not is_centre, is_centre and not is_class]
    return found


@pytest.mark.parametrize("k", INDEX_F1)
def test_set_f1_gives_the_golden_index_in_company(f1, k):
    columns = f1.label, f1.site, f1.patient, f1.slide
    other = np.random.default_rng(0).normal(size=f1.x.shape)
    found = compare_robustness({"other": other, "e": f1.x}, *columns, k=k, leave_out="slide", reference="e")
    alone = robustness_index(f1.x, *columns, k, leave_out="slide")
    figure = found.figure()
    assert figure.value == pytest.approx(INDEX_F1[k], abs=1e-9)
    assert (figure.value, figure.interval, figure.chance) == (alone.value, alone.interval, alone.null)
    assert found.shares["e"] == alone.shares
    assert (found.protocol["k"], found.protocol["k_chosen"], found.protocol["k_by_row"]) == (k, "given", {})
    assert (found.protocol["n_queries"], found.protocol["n_patients"]) == (240, 24)


def test_floors_are_ranked_by_their_own_distance_and_members_are_averaged():
    world = World(n_patients=6, n_tiles=8)
    x = world.features(biology=1.5, site=1)
    stretched = x * [10, 1, 1, 1, 1, 1, 1, 1] + 3
    members = [world.features(site=1), world.features(biology=1)]
    found = compare_robustness(
        {"e": stretched},
        *world.columns,
        floors={"colour": stretched, "histogram": stretched, "random": members},
        k=5,
    )
    scaled = {"e": None, "colour": True, "histogram": False}
    for name, is_scaled in scaled.items():
        so, os = slow_index(stretched, world, 5, is_scaled=is_scaled).sum(axis=0)
        assert found.figure(name=name).value == pytest.approx(so / (so + os)), name
        assert found.shares[name]["SO"] == pytest.approx(so / (5 * len(x)))
    assert len({found.figure(name=name).value for name in scaled}) == 3
    alone = [robustness_index(one, *world.columns, 5) for one in members]
    assert found.figure(name="random").value == pytest.approx(np.mean([one.value for one in alone]))
    assert found.shares["random"]["OO"] == pytest.approx(np.mean([one.shares["OO"] for one in alone]))
    assert [f.kind for f in found.figures] == ["encoder", "floor", "floor", "floor"]
    assert found.protocol["distances"] == {
        "e": "cosine",
        "colour": "euclidean, z-scored",
        "histogram": "euclidean",
        "random": "cosine",
    }
    assert found.protocol["members"]["random"] == 2


def test_differences_are_of_the_same_resampled_patients():
    world = World()
    strong, weak = world.features(biology=2), world.features(biology=0.5, site=1)
    found = compare_robustness({"strong": strong, "weak": weak, "same": strong.copy()}, *world.columns, k=7)
    delta, none = (found.figure(name=name).delta for name in ("weak", "same"))
    weights = patient_weights(16)
    order = sorted(range(16), key=str)  # patients are known by their names
    drawn = [weights @ slow_index(x, world, 7)[order] for x in (strong, weak)]
    first, second = (one[:, 0] / one.sum(axis=1) for one in drawn)
    expected = np.quantile(first - second, [0.025, 0.975])
    assert (delta.interval.low, delta.interval.high) == pytest.approx(tuple(expected))
    assert delta.value == pytest.approx(found.figure().value - found.figure(name="weak").value)
    assert delta.interval.low > 0
    assert math.isnan(delta.p)  # a ratio of sums that differ between rows is no sum over patients
    assert (none.value, none.interval.low, none.interval.high) == (0, 0, 0)
    assert found.figure().delta is None
    turned = next(one.delta for one in found.against("weak") if one.name == "strong")
    assert turned.value == -delta.value
    assert (turned.interval.low, turned.interval.high) == pytest.approx((-expected[1], -expected[0]))
    with pytest.raises(KeyError, match="no row 'none'; there are strong, weak, same"):
        found.against("none")


def test_k_is_the_median_over_rows_of_what_each_would_choose():
    world = World(seed=3)
    sets = {name: world.features(biology=b, site=1) for name, b in (("a", 0.4), ("b", 3.0), ("c", 0.8), ("d", 0.2))}
    classes, _, patients, slides = world.columns
    wanted = {name: choose_k(x, classes, patients, slides).k for name, x in sets.items()}
    assert len(set(wanted.values())) > 1
    found = compare_robustness(sets, *world.columns)
    assert found.protocol["k_by_row"] == wanted
    assert found.protocol["k"] == np.median(list(wanted.values()))  # of four rows between the middle two
    assert found.protocol["k"] not in wanted.values()
    assert found.protocol["k_chosen"].startswith("median over rows")
    three = compare_robustness({name: sets[name] for name in "abc"}, *world.columns)
    assert three.protocol["k"] == sorted(wanted[name] for name in "abc")[1]
    at = three.protocol["k"]
    assert three.figure(name="c").value == robustness_index(sets["c"], *world.columns, at).value
    floored = compare_robustness({"b": sets["b"]}, *world.columns, floors={"random": [sets["b"], sets["b"]]})
    assert floored.protocol["k_by_row"] == {"b": wanted["b"], "random": wanted["b"]}


def test_labels_exchanged_between_rows_fall_to_the_null_for_every_row():
    gaps = []
    for seed in range(25):
        world = World(n_patients=10, seed=seed)
        x = world.features()
        found = compare_robustness({"e": x}, *world.columns, floors={"texture": x[:, :4]}, k=5)
        gaps.append([one.value - one.chance for one in found.figures])
    error = np.std(gaps, axis=0, ddof=1) / math.sqrt(25)
    assert (np.abs(np.mean(gaps, axis=0)) < 4 * error).all()


def test_what_is_wrong_with_a_cohort_is_said_once_for_all_rows():
    world = World()
    classes = np.where(world.rng.random(len(world.classes)) < 0.15, 1 - world.centres, world.centres).astype(object)
    classes[:3] = None
    x = world.features()
    found = compare_robustness({"a": x, "b": x[:, :3]}, classes, *world.columns[1:], k=500)
    assert len(found.warnings) == 3
    assert f"the null value of {found.figure().chance:.3f}" in found.warnings[0]
    assert found.warnings[1] == "3 tiles without class or centre are left out."
    assert found.warnings[2] == "189 of 189 queries have fewer than 500 tiles that may answer."
    assert found.protocol["n_unlabelled"] == 3
    text = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert {one["name"] for one in text["figures"]} == set(text["shares"]) == {"a", "b"}


def test_misuse_is_refused():
    world = World(n_patients=4)
    x = world.features()
    with pytest.raises(ValueError, match=r"b has shape \(47, 8\) for 48 tiles"):
        compare_robustness({"a": x, "b": x[1:]}, *world.columns)
    with pytest.raises(ValueError, match="a is both an encoder and a floor"):
        compare_robustness({"a": x}, *world.columns, floors={"a": x})
    with pytest.raises(ValueError, match="reference 'c' is none of the encoders"):
        compare_robustness({"a": x}, *world.columns, reference="c")
    with pytest.raises(ValueError, match="leave_out must be patient or slide"):
        compare_robustness({"a": x}, *world.columns, leave_out="site")
    with pytest.raises(ValueError, match="k must be at least 1"):
        compare_robustness({"a": x}, *world.columns, k=0)
    with pytest.raises(EvaluationError, match="all tiles are of one centre"):
        compare_robustness({"a": x}, world.classes, np.zeros(48), *world.columns[2:])
    with pytest.raises(EvaluationError, match="there is no encoder"):
        compare_robustness({}, *world.columns)
    with pytest.raises(KeyError, match="no figure accuracy of a"):
        compare_robustness({"a": x}, *world.columns, k=1).figure("accuracy")
    x[5] = 0
    with pytest.raises(StoreError, match="b, row 5: the vector is zero"):
        compare_robustness({"a": world.features(), "b": x}, *world.columns)
