"""The laws of every model and preset: what must not change a slide's result, and what a result consists of."""

import inspect

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from histokin.encoders.networks import seeded_torch
from histokin.mil import MODELS, Classes, Hazards, MultiLabel, PackedBags, Regression, build_model

D = 6
SMALL = {
    "hidden": (5,),
    "width": 16,
    "attention": 4,
    "landmarks": 8,
    "state": 4,
    "query_dim": 4,
    "k": 3,
    "steps": 4,
}
# Every model in both presets, and the options that take another way through it.
WAYS = [
    *[(name, preset, {}) for name in MODELS for preset in ("default", "faithful")],
    ("mean", "default", {"hidden": (5, 4)}),
    ("max", "default", {"rule": "topk_mean"}),
    ("abmil", "default", {"gated": False, "branches": 3}),
    ("abmil", "default", {"activation": "gelu", "norm": True}),
    ("dsmil", "default", {"passing_v": True, "query": "linear"}),
    ("transmil", "default", {"exact_last": True}),
    ("mil_rnn", "default", {"negative": 2, "hidden": (5,)}),
]
# The published TransMIL reads tiles in the order of the file: golden `transmil_N20_permuted_by_roll10`.
ORDERLESS = [way for way in WAYS if way[:2] != ("transmil", "faithful")]
DOUBLED = [way for way in WAYS if way[0] in ("mean", "max", "abmil", "clam_sb", "clam_mb", "dsmil", "acmil")]
DOUBLED = [way for way in DOUBLED if way[2].get("rule") != "topk_mean"]
ids = [f"{name}-{preset}-{'-'.join(options)}".strip("-") for name, preset, options in WAYS]
every_way = pytest.mark.parametrize("way", WAYS, ids=ids)
# Bags above and below the size from which pooling goes bag by bag, and of one tile.
SIZES = {"small": (7, 1, 12, 3), "large": (90, 1, 210, 30)}
both_sizes = pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)


def build(way, *, dim=D, objective=None, seed=0):
    name, preset, options = way
    takes = inspect.signature(MODELS[name]).parameters
    chosen = {key: value for key, value in SMALL.items() if key in takes and key not in options}
    if name == "dsmil" and preset == "faithful":
        del chosen["hidden"]
    model = build_model(name, dim=dim, objective=objective or Classes(3), preset=preset, seed=seed, **chosen, **options)
    return model.double().eval()


def draw(sizes, seed=0):
    """Bags of normal tiles, each on a grid of its own: distinct cells of 100 px in a field with holes."""
    rng = np.random.default_rng(seed)
    tiles = [torch.from_numpy(rng.normal(size=(n, D))) for n in sizes]
    cells = [rng.choice(4 * n, size=n, replace=False) for n in sizes]
    side = [int(np.ceil(np.sqrt(4 * n))) for n in sizes]
    coords = [torch.from_numpy(np.stack([c % s, c // s], 1) * 100 + 40) for c, s in zip(cells, side, strict=True)]
    return PackedBags.of(tiles, coords)


def rows(bags, b):
    return slice(bags.starts[b], bags.starts[b] + bags.sizes[b])


def agree(first, second, tolerance=1e-10):
    for field in ("logits", "slide_embedding", "attention", "weights", "tile_logits", "tile_contrib"):
        a, b = getattr(first, field), getattr(second, field)
        assert (a is None) == (b is None), field
        if a is not None:
            torch.testing.assert_close(a, b, atol=tolerance, rtol=0, msg=lambda text, field=field: f"{field}: {text}")


@every_way
@both_sizes
def test_a_bag_alone_gives_what_it_gives_among_others(way, sizes):
    model, bags = build(way), draw(sizes)
    together = model(bags)
    for b, alone in enumerate(bags.split()):
        output = model(alone)
        torch.testing.assert_close(output.logits[0], together.logits[b], atol=1e-10, rtol=0)
        if output.weights is not None:
            torch.testing.assert_close(output.weights, together.weights[rows(bags, b)], atol=1e-10, rtol=0)


@every_way
@both_sizes
def test_padding_of_any_length_and_content_changes_nothing(way, sizes):
    model, bags = build(way), draw(sizes)
    x, mask = bags.pad(float("nan"))
    coords = torch.full((*mask.shape, 2), -7)
    coords[mask] = bags.coords
    before, behind = (x.new_full((len(bags), 3, D), fill) for fill in (1e30, -float("inf")))
    target = torch.tensor([0, 2, 1, 1])
    padded = model.forward_padded(
        torch.cat([before, x, behind], 1),
        torch.nn.functional.pad(mask, (3, 3)),
        torch.nn.functional.pad(coords, (0, 0, 3, 3), value=-1),
        target,
    )
    packed = model(bags, target)
    agree(padded, packed)
    assert padded.loss.item() == pytest.approx(packed.loss.item(), abs=1e-10)


@pytest.mark.parametrize("way", ORDERLESS, ids=str)
@both_sizes
def test_the_order_of_tiles_changes_nothing(way, sizes):
    model, bags = build(way), draw(sizes)
    rng = np.random.default_rng(1)
    order = torch.cat([torch.from_numpy(rng.permutation(n) + s) for n, s in zip(sizes, bags.starts, strict=True)])
    shuffled = model(PackedBags(bags.x[order], bags.lengths, bags.coords[order]))
    straight = model(bags)
    torch.testing.assert_close(shuffled.logits, straight.logits, atol=1e-10, rtol=0)
    for field in ("weights", "tile_logits", "tile_contrib"):
        if getattr(straight, field) is not None:
            torch.testing.assert_close(getattr(shuffled, field), getattr(straight, field)[order], atol=1e-10, rtol=0)


@every_way
def test_tiles_without_places_are_read_in_their_order(way):
    model, bags = build(way), draw((9, 70))
    nowhere = PackedBags(bags.x, bags.lengths, torch.full_like(bags.coords, -1))
    agree(model(nowhere), model(PackedBags(bags.x, bags.lengths)), tolerance=0)


@pytest.mark.parametrize("way", DOUBLED, ids=str)
@both_sizes
def test_every_tile_twice_changes_nothing(way, sizes):
    model, bags = build(way), draw(sizes)
    twice = PackedBags(bags.x.repeat_interleave(2, 0), 2 * bags.lengths)
    torch.testing.assert_close(model(twice).logits, model(bags).logits, atol=1e-10, rtol=0)


OBJECTIVES = [Classes(2), Classes(3), MultiLabel(1), Hazards(4), Regression()]


def takes(way, objective):
    name, preset, options = way
    if (name, preset) == ("max", "faithful"):
        return isinstance(objective, Classes)
    if name == "mil_rnn" or (name, preset) == ("dsmil", "faithful"):
        return isinstance(objective, Classes | MultiLabel) and objective.n > options.get("negative", 0)
    return True


@pytest.mark.parametrize(
    ("way", "objective"), [(way, it) for way in WAYS for it in OBJECTIVES if takes(way, it)], ids=str
)
def test_one_tile_is_enough_and_every_parameter_learns(way, objective):
    name, preset, _ = way
    model = build(way, objective=objective).train()
    bags = draw((1, 20))
    target = {1: torch.zeros(2), 2: torch.tensor([0, 1]), 3: torch.tensor([0, 2]), 4: torch.eye(2)}[objective.n_outputs]
    if isinstance(objective, MultiLabel):
        target = target[:, None]
    with seeded_torch(3):
        output = model(bags, target)
    assert output.logits.shape == (2, objective.n_outputs)
    loss = output.loss + (model.tile_loss(bags, target) if name == "mil_rnn" else 0)
    loss.backward()
    idle = [key for key, parameter in model.named_parameters() if parameter.grad is None]
    # Two tile classifiers of three see a slide when classes do not exclude one another.
    assert not [key for key in idle if not (preset == "faithful" and key.startswith("instance"))]
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


@every_way
def test_gradients_equal_finite_differences(way):
    model, bags, target = build(way), draw((9, 1, 30)), torch.tensor([2, 0, 1])
    rng = np.random.default_rng(2)
    for parameter in model.parameters():  # away from kinks: ReLU at biases that start at 0
        parameter.data += 0.01 * torch.from_numpy(rng.normal(size=tuple(parameter.shape)))
    model(bags, target).loss.backward()
    learning = [parameter for parameter in model.parameters() if parameter.grad is not None]
    here, slope = parameters_to_vector(learning).detach(), parameters_to_vector(it.grad for it in learning)
    for _ in range(2):
        step, values = 1e-6 * torch.from_numpy(rng.normal(size=len(here))), []
        for sign in (1, -1):
            vector_to_parameters(here + sign * step, learning)
            values.append(model(bags, target).loss.item())
        assert (values[0] - values[1]) / 2 == pytest.approx((slope @ step).item(), rel=1e-5, abs=1e-12)


@every_way
def test_results_need_no_target_and_losses_are_those_of_the_same_logits(way):
    model, bags = build(way), draw((5, 8))
    bare, told = model(bags), model(bags, torch.tensor([2, 0]))
    assert not bare.losses
    with pytest.raises(ValueError, match="no target"):
        _ = bare.loss
    agree(bare, told, tolerance=0)
    assert told.loss.item() == pytest.approx(sum(loss.item() for loss in told.losses.values()))


@every_way
def test_weights_are_a_softmax_of_the_attention_and_contributions_add_up_to_the_logits(way):
    model, bags = build(way), draw((7, 130, 1))
    output = model(bags)
    for b in range(len(bags)):
        here = rows(bags, b)
        if output.attention is not None:
            torch.testing.assert_close(output.weights[here], output.attention[here].softmax(0), atol=1e-12, rtol=0)
        if output.tile_contrib is not None:
            total = output.tile_contrib[here].sum(0) + model.head.bias
            torch.testing.assert_close(total, output.logits[b], atol=1e-12, rtol=0)
    if output.tile_contrib is not None:
        torch.testing.assert_close(output.tile_logits[-1], output.logits[-1], atol=1e-12, rtol=0)


@every_way
def test_half_precision_of_the_stored_tiles_moves_logits_by_less_than_a_hundredth(way):
    model, bags = build(way).float(), draw((40, 3, 100))
    stored = model(PackedBags(bags.x.half(), bags.lengths, bags.coords))
    exact = model(PackedBags(bags.x.float(), bags.lengths, bags.coords))
    assert stored.logits.dtype == torch.float32
    assert (stored.logits - exact.logits).abs().max() < 1e-2


@every_way
def test_softmax_is_in_float32_under_autocast(way):
    model, bags = build(way).float(), draw(SIZES["large"])
    with torch.autocast("cpu", torch.bfloat16):
        output = model(PackedBags(bags.x.float(), bags.lengths, bags.coords), torch.tensor([0, 1, 2, 0]))
    assert output.loss.dtype == torch.float32
    if output.attention is not None:
        assert output.weights.dtype == torch.float32
        here = rows(bags, 2)
        expected = output.attention[here].double().softmax(0)
        torch.testing.assert_close(output.weights[here].double(), expected, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_tiles_of_another_width_are_refused(name):
    with pytest.raises(ValueError, match="width 6, these have 5"):
        build((name, "default", {}))(PackedBags.of([torch.zeros(3, 5)]))


@pytest.mark.parametrize("name", MODELS)
def test_a_bag_without_tiles_is_refused(name):
    mask = torch.tensor([[True, True], [False, False]])
    with pytest.raises(ValueError, match="bag 1 has no tiles"):
        build((name, "default", {})).forward_padded(torch.zeros(2, 2, D), mask)
