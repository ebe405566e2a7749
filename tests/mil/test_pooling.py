"""Pooling within bags against NumPy, bag by bag, in both of its forms."""

import numpy as np
import pytest
import torch

from histokin.mil import PackedBags
from histokin.mil.models import pooling

SIZES = {"scatter": (3, 1, 40, 2), "split": (300, 1, 90)}
both_forms = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


def draw(sizes, columns=3):
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(sum(sizes), columns)))
    return values, PackedBags(values, torch.tensor(sizes))


def parts(values, sizes):
    return np.split(values.detach().numpy(), np.cumsum(sizes)[:-1])


@both_forms
def test_softmax_equals_numpy_in_each_bag_and_survives_large_scores(sizes):
    scores, bags = draw(sizes)
    for shift in (0.0, 1e4, -1e4):
        weights = pooling.softmax(scores + shift, bags)
        for got, part in zip(parts(weights, sizes), parts(scores, sizes), strict=True):
            np.testing.assert_allclose(got, np.exp(part) / np.exp(part).sum(0), atol=1e-11)


@both_forms
def test_softmax_leaves_out_tiles_of_minus_infinity(sizes):
    scores, bags = draw(sizes)
    scores[2] = -torch.inf
    scores.requires_grad_()
    weights = pooling.softmax(scores, bags)
    weights.square().sum().backward()
    assert (weights[2] == 0).all()
    assert scores.grad.isfinite().all()


@both_forms
def test_gradients_of_softmax_and_sums_equal_finite_differences(sizes):
    scores, bags = draw(tuple(min(n, 130) for n in sizes), columns=2)
    h = scores.flip(0) * 2

    def pooled(raw, tiles):
        return pooling.weighted_sum(pooling.softmax(raw, bags), tiles, bags).sin().sum()

    inputs = scores.requires_grad_(), h.detach().requires_grad_()
    assert torch.autograd.gradcheck(pooled, inputs, eps=1e-6, atol=1e-7, fast_mode=True)


@both_forms
def test_sums_products_means_and_maxima_equal_numpy_in_each_bag(sizes):
    values, bags = draw(sizes)
    weights, h = values[:, :2], torch.cat([values, values**2], 1)
    of_bag = torch.from_numpy(np.random.default_rng(1).normal(size=(len(sizes), 4, 6)))
    sums, products = pooling.weighted_sum(weights, h, bags), pooling.products(h, of_bag, bags)
    means = pooling.weighted_sum(pooling.mean_weights(bags, h.dtype), h, bags)
    highest = pooling.argmax(values, bags)
    rows = zip(parts(weights, sizes), parts(h, sizes), parts(values, sizes), strict=True)
    for b, (w, tiles, raw) in enumerate(rows):
        start = bags.starts[b]
        np.testing.assert_allclose(sums[b], w.T @ tiles, atol=1e-12)
        np.testing.assert_allclose(products[start : start + len(w)], tiles @ of_bag[b].numpy().T, atol=1e-12)
        np.testing.assert_allclose(means[b, 0], tiles.mean(0), atol=1e-12)
        assert highest[b].tolist() == (start + raw.argmax(0)).tolist()


def test_of_equal_maxima_the_first_is_taken():
    bags = PackedBags(torch.zeros(5, 1), torch.tensor([2, 3]))
    scores = torch.tensor([[1.0], [1.0], [0.0], [7.0], [7.0]])
    assert pooling.argmax(scores, bags).tolist() == [[0], [3]]


@both_forms
def test_sums_are_in_float32_under_autocast(sizes):
    values, bags = draw(sizes)
    weights, h = values.float().softmax(0), values.float()
    exact = pooling.weighted_sum(weights, h, bags)
    with torch.autocast("cpu", torch.bfloat16):
        assert pooling.weighted_sum(weights, h, bags).equal(exact)
