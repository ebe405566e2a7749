"""k-means on a grid: against a loop, and independent of the order of rows."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from histokin.search import clusters
from histokin.search.clusters import k_means, nearest, plane_k_means, spherical_k_means, unit_on_grid


def blobs(n, k, d, seed=0, spread=0.3):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(k, d))
    return centres[np.arange(n) % k] + spread * rng.normal(size=(n, d))


def test_separate_groups_are_found_as_scikit_learn_finds_them():
    rows = blobs(400, 5, 6)
    found = k_means(rows, 5, rng=np.random.default_rng(0), n_init=10)
    theirs = KMeans(5, n_init=10, random_state=0).fit(rows).labels_
    pairs = set(zip(found.labels.tolist(), theirs.tolist(), strict=True))
    assert len(pairs) == 5  # a bijection of labels
    assert len({label for label, _ in pairs}) == 5


def test_a_row_belongs_to_the_nearest_centre_in_blocks_as_in_one(monkeypatch):
    rows = blobs(300, 7, 4, spread=1.0)
    whole = k_means(rows, 7, rng=np.random.default_rng(1))
    units = unit_on_grid(rows)
    centres = spherical_k_means(rows, 7, rng=np.random.default_rng(1)).centres
    by_loop = [int(np.argmax([float(row @ centre) for centre in centres])) for row in units]
    assert nearest(rows, centres).labels.tolist() == by_loop
    monkeypatch.setattr(clusters, "_BLOCK", 13)
    assert (k_means(rows, 7, rng=np.random.default_rng(1)).labels == whole.labels).all()
    assert nearest(rows, centres).labels.tolist() == by_loop


def test_products_of_rows_on_the_grid_are_exact_in_any_order():
    units = unit_on_grid(np.random.default_rng(2).normal(size=(40, 512)))
    order = np.random.default_rng(3).permutation(512)
    assert np.array_equal(units @ units.T, units[:, order] @ units[:, order].T)
    assert np.array_equal(units.sum(axis=0), units[::-1].sum(axis=0))


def test_fewer_distinct_rows_than_groups_give_fewer_groups():
    rows = np.repeat(np.eye(3), 50, axis=0)
    assert len(spherical_k_means(rows, 8, rng=np.random.default_rng(0)).centres) == 3
    assert len(k_means(rows, 8, rng=np.random.default_rng(0)).centres) == 3
    assert len(plane_k_means(np.array([[0, 0], [5, 5], [0, 0]]), 3, rng=np.random.default_rng(0))) == 2


@pytest.mark.parametrize("n_centres", [1, 3, 40])
def test_every_centre_of_the_plane_is_the_mean_of_the_places_nearest_to_it(n_centres):
    places = np.random.default_rng(4).permutation(256)[:120]
    places = np.stack([places % 16, places // 16], axis=1)
    centres = plane_k_means(places, n_centres, rng=np.random.default_rng(5), iterations=100)
    distance = ((places[:, None] - centres[None]) ** 2).sum(axis=2)
    labels = distance.round(9).argmin(axis=1)
    for number in range(len(centres)):
        assert centres[number] == pytest.approx(places[labels == number].mean(axis=0))
