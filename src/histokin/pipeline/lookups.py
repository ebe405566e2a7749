"""Retrieval in pictures, side by side: a few drawn tiles, and by every encoder the tiles most like them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import UNNAMED
from histokin.embeddings import Embeddings
from histokin.evaluate import floor_distance
from histokin.evaluate.vectors import standardised
from histokin.pipeline.pictures import N_HITS, tile_pictures
from histokin.report import Lookup, Picture
from histokin.search import top_k
from histokin.streams import stream
from histokin.tiles import Tiling

N_QUERIES = 3
MAX_PICTURED = 8
"""Encoders whose neighbours are shown; all of them are measured."""
_THIRDS = ("low", "middle", "high")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is looked up.

    Attributes:
        tiling: where the pixels are.
        rows: the tiles, N of them.
        features: (N, d) by row of the pictures: encoders, then a floor.
        texts: (N,) labels or values; "" for tiles that neither ask nor answer.
        groups: (N,) what is left out with the query.
        patient: (N,) shown beside each picture.
        is_numeric: whether the texts are values.
    """

    tiling: Tiling
    rows: Embeddings
    features: Mapping[str, NDArray[np.float32]]
    texts: NDArray[np.object_]
    groups: NDArray[np.object_]
    patient: NDArray[np.object_]
    is_numeric: bool


def look_up(asked: Asked, seed: int) -> list[Lookup]:
    """Drawn queries with each row's neighbours; none where no tile has a text to ask by."""
    queries = draw_queries(asked.texts, seed, is_numeric=asked.is_numeric)
    found = {name: _nearest(asked, name, queries) for name in asked.features} if queries else {}
    wanted = sorted({*queries, *(hit for hits in found.values() for row in hits for hit in row)})
    images = tile_pictures(asked.tiling, asked.rows, wanted)
    lookups = []
    for number, query in enumerate(queries):
        if query not in images:
            continue
        answers = [
            (name, [_picture(asked, images, hit, query) for hit in hits[number] if hit in images])
            for name, hits in found.items()
        ]
        lookups.append(Lookup(_picture(asked, images, query, None), answers))
    return lookups


def lookup_note(seed: int, leave_out: str, floor: str, n_hidden: int, *, is_numeric: bool) -> str:
    """How the queries were drawn, and what is not shown."""
    how = "One tile each of low, middle and high value" if is_numeric else "Tiles of one class after the other"
    text = f"{how}, drawn at random (seed {seed}); tiles of the same {leave_out} cannot answer."
    if floor.startswith("random"):
        text += f" Of the floor {floor} the first of its three seeds is shown."
    if n_hidden:
        text += f" {n_hidden} further {'entry is' if n_hidden == 1 else 'entries are'} not pictured."
    return text


def draw_queries(texts: NDArray[np.object_], seed: int, *, is_numeric: bool) -> list[int]:
    """Up to three tiles that ask: of classes one after the other, or one from each third of the values.

    Args:
        texts: (n,) labels or numbers as text; "" cannot ask.
        seed: of the draw.
        is_numeric: whether the texts are numbers.

    Returns:
        Rows, each once.
    """
    rows = np.flatnonzero(texts != "")
    if not len(rows):
        return []
    if is_numeric:
        ordered = rows[np.argsort(np.array([float(texts[row]) for row in rows]), kind="stable")]
        parts = list(zip(_THIRDS, np.array_split(ordered, N_QUERIES), strict=True))
        return [int(stream(seed, "lookup", name).choice(part)) for name, part in parts if len(part)]
    names = stream(seed, "lookup classes").permutation(sorted(set(texts[rows].tolist()))).tolist()
    pools = {name: stream(seed, "lookup", name).permutation(np.flatnonzero(texts == name)).tolist() for name in names}
    queries: list[int] = []
    while len(queries) < min(N_QUERIES, len(rows)):
        for name in names:
            if pools[name] and len(queries) < N_QUERIES:
                queries.append(pools[name].pop())
    return queries


def _nearest(asked: Asked, name: str, queries: Sequence[int]) -> list[list[int]]:
    """Rows of the nearest tiles that may answer, a list a query."""
    allowed = np.flatnonzero(asked.texts != "")
    metric, is_scaled = floor_distance(name)
    database = asked.features[name][allowed]
    if is_scaled:
        database = standardised(database)
    groups = np.unique(asked.groups[allowed].astype(str), return_inverse=True)[1]
    at = np.searchsorted(allowed, np.array(queries))
    found = top_k(database[at], database, N_HITS, metric=metric, query_groups=groups[at], database_groups=groups)
    return [[int(allowed[i]) for i in ids if i >= 0] for ids in found.ids]


def _picture(asked: Asked, images: Mapping[int, bytes], row: int, query: int | None) -> Picture:
    text = str(asked.texts[row])
    return Picture(
        image=images[row],
        slide=str(asked.rows.slides[asked.rows.slide[row]]),
        patient=str(asked.patient[row]).removeprefix(UNNAMED),
        label="" if asked.is_numeric else text,
        is_right=None if query is None or asked.is_numeric else bool(text == asked.texts[query]),
        caption=f"{float(text):.3g}" if asked.is_numeric else "",
    )
