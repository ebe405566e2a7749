"""The fixed last word of every tile search: unit vectors in, float64 scores, one order."""

from collections.abc import Callable

import numpy as np

from histokin.errors import SearchError
from histokin.search.exact import exact_scores
from histokin.search.tables import TileHits

_BLOCK = 2**21  # values of one float64 step (16 MiB a factor)


def unit_queries(queries: np.ndarray, dim: int) -> np.ndarray:
    """(Q, d) float64 unit queries.

    Raises:
        SearchError: a query is zero or not finite, or of another width.
    """
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise SearchError(
            f"queries of shape {queries.shape} were asked of vectors {dim} wide",
            "the query",
            f"Give (Q, {dim}) numbers, made by the archive's encoder.",
        )
    rows = np.asarray(queries, dtype=np.float64)
    norms = np.sqrt(np.einsum("qd,qd->q", rows, rows))
    bad = ~np.isfinite(norms) | (norms == 0)
    if bad.any():
        row = int(np.argmax(bad))
        kind = "zero" if norms[row] == 0 else "not finite"
        raise SearchError(f"query {row} is {kind}", "the query", "Embed it again, or leave it out.")
    return rows / norms[:, None]


def check_k(k: int) -> None:
    """Refuse to be asked for nothing."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")


def pair_scores(
    queries: np.ndarray, query: np.ndarray, row: np.ndarray, vectors: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(M,) float64 scores of pairs of a unit query and a stored row.

    Args:
        queries: (Q, d) float64 unit.
        query: (M,) int64 of the pairs.
        row: (M,) int64 of the pairs.
        vectors: gives the (m, d) float16 of m rows; asked for a bounded number at a time.
    """
    scores = np.empty(len(query))
    step = max(1, _BLOCK // queries.shape[1])
    for start in range(0, len(query), step):
        part = slice(start, start + step)
        scores[part] = exact_scores(queries[query[part]], vectors(row[part]).astype(np.float64), "cosine")
    return scores


def rank_pairs(
    query: np.ndarray, score: np.ndarray, slide: np.ndarray, tile: np.ndarray, n_queries: int, k: int
) -> np.ndarray:
    """(Q, k) int64 positions in (query, tile) pairs: score descending, slide, tile; -1 where there are fewer."""
    order = np.lexsort((tile, slide, -score, query))
    asked = query[order]
    rank = np.arange(len(asked)) - np.searchsorted(asked, asked)
    keep = rank < k
    places = np.full((n_queries, k), -1, dtype=np.int64)
    places[asked[keep], rank[keep]] = order[keep]
    return places


def take_hits(
    places: np.ndarray,
    score: np.ndarray,
    slide: np.ndarray,
    tile: np.ndarray,
    coords: np.ndarray,
    label: np.ndarray,
) -> TileHits:
    """Hits from the pairs' columns; `places` (Q, k) positions in them, -1 for none."""
    is_none = places < 0

    def taken(column: np.ndarray, none: object) -> np.ndarray:
        if not len(column):
            return np.full(places.shape, none, dtype=column.dtype)
        found = column[places]
        found[is_none] = none
        return found

    return TileHits(
        taken(score, np.nan),
        taken(slide, -1),
        taken(tile, -1),
        taken(coords[:, 0], -1),
        taken(coords[:, 1], -1),
        taken(label, ""),
    )
