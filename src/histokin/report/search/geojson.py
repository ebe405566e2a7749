"""The answers as QuPath annotations: a GeoJSON FeatureCollection a slide, in level-0 pixels."""

import math
import uuid
from collections.abc import Mapping
from typing import Any

from histokin.report import palette, wording
from histokin.report.search.document import Answer, SearchDocument
from histokin.report.search.views import label_slots
from histokin.report.search.words import score
from histokin.search.region import Box

_QUERY_COLOUR = palette.THEME["eosin"][0]
_NAMESPACE = uuid.UUID("6f0d2f3c-50c1-5f0e-9c0a-9a1d0c0f7a11")  # any fixed one: equal searches give equal ids


def to_geojson(document: SearchDocument) -> dict[str, dict[str, Any]]:
    """By slide id what QuPath imports: answers and the query as locked annotations, evidence as tiles.

    An answer is named by rank, label and score, classified by its label in the page's colour, and measured by rank,
    score, percentile and p; a whole slide has no outline, only the tiles that carried it. A query from outside has no
    slide and is left out.
    """
    slots = label_slots(document)
    colours = {
        label: _rgb(palette.CATEGORICAL[slot[0]][0]) for label, slot in slots.items() if slot != palette.NEUTRAL_SLOT
    }
    slides: dict[str, list[dict[str, Any]]] = {}
    query = document.query
    if query.slide and query.box:
        described = {"name": f"query: {query.name}", "classification": {"name": "query", "color": _rgb(_QUERY_COLOUR)}}
        slides[query.slide] = [_feature(query.box, "annotation", described)]
    for answer in document.answers:
        slides.setdefault(answer.slide, []).extend(_of_answer(document, answer, colours))
    return {slide: _collection(slide, features) for slide, features in slides.items() if features}


def _collection(slide: str, features: list[dict[str, Any]]) -> dict[str, Any]:
    """Features with ids, which QuPath takes only as UUIDs."""
    named = [
        {"type": "Feature", "id": str(uuid.uuid5(_NAMESPACE, wording.clean(f"{slide}\n{number}"))), **feature}
        for number, feature in enumerate(features)
    ]
    return {"type": "FeatureCollection", "features": wording.clean(named)}


def _of_answer(document: SearchDocument, answer: Answer, colours: Mapping[str, list[int]]) -> list[dict[str, Any]]:
    label = document.label_of(answer)
    features = []
    if answer.box:
        described: dict[str, Any] = {"name": " ".join(filter(None, (f"#{answer.rank}", label, score(answer.score))))}
        if label in colours:  # a class with a name and no colour stops QuPath's import
            described["classification"] = {"name": label, "color": colours[label]}
        measured = {"rank": answer.rank, "score": answer.score, "percentile": answer.percentile, "p": answer.p}
        told = {"patient": answer.patient, **answer.labels}
        described |= {
            "measurements": {name: _number(value) for name, value in measured.items() if value is not None},
            "metadata": {name: text for name, text in told.items() if text},
        }
        features.append(_feature(answer.box, "annotation", described))
    for pair in answer.evidence:
        measured = {"rank": answer.rank, "score": _number(pair.score), "share": _number(pair.share)}
        described = {"name": f"evidence of #{answer.rank}", "measurements": measured}
        features.append(_feature(pair.answer.box, "tile", described))
    return features


def _feature(box: Box, kind: str, described: dict[str, Any]) -> dict[str, Any]:
    left, top, right, bottom = (round(side, 2) for side in (box.x, box.y, box.x + box.w, box.y + box.h))
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    locked = {"isLocked": True} if kind == "annotation" else {}
    return {
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": kind, **described, **locked},
    }


def _number(value: float) -> float | str:
    """QuPath's words for what JSON has no number for."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _rgb(colour: str) -> list[int]:
    return [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
