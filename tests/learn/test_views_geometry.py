"""Where views are cut: tile, field and shift, quadrants, local views, the middle."""

import dataclasses

import numpy as np
import pytest
import torch

from histokin.learn.draws import draw_uniforms
from histokin.learn.recipe import LocalViewSpec, ViewSpec
from histokin.learn.views import central_plan, local_spec, make_views, plan_views

MEAN, STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
STILL = ViewSpec(
    train_px=16,
    embed_px=26,
    zoom_min=1.0,
    zoom_max=1.5,
    aspect=0.1,
    stain_p=0.0,
    jitter_p=0.0,
    grey=0.0,
    mean=MEAN,
    std=STD,
)
MANY = np.arange(500)


def reach(plan):
    """(V, B, 2) centres and half sides, in halves of the picture."""
    theta = plan.theta.reshape(plan.n_views, -1, 2, 3)
    return theta[..., 2], np.abs(theta[..., :2]).sum(3)


def position_tile(px):
    """(1, px, px, 3) uint8 with x in red and y in green, four levels a pixel at 64 px."""
    at = (np.arange(px) * (256 / px)).astype(np.uint8)
    tile = np.zeros((1, px, px, 3), np.uint8)
    tile[0, ..., 0], tile[0, ..., 1] = at[None, :], at[:, None]
    return tile


def test_geometry_equals_a_slow_loop_from_the_first_draws():
    spec = dataclasses.replace(STILL, field=2.0, shift=0.5)
    plan = plan_views(spec, 40, seed=3, step=4, samples=np.arange(5), n_views=3)
    u = draw_uniforms(3, "views", 4, samples=np.arange(5), n_views=3, n_draws=24)
    for row, theta in enumerate(plan.theta):
        view, draws = row // 5, u[row // 5, row % 5]
        side = 16 * np.sqrt(1 + (1.5**2 - 1) * draws[0])  # px of the tile
        stretch = 1.1 ** (2 * draws[1] - 1)
        middle = np.array([20.0, 20.0])  # of the tile
        for axis, (length, draw) in enumerate([(side * stretch, draws[2]), (side / stretch, draws[3])]):
            middle[axis] += (2 * draw - 1) * (40 - length) / 2
            middle[axis] += (2 * draws[22 + axis] - 1) * 0.5 * 40 if view > 0 else 0
        turn, mirror = int(4 * draws[4]), -1 if draws[5] < 0.5 else 1
        for x, y in [(-1, -1), (0.3, 0.8), (1, -0.2)]:
            corner = np.array([x * mirror, y])
            for _ in range(turn):
                corner = np.array([-corner[1], corner[0]])
            cut = corner * [side * stretch, side / stretch] / 2
            expected = (middle + cut) / 40  # of the field, from its centre: it is twice the tile
            np.testing.assert_allclose(theta @ [x, y, 1], expected - 0.5, atol=1e-6)


def test_the_first_view_stays_in_the_tile_and_later_ones_are_shifted():
    spec = dataclasses.replace(STILL, field=2.0, shift=0.3)
    centre, half = reach(plan_views(spec, 32, seed=0, step=0, samples=MANY, n_views=3))
    assert (np.abs(centre) + half)[0].max() <= 0.5 + 1e-6  # the tile is half of the field
    still, _ = reach(plan_views(dataclasses.replace(spec, shift=0.0), 32, seed=0, step=0, samples=MANY, n_views=3))
    moved = centre - still  # in tile sides: half of the field is one
    np.testing.assert_allclose(moved[0], 0, atol=1e-6)
    assert np.abs(moved[1:]).max() <= 0.3 + 1e-6
    n = moved[1:].size
    assert abs(moved[1:].mean()) < 4 * 0.3 / np.sqrt(3 * n)
    assert (moved[1:] ** 2).mean() == pytest.approx(0.3**2 / 3, rel=4 * np.sqrt(0.8 / n))
    assert abs(np.corrcoef(moved[1:].reshape(-1, 2).T)[0, 1]) < 4 / np.sqrt(n / 2)


def test_crops_larger_than_the_tile_hold_it_and_end_at_the_field():
    spec = dataclasses.replace(STILL, zoom_min=2.2, zoom_max=5.0, field=2.0, shift=0.5)
    centre, half = reach(plan_views(spec, 32, seed=0, step=0, samples=MANY))
    assert (np.abs(centre) + half).max() <= 1 + 1e-6
    assert half.max() == pytest.approx(1)
    first = (half[0] - np.abs(centre[0])).min(1)
    larger = half[0].min(1) > 0.5
    assert larger.mean() > 0.5
    assert first[larger].min() >= 0.5 - 1e-6


def test_a_field_shows_what_its_tile_shows():
    field = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    tiles = np.ascontiguousarray(field[:, 16:48, 16:48])
    wide = dataclasses.replace(STILL, field=2.0)
    samples = np.arange(6)
    from_field = make_views(torch.from_numpy(field), plan_views(wide, 32, seed=1, step=0, samples=samples), wide)
    from_tile = make_views(torch.from_numpy(tiles), plan_views(STILL, 32, seed=1, step=0, samples=samples), STILL)
    np.testing.assert_allclose(from_field, from_tile, atol=1e-4)
    middle = make_views(torch.from_numpy(field), central_plan(6, wide, 32), wide)
    np.testing.assert_allclose(
        middle, make_views(torch.from_numpy(tiles), central_plan(6, STILL, 32), STILL), atol=1e-4
    )


def test_a_source_may_read_a_wider_field_than_the_views_use():
    narrow = plan_views(STILL, 32, seed=1, step=0, samples=np.arange(9), field_px=80)
    tile = plan_views(STILL, 32, seed=1, step=0, samples=np.arange(9))
    np.testing.assert_allclose(narrow.theta * 2.5, tile.theta, atol=1e-6)
    assert (narrow.field_px, tile.field_px) == (80, 32)
    np.testing.assert_allclose(central_plan(1, STILL, 32, 80).theta * 2.5, central_plan(1, STILL, 32).theta, atol=1e-6)


def test_narrower_pictures_than_planned_are_refused():
    spec = dataclasses.replace(STILL, field=2.0)
    with pytest.raises(ValueError, match=r"fields of 64 px \(views.field\), the pixels are 32 px"):
        plan_views(spec, 32, seed=0, step=0, samples=np.arange(2), field_px=32)
    with pytest.raises(ValueError, match=r"planned for 64 px, got pictures of \(32, 32, 3\)"):
        make_views(
            torch.zeros(2, 32, 32, 3, dtype=torch.uint8),
            plan_views(spec, 32, seed=0, step=0, samples=np.arange(2)),
            spec,
        )


def test_each_quadrant_is_cut_from_its_own_however_it_is_turned():
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    tile = np.zeros((1, 64, 64, 3), np.uint8)
    for c, (y, x) in enumerate([(0, 0), (0, 32), (32, 0), (32, 32)]):
        tile[0, y : y + 32, x : x + 32] = colours[c]
    spec = dataclasses.replace(STILL, zoom_max=3.0)
    plan = plan_views(spec, 64, seed=0, step=0, samples=np.arange(60), n_views=4, quadrants=True)
    views = make_views(torch.from_numpy(tile.repeat(60, 0)), plan, spec).reshape(4, 60, 3, 16, 16)
    for found, colour in zip(views, colours, strict=True):
        np.testing.assert_allclose(found, np.broadcast_to(colour[:, None, None] / 255, found.shape), atol=1e-5)
    centre, half = reach(plan)
    assert half.max() == pytest.approx(0.5)  # zoom 3 of 16 px is more than a quadrant: cut to it
    assert (np.abs(centre[:, :, 0]) - half[:, :, 0]).min() == pytest.approx(0, abs=1e-2)


def test_quadrants_are_flipped_and_turned_within():
    tile = position_tile(64).repeat(200, 0)
    plan = plan_views(STILL, 64, seed=0, step=0, samples=np.arange(200), n_views=4, quadrants=True)
    views = make_views(torch.from_numpy(tile), plan, STILL).numpy()
    slopes = np.stack([views[:, 0, 8, 9] - views[:, 0, 8, 6], views[:, 1, 9, 8] - views[:, 1, 6, 8]], 1)
    across = np.stack([views[:, 0, 9, 8] - views[:, 0, 6, 8], views[:, 1, 8, 9] - views[:, 1, 8, 6]], 1)
    kinds = {tuple(row) for row in np.sign(np.round(np.concatenate([slopes, across], 1), 3)).reshape(4, 200, 4)[2]}
    assert len(kinds) == 8


def test_quadrants_are_not_shifted_and_lie_in_the_tile_of_a_field():
    spec = dataclasses.replace(STILL, field=2.0, shift=0.5)
    plan = plan_views(spec, 64, seed=0, step=0, samples=MANY, n_views=4, quadrants=True)
    flat = plan_views(STILL, 64, seed=0, step=0, samples=MANY, n_views=4, quadrants=True)
    np.testing.assert_allclose(plan.theta * 2, flat.theta, atol=1e-6)


@pytest.mark.parametrize("n_views", [1, 2, 5])
def test_quadrants_are_four(n_views):
    with pytest.raises(ValueError, match=f"quadrants are 4 views, not {n_views}"):
        plan_views(STILL, 64, seed=0, step=0, samples=np.arange(2), n_views=n_views, quadrants=True)


def test_local_views_have_their_own_size_and_zoom_and_what_follows_the_whole_views():
    spec = dataclasses.replace(
        STILL,
        field=2.0,
        shift=0.2,
        blur=(1.0, 0.1, 0.5),
        solarise=(0.0, 0.2),
        grey=0.3,
        local=LocalViewSpec(count=3, px=8, zoom_min=0.5, zoom_max=0.75),
    )
    local = local_spec(spec)
    assert (local.train_px, local.zoom_min, local.zoom_max, local.shift) == (8, 0.5, 0.75, 0.0)
    assert (local.grey, local.field, local.mean) == (0.3, 2.0, MEAN)
    plan = plan_views(local, 32, seed=0, step=0, samples=MANY, n_views=3, purpose="local views")
    assert len(plan.blurred) / 1500 == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 1500))
    assert len(plan.solarised) / 1500 == pytest.approx(0.2, abs=4 * np.sqrt(0.16 / 1500))
    centre, half = reach(plan)
    assert 0.05 < half.min() < half.max() < 0.11  # 8 px of zoom .5 to .75 in 64
    assert (np.abs(centre) + half).max() <= 0.5 + 1e-6
    tiles = torch.zeros(len(MANY), 64, 64, 3, dtype=torch.uint8)
    assert make_views(tiles, plan, local).shape == (1500, 3, 8, 8)
    assert local_spec(spec, 1).blur == (0.1, 0.5, 0.5)
    assert local_spec(dataclasses.replace(spec, blur=0.4), 1).blur == (0.4, 0.4, 0.4)


def test_local_views_of_no_stated_size_are_refused():
    with pytest.raises(ValueError, match=r"views.local.px is still auto"):
        local_spec(STILL)
