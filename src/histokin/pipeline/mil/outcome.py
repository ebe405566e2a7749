"""What a command writes: page, text, JSON; and reading it again."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from histokin.artefacts import plain, write_json, write_text
from histokin.errors import RecipeError
from histokin.pipeline.mil.text import mil_text
from histokin.report.mil.document import MilDocument
from histokin.report.mil.page import write_mil

FORMAT_VERSION = "1.0"
REQUEST = "request.json"
"""What a run was asked; its presence makes a folder a run's."""


@dataclass(frozen=True, slots=True)
class MilOutcome:
    """What a command wrote.

    Attributes:
        folder: where everything lies: mil.json, index.html, predictions, patients, models.
        document: the content of mil.json.
        page: index.html.
        text: the tables for a terminal.
        left_out: slides of which nothing could be told.
    """

    folder: Path
    document: dict[str, Any]
    page: Path
    text: str
    left_out: tuple[str, ...] = ()


def refuse_run(folder: Path) -> None:
    """Keep predictions and maps out of a run's folder, whose own they would overwrite.

    Raises:
        RecipeError: it is one.
    """
    if (folder / REQUEST).exists():
        raise RecipeError("this is the folder of a run, with predictions of its own", folder, "Choose another --out.")


def write_outcome(document: MilDocument, folder: Path) -> None:
    """The page and the text; mil.json last, since it is what says that all is there."""
    write_mil(document, folder)
    write_text(folder / "mil.txt", mil_text(document) + "\n")
    limits = [found.high for one in document.gallery for found in one.maps if found.kind == "contribution"]
    bare = plain(replace(document, gallery=[], sheets=[]))
    write_json(
        folder / "mil.json",
        {"format": "mil", "format_version": FORMAT_VERSION, **bare, "contribution_limit": max(limits, default=None)},
    )


def read_outcome(folder: Path) -> MilOutcome:
    """What `write_outcome` wrote."""
    return MilOutcome(
        folder,
        json.loads((folder / "mil.json").read_text(encoding="utf-8")),
        folder / "index.html",
        (folder / "mil.txt").read_text(encoding="utf-8").rstrip("\n"),
    )
