"""Asking an archive for slides: a strategy run over a `Searcher`, exactly or from candidates found by tile search."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol, runtime_checkable

import numpy as np

from histokin.errors import SearchError
from histokin.search.searcher import Searcher
from histokin.search.slide_bags import rank_bags
from histokin.search.slide_blocks import BLOCK, archive_sample, mosaic_blocks
from histokin.search.slide_hits import PairEvidence, QueryBag, SlideHits
from histokin.search.strategies import (
    STRATEGIES,
    AnyStrategy,
    Asked,
    BagStrategy,
    BoundedStrategy,
    PairStrategy,
    Ready,
    Unfitted,
)
from histokin.search.strategies.asked import SLACK
from histokin.search.tables import EVERYTHING, Where

__all__ = ["Plan", "QueryBag", "SlideHits", "search_slides"]

_CHUNK = 128  # candidates compared before it is asked whether the rest can matter
_UNKNOWN = 1.01  # what a query tile may be like at most that found nothing; float16 rows are a little longer than 1


@dataclass(frozen=True, slots=True)
class Plan:
    """When and how candidates are found by tile search instead of comparing every allowed slide.

    Attributes:
        exact_up_to: allowed slides that are simply all compared.
        tile_k: mosaic tiles looked for by each query tile.
        n_slides: candidates that are compared at most; fewer where it is sooner sure that no other can matter.
        doublings: how often both are doubled while a slide left out could still belong to the answer. On 10^4 simulated
            slides recall@10 is .96 without and 1.00 with (benchmarks/bench_slides.py).
    """

    exact_up_to: int = 2000
    tile_k: int = 200
    n_slides: int = 500
    doublings: int = 2


@runtime_checkable
class _Following(Protocol):
    """A searcher that goes with its writer, such as `Index`."""

    def pinned(self) -> Searcher:
        """The version in force."""
        ...


def search_slides(
    searcher: Searcher,
    query: QueryBag,
    k: int,
    *,
    strategy: str | AnyStrategy = "maxsim",
    where: Where = EVERYTHING,
    exact: bool = False,
    plan: Plan | None = None,
) -> SlideHits:
    """The k allowed slides most like the query, with the pairs of tiles that made them so.

    Scores and order are the same whatever the blocks, threads or candidates: rough float32 scores only say which slides
    could be among the k best, those are scored again one by one in float64. Slides without a mosaic are no hits.

    Args:
        searcher: the archive. An `Index` is held at one version meanwhile; pass `index.pinned()` to name the slides of
            the answer by the same one.
        query: what is asked; it need not be in the archive. Leave its own patient out by `where`.
        k: slides, at least 1.
        strategy: a name of `STRATEGIES` or a strategy with other settings.
        where: which slides may be hits; columns of slides only.
        exact: compare every allowed slide, and bags with every mosaic tile, however many there are.
        plan: of the search by candidates, for strategies whose scores tile search can bound (maxsim, maxsim_sym,
            median_min). The others always compare all: their cost grows with the archive.

    Raises:
        SearchError: an unknown strategy or column; no mosaics or no labels where the strategy needs them; a filter on
            tiles.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if where.of_tiles() != EVERYTHING:
        raise SearchError(
            "slides are compared by their whole mosaics, a filter on tile labels has no meaning here",
            "the filter",
            "Filter by columns of slides, or search for tiles.",
        )
    if isinstance(searcher, _Following):
        searcher = searcher.pinned()
    asked = Asked.of(query.vectors, query.weights, dim=searcher.made.dim)
    allowed = np.flatnonzero(searcher.slides.allowed(where))
    chosen = _named(strategy) if isinstance(strategy, str) else strategy
    reads_means = isinstance(chosen, PairStrategy) and chosen.reads == "means"
    if len(searcher.slides) and not searcher.n_mosaic and not reads_means:
        raise SearchError(
            "no slide has a mosaic, the few tiles by which slides are compared",
            "the archive",
            "Build the index with mosaics, or rank by mean, which needs none.",
        )
    ready: Ready = chosen.fitted(lambda: archive_sample(searcher)) if isinstance(chosen, Unfitted) else chosen
    if isinstance(ready, BagStrategy):
        return rank_bags(searcher, asked, k, ready, allowed, where, exact=exact)
    return _by_score(searcher, asked, k, ready, allowed, where, exact=exact, plan=plan or Plan())


def _named(name: str) -> AnyStrategy:
    if name not in STRATEGIES:
        raise SearchError(f"there is no strategy {name!r}", "slide search", f"Known: {', '.join(sorted(STRATEGIES))}.")
    return STRATEGIES[name]


@dataclass(slots=True)
class _Compared:
    """Slides whose rough score is known."""

    slide: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    rough: np.ndarray = field(default_factory=lambda: np.zeros(0))


def _by_score(
    searcher: Searcher,
    asked: Asked,
    k: int,
    strategy: PairStrategy,
    allowed: np.ndarray,
    where: Where,
    *,
    exact: bool,
    plan: Plan,
) -> SlideHits:
    compared, bound = _Compared(), np.inf
    slides, scores = np.zeros(0, dtype=np.int64), np.zeros(0)
    if isinstance(strategy, BoundedStrategy) and len(allowed) > plan.exact_up_to and not exact:
        for doubling in range(plan.doublings + 1):
            wider = replace(plan, tile_k=plan.tile_k << doubling, n_slides=plan.n_slides << doubling)
            candidates, ceilings = _candidates(searcher, asked, strategy, where, wider)
            for start in range(0, len(candidates), _CHUNK):
                chunk = candidates[start : start + _CHUNK]
                _compare(searcher, asked, strategy, np.setdiff1d(chunk, compared.slide), compared)
                bound = float(ceilings[start + len(chunk)])  # of all that come later, and of those never seen
                if _kth(compared.rough, k) > bound + SLACK:
                    break
            slides, scores = _best(searcher, asked, strategy, compared, k)
            if len(scores) == k and scores[-1] > bound:
                break
    if len(scores) < k:
        # Too few slides found to choose from, or few enough in all: every allowed one is compared.
        _compare(searcher, asked, strategy, np.setdiff1d(allowed, compared.slide), compared)
        slides, scores = _best(searcher, asked, strategy, compared, k)
        bound = -np.inf
    is_complete = bool(np.isneginf(bound) or scores[-1] > bound)
    notes = [] if is_complete else [f"a slide that was not compared could score up to {bound:.4f}"]
    n_compared = len(compared.slide)
    if np.isneginf(bound) and n_compared < len(allowed):
        notes.append(f"{len(allowed) - n_compared} slides have nothing to compare (no {strategy.reads})")
    evidence = _pair_evidence(searcher, asked, strategy, slides)
    return SlideHits(slides, scores, evidence, len(allowed), n_compared, bound, is_complete, tuple(notes))


def _candidates(
    searcher: Searcher, asked: Asked, strategy: BoundedStrategy, where: Where, plan: Plan
) -> tuple[np.ndarray, np.ndarray]:
    """The L slides whose scores can be largest by what tile search found, falling, and how large these can be at most.

    Each query tile lists its k best mosaic tiles. A slide seen there has its best hit; one that is not can at best have
    a tile like the last of the list. So the imputed score is an upper bound of the real one.

    Returns:
        (L,) int64 numbers and (L + 1,) float64 ceilings, none below the next; the last is that of all other slides.
    """
    hits = searcher.search(asked.vectors, plan.tile_k, where=where, field="mosaics")
    is_hit = hits.slide >= 0
    last = np.where(is_hit, hits.score, np.inf).min(axis=1)
    last[np.isinf(last)] = _UNKNOWN
    query, slot = np.nonzero(is_hit)
    slides, column = np.unique(hits.slide[query, slot], return_inverse=True)
    best = np.repeat(last[:, None], len(slides), axis=1)
    np.maximum.at(best, (query, column), hits.score[query, slot])
    ceilings = strategy.ceiling(asked, best)
    unseen = strategy.ceiling(asked, last[:, None])[0]
    order = np.lexsort((slides, -ceilings))
    n = min(plan.n_slides, len(order))
    return slides[order[:n]], np.append(ceilings[order], unseen)[: n + 1]


def _kth(scores: np.ndarray, k: int) -> float:
    """The k-th largest, -inf where there are fewer."""
    return float(np.partition(scores, -k)[-k]) if len(scores) >= k else -np.inf


def _compare(searcher: Searcher, asked: Asked, strategy: PairStrategy, slides: np.ndarray, compared: _Compared) -> None:
    """Add the rough scores of slides."""
    numbers, rough = [compared.slide], [compared.rough]
    for part, vectors, first in _blocks(searcher, strategy, slides, len(asked.vectors)):
        numbers.append(part)
        rough.append(strategy.rough(asked, vectors, first))
    compared.slide, compared.rough = np.concatenate(numbers), np.concatenate(rough)


def _best(
    searcher: Searcher, asked: Asked, strategy: PairStrategy, compared: _Compared, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and float64 scores of the k best slides compared, score descending, then slide id."""
    if not len(compared.slide):
        return np.zeros(0, dtype=np.int64), np.zeros(0)
    n = min(k, len(compared.slide))
    kth = _kth(compared.rough, n)
    near = np.sort(compared.slide[compared.rough >= kth - 2 * SLACK])  # both may be off
    scores = np.concatenate(
        [
            [strategy.score(asked, vectors[start:stop].astype(np.float64)) for start, stop in pairwise(first.tolist())]
            for _, vectors, first in _blocks(searcher, strategy, near, len(asked.vectors))
        ]
    )
    order = np.lexsort((near, -scores))[:n]
    return near[order], scores[order]


def _blocks(
    searcher: Searcher, strategy: PairStrategy, slides: np.ndarray, n_query: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(numbers, vectors, first) of runs of slides that have something to compare."""
    if strategy.reads == "means":
        step = max(1, BLOCK // searcher.made.dim)
        for start in range(0, len(slides), step):
            means = searcher.means(slides[start : start + step])
            is_real = means.any(axis=1)
            yield slides[start : start + step][is_real], means[is_real], np.arange(int(is_real.sum()) + 1)
        return
    for part, held in mosaic_blocks(searcher, slides, n_query):
        is_real = np.diff(held.first) > 0
        if is_real.any():
            yield part[is_real], held.vectors, np.concatenate([[0], held.first[1:][is_real]])


def _pair_evidence(searcher: Searcher, asked: Asked, strategy: PairStrategy, slides: np.ndarray) -> PairEvidence:
    rows = np.full((len(slides), len(asked.vectors)), -1, dtype=np.int64)
    similarity = np.full(rows.shape, np.nan)
    tiles, places = [np.zeros(0, dtype=np.int64)], [np.zeros((0, 2), dtype=np.int64)]
    hit, n_before = 0, 0
    for _, held in mosaic_blocks(searcher, slides, len(asked.vectors)):
        for start, stop in pairwise(held.first.tolist()):
            if stop > start:  # the mean also ranks slides without a mosaic
                row, similarity[hit] = strategy.pairs(asked, held.vectors[start:stop].astype(np.float64))
                rows[hit] = n_before + start + row
            hit += 1
        n_before += len(held.tile)
        tiles.append(held.tile)
        places.append(held.coords)
    return PairEvidence.of(asked, rows, similarity, np.concatenate(tiles), np.concatenate(places))
