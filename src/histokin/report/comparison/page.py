"""From a comparison's document to its page: one HTML file that asks the network for nothing."""

from pathlib import Path

from markupsafe import Markup

from histokin import artefacts
from histokin.report import figures, palette, wording
from histokin.report.comparison import views
from histokin.report.comparison.document import ComparisonDocument
from histokin.report.comparison.scaling import cohort_views, scalings
from histokin.report.comparison.verdicts import SIGNS, STANDINGS, n_differences
from histokin.report.comparison.words import metric_name, summary, transduction
from histokin.report.page import asset, content_policy, environment


def write_comparison(document: ComparisonDocument, folder: Path) -> Path:
    """Write `index.html` into `folder`; returns its path. Equal documents give equal bytes."""
    path = folder / "index.html"
    artefacts.write_text(path, render_comparison(document))
    return path


def render_comparison(document: ComparisonDocument) -> str:
    """The whole page as one HTML text without any outside reference; equal documents give equal texts."""
    script = asset("page.js")
    style = palette.theme_css() + asset("page.css") + asset("comparison.css")
    context = {
        "document": document,
        "summary": summary(document),
        "tasks": [views.task_view(task, document.entries) for task in document.tasks],
        "entries": views.entry_views(document.entries),
        "looks": views.look_notes(document.entries),
        "scalings": scalings(document),
        "cohorts": cohort_views(document),
        "classes": views.label_slots(document),
        "n_differences": n_differences(document),
        "fingerprints": [(entry.name, entry.fingerprint) for entry in document.entries],
        "signs": SIGNS,
        "standings": STANDINGS,
        "metric_name": metric_name,
        "transduction": transduction,
        "style": Markup(style),  # noqa: S704 - our own files, no data in them
        "script": Markup(script),  # noqa: S704 - likewise
        "policy": content_policy(script),
        "markers": figures.MARKERS,
    }
    return wording.clean(environment().get_template("comparison.html.j2").render(context)) + "\n"
