"""Distance ratios against golden figures and loops, limits of small slides, and pairs drawn fairly and repeatably."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.errors import EvaluationError, StoreError
from histokin.evaluate import compare_spatial, pair_limits, spatial_pairs
from histokin.evaluate.spatial import slide_ratios
from histokin.evaluate.spatial_pairs import draw_pairs, largest_distance

GOLDEN = {case["id"]: case for case in json.loads(Path(__file__).with_name("golden_probes.json").read_text())["cases"]}


def section(n=400, side_um=12_000, seed=0):
    return np.random.default_rng(seed).uniform(0, side_um, (n, 2))


def test_set_f1_gives_the_golden_ratio(f1):
    expected = GOLDEN["addr_F1"]["expected"]
    row = np.arange(240)
    where = np.column_stack([row % 5 * 700.0, row // 5 % 2 * 15_000.0])
    found = compare_spatial({"e": f1.x}, f1.patient, where, n_pairs=None)
    assert found.figure("addr").value == pytest.approx(expected["global_addr"], abs=1e-9)
    assert found.figure("addr_median").value == pytest.approx(expected["median_slide_addr"], abs=1e-9)
    assert sum(one.n_near for one in found.slides["e"]) == expected["n_near"]
    assert sum(one.n_far for one in found.slides["e"]) == expected["n_far"]
    assert found.figure().interval.method == "bca"
    assert found.figure().interval.low < found.figure().value < found.figure().interval.high


def test_the_hand_case_is_no_mean_of_ratios():
    case = GOLDEN["addr_tiny"]
    x = np.array(case["input"]["desc"], dtype=float)[:, None]
    where = np.column_stack([np.array(case["input"]["x_mm"]) * 1000.0, np.zeros(4)])
    found = compare_spatial({"e": x}, ["s"] * 4, where, n_pairs=None, is_unit=False)
    assert found.figure().value == pytest.approx(case["expected"]["global_addr"])
    assert found.figure().interval.note == "1 slide"


def test_all_pairs_equal_a_loop():
    where, x = section(60), np.random.default_rng(1).normal(size=(60, 5))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    near, far = [], []
    for i, j in itertools.combinations(range(60), 2):
        apart = math.dist(where[i], where[j])
        if 0 < apart < 2000:
            near.append(np.linalg.norm(unit[i] - unit[j]))
        elif apart > 10_000:
            far.append(np.linalg.norm(unit[i] - unit[j]))
    found = compare_spatial({"e": x}, ["s"] * 60, where, n_pairs=None).slides["e"][0]
    assert (found.n_near, found.n_far) == (len(near), len(far))
    assert (found.near, found.far) == pytest.approx((np.mean(near), np.mean(far)))


@pytest.mark.parametrize("n", [60, 400, 2500])
def test_drawn_pairs_are_distinct_and_keep_their_limits(n):
    where = section(n)
    (one,), dropped = draw_pairs(["s"] * n, where, n_pairs=300)
    assert dropped == {}
    assert len(one.near) == len(one.far) == min(300, one.n_near_possible, one.n_far_possible)
    for pairs in (one.near, one.far):
        assert (pairs[:, 0] < pairs[:, 1]).all()
        assert len(np.unique(pairs, axis=0)) == len(pairs)
    apart = [np.linalg.norm(where[p[:, 0]] - where[p[:, 1]], axis=1) for p in (one.near, one.far)]
    assert 0 < apart[0].min() <= apart[0].max() < 2000
    assert apart[1].min() > 10_000


def test_every_pair_is_drawn_equally_often():
    where = np.column_stack([np.arange(9) * 1500.0, np.zeros(9)])  # 8 near pairs, 3 distant: 7, 7.5 and 8 steps
    n_draws, seen = 600, np.zeros(8)
    for seed in range(n_draws):
        (one,), _ = draw_pairs(["s"] * 9, where, n_pairs=2, seed=seed)
        seen[one.near[:, 0]] += 1
    expected = n_draws * 2 / 8
    assert seen.sum() == 2 * n_draws
    assert ((seen - expected) ** 2 / expected).sum() < 24.3  # chi squared, 7 degrees, .999


def test_a_large_slide_is_drawn_from_some_anchors_without_bias(monkeypatch):
    where, x = section(500), np.random.default_rng(2).normal(size=(500, 3))
    x[:, 0] += where[:, 0] / 2000
    exact = compare_spatial({"e": x}, ["s"] * 500, where, n_pairs=None).figure().value
    monkeypatch.setattr(spatial_pairs, "_MAX_ANCHORS", 120)
    drawn = [compare_spatial({"e": x}, ["s"] * 500, where, n_pairs=400, seed=s).figure().value for s in range(20)]
    assert np.mean(drawn) == pytest.approx(exact, abs=4 * np.std(drawn) / math.sqrt(20))
    (one,), _ = draw_pairs(["s"] * 500, where)
    monkeypatch.undo()
    (whole,), _ = draw_pairs(["s"] * 500, where)
    assert one.n_near_possible == pytest.approx(whole.n_near_possible, rel=0.15)


def test_pairs_depend_on_the_slide_alone():
    where = section(200)
    together, _ = draw_pairs(["a", "b"] * 100, where, n_pairs=20)
    alone, _ = draw_pairs(["b"] * 100, where[1::2], n_pairs=20)
    assert (together[1].near == 2 * alone[0].near + 1).all()
    assert (together[1].far == 2 * alone[0].far + 1).all()
    other, _ = draw_pairs(["b"] * 100, where[1::2], n_pairs=20, seed=1)
    assert (other[0].near != alone[0].near).any()
    named, _ = draw_pairs(["c"] * 100, where[1::2], n_pairs=20)
    assert (named[0].near != alone[0].near).any()


def test_structure_raises_the_ratio_and_its_absence_gives_one():
    slides = np.repeat(np.arange(12), 80)
    where = np.concatenate([section(80, seed=s) for s in range(12)])
    rng = np.random.default_rng(0)
    blind = rng.normal(size=(960, 8))
    smooth = np.hstack([0.3 * blind, np.cos(where / 4000), np.sin(where / 4000)])
    found = compare_spatial({"smooth": smooth}, slides, where, floors={"colour": blind, "random": [blind, smooth]})
    assert found.figure().value > 1.3
    assert found.figure("addr", "colour").value == pytest.approx(1, abs=0.02)
    assert found.figure("addr", "random").value == pytest.approx((found.figure().value + 1) / 2, abs=0.02)
    delta = found.figure("addr", "colour").delta
    assert delta.value == pytest.approx(found.figure().value - found.figure("addr", "colour").value)
    assert 0 < delta.interval.low < delta.value < delta.interval.high
    assert (found.figure().interval.cluster, found.figure().interval.n_clusters) == ("slide", 12)


def test_patients_are_resampled_with_all_their_slides():
    slides, patients = np.repeat(np.arange(12), 40), np.repeat(np.arange(6), 80)
    where = np.concatenate([section(40, seed=s) for s in range(12)])
    x = np.random.default_rng(0).normal(size=(480, 4))
    found = compare_spatial({"e": x}, slides, where, clusters=patients)
    assert (found.figure().interval.cluster, found.figure().interval.n_clusters) == ("patient", 6)
    with pytest.raises(EvaluationError, match="slide 0 belongs to 2 patients"):
        compare_spatial({"e": x}, slides, where, clusters=np.arange(480) % 2)


def test_the_median_of_a_resample_repeats_its_slides():
    from histokin.evaluate.spatial import _weighted_median

    values, clusters = [3.0, 1.0, math.nan, 2.0], np.arange(4)
    median = _weighted_median(values, clusters)
    weights = np.array([[1.0, 1, 1, 1], [2, 1, 0, 0], [1, 3, 2, 0], [2, 2, 0, 0], [0, 0, 4, 0]])
    expected = [np.nanmedian(np.repeat(values, w.astype(int))) for w in weights[:4]]
    assert median(weights)[:4].tolist() == expected
    assert np.isnan(median(weights)[4])


def test_limits_shrink_to_slides_smaller_than_the_far_limit():
    asked = pair_limits(15_000)
    assert (asked.near_um, asked.far_um, asked.is_fallback) == (2000, 10_000, False)
    shrunk = pair_limits(8000)
    assert (shrunk.near_um, shrunk.far_um, shrunk.is_fallback) == (1200, 4800, True)
    assert pair_limits(10_000).is_fallback  # no pair lies beyond its largest distance
    assert pair_limits(8000, 500, 10_000).near_um == 500
    assert pair_limits(0).is_too_small
    assert pair_limits(1400, pitch_um=150).is_too_small
    assert not pair_limits(1600, pitch_um=150).is_too_small
    for wrong in ((1.0, 0, 5), (1.0, 5, 5), (-1.0, 1, 5)):
        with pytest.raises(ValueError, match="need 0 < near_um < far_um"):
            pair_limits(*wrong)


def test_small_slides_are_measured_on_their_own_scale_and_this_is_told():
    where = np.concatenate([section(100), section(100, side_um=4000), np.zeros((3, 2))])
    slides = ["big"] * 100 + ["small"] * 100 + ["point"] * 3
    found = compare_spatial({"e": np.random.default_rng(0).normal(size=(203, 4))}, slides, where)
    assert found.dropped == {"point": "too small for pairs"}
    assert [one.limits.is_fallback for one in found.slides["e"]] == [False, True]
    assert (found.protocol["n_slides"], found.protocol["n_dropped"], found.protocol["n_fallback"]) == (2, 1, 1)
    assert "1 of 2 slides are no larger than 10000 um" in found.warnings[0]
    assert "1 slides have no pairs" in found.warnings[1]
    json.dumps(found.to_json(), allow_nan=False)


def test_a_slide_without_near_pairs_is_dropped_with_its_reason():
    where = np.array([[0.0, 0], [12_000, 0], [0, 12_000], *section(50)])
    found = draw_pairs(["wide"] * 3 + ["s"] * 50, where)
    assert found[1] == {"wide": "no near pair"}
    with pytest.raises(EvaluationError, match="not one of 1 slides has near and distant tile pairs"):
        draw_pairs(["wide"] * 3, where[:3])


@given(st.integers(0, 1000), st.integers(1, 600), st.sampled_from(["cloud", "grid", "line", "point"]))
def test_the_largest_distance_is_that_of_all_pairs(seed, n, shape):
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 40, (n, 2)).astype(float) if shape == "grid" else rng.normal(size=(n, 2))
    if shape == "line":
        points[:, 1] = 2 * points[:, 0]
    if shape == "point":
        points[:] = points[0]
    brute = max(float(np.linalg.norm(points - p, axis=1).max()) for p in points)
    assert largest_distance(points) == pytest.approx(brute, abs=1e-12)


def test_length_counts_only_where_it_is_asked_for():
    where, x = section(80), np.random.default_rng(0).normal(size=(80, 4))
    pairs, _ = draw_pairs(["s"] * 80, where)
    scale = np.random.default_rng(1).uniform(0.5, 2, (80, 1))
    unit, stretched = (slide_ratios(v, pairs)[0].ratio for v in (x, x * scale))
    assert unit == pytest.approx(stretched)
    raw, stretched = (slide_ratios(v, pairs, is_unit=False)[0].ratio for v in (x, x * scale))
    assert raw != pytest.approx(stretched)


def test_what_cannot_be_measured_is_refused():
    where, x = section(50), np.ones((50, 3))
    alike = compare_spatial({"e": x}, ["s"] * 50, where)
    assert math.isnan(alike.figure().value)
    assert math.isnan(alike.figure("addr_median").value)
    x[7] = 0
    with pytest.raises(StoreError, match="row 7: the vector is zero"):
        compare_spatial({"e": x}, ["s"] * 50, where)
    with pytest.raises(ValueError, match="finite positions"):
        compare_spatial({"e": x}, ["s"] * 50, where[:, 0])
    with pytest.raises(ValueError, match="e has shape"):
        compare_spatial({"e": x[1:]}, ["s"] * 50, where)
    with pytest.raises(ValueError, match="n_pairs must be at least 1"):
        draw_pairs(["s"] * 50, where, n_pairs=0)
    with pytest.raises(ValueError, match="is none of the encoders"):
        compare_spatial({"e": x}, ["s"] * 50, where, reference="f")
    with pytest.raises(EvaluationError, match="1 of 50 tiles of slide s have no patient"):
        compare_spatial({"e": x}, ["s"] * 50, where, clusters=[None] + ["p"] * 49)
    with pytest.raises(EvaluationError, match="there is no encoder"):
        compare_spatial({}, ["s"] * 50, where)


def test_a_slide_just_larger_than_the_far_limit_is_told_for_its_few_pairs():
    where = np.column_stack([np.linspace(0, 10_001, 101), np.zeros(101)])
    x = np.random.default_rng(0).normal(size=(101, 3))
    found = compare_spatial({"e": x}, ["strip"] * 101, where)
    assert any(
        "1 slides have fewer than 50 near or distant pairs" in said and "strip" in said for said in found.warnings
    )


def test_all_pairs_of_a_huge_slide_are_refused(monkeypatch):
    monkeypatch.setattr(spatial_pairs, "_MOST_PAIRS", 1000)
    with pytest.raises(EvaluationError, match=r"slide s has \d+ pairs, more than fit into memory"):
        draw_pairs(["s"] * 400, section(400), n_pairs=None)
