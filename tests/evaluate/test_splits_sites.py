"""Site-preserving folds: the golden optimum, brute force on small cases, and both searches on their own."""

import json
import math
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from histokin.errors import EvaluationError
from histokin.evaluate.splits import SplitItems, preserved_site_folds, preserved_sites
from histokin.evaluate.splits.sites import _descended, _filled, _Problem, _programmed, _searched

CASES = json.loads(Path(__file__).with_name("golden_evaluation.json").read_text())["cases"]
GOLDEN = next(case for case in CASES if case["id"] == "preserved_site")  # 6 sites x 2 classes, 3 folds
GOLDEN_COUNTS, GOLDEN_OBJECTIVE = np.array(GOLDEN["input"]["counts"]), GOLDEN["expected"]["objective"]


def every_objective(counts: np.ndarray, n_folds: int) -> np.ndarray:
    """Of all K^S assignments, straight from the formula."""
    fold = np.array(list(product(range(n_folds), repeat=len(counts))))
    spread = np.stack([(fold == f) @ counts for f in range(n_folds)], axis=1)
    return ((n_folds * spread - counts.sum(axis=0)) ** 2).sum(axis=(1, 2))


def some_counts(n_sites: int, n_classes: int, seed: int) -> np.ndarray:
    """Patients at sites of very different size, the sites leaning to classes."""
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(n_classes, 2.0), n_sites)
    return np.floor(rng.lognormal(1.5, 1.0, (n_sites, 1)) * shares * n_classes).astype(int)


def test_the_golden_optimum_is_found():
    objectives = every_objective(GOLDEN_COUNTS, 3)
    assert objectives.min() == GOLDEN_OBJECTIVE
    assert (objectives == GOLDEN_OBJECTIVE).sum() == GOLDEN["expected"]["n_optima"]
    found = preserved_sites(GOLDEN_COUNTS, 3, seconds=2)
    assert found.objective == GOLDEN_OBJECTIVE
    assert ((3 * found.counts - GOLDEN_COUNTS.sum(axis=0)) ** 2).sum() == GOLDEN_OBJECTIVE
    problem = _Problem(GOLDEN_COUNTS.astype(float), 3)
    assert problem.objective(np.array(GOLDEN["expected"]["assignment"])) == GOLDEN_OBJECTIVE
    assert problem.objective(found.fold) == GOLDEN_OBJECTIVE


@settings(max_examples=12)
@given(
    st.tuples(st.integers(3, 6), st.integers(1, 3)).flatmap(
        lambda shape: arrays(np.int64, shape, elements=st.integers(0, 12))
    ),
    st.integers(2, 3),
)
def test_small_cases_are_solved_as_by_brute_force(counts, n_folds):
    found = preserved_sites(counts, n_folds, seconds=1)
    assert found.objective == every_objective(counts, n_folds).min() >= found.bound
    assert np.unique(found.fold).tolist() == list(range(n_folds))
    assert (found.counts.sum(axis=0) == counts.sum(axis=0)).all()


def test_a_descent_ends_where_no_move_or_swap_helps():
    counts = some_counts(9, 3, 1).astype(float)
    problem = _Problem(counts, 3)
    start = np.random.default_rng(2).integers(0, 3, 9)
    end = _descended(problem, start)
    least = problem.objective(end)
    assert least < problem.objective(start)
    tried = []
    for site, to in product(range(9), range(3)):
        moved = end.copy()
        moved[site] = to
        tried.append(problem.objective(moved))
    for one, other in product(range(9), range(9)):
        swapped = end.copy()
        swapped[[one, other]] = end[[other, one]]
        tried.append(problem.objective(swapped))
    assert min(tried) == least


def test_the_programme_minimises_the_sum_of_distances():
    problem = _Problem(GOLDEN_COUNTS.astype(float), 3)
    fold, is_cut = _programmed(problem, 20.0)  # ends by itself in a tenth of a second
    assert not is_cut
    assigned = np.array(list(product(range(3), repeat=6)))
    spread = np.stack([(assigned == f) @ GOLDEN_COUNTS for f in range(3)], axis=1)
    least = np.abs(3 * spread - GOLDEN_COUNTS.sum(axis=0)).sum(axis=(1, 2)).min()
    assert np.abs(problem.excess(fold)).sum() == least


@pytest.mark.parametrize(("n_sites", "n_classes", "n_folds"), [(35, 2, 3), (20, 2, 3), (60, 3, 4)])
def test_many_sites_reach_the_bound_of_single_patients(n_sites, n_classes, n_folds):
    # The reference gives objectives for such sizes, not the counts behind them: the bound stands in for them.
    found = preserved_sites(some_counts(n_sites, n_classes, 0), n_folds, seconds=2)
    assert found.objective == found.bound
    assert (found.found_by, found.is_timed_out) == ("local", False)
    remainder = found.counts.sum(axis=0) % n_folds
    assert found.bound == (remainder * (n_folds - remainder) * n_folds).sum()


@pytest.mark.parametrize(("seed", "found_by"), [(0, "local"), (1, "milp")])
def test_the_lower_of_both_searches_is_kept(monkeypatch, seed, found_by):
    monkeypatch.setattr("histokin.evaluate.splits.sites._N_STARTS", 1)
    counts = some_counts(10, 2, 7)
    problem = _Problem(counts.astype(float), 3)
    single = problem.objective(_searched(problem, seed, math.inf)[0])
    programmed = _programmed(problem, 20.0)[0]  # ends by itself in a fiftieth of a second
    polished = problem.objective(_descended(problem, programmed))
    assert polished < problem.objective(programmed)
    both = preserved_sites(counts, 3, seed=seed, seconds=2)
    assert (both.objective, both.found_by) == (min(single, polished), found_by)
    assert (polished < single) == (found_by == "milp")


def test_folds_do_not_depend_on_the_run():
    counts = some_counts(10, 2, 7)
    first, second = (preserved_sites(counts, 3, seed=1, seconds=2) for _ in range(2))
    assert (first.fold == second.fold).all()
    assert first.fold[0] == 0


@given(arrays(np.int64, (6, 3), elements=st.integers(0, 5)), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_empty_folds_are_filled_and_it_costs_nothing(counts, fold):
    problem = _Problem(counts.astype(float), 4)
    filled = _filled(problem, np.array(fold))
    assert set(filled) == {0, 1, 2, 3}
    assert problem.objective(filled) <= problem.objective(np.array(fold))
    if len(set(fold)) == 4:
        assert filled.tolist() == fold


def test_sites_without_a_common_class_are_not_left_in_one_fold(monkeypatch):
    # Together they cost as much as apart, so a descent that starts with both in one fold ends there.
    monkeypatch.setattr("histokin.evaluate.splits.sites._N_STARTS", 1)
    counts = np.array([[3, 0], [0, 3]])
    problem = _Problem(counts.astype(float), 2)
    assert any(len(set(_searched(problem, seed, math.inf)[0])) == 1 for seed in range(8))
    for seed in range(8):
        assert preserved_sites(counts, 2, seed=seed, seconds=1).fold.tolist() == [0, 1]


def test_a_search_that_its_limit_ends_says_so():
    found = preserved_sites(some_counts(60, 6, 0), 7, seconds=0.05)
    assert found.is_timed_out
    assert found.objective > found.bound


@pytest.mark.parametrize(
    ("counts", "n_folds", "seconds"),
    [([[1, 2], [3, 4]], 1, 1), ([[1.5], [2]], 2, 1), ([[-1], [2]], 2, 1), ([1, 2], 2, 1), ([[1], [2]], 2, 0)],
)
def test_impossible_problems_are_refused(counts, n_folds, seconds):
    with pytest.raises(ValueError, match=r"counts must be|need n_folds"):
        preserved_sites(np.array(counts), n_folds, seconds=seconds)


def cohort() -> SplitItems:
    """The golden table as slides: two of every fifth patient."""
    rows = [
        (f"h{site}", f"c{label}", f"p{site}{label}{i:02d}", k)
        for (site, label), n in np.ndenumerate(GOLDEN_COUNTS)
        for i in range(n)
        for k in range(1 + (i % 5 == 0))
    ]
    return SplitItems.of(
        slide=[f"{patient}-{k}" for _, _, patient, k in rows],
        patient=[patient for _, _, patient, _ in rows],
        label=[label for _, label, _, _ in rows],
        site=[site for site, _, _, _ in rows],
    )


def test_the_table_holds_whole_sites_out_and_counts_patients():
    items = cohort()
    table, found = preserved_site_folds(items, 3, seconds=1)
    assert found.objective == GOLDEN_OBJECTIVE
    assert table.unit == "site"
    assert f"objective {GOLDEN_OBJECTIVE}" in table.kind
    for fold in range(3):
        tested = set(table.site[table.rows(0, fold, "test")])
        assert tested == {f"h{site}" for site in np.flatnonzero(found.fold == fold)}
        assert not tested & set(table.site[table.rows(0, fold, "train")])
        counts = table.class_counts(0, fold, of="patient")["test"]
        assert [counts["c0"], counts["c1"]] == found.counts[fold].tolist()
    order = np.random.default_rng(0).permutation(len(items))
    again = preserved_site_folds(items.take(order), 3, seconds=1)[0]
    assert set(zip(table.item, table.fold, table.part, strict=True)) == set(
        zip(again.item, again.fold, again.part, strict=True)
    )


def test_sites_that_show_one_picture_are_one_site():
    items = cohort()
    picture = items.slide.copy()
    picture[np.flatnonzero(items.site == "h5")[0]] = items.slide[np.flatnonzero(items.site == "h2")[0]]
    twins = replace(items, picture=picture)
    table, found = preserved_site_folds(twins, 3, seconds=1)
    assert len(found.fold) == 5
    counts = np.vstack([GOLDEN_COUNTS[:2], GOLDEN_COUNTS[2] + GOLDEN_COUNTS[5], GOLDEN_COUNTS[3:5]])
    counts[2] -= [1, 0]  # the two patients of the picture, class c0 both, are one
    assert found.objective == every_objective(counts, 3).min()
    assert table.warnings == ("sites that show the same picture are held out as one: h2 = h5",)
    for fold in range(3):
        tested = set(table.site[table.rows(0, fold, "test")])
        assert ("h2" in tested) == ("h5" in tested)


def test_what_sites_cannot_be_divided_is_named():
    items = cohort()
    wandering = items.site.copy()
    wandering[items.item == "p0000-1"] = "h1"
    with pytest.raises(EvaluationError, match="1 patients have slides at two sites: p0000"):
        preserved_site_folds(replace(items, site=wandering), 3)
    unknown = items.site.copy()
    unknown[:2] = ""
    with pytest.raises(EvaluationError, match=r"2 of \d+ items have no site"):
        preserved_site_folds(replace(items, site=unknown), 3)
    with pytest.raises(EvaluationError, match="6 sites cannot fill 7 folds"):
        preserved_site_folds(items, 7)
    rare = items.label.copy()
    rare[items.site == "h4"] = "rare"
    with pytest.raises(EvaluationError, match=r"too few sites for 3 .* class rare \(1\)"):
        preserved_site_folds(replace(items, label=rare), 3)
    table, _ = preserved_site_folds(replace(items, label=rare), 3, seconds=1, allow_missing_class=True)
    assert any("class rare" in warning for warning in table.warnings)
