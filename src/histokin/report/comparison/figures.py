"""Figures of a comparison: a curve among all others, and values with intervals along one axis."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from histokin.report import palette, wording
from histokin.report.document import Value
from histokin.report.figures import (
    SIDE,
    Scale,
    drawing,
    grid_lines,
    place,
    polyline,
    tag,
    tick_label,
    ticks,
    value_labels,
)

Points = list[tuple[float, float]]
_LOG_FROM = 3.0  # an axis whose ends differ by more than this factor is logarithmic
_DODGE = 0.9  # percent of the width between lines at one place, so that their intervals do not hide each other


def bounds(values: Sequence[float]) -> tuple[float, float]:
    """The axis on which all values find room; never below 0 if none of them is."""
    low, high = min(values), max(values)
    pad = (high - low) * 0.07 or abs(high) * 0.1 or 1.0
    return (max(0.0, low - pad) if low >= 0 else low - pad), high + pad


def shared_chart(
    title: str, own: Points, others: Sequence[Points], *, span: tuple[float, float], steps: tuple[float, float]
) -> Markup:
    """A curve over training steps, drawn over the faint curves of all others on axes that all charts share.

    Args:
        title: what the curve shows.
        own: (step, value) in order; [] draws the others alone.
        others: curves of the other entries.
        span: ends of the value axis.
        steps: ends of the step axis.
    """
    x_scale, y_scale = Scale(*steps, 0, SIDE), Scale(*span, SIDE, 0)
    grid = ticks(*span)
    marks = grid_lines(grid, y_scale)
    for points in others:
        marks += _curve(points, x_scale, y_scale, "curve other")
    marks += _curve(own, x_scale, y_scale, "curve")
    last = wording.number(own[-1][1]) if own else wording.MISSING
    words = (
        f"{title}: {wording.number(own[0][1])} at step {own[0][0]:g}, {last} at step {own[-1][0]:g}" if own else title
    )
    svg = drawing(words, marks)
    labels = value_labels(grid, y_scale)
    below = Markup("").join(tag("span", tick_label(t)) for t in dict.fromkeys(steps))
    return _framed(title, last, labels, svg, below)


def _curve(points: Points, x_scale: Scale, y_scale: Scale, style: str) -> Markup:
    if len(points) != 1:
        return polyline(points, x_scale, y_scale, style) if points else Markup("")
    x, y = place(x_scale(points[0][0])), place(y_scale(points[0][1]))
    return tag("line", x1=x, x2=x, y1=y, y2=y, class_=f"{style} dot")


def _framed(title: str, beside: str, labels: Markup, svg: Markup, below: Markup, style: str = "") -> Markup:
    caption = tag("b", title) + (tag("output", beside, class_="now") if beside else Markup(""))
    plot = tag("div", labels, class_="y-axis", aria_hidden="true") + tag("div", svg, class_="plot")
    return tag(
        "figure",
        tag("figcaption", caption) + plot + tag("div", below, class_="x-axis", aria_hidden="true"),
        class_=f"chart {style}".strip(),
    )


@dataclass(frozen=True, slots=True)
class Trend:
    """One line of a trend chart; `is_floor` draws it hollow and dashed, without its intervals."""

    name: str
    slot: palette.Slot
    points: list[tuple[float, Value]]
    is_floor: bool = False


def trend_axis(places: Sequence[float]) -> Scale:
    """From places on the axis to percent of its width; logarithmic (of the place's log) where ends lie far apart."""
    low, high = min(places), max(places)
    if is_logarithmic(places):
        return Scale(math.log(low), math.log(high), 5, 95)
    return Scale(low, high, 5, 95)


def is_logarithmic(places: Sequence[float]) -> bool:
    """Whether the axis of these places is."""
    return min(places) > 0 and max(places) / min(places) > _LOG_FROM


def trend_chart(title: str, trends: Sequence[Trend], *, chance: float | None, unit: str, place_word: str) -> Markup:
    """Values with their intervals along an axis, a line each; chance is dashed.

    Args:
        title: the metric.
        trends: at least one with a point that has a value.
        chance: a level of the value axis.
        unit: of the axis, under it.
        place_word: the unit in the spoken description.
    """
    places = sorted({x for trend in trends for x, _ in trend.points})
    numbers = [n for t in trends for _, v in t.points for n in _drawn(v, t) if n is not None and math.isfinite(n)]
    span = bounds([*numbers, *([chance] if chance is not None else [])])
    y_scale, axis = Scale(*span, 100, 0), trend_axis(places)
    is_log = is_logarithmic(places)
    grid = ticks(*span)
    marks = Markup("").join(
        tag("line", x1="0", x2="100%", y1=f"{place(y_scale(t))}%", y2=f"{place(y_scale(t))}%", class_="grid")
        for t in grid
    )
    if chance is not None:
        y = f"{place(y_scale(chance))}%"
        marks += tag("line", x1="0", x2="100%", y1=y, y2=y, class_="chance")
    words = []
    lines = [trend for trend in trends if not trend.is_floor]
    for trend in trends:
        shift = 0.0 if trend.is_floor else (lines.index(trend) - (len(lines) - 1) / 2) * _DODGE
        at = [(axis(math.log(x) if is_log else x) + shift, v) for x, v in trend.points if wording.is_number(v.value)]
        marks += _trend(trend, at, y_scale)
        said = [f"{wording.number(v.value)} {wording.interval(v)} at {x:g} {place_word}" for x, v in trend.points]
        words.append(f"{trend.name}: {', '.join(said)}")
    svg = tag("svg", tag("title", "; ".join(words)) + marks, role="img", aria_label=f"{title}. {'; '.join(words)}")
    labels = Markup("").join(tag("span", tick_label(t), style=f"top:{place(y_scale(t))}%") for t in grid)
    below = Markup("").join(
        tag("span", f"{x:,g}", style=f"left:{place(axis(math.log(x) if is_log else x))}%") for x in places
    )
    return _framed(title, "", labels, svg, below + tag("i", unit), "trend")


def _drawn(value: Value, trend: Trend) -> tuple[float | None, ...]:
    return (value.value,) if trend.is_floor else (value.value, value.low, value.high)


def _trend(trend: Trend, at: list[tuple[float, Value]], y_scale: Scale) -> Markup:
    colour = f"k{trend.slot[0]}"
    marks = Markup("")
    for (x1, first), (x2, second) in itertools.pairwise(at):
        marks += tag(
            "line",
            x1=f"{place(x1)}%",
            x2=f"{place(x2)}%",
            y1=f"{place(y_scale(first.value or 0.0))}%",
            y2=f"{place(y_scale(second.value or 0.0))}%",
            class_=f"step {'floor' if trend.is_floor else colour}",
        )
    for x, value in at:
        y = f"{place(y_scale(value.value or 0.0))}%"
        if not trend.is_floor and wording.is_number(value.low) and wording.is_number(value.high):
            low, high = y_scale(value.low or 0.0), y_scale(value.high or 0.0)
            span = {"y1": f"{place(low)}%", "y2": f"{place(high)}%"}
            marks += tag("line", x1=f"{place(x)}%", x2=f"{place(x)}%", **span, class_=f"whisker {colour}")
        if trend.is_floor:
            marks += tag("circle", cx=f"{place(x)}%", cy=y, r=4, class_="hollow")
        else:
            marks += tag("use", href=f"#m{trend.slot[1]}", x=f"{place(x)}%", y=y, class_=colour)
    return marks
