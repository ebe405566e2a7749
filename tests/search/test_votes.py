"""The label shown to a user: independent of how equal hits are listed. (The metrics' rules: tests/evaluate.)"""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histokin.search.votes import tally

hits = st.lists(st.tuples(st.sampled_from(["", "a", "b", "c"]), st.sampled_from([0.1, 0.2, 0.3, 0.7])), max_size=8)


@settings(derandomize=True, max_examples=80, deadline=None)
@given(hits, st.randoms(use_true_random=False))
def test_the_histokin_rule_does_not_depend_on_the_order_of_the_list(found, random):
    moved = list(found)
    random.shuffle(moved)
    columns = [list(column) for column in zip(*found, strict=True)] or [[], []]
    shuffled = [list(column) for column in zip(*moved, strict=True)] or [[], []]
    assert tally(*columns) == tally(*shuffled)


@settings(derandomize=True, max_examples=80, deadline=None)
@given(hits)
def test_first_seen_is_the_counter_of_the_published_codes(found):
    labels = [label for label, _ in found]
    ours = tally(labels, [value for _, value in found], rule="first_seen")
    assert [(entry.label, entry.count) for entry in ours] == Counter(label for label in labels if label).most_common()


def test_equal_scores_share_a_rank_and_the_text_decides_last():
    # Same count, same sum; "b" holds the best hit.
    found = tally(["b", "a", "a", "b"], [0.9, 0.8, 0.2, 0.1])
    assert [(entry.label, entry.rank) for entry in found] == [("b", 1), ("a", 2)]
    found = tally(["b", "a", "c"], [0.5, 0.5, 0.4])
    assert [(entry.label, entry.rank) for entry in found] == [("a", 1), ("b", 1), ("c", 3)]


def test_unlabelled_hits_have_no_vote():
    assert tally(["", "", "x"], [0.9, 0.8, 0.1])[0].label == "x"
    assert tally(["", ""], np.array([0.9, 0.8])) == ()


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="tally rule must be one of histokin, first_seen"):
        tally(["a"], [1.0], rule="best")
    with pytest.raises(ValueError, match="1 labels for 2 similarities"):
        tally(["a"], [1.0, 2.0])
