import math
import re

import pytest

from histokin.report import ReliabilityCurve, ShotCurve, Value
from histokin.report.document import MetricRow
from histokin.report.evaluation.figures import Dot, dot_track, reliability_diagram, shot_chart
from histokin.report.figures import forest_axis

SLOTS = {"a": (3, 1), "b": (5, 2)}


def marks(markup, pattern):
    return [tuple(float(part) for part in found.groups()) for found in re.finditer(pattern, markup)]


def test_a_reliability_bin_stands_at_its_certainty_and_share_with_an_area_by_its_n():
    curve = ReliabilityCurve("a", [(0.25, 0.5, 100), (0.75, 0.6, 400)], 0.1, None, None, None)
    drawn = reliability_diagram(curve, (3, 1))
    (large, small) = marks(drawn, r'<circle cx="([\d.]+)%" cy="([\d.]+)%" r="([\d.]+)" class="bin k3"')
    assert large[:2] == (75.0, 40.0)
    assert small[:2] == (25.0, 50.0)
    assert (large[2] / small[2]) ** 2 == pytest.approx(4)
    assert "Reliability of a. certainty 0.250: 0.500 right of 100; certainty 0.750: 0.600 right of 400" in drawn
    assert 'x1="0" x2="100%" y1="100%" y2="0" class="diagonal"' in drawn


def test_a_reliability_curve_without_bins_is_drawn_empty():
    drawn = reliability_diagram(ReliabilityCurve("a", [], None, None, None, None), (0, 0))
    assert "no bin holds any" in drawn
    assert "<circle" not in drawn


def test_few_shot_curves_are_logarithmic_in_shots_with_a_band_of_the_encoders_alone():
    curves = [
        ShotCurve("a", "entry", [(4, 0.6, 0.5, 0.7), (1, 0.4, 0.2, 0.6), (16, 0.8, 0.75, 0.85)]),
        ShotCurve("floor", "floor", [(1, 0.3, 0.1, 0.9), (16, 0.5, 0.4, 0.6)]),
    ]
    drawn = shot_chart("Median", curves, 0.25, SLOTS)
    points = marks(drawn, r'<use x="([\d.]+)%" y="([\d.]+)%" href="#m1" class="k3"')
    assert [x for x, _ in points] == pytest.approx([5, 50, 95])  # 1, 4, 16
    (y1, y4, y16) = (y for _, y in points)
    assert y1 - y4 == pytest.approx(y4 - y16, abs=0.02)  # steps of 0.2
    (chance,) = marks(drawn, r'y1="([\d.]+)%" y2="[\d.]+%" class="chance"')
    assert (chance[0] - y1) / (y1 - y4) == pytest.approx(0.15 / 0.2, abs=0.01)
    (band,) = re.findall(r'<polygon points="([^"]+)" class="band k3"', drawn)
    corners = [tuple(float(n) for n in corner.split(",")) for corner in band.split()]
    assert len(corners) == 6
    unit = (y1 - y4) / 0.2 * 10  # thousandths of the drawing a unit of the metric
    assert corners[0][1] == pytest.approx(y1 * 10 - 0.2 * unit, abs=0.2)  # 0.6, the upper end at one shot
    assert corners[-1][1] == pytest.approx(y1 * 10 + 0.2 * unit, abs=0.2)  # 0.2, the lower
    assert drawn.count("<polygon") == 1
    assert drawn.count('class="hollow"') == 2
    assert drawn.index('class="step floor"') < drawn.index('class="step k3"')  # encoders over the floors
    assert "a: 0.400 [0.200, 0.600] at 1, 0.600 [0.500, 0.700] at 4" in drawn


def test_what_is_no_number_is_not_drawn_and_no_curve_is_no_chart():
    curves = [ShotCurve("a", "entry", [(1, math.nan, 0.1, 0.2), (2, 0.5, 0.4, 0.6)])]
    assert shot_chart("Median", curves, None, SLOTS).count("<use ") == 1
    assert shot_chart("Median", [ShotCurve("a", "entry", [(1, math.nan, 0, 0)])], None, SLOTS) == ""
    assert shot_chart("Median", [], 0.5, SLOTS) == ""


def test_all_rows_of_a_class_share_one_axis_and_encoders_do_not_hide_each_other():
    dots = [
        Dot("a", Value(0.6, 0.5, 0.7), (3, 1)),
        Dot("b", Value(0.6), (5, 2)),
        Dot("c", Value(None, note="2 patients"), (6, 3)),
        Dot("colour", Value(0.2, 0.1, 0.3), None),
    ]
    axis = forest_axis([MetricRow(d.name, "class", {"": d.value}) for d in dots], "", 0.1)
    assert axis is not None
    drawn = dot_track(axis, dots, chance=0.15, label="tumour")
    ((xa, ya),) = marks(drawn, r'href="#m1" x="([\d.]+)%" y="([\d.]+)%" class="k3"')
    ((xb, yb),) = marks(drawn, r'href="#m2" x="([\d.]+)%" y="([\d.]+)%" class="k5"')
    assert xa == xb == pytest.approx(axis.scale(0.6), abs=0.01)
    assert (ya, yb) == (25.0, 50.0)
    assert 'class="k6"' not in drawn
    assert marks(drawn, r'<line x1="([\d.]+)%" x2="([\d.]+)%" y1="25%" y2="25%" class="whisker k3"') == [
        (pytest.approx(axis.scale(0.5), abs=0.01), pytest.approx(axis.scale(0.7), abs=0.01))
    ]
    assert drawn.count("whisker") == 1
    assert marks(drawn, r'cx="([\d.]+)%" cy="50%" r="4" class="hollow"') == [
        (pytest.approx(axis.scale(0.2), abs=0.01),)
    ]
    assert marks(drawn, r'x1="([\d.]+)%" x2="[\d.]+%" y1="0" y2="100%" class="chance"') == [
        (pytest.approx(axis.scale(0.15), abs=0.01),)
    ]
    assert 'aria-label="tumour. a: 0.600 [0.500, 0.700]; b: 0.600; c: –; colour: 0.200 [0.100, 0.300]"' in drawn
