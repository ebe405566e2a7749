"""Spherical k-means against the golden case, a loop written from the formula, and its laws."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from histokin.learn.state import ClusterState, assign, spherical_kmeans
from histokin.learn.state import clusters as clusters_module


def blobs(n, d, k, *, noise=0.3, seed=0):
    """(n, d) float32 around k directions, and which of them each is around."""
    rng = np.random.default_rng(seed)
    of = rng.integers(k, size=n)
    directions = rng.normal(size=(k, d))
    x = directions[of] + noise * rng.normal(size=(n, d))
    return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(of)


def unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def slow_kmeans(x, k, iterations):
    """The formula in float64, one vector at a time, from the first k rows."""
    x = unit(x.astype(np.float64))
    centroids = x[:k].copy()
    for _ in range(iterations):
        labels = [int(np.argmax([row @ c for c in centroids])) for row in x]
        for cluster in range(k):
            members = [row for row, label in zip(x, labels, strict=True) if label == cluster]
            if members:
                centroids[cluster] = unit(np.sum(members, axis=0))
    labels = [int(np.argmax([row @ c for c in centroids])) for row in x]
    return labels, centroids, float(np.mean([row @ centroids[label] for row, label in zip(x, labels, strict=True)]))


def same(a, b):
    return torch.equal(a.labels, b.labels) and torch.equal(a.centroids, b.centroids) and a.mean_cosine == b.mean_cosine


def test_golden_case(case, chirp):
    golden = case("spherical_kmeans")
    inputs = golden["inputs"]
    x = chirp(*inputs["x"]["chirp"])
    found = spherical_kmeans(x, inputs["clusters"], iterations=inputs["iterations"], init="first", seed=0)
    assert found.labels.tolist() == golden["expected"]
    np.testing.assert_allclose(found.centroids, golden["centroids"], rtol=1e-6)
    assert found.mean_cosine == pytest.approx(golden["mean_cosine"], rel=1e-7)


def test_hand_case():
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]])
    found = spherical_kmeans(x, 2, iterations=5, init="first", seed=0)
    assert found.labels.tolist() == [0, 1, 0, 1]
    # The unit sum of two unit vectors halves their angle.
    half = np.arctan2(0.1, 0.9) / 2
    np.testing.assert_allclose(found.centroids[0], [np.cos(half), np.sin(half)], rtol=1e-6)
    assert found.mean_cosine == pytest.approx(np.cos(half), rel=1e-7)


@pytest.mark.parametrize(("n", "d", "k"), [(2, 3, 2), (30, 1, 2), (50, 4, 1), (40, 5, 7), (40, 33, 40)])
@pytest.mark.parametrize("iterations", [1, 4])
def test_equals_the_loop_of_the_formula(n, d, k, iterations):
    x = torch.from_numpy(np.random.default_rng(n + d).normal(size=(n, d)).astype(np.float32))
    labels, centroids, mean_cosine = slow_kmeans(x.numpy(), k, iterations)
    found = spherical_kmeans(x, k, iterations=iterations, init="first", seed=0)
    assert found.labels.tolist() == labels
    np.testing.assert_allclose(found.centroids, centroids, atol=1e-7)
    assert found.mean_cosine == pytest.approx(mean_cosine, abs=1e-7)


def test_each_vector_carries_the_label_of_its_largest_cosine():
    x, _ = blobs(500, 6, 9)
    found = spherical_kmeans(x, 12, iterations=3, seed=1)
    cosines = unit(x.double().numpy()) @ found.centroids.double().numpy().T
    chosen = cosines[np.arange(500), found.labels]
    assert (chosen >= cosines.max(1) - 1e-7).all()
    assert found.mean_cosine == pytest.approx(chosen.mean(), abs=1e-7)
    torch.testing.assert_close(found.centroids.norm(dim=1), torch.ones(12))


def test_clear_groups_are_found():
    x, of = blobs(600, 16, 4, noise=0.1)
    first = torch.stack([(of == k).nonzero()[0, 0] for k in range(4)])
    rest = torch.tensor([i for i in range(600) if i not in first.tolist()])
    order = torch.cat([first, rest])
    assert torch.equal(spherical_kmeans(x[order], 4, iterations=10, init="first", seed=0).labels, of[order])


@given(st.permutations(range(5)))
def test_permuting_the_first_centroids_permutes_the_clusters(order):
    x, _ = blobs(120, 4, 5)
    moved = x.clone()
    moved[:5] = x[order]
    plain = spherical_kmeans(x, 5, iterations=6, init="first", seed=0)
    permuted = spherical_kmeans(moved, 5, iterations=6, init="first", seed=0)
    assert torch.equal(permuted.centroids, plain.centroids[order])
    assert torch.equal(torch.tensor(order)[permuted.labels[5:]], plain.labels[5:])
    assert permuted.mean_cosine == plain.mean_cosine


def test_the_order_of_the_other_vectors_does_not_change_a_bit():
    x, _ = blobs(4000, 24, 30, noise=1.0)
    order = torch.cat([torch.arange(20), 20 + torch.from_numpy(np.random.default_rng(0).permutation(3980))])
    plain = spherical_kmeans(x, 20, iterations=8, init="first", seed=0)
    shuffled = spherical_kmeans(x[order], 20, iterations=8, init="first", seed=0)
    assert torch.equal(shuffled.centroids, plain.centroids)
    assert torch.equal(shuffled.labels, plain.labels[order])
    assert shuffled.mean_cosine == plain.mean_cosine


@pytest.mark.parametrize("init", ["first", "permutation"])
def test_more_iterations_never_lower_the_mean_cosine(init):
    x, _ = blobs(800, 8, 10, noise=0.8)
    values = [spherical_kmeans(x, 15, iterations=n, init=init, seed=2).mean_cosine for n in range(1, 12)]
    # Centroids are rounded to float32, 2^-24 of a unit vector.
    assert all(after >= before - 1e-7 for before, after in pairwise(values))
    assert values[-1] > values[0] + 0.005


def test_a_cluster_without_vectors_keeps_its_centroid_and_equal_cosines_go_to_the_lowest():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [0.1, 3.0]])
    found = spherical_kmeans(x, 3, iterations=4, init="first", seed=0)
    assert found.labels.tolist() == [0, 0, 2, 0, 2]
    assert found.centroids[:2].tolist() == [[1.0, 0.0]] * 2


def test_a_kept_centroid_may_win_vectors_later():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.9, 0.8]])
    found = spherical_kmeans(x, 3, iterations=1, init="first", seed=0)  # cluster 0 moves towards the last vector
    assert found.centroids[1].tolist() == [1.0, 0.0]
    assert found.labels.tolist() == [1, 1, 2, 0]


def test_vectors_that_cancel_leave_the_centroid_where_it_was():
    found = spherical_kmeans(torch.tensor([[3.0], [-5.0], [2.0], [-1.0]]), 1, iterations=3, init="first", seed=0)
    assert found.centroids.tolist() == [[1.0]]
    assert found.mean_cosine == 0


def test_scale_and_dtype_of_the_vectors_do_not_matter():
    x, _ = blobs(200, 5, 4)
    half = x.half()
    plain = spherical_kmeans(half, 6, iterations=5, seed=0)
    assert same(plain, spherical_kmeans(half.float(), 6, iterations=5, seed=0))
    assert same(plain, spherical_kmeans(half.double() * 1024, 6, iterations=5, seed=0))


def test_zero_vectors_go_to_the_lowest_cluster_and_pull_nothing():
    x, _ = blobs(60, 4, 3)
    with_zeros = torch.cat([x, torch.zeros(7, 4)])
    plain = spherical_kmeans(x, 3, iterations=5, init="first", seed=0)
    found = spherical_kmeans(with_zeros, 3, iterations=5, init="first", seed=0)
    assert torch.equal(found.centroids, plain.centroids)
    assert found.labels[60:].tolist() == [0] * 7


def test_the_number_of_threads_does_not_change_a_bit():
    x, _ = blobs(9000, 32, 40, noise=1.0)
    threads, found = torch.get_num_threads(), []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            found.append(spherical_kmeans(x, 40, iterations=3, seed=0))
    finally:
        torch.set_num_threads(threads)
    assert same(*found)


def test_the_size_of_the_chunks_does_not_change_a_bit(monkeypatch):
    x, _ = blobs(3000, 16, 12, noise=1.0)
    plain = spherical_kmeans(x, 12, iterations=6, seed=0, points_a_cluster=100)
    for rows in (1, 7, 1024):
        assert torch.equal(assign(x[:200], plain.centroids, chunk=rows), plain.labels[:200])
    monkeypatch.setattr(clusters_module, "_chunk_rows", lambda _: 257)
    assert same(plain, spherical_kmeans(x, 12, iterations=6, seed=0, points_a_cluster=100))


def test_the_seed_chooses_where_it_begins():
    x, _ = blobs(300, 6, 8, noise=1.0)
    assert same(spherical_kmeans(x, 8, iterations=1, seed=3), spherical_kmeans(x, 8, iterations=1, seed=3))
    assert not same(spherical_kmeans(x, 8, iterations=1, seed=3), spherical_kmeans(x, 8, iterations=1, seed=4))


def test_first_centroids_of_a_permutation_are_different_vectors_of_the_data():
    x = torch.eye(9)
    found = spherical_kmeans(x, 9, iterations=2, seed=5)
    assert sorted(found.labels.tolist()) == list(range(9))
    assert found.mean_cosine == 1.0


def test_centroids_are_found_from_at_most_so_many_vectors_a_cluster(monkeypatch):
    x, _ = blobs(1000, 4, 5)
    used, recentred = [], clusters_module._recentred

    def watched(x, rows, centroids):
        used.append(rows)
        return recentred(x, rows, centroids)

    monkeypatch.setattr(clusters_module, "_recentred", watched)
    found = spherical_kmeans(x, 5, iterations=1, seed=0, points_a_cluster=20)
    assert len(used[0].unique()) == 100
    assert used[0].max() > 900  # from all over the data, not its beginning
    # What was found is that of these vectors, then given to all.
    assert torch.equal(assign(x, found.centroids), found.labels)
    spherical_kmeans(x, 5, iterations=1, seed=0, points_a_cluster=200)
    assert used[1] is None


def test_centroids_of_a_sample_serve_nearly_as_well():
    x, _ = blobs(5000, 6, 5, noise=0.5)
    whole = spherical_kmeans(x, 5, iterations=10, seed=0, points_a_cluster=1000)
    sample = spherical_kmeans(x, 5, iterations=10, seed=0, points_a_cluster=100)
    assert not torch.equal(whole.centroids, sample.centroids)
    assert sample.mean_cosine > whole.mean_cosine - 0.02


def test_assigning_takes_centroids_of_any_length_and_no_vectors():
    x, _ = blobs(50, 4, 3)
    centroids = spherical_kmeans(x, 3, iterations=5, seed=0).centroids
    scaled = centroids * torch.tensor([[4.0], [0.5], [8.0]])
    assert torch.equal(assign(x, scaled), assign(x, centroids))
    assert assign(torch.empty(0, 4), centroids).shape == (0,)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_numbers_that_are_none_are_refused(bad):
    x, _ = blobs(50, 4, 3)
    x[7, 2] = bad
    for call in (lambda: spherical_kmeans(x, 3, iterations=2, seed=0), lambda: assign(x, torch.eye(4))):
        with pytest.raises(ValueError, match="of 50 vectors, or the centroids, hold NaN or infinities"):
            call()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": torch.ones(4)}, r"x must be \(N, D\) floating"),
        ({"x": torch.ones(4, 2, dtype=torch.int64)}, "x must be"),
        ({"clusters": 5}, "got 5 clusters of 4 vectors"),
        ({"clusters": 0}, "1 <= clusters <= N"),
        ({"iterations": 0}, "iterations and points_a_cluster >= 1"),
        ({"points_a_cluster": 0}, "iterations and points_a_cluster >= 1"),
        ({"init": "random"}, "'first' or 'permutation', got 'random'"),
    ],
)
def test_misuse_of_kmeans_is_refused(change, match):
    arguments = {"x": torch.ones(4, 2), "clusters": 2, "iterations": 3, "seed": 0} | change
    with pytest.raises(ValueError, match=match):
        spherical_kmeans(**arguments)


@pytest.mark.parametrize(
    ("x", "centroids", "chunk", "match"),
    [
        (torch.ones(3, 2), torch.ones(2, 3), None, "need x"),
        (torch.ones(3, 2), torch.ones(0, 2), None, "K >= 1"),
        (torch.ones(3), torch.ones(1, 3), None, "need x"),
        (torch.ones(3, 2), torch.ones(1, 2), 0, "chunk must be >= 1"),
    ],
)
def test_misuse_of_assign_is_refused(x, centroids, chunk, match):
    with pytest.raises(ValueError, match=match):
        assign(x, centroids, chunk)


def test_a_state_holds_one_clustering_a_seed():
    x, _ = blobs(90, 5, 4)
    state = ClusterState(2, 4, 90, 5)
    assert not state.is_fitted
    assert (state.labels == -1).all()
    cosines = state.fit(x, [11, 12], iterations=3)
    assert state.is_fitted
    for place, seed in enumerate([11, 12]):
        single = spherical_kmeans(x, 4, iterations=3, seed=seed)
        assert torch.equal(state.labels[place].long(), single.labels)
        assert cosines[place] == single.mean_cosine
    assert not torch.equal(state.labels[0], state.labels[1])


def test_a_state_comes_back_from_its_state_dict_and_fits_anew_without_a_memory():
    x, _ = blobs(90, 5, 4)
    state, other = ClusterState(2, 4, 90, 5), ClusterState(2, 4, 90, 5)
    state.fit(x, [1, 2])
    other.load_state_dict(state.state_dict())
    assert other.is_fitted
    assert torch.equal(other.labels, state.labels)
    assert other.labels.dtype == torch.int32
    other.fit(x, [7, 8])
    assert not torch.equal(other.labels, state.labels)
    other.fit(x, [1, 2])
    assert torch.equal(other.labels, state.labels)


def test_a_fit_that_fails_leaves_the_state_as_it_was():
    x, _ = blobs(30, 5, 4)
    state = ClusterState(1, 4, 30, 5)
    state.fit(x, [1])
    before = {name: value.clone() for name, value in state.state_dict().items()}
    broken = x.clone()
    broken[3] = torch.nan
    for arguments, match in [((broken, [1]), "NaN"), ((x[:9], [1]), r"need x \(30, 5\)"), ((x, [1, 2]), "1 seeds")]:
        with pytest.raises(ValueError, match=match):
            state.fit(*arguments)
    assert all(torch.equal(before[name], value) for name, value in state.state_dict().items())


@pytest.mark.parametrize("numbers", [(0, 2, 5, 3), (1, 0, 5, 3), (1, 2, 0, 3), (1, 2, 5, 0), (1, 6, 5, 3)])
def test_a_state_that_cannot_be_is_refused(numbers):
    with pytest.raises(ValueError, match="clusters <= n"):
        ClusterState(*numbers)
