"""DSMIL's two streams: what each teaches, and what the slide is told."""

import numpy as np
import pytest
import torch

from histokin.mil import Classes, MultiLabel, PackedBags, build_model


def build(objective, **options):
    return build_model("dsmil", dim=6, objective=objective, seed=0, **options).double().eval()


def draw(*sizes):
    rng = np.random.default_rng(0)
    return PackedBags.of([torch.from_numpy(rng.normal(size=(n, 6))) for n in sizes])


def test_the_bag_stream_teaches_the_tile_head_nothing():
    model, target = build(Classes(2)), torch.tensor([1, 0])
    model(draw(5, 9), target).losses["bag"].backward()
    assert model.tile_head.weight.grad is None or (model.tile_head.weight.grad == 0).all()
    assert (model.query[0].weight.grad != 0).any()
    model.zero_grad()
    model(draw(5, 9), target).losses["max"].backward()
    assert (model.tile_head.weight.grad != 0).any()


@pytest.mark.parametrize("objective", [Classes(3), MultiLabel(2)], ids=str)
def test_the_prediction_is_the_mean_of_both_streams(objective):
    bags = draw(4, 90)
    both, bag = build(objective)(bags), build(objective, logits="bag")(bags)
    highest = torch.stack([part.amax(0) for part in both.tile_logits.split(bags.sizes)])
    mean = (objective.predict(bag.logits) + objective.predict(highest)) / 2
    torch.testing.assert_close(objective.predict(both.logits), mean, atol=1e-12, rtol=0)


def test_default_losses_are_those_of_the_objective_and_faithful_ones_of_each_class_by_itself():
    bags, target = draw(4, 90), torch.tensor([1, 0])
    output = build(Classes(2), logits="bag")(bags, target)
    assert output.losses["bag"].item() == pytest.approx(Classes(2).loss(output.logits, target).item() / 2)
    faithful = build(Classes(2), preset="faithful")(bags, target)
    one_hot = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert faithful.losses["bag"].item() == pytest.approx(MultiLabel(2).loss(faithful.logits, one_hot).item() / 2)


def test_layers_start_orthogonal_without_bias():
    weight = build(Classes(2)).query[0].weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(128, dtype=torch.float64), atol=1e-6, rtol=0)
    assert all((layer.bias == 0).all() for layer in build(Classes(2)).modules() if hasattr(layer, "bias"))
