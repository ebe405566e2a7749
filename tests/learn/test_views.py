"""Views: drawn by counter, doing nothing at strength 0, and right in geometry and colour."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from histokin.learn.draws import draw_uniforms
from histokin.learn.recipe import ViewSpec
from histokin.learn.views import STAINS, UNSTAINING, blur, central_plan, make_views, plan_views

MEAN, STD = (0.7, 0.6, 0.65), (0.2, 0.25, 0.3)
STILL = ViewSpec(
    train_px=32,
    embed_px=26,
    zoom_min=1.0,
    zoom_max=1.0,
    aspect=0.0,
    flip=False,
    rotate=False,
    stain_gain=0.0,
    stain_offset=0.0,
    brightness=0.0,
    contrast=0.0,
    grey=0.0,
    mean=MEAN,
    std=STD,
)
LIVELY = ViewSpec(train_px=16, embed_px=26, blur=0.5, mean=MEAN, std=STD)


def made(tiles, spec, *, step=0, samples=None, seed=0):
    samples = np.arange(len(tiles)) if samples is None else samples
    plan = plan_views(spec, tiles.shape[1], seed=seed, step=step, samples=samples)
    return make_views(torch.from_numpy(tiles), plan, spec), plan


def to_rgb(views):
    """Back to (N, H, W, 3) in [0, 1]."""
    return views.permute(0, 2, 3, 1).numpy() * np.array(STD) + np.array(MEAN)


def test_a_sub_batch_draws_the_same_numbers():
    whole = draw_uniforms(3, "views", 5, samples=np.arange(40), n_views=2, n_draws=7)
    some = draw_uniforms(3, "views", 5, samples=np.array([31, 2, 17]), n_views=2, n_draws=7)
    np.testing.assert_array_equal(some, whole[:, [31, 2, 17]])
    more = draw_uniforms(3, "views", 5, samples=np.arange(40), n_views=3, n_draws=9)
    np.testing.assert_array_equal(more[:2, :, :7], whole)


@pytest.mark.parametrize("change", [{"seed": 4}, {"purpose": "probe"}, {"step": 6}])
def test_seed_purpose_and_step_each_change_every_number(change):
    given = {"seed": 3, "purpose": "views", "step": 5, "samples": np.arange(50), "n_views": 2, "n_draws": 9}
    assert not (draw_uniforms(**given) == draw_uniforms(**{**given, **change})).any()


def test_draws_are_uniform_and_uncorrelated():
    n_steps, n_samples = 40, 64
    u = np.stack(
        [draw_uniforms(1, "views", s, samples=np.arange(n_samples), n_views=2, n_draws=6) for s in range(n_steps)]
    )
    assert u.min() >= 0
    assert u.max() < 1
    flat = np.sort(u.ravel())
    distance = np.abs(flat - (np.arange(len(flat)) + 0.5) / len(flat)).max()
    assert distance < 1.95 / np.sqrt(len(flat))  # Kolmogorov-Smirnov at 0.1 %
    for axis in range(4):  # step, view, sample, draw against the next one along each axis
        a, b = np.take(u, range(u.shape[axis] - 1), axis), np.take(u, range(1, u.shape[axis]), axis)
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 4 / np.sqrt(a.size)


def test_views_of_a_sub_batch_are_those_of_the_batch(tiles):
    whole, _ = made(tiles, LIVELY, step=9)
    some, _ = made(tiles[[4, 11]], LIVELY, step=9, samples=np.array([4, 11]))
    np.testing.assert_allclose(some, whole[[4, 11, 24, 31]], atol=2e-5)


def test_the_two_views_of_a_tile_differ_and_so_do_steps(tiles):
    first, second = made(tiles, LIVELY, step=0)[0].chunk(2)
    later = made(tiles, LIVELY, step=1)[0]
    assert (first - second).abs().mean() > 0.1
    assert (first - later[: len(first)]).abs().mean() > 0.1


def test_views_of_strength_zero_are_the_tile(tiles):
    views, _ = made(tiles, STILL)
    np.testing.assert_allclose(to_rgb(views), np.concatenate([tiles, tiles]) / 255, atol=1e-5)
    assert views.is_contiguous(memory_format=torch.channels_last)


def test_stain_jitter_of_nothing_is_the_tile(tiles):
    # A vanishing gain goes through optical density and back.
    views, _ = made(tiles, dataclasses.replace(STILL, stain_gain=1e-9))
    np.testing.assert_allclose(to_rgb(views), np.concatenate([tiles, tiles]) / 255, atol=1e-5)


def test_flips_and_turns_are_the_eight_of_the_square(tiles):
    spec = dataclasses.replace(STILL, flip=True, rotate=True)
    many = np.repeat(tiles[:1], 64, axis=0)
    views = to_rgb(made(many, spec)[0])
    tile = tiles[0] / 255
    eight = [np.rot90(t, k) for t in (tile, tile[:, ::-1]) for k in range(4)]
    which = [int(np.argmin([np.abs(view - one).max() for one in eight])) for view in views]
    assert max(np.abs(view - eight[k]).max() for view, k in zip(views, which, strict=True)) < 1e-4
    assert set(which) == set(range(8))


@pytest.mark.parametrize("px", [80, 256])
def test_zoom_is_drawn_alike_whatever_the_tile(px):
    train_px = round(0.6 * px)
    spec = ViewSpec(train_px=train_px, embed_px=26, aspect=0.0, flip=False, rotate=False, mean=MEAN, std=STD)
    plan = plan_views(spec, px, seed=0, step=0, samples=np.arange(4000))
    zoom = plan.theta[:, 0, 0] * px / train_px
    assert zoom.min() == pytest.approx(1.0, abs=0.01)
    assert zoom.max() == pytest.approx(min(1 / 0.6, px / train_px), abs=0.01)
    assert (zoom**2).mean() == pytest.approx((1 + (1 / 0.6) ** 2) / 2, rel=0.02)


def test_crops_stay_inside_the_tile():
    plan = plan_views(ViewSpec(train_px=48, embed_px=64), 80, seed=1, step=0, samples=np.arange(2000))
    reach = np.abs(plan.theta[:, :, :2]).sum(2) + np.abs(plan.theta[:, :, 2])
    assert reach.max() <= 1 + 1e-6
    sides = np.abs(plan.theta[:, :, :2]).sum(2)
    assert np.abs(np.log(sides[:, 0] / sides[:, 1])).max() <= 2 * np.log(1.15) + 1e-6


def test_a_crop_shows_the_part_of_the_tile_its_map_names():
    # A tile whose red is x and whose green is y: the crop's centre and slope can be read off.
    at = np.arange(64, dtype=np.uint8) * 4
    tile = np.zeros((1, 64, 64, 3), np.uint8)
    tile[0, ..., 0], tile[0, ..., 1] = at[None, :], at[:, None]
    spec = dataclasses.replace(STILL, train_px=16, zoom_min=1.5, zoom_max=2.5, aspect=0.1)
    views, plan = made(np.repeat(tile, 10, 0), spec)
    rgb = to_rgb(views) * 255
    for view, theta in zip(rgb, plan.theta, strict=True):
        x, y = (32 * (theta[:, 2] + 1) - 0.5) * 4
        assert view[..., 0].mean() == pytest.approx(x, abs=1)
        assert view[..., 1].mean() == pytest.approx(y, abs=1)
        assert view[8, 9, 0] - view[8, 8, 0] == pytest.approx(theta[0, 0] * 64 / 16 * 4, abs=0.2)


def test_colour_equals_a_slow_loop_over_pixels(tiles):
    spec = dataclasses.replace(
        STILL, stain_gain=0.5, stain_offset=0.1, brightness=0.3, contrast=0.4, grey=0.3, train_px=32
    )
    small = tiles[:3]
    views, plan = made(small, spec, step=2)
    u = draw_uniforms(0, "views", 2, samples=np.arange(3), n_views=2, n_draws=17).reshape(6, 17)
    for row, found in enumerate(to_rgb(views)):
        gain, shift = 1 + 0.5 * (2 * u[row, 6:9] - 1), 0.1 * (2 * u[row, 9:12] - 1)
        expected = np.empty((32, 32, 3))
        for y, x in np.ndindex(32, 32):
            density = -np.log((small[row % 3, y, x].astype(float) + 1) / 256)
            stain = (density @ UNSTAINING) * gain + shift
            expected[y, x] = (256 * np.exp(-stain @ STAINS) - 1) / 255
        middle = expected.mean()
        contrast, brightness = 1 + 0.4 * (2 * u[row, 13] - 1), 1 + 0.3 * (2 * u[row, 12] - 1)
        expected = np.clip((expected - middle) * contrast + middle * brightness, 0, 1)
        if u[row, 14] < 0.3:
            expected[:] = expected.mean(2, keepdims=True)
        assert (row in plan.grey) == (u[row, 14] < 0.3)
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_grey_has_its_probability():
    spec = dataclasses.replace(LIVELY, grey=0.3, blur=0.1)
    plan = plan_views(spec, 32, seed=0, step=0, samples=np.arange(2000))
    for rows, p in ((plan.grey, 0.3), (plan.blurred, 0.1)):
        assert abs(len(rows) / 4000 - p) < 4 * np.sqrt(p * (1 - p) / 4000)


def test_blur_equals_scipys_gaussian(tiles):
    v = torch.from_numpy(tiles[:3]).permute(0, 3, 1, 2).float()
    sigma = torch.tensor([0.4, 1.0, 1.6])
    found = blur(v, sigma, 2.0).numpy()
    for picture, s, result in zip(v.numpy(), sigma.numpy(), found, strict=True):
        expected = gaussian_filter(picture, (0, s, s), mode="mirror", radius=(0, 6, 6))
        np.testing.assert_allclose(result, expected, atol=1e-2)


def test_central_plan_is_the_middle_at_the_embedding_zoom(tiles):
    spec = dataclasses.replace(STILL, train_px=16, embed_px=32)
    views = make_views(torch.from_numpy(tiles), central_plan(len(tiles), spec, 32), spec)
    np.testing.assert_allclose(to_rgb(views), tiles[:, 8:24, 8:24] / 255, atol=1e-5)
