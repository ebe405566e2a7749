"""What each section shows, in which order and words: from the document's parts to what the templates lay out.

Choosing and formatting only: the best floor is looked up, long lists are cut and what was cut is counted, but no number
is computed here that is not in the document.
"""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from histokin.report import figures, palette, wording
from histokin.report.document import (
    CohortSection,
    EvaluationSection,
    MapSection,
    MetricRow,
    MetricTable,
    ReportDocument,
    SlideCard,
    TrainingSection,
    Value,
)

MAX_CARDS = 60
MAX_MAP_POINTS = 3000
MONITOR_NOTES = {
    "feature_std": "near 0: collapsed",
    "rank": "dimensions in use",
    "alignment": "lower: views closer",
    "uniformity": "lower: more spread",
}
_CHANCE = "chance"


def data_uri(image: bytes) -> str:
    """A JPEG or PNG as a `data:` address.

    Raises:
        ValueError: the bytes are neither; an SVG, for one, could carry a script.
    """
    kind = "jpeg" if image[:3] == b"\xff\xd8\xff" else "png" if image[:8] == b"\x89PNG\r\n\x1a\n" else None
    if kind is None:
        raise ValueError(f"pictures in a report are JPEG or PNG, these {len(image)} bytes begin with {image[:4]!r}")
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"


def class_slots(document: ReportDocument) -> dict[str, palette.Slot]:
    """One palette slot a class, over everything on the page that names classes."""
    names: set[str] = set()
    if document.embedding_map:
        names |= set(document.embedding_map.class_)
    for table in tables_of(document.evaluation):
        names |= set(table.prevalence)
    if document.search:
        for example in document.search.examples:
            names |= {picture.label for picture in (example.query, *example.hits)}
    return palette.assign(names)


def any_judged(document: ReportDocument) -> bool:
    """Whether any neighbour is marked right or wrong, so that the page explains the marks only where they stand."""
    examples = document.search.examples if document.search else []
    return any(hit.is_right is not None for example in examples for hit in example.hits)


# ---- header


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One of the large figures under the title."""

    name: str
    value: str
    beside: str = ""
    detail: str = ""
    is_headline: bool = False


def best_floor(table: MetricTable) -> tuple[MetricRow, Value] | None:
    """The floor with the highest headline value."""
    metric = table.headline_metric
    known = [(row, row.values[metric]) for row in table.rows if row.kind == "floor" and metric in row.values]
    known = [(row, value) for row, value in known if wording.is_number(value.value)]
    return max(known, key=lambda pair: pair[1].value or 0.0, default=None)


def summary(document: ReportDocument) -> str:
    """The whole report in one or two sentences."""
    cohort, training = document.cohort, document.training
    usable = f"all {cohort.n_slides}" if cohort.n_usable == cohort.n_slides > 1 else f"{cohort.n_usable}"
    of = "" if cohort.n_usable == cohort.n_slides else f" of {cohort.n_slides:,}"
    if cohort.n_slides == 1 == cohort.n_usable:
        usable = "1"
    patients = wording.counted(cohort.n_patients, "patient") if cohort.n_patients else "unknown patients"
    text = (
        f"{wording.counted(cohort.n_tiles, 'tile')} of {cohort.tile} from {usable}{of} "
        f"slide{'' if cohort.n_slides == 1 else 's'} of {patients}"
    )
    if training:
        text += f"; {training.backbone} trained with {training.method} for {wording.counted(training.steps, 'step')}"
    return text + "."


def key_figures(document: ReportDocument) -> list[KeyFigure]:
    """Slides, patients, tiles, and how good the encoder is."""
    cohort = document.cohort
    n_out = cohort.n_slides - cohort.n_usable
    found = [
        KeyFigure(
            "slides usable",
            f"{cohort.n_usable:,} of {cohort.n_slides:,}",
            detail=f"{n_out:,} left out, reasons below" if n_out else "none left out",
        ),
        KeyFigure("patients", wording.count(cohort.n_patients) if cohort.n_patients else "unknown"),
        KeyFigure("tiles", wording.count(cohort.n_tiles), detail=cohort.tile),
    ]
    headline = headline_figure(document.evaluation)
    return found + ([headline] if headline else [])


def headline_figure(evaluation: EvaluationSection | None) -> KeyFigure | None:
    """The first table's headline metric with its interval, against the best floor."""
    for table in tables_of(evaluation):
        metric = table.headline_metric
        value = table.trained.values.get(metric) if table.trained else None
        if value is None or not wording.is_number(value.value):
            continue
        floor = best_floor(table)
        against = f"best floor: {wording.number(floor[1].value)} ({floor[0].name})" if floor else ""
        if floor and floor[0].delta and wording.is_number(floor[0].delta.value):
            against += (
                f", difference {wording.signed(floor[0].delta.value)} {wording.interval(floor[0].delta)}".rstrip()
            )
        return KeyFigure(
            f"{wording.metric(metric)}, {table.title}",
            wording.number(value.value),
            wording.interval(value),
            against,
            is_headline=True,
        )
    for measure in evaluation.label_free if evaluation else []:
        if wording.is_number(measure.value):
            return KeyFigure(
                measure.name, wording.number(measure.value), detail="measured without labels", is_headline=True
            )
    return None


# ---- slides


@dataclass(frozen=True, slots=True)
class SlideList:
    """The cards that are shown, what was left out, and the filters with their counts."""

    cards: list[tuple[SlideCard, str]]
    n_hidden: int
    filters: list[tuple[str, str, int]]
    left_out: str


def slide_tone(card: SlideCard) -> str:
    """How a card's badge looks: good, warn (used with a remark) or bad (not used)."""
    return "good" if card.state == "ok" else "warn" if card.is_usable else "bad"


def slide_list(cohort: CohortSection) -> SlideList:
    """The first sixty slides and all that could not be used: a long cohort must not hide its failures."""
    shown = [card for index, card in enumerate(cohort.slides) if index < MAX_CARDS or not card.is_usable]
    states = Counter(card.state for card in shown)
    filters = [("all", "all", len(shown))]
    if len(states) > 1:
        order = sorted(states, key=lambda name: (name != "ok", -states[name], name))
        filters += [(name, wording.state(name), states[name]) for name in order]
    unusable = Counter(wording.state(card.state) for card in cohort.slides if not card.is_usable)
    ordered = sorted(unusable.items(), key=lambda item: (-item[1], item[0]))
    left_out = ", ".join(f"{word} ({n})" for word, n in ordered)
    return SlideList([(card, slide_tone(card)) for card in shown], len(cohort.slides) - len(shown), filters, left_out)


# ---- training


def training_figures(training: TrainingSection) -> dict[str, Any]:
    """A chart for every series that was logged, and the recipe as flat rows."""
    charts = []
    loss = figures.series(training.curve, "loss")
    if loss:
        charts.append(
            figures.line_chart(
                "Loss", loss, note="every logged step, and its running mean", is_smoothed=True, style="large"
            )
        )
    rate = figures.series(training.curve, "lr")
    if rate:
        charts.append(figures.line_chart("Learning rate", rate))
    for name, note in MONITOR_NOTES.items():
        points = figures.series(training.monitors, name)
        if not points:
            continue
        ceiling = (float(training.embed_dim), f"{training.embed_dim} dims") if name == "rank" else None
        # A ceiling far above would press the curve flat on the floor; then the words alone must do.
        is_far = ceiling is not None and max(y for _, y in points) < 0.25 * ceiling[0]
        words = f"{note}, of {training.embed_dim}" if is_far else note
        title = wording.measure(name).capitalize()
        charts.append(figures.line_chart(title, points, note=words, ceiling=None if is_far else ceiling))
    return {"charts": charts, "recipe": flat(training.recipe)}


def flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """A nested mapping as rows of dotted names: `loss.temperature`, 0.2."""
    rows: list[tuple[str, str]] = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            rows += flat(item, f"{prefix}{key}.")
        else:
            text = item if isinstance(item, str) else json.dumps(item, ensure_ascii=False, default=str)
            rows.append((f"{prefix}{key}", text))
    return rows


# ---- metrics


@dataclass(frozen=True, slots=True)
class RowView:
    """A row of a metric table, with its track in the forest plot."""

    row: MetricRow
    is_trained: bool
    track: Markup | None


@dataclass(frozen=True, slots=True)
class TableView:
    """A metric table ready to be laid out."""

    table: MetricTable
    headline: str
    metrics: list[str]
    rows: list[RowView]
    axis: figures.ForestAxis | None
    prevalence: list[tuple[str, float, palette.Slot]]
    prevalence_bar: Markup
    class_rows: list[RowView]
    class_metrics: list[str]
    class_axis: figures.ForestAxis | None
    has_deltas: bool


def table_view(table: MetricTable, classes: dict[str, palette.Slot]) -> TableView:
    """Lay out one table: its rows (with chance as the last one), forest plots and prevalence."""
    headline = table.headline_metric
    rows = list(table.rows)
    if table.chance and not any(row.kind == _CHANCE for row in rows):
        rows.append(MetricRow(_CHANCE, _CHANCE, {name: Value(value) for name, value in table.chance.items()}))
    chance = table.chance.get(headline)
    axis = figures.forest_axis(rows, headline, chance)
    class_metrics = list(dict.fromkeys(name for row in table.per_class for name in row.values))
    class_headline = headline if headline in class_metrics else next(iter(class_metrics), "")
    class_axis = figures.forest_axis(table.per_class, class_headline, None)
    # Largest first: the share of the most frequent class is itself a floor worth seeing.
    shares = sorted(table.prevalence.items(), key=lambda item: (-item[1], item[0]))
    prevalence = [(name, share, classes[name]) for name, share in shares]
    words = "Prevalence: " + ", ".join(f"{name} {wording.percent(share)}" for name, share in shares)
    return TableView(
        table=table,
        headline=headline,
        metrics=[headline, *(name for name in table.metrics if name != headline)] if headline else table.metrics,
        rows=[_row_view(row, axis, headline, is_trained=row is table.trained) for row in rows],
        axis=axis,
        prevalence=prevalence,
        prevalence_bar=figures.share_bar(prevalence, label=words) if prevalence else Markup(""),
        class_rows=[_row_view(row, class_axis, class_headline, is_trained=False) for row in table.per_class],
        class_metrics=class_metrics,
        class_axis=class_axis,
        has_deltas=any(row.delta is not None for row in rows),
    )


def _row_view(row: MetricRow, axis: figures.ForestAxis | None, metric: str, *, is_trained: bool) -> RowView:
    if axis is None:
        return RowView(row, is_trained, None)
    value = row.values.get(metric)
    words = f"{row.name}: {wording.metric(metric)} {wording.number(value.value if value else None)}"
    if value and wording.interval(value):
        words += f" {wording.interval(value)}"
    kind = "trained" if is_trained else row.kind
    return RowView(row, is_trained, figures.forest_track(axis, value, kind=kind, label=words))


def tables_of(evaluation: EvaluationSection | None) -> list[MetricTable]:
    """The tables of an evaluation, if there is one."""
    return evaluation.tables if evaluation else []


# ---- map


@dataclass(frozen=True, slots=True)
class MapView:
    """The map's picture, its three colourings, and what the script needs to switch between them."""

    section: MapSection
    svg: Markup
    colourings: dict[str, figures.Colouring]
    payload: Markup
    n_shown: int
    n_thinned: int
    n_unplaced: int


def map_view(section: MapSection, classes: dict[str, palette.Slot]) -> MapView:
    """Draw the map; points without finite coordinates are counted, and beyond 3000 every n-th is shown."""
    placed = [i for i in range(len(section.x)) if wording.is_number(section.x[i]) and wording.is_number(section.y[i])]
    n = min(len(placed), MAX_MAP_POINTS)
    kept = [placed[index * len(placed) // n] for index in range(n)]
    columns = {"class": section.class_, "slide": section.slide, "patient": section.patient}
    colourings = {}
    for name, column in columns.items():
        values = [column[index] for index in kept]
        slots = classes if name == "class" else palette.assign(values)
        colourings[name] = colouring(values, slots)
    # Without a single class the page opens on the colouring that says something.
    order = ["class", "slide", "patient"] if any(section.class_) else ["slide", "patient"]
    colourings = {name: colourings[name] for name in order}
    first = next(iter(colourings.values()))
    words = f"{section.method} map of {wording.counted(n, 'point')}, coloured by {order[0]}"
    svg = figures.scatter([section.x[i] for i in kept], [section.y[i] for i in kept], first, label=words)
    payload = {
        "colourings": {name: {"names": c.names, "slots": c.slots, "of": c.of} for name, c in colourings.items()},
        "thumbs": [data_uri(section.thumbs[i]) for i in kept] if section.thumbs else [],
    }
    return MapView(section, svg, colourings, script_json(payload), n, len(placed) - n, len(section.x) - len(placed))


def colouring(values: Sequence[str], slots: dict[str, palette.Slot]) -> figures.Colouring:
    """The legend of one column: names sorted, those without a name last."""
    counts = Counter(values)
    names = sorted(counts, key=lambda name: (name == "", name))
    index = {name: at for at, name in enumerate(names)}
    return figures.Colouring(
        names=[name or wording.UNLABELLED for name in names],
        of=[index[value] for value in values],
        slots=[slots[name] for name in names],
        counts=[counts[name] for name in names],
    )


def script_json(value: Any) -> Markup:
    """JSON that is safe inside a script element: nothing in it can close the element or open a comment."""
    text = json.dumps(wording.clean(value), ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - escaped above
