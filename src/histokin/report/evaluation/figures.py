"""Figures of an evaluation: reliability diagrams, few-shot curves, and all rows of one class on one track.

As in `report.figures`: drawings hold positions, words stand around them as HTML, everything is escaped by `tag`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from histokin.report import palette, wording
from histokin.report.comparison.figures import bounds
from histokin.report.document import Value
from histokin.report.evaluation.document import ReliabilityCurve, ShotCurve
from histokin.report.figures import SIDE, ForestAxis, Scale, place, swatch, tag, tick_label, ticks

_LARGEST, _SMALLEST = 15.0, 2.5  # radii of a bin's disc in px
_MARGIN = 5  # percent of a drawing's width that stays free on both sides of a curve


# ---- reliability


def reliability_diagram(curve: ReliabilityCurve, slot: palette.Slot) -> Markup:
    """Share right over mean certainty, a disc a bin with an area by its n; on the diagonal it is earned."""
    scale_x, scale_y = Scale(0, 1, 0, 100), Scale(0, 1, 100, 0)
    marks = _lines_across((0.0, 0.25, 0.5, 0.75, 1.0), scale_y)
    marks += tag("line", x1="0", x2="100%", y1="100%", y2="0", class_="diagonal")
    most = max((n for *_, n in curve.bins), default=1)
    words = []
    for certainty, right, n in sorted(curve.bins, key=lambda one: -one[2]):  # small discs stay on top of large ones
        radius = max(_SMALLEST, _LARGEST * math.sqrt(n / most))
        said = f"certainty {wording.number(certainty)}: {wording.number(right)} right of {n:,}"
        at = {"cx": _percent(scale_x(certainty)), "cy": _percent(scale_y(right)), "r": place(radius)}
        marks += tag("circle", tag("title", said), **at, class_=f"bin k{slot[0]}")
        words.append((certainty, said))
    label = f"Reliability of {curve.row}. " + ("; ".join(said for _, said in sorted(words)) or "no bin holds any")
    svg = tag("svg", marks, role="img", aria_label=label)
    ends = (0.0, 0.5, 1.0)
    below = [(tick_label(end), scale_x(end)) for end in ends]
    return _framed(swatch(slot) + tag("b", tag("bdi", curve.row)), _beside(ends, scale_y), svg, below, "certainty")


# ---- few-shot curves


def shot_chart(
    title: str, curves: Sequence[ShotCurve], chance: float | None, slots: Mapping[str, palette.Slot]
) -> Markup:
    """Medians over the logarithm of the number of shots with the band of 5 to 95 % of the episodes; chance dashed.

    Floors are faint and without their bands, which would cover those of the encoders.
    """
    drawn = [(curve, _finite(curve)) for curve in curves]
    drawn = [(curve, points) for curve, points in drawn if points]
    numbers = [m for _, points in drawn for _, m, _, _ in points] + ([chance] if chance is not None else [])
    numbers += [end for curve, points in drawn if curve.kind == "entry" for _, _, *ends in points for end in ends]
    if not drawn:
        return Markup("")
    low, high = bounds(numbers)
    span = (low, min(high, 1.0) if max(numbers) <= 1 else high)
    shots = sorted({n for _, points in drawn for n, *_ in points})
    scale_x = Scale(math.log2(shots[0]), math.log2(shots[-1]), _MARGIN, 100 - _MARGIN)
    scale_y = Scale(*span, 100, 0)
    grid = ticks(*span)
    marks, areas, words = _lines_across(grid, scale_y), Markup(""), []
    if chance is not None:
        y = _percent(scale_y(chance))
        marks += tag("line", x1="0", x2="100%", y1=y, y2=y, class_="chance")
    dots = Markup("")
    for curve, points in sorted(drawn, key=lambda pair: pair[0].kind == "entry"):  # encoders over the floors
        colour, shape = slots.get(curve.row, palette.NEUTRAL_SLOT)
        at = [(scale_x(math.log2(n)), scale_y(middle)) for n, middle, _, _ in points]
        if curve.kind == "entry":
            upper = [(x, scale_y(high)) for (x, _), (*_, high) in zip(at, points, strict=True)]
            lower = [(x, scale_y(low)) for (x, _), (_, _, low, _) in zip(at, points, strict=True)]
            areas += tag("polygon", points=_corners([*upper, *reversed(lower)]), class_=f"band k{colour}")
            style, dot = f"step k{colour}", {"href": f"#m{shape}", "class_": f"k{colour}"}
            dots += Markup("").join(tag("use", x=_percent(x), y=_percent(y), **dot) for x, y in at)
        else:
            style = "step floor"
            dots += Markup("").join(tag("circle", cx=_percent(x), cy=_percent(y), r=3, class_="hollow") for x, y in at)
        areas += tag("polyline", points=_corners(at), class_=style, fill="none")
        said = [f"{wording.number(m)} [{wording.number(a)}, {wording.number(b)}] at {n}" for n, m, a, b in points]
        words.append(f"{curve.row}: {', '.join(said)}")
    # The areas need corners in plain numbers, which the stretched inner drawing takes to the same percents.
    inner = tag("svg", areas, viewBox=f"0 0 {SIDE} {SIDE}", preserveAspectRatio="none", aria_hidden="true")
    label = f"{title}. {'; '.join(words)}"
    svg = tag("svg", tag("title", label) + marks + inner + dots, role="img", aria_label=label)
    below = [(f"{n:,}", scale_x(math.log2(n))) for n in shots]
    return _framed(tag("b", title), _beside(grid, scale_y), svg, below, "shots a class")


def _finite(curve: ShotCurve) -> list[tuple[int, float, float, float]]:
    return sorted(point for point in curve.points if point[0] > 0 and all(math.isfinite(n) for n in point))


def _corners(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{place(x * SIDE / 100)},{place(y * SIDE / 100)}" for x, y in points)


# ---- one track a class


@dataclass(frozen=True, slots=True)
class Dot:
    """One row's value on a track; `slot` None for floors, which are drawn hollow, faint and without interval."""

    name: str
    value: Value
    slot: palette.Slot | None


def dot_track(axis: ForestAxis, dots: Sequence[Dot], *, chance: float | None, label: str) -> Markup:
    """The values of all rows for one class or group, the encoders one below the other, floors on the middle line."""
    marks = Markup("").join(
        tag("line", x1=f"{x}%", x2=f"{x}%", y1="0", y2="100%", class_="grid") for _, x in axis.ticks
    )
    if wording.is_number(chance):
        x = _percent(axis.scale(chance or 0.0))
        marks += tag("line", x1=x, x2=x, y1="0", y2="100%", class_="chance")
    for dot in dots:
        if dot.slot is None and wording.is_number(dot.value.value):
            at = _percent(axis.scale(dot.value.value or 0.0))
            marks += tag("circle", tag("title", _said(dot)), cx=at, cy="50%", r=4, class_="hollow")
    named = [dot for dot in dots if dot.slot is not None]
    for index, dot in enumerate(named):
        y = _percent((index + 1) / (len(named) + 1) * 100)
        colour, shape = dot.slot or palette.NEUTRAL_SLOT
        if wording.is_number(dot.value.low) and wording.is_number(dot.value.high):
            ends = {"x1": axis.scale(dot.value.low or 0.0), "x2": axis.scale(dot.value.high or 0.0)}
            ends = {name: _percent(end) for name, end in ends.items()}
            marks += tag("line", **ends, y1=y, y2=y, class_=f"whisker k{colour}")
        if wording.is_number(dot.value.value):
            x = _percent(axis.scale(dot.value.value or 0.0))
            marks += tag("use", tag("title", _said(dot)), href=f"#m{shape}", x=x, y=y, class_=f"k{colour}")
    words = f"{label}. {'; '.join(_said(dot) for dot in dots)}"
    return tag("svg", marks, class_="track many", role="img", aria_label=words)


def _said(dot: Dot) -> str:
    return f"{dot.name}: {wording.number(dot.value.value)} {wording.interval(dot.value)}".strip()


# ---- shared


def _percent(value: float) -> str:
    return f"{place(value)}%"


def _lines_across(values: Sequence[float], scale: Scale) -> Markup:
    places = [_percent(scale(value)) for value in values]
    return Markup("").join(tag("line", x1="0", x2="100%", y1=y, y2=y, class_="grid") for y in places)


def _beside(values: Sequence[float], scale: Scale) -> Markup:
    return Markup("").join(tag("span", tick_label(v), style=f"top:{place(scale(v))}%") for v in values)


def _framed(caption: Markup, beside: Markup, svg: Markup, below: Sequence[tuple[str, float]], unit: str) -> Markup:
    ends = Markup("").join(tag("span", text, style=f"left:{place(x)}%") for text, x in below) + tag("i", unit)
    plot = tag("div", beside, class_="y-axis", aria_hidden="true") + tag("div", svg, class_="plot")
    under = tag("div", ends, class_="x-axis", aria_hidden="true")
    return tag("figure", tag("figcaption", caption) + plot + under, class_="chart trend")
