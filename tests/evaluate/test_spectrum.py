"""Spectral measures against golden figures, planted spectra, loops and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA

from histokin.evaluate.spectrum import alpha_req, eigenvalues, lidar, participation_ratio, rankme

ALPHA_WEIGHTED_2_12 = 0.623097886224
"""Case alpha_weighted_F1 of the reference's golden file, tolerance 1e-7."""


def planted(values, n=600, seed=0):
    """Features whose covariance has exactly these eigenvalues, in a random frame."""
    rng = np.random.default_rng(seed)
    d = len(values)
    raw = rng.normal(size=(n, d))
    rows = np.linalg.qr(raw - raw.mean(axis=0))[0]  # centred orthonormal columns
    return rows * np.sqrt((n - 1) * np.asarray(values)) @ rotation(d, rng).T


def rotation(d, rng):
    return np.linalg.qr(rng.normal(size=(d, d)))[0]


def views(n_objects, n_views, directions, *, d=24, strength=10.0, seed=0):
    """Objects that differ in some directions only; views spread evenly around them."""
    rng = np.random.default_rng(seed)
    means = np.zeros((n_objects, d))
    means[:, :directions] = strength * rng.normal(size=(n_objects, directions))
    objects = np.repeat(np.arange(n_objects), n_views)
    return (means[objects] + rng.normal(size=(len(objects), d))) @ rotation(d, rng), objects


def test_set_f1_gives_the_golden_measures(golden, f1):
    expected = golden["label_free_F1"]["expected"]
    found = {
        "rankme": rankme(f1.x),
        "rankme_centred": rankme(f1.x, is_centred=True),
        "participation_ratio": participation_ratio(f1.x),
        "alpha_1_16": alpha_req(f1.x, first=1, last=16, is_weighted=False),
        "alpha_2_12": alpha_req(f1.x, first=2, last=12, is_weighted=False),
        "lidar": lidar(f1.x, f1.patient),
    }
    for name, value in found.items():
        assert value == pytest.approx(expected[name], abs=1e-7), name
    assert eigenvalues(f1.x)[:3] == pytest.approx(expected["eig_first"], abs=1e-7)
    assert alpha_req(f1.x, first=2, last=12) == pytest.approx(ALPHA_WEIGHTED_2_12, abs=1e-7)


def test_rankme_meets_the_hand_case(golden):
    case = golden["rankme_tiny"]
    assert rankme(np.array(case["input"]["Z"])) == pytest.approx(case["expected"]["rankme"], abs=1e-9)


def test_rankme_counts_equal_directions():
    assert rankme(planted([1.0] * 7 + [0.0] * 5)) == pytest.approx(7, abs=1e-4)
    assert rankme(np.ones((5, 3)), is_centred=True) == 0


@pytest.mark.parametrize("shape", [(50, 12), (12, 50)])
def test_eigenvalues_are_those_of_a_principal_component_analysis(shape):
    x = np.random.default_rng(0).normal(size=shape) + 3
    expected = PCA().fit(x).explained_variance_
    rank = min(shape[0] - 1, shape[1])
    assert eigenvalues(x) == pytest.approx(expected[:rank])


@given(alpha=st.floats(0.1, 3), is_weighted=st.booleans(), scale=st.sampled_from([1e-3, 1.0, 1e4]))
def test_a_planted_power_law_is_found(alpha, is_weighted, scale):
    x = scale * planted(np.arange(1.0, 121) ** -alpha, n=150)
    assert alpha_req(x, is_weighted=is_weighted) == pytest.approx(alpha, abs=1e-6)


def test_only_the_range_asked_for_counts():
    values = np.arange(1.0, 121) ** -1.5
    values[:10], values[100:] = 50.0, 1e-6
    x = planted(values)
    assert alpha_req(x) == pytest.approx(1.5, abs=1e-6)
    assert alpha_req(x, first=10) > 1.55
    assert alpha_req(x, last=101) > 1.55


def test_weights_fall_with_the_index():
    x = np.random.default_rng(0).normal(size=(200, 60))
    j, values = np.arange(11, 61), np.linalg.eigvalsh(np.cov(x, rowvar=False))[::-1][10:]
    weighted = np.polyfit(np.log(j), -np.log(values), 1, w=np.sqrt(1 / j))[0]  # polyfit squares its weights
    plain = np.polyfit(np.log(j), -np.log(values), 1)[0]
    assert alpha_req(x) == pytest.approx(weighted)
    assert alpha_req(x, is_weighted=False) == pytest.approx(plain)
    assert abs(weighted - plain) > 0.01


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_the_range_ends_where_rounding_begins(dtype):
    rng = np.random.default_rng(1)
    low = rng.normal(size=(500, 40)) @ rng.normal(size=(40, 96)) + 5
    assert len(eigenvalues(low.astype(dtype))) == 40
    assert alpha_req(low.astype(dtype)) == pytest.approx(alpha_req(low, last=40), abs=2e-3)
    assert len(eigenvalues(np.full((30, 9), 0.1).astype(dtype))) == 0


@pytest.mark.parametrize(("n", "d", "is_known"), [(40, 11, False), (40, 12, True), (12, 40, False), (13, 40, True)])
def test_too_few_eigenvalues_have_no_slope(n, d, is_known):
    x = np.random.default_rng(0).normal(size=(n, d))
    assert math.isfinite(alpha_req(x)) == is_known


@pytest.mark.parametrize(("first", "last"), [(0, 5), (5, 5), (7, 3)])
def test_an_impossible_range_is_refused(first, last):
    with pytest.raises(ValueError, match="1 <= first < last"):
        alpha_req(np.ones((3, 3)), first=first, last=last)


@pytest.mark.parametrize("directions", [1, 3, 8, 24])
def test_lidar_counts_the_directions_in_which_objects_differ(directions):
    x, objects = views(400, 10, directions, strength=30.0)
    assert lidar(x, objects) == pytest.approx(directions, rel=0.12)


def test_objects_drawn_by_lot_score_as_noise_does_near_the_full_rank():
    x, objects = views(60, 10, 3)
    rng = np.random.default_rng(1)
    shuffled = [lidar(x, rng.permutation(objects)) for _ in range(30)]
    noise = [lidar(rng.normal(size=x.shape), objects) for _ in range(30)]
    error = math.sqrt((np.var(shuffled, ddof=1) + np.var(noise, ddof=1)) / 30)
    assert abs(np.mean(shuffled) - np.mean(noise)) < 4 * error
    assert min(shuffled) > 15
    assert lidar(x, objects) < 4


def test_lidar_equals_a_loop_for_objects_of_unequal_size():
    rng = np.random.default_rng(2)
    objects = np.repeat(list("abcdefg"), [2, 3, 9, 4, 2, 1, 5])
    x = rng.normal(size=(len(objects), 4)) + np.array([ord(one) for one in objects])[:, None]
    means = {one: x[objects == one].mean(axis=0) for one in "abcdeg"}  # f has one row
    centre = np.mean(list(means.values()), axis=0)
    between = sum(np.outer(mean - centre, mean - centre) for mean in means.values()) / 5
    within = sum(np.outer(v - means[o], v - means[o]) for v, o in zip(x, objects, strict=True) if o != "f")
    values, vectors = np.linalg.eigh(within / (1 + 2 + 8 + 3 + 1 + 4) + 1e-4 * np.eye(4))
    root = vectors / np.sqrt(values) @ vectors.T
    p = np.linalg.eigvalsh(root @ between @ root)
    p = p / p.sum() + 1e-8
    assert lidar(x, objects) == pytest.approx(math.exp(-(p * np.log(p)).sum()), abs=1e-9)


def test_objects_of_one_row_change_nothing():
    x, objects = views(20, 5, 4)
    more = np.concatenate([x, 100 * np.eye(24)])
    assert lidar(more, np.concatenate([objects, 900 + np.arange(24)])) == pytest.approx(lidar(x, objects))


def test_lidar_of_too_few_or_identical_objects():
    x = np.random.default_rng(0).normal(size=(6, 3))
    assert math.isnan(lidar(x, np.arange(6)))
    assert math.isnan(lidar(x, np.zeros(6)))
    assert lidar(np.tile(x, (2, 1)), np.repeat([0, 1], 6)) == 0
    assert lidar(np.ones((6, 3)), np.repeat([0, 1], 3)) == 0


def test_lidar_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="an object for each row"):
        lidar(np.ones((4, 2)), np.zeros(3))
    with pytest.raises(ValueError, match="delta > 0"):
        lidar(np.ones((4, 2)), np.zeros(4), delta=0)


@given(seed=st.integers(0, 2**32 - 1))
def test_neither_the_frame_nor_the_order_nor_the_origin_matters(seed):
    rng = np.random.default_rng(seed)
    x, objects = views(12, 4, 5, d=20, strength=2.0, seed=seed % 7)
    order = rng.permutation(len(x))
    turned = (x @ rotation(20, rng))[order]
    moved = turned + 10 * rng.normal(size=20)
    for measure in (
        participation_ratio,
        alpha_req,
        lambda z: rankme(z, is_centred=True),
        lambda z: lidar(z, objects[order] if z is not x else objects),
    ):
        assert measure(turned) == pytest.approx(measure(x), rel=1e-8)
        assert measure(moved) == pytest.approx(measure(x), rel=1e-8)
    assert rankme(turned) == pytest.approx(rankme(x), rel=1e-8)
    assert rankme(moved) < rankme(x)  # raw: the mean is a direction of its own


@given(scale=st.floats(1e-4, 1e4))
def test_the_scale_matters_to_lidar_alone(scale):
    x, objects = views(12, 4, 5, d=20, strength=2.0)
    for measure in (rankme, participation_ratio, alpha_req):
        assert measure(scale * x) == pytest.approx(measure(x), rel=1e-7)
    scaled = lidar(scale * x, objects, delta=1e-4 * scale**2)
    assert scaled == pytest.approx(lidar(x, objects), rel=1e-6)


def test_where_delta_is_all_there_is_the_spread_between_objects_counts_alone():
    x, objects = views(12, 4, 5, d=20, strength=2.0)
    means = x.reshape(12, 4, 20).mean(axis=1)
    p = np.linalg.eigvalsh(np.cov(means, rowvar=False)).clip(0)
    p = p / p.sum() + 1e-8
    expected = math.exp(-(p * np.log(p)).sum())
    assert lidar(1e-6 * x, objects) == pytest.approx(expected, rel=1e-4)
    assert abs(lidar(x, objects) - expected) > 0.1


def test_half_precision_is_enough():
    # Stored as float16, embeddings of decaying spectrum keep every measure to 0.1 %.
    x, objects = planted(np.arange(1.0, 121) ** -1.0), np.repeat(np.arange(60), 10)
    single, half = x.astype(np.float32), x.astype(np.float16)
    for measure in (rankme, participation_ratio, alpha_req, lambda z: lidar(z, objects)):
        assert measure(half) == pytest.approx(measure(single), rel=1e-3)
        assert measure(single) == pytest.approx(measure(x), rel=1e-5)
