"""Chance against enumeration and simulation; the null against the clumps it is for."""

import itertools

import numpy as np
import pytest

from histokin.evaluate.chance import chance_acc, chance_ap, chance_mmv, chance_precision, constant_labels, permuted_null
from histokin.evaluate.retrieval import Retrieved, acc_at_k, ap_at_k, precision_at_k
from histokin.evaluate.votes import votes_right


def test_small_cases_meet_the_golden_values(golden):
    case = golden["chance_ap_small"]
    n, r, k = (case["input"][name] for name in ("N", "R", "k"))
    assert chance_ap(np.array([n]), np.array([r]), k)[0] == pytest.approx(case["expected"]["value"])
    assert chance_acc(np.array([n]), np.array([r]), k)[0] == pytest.approx(case["expected"]["acc_at_5"])
    case = golden["chance_mmv_small"]
    for (counts, truth, k), want in zip(case["input"]["cases"], case["expected"]["rank_anytie_strict"], strict=True):
        for rule, value in zip(("rank", "anytie", "strict"), want, strict=True):
            assert chance_mmv(np.array([counts]), np.array([truth]), k, rule=rule)[0] == pytest.approx(value)


@pytest.mark.parametrize(("counts", "k"), [((2, 3, 1), 3), ((1, 1, 1, 2), 4), ((3, 1), 5), ((4, 0, 1), 2)])
def test_every_order_of_the_rows_gives_the_same_mean(counts, k):
    labels = np.repeat(np.arange(len(counts)), counts)
    orders = np.array(list(itertools.permutations(labels)))[:, :k]
    truth = np.zeros(len(orders), dtype=int)
    n, r = len(labels), counts[0]
    frame = Retrieved(
        truth, truth, orders, orders, orders.astype(float), np.full(len(orders), n), np.full(len(orders), r), ("a",)
    )
    depth = orders.shape[1]
    for rule in ("rank", "anytie", "strict"):
        right = votes_right(orders, truth, rule=rule).mean()
        assert chance_mmv(np.array([counts]), np.array([0]), k, rule=rule)[0] == pytest.approx(right)
    assert chance_acc(np.array([n]), np.array([r]), k)[0] == pytest.approx(acc_at_k(frame, depth).mean())
    assert chance_precision(np.array([n]), np.array([r]), depth)[0] == pytest.approx(
        precision_at_k(frame, depth).mean()
    )
    if depth == k:
        assert chance_ap(np.array([n]), np.array([r]), k)[0] == pytest.approx(ap_at_k(frame, k).mean())


def test_a_million_rows_and_long_lists_stay_finite_and_sum_to_one():
    counts = np.array([[600_000, 300_000, 100_000]])
    shares = [chance_mmv(counts, np.array([c]), 21)[0] for c in range(3)]
    assert sum(shares) == pytest.approx(1, abs=1e-9)
    assert shares[0] > 0.9


def test_leaving_the_patient_out_puts_chance_below_prevalence():
    # 40 patients of 10 tiles, four equal classes: 9 of 39 other patients share the class.
    assert chance_acc(np.array([390]), np.array([90]), 1)[0] == pytest.approx(9 / 39)


def test_the_null_exchanges_whole_patients():
    groups = np.repeat(np.arange(6), 4)
    labels = np.repeat([0, 0, 1, 1, 2, 2], 4)
    drawn = permuted_null(lambda codes: codes.reshape(6, 4), labels, groups, n=20, seed=1)
    assert drawn is not None
    assert (drawn == drawn[:, :, :1]).all()
    assert (np.sort(drawn[:, :, 0], axis=1) == [0, 0, 1, 1, 2, 2]).all()
    assert len({tuple(d) for d in drawn[:, :, 0].tolist()}) > 5
    again = permuted_null(lambda codes: codes.reshape(6, 4), labels, groups, n=20, seed=1)
    assert np.array_equal(drawn, again)


def test_there_is_no_null_where_a_patient_has_two_labels():
    assert permuted_null(lambda codes: codes, np.array([0, 1, 1]), np.array([0, 0, 1])) is None
    assert constant_labels(np.array([0, 0, 1]), np.array([0, 0, 1])).tolist() == [0, 1]
