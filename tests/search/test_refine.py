"""Refining queries against the formulas, scikit-learn's fits and planted directions that hold or do not."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize

from histokin.errors import SearchError, StoreError
from histokin.search.refine import Concept, along, learn_concept, learn_from_marks, rocchio

D = 12


def vectors(n, seed=0, d=D):
    return np.random.default_rng(seed).normal(size=(n, d))


# ---- by example


@pytest.mark.parametrize(("n_pins", "n_rejected"), [(3, 2), (1, 0), (0, 4), (0, 0)])
def test_rocchio_moves_by_the_means_of_unit_vectors(n_pins, n_rejected):
    query, pins, rejected = vectors(1)[0], vectors(n_pins, 1), vectors(n_rejected, 2)
    moved = query / np.linalg.norm(query)
    for p in pins:
        moved = moved + 0.75 * p / np.linalg.norm(p) / n_pins
    for r in rejected:
        moved = moved - 0.25 * r / np.linalg.norm(r) / n_rejected
    assert rocchio(query, pins, rejected) == pytest.approx(moved / np.linalg.norm(moved), abs=1e-12)


def test_weights_of_the_marks_are_what_is_asked_and_none_leave_the_query():
    query = vectors(1)[0]
    assert rocchio(query) == pytest.approx(normalize(query[None])[0], abs=1e-12)
    far = rocchio(query, vectors(1, 1), vectors(1, 2), beta=1e6, gamma=0)
    assert far == pytest.approx(normalize(vectors(1, 1))[0], abs=1e-5)


def test_each_tile_of_a_bag_is_moved_as_if_it_were_asked_alone():
    bag, pins, rejected = vectors(6, 3), vectors(7, 4), vectors(8, 5)
    concept = Concept(normalize(vectors(1, 6))[0], 0.9, 5, 5, 4)
    for move in (
        lambda q: rocchio(q, pins, rejected),
        lambda q: learn_from_marks(q, pins, rejected),
        lambda q: along(q, concept, 0.6),
    ):
        moved = move(bag)
        assert moved == pytest.approx(np.array([move(tile) for tile in bag]), abs=1e-12)
        assert np.linalg.norm(moved, axis=1) == pytest.approx(np.ones(6))


def test_marks_that_cancel_the_query_are_refused_and_broken_ones_named():
    query = np.array([1.0, 0, 0])
    with pytest.raises(SearchError, match="the marks cancel the query"):
        rocchio(query, None, query[None], gamma=1)
    with pytest.raises(StoreError, match="pinned row 1"):
        rocchio(query, np.array([[1.0, 0, 0], [0, 0, 0]]))
    with pytest.raises(StoreError, match="rejected row 0"):
        rocchio(query, None, np.array([[np.nan, 0, 0]]))


def test_marks_move_the_query_along_scikit_learns_weights():
    query, pins, rejected = vectors(1)[0], vectors(9, 1) + 1, vectors(6, 2)
    x, y = normalize(np.concatenate([pins, rejected])), [True] * 9 + [False] * 6
    sample = np.where(y, 15 / 18, 15 / 12)  # balanced: n / (2 n_c)
    fit = LogisticRegression(C=0.5, tol=1e-8, max_iter=2000).fit(x, y, sample_weight=sample)
    expected = normalize(normalize(query[None]) + 2 * normalize(fit.coef_))[0]
    assert learn_from_marks(query, pins, rejected, strength=2, c=0.5) == pytest.approx(expected, abs=1e-3)


def test_marks_teach_a_property_that_the_query_itself_does_not_show():
    before, after, query = [], [], np.eye(D)[1]
    for seed in range(10):
        rng = np.random.default_rng(seed)
        has = rng.random(200) < 0.5
        rows = rng.normal(size=(200, D))
        rows[:, 0] += 2.5 * has
        moved = learn_from_marks(query, rows[has][:10], rows[~has][:10])
        rest = np.r_[np.flatnonzero(has)[10:], np.flatnonzero(~has)[10:]]
        before.append(roc_auc_score(has[rest], normalize(rows)[rest] @ query))
        after.append(roc_auc_score(has[rest], normalize(rows)[rest] @ moved))
    assert np.mean(before) < 0.55
    assert min(after) > 0.7


def test_five_marks_of_each_kind_are_needed_and_they_must_differ():
    query, marks = vectors(1)[0], vectors(5, 1)
    with pytest.raises(SearchError, match=r"5 hits are pinned and 4 rejected.*at least 5 of each"):
        learn_from_marks(query, marks, vectors(4, 2))
    with pytest.raises(SearchError, match=r"the same.*Mark hits that differ"):
        learn_from_marks(query, marks, marks)


# ---- by concept


def tissue(seed=0, n_patients=12, n_each=10, effect=2.0, stain=0.0, *, is_mixed=True):
    """Tiles with a property along axis 0 and a shift of each patient; not mixed: a patient has it in all or in none."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n_patients).repeat(n_each)
    has = rng.random(len(patient)) < 0.5 if is_mixed else patient % 2 == 0
    rows = rng.normal(size=(len(patient), D)) + stain * rng.normal(size=(n_patients, D))[patient]
    rows[:, 0] += effect * has
    return rows, has, np.array([f"p{i}" for i in patient], dtype=object)


def test_a_concept_points_from_the_mean_without_to_the_mean_with():
    rows, has, patients = tissue()
    concept = learn_concept(rows, has, patients)
    unit = normalize(rows)
    expected = unit[has].mean(axis=0) - unit[~has].mean(axis=0)
    assert concept.direction == pytest.approx(expected / np.linalg.norm(expected), abs=1e-12)
    assert (concept.n_with, concept.n_without, concept.n_patients) == (has.sum(), (~has).sum(), 12)
    assert concept.is_shown


def test_the_auc_is_that_of_patients_the_direction_was_not_learned_from():
    """With a fold for each patient: a loop that leaves each patient out, with AUC by counting pairs."""
    rows, has, patients = tissue(effect=1.0)
    unit, score = normalize(rows), np.empty(len(rows))
    for patient in set(patients):
        held = patients == patient
        a, b = unit[~held & has].mean(axis=0), unit[~held & ~has].mean(axis=0)
        score[held] = (unit[held] - (a + b) / 2) @ ((a - b) / np.linalg.norm(a - b))
    gaps = score[has][:, None] - score[~has]
    expected = ((gaps > 0) + 0.5 * (gaps == 0)).mean()
    assert learn_concept(rows, has, patients, n_folds=12).auc == pytest.approx(expected)


def test_a_direction_that_only_tells_patients_apart_is_hidden():
    """Negative control: on its own tiles such a direction looks perfect."""
    rows, has, patients = tissue(effect=0, stain=3, is_mixed=False)
    concept = learn_concept(rows, has, patients)
    assert roc_auc_score(has, normalize(rows) @ concept.direction) > 0.85
    assert not concept.is_shown
    with pytest.raises(SearchError, match=r"AUC on patients .* 0\.\d\d, 0\.7 is needed.*more patients"):
        along(vectors(1)[0], concept, 0.5)


def test_shuffled_marks_give_a_hidden_concept():
    rng = np.random.default_rng(0)
    rows, has, patients = tissue()
    aucs = [learn_concept(rows, rng.permutation(has), patients).auc for _ in range(20)]
    assert max(aucs) < 0.7
    assert 0.35 < np.mean(aucs) < 0.55


def test_a_concept_does_not_depend_on_the_order_of_the_tiles():
    rows, has, patients = tissue()
    first = learn_concept(rows, has, patients)
    order = np.random.default_rng(0).permutation(len(rows))
    again = learn_concept(rows[order], has[order], patients[order])
    assert again.auc == first.auc
    assert again.direction == pytest.approx(first.direction, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_no_fold_takes_all_patients_with_or_without_the_property(seed):
    rows, _, patients = tissue(n_patients=6, n_each=3)
    rare = np.isin(patients, ["p1", "p4"])
    for has in (rare, ~rare):
        for n_folds in (2, 5):
            assert 0 <= learn_concept(rows, has, patients, n_folds=n_folds, seed=seed).auc <= 1


def test_a_concept_of_one_patient_cannot_be_judged():
    rows, has, patients = tissue()
    with pytest.raises(SearchError, match=r"tiles with the property are of 1 patients.*at least two"):
        learn_concept(rows, patients == "p3", patients)
    with pytest.raises(SearchError, match="tiles without the property are of 0 patients"):
        learn_concept(rows, np.ones(len(rows), bool), patients)
    with pytest.raises(ValueError, match="a patient's name"):
        learn_concept(rows, has, np.where(patients == "p3", "", patients))


def test_a_query_slides_along_a_concept_both_ways_and_stays_at_nought():
    rows, has, patients = tissue()
    concept, query = learn_concept(rows, has, patients), vectors(1)[0]
    at = [along(query, concept, t) @ concept.direction for t in (-1, -0.5, 0, 0.5, 1)]
    assert (np.diff(at) > 0).all()
    assert along(query, concept, 0) == pytest.approx(normalize(query[None])[0], abs=1e-12)
    expected = normalize(normalize(query[None]) + 0.5 * concept.direction)[0]
    assert along(query, concept, 0.5) == pytest.approx(expected, abs=1e-12)
    with pytest.raises(ValueError, match="between -1 and 1"):
        along(query, concept, 1.1)
