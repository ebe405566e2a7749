"""Balanced batches: shares by cohort and slide, no tile twice, cost by the batch alone."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from histokin.learn.draws import draw_uniforms
from histokin.learn.sampling import BalancedSampler
from histokin.learn.sampling.balanced import _surplus


def world(sizes, cohorts):
    """Slides of the sizes and cohorts given, in mixed rows."""
    slides = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return slides, np.array(cohorts)[slides]


def assert_shares(counts, shares):
    """Chi-square at a chance of 1 in 10 000 to be refused by luck (the draws are seeded: it is met or not for good)."""
    expected = counts.sum() * shares
    assert expected.min() > 20
    assert ((counts - expected) ** 2 / expected).sum() < chi2.isf(1e-4, len(counts) - 1)


def test_cohorts_and_slides_and_tiles_get_their_shares():
    slides, cohorts = world([150, 50, 40, 200], [0, 0, 0, 1])
    sampler = BalancedSampler(2, 32, slides, cohorts)
    np.testing.assert_allclose(sampler.slide_shares, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    drawn = np.concatenate([sampler.draw(step).rows for step in range(800)])
    assert_shares(np.bincount(slides[drawn]), sampler.slide_shares)
    sizes = np.bincount(slides)
    assert_shares(np.bincount(drawn, minlength=len(slides)), (sampler.slide_shares / sizes)[slides])


def test_shares_hold_where_most_tiles_of_a_slide_are_in_the_batch():
    # 20 samples of two slides: up to 20 of the 24 tiles of one of them, drawn without replacement.
    slides, cohorts = world([24, 400], [0, 0])
    sampler = BalancedSampler(1, 20, slides, cohorts)
    drawn = np.concatenate([sampler.draw(step).rows for step in range(800)])
    assert_shares(np.bincount(slides[drawn]), np.array([0.5, 0.5]))
    assert_shares(np.bincount(drawn[slides[drawn] == 0], minlength=len(slides))[slides == 0], np.full(24, 1 / 24))


def test_slide_numbers_may_have_gaps_and_shares_name_their_slides():
    slides = np.array([7, 7, 3, 3, 3, 40])
    sampler = BalancedSampler(0, 2, slides, np.array([5, 5, 5, 5, 5, 1]))
    np.testing.assert_array_equal(sampler.slide_numbers, [3, 7, 40])
    np.testing.assert_allclose(sampler.slide_shares, [0.25, 0.25, 0.5])


def test_without_collisions_a_sample_is_what_its_counters_say():
    slides, cohorts = world([5000, 7000, 9000], [1, 0, 1])
    rows = BalancedSampler(8, 6, slides, cohorts).draw(11).rows
    for i, row in enumerate(rows):
        place = np.array([i])
        u = draw_uniforms(8, "balanced slide 0", 11, samples=place, n_views=1, n_draws=2)[0, 0]
        of_cohort = [1] if u[0] < 0.5 else [0, 2]
        slide = of_cohort[int(u[1] * len(of_cohort))]
        u = draw_uniforms(8, "balanced tile 0", 11, samples=place, n_views=1, n_draws=1)[0, 0, 0]
        tiles = [tile for tile in range(len(slides)) if slides[tile] == slide]
        assert row == tiles[int(u * len(tiles))]


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=7),
    batch=st.integers(1, 60),
    n_cohorts=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_no_tile_comes_twice_in_a_batch(sizes, batch, n_cohorts, seed):
    slides, cohorts = world(sizes, [slide % n_cohorts for slide in range(len(sizes))])
    sampler = BalancedSampler(seed, batch, slides, cohorts)
    assert sampler.batch == min(batch, len(slides))
    for step in range(3):
        rows = sampler.draw(step).rows
        assert len(set(rows.tolist())) == sampler.batch
        assert 0 <= rows.min() <= rows.max() < len(slides)


def test_a_cohort_with_fewer_tiles_than_its_share_gives_all_of_them():
    slides, cohorts = world([3, 900, 100], [0, 1, 1])
    sampler = BalancedSampler(0, 40, slides, cohorts)
    counts = np.array([np.bincount(slides[sampler.draw(step).rows], minlength=3) for step in range(200)])
    assert (counts[:, 0] == 3).all()  # 20 of 40 would be its share
    assert_shares(counts[:, 1:].sum(axis=0), np.array([0.5, 0.5]))


def test_of_equal_values_the_settled_stay_and_the_pending_come_in_their_order():
    values, room = np.array([4, 9, 4, 4, 9, 4, 6]), np.array([2, 1, 2, 2, 1, 2, 1])
    np.testing.assert_array_equal(_surplus(values, np.array([0, 2, 3, 4, 6]), room), [2, 3, 4])


def test_a_batch_as_large_as_the_tiles_holds_each_once():
    slides, cohorts = world([1, 1, 1, 97], [0, 1, 2, 3])
    np.testing.assert_array_equal(np.sort(BalancedSampler(0, 500, slides, cohorts).draw(0).rows), np.arange(100))


def test_where_redraws_find_no_room_free_tiles_are_taken(monkeypatch):
    monkeypatch.setattr("histokin.learn.sampling.balanced.SLIDE_TRIES", 0)
    slides, cohorts = world([1, 1, 50], [0, 1, 1])
    starts = set()
    for step in range(20):
        rows = BalancedSampler(0, 30, slides, cohorts).draw(step).rows
        assert len(set(rows.tolist())) == 30
        starts.add(tuple(rows[:3].tolist()))
    assert len(starts) > 10


def test_a_step_needs_memory_for_the_batch_and_not_for_the_tiles():
    slides = np.repeat(np.arange(1000, dtype=np.int16), 2000)
    sampler = BalancedSampler(0, 256, slides, (slides // 300).astype(np.int8))
    tracemalloc.start()
    try:
        sampler.draw(0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000  # a column of all tiles would take 2 MB at a byte each


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="1 slides have tiles of more than one cohort"):
        BalancedSampler(0, 2, np.array([0, 1, 0]), np.array([0, 0, 1]))
    with pytest.raises(ValueError, match=r"cannot draw 4 tiles of slides \(3,\) and cohorts \(2,\)"):
        BalancedSampler(0, 4, np.zeros(3, int), np.zeros(2, int))
    with pytest.raises(ValueError, match="cannot draw 0 tiles"):
        BalancedSampler(0, 0, np.zeros(3, int), np.zeros(3, int))
    with pytest.raises(ValueError, match="cannot draw 4 tiles"):
        BalancedSampler(0, 4, np.zeros(0, int), np.zeros(0, int))
