"""CLAM's instance loss: against a loop, over batches, in small bags and where it is off."""

import numpy as np
import pytest
import torch

from histokin.mil import Classes, MultiLabel, PackedBags, build_model

SMALL = {"hidden": (5,), "attention": 4, "k": 3}


def build(name, n=3, **options):
    return build_model(name, dim=6, objective=Classes(n), seed=0, **SMALL | options).double().eval()


def draw(*sizes):
    rng = np.random.default_rng(0)
    return PackedBags.of([torch.from_numpy(rng.normal(size=(n, 6))) for n in sizes])


def slow_instance_loss(model, output, h, label):
    """Cross-entropy, tile by tile, of one bag."""
    total = 0.0
    for c, classifier in enumerate(model.instance):
        ranking = np.argsort(-output.attention[:, c % output.attention.shape[1]].detach().numpy())
        n, k = len(ranking), model.k
        if c == label:
            ends = min(k, n // 2)
            chosen = [(i, 1) for i in ranking[: max(ends, 1)]] + [(i, 0) for i in ranking[n - ends :]]
        elif model.subtyping:
            chosen = [(i, 0) for i in ranking[:k]]
        else:
            continue
        said = [classifier(h[i]).log_softmax(0)[t].item() for i, t in chosen]
        total -= np.mean(said)
    return total / (len(model.instance) if model.subtyping else 1)


@pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])
@pytest.mark.parametrize("subtyping", [True, False])
@pytest.mark.parametrize("n", [1, 2, 5, 6, 50])
def test_the_instance_loss_equals_a_loop_over_tiles(name, subtyping, n):
    model, bags = build(name, instance_loss="ce", subtyping=subtyping), draw(n)
    for label in range(3):
        output = model(bags, torch.tensor([label]))
        expected = 0.3 * slow_instance_loss(model, output, model.embed(bags.x), label)
        assert output.losses["instance"].item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["clam_sb", "clam_mb"])
def test_the_losses_of_a_batch_are_the_means_of_its_bags(name):
    model, bags, target = build(name), draw(1, 9, 40), torch.tensor([2, 0, 1])
    together = model(bags, target).losses
    alone = [model(bag, target[b : b + 1]).losses for b, bag in enumerate(bags.split())]
    for key in ("bag", "instance"):
        assert together[key].item() == pytest.approx(np.mean([losses[key].item() for losses in alone]), rel=1e-12)


def test_the_ends_of_a_small_bag_share_tiles_only_in_the_faithful_preset():
    scores = torch.arange(4.0)
    ends = [part.tolist() for part in build("clam_sb").extremes(scores, both=True)]
    assert ends == [[3, 2], [0, 1]]
    faithful = build_model("clam_sb", dim=6, objective=Classes(2), preset="faithful", seed=0, **SMALL)
    assert [part.tolist() for part in faithful.extremes(scores, both=True)] == [[3, 2, 1], [0, 1, 2]]


def test_the_choice_of_tiles_carries_no_gradient_and_the_tiles_do():
    model = build("clam_sb", 2, bag_weight=0.0)
    model(draw(20), torch.tensor([1])).loss.backward()
    assert all((parameter.grad == 0).all() for parameter in model.attention.parameters())
    assert (model.embed[0].weight.grad != 0).any()


def test_attention_has_a_quarter_dropout_whatever_that_of_the_trunk_is_unless_it_is_none():
    for dropout, inner in ((0.1, 0.25), (0.5, 0.25), (0.0, 0.0)):
        assert build("clam_sb", dropout=dropout).attention.dropout.p == inner


def test_several_labels_have_no_instance_classifiers_and_their_loss_counts_in_full():
    objective, bags, target = MultiLabel(2), draw(4), torch.tensor([[1.0, 0.0]])
    model = build_model("clam_mb", dim=6, objective=objective, seed=0, **SMALL).double().eval()
    output = model(bags, target)
    assert list(output.losses) == ["bag"]
    assert output.loss.item() == pytest.approx(objective.loss(output.logits, target).item(), rel=1e-12)
