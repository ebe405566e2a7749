"""SGCL: neighbours where cohorts of several scales are joined, few tiles, small pools, notes."""

import numpy as np
import pytest
import torch
from learn.methods.worlds import recipe_of, two_slides

from histokin.learn import pretrain
from histokin.learn.losses import draw_ranks, hard_candidates
from histokin.learn.methods import METHODS
from histokin.learn.pixels import JoinedPixels, Places, SomePixels
from histokin.learn.resolve import resolve_recipe
from histokin.learn.steps import Setting, new_state


def neighbours_of(source):
    recipe = resolve_recipe(recipe_of("sgcl"), source.px, len(source), torch.device("cpu"))
    METHODS["sgcl"].check(source, recipe)
    method = new_state(Setting(recipe, torch.device("cpu"), source.px, None), source).method
    return [set(part.tolist()) for part in method.indices.tensor_split(method.indptr[1:-1])]


def test_each_cohort_is_measured_by_its_own_pitch():
    fine, coarse = two_slides(), two_slides()
    coarse.places = Places(coarse.places.centres_um * 7.3, coarse.places.pitch_um * 7.3)
    alone, joined = neighbours_of(fine), neighbours_of(JoinedPixels([fine, coarse]))
    assert len(alone[14]) == 24  # two steps to each side, in the middle of a slide: the radius of three is outside
    assert joined[: len(fine)] == alone
    assert joined[len(fine) :] == [{row + len(fine) for row in those} for those in alone]


@pytest.mark.parametrize("n_tiles", [40, 500, 2000, 100_000])
@pytest.mark.parametrize("exact", ["false", "true"])
def test_hard_negatives_are_drawn_from_twice_as_many_whatever_the_number_of_tiles(n_tiles, exact):
    loss = resolve_recipe(recipe_of("sgcl", f"loss.exact={exact}"), 32, n_tiles, torch.device("cpu")).loss
    top = hard_candidates(loss.hard_share, n_tiles if exact == "true" else min(loss.pool, n_tiles))
    assert loss.hard == min(4096, top // 2)
    first, second = (draw_ranks(np.random.default_rng(seed), n_ranks=loss.hard, top=top) for seed in (0, 1))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    "settings", [["loss.pool=1"], ["loss.hard_share=0.001"], ["loss.hard_share=1e-9", "loss.exact=true"]]
)
def test_the_smallest_pool_and_share_leave_a_candidate(tmp_path, settings):
    result = pretrain(two_slides(), recipe_of("sgcl", "run.steps=3", *settings), tmp_path, device="cpu")
    assert np.isfinite(result.loss)


def test_tiles_drawn_at_random_leave_few_neighbours_and_the_run_says_so():
    field, recipe = two_slides(), recipe_of("sgcl", "run.steps=100000")
    assert METHODS["sgcl"].notes(field, recipe, 8) == ()
    few = SomePixels(field, np.random.default_rng(0).permutation(72)[:12])
    (note,) = METHODS["sgcl"].notes(few, recipe, 8)
    assert "spatial neighbours on average" in note
    assert "--stride" in note
    assert METHODS["sgcl"].notes(few, recipe_of("sgcl", "run.steps=100000", "loss.spatial_weight=0"), 8) == ()
    (short,) = METHODS["sgcl"].notes(field, recipe_of("sgcl", "run.steps=2"), 8)
    assert "a larger --stride; --max-tiles thins the neighbours" in short
