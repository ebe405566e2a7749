"""Strategies that score the query and one slide: against the formula, bounded, the same in any company."""

from itertools import pairwise

import numpy as np
import pytest
from search.archives import make_searcher, query_of

from histokin.errors import SearchError
from histokin.search.barcodes import falling
from histokin.search.strategies import (
    STRATEGIES,
    Asked,
    BinaryMedianMin,
    BoundedStrategy,
    MaxSim,
    MaxSimBoth,
    Mean,
    MedianMin,
)
from histokin.search.strategies.asked import SLACK, shares

PAIRS = {"maxsim": MaxSim(), "maxsim_sym": MaxSimBoth(), "median_min": MedianMin(), "binary": BinaryMedianMin()}


def slow_median(values, weights):
    """Golden rule of region_weighted_median, one value at a time."""
    ordered = sorted(zip(values, weights, strict=True))
    ordered = [(value, weight / sum(weights)) for value, weight in ordered if weight > 0]
    below = 0.0
    for number, (value, weight) in enumerate(ordered):
        below += weight
        if abs(below - 0.5) <= 1e-12:
            return (value + ordered[number + 1][0]) / 2
        if below > 0.5:
            return value
    raise AssertionError


def slow_score(name, query, weights, slide):
    """Straight from the formulas, pair by pair."""
    unit = query / np.linalg.norm(query, axis=1, keepdims=True)
    weights = np.asarray(weights) / np.sum(weights)
    pairs = np.array([[float(q @ t) for t in slide] for q in unit])
    there = sum(w * max(row) for w, row in zip(weights, pairs, strict=True))
    if name == "maxsim":
        return there
    if name == "maxsim_sym":
        return (there + np.mean([max(column) for column in pairs.T])) / 2
    if name == "median_min":
        return 1 - slow_median([min(1 - value for value in row) for row in pairs], weights)
    codes = [[a > b for a, b in pairwise(row)] for row in [*query, *slide]]
    nearest = [
        min(sum(a != b for a, b in zip(codes[q], code, strict=True)) for code in codes[len(query) :])
        for q in range(len(query))
    ]
    return 1 - slow_median(nearest, weights) / (query.shape[1] - 1)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("weights", [[1, 1, 1, 1], [1, 2, 3, 4], [0, 0, 1, 1], [1, 0, 0, 0]])
def test_scores_equal_the_formula_and_rough_ones_nearly(name, weights):
    rng = np.random.default_rng(0)
    query = rng.normal(size=(4, 12))
    slides = [rng.normal(size=(n, 12)) for n in (1, 2, 5, 9)]
    slides = [(s / np.linalg.norm(s, axis=1, keepdims=True)).astype(np.float16) for s in slides]
    asked = Asked.of(query, np.array(weights))
    first = np.cumsum([0, *(len(s) for s in slides)])
    rough = PAIRS[name].rough(asked, np.concatenate(slides), first)
    for number, slide in enumerate(slides):
        expected = slow_score(name, query, weights, slide.astype(float))
        assert PAIRS[name].score(asked, slide.astype(np.float64)) == pytest.approx(expected, abs=1e-12)
        assert rough[number] == pytest.approx(expected, abs=SLACK)


def test_the_mean_is_the_cosine_of_weighted_means_and_a_slide_without_direction_is_like_nothing():
    rng = np.random.default_rng(1)
    query, means = rng.normal(size=(3, 6)), rng.normal(size=(5, 6)).astype(np.float32)
    means[2] = 0
    asked = Asked.of(query, np.array([1, 2, 3]))
    mean = np.average(query / np.linalg.norm(query, axis=1, keepdims=True), axis=0, weights=[1, 2, 3])
    rough = Mean().rough(asked, means, np.arange(6))
    for number, row in enumerate(means.astype(float)):
        length = np.linalg.norm(mean) * np.linalg.norm(row)
        expected = mean @ row / length if length else 0.0
        assert Mean().score(asked, row[None]) == pytest.approx(expected, abs=1e-12)
        assert rough[number] == pytest.approx(expected, abs=SLACK)


@pytest.mark.parametrize("name", [name for name, strategy in PAIRS.items() if isinstance(strategy, BoundedStrategy)])
def test_no_slide_scores_more_than_the_ceiling_of_what_its_tiles_may_be_like(name):
    rng = np.random.default_rng(2)
    asked = Asked.of(rng.normal(size=(6, 10)), rng.random(6))
    for _ in range(50):
        slide = rng.normal(size=(int(rng.integers(1, 8)), 10))
        slide /= np.linalg.norm(slide, axis=1, keepdims=True)
        best = (asked.vectors @ slide.T).max(axis=1)
        # Some query tiles are known by what they found at best, others only by a number that is no smaller.
        assumed = best + np.where(rng.random(6) < 0.5, 0, rng.random(6))
        assert PAIRS[name].score(asked, slide) <= PAIRS[name].ceiling(asked, assumed[:, None])[0] + 1e-12
    assert {n for n, s in PAIRS.items() if isinstance(s, BoundedStrategy)} == {"maxsim", "maxsim_sym", "median_min"}


@pytest.mark.parametrize("strategy", [*PAIRS.values(), Mean()])
def test_evidence_names_the_best_tile_and_of_equal_ones_the_first(strategy):
    rng = np.random.default_rng(3)
    slide = rng.normal(size=(6, 8))
    slide = np.concatenate([slide, slide])
    slide /= np.linalg.norm(slide, axis=1, keepdims=True)
    row, similarity = strategy.pairs(Asked.of(slide[[4, 1, 11]] * 3), slide)
    assert row.tolist() == [4, 1, 5]
    assert similarity == pytest.approx(np.ones(3))


def test_shares_count_negative_similarities_and_missing_pairs_as_nothing():
    found = shares(np.array([0.5, 0.25, 0.25]), np.array([0.4, -0.3, np.nan]))
    assert found.tolist() == [1, 0, 0]
    assert shares(np.array([0.5, 0.5]), np.array([-1.0, -1.0])).tolist() == [0, 0]


def test_presets_are_what_their_names_say():
    assert STRATEGIES["yottixel"] == STRATEGIES["median_min/binary"] == BinaryMedianMin(falling)
    searcher = make_searcher(6)
    for name in STRATEGIES:
        assert isinstance(STRATEGIES[name], BoundedStrategy) == (name in {"maxsim", "maxsim_sym", "median_min"})
    assert len(query_of(searcher, 0)) == 8


def test_queries_without_a_meaning_are_refused():
    rows = np.ones((2, 3))
    with pytest.raises(ValueError, match="at least one tile"):
        Asked.of(rows[:0])
    with pytest.raises(SearchError, match="query 1 is zero"):
        Asked.of(np.array([[1.0, 0], [0, 0]]))
    for weights in ([1.0], [0.0, 0.0], [-1.0, 2.0], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="need 2 weights >= 0, not all 0"):
            Asked.of(rows, np.array(weights))
