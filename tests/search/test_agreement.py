"""Witnesses, votes and their record against loops, scikit-learn and scipy; label sets against their promise."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.neighbors import KNeighborsClassifier

from histokin.errors import SearchError
from histokin.search.agreement import LabelSets, Majority, majority, reliability, vote_shares, witnesses


def texts(*rows):
    return np.array([list(row) for row in rows], dtype=object)


# ---- witnesses


def test_five_tiles_of_one_patient_are_one_witness():
    units = texts("aaaaab", "bcabcd", ["a", "", "", "", "", ""])
    found = witnesses(units, 3)
    assert found.slot.tolist() == [[0, 5, -1], [0, 1, 2], [0, -1, -1]]
    assert found.n_hits.tolist() == [[5, 1, 0], [2, 2, 1], [1, 0, 0]]
    assert found.n_patients.tolist() == [2, 4, 1]
    score = np.arange(18.0).reshape(3, 6)
    assert found.of(score, np.nan)[0] == pytest.approx([0, 5, np.nan], nan_ok=True)
    assert found.of(units, "").tolist() == [["a", "b", ""], ["b", "c", "a"], ["a", "", ""]]


def test_a_hit_of_the_querys_own_patient_is_refused():
    units = texts("ab", "cd")
    assert len(witnesses(units, own=np.array(["x", "y"], dtype=object)).slot) == 2
    with pytest.raises(SearchError, match="query 1: 1 hits are of the query's own patient, the first of d"):
        witnesses(units, own=np.array(["x", "d"], dtype=object))


# ---- votes


def test_the_majority_says_how_many_of_how_many_and_by_what_margin():
    label = texts(["t", "n", "t", "t", ""], ["n", "t", "", "", ""], ["", "", "", "", ""], ["t", "t", "t", "n", "s"])
    score = np.array([[0.9, 0.8, 0.7, 0.6, 0.5], [0.6, 0.6, np.nan, np.nan, np.nan], [np.nan] * 5, [0.9] * 5])
    found = majority(label, score)
    assert found.label.tolist() == ["t", "n", "", "t"]  # of equal votes and similarities the first text
    assert list(zip(found.n_for, found.n_votes, strict=True)) == [(3, 4), (1, 2), (0, 0), (3, 5)]
    assert found.margin == pytest.approx([0.5, 0.0, np.nan, 0.4], nan_ok=True)
    assert found.similarity == pytest.approx([0.7, 0.6, np.nan, 0.9], nan_ok=True)
    assert majority(np.empty((0, 5), object), np.empty((0, 5))).label.shape == (0,)


def test_equal_counts_go_to_the_larger_sum_of_similarities():
    """Case vote_tie_histokin of the reference."""
    label, score = texts("CBABA"), np.array([[0.95, 0.9, 0.85, 0.6, 0.7]])
    assert majority(label, score).label.tolist() == ["A"]


# ---- reliability


def voted(n, seed=0, n_patients=15):
    rng = np.random.default_rng(seed)
    label = np.array(["a", "b", ""], dtype=object)[rng.choice(3, n, p=[0.5, 0.45, 0.05])]
    margin = np.where(label == "", np.nan, rng.choice([0, 0.2, 0.4, 0.6, 1], n))
    votes = Majority(label, np.ones(n, np.int64), np.ones(n, np.int64), margin, rng.random(n))
    truth = np.array(["a", "b", ""], dtype=object)[rng.choice(3, n, p=[0.6, 0.35, 0.05])]
    patients = np.array([f"p{i}" for i in rng.integers(0, n_patients, n)], dtype=object)
    return votes, truth, patients


@pytest.mark.parametrize(("cuts", "n_similarity"), [((0.3, 0.7), 3), ((), 1), ((0.5,), 4)])
def test_the_record_of_each_bin_is_the_mean_over_its_patients(cuts, n_similarity):
    votes, truth, patients = voted(300)
    found = reliability(votes, truth, patients, margin_cuts=cuts, n_similarity_bins=n_similarity)
    used = [i for i in range(300) if votes.label[i] and truth[i]]
    assert found.n_left_out == 300 - len(used)
    assert found.share.shape == (len(cuts) + 1, n_similarity)
    edges = [-np.inf, *np.quantile(votes.similarity[used], np.arange(1, n_similarity) / n_similarity), np.inf]
    levels = [-np.inf, *cuts, np.inf]
    for m in range(len(cuts) + 1):
        for s in range(n_similarity):
            own = [i for i in used if levels[m] <= votes.margin[i] < levels[m + 1]
                   and edges[s] <= votes.similarity[i] < edges[s + 1]]  # fmt: skip
            right = {p: [votes.label[i] == truth[i] for i in own if patients[i] == p] for p in set(patients[own])}
            share = np.mean([np.mean(r) for r in right.values()])
            record = found.record(votes.margin[own[0]], votes.similarity[own[0]])
            assert (record.n_patients, record.n_queries) == (len(right), len(own))
            assert record.share == pytest.approx(share)
            assert record.low < record.share < record.high


def test_intervals_are_scipys_wilson_where_each_patient_asked_once():
    n = 23
    votes, truth, _ = voted(n, seed=3)
    votes = Majority(np.full(n, "a", object), votes.n_for, votes.n_votes, np.ones(n), np.ones(n))
    truth = np.where(np.arange(n) < 17, "a", "b").astype(object)
    found = reliability(votes, truth, np.array([f"p{i}" for i in range(n)], dtype=object), n_similarity_bins=1)
    expected = binomtest(17, n).proportion_ci(method="wilson")
    record = found.record(1.0, 1.0)
    assert (record.low, record.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_thousand_tiles_of_a_patient_make_no_interval_narrower():
    n = 8
    once = Majority(np.full(n, "a", object), np.ones(n), np.ones(n), np.ones(n), np.ones(n))
    many = Majority(*(np.repeat(getattr(once, f), 100) for f in ("label", "n_for", "n_votes", "margin", "similarity")))
    truth, patients = texts("aaaaabbb")[0], texts("stuvwxyz")[0]
    one = reliability(once, truth, patients).record(1, 1)
    hundred = reliability(many, truth.repeat(100), patients.repeat(100)).record(1, 1)
    assert (hundred.low, hundred.high, hundred.n_patients) == pytest.approx((one.low, one.high, 8))
    assert hundred.n_queries == 800


def test_bins_that_nothing_fell_into_say_so():
    votes, truth, patients = voted(40)
    unanimous = Majority(votes.label, votes.n_for, votes.n_votes, np.ones(40), np.full(40, 0.5))
    found = reliability(unanimous, truth, patients)
    assert found.share.shape == (3, 2)  # ties leave one cut of the similarity
    assert found.record(0.1, 0.5).n_patients == 0
    assert math.isnan(found.record(0.1, 0.5).low)
    assert found.record(math.nan, math.nan).n_queries == 0
    nothing = reliability(unanimous, np.full(40, "", object), patients)
    assert (nothing.n_left_out, nothing.n_queries.sum()) == (40, 0)


# ---- label sets


def test_vote_shares_are_those_of_the_distance_weighted_neighbours_of_scikit_learn():
    rng = np.random.default_rng(0)
    rows, queries = np.abs(rng.normal(size=(60, 6))), np.abs(rng.normal(size=(20, 6)))
    label = np.array(["a", "b", "c"], dtype=object)[rng.integers(0, 3, 60)]
    rows, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, queries))
    model = KNeighborsClassifier(7, metric="cosine", algorithm="brute", weights=lambda distance: 1 - distance)
    expected = model.fit(rows, label.astype(str)).predict_proba(queries)
    near = np.argsort(-(queries @ rows.T), axis=1)[:, :7]
    score = np.take_along_axis(queries @ rows.T, near, axis=1)
    assert vote_shares(label[near], score, ["a", "b", "c"]) == pytest.approx(expected)


def test_negative_unlabelled_and_missing_witnesses_weigh_nothing():
    label = texts(["a", "b", "", "a"], ["", "", "", ""], ["a", "a", "a", "a"])
    score = np.array([[0.6, 0.2, 0.9, -0.3], [0.5, np.nan, np.nan, np.nan], [-0.1, -0.2, -0.3, -0.4]])
    assert vote_shares(label, score, ("a", "b")) == pytest.approx(np.array([[0.75, 0.25], [0, 0], [0, 0]]))
    with pytest.raises(ValueError, match="labels a are none of the classes"):
        vote_shares(label, score, ("b",))


def people(n, prefix="p"):
    return np.array([f"{prefix}{i}" for i in range(n)], dtype=object)


def test_the_limit_is_the_conformal_quantile_of_the_misfits():
    """n = 9, alpha = .2: the 8th smallest of 9 misfits, by ceil((n + 1)(1 - alpha))."""
    fit = np.arange(9) / 10
    sets = LabelSets.of(np.stack([fit, 1 - fit], axis=1), np.full(9, "a", object), people(9), ["a", "b"], alpha=0.2)
    assert sets.limit == pytest.approx(np.sort(1 - fit)[math.ceil(10 * 0.8) - 1])
    assert sets.labels(np.array([0.15, 0.85])) == ("b", "a")
    assert sets.labels(np.array([0.05, 0.95])) == ("b",)
    assert sets.labels(np.array([0.5, 0.5])) == ("a", "b")


def test_equal_votes_summed_in_another_order_fit_alike():
    first, other = 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1
    assert other < first
    sets = LabelSets.of(np.full((9, 1), first), np.full(9, "a", object), people(9), ["a"])
    assert sets.labels(np.array([other])) == ("a",)


def test_too_few_patients_leave_every_label_possible():
    sets = LabelSets.of(np.array([[0.9, 0.1]] * 8), np.full(8, "a", object), people(8), ["a", "b"])
    assert (sets.limit, sets.n_patients) == (None, 8)
    assert sets.labels(np.array([1.0, 0.0])) == ("a", "b")
    with pytest.raises(ValueError, match="one query a patient"):
        LabelSets.of(np.ones((2, 1)), texts("aa")[0], texts("pp")[0], ["a"])
    with pytest.raises(ValueError, match="labels c are none"):
        LabelSets.of(np.ones((1, 1)), texts("c")[0], people(1), ["a"])


def test_sets_hold_the_right_label_as_often_as_promised_and_are_not_just_all_labels():
    rng = np.random.default_rng(0)
    n_trials, n_held, sizes = 500, 0, Counter()
    for _ in range(n_trials):  # an archive of 39 patients and one new one each time
        truth = rng.integers(0, 3, 40)
        votes = np.where(rng.random((40, 5)) < 0.7, truth[:, None], rng.integers(0, 3, (40, 5)))
        label = np.array(["a", "b", "c"], dtype=object)[votes]
        shares = vote_shares(label, rng.uniform(0.5, 1, (40, 5)), "abc")
        names = np.array(["a", "b", "c"], dtype=object)[truth]
        found = LabelSets.of(shares[:-1], names[:-1], people(39), "abc", alpha=0.1).labels(shares[-1])
        n_held += names[-1] in found
        sizes[len(found)] += 1
    interval = binomtest(n_held, n_trials).proportion_ci(0.999, "wilson")
    assert interval.low <= 0.9 <= interval.high
    assert sizes[1] > sizes[2] > sizes[3]
