"""MIL-RNN: which tiles are read, in what order, and what each stage learns from."""

import numpy as np
import pytest
import torch

from histokin.mil import Classes, MultiLabel, PackedBags, build_model
from histokin.mil.models.rnn import most_suspicious


def build(objective, **options):
    return build_model("mil_rnn", dim=6, objective=objective, steps=4, state=5, seed=0, **options).double().eval()


def draw(*sizes):
    rng = np.random.default_rng(0)
    return PackedBags.of([torch.from_numpy(rng.normal(size=(n, 6))) for n in sizes])


def test_the_most_suspicious_tiles_are_in_descending_order_and_short_bags_end_early():
    bags = draw(2, 5, 1)
    suspicion = torch.tensor([0.1, 0.9, 0.3, 0.3, 0.8, 0.1, 0.3, 0.5])
    rows, counts = most_suspicious(suspicion, bags, 3)
    assert counts.tolist() == [2, 3, 1]
    assert [row[:count].tolist() for row, count in zip(rows, counts, strict=True)] == [[1, 0], [4, 2, 3], [7]]


def test_suspicion_is_the_log_odds_of_what_is_not_negative_or_of_the_likeliest_class():
    logits = torch.tensor([[1.0, 2.0, 0.5]]).double()

    def probability(objective, of=logits, **options):
        return build(objective, **options).suspicion(of).sigmoid().item()

    p = logits.softmax(1)[0]
    assert probability(Classes(3)) == pytest.approx(p.max().item())
    assert probability(Classes(3), negative=1) == pytest.approx(1 - p[1].item())
    assert probability(Classes(2), logits[:, :2]) == pytest.approx(logits[0, :2].softmax(0)[1].item())
    assert probability(MultiLabel(3)) == pytest.approx(logits.sigmoid().max().item())


@pytest.mark.parametrize("negative", [None, 0])
def test_tiles_are_told_apart_where_their_probabilities_round_to_one(negative):
    logits = torch.tensor([[0.0, 40.0, 1.0], [0.0, 50.0, 1.0], [0.0, 45.0, 1.0]])
    assert (logits.softmax(1)[:, 1] == 1).all()
    assert build(Classes(3), negative=negative).suspicion(logits).argsort().tolist() == [0, 2, 1]


def test_the_second_stage_equals_a_loop_over_the_tiles_of_each_bag():
    model, bags = build(Classes(3)), draw(2, 9, 1)
    suspicion = torch.from_numpy(np.random.default_rng(3).random(12))
    output = model(bags, suspicion=suspicion)
    fc1, fc2, fc3 = model.aggregator.fc1, model.aggregator.fc2, model.aggregator.fc3
    for b, start in enumerate(bags.starts):
        state = torch.zeros(5, dtype=torch.float64)
        for tile in sorted(range(start, start + bags.sizes[b]), key=lambda i: -suspicion[i])[:4]:
            state = (fc2(state) + fc1(bags.x[tile])).relu()
        torch.testing.assert_close(output.slide_embedding[b], state, atol=1e-12, rtol=0)
        torch.testing.assert_close(output.logits[b], fc3(state), atol=1e-12, rtol=0)


@pytest.mark.parametrize("k", [1, 3])
def test_the_first_stage_learns_from_the_top_tiles_with_the_slides_label(k):
    objective = Classes(2, (0.5, 3.0))
    model, bags, target = build(objective), draw(2, 9, 1), torch.tensor([1, 0, 1])
    logits = model.tile_head(bags.x)
    chosen, labels = [], []
    for b, start in enumerate(bags.starts):
        ranked = sorted(range(start, start + bags.sizes[b]), key=lambda i: -(logits[i, 1] - logits[i, 0]).item())
        chosen += ranked[:k]
        labels += [target[b].item()] * len(ranked[:k])
    expected = objective.loss(logits[chosen], torch.tensor(labels))
    assert model.tile_loss(bags, target, k=k).item() == pytest.approx(expected.item(), rel=1e-12)


def test_the_stages_learn_apart():
    model, bags, target = build(Classes(2)), draw(5, 8), torch.tensor([1, 0])
    model(bags, target).loss.backward()
    assert all(parameter.grad is None for parameter in model.tile_head.parameters())
    model.zero_grad()
    model.tile_loss(bags, target).backward()
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in model.aggregator.parameters())
