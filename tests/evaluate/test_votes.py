"""Vote rules against the golden lists, a loop, and each other."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histokin.evaluate.votes import votes, votes_right

label_lists = st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=8)


def padded(lists, k):
    return np.array([[*entry[:k], *[-1] * (k - len(entry[:k]))] for entry in lists])


@pytest.mark.parametrize("k", [1, 3, 5])
def test_votes_meet_the_golden_lists(golden, k):
    case = golden[f"retrieval_tiny_k{k}"]
    labels = padded([[ord(c) - 65 for c in ranked] for ranked in case["input"]["ranked"]], k)
    truth = np.array([ord(c) - 65 for c in case["input"]["query_labels"]])
    for rule in ("strict", "anytie", "smallest", "fish"):
        assert votes_right(labels, truth, rule=rule).mean() == pytest.approx(case["expected"][f"mmv_{rule}"])
    assert votes_right(labels, truth).mean() == pytest.approx(case["expected"]["mmv_ranktie"])
    predicted = [None if p < 0 else chr(65 + p) for p in votes(labels)]
    assert predicted == case["expected"]["pred"]


@settings(derandomize=True, max_examples=60, deadline=None)
@given(label_lists, st.integers(1, 6), st.integers(0, 3))
def test_votes_equal_a_loop_with_counter(lists, k, true):
    labels = padded(lists, k)
    truth = np.full(len(lists), true)
    for i, entry in enumerate(lists):
        first = entry[:k]
        ranked = Counter(first).most_common(1)
        most = ranked[0][1] if ranked else 0
        modes = [label for label, count in Counter(first).items() if count == most]
        assert votes(labels)[i] == (ranked[0][0] if ranked else -1)
        assert votes(labels, rule="smallest")[i] == (min(modes) if modes else -1)
        assert votes_right(labels, truth, rule="anytie")[i] == (true in modes)
        assert votes_right(labels, truth, rule="strict")[i] == (first.count(true) > len(first) / 2)
        fish = bool(ranked) and ranked[0][0] == true and (len(first) == k or most >= -(-k // 2))
        assert votes_right(labels, truth, rule="fish")[i] == fish


@settings(derandomize=True, max_examples=40, deadline=None)
@given(label_lists, st.integers(1, 6), st.integers(0, 3))
def test_a_strict_vote_is_a_rank_vote_is_an_anytie_vote(lists, k, true):
    labels, truth = padded(lists, k), np.full(len(lists), true)
    strict, rank, anytie = (votes_right(labels, truth, rule=rule) for rule in ("strict", "rank", "anytie"))
    assert (strict <= rank).all()
    assert (rank <= anytie).all()


def test_unknown_rules_are_refused():
    with pytest.raises(ValueError, match="must be one of rank, strict, anytie, smallest, fish"):
        votes(np.zeros((1, 1), dtype=int), rule="plurality")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="anytie"):
        votes(np.zeros((1, 1), dtype=int), rule="anytie")
