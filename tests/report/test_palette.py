from itertools import combinations

import numpy as np
import pytest

from histokin.report import palette

# Machado et al. 2009, severity 1.0, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


def oklab(colour, sight):
    rgb = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(SIGHT[sight]) @ linear, 0, 1)
    cones = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]]) @ seen
    to_lab = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    return to_lab @ np.cbrt(cones)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("ground", ["page", "panel", "well"])
def test_every_colour_has_three_to_one_on_every_ground_of_both_themes(theme, ground):
    background = palette.THEME[ground][theme]
    ratios = {
        pair[theme]: palette.contrast(pair[theme], background) for pair in (*palette.CATEGORICAL, palette.NEUTRAL)
    }
    assert min(ratios.values()) >= 3, ratios


@pytest.mark.parametrize("theme", [0, 1])
def test_text_reaches_the_aa_contrast(theme):
    grounds = dict.fromkeys(("text", "muted", "accent", "eosin"), ("page", "panel", "well", "accent-tint")) | {
        f"{name}-text": (f"{name}-tint", "panel") for name in ("good", "bad", "warn")
    }
    for ink, papers in grounds.items():
        for paper in papers:
            ratio = palette.contrast(palette.THEME[ink][theme], palette.THEME[paper][theme])
            assert ratio >= 4.5, (ink, paper, ratio)


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize("sight", SIGHT)
def test_the_twelve_colours_differ_for_every_kind_of_sight(theme, sight):
    # 0.02 is about the smallest difference people notice (OKLab); tritanopia is rare, so it was weighted less.
    least = 0.03 if sight == "tritanopia" else 0.05
    seen = [oklab(pair[theme], sight) for pair in palette.CATEGORICAL]
    distance, *pair = min((float(np.linalg.norm(a - b)), i, j) for (i, a), (j, b) in combinations(enumerate(seen), 2))
    assert distance >= least, pair


def test_contrast_is_that_of_wcag():
    assert palette.contrast("#000000", "#ffffff") == pytest.approx(21)
    assert palette.contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_colours_repeat_with_another_shape_so_that_48_names_stay_distinct():
    slots = [palette.slot(index) for index in range(48)]
    assert len(set(slots)) == 48
    assert [shape for _, shape in slots[:12]] == [0] * 12
    assert slots[12] == (0, 1)


def test_assignment_depends_on_the_names_alone():
    assert palette.assign(["b", "a", "a"]) == palette.assign(["a", "b"])
    assert palette.assign(["", "a"])[""] == palette.NEUTRAL_SLOT
    assert palette.assign(["", "a"])["a"] == palette.slot(0)


def test_both_themes_define_the_same_variables():
    css = palette.theme_css()
    assert css.count("--k11:") == css.count("--page:") == 4  # light, dark by system, dark by switch, print
