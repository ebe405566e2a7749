"""Sampling laws: every tile once an epoch, never twice in a batch."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histokin.learn.sampling import EpochSampler, batch_rows, effective_batch, probe_rows


@settings(deadline=None, max_examples=60, derandomize=True)
@given(n_tiles=st.integers(1, 70), batch=st.integers(1, 40), seed=st.integers(0, 5))
def test_every_tile_comes_once_an_epoch_and_never_twice_in_a_batch(n_tiles, batch, seed):
    size = effective_batch(batch, n_tiles)
    batches = [batch_rows(seed, step, batch, n_tiles) for step in range(4 * n_tiles // size + 1)]
    assert all(len(rows) == size == len(set(rows.tolist())) for rows in batches)
    drawn = np.concatenate(batches)
    for epoch in range(4):
        np.testing.assert_array_equal(np.sort(drawn[epoch * n_tiles : (epoch + 1) * n_tiles]), np.arange(n_tiles))


@pytest.mark.parametrize(("batch", "n_tiles", "expected"), [(8, 5, 5), (8, 8, 8), (8, 9, 5), (8, 14, 7), (8, 15, 8)])
def test_the_batch_is_reduced_only_where_a_tile_would_repeat(batch, n_tiles, expected):
    assert effective_batch(batch, n_tiles) == expected


def test_steps_can_be_asked_for_in_any_order():
    forwards = [batch_rows(1, step, 7, 30) for step in range(20)]
    backwards = [batch_rows(1, step, 7, 30) for step in reversed(range(20))]
    np.testing.assert_array_equal(forwards, backwards[::-1])


def test_epochs_and_seeds_are_shuffled_differently():
    first, second, other = batch_rows(0, 0, 50, 50), batch_rows(0, 1, 50, 50), batch_rows(1, 0, 50, 50)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_positions_are_uniform_over_epochs():
    # Tile 0 in the first batch of an epoch: a share of batch / n_tiles of the epochs.
    hits = sum(0 in batch_rows(seed, 0, 10, 40) for seed in range(400))
    assert abs(hits / 400 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)


def test_probe_rows_are_fixed_distinct_and_no_more_than_there_are():
    rows = probe_rows(3, 100, 12)
    np.testing.assert_array_equal(rows, probe_rows(3, 100, 12))
    assert len(set(rows.tolist())) == 12
    assert len(probe_rows(3, 5, 12)) == 5


@pytest.mark.parametrize(("batch", "n_tiles"), [(7, 30), (8, 9), (8, 3), (2, 2)])
def test_the_sampler_draws_the_batches_of_batch_rows(batch, n_tiles):
    sampler = EpochSampler(5, batch, n_tiles)
    assert sampler.batch == effective_batch(batch, n_tiles)
    for step in range(12):
        draw = sampler.draw(step)
        np.testing.assert_array_equal(draw.rows, batch_rows(5, step, batch, n_tiles))
        assert draw.partners is None
        assert draw.near is None


@pytest.mark.parametrize(("batch", "n_tiles"), [(0, 5), (5, 0)])
def test_a_sampler_of_nothing_is_refused(batch, n_tiles):
    with pytest.raises(ValueError, match=f"cannot draw {batch} of {n_tiles}"):
        EpochSampler(0, batch, n_tiles)
