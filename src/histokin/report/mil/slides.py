"""From the document of slide classifiers to what its template lays out: each slide, its maps, tiles, the deletions."""

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from histokin.report import palette, wording
from histokin.report.comparison.figures import Trend, trend_chart
from histokin.report.comparison.verdicts import Standing, standing
from histokin.report.document import Value
from histokin.report.mil import figures, words
from histokin.report.mil.document import ContactSheet, Faithfulness, Heatmap, MilDocument, Prediction, SlideMaps
from histokin.report.search.figures import scale_bar

MOST_PREDICTIONS = 500
"""Rows of the table of slides; the page says how many more there are."""
_NAMED_OUTPUTS = 4  # more classes are told by their highest alone


# ---- slides


@dataclass(frozen=True, slots=True)
class PredictionRow:
    """A row of the table of slides; `anchor` leads to the slide's maps, "" where there are none."""

    prediction: Prediction
    anchor: str
    of_said: float | None
    of_truth: float | None
    bar: Markup


@dataclass(frozen=True, slots=True)
class PredictionTable:
    """What was told of each slide, the most surprising first."""

    rows: list[PredictionRow]
    columns: list[str]
    n_hidden: int
    n_wrong: int
    n_judged: int
    has_patient: bool
    has_site: bool
    has_fold: bool
    has_spread: bool


def prediction_table(document: MilDocument, slots: Mapping[str, palette.Slot]) -> PredictionTable:
    """Wrong ones first, the surest of them at the top; then right ones, the least sure first."""
    ordered = sorted(document.predictions, key=lambda one: (one.is_right is not False, -one.surprise))
    anchors = {
        (one.prediction.slide, one.prediction.fold): _slide_anchor(at) for at, one in enumerate(document.gallery)
    }
    is_classes = document.kind == "classes"
    rows = []
    for one in ordered[:MOST_PREDICTIONS]:
        label = f"{one.slide}: " + ", ".join(f"{name} {wording.percent(p)}" for name, p in one.told.items())
        rows.append(
            PredictionRow(
                one,
                anchors.get((one.slide, one.fold), ""),
                one.told.get(one.said) if is_classes else None,
                one.told.get(one.truth) if is_classes else None,
                figures.told_bar(one.told, slots, label) if is_classes else Markup(""),
            )
        )
    judged = [one for one in ordered if one.is_right is not None]
    return PredictionTable(
        rows,
        [] if is_classes else document.outputs,
        len(ordered) - len(rows),
        sum(not one.is_right for one in judged),
        len(judged),
        any(one.patient for one in ordered),
        any(one.site for one in ordered),
        any(one.fold for one in ordered),
        any(one.spread is not None for one in ordered),
    )


def _slide_anchor(at: int) -> str:
    return f"slide-{at + 1}"


@dataclass(frozen=True, slots=True)
class MapView:
    """One map with its legend."""

    heatmap: Heatmap
    name: str
    legend: Markup
    label: str


@dataclass(frozen=True, slots=True)
class SlideView:
    """A slide of the gallery; `picture` is the name by which its thumbnail is shown."""

    slide: SlideMaps
    anchor: str
    picture: str
    told: list[tuple[str, float, palette.Slot]]
    facts: list[str]
    scale_bar: Markup
    maps: list[MapView]


def shared_pictures(document: MilDocument) -> dict[bytes, str]:
    """Thumbnails, which stand beside and under each map, with the name by which they are shown."""
    images = dict.fromkeys(one.thumbnail for one in document.gallery)
    return {image: f"picture-{number}" for number, image in enumerate(images, start=1)}


def gallery(document: MilDocument, shared: Mapping[bytes, str], slots: Mapping[str, palette.Slot]) -> list[SlideView]:
    """The slides with their maps."""
    found = []
    for at, one in enumerate(document.gallery):
        told = sorted(one.prediction.told.items(), key=lambda item: -item[1])[:_NAMED_OUTPUTS]
        found.append(
            SlideView(
                one,
                _slide_anchor(at),
                shared[one.thumbnail],
                [(name, value, slots.get(name, palette.NEUTRAL_SLOT)) for name, value in told],
                _slide_facts(one),
                scale_bar(one.width * one.mpp if one.mpp else None),
                [_map_view(one, found_map) for found_map in one.maps],
            )
        )
    return found


def _slide_facts(one: SlideMaps) -> list[str]:
    n = one.prediction.n_tiles
    facts = [f"patient {one.prediction.patient}"] if one.prediction.patient else []
    facts += [f"fold {one.prediction.fold}"] if one.prediction.fold else []
    facts += [wording.counted(n, "tile")] if n else []
    if one.effective is not None:
        share = f", {wording.percent(one.effective / n)}" if n else ""
        facts.append(f"attention as on {wording.number(one.effective, 1)} tiles, exp(H){share}")
    facts += [f"{wording.counted(one.n_unplaced, 'tile')} without a place, not shown"] if one.n_unplaced else []
    return facts


def _map_view(one: SlideMaps, found: Heatmap) -> MapView:
    name = words.MAPS[found.kind][0]
    label = f"{one.prediction.slide}: {name}, {one.of}"
    return MapView(found, name, figures.legend(found, one.of), label)


def map_kinds(document: MilDocument) -> list[tuple[str, str]]:
    """Name and meaning of the maps that the gallery shows."""
    found = [words.MAPS[shown.kind] for one in document.gallery for shown in one.maps]
    return list(dict.fromkeys(found))


# ---- tiles and faithfulness


@dataclass(frozen=True, slots=True)
class SheetView:
    """A contact sheet: highest and lowest, in the colours of the class; scores that can be negative show their sign."""

    sheet: ContactSheet
    slot: palette.Slot
    n_slides: int
    is_signed: bool


def sheet_views(document: MilDocument, slots: Mapping[str, palette.Slot]) -> list[SheetView]:
    """The sheets of all classes."""
    return [
        SheetView(
            one,
            slots.get(one.of, palette.NEUTRAL_SLOT),
            len({tile.slide for tile in one.highest}),
            any(tile.score < 0 for tile in (*one.highest, *one.lowest)),
        )
        for one in document.sheets
    ]


@dataclass(frozen=True, slots=True)
class FallRow:
    """One share of the tiles deleted."""

    share: float
    top: Value
    random: Value
    lead: Value
    standing: Standing


@dataclass(frozen=True, slots=True)
class FaithfulnessView:
    """The fall of the probability over the share of tiles deleted, and what its interval allows to be said."""

    faithfulness: Faithfulness
    chart: Markup
    rows: list[FallRow]
    sentence: str


def faithfulness_views(document: MilDocument, rows: Mapping[str, palette.Slot]) -> list[FaithfulnessView]:
    """A chart a classifier and map."""
    found = []
    for one in document.faithfulness:
        top = [(100 * share, fall) for share, fall, _, _ in one.points]
        random = [(100 * share, fall) for share, _, fall, _ in one.points]
        trends = [
            Trend("top tiles", rows.get(one.row, palette.NEUTRAL_SLOT), top),
            Trend("random tiles", palette.NEUTRAL_SLOT, random),
        ]
        chart = trend_chart(
            "Fall of the probability", trends, chance=0.0, unit="% of the tiles deleted", place_word="% deleted"
        )
        told = [FallRow(share, a, b, lead, standing(lead)) for share, a, b, lead in one.points]
        held = [f"{row.share * 100:g} %" for row in told if row.standing == "above"]
        sentence = (
            f"Deleting what the map calls important hurts more than chance at {wording.joined(held)}."
            if held
            else "What the map calls important cannot be told from random tiles: do not read the map."
        )
        found.append(FaithfulnessView(one, chart, told, sentence))
    return found
