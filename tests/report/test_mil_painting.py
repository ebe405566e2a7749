import io
import math
import re

import numpy as np
import pytest
from PIL import Image

from histokin.report.mil.document import Heatmap
from histokin.report.mil.painting import COLOURS, ValueScale, colour_table, gradient, heatmap, paint, paint_over
from histokin.report.palette import luminance

SCALES = [ValueScale.percentile(), ValueScale.relative(0.01, 30), ValueScale.contribution(0.4), ValueScale.tile()]


def pixels(png):
    return np.array(Image.open(io.BytesIO(png)).convert("RGBA"))


def css_colour(kind, at):
    """The colour that a browser shows at a share of the gradient's width."""
    stops = [
        [int(colour[place : place + 2], 16) for place in (0, 2, 4)]
        for colour in re.findall(r"#(\w{6})", gradient(kind))
    ]
    place = at * (len(stops) - 1)
    first = min(int(place), len(stops) - 2)
    share = place - first
    return [a + share * (b - a) for a, b in zip(stops[first], stops[first + 1], strict=True)]


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.kind)
def test_a_tile_has_the_colour_that_its_value_has_in_the_legend(scale):
    at = np.linspace(0, 1, 12)
    values = scale.low * (scale.high / scale.low) ** at if scale.is_log else scale.low + at * (scale.high - scale.low)
    found = pixels(paint(values[None], scale))[0]
    assert (found[:, 3] == 255).all()
    for pixel, share in zip(found[:, :3], at, strict=True):
        assert np.abs(pixel - css_colour(scale.kind, share)).max() <= 2


@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: scale.kind)
def test_where_there_is_no_tile_the_map_is_clear(scale):
    field = np.full((6, 8), np.nan)
    field[2, 3], field[5, 0] = scale.low, scale.high
    alpha = pixels(paint(field, scale))[..., 3]
    assert {tuple(place) for place in np.argwhere(alpha == 255).tolist()} == {(2, 3), (5, 0)}
    assert set(np.unique(alpha)) == {0, 255}


def test_values_beyond_the_ends_take_the_colour_of_the_end():
    scale = ValueScale.contribution(1.0)
    found = pixels(paint(np.array([[-9.0, -1.0, 1.0, 9.0]]), scale))[0]
    assert (found[0] == found[1]).all()
    assert (found[2] == found[3]).all()
    logarithmic = ValueScale.relative(0.5, 2.0)
    found = pixels(paint(np.array([[0.0, 0.5, 2.0, 99.0]]), logarithmic))[0]
    assert (found[0] == found[1]).all()
    assert (found[2] == found[3]).all()


def test_uniform_attention_lies_where_its_logarithm_does():
    assert ValueScale.relative(0.01, 100)(np.array([1.0, 10.0])) == pytest.approx([0.5, 0.75])
    assert ValueScale.relative(0.5, 8)(np.array([1.0])) == pytest.approx([math.log(2) / math.log(16)])
    assert ValueScale.contribution(2)(np.array([0.0, np.nan])) == pytest.approx([0.5, np.nan], nan_ok=True)
    assert ValueScale.relative(1, 1)(np.array([1.0, 3.0])).tolist() == [0.5, 0.5]  # a mean's even attention


def test_rising_scales_rise_in_lightness_and_the_signed_one_is_lightest_at_zero():
    for kind in COLOURS:
        light = [luminance("#" + bytes(colour).hex()) for colour in colour_table(kind).tolist()]
        steps = np.diff(light)
        if kind == "contribution":
            assert (steps[:127] > -1e-3).all()
            assert (steps[127:] < 1e-3).all()
        else:
            assert (steps > -1e-3).all()


def test_over_the_slide_tiles_are_mixed_with_its_grey_and_all_else_is_left_alone():
    rng = np.random.default_rng(0)
    thumbnail = rng.integers(0, 255, (4, 5, 3), dtype=np.uint8)
    field = np.full((4, 5), np.nan)
    field[1, 2] = 100.0
    scale = ValueScale.percentile()
    found = pixels(paint_over(field, scale, thumbnail, strength=0.6))[..., :3]
    grey = float(thumbnail[1, 2] @ np.array([0.299, 0.587, 0.114]))
    assert np.abs(found[1, 2] - (0.6 * np.array(css_colour("percentile", 1.0)) + 0.4 * grey)).max() <= 1
    found[1, 2] = thumbnail[1, 2]
    assert (found == thumbnail).all()


def test_a_map_for_the_page_knows_its_scale_and_is_small_where_tiles_are_large():
    field = np.kron(np.random.default_rng(1).random((20, 30)), np.ones((16, 16)))
    found = heatmap(field, ValueScale.tile())
    assert found == Heatmap("tile", paint(field, ValueScale.tile()), 0.0, 1.0)
    assert len(found.image) < field.size / 20


def unknown_map(kind):
    return Heatmap(kind, b"", 0, 1)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: ValueScale.relative(0, 1), "a log scale needs an end > 0"),
        (lambda: ValueScale("tile", 1, 0), "low <= high"),
        (lambda: ValueScale("tile", 0, math.nan), "finite ends"),
        (lambda: paint_over(np.ones((2, 2)), ValueScale.tile(), np.zeros((2, 3, 3), np.uint8)), "thumbnail of shape"),
        (lambda: unknown_map("warmth"), "unknown kind 'warmth'"),
    ],
)
def test_what_cannot_be_painted_is_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()
