"""Drawings over pictures: where tissue lies on its slide, how much each place carried, and how long a micrometre is.

Coordinates are level-0 pixels, so that a box is drawn as it is stored. Pictures that stand in several places are on the
page once and are shown by reference.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from markupsafe import Markup

from histokin.report.document import SlideCard
from histokin.report.figures import place, tag
from histokin.report.search.document import Pair
from histokin.report.search.words import length
from histokin.report.views import data_uri
from histokin.search.region import Box

_SMALLEST = 0.045  # a mark's least size, as a share of the drawing's longer side: a tile is a dot on a slide
_NUMBER = 0.075  # height of a number over the picture, likewise
_BAR = 0.34  # a scale bar is at most this share of the picture's width


def definitions(shared: Mapping[bytes, str]) -> Markup:
    """The pictures shown by reference, each one unit wide and high."""
    return Markup("").join(
        tag("image", id=name, width=1, height=1, preserveAspectRatio="none", href=data_uri(image))
        for image, name in shared.items()
    )


def shown(name: str, label: str) -> Markup:
    """A shared picture as a square."""
    return drawing(Box(0, 0, 1, 1), name, Markup(""), label, "shared")


def place_on_slide(card: SlideCard, name: str, boxes: Sequence[Box], label: str) -> Markup:
    """The slide's thumbnail with each place outlined, or ringed where it would be too small to see."""
    area = Box(0, 0, card.width, card.height)
    least = _SMALLEST * max(area.w, area.h)
    rings = Markup("")
    for box in boxes:
        if max(box.w, box.h) > 2 * least:
            rings += _outlined("rect", x=box.x, y=box.y, width=box.w, height=box.h)
        else:
            rings += _outlined("circle", cx=place(box.x + box.w / 2), cy=place(box.y + box.h / 2), r=place(least))
    return drawing(area, name, rings, label, "on-slide")


def heat(area: Box, name: str, shares: Mapping[Box, float], label: str, links: Mapping[Box, tuple[str, str]]) -> Markup:
    """The query's picture with each of its tiles as opaque as its share is large; the largest is fully so.

    Args:
        area: what the picture shows.
        name: of the shared picture.
        shares: by place.
        label: in words.
        links: by place the (anchor, short text) of its pair.
    """
    most = max(shares.values(), default=0) or 1.0
    least = _SMALLEST * max(area.w, area.h)
    marks = Markup("")
    for box, share in sorted(shares.items(), key=lambda item: item[1]):
        grown = _grown(box, least)
        at = dict(zip(("x", "y", "width", "height"), map(place, grown), strict=True))
        strength = f"--share:{place(max(0.0, share) / most)}"
        mark = tag("rect", class_="warmth", style=strength, **at) + tag("rect", class_="edge", style=strength, **at)
        if box in links:
            anchor, text = links[box]
            middle = {"x": place(box.x + box.w / 2), "y": place(box.y + box.h / 2)}
            mark += tag("text", text, style=f"font-size:{place(_NUMBER * max(area.w, area.h))}px", **middle)
            mark = tag("a", mark, href=f"#{anchor}", aria_label=f"pair {text}")
        marks += mark
    # With links inside, the drawing is a group of things to reach; without any it is one picture.
    return drawing(area, name, marks, label, "heat", role="group" if links else "img")


def field_outline(area: Box, box: Box) -> Markup:
    """The outline of a box inside a wider field."""
    marks = _outlined("rect", x=box.x, y=box.y, width=box.w, height=box.h)
    view = f"{area.x} {area.y} {area.w} {area.h}"
    return tag("svg", marks, viewBox=view, preserveAspectRatio="none", class_="outline", aria_hidden="true")


def scale_bar(width_um: float | None) -> Markup:
    """A bar of a round length; nothing where the scale is unknown, since a guess would mislead."""
    if width_um is None or width_um <= 0:
        return Markup("")
    most = _BAR * width_um
    power = 10.0 ** math.floor(math.log10(most))
    um = next(factor * power for factor in (5, 2, 1) if factor * power <= most * (1 + 1e-9))
    return tag("span", tag("i", length(um)), class_="scale-bar", style=f"width:{place(100 * um / width_um)}%")


def share_row(pairs: Iterable[tuple[Pair, int]]) -> Markup:
    """The shares of all pairs as one strip, those without a number faint; what no pair carried stays empty."""
    parts, start = Markup(""), 0.0
    for pair, number in pairs:
        width = max(0.0, pair.share) * 100
        part = tag("title", f"pair {number}: {pair.share * 100:.0f} %" if number else f"{pair.share * 100:.1f} %")
        at = {"x": f"{place(start)}%", "width": f"{place(width)}%", "height": "100%"}
        parts += tag("rect", part, class_="shown" if number else "more", **at)
        start += width
    return tag("svg", parts, class_="strip", aria_hidden="true")


def drawing(area: Box, name: str, marks: Markup, label: str, style: str, role: str = "img") -> Markup:
    """The shared picture called `name` over an area, with marks on it."""
    picture = tag("use", href=f"#{name}", transform=f"translate({area.x} {area.y}) scale({area.w} {area.h})")
    view = f"{area.x} {area.y} {area.w} {area.h}"
    return tag("svg", picture + marks, viewBox=view, class_=style, role=role, aria_label=label)


def _outlined(shape: str, **attributes: object) -> Markup:
    """A bright line on a dark one: one of them stands out from any stain."""
    return tag(shape, "", class_="halo", **attributes) + tag(shape, "", class_="ring", **attributes)


def _grown(box: Box, least: float) -> tuple[float, float, float, float]:
    """A box no side of which is below `least`, about its middle."""
    w, h = max(box.w, least), max(box.h, least)
    return box.x + (box.w - w) / 2, box.y + (box.h - h) / 2, w, h
