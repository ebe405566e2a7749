"""From the document of slide classifiers to its page: one HTML file that asks the network for nothing."""

from pathlib import Path

from markupsafe import Markup

from histokin import artefacts
from histokin.report import figures, palette, wording
from histokin.report.comparison.verdicts import SIGNS, STANDINGS
from histokin.report.mil import slides, views, words
from histokin.report.mil.document import MilDocument
from histokin.report.page import asset, content_policy, environment
from histokin.report.search.figures import definitions
from histokin.report.views import flat

_STYLES = ("page.css", "comparison.css", "evaluation.css", "mil.css")


def write_mil(document: MilDocument, folder: Path) -> Path:
    """Write `index.html` into `folder`; returns its path. Equal documents give equal bytes."""
    path = folder / "index.html"
    artefacts.write_text(path, render_mil(document))
    return path


def render_mil(document: MilDocument) -> str:
    """The whole page as one HTML text without any outside reference; equal documents give equal texts."""
    script = asset("page.js") + asset("mil.js")
    style = palette.theme_css() + "".join(asset(name) for name in _STYLES)
    outputs, rows = views.output_slots(document), views.classifier_slots(document)
    shared = slides.shared_pictures(document)
    prevalence_bar, prevalence = views.prevalence_view(document, outputs)
    context = {
        "document": document,
        "words": words,
        "figures": views.key_figures(document),
        "verdict": views.verdict(document),
        "prevalence_bar": prevalence_bar,
        "prevalence": prevalence,
        "grid": views.model_grid(document),
        "judgements": [views.judgement_view(document, one) for one in document.judgements],
        "per_class": views.class_tables(document, rows),
        "curves": views.curve_views(document, outputs, rows),
        "calibrations": views.calibration_views(document, rows),
        "table": slides.prediction_table(document, outputs),
        "gallery": slides.gallery(document, shared, outputs),
        "map_kinds": slides.map_kinds(document),
        "sheets": slides.sheet_views(document, outputs),
        "faithfulness": slides.faithfulness_views(document, rows),
        "limits": words.limits(document),
        "outputs": outputs,
        "rows": rows,
        "neutral": palette.NEUTRAL_SLOT,
        "flat": flat,
        "signs": SIGNS,
        "standings": STANDINGS,
        "style": Markup(style),  # noqa: S704 - our own files, no data in them
        "script": Markup(script),  # noqa: S704 - likewise
        "policy": content_policy(script),
        "markers": figures.MARKERS,
        "pictures": definitions(shared),
    }
    return wording.clean(environment().get_template("mil.html.j2").render(context)) + "\n"
