"""Colour of tissue: measured as CIELAB defines it, moved to a target, and white left white."""

import cv2
import numpy as np
import pytest

from histokin.tissue.colour import TARGET, TISSUE_FROM, LabStatistics, lab_statistics, normalise_lab

XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])


def lab_of(rgb):
    """CIELAB of one colour from its definition: (3,) 0..255 to (3,) float64."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.asarray(rgb) / 255]
    roots = [t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in XYZ @ linear / XYZ.sum(1)]
    return np.array([116 * roots[1] - 16, 500 * (roots[0] - roots[1]), 200 * (roots[1] - roots[2])])


def stained(seed, mean=(62, 30, -18), std=(9, 6, 5), n=2, px=48):
    """(n, px, px, 3) uint8 noise of a given staining, all of it tissue."""
    rng = np.random.default_rng(seed)
    lab = rng.normal(mean, std, (n * px, px, 3)).clip(
        np.array(mean) - 2 * np.array(std), np.array(mean) + 2 * np.array(std)
    )
    return (
        np.round(cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_Lab2RGB) * 255).astype(np.uint8).reshape(n, px, px, 3)
    )


@pytest.mark.parametrize(
    ("rgb", "expected"),
    [((255, 0, 0), (53.24, 80.09, 67.20)), ((0, 0, 255), (32.30, 79.19, -107.86)), ((0, 0, 0), (0, 0, 0))],
)
def test_one_colour_has_its_published_lab_and_no_spread(rgb, expected):
    found = lab_statistics(np.full((1, 4, 4, 3), rgb, np.uint8))
    np.testing.assert_allclose(found.mean, expected, atol=0.05)
    np.testing.assert_allclose(found.std, 0, atol=1e-3)


def test_statistics_equal_a_slow_loop_over_the_pixels_of_all_tiles():
    tiles = np.random.default_rng(0).integers(120, 256, (3, 12, 12, 3), dtype=np.uint8)
    lab = np.array([lab_of(rgb) for rgb in tiles.reshape(-1, 3)])
    tissue = lab[np.linalg.norm(lab - [100, 0, 0], axis=1) >= TISSUE_FROM]
    assert 0.5 < len(tissue) / len(lab) < 0.99  # both kinds occur
    found = lab_statistics(tiles)
    np.testing.assert_allclose(found.mean, tissue.mean(0), atol=0.02)
    np.testing.assert_allclose(found.std, tissue.std(0), atol=0.02)


def test_glass_and_how_much_of_it_does_not_count():
    tiles = stained(0)
    glass = np.full_like(tiles, 240)
    alone, among = lab_statistics(tiles), lab_statistics(np.concatenate([tiles, glass, glass]))
    np.testing.assert_allclose(among.mean, alone.mean, atol=1e-9)
    np.testing.assert_allclose(among.std, alone.std, atol=1e-9)


def test_pale_pink_is_tissue_and_grey_glass_is_not():
    assert lab_statistics(np.full((1, 2, 2, 3), (245, 215, 230), np.uint8)).is_known
    assert not lab_statistics(np.full((1, 2, 2, 3), 222, np.uint8)).is_known


@pytest.mark.parametrize("tiles", [np.empty((0, 8, 8, 3), np.uint8), np.full((2, 8, 8, 3), 250, np.uint8)])
def test_without_tissue_nothing_is_known_and_nothing_changed(tiles):
    have = lab_statistics(tiles)
    assert not have.is_known
    np.testing.assert_array_equal(normalise_lab(tiles, have, TARGET), tiles)


def test_normalised_tissue_has_the_targets_statistics():
    tiles = stained(1)
    want = LabStatistics(np.array([55.0, 22.0, -25.0]), np.array([7.0, 5.0, 6.5]))
    found = lab_statistics(normalise_lab(tiles, lab_statistics(tiles), want))
    np.testing.assert_allclose(found.mean, want.mean, atol=0.1)
    np.testing.assert_allclose(found.std, want.std, atol=0.15)


def test_a_pixel_of_tissue_moves_by_reinhards_formula():
    tiles = stained(2)
    have = lab_statistics(tiles)
    want = LabStatistics(np.array([55.0, 22.0, -25.0]), np.array([7.0, 5.0, 6.5]))
    found = normalise_lab(tiles, have, want)
    for at in [(0, 3, 4), (1, 40, 7), (1, 0, 47)]:
        expected = (lab_of(tiles[at]) - have.mean) * want.std / have.std + want.mean
        np.testing.assert_allclose(lab_of(found[at]), expected, atol=0.6)  # uint8


def test_normalising_to_what_it_is_changes_nothing():
    tiles = stained(3)
    have = lab_statistics(tiles)
    assert np.abs(normalise_lab(tiles, have, have).astype(int) - tiles).max() <= 1


def test_normalising_twice_is_normalising_once():
    tiles = stained(4, mean=(70, 20, -10))
    want = LabStatistics(np.array([60.0, 26, -18]), np.array([8.0, 6, 5]))  # no colour is cut off
    once = normalise_lab(tiles, lab_statistics(tiles), want)
    twice = normalise_lab(once, lab_statistics(once), want)
    assert np.abs(twice.astype(int) - once).max() <= 1


def test_two_stainings_of_one_tissue_become_alike():
    first = stained(5)
    second = normalise_lab(first, lab_statistics(first), LabStatistics(np.array([70.0, 18, -8]), np.array([7.0, 4, 4])))
    apart = np.abs(first.astype(int) - second).mean()
    together = [normalise_lab(t, lab_statistics(t), TARGET).astype(int) for t in (first, second)]
    assert apart > 10
    assert np.abs(together[0] - together[1]).mean() < 2


def test_white_stays_white_beside_tissue_of_another_colour():
    tiles = stained(6, n=1)
    tiles[0, :10], tiles[0, 10:20] = 255, 245
    found = normalise_lab(tiles, lab_statistics(tiles), LabStatistics(np.array([40.0, 50, -40]), np.array([5.0, 5, 5])))
    assert (found[0, :10] == 255).all()
    assert (found[0, 10:20] == 245).all()
    assert np.abs(found[0, 20:].astype(int) - tiles[0, 20:]).mean() > 30


def test_from_white_to_pink_there_is_no_edge():
    share = np.linspace(0, 1, 400)[:, None]
    ramp = np.round(255 * (1 - share) + np.array([200, 90, 160]) * share).astype(np.uint8)[None, None]
    have = LabStatistics(np.array([60.0, 35, -15]), np.array([12.0, 10, 8]))
    found = normalise_lab(ramp, have, LabStatistics(np.array([50.0, 25, -25]), np.array([14.0, 8, 8])))[0, 0]
    assert np.abs(np.diff(found.astype(int), axis=0)).max() <= 6


def test_a_flat_channel_is_not_spread_to_noise():
    grey = np.random.default_rng(0).integers(60, 180, (1, 16, 16, 1), dtype=np.uint8).repeat(3, 3)
    found = normalise_lab(grey, lab_statistics(grey), TARGET)
    assert lab_statistics(found).std[1:].max() < 1


def test_a_cut_out_of_a_larger_picture_is_normalised_like_its_copy():
    large = stained(7, n=1, px=64)
    cut = large[:, 5:37, 9:41][:, :, ::-1]
    have = lab_statistics(large)
    np.testing.assert_array_equal(normalise_lab(cut, have, TARGET), normalise_lab(cut.copy(), have, TARGET))
    assert lab_statistics(cut).mean == pytest.approx(lab_statistics(cut.copy()).mean)
