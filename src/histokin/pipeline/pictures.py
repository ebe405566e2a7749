"""Pictures for people: tiles of a search, and which examples to show."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from histokin.cohort import SlideRecord
from histokin.embeddings import Embeddings
from histokin.errors import SlideError
from histokin.evaluate.protocol import SLIDE_TILES
from histokin.pipeline.gathering import Gathered
from histokin.search import nearest_slides, top_k
from histokin.slides import open_slide
from histokin.streams import stream
from histokin.tiles import Tiling, open_tiles
from histokin.tissue import shrink
from histokin.workspace import Workspace

N_EXAMPLES, N_SLIDE_EXAMPLES, N_HITS = 8, 4, 5
PICTURE_PX = 112
THUMBNAIL_PX = 320


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
    slide = {row: rows.slides[rows.slide[row]] for row in wanted}
    found = pictures_by_id(tiling, ((slide[row], int(rows.tile_id[row])) for row in wanted), px)
    return {row: found[key] for row in wanted if (key := (slide[row], int(rows.tile_id[row]))) in found}


def pictures_by_id(
    tiling: Tiling, wanted: Iterable[tuple[str, int]], px: int = PICTURE_PX
) -> dict[tuple[str, int], bytes]:
    """JPEG bytes of tiles by slide and number, as far as they can be decoded; each slide is opened once."""
    own: dict[str, set[int]] = {}
    for slide, tile in wanted:
        own.setdefault(slide, set()).add(tile)
    pictures: dict[tuple[str, int], bytes] = {}
    for slide in sorted(own):
        record = tiling.cohort.record(slide)
        source = open_tiles(
            tiling.cohort, record, tiling.table(record), tiling.spec, np.array(sorted(own[slide]), np.int64)
        )
        for batch in source.stream(64):
            for tile_id, tile in zip(batch.rows.tolist(), batch.pixels, strict=True):
                pictures[slide, tile_id] = tile_jpeg(tile, px)
    return pictures


def tile_jpeg(tile: NDArray[np.uint8], px: int = PICTURE_PX) -> bytes:
    """A square tile, averaged down where it is larger than wanted."""
    return encode(shrink(tile, px))


def encode(picture: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 as JPEG; tissue keeps its colours at full resolution."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(picture), quality=85, colorspace="RGB", colorsubsampling="444")


def slide_thumbnail(work: Workspace, tiling: Tiling, record: SlideRecord, max_px: int = THUMBNAIL_PX) -> bytes | None:
    """The slide with its tissue outlined; of tile sets the picture itself, or its first tile."""
    path = work.thumbnails / f"{record.file_name}.jpg"
    if path.exists():
        return _shrunk(simplejpeg.decode_jpeg(path.read_bytes(), colorspace="RGB"), max_px)
    if tiling.cohort.kind != "tiles" or not record.is_usable:
        return None
    first = next(tile.path for tile in tiling.cohort.tiles if tile.slide == record.slide)
    try:
        with open_slide(tiling.cohort.root / first) as picture:
            return _shrunk(picture.thumbnail(max_px=max_px), max_px)
    except SlideError:
        return None


def _shrunk(picture: NDArray[np.uint8], max_px: int) -> bytes:
    small = shrink(picture, max_px)
    return simplejpeg.encode_jpeg(small, quality=80, colorspace="RGB", colorsubsampling="420")
