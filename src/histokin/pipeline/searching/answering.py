"""From tiles that ask to answers: which search is made, and what its hits and their evidence are."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from histokin.errors import SearchError
from histokin.pipeline.indexing.archive import PICTURE
from histokin.pipeline.searching.archive import Archive
from histokin.pipeline.searching.questions import Asked, tile_side
from histokin.search.refine import rocchio
from histokin.search.region import find_windows, tile_weights
from histokin.search.slide_search import QueryBag, search_slides
from histokin.search.strategies import STRATEGIES, AnyStrategy, Fish, RetCCL
from histokin.search.tables import EVERYTHING, TILE_LABEL, TileHits, Where

Level = Literal["tile", "region", "slide"]
LeaveOut = Literal["patient", "slide", "self"]
DEFAULT_STRATEGY = "maxsim"
_TILE_HITS = 300  # of each query tile, from which windows are put together


@dataclass(frozen=True, slots=True)
class Wish:
    """How answers are wanted.

    Attributes:
        level: of the answers; None is that of the question (a picture asks for regions).
        k: answers.
        strategy: of slide search, a name of `search.strategies`.
        leave_out: what cannot answer: the query's patient, its slide, or only itself.
        keep, drop: filters by column: only these values, or all but these.
        exact: compare with everything.
        label: column of labels that names answers and that strategies with labels rank by.
        pins, rejects: (slide, tile) of hits that the query is moved towards and away from.
    """

    level: Level | None = None
    k: int = 10
    strategy: str = DEFAULT_STRATEGY
    leave_out: LeaveOut = "patient"
    keep: tuple[tuple[str, tuple[str, ...]], ...] = ()
    drop: tuple[tuple[str, tuple[str, ...]], ...] = ()
    exact: bool = False
    label: str | None = None
    pins: tuple[tuple[str, int], ...] = ()
    rejects: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.leave_out not in get_args(LeaveOut) or self.level not in (None, *get_args(Level)):
            raise ValueError(f"unknown leave_out {self.leave_out!r} or level {self.level!r}")


@dataclass(frozen=True, slots=True)
class Met:
    """One pair of tiles: a row of the query's bag and a tile of the answer's slide.

    Attributes:
        row: of the bag.
        tile: its number, -1 where it has none.
        place: its (x, y) in level-0 px, -1 where it has none.
        score: of the pair.
        share: of the answer's score.
    """

    row: int
    tile: int
    place: tuple[int, int]
    score: float
    share: float


@dataclass(frozen=True, slots=True)
class Found:
    """One answer.

    Attributes:
        slide: number in the archive's table.
        score: larger is more alike.
        tile: its number where a tile answers, else -1.
        label: of that tile.
        box: (x, y, w, h) in level-0 px of a tile or region; None for slides and tiles without a place.
        evidence: pairs of tiles, the greatest share first.
    """

    slide: int
    score: float
    tile: int = -1
    label: str = ""
    box: tuple[float, float, float, float] | None = None
    evidence: tuple[Met, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """All answers to one question.

    Attributes:
        level: of the answers.
        strategy: how slides were compared, "" for tiles and regions.
        where: what could answer.
        found: best first.
        notes: what a reader must know of the search.
        n_own: tiles that `where` allows and that were left out nevertheless: the query itself.
    """

    level: Level
    strategy: str
    where: Where
    found: tuple[Found, ...]
    notes: tuple[str, ...] = ()
    n_own: int = 0


def answer(asked: Asked, archive: Archive, wish: Wish) -> Answered:
    """Search the archive.

    Raises:
        SearchError: an unknown column, strategy or tile; marks that cancel the query; tiles without places for regions.
    """
    level = wish.level or ("region" if asked.kind == "picture" else asked.kind)
    strategy_for(wish.strategy, wish.label)  # an unknown one is refused whatever answers
    if level != "slide" and wish.strategy != DEFAULT_STRATEGY:
        raise SearchError(
            f"{level}s are not ranked by a strategy of slides such as {wish.strategy}",
            "search",
            "Leave --strategy out, or ask for slides: --level slide.",
        )
    where = allowed(asked, archive, wish, level)
    bag = _refined(asked.bag, archive, wish)
    if level == "tile":
        return _tiles(asked, bag, archive, wish, where)
    if level == "region":
        return _regions(asked, bag, archive, wish, where)
    return _slides(bag, archive, wish, where)


def allowed(asked: Asked, archive: Archive, wish: Wish, level: Level) -> Where:
    """Who may answer: what the wish keeps, without the query's own patient or slide."""
    keep, drop = _by_column(wish.keep), _by_column(wish.drop)
    slides, own = archive.searcher.slides, asked.question.slide
    for filters in (keep, drop):
        if "patient" in filters:
            filters["patient"] = {archive.source.counts_as.get(name, name) for name in filters["patient"]}
    if wish.leave_out == "patient" and asked.patient:
        drop.setdefault("patient", set()).add(asked.patient)
    if wish.leave_out == "slide" and asked.picture:
        column, value = (PICTURE, asked.picture) if PICTURE in slides.columns else ("slide", own)
        drop.setdefault(column, set()).add(value)
    if wish.leave_out == "self" and own and "slide" in (asked.kind, level):
        drop.setdefault("slide", set()).add(own)  # the slide is the query, or holds it
    where = Where.of(keep=keep, leave_out=drop)
    slides.allowed(where)  # an unknown column is refused before anything is searched
    if wish.label is not None and wish.label != TILE_LABEL:
        slides.column(wish.label)
    return where


def _by_column(filters: Iterable[tuple[str, tuple[str, ...]]]) -> dict[str, set[str]]:
    """Values by column; a column that is named twice has the values of both."""
    found: dict[str, set[str]] = {}
    for column, values in filters:
        found.setdefault(column, set()).update(values)
    return found


def _own_tiles(asked: Asked, archive: Archive, wish: Wish) -> NDArray[np.int64]:
    """Numbers of the query slide's tiles that are the query itself, where that alone is left out."""
    if wish.leave_out != "self" or not asked.question.slide or asked.kind == "slide":
        return np.zeros(0, np.int64)
    if asked.kind == "tile" or asked.box is None or asked.side is None:
        return asked.bag.tile
    tiles = archive.searcher.bag(archive.searcher.slides.number(asked.question.slide))
    return tiles.tile[tile_weights(tiles.coords, asked.side, asked.box) > 0]


def _without_own(hits: TileHits, slide: int, own: NDArray[np.int64]) -> TileHits:
    """Hits with the query's own tiles struck out."""
    is_own = (hits.slide == slide) & np.isin(hits.tile, own)
    score = np.where(is_own, np.nan, hits.score)
    return replace(hits, score=score, slide=np.where(is_own, -1, hits.slide), tile=np.where(is_own, -1, hits.tile))


def _refined(bag: QueryBag, archive: Archive, wish: Wish) -> QueryBag:
    """The query moved towards the pinned hits and away from the rejected ones."""
    if not wish.pins and not wish.rejects:
        return bag
    pins, rejects = (_marked(archive, marks) for marks in (wish.pins, wish.rejects))
    return QueryBag(rocchio(bag.vectors, pins, rejects), bag.weights, bag.tile, bag.coords)


def _marked(archive: Archive, marks: tuple[tuple[str, int], ...]) -> NDArray[np.float32] | None:
    vectors = []
    for slide, tile in marks:
        held = archive.searcher.bag(archive.searcher.slides.number(slide))
        row = np.flatnonzero(held.tile == tile)
        if not len(row):
            raise SearchError(f"slide {slide} has no tile {tile}", "refining", "Name a hit as SLIDE:TILE.")
        vectors.append(held.vectors[row[0]])
    return np.stack(vectors) if vectors else None


def _tiles(asked: Asked, bag: QueryBag, archive: Archive, wish: Wish, where: Where) -> Answered:
    searcher = archive.searcher
    notes: tuple[str, ...] = ()
    query = bag.vectors
    if len(bag) > 1:
        unit = bag.vectors / np.linalg.norm(bag.vectors, axis=1, keepdims=True)
        query = (bag.weights @ unit)[None]
        notes = (f"Tiles were asked for by the weighted mean of {len(bag)} query tiles.",)
    own = _own_tiles(asked, archive, wish)
    hits = searcher.search(query, wish.k + len(own), where=where, exact=wish.exact)
    if len(own):
        hits = _without_own(hits, searcher.slides.number(asked.question.slide), own)
    found = []
    for slot in range(hits.slide.shape[1]):
        slide, tile = int(hits.slide[0, slot]), int(hits.tile[0, slot])
        if slide < 0:
            continue
        side = tile_side(archive.source.tiling, str(searcher.slides.slide[slide]))
        x, y = int(hits.x[0, slot]), int(hits.y[0, slot])
        box = (float(x), float(y), side[0], side[1]) if side and x >= 0 else None
        found.append(Found(slide, float(hits.score[0, slot]), tile, str(hits.label[0, slot] or ""), box))
    return Answered("tile", "", where, tuple(found[: wish.k]), notes, len(own))


def _regions(asked: Asked, bag: QueryBag, archive: Archive, wish: Wish, where: Where) -> Answered:
    """Places of the query's size whose tiles its tiles are most like."""
    searcher, tiling = archive.searcher, archive.source.tiling
    slides = searcher.slides
    side = np.array([tile_side(tiling, slide) or (0, 0) for slide in slides.slide.tolist()], dtype=np.float64)
    side = side.reshape(-1, 2)
    if not side.any() or asked.side is None:
        raise SearchError(
            "regions need the size of tiles and their places", "search", "Ask for tiles (--level tile) or slides."
        )
    own = _own_tiles(asked, archive, wish)
    hits = searcher.search(bag.vectors, _TILE_HITS + len(own), where=where, exact=wish.exact)
    if len(own):
        hits = _without_own(hits, slides.number(asked.question.slide), own)
    # A query without a box of its own (a whole slide) asks for places of one tile.
    tiles_wide = (asked.box.w / asked.side[0], asked.box.h / asked.side[1]) if asked.box else (1.0, 1.0)
    windows = find_windows(hits, slides, weights=bag.weights, size=side * np.array(tiles_wide), side=side, n=wish.k)
    notes = [] if not windows.n_unplaced else [f"{windows.n_unplaced} hits on tiles without a place were passed over."]
    found = []
    for n in range(len(windows)):
        pairs = [
            (row, int(slot), float(hits.score[row, slot])) for row, slot in enumerate(windows.slot[n]) if slot >= 0
        ]
        total = sum(bag.weights[row] * max(score, 0.0) for row, _, score in pairs) or 1.0
        evidence = [
            Met(
                row,
                int(hits.tile[row, slot]),
                (int(hits.x[row, slot]), int(hits.y[row, slot])),
                score,
                float(bag.weights[row] * max(score, 0.0) / total),
            )
            for row, slot, score in pairs
        ]
        box = (float(windows.x[n]), float(windows.y[n]), float(windows.w[n]), float(windows.h[n]))
        evidence.sort(key=lambda met: (-met.share, met.row))
        found.append(Found(int(windows.slide[n]), float(windows.score[n]), box=box, evidence=tuple(evidence)))
    if any(windows.met < 1 - 1e-9):
        notes.append(
            f"Of query tiles without a hit in a place the last of their {_TILE_HITS} hits counts: its score is then an "
            "upper bound."
        )
    return Answered("region", "", where, tuple(found), tuple(notes), len(own))


def _slides(bag: QueryBag, archive: Archive, wish: Wish, where: Where) -> Answered:
    searcher = archive.searcher
    if where.of_tiles() != EVERYTHING:
        raise SearchError("slides cannot be filtered by the labels of tiles", "search", "Filter by columns of slides.")
    hits = search_slides(
        searcher, bag, wish.k, strategy=strategy_for(wish.strategy, wish.label), where=where, exact=wish.exact
    )
    found = []
    for n in range(len(hits)):
        e = hits.evidence
        evidence = tuple(
            Met(
                int(e.query_row[n, i]),
                int(e.tile[n, i]),
                (int(e.place[n, i, 0]), int(e.place[n, i, 1])),
                float(e.similarity[n, i]),
                float(e.share[n, i]),
            )
            for i in range(e.query_row.shape[1])
            if e.query_row[n, i] >= 0
        )
        found.append(Found(int(hits.slide[n]), float(hits.score[n]), evidence=evidence))
    return Answered("slide", wish.strategy, where, tuple(found), tuple(f"{note}." for note in hits.notes))


def strategy_for(name: str, label: str | None) -> AnyStrategy:
    """A preset, ranking by the labels of a column where it ranks by labels.

    Raises:
        SearchError: there is no such strategy, or it needs a label and none is named.
    """
    if name not in STRATEGIES:
        raise SearchError(f"there is no strategy {name!r}", "search", f"Known: {', '.join(sorted(STRATEGIES))}.")
    chosen = STRATEGIES[name]
    if not isinstance(chosen, (Fish, RetCCL)):
        return chosen
    if label is None:
        raise SearchError(
            f"the strategy {name} ranks with labels", "search", "Name their column with --label, or rank by maxsim."
        )
    return replace(chosen, label=label)
