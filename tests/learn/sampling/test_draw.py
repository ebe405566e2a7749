"""What holds for every sampler: (seed, step) alone decides, and the ranks' shares are the whole."""

import numpy as np
import pytest

from histokin.learn.sampling import BalancedSampler, Draw, EpochSampler, PairSampler, plan_pairs

rng = np.random.default_rng(3)
SLIDES = rng.permutation(np.repeat(np.arange(4), [60, 50, 30, 3]))
PLACES = rng.uniform(0, 5000, (143, 2))


def epochs(seed, batch):
    return EpochSampler(seed, batch, len(SLIDES))


def balanced(seed, batch):
    return BalancedSampler(seed, batch, SLIDES, SLIDES // 2)


def pairs(seed, batch):
    return PairSampler(seed, batch, plan_pairs(SLIDES, PLACES, 100.0), tree_tiles=70)  # trees come and go


every_sampler = pytest.mark.parametrize("make", [epochs, balanced, pairs])


def columns(draw):
    return [column for column in (draw.rows, draw.partners, draw.near) if column is not None]


def assert_equal(first, second):
    assert len(columns(first)) == len(columns(second))
    for one, other in zip(columns(first), columns(second), strict=True):
        np.testing.assert_array_equal(one, other)


@every_sampler
@pytest.mark.parametrize("batch", [2, 24, 64])
def test_a_draw_is_as_large_as_the_sampler_says(make, batch):
    sampler = make(0, batch)
    draw = sampler.draw(3)
    assert {len(column) for column in columns(draw)} == {sampler.batch} == {len(draw)}
    assert draw.rows.dtype == np.int64
    assert draw.partners is None or draw.partners.dtype == np.int64
    assert draw.near is None or draw.near.dtype == bool
    assert draw.first == 0


@every_sampler
def test_one_used_before_draws_what_a_fresh_one_draws(make):
    used = make(7, 24)
    for step in (9, 2, 2, 5, 0):
        assert_equal(used.draw(step), make(7, 24).draw(step))


@every_sampler
def test_the_order_of_steps_does_not_matter(make):
    forwards, backwards = make(1, 20), make(1, 20)
    for one, other in zip(
        [forwards.draw(s) for s in range(8)], [backwards.draw(s) for s in range(7, -1, -1)][::-1], strict=True
    ):
        assert_equal(one, other)


@every_sampler
def test_steps_and_seeds_draw_differently(make):
    first, step, seed = make(0, 24).draw(0), make(0, 24).draw(1), make(1, 24).draw(0)
    assert not np.array_equal(first.rows, step.rows)
    assert not np.array_equal(first.rows, seed.rows)


@every_sampler
@pytest.mark.parametrize("world", [1, 2, 3, 8, 30])
def test_the_ranks_shares_together_are_the_draw_of_one_process(make, world):
    whole = make(4, 26).draw(6)
    shares = [make(4, 26).draw(6).share(rank, world) for rank in range(world)]
    for column, parts in zip(columns(whole), zip(*map(columns, shares), strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), column)
    for share in shares:
        np.testing.assert_array_equal(share.rows, whole.rows[share.first : share.first + len(share)])


def test_a_share_is_cut_from_all_columns_at_the_same_place():
    draw = Draw(np.arange(10, 17), np.arange(20, 27), np.arange(7) % 2 == 0)
    share = draw.share(1, 3)
    assert (share.first, len(share)) == (2, 2)
    np.testing.assert_array_equal(share.rows, [12, 13])
    np.testing.assert_array_equal(share.partners, [22, 23])
    np.testing.assert_array_equal(share.near, [True, False])
    assert draw.share(2, 3).share(1, 3).first == 5  # of 4 to 6, the second


@pytest.mark.parametrize(("rank", "world"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_that_is_not_there_is_refused(rank, world):
    with pytest.raises(ValueError, match=f"no rank {rank} of {world}"):
        Draw(np.arange(4)).share(rank, world)
