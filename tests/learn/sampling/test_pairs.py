"""Pairs: near and far on the same slide, uniform where they claim to be, a function of (seed, step, place)."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from histokin.errors import TrainingError
from histokin.learn.sampling import PairSampler, plan_pairs


def grid(n, pitch, slide=0):
    points = np.stack(np.meshgrid(np.arange(n), np.arange(n)), -1).reshape(-1, 2) * float(pitch)
    return np.full(n * n, slide), points


def line(at, slide=0):
    return np.full(len(at), slide), np.stack([np.array(at, float), np.zeros(len(at))], -1)


def joined(*parts):
    slides, points = zip(*parts, strict=True)
    return np.concatenate(slides), np.concatenate(points)


def drawn(sampler, step=0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Anchors, partners and which pairs are near."""
    draw = sampler.draw(step)
    return draw.rows, draw.partners, draw.near


def assert_lawful(plan, slides, points, pairs):
    """Each pair within its own slide's limits; half near, half far."""
    limits = {one.slide: one for one in plan.limits}
    for row, partner, near in zip(*pairs, strict=True):
        assert slides[row] == slides[partner]
        one = limits[slides[row]]
        assert one.state != "too_small_for_pairs"
        dx, dy = points[row] - points[partner]
        square = dx * dx + dy * dy
        assert 0 < square < one.near_um**2 if near else square > one.far_um**2
    assert pairs[2].sum() * 2 == len(pairs[2])


def layout(kind, size, rng):
    if kind == "cloud":
        return rng.normal(0, 4000, (size, 2))
    if kind == "clusters":
        return rng.normal(0, 200, (size, 2)) + rng.integers(0, 4, (size, 1)) * np.array([6000.0, 1000.0])
    if kind == "line":
        return np.arange(size)[:, None] * np.array([137.0, 211.0])
    if kind == "repeated":
        return rng.integers(0, 5, (size, 2)) * 700.0
    return rng.uniform(0, 9000, (1, 2))  # one tile


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    kinds=st.lists(st.sampled_from(["cloud", "clusters", "line", "repeated", "one"]), min_size=1, max_size=5),
    size=st.integers(2, 60),
    far=st.sampled_from([3000.0, 10000.0]),
    seed=st.integers(0, 99),
)
def test_every_pair_keeps_its_slides_limits(kinds, size, far, seed):
    rng = np.random.default_rng(seed)
    parts = [layout(kind, size, rng) for kind in kinds]
    slides = np.repeat(np.arange(len(parts)) * 3, [len(part) for part in parts])
    mixed = rng.permutation(len(slides))
    slides, points = slides[mixed], np.concatenate(parts)[mixed]
    plan = plan_pairs(slides, points, 100.0, far_um=far)
    if all(one.state == "too_small_for_pairs" for one in plan.limits):
        with pytest.raises(TrainingError, match="gives near and far pairs"):
            PairSampler(seed, 8, plan)
        return
    sampler = PairSampler(seed, 24, plan, tree_tiles=50)
    for step in range(2):
        assert_lawful(plan, slides, points, drawn(sampler, step))


def test_shrunk_limits_hold_on_a_small_section():
    slides, points = grid(50, 120)
    plan = plan_pairs(slides, points, 120.0)
    assert plan.limits[0].state == "fallback"
    assert_lawful(plan, slides, points, drawn(PairSampler(0, 400, plan)))


def expected_pairs(points, is_partner):
    """(n, n) chance of each (anchor, partner): anchors uniform over those with a partner, partners over theirs."""
    dx, dy = (points[:, None] - points[None]).transpose(2, 0, 1)
    partners = is_partner(dx * dx + dy * dy)
    has_any = partners.any(axis=1)
    return partners / np.maximum(partners.sum(axis=1, keepdims=True), 1) / has_any.sum()


# Tiles on a line. "even": those in the middle have no far partner, and 0 and 2000 are not near.
# "few": a far tile is one in 13, missed by all tries for one place in four and then chosen from the list of all.
# "rare": it is one in 40 and has no near tile itself.
LINES = {
    "even": [0, 1000, 2000, 6000, 6500, 11000, 12000],
    "few": [*range(0, 360, 10), 11000, 11400, 11800],
    "rare": [*range(0, 390, 10), 12000],
    "doubled": [0, 0, 0, 500, 11000, 11000],
}


@pytest.mark.parametrize("name", list(LINES))
@pytest.mark.parametrize("kind", ["near", "far"])
def test_anchors_and_partners_are_uniform_over_those_that_qualify(name, kind):
    slides, points = line(LINES[name])
    sampler = PairSampler(3, 2000, plan_pairs(slides, points, 10.0))
    counts = np.zeros((len(slides), len(slides)))
    for step in range(20):
        rows, partners, near = drawn(sampler, step)
        chosen = near == (kind == "near")
        np.add.at(counts, (rows[chosen], partners[chosen]), 1)
    chances = expected_pairs(
        points, lambda square: (square > 0) & (square < 2000**2) if kind == "near" else square > 10000**2
    )
    assert (counts[chances == 0] == 0).all()
    expected = (counts.sum() * chances)[chances > 0]
    assert expected.min() > 5
    statistic = ((counts[chances > 0] - expected) ** 2 / expected).sum()
    assert statistic < chi2.isf(1e-4, len(expected) - 1)


def test_slides_are_drawn_evenly_whatever_their_tiles():
    slides, points = joined(grid(40, 400, 0), grid(12, 1200, 1), grid(30, 150, 2), line([0, 50], 3))
    sampler = PairSampler(0, 3000, plan_pairs(slides, points, 150.0))
    rows, _, near = drawn(sampler)
    for kind in (near, ~near):
        counts = np.bincount(slides[rows[kind]], minlength=4)
        assert counts[3] == 0  # too small
        assert ((counts[:3] - 500) ** 2 / 500).sum() < chi2.isf(1e-4, 2)


def test_where_no_tried_anchor_has_a_partner_a_known_one_is_taken():
    # 3000 tiles more than 2 mm apart and one pair: an anchor with a near partner is drawn once in 1500 tries.
    slides, points = grid(55, 2500)
    slides, points = np.append(slides, 0), np.concatenate([points, [[2500.0, 5100.0]]])
    rows, partners, near = drawn(PairSampler(0, 200, plan_pairs(slides, points, 250.0)))
    pairs = np.sort(np.stack([rows, partners], -1)[near], axis=1)
    assert (pairs == [2 * 55 + 1, 55 * 55]).all()


def test_a_larger_batch_begins_with_the_same_pairs():
    plan = plan_pairs(*joined(grid(30, 500, 0), grid(40, 120, 1)), 120.0)
    for small, large in zip(drawn(PairSampler(5, 30, plan), 4), drawn(PairSampler(5, 300, plan), 4), strict=True):
        np.testing.assert_array_equal(large[:30], small)


def test_trees_are_kept_within_bounds_and_change_nothing():
    plan = plan_pairs(*joined(*(grid(20, 300 + slide, slide) for slide in range(6))), 300.0)
    tight, wide = PairSampler(0, 40, plan, tree_tiles=900), PairSampler(0, 40, plan)
    for step in range(4):
        np.testing.assert_array_equal(drawn(tight, step), drawn(wide, step))
        assert len(tight._trees._trees) == 2  # of 400 tiles each
    assert len(wide._trees._trees) == 6


def test_every_ranks_share_is_half_near():
    _, _, near = drawn(PairSampler(0, 48, plan_pairs(*grid(30, 500), 500.0)))
    np.testing.assert_array_equal(near.reshape(4, 12).sum(axis=1), 6)


def test_an_odd_batch_is_reduced_by_one_and_the_reason_is_the_pairs():
    plan = plan_pairs(*grid(30, 500), 500.0)
    odd, even = PairSampler(0, 9, plan), PairSampler(0, 8, plan)
    assert (odd.batch, odd.note) == (8, "half of the pairs are near: a batch holds 8 pairs instead of 9")
    assert even.note == ""


@pytest.fixture
def with_small_slides():
    """A large slide between two that are too small."""
    return joined(grid(2, 100, 0), grid(30, 500, 1), line([0], 2))


def test_slides_too_small_are_left_out_unless_asked_for(with_small_slides):
    slides, points = with_small_slides
    plan = plan_pairs(slides, points, 100.0)
    assert_lawful(plan, slides, points, drawn(PairSampler(0, 300, plan)))


def test_across_slides_those_too_small_give_far_pairs_with_others(with_small_slides):
    slides, points = with_small_slides
    plan = plan_pairs(slides, points, 100.0, cross_slide=True)
    rows, partners, near = drawn(PairSampler(0, 6000, plan))
    of_anchor, of_partner = slides[rows], slides[partners]
    assert (of_anchor[near] == 1).all()
    assert (of_partner[near] == 1).all()
    is_far = ~near
    pairs = np.zeros((3, 3))
    np.add.at(pairs, (of_anchor[is_far], of_partner[is_far]), 1)
    expected = 3000 * np.array([[0, 1 / 6, 1 / 6], [0, 1 / 3, 0], [1 / 6, 1 / 6, 0]])
    assert (pairs[expected == 0] == 0).all()
    known = expected > 0
    assert ((pairs[known] - expected[known]) ** 2 / expected[known]).sum() < chi2.isf(1e-4, 4)
    within = is_far & (of_anchor == 1)
    assert (np.hypot(*(points[rows[within]] - points[partners[within]]).T) > 10000).all()


def test_no_pairs_anywhere_is_said_with_extent_and_limits():
    plan = plan_pairs(*joined(grid(4, 100, 0), grid(6, 100, 8)), 100.0)
    sentence = (
        "none of 2 slides gives near and far pairs. The largest, slide 8 with 36 tiles, is 707 um across; "
        "near would be < 106 um and far > 424 um"
    )
    with pytest.raises(TrainingError, match=re.escape(sentence)):
        PairSampler(0, 8, plan)
    with pytest.raises(TrainingError, match="more than 10 tile steps across"):
        PairSampler(0, 8, plan_pairs(*grid(4, 100), 100.0, cross_slide=True))
    with pytest.raises(TrainingError, match="no tiles to draw pairs from"):
        PairSampler(0, 8, plan_pairs(np.zeros(0, int), np.zeros((0, 2)), 100.0))


def test_a_batch_of_one_is_refused():
    with pytest.raises(ValueError, match="a batch of 1 cannot hold"):
        PairSampler(0, 1, plan_pairs(*grid(30, 500), 500.0))
