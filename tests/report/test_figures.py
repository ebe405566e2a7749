import re

import pytest

from histokin.report import figures
from histokin.report.document import MetricRow, Value
from histokin.report.figures import Colouring, Scale

ROWS = [
    MetricRow("ours", "encoder", {"acc": Value(0.8, 0.7, 0.9)}),
    MetricRow("floor", "floor", {"acc": Value(0.5, 0.45, 0.55)}),
]


def percent(markup, name, style):
    match = re.search(rf'<\w+[^>]*\b{name}="([-\d.]+)%"[^>]*class="{style}"', markup)
    assert match, (name, style, markup)
    return float(match.group(1))


def test_forest_marks_stand_where_the_values_say():
    axis = figures.forest_axis(ROWS, "acc", 0.1)
    assert axis is not None
    tracks = [figures.forest_track(axis, row.values["acc"], kind=row.kind, label=row.name) for row in ROWS]
    for row, track in zip(ROWS, tracks, strict=True):
        value = row.values["acc"]
        assert percent(track, "cx", "value") == pytest.approx(axis.scale(value.value), abs=0.01)
        assert percent(track, "x1", "interval") == pytest.approx(axis.scale(value.low), abs=0.01)
        assert percent(track, "x2", "interval") == pytest.approx(axis.scale(value.high), abs=0.01)
        assert percent(track, "x1", "chance") == pytest.approx(axis.scale(0.1), abs=0.01)
    # Linear in the values, whatever the axis: chance to floor is 4 tenths, floor to ours 3.
    chance, floor, ours = percent(tracks[0], "x1", "chance"), *(percent(t, "cx", "value") for t in reversed(tracks))
    assert (ours - floor) / (floor - chance) == pytest.approx(3 / 4, abs=0.01)
    assert 0 <= chance < floor < ours <= 100


def test_the_forest_axis_of_shares_stays_between_zero_and_one():
    axis = figures.forest_axis([MetricRow("a", "encoder", {"acc": Value(1.0, 0.0, 1.0)})], "acc", None)
    assert axis is not None
    assert (axis.scale.low, axis.scale.high) == (0.0, 1.0)


def test_a_value_without_interval_or_number_draws_what_there_is():
    axis = figures.forest_axis(ROWS, "acc", None)
    assert axis is not None
    alone = figures.forest_track(axis, Value(0.6), kind="floor", label="")
    assert 'class="value"' in alone
    assert 'class="interval"' not in alone
    assert 'class="value"' not in figures.forest_track(axis, Value(None, note="one class"), kind="floor", label="")
    assert figures.forest_axis([MetricRow("a", "floor", {})], "acc", None) is None


def test_ticks_are_round_and_inside():
    assert figures.ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert figures.ticks(3.1, 9.2, 3) == pytest.approx([5.0, 7.5])  # steps of 2.5
    assert figures.ticks(2, 2) == [2]


def polyline(markup, style="curve"):
    match = re.search(rf'<polyline points="([^"]+)" class="{style}"', markup)
    assert match, markup
    return [tuple(float(number) for number in pair.split(",")) for pair in match.group(1).split()]


def test_a_curve_goes_through_its_points():
    drawn = polyline(figures.line_chart("loss", [(0, 1.0), (5, 3.0), (10, 2.0)]))
    (x0, y0), (x1, y1), (x2, y2) = drawn
    assert (x0, x1, x2) == (0, 500, 1000)
    assert (y0 - y1) / (y2 - y1) == pytest.approx(2.0, abs=0.01)  # down is up on a screen
    assert y1 < y2 < y0


def test_a_long_curve_is_thinned_but_keeps_its_spike():
    points = [(float(step), 1.0) for step in range(5000)]
    points[3333] = (3333.0, 99.0)
    kept = figures.thinned(points)
    assert len(kept) <= figures.MAX_CURVE_POINTS
    assert (3333.0, 99.0) in kept
    assert kept == sorted(kept)


def test_the_running_mean_is_the_mean_of_its_window():
    points = [(float(x), float(x * x)) for x in range(7)]
    assert figures.running_mean(points, 3) == [
        (x, pytest.approx(y)) for (x, _), y in zip(points, [0, 5 / 3, 14 / 3, 29 / 3, 50 / 3, 77 / 3, 36], strict=True)
    ]


def test_a_series_leaves_out_rows_without_a_finite_number():
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3}, {"step": 4, "loss": 1.0}]
    assert figures.series(rows, "loss") == [(1.0, 2.0), (4.0, 1.0)]


def test_one_point_and_a_constant_curve_can_be_drawn():
    assert "curve dot" in figures.line_chart("loss", [(10, 0.5)])
    heights = {y for _, y in polyline(figures.line_chart("loss", [(0, 2.0), (1, 2.0)]))}
    assert len(heights) == 1


def test_the_map_keeps_distances_comparable_on_both_axes():
    colouring = Colouring(["a"], [0, 0, 0], [(0, 0)], [3])
    svg = figures.scatter([0, 10, 0], [0, 0, 10], colouring, label="map")
    places = [(float(x), float(y)) for x, y in re.findall(r'x="([-\d.]+)" y="([-\d.]+)"', svg)]
    (ax, ay), (bx, by), (cx, cy) = places
    assert bx - ax == pytest.approx(ay - cy)
    assert (ay, ax) == (by, cx)
    assert all(0 < x < figures.MAP_WIDTH and 0 < y < figures.MAP_HEIGHT for x, y in places)


def test_the_map_of_one_place_and_of_none_can_be_drawn():
    assert 'x="500" y="360"' in figures.scatter([3.0], [4.0], Colouring(["a"], [0], [(0, 0)], [1]), label="")
    assert figures.scatter([], [], Colouring([], [], [], []), label="") == ""


def test_shares_fill_the_bar():
    bar = figures.share_bar([("a", 0.75, (0, 0)), ("b", 0.25, (1, 0))], label="")
    assert re.findall(r'x="([\d.]+)%" width="([\d.]+)%"', bar) == [("0", "75"), ("75", "25")]


def test_texts_are_escaped_in_content_and_attributes():
    made = figures.tag("b", '<i>"', title='"><script>')
    assert made == '<b title="&#34;&gt;&lt;script&gt;">&lt;i&gt;&#34;</b>'


@pytest.mark.parametrize(("value", "text"), [(0.0, "0"), (-0.001, "0"), (100.0, "100"), (0.5, "0.5"), (-2.25, "-2.25")])
def test_coordinates_are_short(value, text):
    assert figures.place(value) == text


def test_a_scale_of_one_value_puts_it_in_the_middle():
    assert Scale(2, 2, 0, 100)(2) == 50
