"""From a document to one HTML page: `views` says what is shown, `templates/` how it is laid out.

The page asks the network for nothing. Its content security policy allows the one script by its digest, inline styles
and `data:` pictures, so that even a hole in the escaping would run nothing.
"""

import base64
import hashlib
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from histokin.report import figures, palette, views, wording
from histokin.report.document import ReportDocument

ROOM = Path(__file__).parent


def render_page(document: ReportDocument) -> str:
    """The whole report as one HTML text without any outside reference; equal documents give equal texts."""
    script = asset("page.js")
    classes = views.class_slots(document)
    context = {
        "document": document,
        "summary": views.summary(document),
        "figures": views.key_figures(document),
        "slides": views.slide_list(document.cohort),
        "training": document.training and views.training_figures(document.training),
        "tables": [views.table_view(table, classes) for table in views.tables_of(document.evaluation)],
        "map": document.embedding_map and views.map_view(document.embedding_map, classes),
        "classes": classes,
        "is_judged": views.any_judged(document),
        "style": Markup(palette.theme_css() + asset("page.css")),  # noqa: S704 - our own files, no data in them
        "script": Markup(script),  # noqa: S704 - likewise
        "policy": content_policy(script),
        "markers": figures.MARKERS,
    }
    return wording.clean(environment().get_template("page.html.j2").render(context)) + "\n"


def content_policy(script: str) -> str:
    """The page's Content-Security-Policy: nothing from outside, and only this very script runs."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def environment() -> Environment:
    """Templates that escape everything and know the words of this room."""
    environment = Environment(
        loader=FileSystemLoader(ROOM / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    words = (wording.number, wording.signed, wording.count, wording.counted, wording.percent, wording.interval)
    more = (wording.p_value, wording.metric, wording.state, wording.duration, wording.pixels, wording.pixel_size)
    environment.filters.update({function.__name__: function for function in (*words, *more)})
    environment.filters["data_uri"] = views.data_uri
    environment.globals["swatch"] = figures.swatch
    return environment


@cache
def asset(name: str) -> str:
    """The text of a style sheet or script."""
    return (ROOM / "assets" / name).read_text(encoding="utf-8")
