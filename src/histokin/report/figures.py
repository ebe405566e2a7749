"""Figures as inline SVG, from numbers to markup: line charts, forest plots, the scatter map, the prevalence bar.

Positions are all that SVG holds; words stand around it as HTML, so that they keep their size on a phone, wrap, and take
the page's colours. Every function is pure and returns safe markup; every text that comes from data is escaped by `tag`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from histokin.report import wording
from histokin.report.document import MetricRow, Value

SIDE = 1000  # width and height of a line chart's coordinate system, stretched to its box
MAP_WIDTH, MAP_HEIGHT, MAP_MARGIN = 1000, 720, 24
MAX_CURVE_POINTS = 600


def tag(name: str, content: str | Markup = "", **attributes: object) -> Markup:
    """An element with escaped attributes and content; `view_box_` style names become `view-box`."""
    parts = []
    for key, value in attributes.items():
        if value is None:
            continue
        word = key if key == "viewBox" or key.startswith("preserve") else key.rstrip("_").replace("_", "-")
        parts.append(Markup(' {}="{}"').format(word, value))
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("").join(parts), escape(content))  # noqa: S704


def place(value: float) -> str:
    """A coordinate with as many decimals as a screen can show; shorter pages, equal bytes everywhere."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def ticks(low: float, high: float, n: int = 4) -> list[float]:
    """About `n` round numbers (steps of 1, 2, 2.5 or 5) inside [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear axis from [low, high] to [start, stop]."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self.start + self.stop) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def tick_label(value: float) -> str:
    """A tick in the shortest form that is still exact to the eye: 1k, 0.25, 3e-04."""
    size = abs(value)
    if size >= 1_000_000:
        text = f"{value / 1_000_000:g}M"
    elif size >= 10_000:
        text = f"{value / 1000:g}k"
    elif size and size < 0.001:
        text = f"{value:.0e}".replace("e-0", "e-")
    else:
        text = f"{value:.4g}"
    return text.replace("-", "−") if "e" not in text else text


def series(rows: Sequence[dict[str, float]], name: str) -> list[tuple[float, float]]:
    """(step, value) of the rows that have both as finite numbers."""
    points = [(row.get("step"), row.get(name)) for row in rows]
    return [(float(x), float(y)) for x, y in points if wording.is_number(x) and wording.is_number(y)]  # pyright: ignore[reportArgumentType]


def thinned(points: list[tuple[float, float]], limit: int = MAX_CURVE_POINTS) -> list[tuple[float, float]]:
    """At most `limit` points: the lowest and highest of each run, so that a spike survives the thinning."""
    if len(points) <= limit:
        return points
    n_runs = limit // 2
    kept: list[tuple[float, float]] = []
    for run in range(n_runs):
        part = points[run * len(points) // n_runs : (run + 1) * len(points) // n_runs]
        lowest, highest = min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])
        kept.extend(sorted({lowest, highest}))
    return kept


def running_mean(points: list[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """Centred mean over `window` points, narrower at both ends: a guide for the eye beside the raw line."""
    half = window // 2
    sums = [0.0]
    for _, y in points:
        sums.append(sums[-1] + y)
    smooth = []
    for index, (x, _) in enumerate(points):
        reach = min(half, index, len(points) - 1 - index)
        low, high = index - reach, index + reach + 1
        smooth.append((x, (sums[high] - sums[low]) / (high - low)))
    return smooth


def line_chart(
    title: str,
    points: list[tuple[float, float]],
    *,
    note: str = "",
    ceiling: tuple[float, str] | None = None,
    is_smoothed: bool = False,
    style: str = "",
) -> Markup:
    """A curve over training steps with its last value in the caption.

    Args:
        title: what the curve shows.
        points: (step, value), finite, in order; at least one.
        note: a few words on how to read it.
        ceiling: a level worth knowing (value, name), drawn dashed.
        is_smoothed: draw the points faintly and their running mean on top.
        style: an extra class of the figure.
    """
    ys = [y for _, y in points] + ([ceiling[0]] if ceiling else [])
    x_scale = Scale(points[0][0], points[-1][0], 0, SIDE)
    pad = (max(ys) - min(ys)) * 0.07 or abs(ys[0]) * 0.1 or 1.0
    y_low, y_high = min(ys) - pad, max(ys) + pad
    if min(ys) >= 0 > y_low:
        y_low = 0.0
    y_scale = Scale(y_low, y_high, SIDE, 0)

    grid = ticks(y_low, y_high)
    marks = grid_lines(grid, y_scale)
    if ceiling:
        y = place(y_scale(ceiling[0]))
        marks += tag("line", x1=0, x2=SIDE, y1=y, y2=y, class_="ceiling")
    smooth = running_mean(points, max(3, len(points) // 20)) if is_smoothed and len(points) > 8 else None
    marks += polyline(points, x_scale, y_scale, "curve faint" if smooth else "curve")
    if smooth:
        marks += polyline(smooth, x_scale, y_scale, "curve")
    if len(points) == 1:  # a line needs two points; a single one is a dot
        x, y = place(x_scale(points[0][0])), place(y_scale(points[0][1]))
        marks += tag("line", x1=x, x2=x, y1=y, y2=y, class_="curve dot")

    first, last = points[0], points[-1]
    words = f"{title}: {wording.number(first[1])} at step {first[0]:g}, {wording.number(last[1])} at step {last[0]:g}"
    svg = drawing(words, marks)
    labels = value_labels(grid, y_scale)
    # The last ticks would stick out of the box or overlap on a phone: the two ends are enough, with a middle if round.
    steps = [first[0], last[0]] if last[0] > first[0] else [first[0]]
    below = Markup("").join(tag("span", tick_label(t)) for t in steps)
    if ceiling:
        labels += tag("em", ceiling[1], style=f"top:{place(y_scale(ceiling[0]) / SIDE * 100)}%")
    readout = " ".join(f"{place(x)},{y:.5g}" for x, y in thinned(smooth or points, 200))
    caption = tag("b", title) + tag("output", wording.number(last[1]), class_="now", data_last=wording.number(last[1]))
    if note:
        caption += tag("small", note)
    plot = tag("div", labels, class_="y-axis", aria_hidden="true") + tag("div", svg, class_="plot", data_points=readout)
    below = tag("div", below, class_="x-axis", aria_hidden="true")
    return tag("figure", tag("figcaption", caption) + plot + below, class_=f"chart {style}".strip())


def grid_lines(values: Sequence[float], y_scale: Scale) -> Markup:
    """A line across the drawing at each value."""
    places = [place(y_scale(value)) for value in values]
    return Markup("").join(tag("line", x1=0, x2=SIDE, y1=y, y2=y, class_="grid") for y in places)


def value_labels(values: Sequence[float], y_scale: Scale) -> Markup:
    """The values beside their lines; they stay texts of the page, which the drawing would stretch."""
    tops = [place(y_scale(value) / SIDE * 100) for value in values]
    return Markup("").join(tag("span", tick_label(v), style=f"top:{top}%") for v, top in zip(values, tops, strict=True))


def drawing(words: str, marks: Markup) -> Markup:
    """Marks as one drawing that fills its frame, described in words."""
    return tag(
        "svg",
        tag("title", words) + marks,
        viewBox=f"0 0 {SIDE} {SIDE}",
        preserveAspectRatio="none",
        role="img",
        aria_label=words,
    )


def polyline(points: list[tuple[float, float]], x_scale: Scale, y_scale: Scale, style: str) -> Markup:
    """Points as one line in user units, thinned to what a screen can show."""
    coordinates = " ".join(f"{place(x_scale(x))},{place(y_scale(y))}" for x, y in thinned(points))
    return tag("polyline", points=coordinates, class_=style, fill="none")


@dataclass(frozen=True, slots=True)
class ForestAxis:
    """The shared axis of a forest plot, in percent of the track's width."""

    scale: Scale
    chance: float | None

    @property
    def ticks(self) -> list[tuple[str, str]]:
        """(label, position in percent) of each tick."""
        return [(tick_label(t), place(self.scale(t))) for t in ticks(self.scale.low, self.scale.high, 5)]


def forest_axis(rows: Sequence[MetricRow], metric: str, chance: float | None) -> ForestAxis | None:
    """The axis on which all rows' values, intervals and the chance level find room; None without any value."""
    numbers = [chance] if wording.is_number(chance) else []
    for row in rows:
        value = row.values.get(metric)
        if value is not None:
            numbers += [n for n in (value.value, value.low, value.high) if wording.is_number(n)]
    known = [float(n) for n in numbers if n is not None]
    if not known:
        return None
    pad = (max(known) - min(known)) * 0.06 or 0.05
    low, high = min(known) - pad, max(known) + pad
    if min(known) >= 0 and max(known) <= 1:  # a share: an axis past 0 or 1 would promise what cannot be
        low, high = max(0.0, low), min(1.0, high)
    return ForestAxis(Scale(low, high, 1, 99), chance if wording.is_number(chance) else None)


def forest_track(
    axis: ForestAxis, value: Value | None, *, kind: str, label: str, reference: float | None = None
) -> Markup:
    """One row of a forest plot: interval as a bar, value as a mark (encoders filled, floors hollow), chance dashed.

    `reference` is a level that all rows are read against, drawn as a line through all tracks.
    """
    marks = Markup("").join(
        tag("line", x1=f"{x}%", x2=f"{x}%", y1="0", y2="100%", class_="grid") for _, x in axis.ticks
    )
    if axis.chance is not None:
        x = f"{place(axis.scale(axis.chance))}%"
        marks += tag("line", x1=x, x2=x, y1="0", y2="100%", class_="chance")
    if reference is not None:
        x = f"{place(axis.scale(reference))}%"
        marks += tag("line", x1=x, x2=x, y1="0", y2="100%", class_="reference")
    if value is not None and wording.is_number(value.low) and wording.is_number(value.high):
        low, high = axis.scale(value.low or 0.0), axis.scale(value.high or 0.0)
        marks += tag("line", x1=f"{place(low)}%", x2=f"{place(high)}%", y1="50%", y2="50%", class_="interval")
    if value is not None and value.value is not None and wording.is_number(value.value):
        marks += tag("circle", cx=f"{place(axis.scale(value.value))}%", cy="50%", r="6", class_="value")
    return tag("svg", tag("title", label) + marks, class_=f"track {kind}", role="img", aria_label=label)


@dataclass(frozen=True, slots=True)
class Colouring:
    """One way to colour the map: the names in legend order, which of them each point has, and their palette slots."""

    names: list[str]
    of: list[int]
    slots: list[tuple[int, int]]
    counts: list[int]


def scatter(x: Sequence[float], y: Sequence[float], colouring: Colouring, *, label: str) -> Markup:
    """The map's points as marks of the palette, both axes to the same scale so that distances can be compared.

    Points are drawn in the order given, not class by class: no class hides another by being last.
    """
    if not x:
        return Markup("")
    span_x, span_y = max(x) - min(x), max(y) - min(y)
    room_x, room_y = MAP_WIDTH - 2 * MAP_MARGIN, MAP_HEIGHT - 2 * MAP_MARGIN
    zoom = min(room_x / span_x if span_x else math.inf, room_y / span_y if span_y else math.inf)
    zoom = zoom if math.isfinite(zoom) else 1.0
    middle_x, middle_y = (max(x) + min(x)) / 2, (max(y) + min(y)) / 2
    points = Markup("").join(
        tag(
            "use",
            href=f"#m{colouring.slots[group][1]}",
            x=place(MAP_WIDTH / 2 + (px - middle_x) * zoom),
            y=place(MAP_HEIGHT / 2 - (py - middle_y) * zoom),  # y grows upwards on a map, downwards on a screen
            class_=f"k{colouring.slots[group][0]}",
        )
        for px, py, group in zip(x, y, colouring.of, strict=True)
    )
    return tag(
        "svg",
        tag("g", points, class_="points"),
        viewBox=f"0 0 {MAP_WIDTH} {MAP_HEIGHT}",
        class_="map",
        role="img",
        aria_label=label,
    )


# When the twelve colours are used up they come again with the next of these shapes (see `palette.slot`). The page holds
# the definitions once, for the map and for every swatch beside a name.
_SHAPES = (
    '<circle id="m0" r="5"/>',
    '<path id="m1" d="M-5-5h10v10h-10z"/>',
    '<path id="m2" d="M0-6.5 6.2 5h-12.4z"/>',
    '<path id="m3" d="M0-7 7 0 0 7-7 0z"/>',
)
MARKERS = Markup("<defs>{}</defs>").format(Markup("".join(_SHAPES)))  # noqa: S704


def swatch(slot: tuple[int, int]) -> Markup:
    """The mark of a palette slot, as it stands beside a name."""
    shape = tag("use", href=f"#m{slot[1]}", class_=f"k{slot[0]}")
    return tag("svg", shape, viewBox="-8 -8 16 16", class_="swatch", aria_hidden="true")


def share_bar(shares: Sequence[tuple[str, float, tuple[int, int]]], *, label: str) -> Markup:
    """Shares of a whole as one stacked bar; (name, share, palette slot) from left to right."""
    total = sum(share for _, share, _ in shares if wording.is_number(share)) or 1.0
    start, parts = 0.0, Markup("")
    for name, share, slot in shares:
        width = (share if wording.is_number(share) else 0.0) / total * 100
        part = tag("title", f"{name}: {wording.percent(share)}")
        parts += tag("rect", part, x=f"{place(start)}%", width=f"{place(width)}%", height="100%", class_=f"k{slot[0]}")
        start += width
    return tag("svg", parts, class_="shares", role="img", aria_label=label)
