"""ACMIL against a loop over its branches, and its masking."""

import numpy as np
import pytest
import torch

from histokin.encoders.networks import seeded_torch
from histokin.mil import Classes, PackedBags, build_model
from histokin.mil.models import pooling
from histokin.mil.models.acmil import likeness

OBJECTIVE = Classes(3)


def build(**options):
    options = {"width": 8, "attention": 4, "branches": 3} | options
    return build_model("acmil", dim=6, objective=OBJECTIVE, seed=0, **options).double()


def draw(*sizes):
    rng = np.random.default_rng(0)
    return PackedBags.of([torch.from_numpy(rng.normal(size=(n, 6))) for n in sizes])


def test_logits_and_losses_equal_a_loop_over_bags_and_branches():
    model, bags, target = build().eval(), draw(1, 9, 200), torch.tensor([2, 0, 1])
    output = model(bags, target)
    branches, logits, cosines = [], [], []
    for bag in bags.split():
        h = model.embed(bag.x)
        attention = [model.attention(h)[:, k].softmax(0) for k in range(3)]
        branches.append([model.branch_heads[k](attention[k] @ h) for k in range(3)])
        logits.append(model.head(sum(attention) / 3 @ h))
        pairs = [(0, 1), (0, 2), (1, 2)]
        cosines += [torch.cosine_similarity(attention[i], attention[j], dim=0).item() for i, j in pairs]
    torch.testing.assert_close(output.logits, torch.stack(logits), atol=1e-12, rtol=0)
    each = [OBJECTIVE.loss(torch.stack([bag[k] for bag in branches]), target).item() for k in range(3)]
    assert output.losses["branches"].item() == pytest.approx(np.mean(each), rel=1e-12)
    assert output.losses["likeness"].item() == pytest.approx(np.mean(cosines), rel=1e-9)
    assert output.losses["bag"].item() == pytest.approx(OBJECTIVE.loss(torch.stack(logits), target).item(), rel=1e-12)


def test_training_leaves_out_six_of_the_ten_highest_tiles_of_a_branch_and_evaluation_none():
    model, bags = build(dropout=0.0), draw(1, 4, 300)
    expected = {1: 0, 4: 2, 300: 6}
    with seeded_torch(0):
        first = model.train()(bags)
    with seeded_torch(1):
        second = model(bags)
    for start, n in zip(bags.starts, bags.sizes, strict=True):
        weights, raw = first.weights[start : start + n], first.attention[start : start + n]
        assert ((weights == 0).sum(0) == expected[n]).all()
        highest = raw.topk(min(10, n), dim=0).indices
        assert ((weights.gather(0, highest) == 0).sum(0) == expected[n]).all()
        torch.testing.assert_close(weights.sum(0), torch.ones(3, dtype=torch.float64))
    assert not ((first.weights == 0) == (second.weights == 0)).all()
    assert (model.eval()(bags).weights > 0).all()


def test_a_single_branch_without_masking_is_abmil_and_has_no_likeness():
    model, bags = build(branches=1, n_masked=0, dropout=0.0).train(), draw(3, 9)
    h = model.embed(bags.x)
    weights = pooling.softmax(model.attention(h), bags)
    z = pooling.weighted_sum(weights, h, bags)[:, 0]
    torch.testing.assert_close(model(bags).logits, model.head(z), atol=1e-12, rtol=0)
    assert likeness(weights, bags).item() == 0
