"""How much an index loses against looking at every tile, measured on itself; from this follows its nprobe."""

import time
from dataclasses import dataclass

import numpy as np

from histokin.errors import SearchError
from histokin.search.index.reader import Index, Version
from histokin.search.tables import TileHits, Where
from histokin.streams import stream

NPROBES = (16, 32, 64, 128, 256)
K = 10
RECALL, LOW = 0.97, 0.95
"""What the smallest sufficient nprobe reaches, and what the lower end of its interval does."""


@dataclass(frozen=True, slots=True)
class NprobeRow:
    """One number of lists.

    Attributes:
        nprobe: lists looked into.
        recall: share of the exact 10 best that were found, mean over queries.
        low, high: 95 % interval, from the spread between queries.
        ms: median time of a query.
    """

    nprobe: int
    recall: float
    low: float
    high: float
    ms: float


@dataclass(frozen=True, slots=True)
class NprobeCheck:
    """Recall and time by nprobe.

    Attributes:
        rows: ascending by nprobe.
        chosen: the smallest with recall of .97 or more whose interval does not reach below .95; else the largest.
        is_reached: whether there is such a one.
        exact_ms: median time of a query compared with every tile.
        n_queries: tiles asked for.
        left_out: what was no candidate: the query's own `patient`, or `slide` where the archive has one patient.
    """

    rows: tuple[NprobeRow, ...]
    chosen: int
    is_reached: bool
    exact_ms: float
    n_queries: int
    left_out: str


def measure_nprobe(index: Index, n: int = 200, seed: int = 0) -> NprobeCheck:
    """Ask for n of the index's own tiles, their patient left out, with every nprobe and exactly.

    Patients are left out because their tiles are near-duplicates, which any nprobe finds. Slides whose patient is
    unknown are left out one by one. Keep the result with `set_nprobe`.

    Args:
        index: the index.
        n: tiles drawn from all tiles; all of them if there are fewer.
        seed: of the draw.

    Raises:
        SearchError: there are no tiles of a second patient or slide to be found.
    """
    version = index.pinned()
    left_out, filters = _filters(version)
    if not left_out:
        raise SearchError("recall cannot be measured on one slide", index.folder, "Add slides first.")
    first = np.cumsum([0, *version.tile_counts()])
    drawn = np.sort(stream(seed, "nprobe").choice(len(version), min(n, len(version)), replace=False))
    slides = np.searchsorted(first, drawn, side="right") - 1
    queries = np.concatenate(
        [version.bag(slide).vectors[drawn[slides == slide] - first[slide]] for slide in np.unique(slides)]
    )
    wanted, exact_ms = _ask(version, queries, slides, filters, None)
    n_lists = len(version.list_sizes())
    rows = []
    for nprobe in sorted({min(nprobe, n_lists) for nprobe in NPROBES}):
        found, ms = _ask(version, queries, slides, filters, nprobe)
        rows.append(_row(nprobe, [_recall(a, b) for a, b in zip(found, wanted, strict=True)], ms))
    good = [row.nprobe for row in rows if row.recall >= RECALL and row.low >= LOW]
    return NprobeCheck(tuple(rows), good[0] if good else rows[-1].nprobe, bool(good), exact_ms, len(queries), left_out)


def _filters(version: Version) -> tuple[str, list[Where]]:
    """What is left out, and the filter of each slide's queries; "" if nothing would be left."""
    patient = version.slides.patient.tolist()
    by_slide = [Where.of(leave_out={"slide": [slide]}) for slide in version.slides.slide.tolist()]
    if len(set(patient) - {""}) > 1 or "" in patient:
        mixed = [
            Where.of(leave_out={"patient": [name]}) if name else own
            for name, own in zip(patient, by_slide, strict=True)
        ]
        return "patient", mixed
    return ("slide" if len(by_slide) > 1 else ""), by_slide


def _ask(
    version: Version, queries: np.ndarray, slides: np.ndarray, filters: list[Where], nprobe: int | None
) -> tuple[list[TileHits], float]:
    """Hits of each query and the median of their times in milliseconds; exact where nprobe is None."""
    found, times = [], []
    for query, slide in zip(queries, slides, strict=True):
        where = filters[slide]
        version.list_sizes(where)  # works the filter out: evaluation asks it of many queries
        start = time.perf_counter()
        found.append(version.search(query[None], K, where=where, exact=nprobe is None, nprobe=nprobe))
        times.append(time.perf_counter() - start)
    return found, 1000 * float(np.median(times))


def _recall(found: TileHits, wanted: TileHits) -> float:
    held, sought = _tiles(found), _tiles(wanted)
    return len(held & sought) / len(sought)


def _tiles(hits: TileHits) -> set[tuple[int, int]]:
    return set(zip(hits.slide[0].tolist(), hits.tile[0].tolist(), strict=True)) - {(-1, -1)}


def _row(nprobe: int, recalls: list[float], ms: float) -> NprobeRow:
    mean = float(np.mean(recalls))
    half = 1.96 * float(np.std(recalls, ddof=1)) / len(recalls) ** 0.5 if len(recalls) > 1 else 1.0
    return NprobeRow(nprobe, mean, max(0.0, mean - half), min(1.0, mean + half), ms)
