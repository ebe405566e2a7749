"""Colour of views: saturation and hue as one matrix, chances by view, solarisation, stains drawn in LAB."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from histokin.learn.draws import draw_uniforms
from histokin.learn.recipe import ViewSpec
from histokin.learn.stains import StainTemplates
from histokin.learn.views import STAINS, UNSTAINING, make_views, plan_views
from histokin.learn.views.colour import recolouring
from histokin.learn.views.lab import restain, to_lab, to_rgb
from histokin.tissue.colour import LabStatistics, lab_statistics, normalise_lab

STILL = ViewSpec(
    train_px=32,
    embed_px=26,
    zoom_min=1.0,
    zoom_max=1.0,
    aspect=0.0,
    flip=False,
    rotate=False,
    stain_p=0.0,
    jitter_p=0.0,
    grey=0.0,
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
TEMPLATES = StainTemplates(
    np.array([60.0, 25, -18]), np.array([4.0, 3, 2]), np.array([10.0, 7, 6]), np.array([2.0, 1, 1])
)


def made(tiles, spec, *, step=0, n_views=2, templates=None):
    plan = plan_views(
        spec, tiles.shape[1], seed=0, step=step, samples=np.arange(len(tiles)), n_views=n_views, templates=templates
    )
    return make_views(torch.from_numpy(tiles), plan, spec).permute(0, 2, 3, 1).numpy(), plan


def test_a_third_of_the_circle_takes_red_to_green_to_blue():
    turn = recolouring(np.ones(2), np.array([1 / 3, -1 / 3]))
    np.testing.assert_allclose(turn[0], [[0, 0, 1], [1, 0, 0], [0, 1, 0]], atol=1e-6)
    np.testing.assert_allclose(turn[1], turn[0].T, atol=1e-6)


def test_saturation_scales_the_distance_from_grey():
    matrix = recolouring(np.array([0.0, 0.5, 1.0]), np.zeros(3))
    np.testing.assert_allclose(
        matrix @ [0.9, 0.3, 0.6], [[0.6, 0.6, 0.6], [0.75, 0.45, 0.6], [0.9, 0.3, 0.6]], atol=1e-6
    )


def test_neither_changes_grey_or_the_mean_of_the_channels():
    rng = np.random.default_rng(0)
    matrix = recolouring(rng.uniform(0, 2, 20), rng.uniform(-0.5, 0.5, 20))
    np.testing.assert_allclose(matrix.sum(2), 1, atol=1e-6)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)


def test_hue_turns_as_hsv_does_at_multiples_of_a_sixth():
    red = recolouring(np.ones(1), np.array([1 / 6]))[0] @ [0.6, 0.3, 0.3]
    hue = cv2.cvtColor(red.astype(np.float32)[None, None], cv2.COLOR_RGB2HSV)[0, 0, 0]
    assert hue == pytest.approx(60, abs=0.01)


def test_all_of_colour_equals_a_slow_loop_over_pixels(tiles):
    spec = dataclasses.replace(
        STILL,
        stain_p=0.6,
        jitter_p=0.7,
        saturation=0.4,
        hue=0.1,
        grey=0.3,
        solarise=(0.2, 0.9),
    )
    small = tiles[:8]
    views, plan = made(small, spec, step=2)
    u = draw_uniforms(0, "views", 2, samples=np.arange(8), n_views=2, n_draws=24).reshape(16, 24)
    for row, found in enumerate(views):
        signed = 2 * u[row] - 1
        v = small[row % 8].astype(float) / 255
        if u[row, 20] < 0.6:
            gain, shift = 1 + 0.5 * signed[6:9], 0.1 * signed[9:12]
            density = -np.log((v * 255 + 1) / 256)
            v = (256 * np.exp(-((density @ UNSTAINING) * gain + shift) @ STAINS) - 1) / 255
        if u[row, 19] < 0.7:
            m = v.mean()
            v = (v - m) * (1 + 0.4 * signed[13]) + m * (1 + 0.3 * signed[12])
            grey = v.mean(2, keepdims=True)
            chroma = v - grey
            a = 2 * np.pi * 0.1 * signed[18]
            axis = np.ones(3) / np.sqrt(3)
            chroma = chroma * np.cos(a) + np.cross(np.broadcast_to(axis, v.shape), chroma) * np.sin(a)  # Rodrigues
            v = grey + (1 + 0.4 * signed[17]) * chroma
        v = np.clip(v, 0, 1)
        if u[row, 14] < 0.3:
            v = np.broadcast_to(v.mean(2, keepdims=True), v.shape)
        if u[row, 21] < (0.2, 0.9)[row // 8]:
            v = np.where(v > 0.5, 1 - v, v)
        np.testing.assert_allclose(found, v, atol=3e-4)
    for rows in (plan.solarised, plan.grey, np.flatnonzero(u[:, 20] < 0.6), np.flatnonzero(u[:, 19] < 0.7)):
        assert 0 < len(rows) < 16


def test_jitter_and_stain_apply_with_their_probability():
    spec = dataclasses.replace(STILL, stain_p=0.3, jitter_p=0.8, saturation=0.2, hue=0.05)
    plan = plan_views(spec, 32, seed=0, step=0, samples=np.arange(2000))
    n = 4000
    changed = {
        "stain": (0.3, np.abs(plan.matrix - np.eye(3)).max((1, 2)) > 1e-6),
        "contrast": (0.8, plan.contrast != 1),
        "brightness": (0.8, plan.brightness != 1),
        "chroma": (0.8, np.abs(plan.chroma - np.eye(3)).max((1, 2)) > 1e-6),
    }
    for p, applies in changed.values():
        assert abs(applies.mean() - p) < 4 * np.sqrt(p * (1 - p) / n)
    np.testing.assert_array_equal(changed["contrast"][1], changed["chroma"][1])
    np.testing.assert_array_equal(plan.offset.any(1), changed["stain"][1])


def test_chances_of_zero_cost_no_pass():
    plan = plan_views(dataclasses.replace(STILL, saturation=0.2, hue=0.1), 32, seed=0, step=0, samples=np.arange(9))
    assert plan.matrix is None
    assert plan.offset is None
    assert plan.chroma is None


def test_views_have_their_own_chances_of_blur_and_the_last_is_for_all_that_follow():
    spec = dataclasses.replace(STILL, blur=(1.0, 0.0, 0.5), solarise=(0.0, 0.2))
    plan = plan_views(spec, 32, seed=0, step=0, samples=np.arange(1000), n_views=5)
    blurred, solarised = (np.bincount(rows // 1000, minlength=5) for rows in (plan.blurred, plan.solarised))
    assert blurred[:2].tolist() == [1000, 0]
    assert np.abs(blurred[2:] - 500).max() < 4 * np.sqrt(250)
    assert solarised[0] == 0
    assert np.abs(solarised[1:] - 200).max() < 4 * np.sqrt(160)
    assert len(plan.sigma) == len(plan.blurred)


def test_solarised_intensities_are_inverted_above_one_half():
    tile = np.full((1, 32, 32, 3), (40, 128, 250), np.uint8)
    views, _ = made(tile, dataclasses.replace(STILL, solarise=1.0))
    np.testing.assert_allclose(views[1, 5, 5], [40 / 255, 127 / 255, 5 / 255], atol=1e-5)


def test_lab_on_the_device_is_opencvs(tiles):
    v = torch.from_numpy(tiles).reshape(20, -1, 3).permute(0, 2, 1).float() / 255
    v[0, :, :300] = torch.linspace(0, 0.06, 300)  # where both curves are straight
    lab = to_lab(v)
    linear = np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)
    expected = cv2.cvtColor(np.ascontiguousarray(linear.transpose(0, 2, 1)), cv2.COLOR_LRGB2Lab)
    np.testing.assert_allclose(lab.permute(0, 2, 1), expected, atol=0.05)
    np.testing.assert_allclose(to_rgb(lab), v, atol=1e-5)


def test_restaining_a_view_is_normalising_it_as_a_slide(tiles):
    tiles = tiles[:4].copy()
    tiles[1, :12] = 252  # glass
    v = torch.from_numpy(tiles).reshape(4, -1, 3).permute(0, 2, 1).float() / 255
    wanted = np.array([[[60, 25, -18], [10, 7, 6]], [[70, 20, -10], [8, 5, 5]]] * 2, np.float32)
    found = restain(v, torch.from_numpy(wanted)).permute(0, 2, 1).reshape(tiles.shape) * 255
    for tile, want, result in zip(tiles, wanted.astype(float), found.numpy(), strict=True):
        expected = normalise_lab(tile[None], lab_statistics(tile[None]), LabStatistics(want[0], want[1]))[0]
        np.testing.assert_allclose(result, expected, atol=1)


@pytest.mark.parametrize("level", [0, 90, 225, 248, 255])
def test_flat_views_stay_finite_and_glass_stays_glass(level):
    template = torch.tensor([[[60.0, 25, -18], [10, 7, 6]]])
    found = restain(torch.full((1, 3, 16), level / 255), template)
    assert torch.isfinite(found).all()
    if level > 220:
        np.testing.assert_allclose(found, level / 255, atol=1e-5)


def test_drawn_stains_follow_the_slides_with_a_wider_spread():
    spec = dataclasses.replace(STILL, stain="lab", stain_p=0.5, stain_gain=0.5)
    plan = plan_views(spec, 32, seed=0, step=0, samples=np.arange(4000), templates=TEMPLATES)
    n = len(plan.restained)
    assert abs(n / 8000 - 0.5) < 4 * np.sqrt(0.25 / 8000)
    assert plan.template.shape == (n, 2, 3)
    assert plan.matrix is None
    mu = np.stack([TEMPLATES.mean_mu, TEMPLATES.std_mu])
    sigma = 1.5 * np.stack([TEMPLATES.mean_sigma, TEMPLATES.std_sigma])
    assert (np.abs(plan.template.mean(0) - mu) < 4 * sigma / np.sqrt(n)).all()
    assert (np.abs(plan.template.std(0) / sigma - 1) < 4 / np.sqrt(2 * n)).all()
    correlation = np.corrcoef(plan.template.reshape(n, 6).T) - np.eye(6)
    assert np.abs(correlation).max() < 4 / np.sqrt(n)


def test_drawn_stains_do_not_depend_on_the_rest_of_the_batch():
    spec = dataclasses.replace(STILL, stain="lab", stain_p=1.0)
    whole = plan_views(spec, 32, seed=0, step=3, samples=np.arange(10), n_views=1, templates=TEMPLATES)
    some = plan_views(spec, 32, seed=0, step=3, samples=np.array([7, 2]), n_views=1, templates=TEMPLATES)
    np.testing.assert_array_equal(some.template, whole.template[[7, 2]])


def test_views_stained_in_lab_have_their_templates_statistics(tiles):
    spec = dataclasses.replace(STILL, stain="lab", stain_p=0.6)
    calm = dataclasses.replace(TEMPLATES, mean_sigma=TEMPLATES.mean_sigma / 4, std_sigma=TEMPLATES.std_sigma / 4)
    views, plan = made(tiles, spec, templates=calm)
    assert 0 < len(plan.restained) < 40
    for row, view in enumerate(views):
        if row in plan.restained:
            want = plan.template[list(plan.restained).index(row)]
            found = lab_statistics(np.round(view * 255).astype(np.uint8)[None])
            np.testing.assert_allclose(found.mean, want[0], atol=1.0)
            np.testing.assert_allclose(found.std, want[1], atol=1.5)
        else:
            np.testing.assert_allclose(view, tiles[row % 20] / 255, atol=1e-5)


def test_lab_stains_without_templates_are_refused():
    spec = dataclasses.replace(STILL, stain="lab")
    with pytest.raises(ValueError, match="pass templates"):
        plan_views(spec, 32, seed=0, step=0, samples=np.arange(2))
