"""From a search's document to its page: one HTML file that asks the network for nothing."""

import base64
import json
from pathlib import Path

from markupsafe import Markup

from histokin import artefacts
from histokin.report import figures, palette, wording
from histokin.report.page import asset, content_policy, environment
from histokin.report.search import views, words
from histokin.report.search.csv import answers_csv
from histokin.report.search.document import SearchDocument
from histokin.report.search.figures import definitions
from histokin.report.search.geojson import to_geojson


def write_search(document: SearchDocument, folder: Path) -> Path:
    """Write `index.html` into `folder`; returns its path. Equal documents give equal bytes."""
    path = folder / "index.html"
    artefacts.write_text(path, render_search(document))
    return path


def render_search(document: SearchDocument) -> str:
    """The whole page as one HTML text without any outside reference; equal documents give equal texts."""
    script = asset("page.js") + asset("search.js")
    style = palette.theme_css() + asset("page.css") + asset("search.css")
    slots, shared = views.label_slots(document), views.shared_pictures(document)
    context = {
        "document": document,
        "words": words,
        "query": views.query_view(document, shared),
        "groups": views.groups(document, shared, slots),
        "evidence": views.evidence(document, shared, slots),
        "agreements": views.agreement_views(document, slots),
        "columns": views.label_columns(document),
        "downloads": _downloads(document),
        "style": Markup(style),  # noqa: S704 - our own files, no data in them
        "script": Markup(script),  # noqa: S704 - likewise
        "policy": content_policy(script),
        "markers": figures.MARKERS,
        "pictures": definitions(shared),
    }
    return wording.clean(environment().get_template("search.html.j2").render(context)) + "\n"


def _downloads(document: SearchDocument) -> list[tuple[str, str, str]]:
    """(words, file name, `data:` address) of what the page holds as files: the table, and a GeoJSON a slide."""
    found = [("All answers as CSV", "answers.csv", _address("text/csv;charset=utf-8", answers_csv(document)))]
    for slide, collection in to_geojson(document).items():
        text = json.dumps(collection, ensure_ascii=False, allow_nan=False)
        found.append((slide, f"{slide}.geojson", _address("application/geo+json", text)))
    return found


def _address(kind: str, text: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(wording.clean(text).encode()).decode()}"
