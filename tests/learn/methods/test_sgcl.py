"""SGCL's spatial neighbours where cohorts of several scales are trained on together."""

import torch
from learn.methods.worlds import recipe_of, two_slides

from histokin.learn.methods import METHODS
from histokin.learn.pixels import JoinedPixels, Places
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
