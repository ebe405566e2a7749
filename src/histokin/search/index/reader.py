"""`Index`: an index on disk as a `Searcher`, following its writer; `Version`: one version of it, unchanging."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from histokin.errors import IndexDamaged
from histokin.search.exact import MARGIN, TOLERANCE
from histokin.search.index.coarse import nearest_lists
from histokin.search.index.lists import Lists
from histokin.search.index.manifest import Manifest, read_current, read_manifest
from histokin.search.index.segment import FIELDS, Segment, check_content, check_size
from histokin.search.ranking import check_k, pair_scores, rank_pairs, take_hits, unit_queries
from histokin.search.searcher import Field
from histokin.search.stored import slide_table
from histokin.search.tables import (
    EVERYTHING,
    Made,
    Mosaics,
    SlideTable,
    SlideTiles,
    TileHits,
    Where,
    allowed_labels,
)

_NARROW = 0.1
"""Share of rows below which a filter is answered from all lists that hold allowed rows (search.md, 3.6)."""
_FAR = 0.5
"""Below this density of allowed rows near the query, against all over, filter and query lie in different tissue."""
_SPARE = 4  # rows looked at for each hit asked for, at least
_QUERIES = 256  # answered at a time
_SELECTIONS = 32  # filters whose bitmaps are kept
_ATTEMPTS = 10  # at opening a version that is removed meanwhile
_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class _Selection:
    """A filter, worked out for one field of one version.

    Attributes:
        bitmaps: for each segment the packed rows that may be found; None: all of them, empty: none.
        counts: (nlist,) int64 allowed rows of each list, over all segments.
        filled: (m,) int64 lists that hold any.
        n_allowed: rows.
    """

    bitmaps: tuple[np.ndarray | None, ...]
    counts: np.ndarray
    filled: np.ndarray
    n_allowed: int


class Version:
    """One version of an index, open: a `Searcher` whose slides and answers stay as they are.

    Several calls that belong together (find, then look at what was found) go to one version: see `Index.pinned`.
    """

    def __init__(self, folder: Path, manifest: Manifest, known: dict[str, Segment]) -> None:
        self.manifest = manifest
        n_lists: dict[Field, int] = {field: manifest.coarse[field].n_lists for field in FIELDS}
        for coarse in manifest.coarse.values():
            check_size(folder / coarse.file, coarse.facts)
        self._centroids = {field: _centroids(folder / manifest.coarse[field].file) for field in FIELDS}
        self.segments: dict[str, Segment] = {}
        for facts in manifest.segments:
            held = known.get(facts.name)
            if held is None or held.facts.files != facts.files:  # an index built anew has segments of the same names
                held = Segment(folder / facts.name, facts, manifest.made.dim, n_lists)
            self.segments[facts.name] = held
        self._open = list(self.segments.values())
        living = [np.setdiff1d(np.arange(facts.n_slides), facts.dead) for facts in manifest.segments]
        rows = [row for segment, held in zip(self._open, living, strict=True) for row in segment.slides.named(held)]
        self._slides = slide_table(rows)
        # Where each slide of the table lies, and which number each slide of a segment has (-1: deleted).
        order = sorted(range(len(rows)), key=lambda row: rows[row][0])
        self._home = np.repeat(np.arange(len(living)), [len(held) for held in living])[order]
        self._row = np.concatenate([_NONE, *living])[order]
        self._numbers = [np.full(len(segment.slides), -1, dtype=np.int64) for segment in self._open]
        for number, (home, row) in enumerate(zip(self._home, self._row, strict=True)):
            self._numbers[home][row] = number
        self._selections: OrderedDict[tuple[Where, Field], _Selection] = OrderedDict()

    @property
    def made(self) -> Made:
        return self.manifest.made

    @property
    def slides(self) -> SlideTable:
        return self._slides

    @property
    def n_mosaic(self) -> int:
        return self.manifest.n_mosaic

    def __len__(self) -> int:
        return self.manifest.n_tiles

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        where: Where = EVERYTHING,
        field: Field = "tiles",
        exact: bool = False,
        nprobe: int | None = None,
    ) -> TileHits:
        """See `Searcher.search`; `nprobe` instead of the one that the index keeps."""
        check_k(k)
        asked = unit_queries(queries, self.made.dim)
        chosen = self._selection(where, field)
        found = [
            self._pairs(part, k, chosen, self._lists(part, k, chosen, field, nprobe=nprobe, exact=exact), field)
            for part in (asked[start : start + _QUERIES] for start in range(0, len(asked), _QUERIES))
        ]
        home, row = (np.concatenate([_NONE, *(pairs[n] for pairs in found)]) for n in (1, 2))
        query = np.concatenate([_NONE, *(n * _QUERIES + pairs[0] for n, pairs in enumerate(found))])
        slide, tile = np.empty(len(query), dtype=np.int64), np.empty(len(query), dtype=np.int64)
        coords, label = np.empty((len(query), 2), dtype=np.int64), np.empty(len(query), dtype=object)
        score = np.empty(len(query))
        for number, segment in enumerate(self._open):
            here = np.flatnonzero(home == number)
            if not len(here):
                continue
            at = row[here]
            score[here] = pair_scores(asked, query[here], at, segment.lists[field].vectors)
            tiles = segment.mosaic[at] if field == "mosaics" else at
            slide[here], tile[here] = self._numbers[number][segment.slide[tiles]], segment.tile[tiles]
            coords[here], label[here] = segment.coords[tiles], segment.labels[segment.label[tiles]]
        places = rank_pairs(query, score, slide, tile, len(asked), k)
        return take_hits(places, score, slide, tile, coords, label)

    def bag(self, slide: int) -> SlideTiles:
        """See `Searcher.bag`."""
        segment = self._open[self._home[slide]]
        rows = segment.rows_of(self._row[slide], "tiles")
        vectors = segment.lists["tiles"].vectors(rows).astype(np.float32)
        return SlideTiles(vectors, segment.tile[rows], segment.coords[rows], segment.labels[segment.label[rows]])

    def mosaics(self, slides: np.ndarray) -> Mosaics:
        """See `Searcher.mosaics`."""
        slides = np.asarray(slides, dtype=np.int64)
        homes = self._home[slides]
        rows = [self._open[h].rows_of(r, "mosaics") for h, r in zip(homes, self._row[slides], strict=True)]
        sizes = np.array([len(part) for part in rows], dtype=np.int64)
        row, home = np.concatenate([_NONE, *rows]), np.repeat(homes, sizes)
        vectors = np.empty((len(row), self.made.dim), dtype=np.float16)
        tile, coords = np.empty(len(row), dtype=np.int64), np.empty((len(row), 2), dtype=np.int64)
        for number in np.unique(home):
            here, segment = np.flatnonzero(home == number), self._open[number]
            vectors[here] = segment.lists["mosaics"].vectors(row[here])
            tiles = segment.mosaic[row[here]]
            tile[here], coords[here] = segment.tile[tiles], segment.coords[tiles]
        return Mosaics(vectors, np.concatenate([[0], np.cumsum(sizes)]), tile, coords)

    def means(self, slides: np.ndarray) -> np.ndarray:
        """See `Searcher.means`."""
        means = np.empty((len(slides), self.made.dim), dtype=np.float32)
        for place, slide in enumerate(slides):
            means[place] = self._open[self._home[slide]].means[self._row[slide]]
        return means

    def list_sizes(self, where: Where = EVERYTHING, field: Field = "tiles") -> np.ndarray:
        """(nlist,) int64 living rows of each list that a filter allows."""
        return self._selection(where, field).counts

    def tile_counts(self) -> np.ndarray:
        """(S,) int64 tiles of each slide."""
        counts = np.zeros(len(self._slides) + 1, dtype=np.int64)  # the last for number -1: deleted
        for segment, numbers in zip(self._open, self._numbers, strict=True):
            counts[numbers] += np.bincount(segment.slide, minlength=len(numbers))
        return counts[:-1]

    def _selection(self, where: Where, field: Field) -> _Selection:
        """What a filter allows; kept, since evaluation asks the same of many queries."""
        key = (where, field)
        found = self._selections.get(key)
        if found is None:
            found = self._select(where, field)
            self._selections[key] = found
            if len(self._selections) > _SELECTIONS:
                self._selections.popitem(last=False)
        return found

    def _select(self, where: Where, field: Field) -> _Selection:
        allowed = np.append(self._slides.allowed(where), False)  # the last for number -1: deleted
        counts = np.zeros(len(self._centroids[field]), dtype=np.int64)
        bitmaps: list[np.ndarray | None] = []
        for segment, numbers in zip(self._open, self._numbers, strict=True):
            of_slides = allowed[numbers]
            of_labels = allowed_labels(segment.labels, where)
            lists = segment.lists[field]
            if of_slides.all() and of_labels.all():
                bitmaps.append(None)
                counts += lists.sizes
                continue
            tiles = segment.tiles(field)
            is_allowed = of_slides[segment.slide[tiles]] & of_labels[segment.label[tiles]]
            counts += np.bincount(lists.list_of(np.flatnonzero(is_allowed)), minlength=len(counts))
            bitmaps.append(np.packbits(is_allowed, bitorder="little") if is_allowed.any() else np.empty(0, np.uint8))
        return _Selection(tuple(bitmaps), counts, np.flatnonzero(counts), int(counts.sum()))

    def _lists(
        self, asked: np.ndarray, k: int, chosen: _Selection, field: Field, *, nprobe: int | None, exact: bool
    ) -> np.ndarray:
        """(Q, m) int64 lists that each query looks into, -1 filling up."""
        centroids, living = self._centroids[field], self._selection(EVERYTHING, field)
        n_lists = nprobe or self.manifest.nprobe[field]
        if exact or n_lists >= len(centroids) or chosen.n_allowed <= _NARROW * living.n_allowed:
            return np.broadcast_to(chosen.filled, (len(asked), len(chosen.filled)))
        products = asked.astype(np.float32) @ centroids.T
        looked = [
            _near(partial(nearest_lists, query, row, centroids, n_lists), chosen, living, _SPARE * k)
            for query, row in zip(asked, products, strict=True)
        ]
        lists = np.full((len(asked), max(len(found) for found in looked)), -1, dtype=np.int64)
        for row, found in zip(lists, looked, strict=True):
            row[: len(found)] = found
        return lists

    def _pairs(
        self, asked: np.ndarray, k: int, chosen: _Selection, lists: np.ndarray, field: Field
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All pairs (query, segment, row) that may be among the k best of the lists looked into.

        A segment's own candidates end somewhere; where rows beyond them could tie with the k-th within the rounding
        of float32 products, more are taken.
        """
        queries, lists = asked.astype(np.float32), np.ascontiguousarray(lists)
        scans: list[tuple[int, _Scan]] = []
        for number, (segment, bitmap) in enumerate(zip(self._open, chosen.bitmaps, strict=True)):
            if lists.size and len(segment.lists[field]) and (bitmap is None or len(bitmap)):
                scans.append((number, _Scan(segment.lists[field], queries, lists, bitmap, k + MARGIN)))
        if not scans:
            return _NONE, _NONE, _NONE
        scores = np.concatenate([scan.scores for _, scan in scans], axis=1)
        floor = np.full(len(asked), -np.inf, dtype=np.float32)
        if scores.shape[1] >= k:
            floor = np.partition(scores, -k, axis=1)[:, -k] - np.float32(TOLERANCE)
        found = [(number, *scan.above(floor)) for number, scan in scans]
        home = np.repeat([number for number, _, _ in found], [len(row) for _, _, row in found])
        return np.concatenate([q for _, q, _ in found]), home, np.concatenate([row for _, _, row in found])


class _Scan:
    """The best rows of one segment for some queries, as far as float32 products tell.

    Attributes:
        scores: (Q, w) float32, -inf where there are fewer.
        rows: (Q, w) int64, -1 where there are fewer.
    """

    def __init__(
        self, held: Lists, queries: np.ndarray, lists: np.ndarray, bitmap: np.ndarray | None, width: int
    ) -> None:
        self._held, self._queries, self._lists, self._bitmap = held, queries, lists, bitmap
        self._width = min(width, len(held))
        self.scores, self.rows = held.scan(queries, lists, self._width, bitmap)
        self.scores[self.rows < 0] = -np.inf

    def above(self, floor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pairs (query, row) of all rows that score at least `floor` (Q,)."""
        query, slot = np.nonzero((self.scores >= floor[:, None]) & (self.rows >= 0))
        row = self.rows[query, slot]
        more = np.flatnonzero((self.rows[:, -1] >= 0) & (self.scores[:, -1] >= floor))
        if not len(more) or self._width == len(self._held):
            return query, row
        wider = _Scan(self._held, self._queries[more], self._lists[more], self._bitmap, 4 * self._width)
        again, found = wider.above(floor[more])
        kept = ~np.isin(query, more)
        return np.concatenate([query[kept], more[again]]), np.concatenate([row[kept], found])


def _near(
    looks: Callable[[np.ndarray, float], np.ndarray], chosen: _Selection, living: _Selection, n_rows: float
) -> np.ndarray:
    """The lists near a query that hold as many allowed rows as it would look at without a filter.

    Where few of the rows near it are allowed, that many would be found at the edge of the allowed tissue (recall .43
    to .88, search.md 3.4): then all lists that hold allowed rows. `n_rows` allowed rows are looked at in any case.
    """
    if chosen.n_allowed < living.n_allowed:
        near = looks(chosen.counts, 0.0)
        share = chosen.counts[near].sum() / max(1, living.counts[near].sum())
        if share < _FAR * chosen.n_allowed / living.n_allowed:
            return chosen.filled
        n_rows = max(n_rows, len(near) * living.n_allowed / len(living.counts))
    return looks(chosen.counts, n_rows)


def _centroids(path: Path) -> np.ndarray:
    try:
        return np.load(path)
    except (ValueError, EOFError) as error:
        raise IndexDamaged("its centroids cannot be read", path, "Build the index anew.") from error


class Index:
    """An index on disk: a `Searcher` that sees each complete version its writer makes.

    `search` looks first whether there is a newer version; slide numbers of its hits, `slides`, `bag` and the rest are
    those of the version that was last looked at. Calls that belong together go through `pinned`.

    Args:
        folder: the index.

    Raises:
        IndexDamaged: a file is missing or of another size than was written.
        SearchError: there is no index, or one of another format.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._current, self._version = self._open({})

    def pinned(self) -> Version:
        """The version in force, which stays as it is."""
        self.refresh()
        return self._version

    def refresh(self) -> bool:
        """Go to the version in force; says whether it is another one."""
        if read_current(self.folder) == self._current:
            return False
        self._current, self._version = self._open(self._version.segments)
        return True

    def verify(self) -> None:
        """Read every file of the version in force and compare it with its digest.

        Raises:
            IndexDamaged: the first file that differs is named.
        """
        for name, facts in self.pinned().manifest.files().items():
            check_content(self.folder / name, facts)

    def _open(self, known: dict[str, Segment]) -> tuple[str, Version]:
        for attempt in range(_ATTEMPTS):
            current = read_current(self.folder)
            try:
                return current, Version(self.folder, read_manifest(self.folder, current), known)
            except FileNotFoundError as error:
                # Removed since CURRENT was read: another version is in force. If not, it is missing.
                if read_current(self.folder) == current or attempt == _ATTEMPTS - 1:
                    raise IndexDamaged(
                        "a file is missing", str(error.filename), "Restore it, or build the index anew."
                    ) from error
        raise AssertionError

    @property
    def manifest(self) -> Manifest:
        return self._version.manifest

    @property
    def made(self) -> Made:
        return self._version.made

    @property
    def slides(self) -> SlideTable:
        return self._version.slides

    @property
    def n_mosaic(self) -> int:
        return self._version.n_mosaic

    def __len__(self) -> int:
        return len(self._version)

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        where: Where = EVERYTHING,
        field: Field = "tiles",
        exact: bool = False,
    ) -> TileHits:
        """See `Searcher.search`."""
        return self.pinned().search(queries, k, where=where, field=field, exact=exact)

    def bag(self, slide: int) -> SlideTiles:
        """See `Searcher.bag`."""
        return self._version.bag(slide)

    def mosaics(self, slides: np.ndarray) -> Mosaics:
        """See `Searcher.mosaics`."""
        return self._version.mosaics(slides)

    def means(self, slides: np.ndarray) -> np.ndarray:
        """See `Searcher.means`."""
        return self._version.means(slides)
