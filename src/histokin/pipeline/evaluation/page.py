"""The document of an evaluation's page: chapters with their pictures, and a map of every encoder."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from histokin.artefacts import plain, versions
from histokin.pipeline.evaluation.labels import Texts
from histokin.pipeline.evaluation.spec import EvaluationSpec
from histokin.pipeline.evaluation.table import Table
from histokin.pipeline.lookups import MAX_PICTURED, Asked, look_up, lookup_note
from histokin.pipeline.projection import MapMethod, map_section
from histokin.report import Chapter, EvaluationDocument, MapSection, best_floor

MAX_MAPS = 6
PICTURED = "retrieval"
"""The protocol whose answers are shown."""


def page_document(
    table: Table,
    chapters: Sequence[Chapter],
    refusals: Sequence[tuple[str, str]],
    spec: EvaluationSpec,
    command: str,
    map_method: MapMethod,
) -> EvaluationDocument:
    """Everything that the page, the tables and the terminal's text say."""
    sources, tiles = table.sources, table.tiles
    counts = {"slides": len(table.slides), **tiles.patients(), "tiles": len(tiles)}
    return EvaluationDocument(
        title=f"Evaluation of {' and '.join(table.bags)}",
        command=command,
        seed=spec.seed,
        leave_out=spec.leave_out,
        reference=next(iter(table.bags)),
        stores=table.cards,
        counts=counts,
        floors=list(sources.floors),
        chapters=[_pictured(table, chapter, spec) for chapter in chapters],
        refusals=list(refusals),
        maps=_maps(table, map_method, spec),
        notes=[*table.notes, *_divided(spec)],
        created_with=versions(),
        more={"asked": plain(spec), "inputs": sources.digests()},
    )


def _divided(spec: EvaluationSpec) -> list[str]:
    """Who asks and who answers, where that was asked for."""
    if not spec.conditions:
        return []
    asks, answers = (f"those with {text}" if text else "all" for text in (spec.queries, spec.database))
    text = f"Queries and database of searches are divided: {asks} ask, {answers} may answer. Protocols other than "
    return [text + "retrieval, slides and class-retrieval take all rows, and no answers are pictured."]


def _pictured(table: Table, chapter: Chapter, spec: EvaluationSpec) -> Chapter:
    """The retrieval of tiles with its pictures, where the workspace has the pixels and all tiles ask and answer."""
    sources = table.sources
    if (
        chapter.protocol != PICTURED
        or spec.conditions
        or sources.tiling is None
        or next(iter(table.bags)) not in sources.own
    ):
        return chapter
    floor = best_floor(chapter.measures[0], chapter.measures[0].metrics[0])
    shown = list(table.features)[:MAX_PICTURED]
    features = {name: table.features[name] for name in shown}
    if floor and floor.name in table.floors:
        features[floor.name] = table.floors[floor.name][0]
    is_alone = spec.leave_out != "region" and len(set(table.tiles.patient)) < 2
    leave_out = "slide" if spec.leave_out == "self" or is_alone else spec.leave_out
    asked = Asked(
        sources.tiling,
        table.rows,
        features,
        table.tiles.labels[chapter.column],
        table.tiles.units(leave_out),
        table.tiles.patient,
        is_numeric=False,
    )
    lookups = look_up(asked, spec.seed)
    note = lookup_note(
        spec.seed, leave_out, floor.name if floor else "", len(table.features) - len(shown), is_numeric=False
    )
    return replace(chapter, lookups=lookups, lookup_note=note)


def _maps(table: Table, method: MapMethod, spec: EvaluationSpec) -> list[tuple[str, MapSection]]:
    """An embedding map of each encoder that stands on the first one's tiles, coloured by the label."""
    labels = next((table.tiles.labels[c] for c in spec.columns if c in table.tiles.labels), None)
    texts: Texts = labels if labels is not None else np.full(len(table.tiles), "", object)
    found = []
    for name, features in list(table.features.items())[:MAX_MAPS]:
        section = map_section(
            features, table.rows.slide, texts, table.tiles.slide, table.tiles.patient, method=method, seed=spec.seed
        )
        if section is not None:
            found.append((name, section))
    return found
