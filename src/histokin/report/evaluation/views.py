"""From an evaluation's document to what its templates lay out: the headline table, chapters, figures and maps."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from histokin.report import figures, palette, wording
from histokin.report.comparison.document import ComparedMeasure, ComparedRow
from histokin.report.comparison.verdicts import best_floor, between, limits, standings_of
from histokin.report.comparison.views import MetricView, metric_view
from histokin.report.comparison.words import protocol_sentence
from histokin.report.document import MapSection, MetricRow, Value
from histokin.report.evaluation.document import (
    Chapter,
    Confusion,
    EvaluationDocument,
    PartLine,
    Quantity,
    ReliabilityCurve,
)
from histokin.report.evaluation.figures import Dot, dot_track, reliability_diagram, shot_chart
from histokin.report.evaluation.words import counted, is_lower_better, metric_words, n_asked, prevalence_words
from histokin.report.views import flat, map_view

MANY_PARTS = 12  # a table of more classes or groups is folded
MANY_METRICS = 3  # further metrics of one measure are folded
_NAMED_COLUMNS = 6  # a confusion of more classes numbers its columns


# ---- colours


def class_slots(document: EvaluationDocument) -> dict[str, palette.Slot]:
    """One palette slot a class, over everything on the page that names classes."""
    names: set[str] = set()
    for chapter in document.chapters:
        names |= set(chapter.prevalence)
        names |= {line.part for line in chapter.per_class}
        names |= {name for confusion in chapter.confusions for name in confusion.classes}
        if chapter.prevalence:
            pictures = [
                p for one in chapter.lookups for p in (one.query, *(hit for _, hits in one.answers for hit in hits))
            ]
            names |= {picture.label for picture in pictures}
    for _, section in document.maps:
        names |= set(section.class_)
    return palette.assign(names)


def row_slots(document: EvaluationDocument, classes: Mapping[str, palette.Slot]) -> dict[str, palette.Slot]:
    """One slot an encoder: the colours that the classes leave, and never the disc that stands for a class."""
    n_classes = len(set(classes) - {"", wording.UNLABELLED})
    return {
        name: (palette.slot(n_classes + index)[0], 1 + index % (palette.N_SHAPES - 1))
        for index, name in enumerate(encoders(document))
    }


def encoders(document: EvaluationDocument) -> list[str]:
    """Names of the encoders' rows: as their stores are listed, then what chapters name beside them."""
    named = [store.name for store in document.stores]
    for chapter in document.chapters:
        named += [row.name for measure in chapter.measures for row in measure.rows if row.kind == "entry"]
        named += [curve.row for curve in chapter.shots if curve.kind == "entry"]
        named += [one.row for one in (*chapter.confusions, *chapter.reliability)]
    return list(dict.fromkeys(named))


# ---- headline


@dataclass(frozen=True, slots=True)
class HeadlineCell:
    """One encoder's figure; `standing` says in signs how it stands to its random twin and to the best floor."""

    value: Value | None
    tone: str
    standing: str


@dataclass(frozen=True, slots=True)
class Headline:
    """A chapter's first metric for each encoder, and for the best floor."""

    anchor: str
    title: str
    metric: str
    counts: list[str]
    prevalence: str
    cells: list[HeadlineCell]
    floor: str
    floor_value: Value | None
    chance: float | None
    is_lower_better: bool


@dataclass(frozen=True, slots=True)
class Headlines:
    """The table at the top: a row a chapter, a column an encoder; `without` are chapters that have no such figure."""

    columns: list[str]
    rows: list[Headline]
    without: list[tuple[str, str]]

    @property
    def has_standings(self) -> bool:
        """Whether any encoder is held against a floor."""
        return any(cell.standing for row in self.rows for cell in row.cells)


def anchor(index: int) -> str:
    """Where the `index`-th chapter begins on the page."""
    return f"chapter-{index + 1}"


def headlines(document: EvaluationDocument) -> Headlines:
    """Per chapter the first metric of its first measure."""
    found: list[tuple[int, Chapter, ComparedMeasure, str]] = []
    without = []
    for index, chapter in enumerate(document.chapters):
        measure = next(iter(chapter.measures), None)
        if measure is None or not measure.metrics or not measure.rows:
            without.append((anchor(index), chapter.title))
        else:
            found.append((index, chapter, measure, measure.metrics[0]))
    named = [store.name for store in document.stores]
    named += [row.name for _, _, measure, _ in found for row in measure.rows if row.kind == "entry"]
    columns = list(dict.fromkeys(named))
    return Headlines(columns, [_headline(*one, columns) for one in found], without)


def _headline(index: int, chapter: Chapter, measure: ComparedMeasure, metric: str, columns: list[str]) -> Headline:
    floor = best_floor(measure, metric)
    by_name = {row.name: row for row in measure.rows if row.kind == "entry" and metric in row.values}
    cells = []
    for name in columns:
        row = by_name.get(name)
        tone, standing = standings_of(measure, row, metric, chapter.twins) if row else ("plain", "")
        cells.append(HeadlineCell(row.values[metric] if row else None, tone, standing))
    return Headline(
        anchor=anchor(index),
        title=chapter.title,
        metric=metric_words(metric, chapter)[0],
        counts=counted(chapter.counts),
        prevalence=prevalence_words(chapter.prevalence, 1),
        cells=cells,
        floor=floor.name if floor else "",
        floor_value=floor.values[metric] if floor else None,
        chance=measure.chance.get(metric),
        is_lower_better=is_lower_better(metric),
    )


# ---- chapters


@dataclass(frozen=True, slots=True)
class MeasureView:
    """One way of judging.

    Attributes:
        measure: itself.
        title: its name as a heading; one with capitals of its own (kNN) keeps them.
        sentence, protocol: how it was done, in words and in full.
        metrics, folded: tables that are open, and those that are folded.
        other_metrics: (metric, name) of values that are not drawn.
        absent: sentences on metrics for which no row has a number.
        rows: encoders, then floors.
    """

    measure: ComparedMeasure
    title: str
    sentence: str
    protocol: list[tuple[str, str]]
    metrics: list[MetricView]
    folded: list[MetricView]
    other_metrics: list[tuple[str, str]]
    absent: list[str]
    rows: list[ComparedRow]


@dataclass(frozen=True, slots=True)
class PartRow:
    """One class or group with the track and the values of all encoders."""

    part: str
    size: list[str]
    chance: float | None
    track: Markup
    values: list[Value | None]


@dataclass(frozen=True, slots=True)
class PartTable:
    """One metric by class or by group."""

    name: str
    meaning: str
    columns: list[str]
    rows: list[PartRow]
    axis: figures.ForestAxis
    has_chance: bool
    floors: list[str]

    @property
    def is_long(self) -> bool:
        """Whether it is folded until it is asked for."""
        return len(self.rows) > MANY_PARTS


@dataclass(frozen=True, slots=True)
class ConfusionCell:
    """A count and its share of the row, which is also said in words."""

    n: int
    share: float
    is_right: bool
    words: str


@dataclass(frozen=True, slots=True)
class ConfusionView:
    """A confusion matrix ready to be laid out: (class, n, cells) a line; headings are names, or numbers where many."""

    confusion: Confusion
    headings: list[tuple[str, str]]
    lines: list[tuple[str, int, list[ConfusionCell]]]
    is_numbered: bool


@dataclass(frozen=True, slots=True)
class ReliabilityView:
    """A diagram and what it comes to."""

    curve: ReliabilityCurve
    diagram: Markup


@dataclass(frozen=True, slots=True)
class ChapterView:
    """A chapter, ready to be laid out."""

    chapter: Chapter
    anchor: str
    counts: list[str]
    prevalence: list[tuple[str, float, palette.Slot]]
    prevalence_text: str
    prevalence_bar: Markup
    measures: list[MeasureView]
    per_class: list[PartTable]
    per_group: list[PartTable]
    confusions: list[ConfusionView]
    reliability: list[ReliabilityView]
    shots: Markup
    shot_encoders: list[str]
    quantity_columns: list[str]
    quantities: list[Quantity]
    is_judged: bool

    @property
    def has_shot_floors(self) -> bool:
        """Whether floors are among the few-shot curves."""
        return any(curve.kind == "floor" for curve in self.chapter.shots)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was measured."""
        of = self.chapter
        parts = (of.measures, of.per_class, of.per_group, of.confusions, of.reliability, of.shots, of.quantities)
        return not any((*parts, of.lookups, of.controls, of.notes))


def chapter_view(
    document: EvaluationDocument,
    index: int,
    classes: Mapping[str, palette.Slot],
    rows: Mapping[str, palette.Slot],
) -> ChapterView:
    """Lay out one chapter."""
    chapter = document.chapters[index]
    # Largest first: the share of the most frequent class is itself a floor worth seeing.
    shares = sorted(chapter.prevalence.items(), key=lambda item: (-item[1], item[0]))
    prevalence = [(name, share, classes[name]) for name, share in shares]
    words = "Prevalence: " + ", ".join(f"{name} {wording.percent(share)}" for name, share in shares)
    named = dict.fromkeys(name for quantity in chapter.quantities for name in quantity.values)
    ordered = [*rows, *document.floors, *named]
    hits = [hit for lookup in chapter.lookups for _, found in lookup.answers for hit in found]
    return ChapterView(
        chapter=chapter,
        anchor=anchor(index),
        counts=counted(chapter.counts),
        prevalence=prevalence,
        prevalence_text=prevalence_words(chapter.prevalence),
        prevalence_bar=figures.share_bar(prevalence, label=words) if prevalence else Markup(""),
        measures=[measure_view(document, chapter, measure) for measure in chapter.measures],
        per_class=part_tables(chapter, chapter.per_class, rows),
        per_group=part_tables(chapter, chapter.per_group, rows),
        confusions=[confusion_view(confusion) for confusion in chapter.confusions],
        reliability=[
            ReliabilityView(curve, reliability_diagram(curve, rows[curve.row])) for curve in chapter.reliability
        ],
        shots=shot_chart("Median of the episodes", chapter.shots, chapter.shots_chance, rows),
        shot_encoders=[name for name in rows if any(curve.row == name for curve in chapter.shots)],
        quantity_columns=[name for name in dict.fromkeys(ordered) if name in named],
        quantities=chapter.quantities,
        is_judged=any(hit.is_right is not None for hit in hits),
    )


def measure_view(document: EvaluationDocument, chapter: Chapter, measure: ComparedMeasure) -> MeasureView:
    """Tables of one way of judging, each encoder held against random weights, the best floor and the reference."""
    against = {
        row.name: [document.reference]
        for row in measure.rows
        if row.kind == "entry" and any(between(measure, metric, row, document.reference) for metric in measure.metrics)
    }
    found = [
        metric_view(measure, metric, chapter.twins, against, metric_words(metric, chapter))
        for metric in measure.metrics
    ]
    shown = [view for view in found if view is not None]
    drawn = {view.metric for view in shown}
    absent = [_absence(measure, metric, chapter) for metric in measure.metrics if metric not in drawn]
    others = [name for row in measure.rows for name in row.values if name not in measure.metrics]
    first, *rest = measure.name.split(" ", 1)
    return MeasureView(
        measure,
        measure.name if first != first.lower() else " ".join([first.capitalize(), *rest]),
        protocol_sentence(measure, n_asked(chapter) or 0, chapter.level),
        flat(measure.protocol),
        shown[:MANY_METRICS],
        shown[MANY_METRICS:],
        [(name, metric_words(name, chapter)[0]) for name in dict.fromkeys(others)],
        absent,
        sorted(measure.rows, key=lambda row: row.kind == "floor"),
    )


def has_p(table: MetricView) -> bool:
    """Whether any difference of a table has a p value."""
    return any(cell.value is not None and cell.value.p is not None for row in table.rows for cell in row.differences)


def _absence(measure: ComparedMeasure, metric: str, chapter: Chapter) -> str:
    why = "; ".join(limits(measure, [metric]))
    return f"{metric_words(metric, chapter)[0]}: no row has a number{f' ({why})' if why else ''}."


def part_tables(chapter: Chapter, lines: Sequence[PartLine], rows: Mapping[str, palette.Slot]) -> list[PartTable]:
    """One table a metric: classes or groups in their order, the encoders as columns, floors on the tracks alone."""
    tables = []
    for metric in dict.fromkeys(line.metric for line in lines):
        chosen = [line for line in lines if line.metric == metric]
        axis = _part_axis(chosen)
        if axis is None:
            continue
        columns = [name for name in rows if any(line.row == name for line in chosen)]
        name, meaning = metric_words(metric, chapter)
        parts = [
            _part_row([line for line in chosen if line.part == part], chapter.level, axis, columns, rows)
            for part in dict.fromkeys(line.part for line in chosen)
        ]
        floors = dict.fromkeys(line.row for line in chosen if line.row not in rows)
        has_chance = any(row.chance is not None for row in parts)
        tables.append(PartTable(name, meaning, columns, parts, axis, has_chance, list(floors)))
    return tables


def _part_axis(lines: Iterable[PartLine]) -> figures.ForestAxis | None:
    """An axis for all parts; each has its own chance level, so the axis has none."""
    found = []
    for line in lines:
        found.append(MetricRow(line.row, "class", {"": line.value}))
        found.append(MetricRow(line.row, "chance", {"": Value(line.chance)}))
    return figures.forest_axis(found, "", None)


def _part_row(
    lines: Sequence[PartLine],
    level: str,
    axis: figures.ForestAxis,
    columns: list[str],
    rows: Mapping[str, palette.Slot],
) -> PartRow:
    first = lines[0]
    by_row = {line.row: line.value for line in lines}
    chance = next((line.chance for line in lines if line.chance is not None), None)
    size = [wording.counted(first.n, level)]
    if first.n_patients is not None:
        size.append(wording.counted(first.n_patients, "patient"))
    dots = [Dot(line.row, line.value, rows.get(line.row)) for line in lines]
    track = dot_track(axis, dots, chance=chance, label=first.part)
    return PartRow(first.part, size, chance, track, [by_row.get(name) for name in columns])


def confusion_view(confusion: Confusion) -> ConfusionView:
    """Counts with their shares of the true class; a column more than classes is what nothing could be said of."""
    classes = [name or wording.UNLABELLED for name in confusion.classes]
    width = max((len(line) for line in confusion.counts), default=len(classes))
    said = [*classes, *["none"] * (width - len(classes))]
    is_numbered = len(classes) > _NAMED_COLUMNS
    numbers = [str(index + 1) for index in range(len(classes))] if is_numbered else []
    headings = [*zip(numbers, said, strict=False), *((name, name) for name in said[len(numbers) :])]
    lines = []
    for at, (name, counts) in enumerate(zip(classes, confusion.counts, strict=True)):
        n = sum(counts)
        cells = []
        for to, count in enumerate(counts):
            share = count / n if n else 0.0
            words = f"{name} said to be {said[to]}: {count:,} of {n:,}, {wording.percent(share)}"
            cells.append(ConfusionCell(count, share, at == to, words))
        lines.append((name, n, cells))
    return ConfusionView(confusion, headings, lines, is_numbered)


# ---- maps


@dataclass(frozen=True, slots=True)
class DrawnMap:
    """One encoder's map."""

    name: str
    svg: Markup
    facts: list[str]


@dataclass(frozen=True, slots=True)
class MapViews:
    """Maps of all encoders in the same colours, and the legend that they share."""

    drawn: list[DrawnMap]
    legend: list[tuple[str, palette.Slot]]


def map_views(maps: Sequence[tuple[str, MapSection]], classes: dict[str, palette.Slot]) -> MapViews:
    """All maps, coloured by class; a map without a single class is coloured by slide and says so."""
    drawn, names = [], set[str]()
    for name, section in maps:
        view = map_view(section, classes)
        facts = [f"{section.method} of {wording.counted(view.n_shown, 'point')}"]
        facts += [f"{view.n_thinned:,} more not drawn"] if view.n_thinned else []
        facts += [f"{view.n_unplaced:,} without a place (not finite)"] if view.n_unplaced else []
        facts += [section.note] if section.note else []
        if any(section.class_):
            names |= set(view.colourings["class"].names)
        else:
            facts.append("coloured by slide: no class is known")
        drawn.append(DrawnMap(name, view.svg, facts))
    ordered = sorted(names, key=lambda name: (name == wording.UNLABELLED, name))
    return MapViews(drawn, [(name, classes[name]) for name in ordered])
