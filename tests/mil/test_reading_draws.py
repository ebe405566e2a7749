"""Plans of batches: nothing lost, nothing too large, samples that are uniform, and nothing that depends on luck."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.mil.reading import BagSource, Draw, sampled_bags, whole_bags

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=30).map(lambda found: np.array(found, dtype=np.int64))


@given(LENGTHS, st.integers(1, 9), st.integers(1, 100))
def test_batches_hold_every_bag_once_within_both_limits(lengths: np.ndarray, n_bags: int, max_tiles: int) -> None:
    draws = whole_bags(lengths, np.arange(len(lengths)), n_bags=n_bags, max_tiles=max_tiles)
    assert np.concatenate([draw.bags for draw in draws]).tolist() == list(range(len(lengths)))
    for draw in draws:
        assert draw.lengths.tolist() == lengths[draw.bags].tolist()
        assert draw.starts.tolist() == [0] * len(draw)
        assert len(draw) <= n_bags
        assert draw.lengths.sum() <= max_tiles or len(draw) == 1


@given(LENGTHS, st.integers(1, 20), st.integers(0, 5))
def test_training_takes_every_bag_once_and_at_most_the_cap_of_it(lengths: np.ndarray, cap: int, epoch: int) -> None:
    numbers = np.arange(len(lengths))
    draws = sampled_bags(lengths, numbers, n_bags=4, max_tiles=50, tile_cap=cap, seed=3, epoch=epoch)
    bags = np.concatenate([draw.bags for draw in draws])
    assert sorted(bags.tolist()) == numbers.tolist()
    taken = np.concatenate([draw.lengths for draw in draws])
    assert taken.tolist() == np.minimum(lengths[bags], cap).tolist()


def test_an_epochs_draws_follow_from_seed_and_epoch_alone() -> None:
    lengths = np.full(20, 50)

    def drawn(seed: int, epoch: int) -> list[tuple[list[int], list[int]]]:
        found = sampled_bags(lengths, np.arange(20), n_bags=4, max_tiles=999, tile_cap=9, seed=seed, epoch=epoch)
        return [(draw.bags.tolist(), draw.starts.tolist()) for draw in found]

    assert drawn(0, 3) == drawn(0, 3)
    assert drawn(0, 3) != drawn(0, 4)
    assert drawn(1, 3) != drawn(0, 3)


def test_sampled_tiles_are_uniform_over_a_bag_and_distinct() -> None:
    n, cap, epochs = 50, 10, 1500
    source = BagSource.of_arrays([np.arange(n, dtype=np.float32)[:, None]])
    counts = np.zeros(n)
    for epoch in range(epochs):
        (draw,) = sampled_bags(source.lengths, np.arange(1), n_bags=1, max_tiles=99, tile_cap=cap, seed=0, epoch=epoch)
        tiles = source.read(draw).x[:, 0].long().numpy()
        assert np.all(np.diff(tiles) > 0)  # distinct, and in the order of the file
        counts[tiles] += 1
    expected = epochs * cap / n
    # Blocks are drawn independently: each tile is in one with p = cap / n.
    assert np.abs(counts - expected).max() < 4.5 * np.sqrt(expected * (1 - cap / n))


def test_a_block_that_goes_round_the_end_of_its_bag_stays_in_it() -> None:
    source = BagSource.of_arrays([np.full((4, 1), 1.0), np.arange(10.0)[:, None], np.full((4, 1), -1.0)])
    own = source.order[source.offsets[1] : source.offsets[2]]
    found = source.read(Draw(np.array([1]), np.array([8]), np.array([5])))
    assert found.x[:, 0].tolist() == sorted(own[[8, 9, 0, 1, 2]].tolist())


def test_a_sampler_draws_classes_alike() -> None:
    codes = np.array([0] * 90 + [1] * 10)
    weights = 1 / np.bincount(codes)[codes]
    shares = [
        np.mean(
            [
                codes[draw.bags].mean()
                for draw in sampled_bags(
                    np.ones(100, dtype=np.int64),
                    np.arange(100),
                    n_bags=100,
                    max_tiles=999,
                    tile_cap=1,
                    seed=0,
                    epoch=epoch,
                    weights=weights,
                )
            ]
        )
        for epoch in range(100)
    ]
    assert abs(np.mean(shares) - 0.5) < 4 * 0.5 / np.sqrt(100 * 100)


def test_a_last_batch_too_small_for_its_loss_joins_the_one_before() -> None:
    lengths = np.ones(9, dtype=np.int64)
    sizes = [
        [len(draw) for draw in sampled_bags(
            lengths, np.arange(9), n_bags=4, max_tiles=99, tile_cap=1, seed=0, epoch=0, fewest=fewest
        )]
        for fewest in (1, 2)
    ]  # fmt: skip
    assert sizes == [[4, 4, 1], [4, 5]]


def test_a_batch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="n_bags and max_tiles of at least 1"):
        whole_bags(np.array([3]), np.array([0]), n_bags=0, max_tiles=5)
