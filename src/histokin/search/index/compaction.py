"""Keeping an index quick: many small segments become one, deleted tiles leave the disk, lists are made anew.

Answers are the same before and after, but for `retrain`, which changes the lists that a query looks into.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from histokin.search.index.coarse import assign, count_lists
from histokin.search.index.manifest import Manifest, SegmentFacts, Writer, writer
from histokin.search.index.reader import Version
from histokin.search.index.segment import FIELDS, Rows, Segment, write_segment
from histokin.search.index.writing import NPROBE, read_centroids, train
from histokin.search.searcher import Field
from histokin.search.stored import slide_table
from histokin.streams import stream

FACTOR = 8
"""More segments than this of one size class are merged, and one class is so many times as large as the last."""
SMALLEST = 16_384  # tiles of the first class
LARGEST = 2_097_152  # tiles of a segment that is merged no more: its tables must fit the memory
DEAD = 0.2  # share of deleted tiles from which a segment is written anew
GROWTH, IMBALANCE = 8, 3.0  # when lists no longer fit
_CHANGED = 1.5  # an imbalance that training left is no reason to train again, until the archive has grown so much
_POINTS = 40  # vectors drawn a list
_BLOCK = 16_384


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done.

    Attributes:
        version: in force.
        merged: segments that gave way.
        written: segments that took their place.
        retrained: why the lists were made anew, "" if they were not.
    """

    version: int
    merged: int = 0
    written: int = 0
    retrained: str = ""


def compact(folder: Path | str, *, whole: bool = False, seed: int = 0) -> Compacted:
    """Do what is due: retrain the lists, or merge small segments and write those with many deletions anew.

    Memory is bounded by the tables of the merged rows and a group of their vectors.

    Args:
        folder: the index.
        whole: merge all segments, due or not, up to `LARGEST` tiles each.
        seed: of the sample and k-means if the lists are made anew.

    Raises:
        IndexLocked: another process writes.
        SearchError: there is no index.
    """
    with writer(folder) as opened:
        reason = why_retrain(Version(opened.folder, opened.manifest, {}))
        if reason:
            return replace(_retrain(opened, seed), retrained=reason)
        merged, written = 0, 0
        while groups := _due(opened.manifest.segments, whole=whole):
            made = _replace(opened, groups)
            merged, written = merged + sum(map(len, groups)), written + made
            whole = False
        return Compacted(opened.manifest.number, merged, written)


def retrain(folder: Path | str, *, seed: int = 0) -> Compacted:
    """Make the lists anew from the tiles that are there, whether due or not.

    What was measured on the old lists no longer holds: nprobe goes back to its default.

    Raises:
        IndexLocked: another process writes.
        SearchError: there is no index.
    """
    with writer(folder) as opened:
        return replace(_retrain(opened, seed), retrained="asked for")


def why_retrain(version: Version) -> str:
    """Why the lists no longer fit the archive; "" while they do.

    They do not when it has grown 8 times beyond its plan, or when sum n_i^2 of list sizes is over 3 times that of
    equal lists: scanning is then 3 times as dear as it could be.
    """
    coarse, n = version.manifest.coarse["tiles"], version.manifest.n_tiles
    if n > GROWTH * coarse.n_planned and count_lists(n, n) > coarse.n_lists:
        return f"{n} tiles, planned for {coarse.n_planned}"
    sizes = version.list_sizes().astype(float)
    imbalance = len(sizes) * float((sizes**2).sum()) / max(1, n) ** 2
    if imbalance > IMBALANCE and n >= _CHANGED * coarse.n_trained and count_lists(n, n) >= coarse.n_lists:
        return f"imbalance {imbalance:.1f}"
    return ""


def _due(segments: tuple[SegmentFacts, ...], *, whole: bool) -> list[list[SegmentFacts]]:
    """Groups of segments, each to become one."""
    small = [segment for segment in segments if segment.n_tiles < LARGEST]
    if whole:
        return [group for group in _filled(small) if len(group) > 1 or any(map(_is_worn, group))]
    classes: dict[int, list[SegmentFacts]] = {}
    for segment in small:
        living = segment.n_tiles - segment.n_dead_tiles
        classes.setdefault(_size_class(living), []).append(segment)
    groups = [group for held in classes.values() if len(held) > FACTOR for group in _filled(held)]
    chosen = {segment.name for group in groups for segment in group}
    return groups + [[segment] for segment in segments if segment.name not in chosen and _is_worn(segment)]


def _size_class(n_tiles: int) -> int:
    """0 below the smallest size, 1 up to FACTOR times it, and so on."""
    number, limit = 0, SMALLEST
    while n_tiles >= limit:
        number, limit = number + 1, limit * FACTOR
    return number


def _is_worn(segment: SegmentFacts) -> bool:
    return segment.n_dead_tiles > DEAD * segment.n_tiles or len(segment.dead) == segment.n_slides


def _filled(segments: Iterable[SegmentFacts]) -> list[list[SegmentFacts]]:
    """Groups in the order of writing, none much above the largest size."""
    groups: list[list[SegmentFacts]] = [[]]
    held = 0
    for segment in segments:
        if held >= LARGEST:
            groups.append([])
            held = 0
        groups[-1].append(segment)
        held += segment.n_tiles - segment.n_dead_tiles
    return groups


def _replace(opened: Writer, groups: list[list[SegmentFacts]]) -> int:
    """Put a version in force in which each group is one segment; says how many were written."""
    going = {segment.name for group in groups for segment in group}
    manifest = opened.manifest
    made = [merged for group in groups if (merged := _merge(opened, manifest, group)) is not None]
    opened.put(segments=(*(s for s in manifest.segments if s.name not in going), *made))
    return len(made)


def _retrain(opened: Writer, seed: int) -> Compacted:
    manifest = opened.manifest
    planned: dict[Field, int] = {"tiles": manifest.n_tiles, "mosaics": manifest.n_mosaic}
    n_lists = max(count_lists(n, n) for n in planned.values())
    sample = _draw(Version(opened.folder, manifest, {}), _POINTS * n_lists, seed)
    trained = train(opened.folder, manifest.made, sample, planned, seed)
    coarse = {field: replace(facts, n_trained=planned[field]) for field, facts in trained.items()}
    fresh = replace(manifest, coarse=coarse)
    made = [_merge(opened, manifest, [segment], fresh) for segment in manifest.segments]
    segments = tuple(segment for segment in made if segment is not None)
    # recall was measured on the old lists
    calibration = {name: value for name, value in manifest.calibration.items() if name != "recall"}
    opened.put(segments=segments, coarse=coarse, nprobe=dict(NPROBE), calibration=calibration)
    return Compacted(opened.manifest.number, len(made), len(segments))


def _draw(version: Version, n_wanted: int, seed: int) -> np.ndarray:
    """(n, d) float32 vectors, evenly from all slides, and the same ones wherever these lie."""
    quota = -(-n_wanted // max(1, len(version.slides)))
    drawn = [np.empty((0, version.made.dim), dtype=np.float32)]
    for number, slide in enumerate(version.slides.slide.tolist()):
        vectors = version.bag(number).vectors
        if len(vectors) > quota:
            vectors = vectors[np.sort(stream(seed, "coarse", slide).choice(len(vectors), quota, replace=False))]
        drawn.append(vectors)
    return np.concatenate(drawn)


def _open(opened: Writer, manifest: Manifest, facts: SegmentFacts) -> Segment:
    n_lists: dict[Field, int] = {field: manifest.coarse[field].n_lists for field in FIELDS}
    return Segment(opened.folder / facts.name, facts, manifest.made.dim, n_lists)


def _merge(
    opened: Writer, manifest: Manifest, group: list[SegmentFacts], fresh: Manifest | None = None
) -> SegmentFacts | None:
    """Write what lives in a group as one segment, None if nothing does; in the lists of `fresh` if that is given."""
    parts = [_Living.of(_open(opened, manifest, facts)) for facts in group]
    if not any(len(part.slides) for part in parts):
        return None
    slides = slide_table(row for part in parts for row in part.segment.slides.named(part.slides))
    numbers = {slide: number for number, slide in enumerate(slides.slide.tolist())}
    first = np.cumsum([0, *(len(part.rows) for part in parts)])
    n_labels = np.cumsum([0, *(len(part.segment.labels) for part in parts)])

    def vectors(rows: np.ndarray) -> np.ndarray:
        found = np.empty((len(rows), manifest.made.dim), dtype=np.float16)
        source = np.searchsorted(first, rows, side="right") - 1
        for number in np.unique(source):
            here, part = source == number, parts[number]
            found[here] = part.segment.lists["tiles"].vectors(part.rows[rows[here] - first[number]])
        return found

    means = np.empty((len(slides), manifest.made.dim), dtype=np.float32)
    slide = []
    for part in parts:
        number = np.full(len(part.segment.slides), -1, dtype=np.int32)
        number[part.slides] = [numbers[name] for name in part.segment.slides.slide[part.slides].tolist()]
        means[number[part.slides]] = part.segment.means[part.slides]
        slide.append(number[part.segment.slide[part.rows]])
    mosaic = np.concatenate([start + part.mosaic for start, part in zip(first, parts, strict=False)])
    if fresh is None:
        coarse = manifest.coarse
        lists: dict[Field, np.ndarray] = {f: np.concatenate([part.lists[f] for part in parts]) for f in FIELDS}
    else:
        coarse, centroids = fresh.coarse, read_centroids(opened.folder, fresh)
        every: dict[Field, np.ndarray] = {"tiles": np.arange(first[-1]), "mosaics": mosaic}
        lists = {field: _assign(every[field], vectors, centroids[field]) for field in FIELDS}
    return write_segment(
        opened.new_segment(),
        Rows(
            slides=slides,
            means=means,
            slide=np.concatenate(slide),
            tile=np.concatenate([part.segment.tile[part.rows] for part in parts]),
            coords=np.concatenate([part.segment.coords[part.rows] for part in parts]),
            label=np.concatenate([n + part.segment.label[part.rows] for n, part in zip(n_labels, parts, strict=False)]),
            labels=np.concatenate([part.segment.labels for part in parts]),
            mosaic=mosaic,
            lists=lists,
            n_lists={field: coarse[field].n_lists for field in FIELDS},
            vectors=vectors,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Living:
    """What was not deleted of a segment.

    Attributes:
        segment: the segment.
        slides: (S,) int64 rows of its slide table.
        rows: (n,) int64 rows of its tiles.
        mosaic: (m,) int64 positions in `rows` of the tiles that stand for their slides.
        lists: for each field the list of each of these.
    """

    segment: Segment
    slides: np.ndarray
    rows: np.ndarray
    mosaic: np.ndarray
    lists: dict[Field, np.ndarray]

    @classmethod
    def of(cls, segment: Segment) -> "_Living":
        is_living = np.ones(len(segment.slides), dtype=bool)
        is_living[list(segment.facts.dead)] = False
        rows = np.flatnonzero(is_living[segment.slide])
        place = np.full(len(segment.slide), -1, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        mosaic = np.flatnonzero(place[segment.mosaic] >= 0)
        return cls(
            segment,
            np.flatnonzero(is_living),
            rows,
            place[segment.mosaic[mosaic]],
            {"tiles": segment.lists["tiles"].list_of(rows), "mosaics": segment.lists["mosaics"].list_of(mosaic)},
        )


def _assign(rows: np.ndarray, vectors: Callable[[np.ndarray], np.ndarray], centroids: np.ndarray) -> np.ndarray:
    """(n,) list of each row, read a block at a time."""
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    return np.concatenate([np.empty(0, dtype=np.int32), *(assign(vectors(block), centroids) for block in blocks)])
