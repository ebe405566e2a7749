"""Mosaics: what each rule keeps, whatever the order of rows, at bounded cost."""

from typing import get_args

import numpy as np
import pytest

from histokin.errors import SearchError, StoreError
from histokin.search.mosaics import MosaicMethod, MosaicSpec, allocation, choose_mosaic

METHODS = get_args(MosaicMethod)


def make_slide(n=300, kinds=6, d=16, seed=0, spread=0.4):
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, kinds, n)
    vectors = rng.normal(size=(kinds, d))[kind] + spread * rng.normal(size=(n, d))
    tile = rng.permutation(5 * n)[:n]
    coords = np.stack([np.arange(n) % 20, np.arange(n) // 20], axis=1) * 256
    return vectors, tile, coords, kind


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_rows_makes_no_difference(method):
    vectors, tile, coords, _ = make_slide()
    spec = MosaicSpec(method=method, n_tiles=20)
    plain = choose_mosaic(vectors, tile, spec, coords=coords)
    order = np.random.default_rng(1).permutation(len(tile))
    moved = choose_mosaic(vectors[order], tile[order], spec, coords=coords[order])
    assert plain.tile.tolist() == moved.tile.tolist() == sorted(plain.tile)
    assert (order[moved.rows] == plain.rows).all()
    assert plain.weights == pytest.approx(moved.weights, abs=0)
    assert plain.weights.sum() == pytest.approx(1)


def test_medoids_stand_for_every_kind_of_tissue_by_its_share():
    vectors, tile, _, kind = make_slide(spread=0.05)
    chosen = choose_mosaic(vectors, tile, MosaicSpec(n_tiles=6))
    assert sorted(kind[chosen.rows]) == list(range(6))
    share = np.bincount(kind) / len(kind)
    assert chosen.weights == pytest.approx(share[kind[chosen.rows]])


def test_a_medoid_is_the_member_most_like_its_group():
    vectors, tile, _, _ = make_slide(n=200, spread=0.05)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = choose_mosaic(vectors, tile, MosaicSpec(n_tiles=6))
    group = (unit @ unit[chosen.rows].T).argmax(axis=1)
    for number, row in enumerate(chosen.rows):
        members = np.flatnonzero(group == number)
        closeness = unit[members] @ unit[members].mean(axis=0)
        assert members[closeness.argmax()] == row


def test_a_small_slide_is_its_own_mosaic():
    vectors, tile, _, _ = make_slide(n=7)
    chosen = choose_mosaic(vectors, tile)
    assert chosen.tile.tolist() == sorted(tile)
    assert chosen.weights == pytest.approx(np.full(7, 1 / 7))
    assert len(choose_mosaic(np.zeros((0, 4)), np.zeros(0, dtype=int))) == 0


def test_greedy_keeps_no_two_alike_and_drops_nothing_unlike():
    vectors, tile, _, _ = make_slide(spread=0.2)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    chosen = choose_mosaic(vectors, tile, MosaicSpec(method="greedy", similarity=0.8))
    among = unit[chosen.rows] @ unit[chosen.rows].T
    assert (among[~np.eye(len(chosen), dtype=bool)] < 0.8 + 1e-6).all()
    assert ((unit @ unit[chosen.rows].T).max(axis=1) >= 0.8 - 1e-6).all()
    few = choose_mosaic(vectors, tile, MosaicSpec(method="greedy", similarity=0.999, n_tiles=9))
    assert len(few) == 9


def test_greedy_takes_what_is_alike_from_the_slide_itself():
    vectors, tile, _, _ = make_slide(spread=0.2)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    usual = np.quantile((unit @ unit.T)[np.triu_indices(len(unit), 1)], 0.9)  # 300 tiles: all pairs are looked at
    by_percentile = choose_mosaic(vectors, tile, MosaicSpec(method="greedy"))
    by_number = choose_mosaic(vectors, tile, MosaicSpec(method="greedy", similarity=float(usual)))
    assert 2 < len(by_percentile) < 64
    among = unit[by_percentile.rows] @ unit[by_percentile.rows].T
    assert among[~np.eye(len(among), dtype=bool)].max() < usual + 1e-6
    assert abs(len(by_percentile) - len(by_number)) <= 3


@pytest.mark.parametrize(("method", "rate", "small"), [("yottixel", 0.05, "one"), ("retccl", 0.2, "one")])
def test_published_mosaics_take_the_published_share_of_each_group(method, rate, small):
    vectors, tile, coords, kind = make_slide(n=400, kinds=9, spread=0.01)
    chosen = choose_mosaic(vectors, tile, MosaicSpec(method=method), coords=coords)
    expected = allocation(np.bincount(kind), rate, small=small)
    assert np.bincount(kind[chosen.rows]).tolist() == expected.tolist()
    for group in range(9):
        assert chosen.weights[kind[chosen.rows] == group].sum() == pytest.approx((kind == group).mean())


@pytest.mark.parametrize("method", METHODS)
def test_the_scale_of_half_precision_vectors_makes_no_difference(method):
    vectors, tile, coords, _ = make_slide(spread=0.2)
    half = vectors.astype(np.float16)
    large = half * np.float16(128)  # whose squares overflow half precision
    plain, scaled = (choose_mosaic(v, tile, MosaicSpec(method=method, n_tiles=9), coords=coords) for v in (half, large))
    assert plain.tile.tolist() == scaled.tile.tolist()


def test_fish_keeps_all_tiles_of_a_group_too_small_for_one():
    rng = np.random.default_rng(2)
    kind = np.repeat([0, 1], [60, 15])
    colours = np.eye(2)[kind]
    coords = np.stack([np.arange(75), np.zeros(75, dtype=int)], axis=1)
    vectors = rng.normal(size=(75, 8))
    kept = choose_mosaic(vectors, np.arange(75), MosaicSpec(method="fish"), coords=coords, features=colours)
    assert np.bincount(kind[kept.rows]).tolist() == [3, 15]
    kept = choose_mosaic(vectors, np.arange(75), MosaicSpec(method="yottixel"), coords=coords, features=colours)
    assert np.bincount(kind[kept.rows]).tolist() == [3, 1]


def test_tiles_of_one_group_are_spread_over_the_slide():
    n = 400
    coords = np.stack([np.arange(n) % 20, np.arange(n) // 20], axis=1) * 512
    features = np.ones((n, 3))
    vectors = np.random.default_rng(3).normal(size=(n, 8))
    kept = choose_mosaic(vectors, np.arange(n), MosaicSpec(method="yottixel"), coords=coords, features=features)
    quarter = (coords[kept.rows] // (10 * 512)) @ [1, 2]
    assert len(kept) == 20
    assert np.bincount(quarter, minlength=4).min() >= 2


def test_wrong_tiles_are_refused_with_the_way_out():
    vectors, tile, coords, _ = make_slide(n=30)
    with pytest.raises(SearchError, match="Choose the mosaic medoids or greedy"):
        choose_mosaic(vectors, tile, MosaicSpec(method="fish"))
    with pytest.raises(SearchError, match="tiles have no coordinates"):
        choose_mosaic(vectors, tile, MosaicSpec(method="retccl"), coords=np.full_like(coords, -1))
    with pytest.raises(StoreError, match="mosaic row 3: the vector is zero"):
        choose_mosaic(vectors * (np.arange(30) != 3)[:, None], tile)
    with pytest.raises(ValueError, match="n different tile ids"):
        choose_mosaic(vectors, tile * 0)
    with pytest.raises(ValueError, match="method must be one of medoids, greedy"):
        MosaicSpec(method="random")
