"""Figures of slide classifiers: ROC and precision-recall curves, legends of maps, what was told as a bar.

As in `report.figures`: drawings hold positions, words stand around them as HTML, everything is escaped by `tag`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from histokin.report import palette, wording
from histokin.report.figures import SIDE, Scale, place, polyline, swatch, tag, tick_label
from histokin.report.mil.document import Heatmap
from histokin.report.mil.painting import gradient

_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
_ROOM = (25.0, 70.0)  # percent of a legend between which a word in its middle does not touch those at its ends
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class DrawnCurve:
    """One curve with its band (x, low, high) and the words beside its name."""

    name: str
    slot: palette.Slot
    points: Points
    band: Sequence[tuple[float, float, float]]
    words: str


def unit_chart(
    title: str, curves: Sequence[DrawnCurve], *, x_word: str, y_word: str, is_roc: bool, level: float | None = None
) -> Markup:
    """Curves in the unit square.

    Args:
        title: of the chart.
        curves: at least one.
        x_word, y_word: what the axes are.
        is_roc: draw the diagonal of chance.
        level: a level to compare with, such as the prevalence, drawn dashed.
    """
    scale_x, scale_y = Scale(0, 1, 0, SIDE), Scale(0, 1, SIDE, 0)
    lines = [place(scale_y(value)) for value in _TICKS]
    marks = Markup("").join(tag("line", x1=0, x2=SIDE, y1=y, y2=y, class_="grid") for y in lines)
    if is_roc:
        marks += tag("line", x1=0, x2=SIDE, y1=SIDE, y2=0, class_="chance")
    if level is not None:
        y = place(scale_y(level))
        marks += tag("line", x1=0, x2=SIDE, y1=y, y2=y, class_="chance")
    for curve in curves:
        upper = [(scale_x(x), scale_y(high)) for x, _, high in curve.band]
        lower = [(scale_x(x), scale_y(low)) for x, low, _ in reversed(curve.band)]
        if upper:
            corners = " ".join(f"{place(x)},{place(y)}" for x, y in [*upper, *lower])
            marks += tag("polygon", points=corners, class_=f"band k{curve.slot[0]}")
    for curve in curves:
        marks += polyline(list(curve.points), scale_x, scale_y, f"step k{curve.slot[0]}")
    label = f"{title}: {y_word} over {x_word}. {'; '.join(f'{c.name}: {c.words}' for c in curves)}"
    box = {"viewBox": f"0 0 {SIDE} {SIDE}", "preserveAspectRatio": "none"}
    svg = tag("svg", tag("title", label) + marks, **box, role="img", aria_label=label)
    beside = Markup("").join(tag("span", tick_label(v), style=f"top:{place(100 - 100 * v)}%") for v in _TICKS)
    below = Markup("").join(tag("span", tick_label(v), style=f"left:{place(100 * v)}%") for v in _TICKS)
    plot = tag("div", beside, class_="y-axis", aria_hidden="true") + tag("div", svg, class_="plot")
    under = tag("div", below + tag("i", x_word), class_="x-axis", aria_hidden="true")
    caption = tag("figcaption", tag("b", title) + tag("small", y_word))
    return tag("figure", caption + plot + under, class_="chart trend unit") + curve_legend(curves)


def curve_legend(curves: Sequence[DrawnCurve]) -> Markup:
    """The curves by name, with what they come to."""
    return tag(
        "ul",
        Markup("").join(
            tag("li", swatch(curve.slot) + tag("span", tag("bdi", curve.name) + " " + tag("small", curve.words)))
            for curve in curves
        ),
        class_="line-legend",
    )


def legend(one: Heatmap, of: str) -> Markup:
    """A map's colours with the values that stand at their ends, and its landmark: uniform attention, or none at all."""
    middle, words = _landmark(one)
    marks = tag("span", _end(one, one.low), class_="low") + tag("span", _end(one, one.high), class_="high")
    if middle is not None:
        at = f"left:{place(middle)}%"
        marks += tag("i", "", style=at)
        if _ROOM[0] <= middle <= _ROOM[1]:
            marks += tag("span", words, class_="at", style=at)
    sides = Markup("")
    if one.kind == "contribution":
        sides = tag("span", f"against {of}") + tag("span", f"for {of}")
        sides = tag("div", sides, class_="sides")
    bar = tag("div", "", class_="ramp", style=f"background:{gradient(one.kind)}")
    return tag("div", bar + tag("div", marks, class_="ends") + sides, class_="legend-bar")


def _landmark(one: Heatmap) -> tuple[float | None, str]:
    """Where on the scale, in percent, something is worth naming; None where it lies outside."""
    if one.kind == "contribution":
        return 50.0, "0"
    if one.kind == "relative" and one.low < 1 < one.high:
        return 100 * math.log(1 / one.low) / math.log(one.high / one.low), "1 uniform"
    return None, ""


def _end(one: Heatmap, value: float) -> str:
    if one.kind == "percentile":
        return f"{value:.0f} %"
    if one.kind == "relative":
        return f"{value:.2g} ×" if value < 10 else f"{value:,.0f} ×"
    return wording.signed(value, 2) if one.kind == "contribution" else wording.number(value, 2)


def told_bar(told: Mapping[str, float], slots: Mapping[str, palette.Slot], label: str) -> Markup:
    """Probabilities of classes as one bar from left to right, in the order of the classes."""
    start, parts = 0.0, Markup("")
    for name, p in told.items():
        width = 100 * p if wording.is_number(p) else 0.0
        colour = slots.get(name, palette.NEUTRAL_SLOT)[0]
        parts += tag("rect", x=f"{place(start)}%", width=f"{place(width)}%", height="100%", class_=f"k{colour}")
        start += width
    return tag("svg", parts, class_="told-bar", role="img", aria_label=label)
