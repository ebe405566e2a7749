"""Stains of slides: measured on strided tiles, taken out of the pixels, drawn from by slide."""

import dataclasses

import numpy as np
import pytest

from histokin.learn.pixels import ArrayPixels
from histokin.learn.stains import NormalisedPixels, Stains, StainTemplates, fit_stains, fit_templates
from histokin.tissue.colour import TARGET, LabStatistics, lab_statistics, normalise_lab

SLIDES = np.array([3, 0, 0, 3, 1, 0, 3, 0, 3, 3, 0, 3])


class Watched(ArrayPixels):
    """Keeps the rows it was asked for."""

    def __init__(self, tiles, slides):
        super().__init__(tiles, 1.0, slides)
        self.asked = []

    def read(self, rows):
        self.asked.append(np.asarray(rows).tolist())
        return super().read(rows)


@pytest.fixture
def pixels():
    """12 tiles of slides 0, 1 and 3, each slide of its own colour; slide 1 is empty glass, slide 2 has no tile."""
    rng = np.random.default_rng(0)
    colours = np.array([[190, 120, 170], [250, 250, 250], [0, 0, 0], [150, 100, 190]])
    noise = rng.normal(0, 12, (12, 16, 16, 3)) * (SLIDES != 1)[:, None, None, None]
    return Watched(np.clip(colours[SLIDES][:, None, None] + noise, 0, 255).astype(np.uint8), SLIDES)


def test_each_slide_is_measured_on_its_own_tiles(pixels):
    stains = fit_stains(pixels)
    for slide in (0, 3):
        expected = lab_statistics(pixels.tiles[slide == SLIDES])
        np.testing.assert_allclose(stains.of(slide).mean, expected.mean)
        np.testing.assert_allclose(stains.of(slide).std, expected.std)


def test_slides_without_tissue_or_without_tiles_are_unknown(pixels):
    stains = fit_stains(pixels)
    assert stains.mean.shape == stains.std.shape == (4, 3)
    assert stains.is_known.tolist() == [True, False, False, True]
    assert not stains.of(1).is_known


def test_the_tiles_measured_are_spread_over_the_slide(pixels):
    fit_stains(pixels, per_slide=2)
    # Slide 0 has rows 1 2 5 7 10, slide 3 rows 0 3 6 8 9 11: the middles of the halves.
    assert pixels.asked == [[2, 7], [4], [3, 9]]
    pixels.asked.clear()
    fit_stains(pixels, per_slide=100)
    assert pixels.asked == [[1, 2, 5, 7, 10], [4], [0, 3, 6, 8, 9, 11]]


def test_no_tiles_a_slide_are_refused(pixels):
    with pytest.raises(ValueError, match="per_slide must be >= 1, got 0"):
        fit_stains(pixels, per_slide=0)


def test_a_source_without_tiles_has_no_stains():
    nothing = ArrayPixels(np.empty((0, 8, 8, 3), np.uint8), 1.0)
    assert fit_stains(nothing).mean.shape == (0, 3)
    assert len(NormalisedPixels(nothing, fit_stains(nothing)).read(np.empty(0, np.int64))) == 0


def test_every_tile_is_normalised_by_its_own_slide_in_any_order(pixels):
    stains = fit_stains(pixels)
    normalised = NormalisedPixels(pixels, stains)
    rows = np.array([8, 1, 4, 0, 8])
    found = normalised.read(rows)
    for tile, row in zip(found, rows, strict=True):
        expected = normalise_lab(pixels.tiles[row][None], stains.of(SLIDES[row]), TARGET)[0]
        np.testing.assert_array_equal(tile, expected)
    np.testing.assert_array_equal(found[2], pixels.tiles[4])  # glass


def test_normalised_slides_look_alike(pixels):
    normalised = NormalisedPixels(pixels, fit_stains(pixels))
    first, second = (fit_stains(normalised).of(slide) for slide in (0, 3))
    np.testing.assert_allclose(first.mean, second.mean, atol=1.5)
    assert np.abs(fit_stains(pixels).of(0).mean - fit_stains(pixels).of(3).mean).max() > 10


def test_normalised_pixels_know_all_their_source_knows(pixels):
    normalised = NormalisedPixels(pixels, fit_stains(pixels))
    for name in ("px", "field_px", "mpp", "slides", "cohorts", "places", "labels"):
        assert getattr(normalised, name) is getattr(pixels, name)
    assert len(normalised) == 12


def test_the_digest_names_source_statistics_and_target(pixels):
    stains = fit_stains(pixels)
    other = LabStatistics(TARGET.mean + np.array([0, 0, 1e-9]), TARGET.std)
    wider = dataclasses.replace(stains, std=stains.std + 1e-9)
    shorter = ArrayPixels(pixels.tiles[:-1], 1.0, SLIDES[:-1])
    digests = [
        NormalisedPixels(*given).digest
        for given in [(pixels, stains), (pixels, stains, other), (pixels, wider), (shorter, stains)]
    ]
    assert len({*digests, pixels.digest}) == 5
    assert NormalisedPixels(pixels, fit_stains(pixels)).digest == digests[0]


def test_stains_of_too_few_slides_are_refused(pixels):
    with pytest.raises(ValueError, match="stains of 3 slides, tiles of slide 3"):
        NormalisedPixels(pixels, Stains(np.zeros((3, 3)), np.ones((3, 3))))


def test_templates_count_slides_and_leave_out_the_unknown():
    mean = np.array([[60.0, 30, -20], [np.nan] * 3, [70, 20, -10]])
    std = np.array([[10.0, 8, 6], [np.nan] * 3, [14, 8, 4]])
    templates = fit_templates(Stains(mean, std))
    np.testing.assert_allclose(templates.mean_mu, [65, 25, -15])
    np.testing.assert_allclose(templates.mean_sigma, [5, 5, 5])
    np.testing.assert_allclose(templates.std_mu, [12, 8, 5])
    np.testing.assert_allclose(templates.std_sigma, [2, 0, 1])


def test_templates_of_no_slide_are_refused():
    with pytest.raises(ValueError, match="no slide has tissue"):
        fit_templates(Stains(np.full((2, 3), np.nan), np.full((2, 3), np.nan)))


def test_draws_scale_the_spread_over_slides_and_never_turn_a_picture_inside_out():
    templates = StainTemplates(np.array([60.0, 30, -20]), np.array([5.0, 4, 3]), np.full(3, 10.0), np.full(3, 2.0))
    normal = np.array([[[1.0, 0, -1], [1, 0, -100]]])
    found = templates.draw(normal, 1.5)
    np.testing.assert_allclose(found[0, 0], [67.5, 30, -24.5])
    np.testing.assert_allclose(found[0, 1], [13, 10, 1])  # the last is a tenth of the mean spread
    np.testing.assert_allclose(templates.draw(normal * 0, 1.5)[0], [templates.mean_mu, templates.std_mu])
