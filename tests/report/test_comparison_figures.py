import re

import pytest

from histokin.report import Value
from histokin.report.comparison.figures import Trend, bounds, shared_chart, trend_axis, trend_chart


def test_bounds_hold_all_values_and_stay_above_zero_where_they_are():
    low, high = bounds([0.01, 1.0])
    assert low == 0.0
    assert high > 1.0
    assert bounds([-1.0, 1.0])[0] < -1.0
    low, high = bounds([2.0])
    assert low < 2.0 < high


def test_places_far_apart_are_on_a_logarithmic_axis():
    from math import log

    axis = trend_axis([10, 100, 1000])
    assert axis(log(100)) == pytest.approx(50)
    assert trend_axis([0.5, 1.0])(0.75) == pytest.approx(50)


def _marks(chart, pattern):
    return [tuple(float(v) for v in found.groups()) for found in re.finditer(pattern, chart)]


def test_a_trend_stands_where_its_values_say_with_the_interval_around_it():
    points = [(10.0, Value(0.2, 0.1, 0.4)), (20.0, Value(0.6, 0.5, 0.7))]
    chart = trend_chart("Acc", [Trend("a", (3, 1), points)], chance=0.2, unit="tiles", place_word="tiles")
    (x1, y1), (x2, y2) = _marks(chart, r'<use href="#m1" x="([\d.]+)%" y="([\d.]+)%" class="k3"')
    assert (x1, x2) == (5.0, 95.0)
    (chance,) = _marks(chart, r'y1="([\d.]+)%" y2="[\d.]+%" class="chance"')
    assert chance == pytest.approx((y1,))
    whiskers = _marks(chart, r'y1="([\d.]+)%" y2="([\d.]+)%" class="whisker k3"')
    assert (whiskers[0][0] - y1) / (y1 - y2) == pytest.approx(0.25, abs=0.01)  # 0.1 of 0.4
    assert (y1 - whiskers[0][1]) / (y1 - y2) == pytest.approx(0.5, abs=0.01)
    assert "0.200 [0.100, 0.400] at 10 tiles" in chart


def test_a_value_without_interval_has_no_whisker_and_one_without_number_no_mark():
    points = [(1.0, Value(0.2)), (2.0, Value(None)), (3.0, Value(0.3))]
    chart = trend_chart("Acc", [Trend("a", (0, 0), points)], chance=None, unit="", place_word="")
    assert chart.count("<use ") == 2
    assert "whisker" not in chart


def test_lines_at_one_place_do_not_hide_each_other():
    trends = [Trend(name, (i, 0), [(1.0, Value(0.5)), (2.0, Value(0.5))]) for i, name in enumerate("ab")]
    chart = trend_chart("Acc", trends, chance=None, unit="", place_word="")
    (first,), (second,) = (_marks(chart, rf' x="([\d.]+)%" y="[\d.]+%" class="k{i}"')[0] for i in (0, 1))
    assert second - first == pytest.approx(0.9)


def test_a_curve_is_drawn_over_the_others_on_the_given_axes():
    chart = shared_chart(
        "Rank", [(0.0, 0.0), (10.0, 10.0)], [[(0.0, 5.0), (10.0, 5.0)], [(5.0, 1.0)]], span=(0, 10), steps=(0, 10)
    )
    assert '<polyline points="0,1000 1000,0" class="curve"' in chart
    assert '<polyline points="0,500 1000,500" class="curve other"' in chart
    assert 'class="curve other dot"' in chart
    assert chart.index('class="curve other"') < chart.index('class="curve"')


def test_an_entry_without_a_look_shows_the_others_alone():
    chart = shared_chart("Rank", [], [[(0.0, 5.0), (10.0, 5.0)]], span=(0, 10), steps=(0, 10))
    assert chart.count("<polyline") == 1
    assert "–" in chart
