"""Writing a report: `index.html` for people, `report.json` for programs; both whole or not at all."""

import hashlib
from pathlib import Path
from typing import Any

from histokin import artefacts
from histokin.report import wording
from histokin.report.document import ReportDocument
from histokin.report.page import render_page

FORMAT_VERSION = "1.0"


def write_report(document: ReportDocument, folder: Path) -> Path:
    """Write `index.html` and `report.json` into `folder`; returns the page's path.

    Equal documents give equal bytes: there is no clock, host or absolute path in either file.
    """
    page = render_page(document)  # first: a document that cannot be drawn leaves both old files in place
    artefacts.write_json(folder / "report.json", report_json(document))
    path = folder / "index.html"
    artefacts.write_text(path, page)
    return path


def report_json(document: ReportDocument) -> dict[str, Any]:
    """The whole document as plain data, nothing thinned or rounded; pictures stand as size and SHA-256."""
    plain = wording.clean(without_pictures(artefacts.plain(document)))
    return {"format": "report", "format_version": FORMAT_VERSION, **plain}


def without_pictures(value: Any) -> Any:
    """Plain data in which pictures stand as size and SHA-256."""
    if isinstance(value, bytes):
        return {"sha256": hashlib.sha256(value).hexdigest(), "n_bytes": len(value)}
    if isinstance(value, dict):
        return {key: without_pictures(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_pictures(item) for item in value]
    return value
