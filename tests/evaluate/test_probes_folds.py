"""Folds: the golden assignment, scikit-learn's rule, and what no fold may ever do."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.evaluate.probes.folds import Split, grouped_folds, outer_folds

GOLDEN = {case["id"]: case for case in json.loads(Path(__file__).with_name("golden_probes.json").read_text())["cases"]}


def test_set_f1_gives_the_golden_folds(f1):
    expected = GOLDEN["stratified_group_kfold_F1"]["expected"]
    row = np.arange(240)
    kept = row % 10 < 4 + f1.patient % 7
    folds = grouped_folds(f1.patient[kept], 4, f1.label[kept])
    of_patient = [int(folds[f1.patient[kept] == p][0]) for p in range(24)]
    assert of_patient == expected["fold_of_patient"]
    counts = [np.bincount(f1.label[kept][folds == fold], minlength=4).tolist() for fold in range(4)]
    assert counts == expected["class_counts"]


@pytest.mark.parametrize("seed", range(6))
def test_folds_are_those_of_scikit_learn(seed):
    from sklearn.model_selection import StratifiedGroupKFold

    rng = np.random.default_rng(seed)
    groups = np.sort(rng.integers(0, 13, 200))
    strata = rng.integers(0, 3, 200)
    expected = np.zeros(200, dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for fold, (_, test) in enumerate(StratifiedGroupKFold(4).split(groups, strata, groups)):
            expected[test] = fold
    assert (grouped_folds(groups, 4, strata) == expected).all()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), min_size=2, max_size=80), st.integers(2, 6))
def test_no_group_is_split_and_no_fold_is_empty(rows, n_folds):
    groups, strata = np.array(rows).T
    for folds in (grouped_folds(groups, n_folds, strata), grouped_folds(groups, n_folds)):
        assert all(len(np.unique(folds[groups == group])) == 1 for group in np.unique(groups))
        assert np.unique(folds).tolist() == list(range(int(folds.max()) + 1))
        assert folds.max() < n_folds


def test_the_order_of_rows_changes_no_fold():
    rng = np.random.default_rng(3)
    groups, strata, order = rng.integers(0, 25, 300), rng.integers(0, 4, 300), rng.permutation(300)
    assert (grouped_folds(groups, 5, strata)[order] == grouped_folds(groups[order], 5, strata[order])).all()


def test_without_strata_folds_are_of_like_size():
    groups = np.repeat(np.arange(7), [40, 30, 20, 10, 10, 5, 5])
    assert sorted(np.bincount(grouped_folds(groups, 3)).tolist()) == [40, 40, 40]


def test_repeats_are_other_folds_and_each_is_the_same_again():
    groups = np.repeat(np.arange(24), 5)
    strata = np.arange(120) % 3
    first, second = (grouped_folds(groups, 4, strata, repeat=repeat) for repeat in (1, 2))
    assert (first != second).any()
    assert (first == grouped_folds(groups, 4, strata, repeat=1)).all()


def test_one_group_is_left_out_up_to_twenty_and_five_folds_are_made_of_more():
    few, many = np.repeat(np.arange(20), 3), np.repeat(np.arange(21), 3)
    assert (outer_folds(few, Split()) == few).all()
    assert outer_folds(many, Split()).max() == 4
    assert (outer_folds(many, Split(n_folds=21)) == many).all()
    assert outer_folds(few, Split(n_folds=3)).max() == 2


@pytest.mark.parametrize("wrong", [{"n_folds": 1}, {"n_inner": 1}, {"repeat": -1}])
def test_a_split_without_folds_is_refused(wrong):
    with pytest.raises(ValueError, match="a split needs"):
        Split(**wrong)


def test_a_tie_goes_to_the_fold_with_fewer_rows():
    groups, strata = np.array([0, 0, 0, 1, 2]), np.array([1, 1, 1, 1, 0])
    assert grouped_folds(groups, 2, strata).tolist() == [0, 0, 0, 1, 1]
