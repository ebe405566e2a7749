"""The report: one self-contained page and one JSON file that say what was done and how good it is.

A `ReportDocument` comes in (plain data and pictures, filled by `pipeline`), `index.html` and `report.json` go out. What
is drawn and worded lives here; nothing is computed that is not in the document already. No torch, no network, no clock.
"""

from histokin.report.comparison.document import (
    ComparedEntry,
    ComparedMeasure,
    ComparedRow,
    ComparedTask,
    ComparisonDocument,
    Lookup,
)
from histokin.report.comparison.page import render_comparison, write_comparison
from histokin.report.comparison.text import comparison_text
from histokin.report.comparison.verdicts import best_floor
from histokin.report.document import (
    CohortSection,
    EvaluationSection,
    Example,
    MapSection,
    Measure,
    MetricRow,
    MetricTable,
    Picture,
    ReportDocument,
    SearchSection,
    SlideCard,
    TrainingSection,
    Value,
)
from histokin.report.evaluation.csv import tables as evaluation_tables
from histokin.report.evaluation.document import (
    Chapter,
    Confusion,
    EvaluationDocument,
    PartLine,
    Quantity,
    ReliabilityCurve,
    ShotCurve,
    StoreCard,
)
from histokin.report.evaluation.page import render_evaluation, write_evaluation
from histokin.report.evaluation.text import evaluation_text
from histokin.report.page import render_page
from histokin.report.write import write_report

__all__ = [
    "Chapter",
    "CohortSection",
    "ComparedEntry",
    "ComparedMeasure",
    "ComparedRow",
    "ComparedTask",
    "ComparisonDocument",
    "Confusion",
    "EvaluationDocument",
    "EvaluationSection",
    "Example",
    "Lookup",
    "MapSection",
    "Measure",
    "MetricRow",
    "MetricTable",
    "PartLine",
    "Picture",
    "Quantity",
    "ReliabilityCurve",
    "ReportDocument",
    "SearchSection",
    "ShotCurve",
    "SlideCard",
    "StoreCard",
    "TrainingSection",
    "Value",
    "best_floor",
    "comparison_text",
    "evaluation_tables",
    "evaluation_text",
    "render_comparison",
    "render_evaluation",
    "render_page",
    "write_comparison",
    "write_evaluation",
    "write_report",
]
