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
from histokin.report.page import render_page
from histokin.report.write import write_report

__all__ = [
    "CohortSection",
    "ComparedEntry",
    "ComparedMeasure",
    "ComparedRow",
    "ComparedTask",
    "ComparisonDocument",
    "EvaluationSection",
    "Example",
    "Lookup",
    "MapSection",
    "Measure",
    "MetricRow",
    "MetricTable",
    "Picture",
    "ReportDocument",
    "SearchSection",
    "SlideCard",
    "TrainingSection",
    "Value",
    "best_floor",
    "comparison_text",
    "render_comparison",
    "render_page",
    "write_comparison",
    "write_report",
]
