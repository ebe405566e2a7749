"""From the document of slide classifiers to what its template lays out: verdict, tables, curves."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace

from markupsafe import Markup

from histokin.report import palette, wording
from histokin.report.comparison.document import ComparedRow
from histokin.report.comparison.verdicts import Standing, best_floor, between, limits, standing
from histokin.report.comparison.views import MetricView, metric_view
from histokin.report.comparison.words import protocol_sentence
from histokin.report.document import Value
from histokin.report.evaluation.figures import reliability_diagram
from histokin.report.evaluation.views import ConfusionView, PartTable, confusion_view, part_tables
from histokin.report.figures import share_bar
from histokin.report.mil import figures, words
from histokin.report.mil.document import Calibration, Judgement, MilDocument
from histokin.report.views import KeyFigure, flat

MANY_METRICS = 2  # further metrics of one judgement are folded


# ---- colours


def output_slots(document: MilDocument) -> dict[str, palette.Slot]:
    """One palette slot a class or label, the same wherever the page names it."""
    return palette.assign([*document.outputs, *document.prevalence])


def classifier_slots(document: MilDocument) -> dict[str, palette.Slot]:
    """One slot a classifier: the colours that the classes leave, and never the disc that stands for a class."""
    n_taken = len(document.outputs)
    return {
        one.name: (palette.slot(n_taken + index)[0], 1 + index % (palette.N_SHAPES - 1))
        for index, one in enumerate(document.classifiers)
    }


# ---- verdict


def headline(document: MilDocument) -> tuple[Judgement, ComparedRow, str] | None:
    """The first judgement, the reference's row of it and its first metric; None where nothing was judged."""
    for judgement in document.judgements:
        row = next((row for row in judgement.measure.rows if row.name == document.reference), None)
        metric = next(iter(judgement.measure.metrics), "")
        if row is not None and metric in row.values:
            return judgement, row, metric
    return None


def key_figures(document: MilDocument) -> list[KeyFigure]:
    """What was judged, and how good the reference is beside the best floor."""
    found = [KeyFigure(noun, wording.count(n)) for noun, n in list(document.counts.items())[:3]]
    first = headline(document)
    if first is None:
        return found
    judgement, row, metric = first
    name = words.metric_words(metric, judgement.unit)[0]
    value, floor = row.values[metric], best_floor(judgement.measure, metric)
    beside = ""
    if floor:
        beside = f"best floor: {wording.number(floor.values[metric].value)} ({floor.name})"
        lead = between(judgement.measure, metric, row, floor.name)
        if lead is not None:
            beside += f", difference {wording.signed(lead.value)} {wording.interval(lead)}".rstrip()
    head = f"{name} by {judgement.unit}" + (f", {row.name}" if document.is_comparison else "")
    figure = KeyFigure(head, wording.number(value.value), wording.interval(value), beside, is_headline=True)
    return [*found, figure]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the interval of the first figure allows to be said."""

    tone: str
    claim: str
    detail: str


def verdict(document: MilDocument) -> Verdict | None:
    """How the reference stands to the best floor, or to chance where there is no floor; None without a figure."""
    first = headline(document)
    if first is None:
        return None
    judgement, row, metric = first
    name = words.metric_words(metric, judgement.unit)[0]
    floor, value = best_floor(judgement.measure, metric), row.values[metric]
    if floor:
        lead = between(judgement.measure, metric, row, floor.name)
        found, other = standing(lead), f"the best floor ({floor.name})"
        lead_words = f"{wording.signed(lead.value)} {wording.interval(lead)}".strip() if lead else wording.MISSING
        detail = f"{name}, {row.name} minus {floor.name}: {lead_words}"
    else:
        chance = judgement.measure.chance.get(metric)
        if not wording.is_number(chance):
            return None
        found, other = _against_level(value, chance or 0.0), "chance"
        detail = f"{name} {_spanned(value)}, chance {wording.number(chance)}"
    is_error = words.is_lower_better(metric)
    good, bad = ("below", "above") if is_error else ("above", "below")
    says: dict[Standing, str] = {
        good: f"Better than {other}",
        bad: f"Worse than {other}",
        "alike": f"Cannot be told apart from {other}",
        "unknown": f"No interval against {other}",
    }
    tone = "good" if found == good else "bad" if found == bad else "plain"
    notes = "; ".join(limits(judgement.measure, [metric]))
    return Verdict(tone, says[found], f"{detail}{f' ({notes})' if notes else ''}.")


def _against_level(value: Value, level: float) -> Standing:
    if not wording.is_number(value.low) or not wording.is_number(value.high):
        return "unknown"
    return "above" if (value.low or 0.0) > level else "below" if (value.high or 0.0) < level else "alike"


def _spanned(value: Value) -> str:
    return f"{wording.number(value.value)} {wording.interval(value)}".strip()


# ---- figures


@dataclass(frozen=True, slots=True)
class GridCell:
    """One model on one encoder's features, and how it stands to the reference."""

    value: Value
    standing: Standing | None
    is_reference: bool


@dataclass(frozen=True, slots=True)
class Grid:
    """Models down, features across, by one metric; of an error the lower is better."""

    metric: str
    is_error: bool
    unit: str
    columns: list[str]
    rows: list[tuple[str, list[GridCell | None]]]


def model_grid(document: MilDocument) -> Grid | None:
    """The first figure of all classifiers; None unless several models met several encoders, each pair at most once."""
    models = list(dict.fromkeys((one.model, one.preset) for one in document.classifiers))
    encoders = list(dict.fromkeys(one.encoder for one in document.classifiers))
    first = headline(document)
    pairs = {(one.model, one.preset, one.encoder) for one in document.classifiers}
    if first is None or len(models) < 2 or len(encoders) < 2 or len(pairs) < len(document.classifiers):
        return None
    judgement, _, metric = first
    measured = {row.name: row for row in judgement.measure.rows if row.kind == "entry" and metric in row.values}
    cells: dict[tuple[tuple[str, str], str], GridCell] = {}
    for one in document.classifiers:
        row = measured.get(one.name)
        if row is not None:
            is_reference = one.name == document.reference
            lead = None if is_reference else between(judgement.measure, metric, row, document.reference)
            stands = None if is_reference else standing(lead)
            cells[(one.model, one.preset), one.encoder] = GridCell(row.values[metric], stands, is_reference)
    rows = [
        (
            words.capitalised(words.model_name(model)) + (f", {preset}" if preset != "default" else ""),
            [cells.get(((model, preset), encoder)) for encoder in encoders],
        )
        for model, preset in models
    ]
    name = words.metric_words(metric, judgement.unit)[0]
    return Grid(name, words.is_lower_better(metric), judgement.unit, encoders, rows)


@dataclass(frozen=True, slots=True)
class JudgementView:
    """Tables over slides or over patients; `title` names it where confusions and tables are announced."""

    judgement: Judgement
    title: str
    sentence: str
    protocol: list[tuple[str, str]]
    shown: list[MetricView]
    folded: list[MetricView]
    confusions: list[ConfusionView]


def judgement_view(document: MilDocument, judgement: Judgement) -> JudgementView:
    """Lay out one; classifiers are held against the best floor and, where there are several, the reference."""
    measure = judgement.measure
    against = {
        row.name: [document.reference]
        for row in measure.rows
        if row.kind == "entry" and any(between(measure, metric, row, document.reference) for metric in measure.metrics)
    }
    found = [
        metric_view(measure, metric, {}, against, words.metric_words(metric, judgement.unit))
        for metric in measure.metrics
    ]
    tables = [table for table in found if table is not None]
    return JudgementView(
        judgement,
        f"By {judgement.unit}",
        protocol_sentence(measure, judgement.n, judgement.unit),
        flat(measure.protocol),
        tables[:MANY_METRICS],
        tables[MANY_METRICS:],
        [confusion_view(confusion) for confusion in judgement.confusions],
    )


def class_tables(document: MilDocument, slots: Mapping[str, palette.Slot]) -> list[PartTable]:
    """A table a metric of the slides of one class."""
    return part_tables(words.SLIDES, document.per_class, slots)


def prevalence_view(
    document: MilDocument, slots: Mapping[str, palette.Slot]
) -> tuple[Markup, list[tuple[str, float, palette.Slot]]]:
    """The shares of the classes as a bar and in words, largest first: the first of them is itself a floor."""
    shares = sorted(document.prevalence.items(), key=lambda item: (-item[1], item[0]))
    told = [(name, share, slots[name]) for name, share in shares]
    label = "Prevalence: " + ", ".join(f"{name} {wording.percent(share)}" for name, share in shares)
    # Labels may hold for one slide together: their shares are parts of no whole.
    bar = share_bar(told, label=label) if told and document.kind == "classes" else Markup("")
    return bar, told


# ---- curves and calibration


@dataclass(frozen=True, slots=True)
class CurveView:
    """Both charts of one class."""

    of: str
    slot: palette.Slot
    counts: str
    roc: Markup
    pr: Markup


def curve_views(
    document: MilDocument, outputs: Mapping[str, palette.Slot], rows: Mapping[str, palette.Slot]
) -> list[CurveView]:
    """ROC and precision-recall, all classifiers of a class in one chart; bands only where one stands alone."""
    by_class: dict[str, list[int]] = defaultdict(list)
    for index, curve in enumerate(document.curves):
        by_class[curve.of].append(index)
    found = []
    for of, places in by_class.items():
        curves = [document.curves[index] for index in places]
        slots = [rows.get(curve.row, palette.NEUTRAL_SLOT) for curve in curves]
        is_alone = len(curves) == 1
        roc = [
            figures.DrawnCurve(c.row, slot, c.roc, c.roc_band if is_alone else [], f"AUC {_spanned(c.auc)}")
            for c, slot in zip(curves, slots, strict=True)
        ]
        pr = [
            figures.DrawnCurve(c.row, slot, c.pr, c.pr_band if is_alone else [], f"AP {_spanned(c.ap)}")
            for c, slot in zip(curves, slots, strict=True)
        ]
        first = curves[0]
        share = first.n_positive / first.n if first.n else 0.0
        counts = f"{first.n_positive:,} of {wording.counted(first.n, 'slide')}, {wording.percent(share)}"
        found.append(
            CurveView(
                of,
                outputs.get(of, palette.NEUTRAL_SLOT),
                counts,
                figures.unit_chart("ROC", roc, x_word="false positive rate", y_word="recall", is_roc=True),
                figures.unit_chart("PR", pr, x_word="recall", y_word="precision", is_roc=False, level=share),
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class CalibrationView:
    """Reliability before and after the temperature."""

    calibration: Calibration
    before: Markup
    after: Markup


def calibration_views(document: MilDocument, rows: Mapping[str, palette.Slot]) -> list[CalibrationView]:
    """Two diagrams a classifier."""
    found = []
    for one in document.calibrations:
        slot = rows.get(one.row, palette.NEUTRAL_SLOT)
        after = Markup("")
        if one.after:
            after = reliability_diagram(replace(one.after, row="after the temperature"), slot)
        found.append(
            CalibrationView(one, reliability_diagram(replace(one.before, row="before the temperature"), slot), after)
        )
    return found
