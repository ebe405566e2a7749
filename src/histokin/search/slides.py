"""Slide search: which slides are most like a slide, and which of their tiles say so."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from histokin.search.exact import TOLERANCE, Metric, Neighbours, exact_scores, row_norms, top_k
from histokin.search.hits import Archive, Evidence, Hits
from histokin.streams import stream

Strategy = Literal["mean", "median_min", "maxsim"]
MAX_TILES = 512
"""Tiles of a bag that are compared; published mosaics hold 20 to 200."""
_BLOCK = 2**23  # values of one block of tile-to-tile products (32 MiB)
_CLOSE = 1e-9  # float64 products differ between shapes by less, as a share of the score


@dataclass(frozen=True, slots=True)
class Sampled:
    """A bag as it is compared: at most `limit` of its tiles.

    Attributes:
        vectors: (n, d) float64, unit rows for cosine.
        tiles: (n,) int64, their rows in the whole bag, ascending.
        n_all: tiles of the whole bag.
    """

    vectors: np.ndarray
    tiles: np.ndarray
    n_all: int


def rank_slides(
    queries: Sequence[np.ndarray],
    database: Sequence[np.ndarray],
    archive: Archive,
    k: int,
    *,
    strategy: Strategy = "mean",
    query_groups: np.ndarray | None = None,
    database_groups: np.ndarray | None = None,
    query_ids: np.ndarray | None = None,
    n_pairs: int = 5,
    limit: int = MAX_TILES,
    seed: int = 0,
) -> Hits:
    """The k slides most like each query slide, with the tile pairs that made them so.

    Args:
        queries: Q bags (n_i, d) floating, n_i >= 1.
        database: S bags; sort them by slide id, since equal scores come in row order.
        archive: who the S slides are.
        k: slides a query.
        strategy: see `nearest_slides`.
        query_groups: (Q,) with `database_groups` (S,): slides of the query's own group (patient) are no candidates.
        query_ids: (Q,) the database row that each query is, -1 if none; left out.
        n_pairs: pairs of tiles shown a hit.
        limit: bags with more tiles are drawn down to so many, by a stream named by slide number and seed.
        seed: of these draws.

    Returns:
        `Hits`; their notes say how many bags were drawn down.

    Raises:
        StoreError: a vector is zero or not finite.
        ValueError: an empty bag, or arguments that do not fit.
    """
    found = nearest_slides(
        queries,
        database,
        k,
        strategy=strategy,
        query_groups=query_groups,
        database_groups=database_groups,
        query_ids=query_ids,
        limit=limit,
        seed=seed,
    )
    asked = sample_bags(queries, limit=limit, seed=seed, what="query")
    held = sample_bags(database, limit=limit, seed=seed, what="database")
    query, slot = np.nonzero(found.ids >= 0)
    evidence = _evidence(asked, held, query, found.ids[query, slot], n_pairs)
    n_drawn = sum(bag.n_all > limit for bag in [*asked, *held])
    notes = (f"{n_drawn} bags drawn down to {limit} tiles (seed {seed})",) if n_drawn else ()
    return Hits.of(found, archive, strategy, notes, evidence)


def nearest_slides(
    queries: Sequence[np.ndarray],
    database: Sequence[np.ndarray],
    k: int,
    *,
    strategy: Strategy = "mean",
    metric: Metric = "cosine",
    query_groups: np.ndarray | None = None,
    database_groups: np.ndarray | None = None,
    query_ids: np.ndarray | None = None,
    limit: int = MAX_TILES,
    seed: int = 0,
) -> Neighbours:
    """Rank slides by one of three scores, s_qt being the score of query tile q and database tile t.

        mean        cosine of the means of the unit vectors (Euclidean: of the plain means)
        median_min  median_q max_t s_qt, that is 1 - median_q min_t (1 - s_qt): Yottixel's median of minima
                    (Kalra et al. 2020), directed from the query
        maxsim      mean_q max_t s_qt (late interaction)

    Args and errors as in `rank_slides`; `metric` as in `top_k`.

    Returns:
        `Neighbours` over the slides.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy must be one of {', '.join(get_args(Strategy))}, got {strategy!r}")
    asked = sample_bags(queries, limit=limit, seed=seed, what="query", metric=metric)
    held = sample_bags(database, limit=limit, seed=seed, what="database", metric=metric)
    if strategy == "mean":
        return top_k(
            np.stack([bag.vectors.mean(axis=0) for bag in asked]),
            np.stack([bag.vectors.mean(axis=0) for bag in held]),
            k,
            metric=metric,
            query_groups=query_groups,
            database_groups=database_groups,
            query_ids=query_ids,
        )
    allowed = _allowed(len(asked), len(held), query_groups, database_groups, query_ids)
    rough = _rough_scores(asked, held, strategy, metric)
    rough[~allowed] = -np.inf
    ids, scores = np.full((len(asked), k), -1, dtype=np.int64), np.full((len(asked), k), np.nan)
    for number, bag in enumerate(asked):
        n_found = min(k, int(allowed[number].sum()))
        if n_found == 0:
            continue
        kth = np.partition(rough[number], -n_found)[-n_found]
        near = np.flatnonzero((rough[number] >= kth - _slack(bag, metric)) & allowed[number])
        exact = np.array([_reduce(best_pairs(bag.vectors, held[row].vectors, metric)[1], strategy) for row in near])
        order = np.lexsort((near, -exact))[:n_found]
        ids[number, :n_found], scores[number, :n_found] = near[order], exact[order]
    return Neighbours(ids, scores)


def median_of_minimum(distances: np.ndarray) -> float:
    """Yottixel's directed slide distance: for each query tile its nearest tile, then the median over query tiles.

    Args:
        distances: (n_query, n_stored) from query tiles to the stored slide's tiles.

    Returns:
        The median of the row minima; for an even number of rows the mean of the middle two.
    """
    return float(np.median(np.asarray(distances).min(axis=1)))


def sample_bags(
    bags: Sequence[np.ndarray], *, limit: int, seed: int, what: str, metric: Metric = "cosine"
) -> list[Sampled]:
    """Bags of at most `limit` tiles as float64 (unit) vectors.

    What is drawn depends on the seed and the bag's number and size, not on whether it is query or database.

    Raises:
        StoreError: a vector is zero (cosine) or not finite.
        ValueError: a bag is empty or no (n, d) array.
    """
    sampled = []
    for number, bag in enumerate(bags):
        if bag.ndim != 2 or not len(bag):
            raise ValueError(f"{what} bag {number} must be (n >= 1, d), got {bag.shape}")
        tiles = np.arange(len(bag))
        if len(bag) > limit:
            tiles = np.sort(stream(seed, "bag", number, len(bag)).choice(len(bag), limit, replace=False))
        vectors = np.asarray(bag[tiles], dtype=np.float64)
        norms = row_norms(vectors, metric, f"{what} slide {number},")
        sampled.append(Sampled(vectors / norms[:, None] if metric == "cosine" else vectors, tiles, len(bag)))
    return sampled


def _rough_scores(asked: list[Sampled], held: list[Sampled], strategy: Strategy, metric: Metric) -> np.ndarray:
    """(Q, S) float64 from float32 products: good to the slack that `_slack` allows for."""
    scores = np.empty((len(asked), len(held)))
    for start, stop in _slide_blocks(held, max(len(bag.vectors) for bag in asked)):
        part = held[start:stop]
        tiles = np.concatenate([bag.vectors for bag in part]).astype(np.float32)  # (T, d)
        first = np.cumsum([0, *(len(bag.vectors) for bag in part[:-1])])
        squares = np.einsum("td,td->t", tiles, tiles)
        for number, bag in enumerate(asked):
            query = bag.vectors.astype(np.float32)
            pairs = query @ tiles.T  # (n_query, T)
            if metric == "euclidean":
                squared = np.einsum("qd,qd->q", query, query)[:, None] + squares - 2 * pairs
                pairs = -np.sqrt(np.maximum(squared, 0))
            scores[number, start:stop] = _reduce(np.maximum.reduceat(pairs, first, axis=1), strategy)
    return scores


def _slide_blocks(held: list[Sampled], n_query: int) -> list[tuple[int, int]]:
    """Runs of slides whose products with the largest query fit one block."""
    blocks, start, width = [], 0, 0
    for number, bag in enumerate(held):
        if width and (width + len(bag.vectors)) * n_query > _BLOCK:
            blocks.append((start, number))
            start, width = number, 0
        width += len(bag.vectors)
    return [*blocks, (start, len(held))]


def _reduce(best: np.ndarray, strategy: Strategy) -> np.ndarray:
    """Best score of each query tile, (n_query, ...), to the slide's score."""
    return np.median(best, axis=0) if strategy == "median_min" else best.mean(axis=0, dtype=np.float64)


def _slack(bag: Sampled, metric: Metric) -> float:
    """How far a float32 slide score may be off; distances near 0 lose half of the digits to the square root."""
    if metric == "cosine":
        return TOLERANCE
    return float(np.sqrt(2 * TOLERANCE * max(1.0, (bag.vectors**2).sum(axis=1).max())))


def best_pairs(query: np.ndarray, slide: np.ndarray, metric: Metric = "cosine") -> tuple[np.ndarray, np.ndarray]:
    """For each query tile the slide's best tile and their score, whatever the shapes, blocks or threads.

    The last bits of a matrix product depend on its shape, so it only names the tiles that could be best; these are
    scored by `exact_scores`, and of those equal to 12 digits the first is taken.

    Args:
        query: (n, d) float64, unit rows for cosine.
        slide: (m >= 1, d) float64.
        metric: as in `top_k`.

    Returns:
        (n,) int64 rows of `slide` and (n,) float64 scores.
    """
    pairs = query @ slide.T
    if metric == "euclidean":
        pairs = 2 * pairs - (slide**2).sum(axis=1)
    best = pairs.max(axis=1, keepdims=True)
    asked, near = np.nonzero(pairs >= best - _CLOSE * np.maximum(1, np.abs(best)))
    scores = exact_scores(query[asked], slide[near], metric)
    order = np.lexsort((near, -scores.round(12), asked))
    first = order[np.searchsorted(asked, np.arange(len(query)))]  # lexsort keeps the runs of equal `asked`
    return near[first], scores[first]


def _evidence(
    asked: list[Sampled], held: list[Sampled], query: np.ndarray, slide: np.ndarray, n_pairs: int
) -> Evidence:
    """The n_pairs best tile pairs of each (query, slide)."""
    shape = (len(query), n_pairs)
    query_tile, tile = np.full(shape, -1, dtype=np.int64), np.full(shape, -1, dtype=np.int64)
    score, share = np.full(shape, np.nan), np.full(shape, np.nan)
    for number, (q, s) in enumerate(zip(query, slide, strict=True)):
        best, value = best_pairs(asked[q].vectors, held[s].vectors)
        mass = np.maximum(value, 0)
        order = np.argsort(-value, kind="stable")[:n_pairs]
        shown = slice(len(order))
        query_tile[number, shown], tile[number, shown] = asked[q].tiles[order], held[s].tiles[best[order]]
        score[number, shown], share[number, shown] = value[order], mass[order] / (mass.sum() or 1.0)
    return Evidence(query_tile, tile, score, share)


def _allowed(
    n_queries: int,
    n_slides: int,
    query_groups: np.ndarray | None,
    database_groups: np.ndarray | None,
    query_ids: np.ndarray | None,
) -> np.ndarray:
    """(Q, S) bool: candidates before any ranking."""
    if (query_groups is None) != (database_groups is None):
        raise ValueError("query_groups and database_groups come together")
    allowed = np.ones((n_queries, n_slides), dtype=bool)
    if query_groups is not None and database_groups is not None:
        allowed &= np.asarray(query_groups, dtype=object)[:, None] != np.asarray(database_groups, dtype=object)
    if query_ids is not None:
        allowed &= np.asarray(query_ids)[:, None] != np.arange(n_slides)
    return allowed
