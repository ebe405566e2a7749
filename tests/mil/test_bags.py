"""Packed bags: what goes in comes out, and nothing else."""

import pytest
import torch

from histokin.mil import PackedBags


def draw(sizes, width=3):
    values = torch.arange(sum(sizes) * width, dtype=torch.float32).reshape(-1, width)
    return PackedBags(values, torch.tensor(sizes), values[:, :2].long())


def test_packing_separate_bags_and_splitting_them_returns_them():
    parts, places = [torch.rand(n, 3) for n in (4, 1, 2)], [torch.full((n, 2), n) for n in (4, 1, 2)]
    bags = PackedBags.of(parts, places)
    assert (len(bags), bags.sizes, bags.starts) == (3, [4, 1, 2], [0, 4, 5])
    for one, part, place in zip(bags.split(), parts, places, strict=True):
        assert one.x.equal(part)
        assert one.coords.equal(place)
        assert one.sizes == [len(part)]
    assert PackedBags.of(parts).coords is None
    assert PackedBags.of(parts).split()[1].coords is None


@pytest.mark.parametrize("fill", [0.0, float("nan"), float("inf")])
def test_padding_and_packing_again_returns_the_bags(fill):
    bags = draw([2, 5, 1])
    x, mask = bags.pad(fill)
    assert x.shape == (3, 5, 3)
    assert mask.sum(1).tolist() == bags.sizes
    again = PackedBags.from_padded(x, mask)
    assert again.x.equal(bags.x)
    assert again.lengths.equal(bags.lengths)


def test_real_tiles_may_stand_anywhere_in_a_padded_row():
    x = torch.arange(8.0).reshape(1, 4, 2)
    bags = PackedBags.from_padded(x, torch.tensor([[False, True, False, True]]), x.long())
    assert bags.x.tolist() == [[2, 3], [6, 7]]
    assert bags.coords.tolist() == [[2, 3], [6, 7]]


def test_lengths_stay_on_the_cpu_when_tiles_move():
    bags = draw([2, 1]).to("meta")
    assert (bags.x.device.type, bags.coords.device.type, bags.lengths.device.type) == ("meta", "meta", "cpu")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: PackedBags.of([torch.zeros(2, 3), torch.zeros(0, 3)]), "bag 1 has no tiles"),
        (lambda: PackedBags.from_padded(torch.zeros(2, 2, 3), torch.eye(2) > 2), "bag 0 has no tiles"),
        (lambda: PackedBags.of([]), "at least one bag"),
        (lambda: PackedBags(torch.zeros(0, 3), torch.tensor([], dtype=torch.int64)), "there are 0 tiles"),
        (lambda: PackedBags(torch.zeros(3, 2), torch.tensor([2])), "add up to 2, but there are 3"),
        (lambda: PackedBags(torch.zeros(3, 2), torch.tensor([3.0])), "int64"),
        (lambda: PackedBags(torch.zeros(3), torch.tensor([3])), "floating"),
        (lambda: PackedBags(torch.zeros(3, 2).long(), torch.tensor([3])), "floating"),
        (lambda: PackedBags(torch.zeros(3, 2), torch.tensor([3]), torch.zeros(2, 2)), "coords"),
        (lambda: PackedBags.from_padded(torch.zeros(2, 2, 3), torch.ones(2, 2)), "bool"),
        (lambda: PackedBags.from_padded(torch.zeros(2, 2, 3), torch.ones(2, 3) > 0), "mask"),
    ],
)
def test_what_is_no_bag_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
