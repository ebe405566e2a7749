"""Rows by label against plain loops."""

import numpy as np
import pytest

from histokin.learn.sampling.groups import floor_of, group_rows, spread_ranges


@pytest.mark.parametrize("labels", [[], [5], [3, 3, 3], [0, 0, 2, 7], [7, 2, 7, 0, 2, 2], [1, 0]])
def test_groups_hold_the_rows_of_their_label_in_order(labels):
    labels = np.array(labels, np.int32)
    groups = group_rows(labels)
    np.testing.assert_array_equal(groups.labels, sorted(set(labels.tolist())))
    assert (groups.order is None) == (sorted(labels.tolist()) == labels.tolist())
    for group, label in enumerate(groups.labels):
        expected = [row for row in range(len(labels)) if labels[row] == label]
        np.testing.assert_array_equal(groups.rows_of(group), expected)
        np.testing.assert_array_equal(groups.select(np.arange(len(labels)) * 10, group), np.array(expected) * 10)
        assert groups.sizes[group] == len(expected)


def test_pick_reaches_every_row_of_a_group_and_no_other():
    groups = group_rows(np.array([4, 9, 4, 9, 9]))
    picked = groups.pick(np.array([[0, 0, 0], [1, 1, 1]]), np.array([[0, 0.49, 0.5], [0, 0.34, 1 - 2.0**-53]]))
    np.testing.assert_array_equal(picked, [[0, 0, 2], [1, 3, 4]])


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10**8, 2**31 + 1, 2**40, 2**52 + 3])
def test_the_largest_uniform_stays_below_n(n):
    assert floor_of(np.array([1 - 2.0**-53]), n)[0] == n - 1


def test_ranges_are_laid_one_after_another():
    np.testing.assert_array_equal(spread_ranges(np.array([5, 0, 9]), np.array([2, 0, 3])), [5, 6, 9, 10, 11])
    assert len(spread_ranges(np.array([], np.int64), np.array([], np.int64))) == 0


def test_a_table_of_labels_is_refused():
    with pytest.raises(ValueError, match=r"one label a row, got \(2, 2\)"):
        group_rows(np.zeros((2, 2), int))
