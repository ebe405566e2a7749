"""Which tiles speak for a slide."""

import numpy as np
import pytest
import torch

from histokin.mil import Classes, PackedBags, build_model


def draw(*sizes):
    rng = np.random.default_rng(0)
    return PackedBags.of([torch.from_numpy(rng.normal(size=(n, 6))) for n in sizes])


@pytest.mark.parametrize("k", [1, 3, 100])
def test_topk_mean_equals_sorting_each_class(k):
    model = build_model("max", dim=6, objective=Classes(3), hidden=(5,), rule="topk_mean", k=k, seed=0).double().eval()
    bags = draw(1, 8, 50)
    output, h = model(bags), model.embed(bags.x).detach().numpy()
    for b, start in enumerate(bags.starts):
        scores = output.tile_logits[start : start + bags.sizes[b]].detach().numpy()
        order = np.argsort(-scores, axis=0)[:k]
        np.testing.assert_allclose(output.logits[b].detach(), np.take_along_axis(scores, order, 0).mean(0), atol=1e-12)
        embeddings = np.stack([h[start + order[:, c]].mean(0) for c in range(3)])
        np.testing.assert_allclose(output.slide_embedding[b].detach(), embeddings.ravel(), atol=1e-12)


def test_topk_mean_of_one_tile_is_the_maximum():
    options = {"dim": 6, "objective": Classes(3), "hidden": (5,), "seed": 0}
    one = build_model("max", rule="topk_mean", k=1, **options).double().eval()(draw(4, 90))
    top = build_model("max", **options).double().eval()(draw(4, 90))
    torch.testing.assert_close(one.logits, top.logits, atol=1e-12, rtol=0)
    torch.testing.assert_close(one.slide_embedding, top.slide_embedding, atol=1e-12, rtol=0)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_clams_rule_takes_one_tile_for_all_classes(n_classes):
    model = build_model("max", dim=6, objective=Classes(n_classes), preset="faithful", seed=0).double().eval()
    bags = draw(5, 70)
    output = model(bags)
    for b, start in enumerate(bags.starts):
        scores = output.tile_logits[start : start + bags.sizes[b]].detach().numpy()
        p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        tile = p[:, 1].argmax() if n_classes == 2 else p.max(1).argmax()
        np.testing.assert_allclose(output.logits[b].detach(), scores[tile], atol=1e-12)
