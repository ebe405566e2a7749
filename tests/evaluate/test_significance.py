"""DeLong, McNemar and the corrected t against golden figures, scipy, scikit-learn and pairs counted one by one."""

import math
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.errors import EvaluationError
from histokin.evaluate.significance import Delong, auc, auc_interval_of_patients, delong, mcnemar, nadeau_bengio


def exactly(expected):
    return pytest.approx(expected, rel=1e-9, abs=1e-9)


def counted(truth, scores):
    """AUCs and covariance with every pair of units looked at."""
    positive, negative = scores[:, truth], scores[:, ~truth]
    wins = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (positive[:, :, None] == negative[:, None, :])
    v, w = wins.mean(axis=2), wins.mean(axis=1)
    covariance = np.atleast_2d(np.cov(v)) / v.shape[1] + np.atleast_2d(np.cov(w)) / w.shape[1]
    return wins.mean(axis=(1, 2)), covariance


@st.composite
def judged(draw, least=2):
    """Truth with both classes and the coarse scores (so, ties) of two classifiers."""
    n_positive, n_negative = (draw(st.integers(least, 9)) for _ in range(2))
    n = n_positive + n_negative
    truth = np.array(draw(st.permutations([True] * n_positive + [False] * n_negative)))
    coarse = st.lists(st.integers(-4, 4), min_size=n, max_size=n)
    return truth, np.array([draw(coarse), draw(coarse)], dtype=float)


def binormal(rng, n_positive, n_negative, true_auc):
    from scipy.special import ndtri

    truth = np.arange(n_positive + n_negative) < n_positive
    return truth, rng.normal(size=len(truth)) + math.sqrt(2) * ndtri(true_auc) * truth


def test_delong_meets_the_golden_figures(f1, golden):
    case, expected = golden["delong"]["input"], golden["delong"]["expected"]
    generator = sys.modules[type(f1).__module__]  # conftest's, which no test can import by name
    uniform, gaussian = generator.uniform, generator.gaussian
    truth = np.array([uniform(41, i) < 0.4 for i in range(60)])
    first = np.array([round(gaussian(42, i) + 1.2 * truth[i], 1) for i in range(60)])
    second = np.array([round(0.6 * first[i] + 0.8 * gaussian(43, i) + 0.3 * truth[i], 1) for i in range(60)])
    assert (truth.astype(int).tolist(), first.tolist(), second.tolist()) == (case["y"], case["s1"], case["s2"])
    found = delong(truth, np.stack([first, second]))
    assert found.aucs == exactly(expected["auc"])
    assert found.covariance == exactly(np.array(expected["cov"]))
    difference = found.difference(0, 1)
    assert (difference.z, difference.p) == exactly((expected["z"], expected["p"]))
    lead = expected["auc"][0] - expected["auc"][1]
    half = 1.959963984540054 * lead / expected["z"]
    assert (difference.interval.low, difference.interval.high) == exactly((lead - half, lead + half))
    for scale in ("wald", "logit"):
        interval = found.interval(0, scale, cluster="slide")
        assert [interval.low, interval.high] == exactly(expected[f"ci1_{scale}"])
        assert (interval.cluster, interval.n_clusters) == ("slide", 60)
    assert found.interval(0, "wald").method == "delong"
    assert found.interval(0).method == "delong-logit"


def test_delong_meets_the_hand_case(golden):
    # Placements (1, 1, .5) and (2/3, 1).
    case, expected = golden["delong_tiny"]["input"], golden["delong_tiny"]["expected"]
    found = delong(np.array(case["y"]), np.array([case["s"]]))
    assert found.aucs == exactly([expected["auc"]])
    assert found.covariance == exactly(np.array([[expected["var"]]]))
    assert (found.n_positive, found.n_negative) == (3, 2)


@given(judged())
def test_mid_ranks_give_what_counting_pairs_gives(case):
    from sklearn.metrics import roc_auc_score

    truth, scores = case
    found = delong(truth, scores)
    aucs, covariance = counted(truth, scores)
    assert found.aucs == pytest.approx(aucs, abs=1e-12)
    assert found.covariance == pytest.approx(covariance, abs=1e-12)
    assert auc(scores[0], truth) == pytest.approx(roc_auc_score(truth, scores[0]), abs=1e-12)
    assert auc(scores[1], truth.astype(int)) == pytest.approx(found.aucs[1], abs=1e-12)


@given(judged())
def test_a_monotone_transform_changes_nothing_and_differs_from_its_origin_by_nothing(case):
    truth, scores = case
    first, bent = delong(truth, scores), delong(truth, np.exp(scores) - 3)
    assert np.array_equal(first.aucs, bent.aucs)
    assert np.array_equal(first.covariance, bent.covariance)
    same = delong(truth, np.stack([scores[0], scores[0] ** 3])).difference(0, 1)
    assert (same.difference, same.z, same.p) == (0, 0, 1)
    assert same.interval.method == "n/a"


@given(judged())
def test_swapping_the_classifiers_negates_z_and_swapping_the_classes_mirrors_the_area(case):
    truth, scores = case
    forth, back = delong(truth, scores).difference(0, 1), delong(truth, scores[::-1]).difference(0, 1)
    if len(truth) >= 5 and not math.isnan(forth.z):
        assert (back.difference, back.z, back.p) == (-forth.difference, -forth.z, forth.p)
        assert 0 <= forth.p <= 1
    mirrored = delong(~truth, scores)
    assert mirrored.aucs == pytest.approx(1 - delong(truth, scores).aucs, abs=1e-12)
    assert mirrored.covariance == pytest.approx(delong(truth, scores).covariance, abs=1e-12)


@given(judged(), st.randoms())
def test_order_of_units_changes_nothing(case, random):
    truth, scores = case
    order = list(range(len(truth)))
    random.shuffle(order)
    found, other = delong(truth, scores), delong(truth[order], scores[:, order])
    assert other.aucs == pytest.approx(found.aucs, abs=1e-12)
    assert other.covariance == pytest.approx(found.covariance, abs=1e-12)


def test_both_classes_are_needed_and_nan_is_refused():
    scores = np.array([0.1, 0.2, 0.3])
    for truth in ([1, 1, 1], [0, 0, 0]):
        with pytest.raises(EvaluationError, match="one class only"):
            auc(scores, np.array(truth))
        with pytest.raises(EvaluationError, match="one class only"):
            delong(np.array(truth), scores[None])
    with pytest.raises(EvaluationError, match="not one row"):
        auc(np.array([]), np.array([]))
    with pytest.raises(ValueError, match="NaN"):
        auc(np.array([0.1, np.nan]), np.array([0, 1]))
    with pytest.raises(ValueError, match="0 and 1"):
        auc(np.array([0, 1]), np.array([0.1, 0.7]))  # the two taken for each other
    with pytest.raises(ValueError, match="score for each truth"):
        delong(np.array([0, 1]), scores[None])
    assert auc(np.array([-np.inf, np.inf]), np.array([0, 1])) == 1


@pytest.mark.parametrize("scores", [np.arange(12.0), -np.arange(12.0), np.zeros(12)])
@pytest.mark.parametrize("scale", ["wald", "logit"])
def test_perfect_and_empty_rankings_have_no_interval(scores, scale):
    found = delong(np.arange(12) >= 6, np.stack([scores, scores]))
    interval = found.interval(0, scale)
    assert (interval.method, interval.note) == ("n/a", "degenerate, 12 patients")
    assert math.isnan(interval.low)
    assert found.difference(0, 1).p == 1


def test_a_perfect_ranking_against_none_is_not_called_certain():
    found = delong(np.arange(12) >= 6, np.stack([np.arange(12.0), np.zeros(12)])).difference(0, 1)
    assert found.difference == 0.5
    assert math.isnan(found.z)
    assert math.isnan(found.p)


@pytest.mark.parametrize(
    ("n_positive", "n_negative", "reason"),
    [(2, 2, "4 patients"), (1, 8, "1 patient in the smaller class"), (8, 1, "1 patient in the smaller class")],
)
def test_too_few_units_have_no_interval(n_positive, n_negative, reason):
    n = n_positive + n_negative
    scores = np.stack([np.arange(n) % 3, np.arange(n) % 2]).astype(float)
    found = delong(np.arange(n) < n_positive, scores)
    assert (found.interval(0).method, found.interval(0).note) == ("n/a", reason)
    assert math.isnan(found.difference(0, 1).p)
    assert found.difference(0, 1).interval.note == reason


def test_five_units_are_enough():
    found = Delong(np.array([0.7, 0.6]), np.eye(2) * 0.01, 3, 2)
    assert found.interval(0).method == "delong-logit"
    assert found.difference(0, 1).p < 1


def test_equal_areas_are_the_same_only_where_they_cannot_differ():
    nearly = np.nextafter(0.01, 0)  # what summing in another order makes of .01
    same = Delong(np.array([0.8, 0.8]), np.array([[0.01, nearly], [nearly, 0.01]]), 30, 30).difference(0, 1)
    assert (same.z, same.p, same.interval.note) == (0, 1, "degenerate, 60 patients")
    few = Delong(np.array([0.8, 0.8]), np.eye(2) * 0.01, 2, 2).difference(0, 1)
    assert math.isnan(few.p)


@pytest.mark.parametrize(
    ("n_smaller", "area", "scale", "is_optimistic"),
    [
        (9, 0.7, "logit", True),
        (10, 0.7, "logit", False),
        (10, 0.95, "logit", False),
        (19, 0.7, "wald", True),
        (20, 0.7, "wald", False),
        (20, 0.95, "wald", True),
        (20, 0.05, "wald", True),
    ],
)
def test_intervals_that_are_too_narrow_say_so(n_smaller, area, scale, is_optimistic):
    found = Delong(np.array([area]), np.array([[0.001]]), 60, n_smaller)
    note = f"optimistic, {n_smaller} sites in the smaller class" if is_optimistic else ""
    assert found.interval(0, scale, cluster="site").note == note


def test_walds_ends_stay_inside_zero_and_one_and_scales_are_named():
    found = Delong(np.array([0.97, 0.03]), np.eye(2) * 0.01, 30, 30)
    assert found.interval(0, "wald").high == 1
    assert found.interval(1, "wald").low == 0
    assert 0.97 < found.interval(0, "logit").high < 1
    with pytest.raises(ValueError, match="wald or logit"):
        found.interval(0, "log")  # pyright: ignore[reportArgumentType]: it is refused


def test_several_rows_of_a_patient_are_refused():
    truth, scores = np.arange(20) % 2 == 0, np.arange(20.0) % 7
    names = [f"p{i}" for i in range(20)]
    interval = auc_interval_of_patients(scores, truth, names)
    assert interval == delong(truth, scores[None]).interval(0)
    wald = auc_interval_of_patients(scores, truth, np.arange(20), scale="wald")
    assert (wald.method, wald.cluster, wald.n_clusters) == ("delong", "patient", 20)
    with pytest.raises(EvaluationError, match=r"20 rows belong to 19 patients.*cluster bootstrap over patients"):
        auc_interval_of_patients(scores, truth, [*names[:19], "p0"])
    with pytest.raises(EvaluationError, match="2 of 20 rows have no patient"):
        auc_interval_of_patients(scores, truth, [*names[:18], "", None])
    with pytest.raises(ValueError, match="19 for 20"):
        auc_interval_of_patients(scores, truth, names[:19])


def test_shuffled_truth_has_an_area_of_one_half():
    rng = np.random.default_rng(5)
    scores, truth = rng.normal(size=200), np.arange(200) < 60
    shuffles = [delong(rng.permutation(truth), scores[None]) for _ in range(100)]
    off = np.array([(one.aucs[0] - 0.5) / math.sqrt(one.covariance[0, 0]) for one in shuffles])
    assert np.abs(off).max() < 4.5
    assert abs(off.mean()) < 4 / math.sqrt(100)  # each has sd 1
    assert 0.75 < off.std() < 1.25  # sd of an sd of 100: .07


def test_delong_covers_where_units_are_independent():
    # 2000 runs gave wald .905, logit .959 with 20 + 20 units at a true AUC of .85 (docstring of `Delong.interval`).
    rng, n_runs = np.random.default_rng(3), 400
    covered = {"wald": 0, "logit": 0}
    for _ in range(n_runs):
        truth, scores = binormal(rng, 20, 20, 0.85)
        found = delong(truth, scores[None])
        for scale in ("wald", "logit"):
            interval = found.interval(0, scale)
            covered[scale] += interval.low <= 0.85 <= interval.high
    for scale, expected in (("wald", 0.905), ("logit", 0.959)):
        margin = 4 * math.sqrt(expected * (1 - expected) / n_runs)
        assert abs(covered[scale] / n_runs - expected) < margin, scale


def test_two_equally_good_classifiers_differ_by_chance_as_often_as_said():
    rng, n_runs, rejected = np.random.default_rng(4), 400, 0
    for _ in range(n_runs):
        truth, shared = binormal(rng, 40, 40, 0.8)
        scores = shared + 0.7 * rng.normal(size=(2, 80))
        rejected += delong(truth, scores).difference(0, 1).p < 0.05
    assert abs(rejected / n_runs - 0.05) < 4 * math.sqrt(0.05 * 0.95 / n_runs)


def test_mcnemar_meets_the_golden_figures(golden):
    case, expected = golden["mcnemar"]["input"], golden["mcnemar"]["expected"]
    found = mcnemar(case["b"], case["c"])
    assert (found.exact, found.mid) == exactly((expected["p_exact"], expected["p_mid"]))


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test_of_the_discordant(b, c):
    from scipy.stats import binom, binomtest

    found = mcnemar(b, c)
    assert found == mcnemar(c, b)
    if b + c == 0:
        assert (found.exact, found.mid) == (1, 1)
        return
    assert found.exact == pytest.approx(binomtest(b, b + c).pvalue, rel=1e-9)
    # P(|B - C| larger than seen) + half of P(as large as seen), summed over all outcomes
    outcomes = np.arange(b + c + 1)
    chances, lead = binom.pmf(outcomes, b + c, 0.5), np.abs(2 * outcomes - b - c)
    expected = chances[lead > abs(b - c)].sum() + chances[lead == abs(b - c)].sum() / 2
    assert found.mid == pytest.approx(expected, rel=1e-9)


def test_mcnemar_knows_many_patients_and_refuses_what_is_no_count():
    from scipy.stats import binomtest

    assert mcnemar(900, 1100).exact == pytest.approx(binomtest(900, 2000).pvalue, rel=1e-9)
    assert mcnemar(0, 5000).exact == 0  # 2^-4999
    assert {mcnemar(k, k + 1).exact <= 1 for k in range(300)} == {True}  # twice a rounded half
    for b, c in ((-1, 3), (2.5, 3)):
        with pytest.raises(ValueError, match="two counts"):
            mcnemar(b, c)  # pyright: ignore[reportArgumentType]: it is refused


def test_the_corrected_t_meets_the_golden_figures(golden):
    case, expected = golden["nadeau_bengio"]["input"], golden["nadeau_bengio"]["expected"]
    found = nadeau_bengio(np.array(case["diff"]), 1, case["ratio"])
    assert (found.mean, found.t, found.p) == exactly(tuple(expected[name] for name in ("mean", "t", "p")))
    assert [found.interval.low, found.interval.high] == exactly(expected["ci"])
    assert found.df == 9
    assert (found.interval.cluster, found.interval.n_clusters) == ("split", 10)


def test_the_corrected_t_is_the_plain_one_shrunk(golden):
    from scipy.stats import ttest_1samp

    values = np.array(golden["nadeau_bengio"]["input"]["diff"])
    plain = float(ttest_1samp(values, 0)[0])  # pyright: ignore[reportArgumentType]: scipy has no types
    for n_train, n_test in ((9, 1), (80, 20), (50, 50)):
        found = nadeau_bengio(values, n_train, n_test)
        assert found.t == pytest.approx(plain / math.sqrt(1 + len(values) * n_test / n_train))
        back = nadeau_bengio(-values, n_train, n_test)
        assert (back.t, back.p) == (-found.t, found.p)


def test_splits_that_never_differ_prove_nothing():
    same = nadeau_bengio(np.zeros(5), 80, 20)
    assert (same.t, same.p, same.interval.note) == (0, 1, "degenerate, 5 splits")
    constant = nadeau_bengio(np.array([0.9, 0.8, 0.7]) - np.array([0.8, 0.7, 0.6]), 80, 20)  # .1 but for rounding
    assert math.isnan(constant.t)
    assert math.isnan(constant.p)
    assert constant.interval.method == "n/a"


def test_the_corrected_t_refuses_what_has_no_spread_or_size():
    for values in ([0.1], [0.1, np.nan], [[0.1, 0.2]]):
        with pytest.raises(ValueError, match="finite differences"):
            nadeau_bengio(np.array(values), 80, 20)
    for n_train, n_test in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="sizes must be > 0"):
            nadeau_bengio(np.array([0.1, 0.2]), n_train, n_test)
