"""Intervals and tests against golden figures; coverage checked on planted patients."""

import numpy as np
import pytest

from histokin.evaluate.intervals import (
    bca_ends,
    bootstrap_interval,
    class_strata,
    cluster_robust_se,
    design_effect,
    holm,
    mean_of_classes,
    paired_interval,
    patient_weights,
    percentile_ends,
    ratio,
    swap_test,
    weights_of,
    wilson_interval,
)
from histokin.streams import stream


@pytest.fixture
def counts(golden):
    case = golden["cluster_bootstrap_F1"]["input"]
    return np.array(case["h"]), np.array(case["m"], dtype=float)


def test_patient_bootstrap_meets_the_golden_figures(golden, counts, draws):
    expected = golden["cluster_bootstrap_F1"]["expected"]
    weights = weights_of(draws, 24)
    statistic = ratio(*counts)
    values = statistic(weights)
    assert statistic(np.ones((1, 24)))[0] == pytest.approx(expected["theta"])
    assert values[:3] == pytest.approx(expected["boot_first3"])
    assert percentile_ends(values) == pytest.approx(expected["percentile"], abs=1e-6)
    assert bca_ends(statistic, values, 24) == pytest.approx(expected["bca"], abs=1e-6)
    assert cluster_robust_se(*counts) == pytest.approx(expected["cluster_robust_se"])
    assert design_effect(*counts) == pytest.approx(expected["design_effect"])
    interval = bootstrap_interval(statistic, weights)
    assert (interval.low, interval.high) == pytest.approx(expected["bca"], abs=1e-6)
    assert interval.method == "bca"


def test_wilson_with_design_effect_meets_the_golden_figure(golden, counts):
    interval = wilson_interval(*counts)
    assert (interval.low, interval.high) == pytest.approx(golden["wilson_design_effect_F1"]["expected"]["interval"])
    assert interval.method == "wilson-deff"
    assert interval.note == ""


def test_paired_bootstrap_meets_the_golden_figure(golden, draws):
    case = golden["paired_bootstrap_F1"]
    sizes = np.array(case["input"]["m"], dtype=float)
    first, second = (ratio(np.array(case["input"][name]), sizes) for name in ("h1", "h2"))
    interval = paired_interval(first, second, weights_of(draws, 24))
    assert (interval.low, interval.high) == pytest.approx(case["expected"]["ci"])


def test_swap_test_is_exact_for_few_patients_and_close_for_many(golden):
    case = golden["paired_swap_exact"]
    differences = np.array(case["input"]["diff"])
    assert swap_test(differences) == case["expected"]["p"]
    padded = np.concatenate([differences, np.zeros(12)])  # patients without a difference change nothing
    assert swap_test(padded, seed=3) == pytest.approx(case["expected"]["p"], abs=4 * np.sqrt(0.1875 * 0.8125 / 10_000))


def test_holm_meets_the_golden_figure_and_leaves_gaps(golden):
    case = golden["holm"]
    assert holm(case["input"]["p"]) == pytest.approx(case["expected"]["adjusted"])
    adjusted = holm([0.01, float("nan"), 0.04])
    assert adjusted[::2] == pytest.approx([0.02, 0.04])
    assert np.isnan(adjusted[1])


def test_equal_rates_in_all_patients_have_no_design_effect():
    assert design_effect(np.full(12, 5.0), np.full(12, 10.0)) == 1


def test_a_perfect_rate_counts_patients_not_tiles():
    interval = wilson_interval(np.full(30, 100.0), np.full(30, 100.0))
    assert interval.high == 1
    assert interval.low == pytest.approx(30 / (30 + 2.045229642132703**2), rel=1e-6)  # z^2 of t_29, n = 30
    assert "optimistic" in interval.note


@pytest.mark.parametrize(
    ("n", "method", "note"), [(4, "n/a", "4 patients"), (9, "percentile", "optimistic, 9 patients")]
)
def test_few_patients_are_said(n, method, note):
    rng = np.random.default_rng(0)
    statistic = ratio(rng.uniform(2, 8, n), np.full(n, 10.0))
    interval = bootstrap_interval(statistic, patient_weights(n))
    assert (interval.method, interval.note, interval.n_clusters) == (method, note, n)
    assert np.isnan(interval.low) == (n < 5)
    assert str(interval).startswith("n/a (4 patients)" if n < 5 else "[")
    wilson = wilson_interval(rng.uniform(2, 8, n), np.full(n, 10.0), cluster="site")
    assert wilson.method == ("n/a" if n < 5 else "wilson-deff")
    assert f"{n} sites" in wilson.note


def test_a_statistic_that_never_moves_has_no_interval():
    interval = bootstrap_interval(ratio(np.full(12, 3.0), np.full(12, 3.0)), patient_weights(12))
    assert interval.method == "n/a"
    assert "degenerate" in interval.note


def test_wilson_covers_where_tiles_are_no_evidence():
    # Patient rates from beta(2.1, 0.9), 20 patients of 40 tiles: the reference measured .93-.95 at nominal .95.
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(300):
        rates = rng.beta(2.1, 0.9, 20)
        interval = wilson_interval(rng.binomial(40, rates).astype(float), np.full(20, 40.0))
        covered += interval.low <= 0.7 <= interval.high
    share = covered / 300
    assert share > 0.93 - 3 * np.sqrt(0.93 * 0.07 / 300)


def test_a_bootstrap_of_fewer_than_forty_patients_is_called_optimistic():
    for n, note in ((39, "optimistic, 39 patients"), (40, "")):
        hits, sizes = np.random.default_rng(n).binomial(30, 0.7, n), np.full(n, 30)
        assert bootstrap_interval(ratio(hits, sizes), patient_weights(n)).note == note


def test_draws_from_all_patients_are_those_of_their_named_stream():
    drawn = stream(4, "patient-bootstrap", 7).integers(0, 7, (50, 7))
    assert (patient_weights(7, n_draws=50, seed=4) == [np.bincount(one, minlength=7) for one in drawn]).all()


def test_every_draw_weighs_every_stratum_alike_and_prefers_no_patient():
    strata = np.array([0, 3, 0, 1, 1, 0, 1, 0, 1, 1])
    weights = patient_weights(10, strata=strata)
    for stratum, size in ((0, 4), (1, 5), (3, 1)):
        own = weights[:, strata == stratum]
        assert own.sum(axis=1) == pytest.approx(np.full(len(weights), size))
        # A patient counts n / (n - 1) times a binomial(n - 1, 1 / n) number: mean 1 and variance 1.
        assert (np.abs(own.mean(axis=0) - 1) <= 4 / np.sqrt(len(weights))).all()
        assert own.var(axis=0) == pytest.approx(np.full(size, 1.0 if size > 1 else 0.0), abs=0.15)
    assert (weights == patient_weights(10, strata=strata)).all()
    assert (weights != patient_weights(10, strata=strata, seed=1)).any()
    with pytest.raises(ValueError, match=r"need a stratum for each of 10 patients, got \(9,\)"):
        patient_weights(10, strata=strata[1:])


@pytest.mark.parametrize("size", [2, 3, 6])
def test_a_mean_drawn_within_its_stratum_varies_by_its_own_variance(size):
    values = np.random.default_rng(size).normal(size=size)
    draws = patient_weights(2 * size, strata=np.repeat([0, 1], size))[:, :size] @ values / size
    assert draws.var() == pytest.approx(values.var(ddof=1) / size, rel=4 * np.sqrt(2 / 2000))


def test_patients_are_drawn_within_classes_where_each_has_one_and_some_class_has_two():
    one_each = np.array([[3, 0, 0], [0, 2, 0], [1, 0, 0], [0, 0, 9]])
    assert class_strata(one_each).tolist() == [0, 1, 0, 2]
    assert class_strata(one_each + np.eye(3, dtype=int)[1]) is None
    assert class_strata(np.eye(5)) is None  # nothing would vary


def test_intervals_within_classes_cover_no_less_often_and_no_draw_is_lost():
    # 20 patients, 5 of the rare class, rates of their own from beta(2.1, 0.9): mean recall .7.
    rng = np.random.default_rng(3)
    classes = np.arange(20) % 4 == 0
    sizes = 30.0 * np.column_stack([~classes, classes])
    pooled, within = patient_weights(20, n_draws=500), patient_weights(20, n_draws=500, strata=classes.astype(int))
    assert np.isnan(mean_of_classes(sizes, sizes)(pooled)).any()
    covered = []
    for _ in range(200):
        hits = rng.binomial(30, rng.beta(2.1, 0.9, 20))[:, None] * (sizes > 0)
        statistic = mean_of_classes(hits, sizes)
        assert np.isfinite(statistic(within)).all()
        intervals = [bootstrap_interval(statistic, weights) for weights in (pooled, within)]
        covered.append([one.low <= 0.7 <= one.high for one in intervals])
    before, after = np.mean(covered, axis=0)
    n_apart = sum(one != other for one, other in covered)
    assert after >= before - 2 * np.sqrt(n_apart) / 200  # McNemar's error of the difference
    assert after > 0.91 - 3 * np.sqrt(0.91 * 0.09 / 200)
