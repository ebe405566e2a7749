"""Group InfoNCE and its k-means."""

import math

import numpy as np
import pytest
import torch

from histokin.learn.losses import group_info_nce
from histokin.learn.losses.group_info_nce import lloyd


def slow_lloyd(x, clusters, iterations):
    centroids = [row.copy() for row in x[:clusters]]
    for _ in range(iterations):
        labels = []
        for row in x:
            distances = [float(np.sum((row - c) ** 2)) for c in centroids]
            labels.append(distances.index(min(distances)))
        for c in range(clusters):
            own = [x[i] for i in range(len(x)) if labels[i] == c]
            centroids[c] = np.mean(own, axis=0) if own else np.zeros(x.shape[1])
    return labels, np.array(centroids)


def slow_group(first, second, clusters, iterations, temperature, centroid, exclude_empty):
    first, second = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second))
    total = 0.0
    for seeker, grouped in ((first, second), (second, first)):
        labels, centroids = slow_lloyd(grouped, clusters, iterations)
        if centroid == "unit":
            centroids = [c / max(np.linalg.norm(c), 1e-12) for c in centroids]
        kept = [c for c in range(clusters) if c in labels or not exclude_empty]
        for i in range(len(first)):
            mass = sum(math.exp(seeker[i] @ centroids[c] / temperature) for c in kept)
            total += math.log(mass) - seeker[i] @ centroids[labels[i]] / temperature
    return total / (2 * len(first))


@pytest.mark.parametrize(("B", "clusters"), [(3, 2), (8, 4), (20, 5), (20, 19)])
@pytest.mark.parametrize("D", [1, 3])
@pytest.mark.parametrize("centroid", ["mean", "unit"])
@pytest.mark.parametrize("exclude_empty", [True, False])
def test_equals_the_loop_of_the_formula(B, clusters, D, centroid, exclude_empty):
    rng = np.random.default_rng(B + clusters + D)
    first = rng.normal(size=(B, D))
    second = first + 0.4 * rng.normal(size=(B, D))
    settings = {"clusters": clusters, "iterations": 4, "temperature": 0.3}
    settings |= {"centroid": centroid, "exclude_empty": exclude_empty}
    result = group_info_nce(torch.from_numpy(first), torch.from_numpy(second), **settings)
    assert result.loss.item() == pytest.approx(slow_group(first, second, **settings), rel=1e-9, abs=1e-12)
    unit = first / np.linalg.norm(first, axis=1, keepdims=True)
    assert result.first_labels.tolist() == slow_lloyd(unit, clusters, 4)[0]


def test_ties_go_to_the_lowest_cluster():
    twins = torch.tensor([[1.0, 0], [1, 0], [0, 1], [1, 0], [0, 1]])
    assert lloyd(twins, clusters=3, iterations=1).tolist() == [0, 0, 2, 0, 2]


@pytest.mark.parametrize("D", [3, 17, 128])
def test_equal_rows_get_equal_labels_whatever_the_width(D):
    row = torch.randn(1, D, generator=torch.Generator().manual_seed(D))
    labels = lloyd(row.repeat(70, 1), clusters=33, iterations=3)
    assert labels.tolist() == [0] * 70


def test_empty_clusters_are_no_choice_unless_asked():
    first = torch.eye(3).repeat(3, 1)[:, [0, 1, 2]]
    first[1] = first[0]  # two equal seeds: the second cluster stays empty
    settings = {"clusters": 3, "iterations": 2, "temperature": 0.5}
    without = group_info_nce(first, first, **settings).loss
    included = group_info_nce(first, first, exclude_empty=False, **settings).loss
    assert included > without


def test_a_collapsed_encoder_has_one_cluster_and_no_loss():
    same = torch.ones(8, 4, requires_grad=True)
    result = group_info_nce(same, same * 2, clusters=4, iterations=3, temperature=0.4)
    result.loss.backward()
    assert result.loss.item() == 0
    assert result.first_labels.tolist() == [0] * 8
    assert same.grad.isfinite().all()
    included = group_info_nce(same, same, clusters=4, iterations=3, temperature=0.4, exclude_empty=False).loss
    assert included.item() == pytest.approx(math.log(1 + 3 * math.exp(-2.5)), rel=1e-6)


def test_unrelated_views_come_near_log_k():
    first, second = torch.randn(2, 512, 128, generator=torch.Generator().manual_seed(0))
    loss = group_info_nce(first, second, clusters=16, iterations=5, temperature=1.0).loss
    assert loss.item() == pytest.approx(math.log(16), rel=0.02)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"clusters": 6}, r"clusters must lie in 2..5 for 6 tiles, got 6"),
        ({"clusters": 1}, "clusters must lie in"),
        ({"iterations": 0}, "iterations must be > 0"),
        ({"temperature": 0}, "temperature must be > 0"),
        ({"centroid": "median"}, "'mean' or 'unit'"),
        ({"second": torch.ones(5, 2)}, "two equal"),
    ],
)
def test_misuse_is_refused(change, match):
    sound = {"first": torch.ones(6, 2), "second": torch.ones(6, 2), "clusters": 3, "iterations": 2, "temperature": 0.1}
    with pytest.raises(ValueError, match=match):
        group_info_nce(**(sound | change))
