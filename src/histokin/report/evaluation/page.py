"""From an evaluation's document to its page: one HTML file that asks the network for nothing."""

from pathlib import Path

from markupsafe import Markup

from histokin import artefacts
from histokin.report import figures, palette, wording
from histokin.report.comparison.verdicts import SIGNS, STANDINGS
from histokin.report.evaluation import views
from histokin.report.evaluation.document import EvaluationDocument
from histokin.report.evaluation.words import is_lower_better, left_out, summary
from histokin.report.page import asset, content_policy, environment
from histokin.report.views import flat


def write_evaluation(document: EvaluationDocument, folder: Path) -> Path:
    """Write `index.html` into `folder`; returns its path. Equal documents give equal bytes."""
    path = folder / "index.html"
    artefacts.write_text(path, render_evaluation(document))
    return path


def render_evaluation(document: EvaluationDocument) -> str:
    """The whole page as one HTML text without any outside reference; equal documents give equal texts."""
    script = asset("page.js")
    style = palette.theme_css() + asset("page.css") + asset("comparison.css") + asset("evaluation.css")
    classes = views.class_slots(document)
    rows = views.row_slots(document, classes)
    context = {
        "document": document,
        "summary": summary(document),
        "headlines": views.headlines(document),
        "chapters": [views.chapter_view(document, index, classes, rows) for index in range(len(document.chapters))],
        "maps": views.map_views(document.maps, classes),
        "classes": classes,
        "rows": rows,
        "more": flat(document.more),
        "signs": SIGNS,
        "standings": STANDINGS,
        "is_lower_better": is_lower_better,
        "has_p": views.has_p,
        "left_out": left_out(document.leave_out),
        "style": Markup(style),  # noqa: S704 - our own files, no data in them
        "script": Markup(script),  # noqa: S704 - likewise
        "policy": content_policy(script),
        "markers": figures.MARKERS,
    }
    return wording.clean(environment().get_template("evaluation.html.j2").render(context)) + "\n"
