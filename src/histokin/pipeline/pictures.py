"""Pictures for people: tiles of a search, and which examples to show."""

from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from histokin.embeddings import Embeddings
from histokin.evaluate.protocol import SLIDE_TILES
from histokin.pipeline.gathering import Gathered
from histokin.search import nearest_slides, top_k
from histokin.streams import stream
from histokin.tiles import Tiling, open_tiles

N_EXAMPLES, N_SLIDE_EXAMPLES, N_HITS = 8, 4, 5
PICTURE_PX = 112


@dataclass(frozen=True, slots=True)
class Found:
    """One query and its neighbours: rows of embedded tiles, or numbers of slides."""

    query: int
    hits: tuple[int, ...]
    scores: tuple[float, ...]


def choose_examples(gathered: Gathered, labels: NDArray[np.object_], seed: int) -> list[Found]:
    """One query a class drawn by the seed (without labels: one a slide), its neighbours from other patients.

    Drawn, never picked for their looks, and under the rules of the figures: where there are labels, only labelled tiles
    ask and answer. With one patient only, the query's slide is left out instead.
    """
    unit = labels if any(labels) else gathered.slide
    allowed = np.flatnonzero(unit.astype(bool))
    names = sorted({str(name) for name in unit if name})
    if len(names) > N_EXAMPLES:
        names = sorted(stream(seed, "example classes").choice(names, N_EXAMPLES, replace=False).tolist())
    queries = [int(stream(seed, "example", name).choice(np.flatnonzero(unit == name))) for name in names]
    groups = np.unique(gathered.patient.astype(str), return_inverse=True)[1]
    if groups.max(initial=0) == 0:
        groups = gathered.main.slide
    features = gathered.main.features
    found = top_k(
        features[queries], features[allowed], N_HITS, query_groups=groups[queries], database_groups=groups[allowed]
    )
    return [
        Found(q, tuple(int(allowed[i]) for i in ids if i >= 0), tuple(float(s) for s in scores if np.isfinite(s)))
        for q, ids, scores in zip(queries, found.ids, found.scores, strict=True)
    ]


def choose_slide_examples(gathered: Gathered, labels: list[str], seed: int) -> list[Found]:
    """One slide a label drawn by the seed, and the slides of other patients most like it (median of minima)."""
    bags = gathered.bags(gathered.main.features)
    groups = np.unique(gathered.patient[gathered.main.first].astype(str), return_inverse=True)[1]
    names = sorted({label for label in labels if label})[:N_SLIDE_EXAMPLES]
    if groups.max(initial=0) == 0 or not names:
        return []
    numbers = np.array(labels, object)
    queries = [int(stream(seed, "slide example", name).choice(np.flatnonzero(numbers == name))) for name in names]
    found = nearest_slides(
        [bags[q] for q in queries],
        bags,
        N_HITS,
        strategy="median_min",
        query_groups=groups[queries],
        database_groups=groups,
        limit=SLIDE_TILES,
        seed=seed,
    )
    return [
        Found(q, tuple(int(i) for i in ids if i >= 0), tuple(float(s) for s in scores if np.isfinite(s)))
        for q, ids, scores in zip(queries, found.ids, found.scores, strict=True)
    ]


def tile_pictures(tiling: Tiling, rows: Embeddings, wanted: list[int], px: int = PICTURE_PX) -> dict[int, bytes]:
    """JPEG bytes of some embedded tiles, by row; each slide is opened once."""
    import cv2

    pictures: dict[int, bytes] = {}
    for number in sorted({int(rows.slide[i]) for i in wanted}):
        record = tiling.cohort.record(rows.slides[number])
        own = sorted({i for i in wanted if rows.slide[i] == number}, key=lambda i: rows.tile_id[i])
        by_tile = {int(rows.tile_id[i]): i for i in own}
        source = open_tiles(tiling.cohort, record, tiling.table(record), tiling.spec, rows.tile_id[own])
        for batch in source.stream(64):
            for tile_id, tile in zip(batch.rows, batch.pixels, strict=True):
                small = cv2.resize(tile, (px, px), interpolation=cv2.INTER_AREA) if tile.shape[0] > px else tile
                pictures[by_tile[int(tile_id)]] = simplejpeg.encode_jpeg(
                    np.ascontiguousarray(small), quality=85, colorspace="RGB", colorsubsampling="444"
                )
    return pictures
