"""Exact nearest neighbours of many queries in any number of rows, with groups left out before ranking.

The one referee: every index, every evaluation and every slide strategy is compared with `top_k` or built on it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from histokin.errors import StoreError

Metric = Literal["cosine", "euclidean"]

MARGIN = 16
"""Candidates kept beyond k, so that the float64 step has something to reorder."""
TOLERANCE = 1e-5
"""How far float32 products are trusted, as a share of |q| |d| (3.6e-7 was the largest error measured)."""
_RESIDENT = 2**26  # values of a database kept as float32 instead of being converted once per query block (256 MiB)
_STRIP = 32  # columns whose maximum stands for them
_PAIRS = 2**21  # values of one float64 rescoring step (16 MiB a factor)


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The answers to Q queries, best first.

    Attributes:
        ids: (Q, K) int64 rows of the database, -1 where fewer than K rows were allowed.
        scores: (Q, K) float64, cosine or minus the Euclidean distance; NaN where `ids` is -1.
    """

    ids: np.ndarray
    scores: np.ndarray


def top_k(
    queries: np.ndarray,
    database: np.ndarray,
    k: int,
    *,
    metric: Metric = "cosine",
    query_groups: np.ndarray | None = None,
    database_groups: np.ndarray | None = None,
    query_ids: np.ndarray | None = None,
    block: int = 8192,
    query_block: int = 1024,
) -> Neighbours:
    """The k best allowed rows of each query: score descending, then row ascending.

    A row whose group equals the query's is no candidate at all: it is masked before ranking, never dropped from a
    longer list afterwards, which would starve the list whenever a group is larger than the margin. Candidates come
    from blocked float32 products; they are rescored in float64 by one fixed routine, and where rows beyond the
    candidates could tie with the k-th within `TOLERANCE`, all such rows are collected in a second pass. So the
    answer depends neither on block shapes nor on threads, and equal rows come in row order.

    Args:
        queries: (Q, d) floating.
        database: (N, d) floating; float16 and memory-mapped arrays are read block by block.
        k: neighbours a query, at least 1.
        metric: `cosine` makes unit vectors here; `euclidean` scores by minus the distance.
        query_groups: (Q,) patient, slide or site of each query, with `database_groups` (N,); both or neither.
        query_ids: (Q,) the database row that each query is (-1: none), which is left out: the `self` rule.
        block: database rows a step.
        query_block: queries a step.

    Returns:
        `Neighbours` of width k.

    Raises:
        StoreError: a vector is not finite, or (cosine) zero; the row is named.
        ValueError: shapes or arguments do not fit.
    """
    _check(queries, database, k, metric)
    _check_columns(len(queries), len(database), query_groups, database_groups, query_ids)
    ids = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.full((len(queries), k), np.nan)
    scale = _Scale.of(database, metric, block)
    groups = _codes(query_groups, database_groups)
    is_reused = len(queries) > query_block and database.size <= _RESIDENT
    rows = _Rows(database, scale, metric, block, is_resident=is_reused)
    for start in range(0, len(queries), query_block):
        part = slice(start, start + query_block)
        asked = _Asked.of(queries, part, metric, groups[0], query_ids)
        ids[part], scores[part] = _answer(asked, rows, groups[1], k)
    return Neighbours(ids, scores)


def exact_scores(first: np.ndarray, second: np.ndarray, metric: Metric) -> np.ndarray:
    """Float64 scores of paired rows, each summed over its own d values alone.

    A matrix product may sum in another order for another shape; a reduction over the last axis may not, so equal
    pairs get equal bits wherever they stand.

    Args:
        first: (M, d) float64, unit rows for cosine.
        second: (M, d) float64.
        metric: as in `top_k`.

    Returns:
        (M,) float64.
    """
    if metric == "cosine":
        return (first * second).sum(axis=1)
    return -np.sqrt(((first - second) ** 2).sum(axis=1))


def row_norms(rows: np.ndarray, metric: Metric, what: str, first_row: int = 0) -> np.ndarray:
    """(n,) float64 lengths of rows; what cannot be compared is refused by its row number.

    Raises:
        StoreError: a row holds NaN or infinity, or its length is 0 under cosine.
    """
    squares = np.einsum("nd,nd->n", rows, rows, dtype=np.float64)
    norms = np.sqrt(squares)
    bad = ~np.isfinite(norms) | ((norms == 0) if metric == "cosine" else False)
    if bad.any():
        row = int(np.argmax(bad))
        kind = "the vector is zero" if norms[row] == 0 else "the vector holds values that are not finite"
        raise StoreError(
            kind, f"{what} row {first_row + row}", "Embed its slide again, or leave the tile out of the store."
        )
    return norms


@dataclass(frozen=True, slots=True)
class _Scale:
    """Lengths of all database rows."""

    norms: np.ndarray  # (N,) float64

    @classmethod
    def of(cls, database: np.ndarray, metric: Metric, block: int) -> "_Scale":
        norms = np.empty(len(database))
        for start in range(0, len(database), block):
            part = slice(start, start + block)
            norms[part] = row_norms(np.asarray(database[part]), metric, "database", start)
        return cls(norms)


class _Rows:
    """The database as float32 blocks for products and as float64 rows for the last word."""

    def __init__(self, database: np.ndarray, scale: _Scale, metric: Metric, block: int, *, is_resident: bool) -> None:
        self.database, self.norms, self.metric, self.block = database, scale.norms, metric, block
        self.resident = [self._convert(start) for start in self._starts()] if is_resident else None

    def __len__(self) -> int:
        return len(self.database)

    def _starts(self) -> range:
        return range(0, len(self.database), self.block)

    def _convert(self, start: int) -> np.ndarray:
        part = slice(start, start + self.block)
        rows = np.asarray(self.database[part], dtype=np.float32)
        if self.metric == "cosine":
            rows = rows * (1.0 / self.norms[part, None]).astype(np.float32)
        return rows

    def blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, (b, d) float32), unit rows for cosine."""
        for number, start in enumerate(self._starts()):
            yield start, self.resident[number] if self.resident is not None else self._convert(start)

    def exact(self, ids: np.ndarray) -> np.ndarray:
        """(M, d) float64 rows as the final scores use them."""
        rows = np.asarray(self.database[ids], dtype=np.float64)
        return rows / self.norms[ids, None] if self.metric == "cosine" else rows


@dataclass(frozen=True, slots=True)
class _Asked:
    """One block of queries."""

    exact: np.ndarray  # (q, d) float64
    norms: np.ndarray  # (q,) float64, 1 for cosine
    groups: np.ndarray | None
    own_rows: np.ndarray | None
    metric: Metric

    @classmethod
    def of(
        cls,
        queries: np.ndarray,
        part: slice,
        metric: Metric,
        groups: np.ndarray | None,
        query_ids: np.ndarray | None,
    ) -> "_Asked":
        exact = np.asarray(queries[part], dtype=np.float64)
        norms = row_norms(exact, metric, "query", part.start)
        if metric == "cosine":
            exact, norms = exact / norms[:, None], np.ones(len(exact))
        return cls(
            exact,
            norms,
            None if groups is None else groups[part],
            None if query_ids is None else np.asarray(query_ids, dtype=np.int64)[part],
            metric,
        )

    def take(self, keep: np.ndarray) -> "_Asked":
        return _Asked(
            self.exact[keep],
            self.norms[keep],
            None if self.groups is None else self.groups[keep],
            None if self.own_rows is None else self.own_rows[keep],
            self.metric,
        )


def _answer(asked: _Asked, rows: _Rows, row_groups: np.ndarray | None, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(q, k) ids and scores of one block of queries."""
    best, candidates = _gather(asked, rows, row_groups, min(k + MARGIN, len(rows)))
    pair_query, slot = np.nonzero(candidates >= 0)
    found = candidates[pair_query, slot]
    ids, scores = _order(pair_query, found, _rescore(asked, rows, pair_query, found), len(asked.exact), k)

    if k + MARGIN >= len(rows):
        return ids, scores  # every allowed row was a candidate
    # Below the last candidate nothing is known: where it lies within rounding of the k-th, take all that could tie.
    tolerance = _tolerance(asked, rows)
    ordered = -np.sort(-best, axis=1)
    is_full = np.isfinite(ordered[:, -1])  # others have fewer candidates than were asked for: all were gathered
    gap = np.subtract(ordered[:, k - 1], ordered[:, -1], out=np.full(len(ordered), np.inf), where=is_full)
    is_open = is_full & (gap <= tolerance)
    if is_open.any():
        again = np.flatnonzero(is_open)
        floor = (ordered[:, k - 1] - tolerance)[again]
        ids[again], scores[again] = _collect(asked.take(again), rows, row_groups, floor, k)
    return ids, scores


def _products(asked: _Asked, rows: _Rows, row_groups: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
    """(first row, (q, b) float32 scores with forbidden rows at -inf); Euclidean as 2 q.d - |d|^2."""
    left = np.ascontiguousarray(asked.exact, dtype=np.float32)
    for start, right in rows.blocks():
        scores = left @ right.T
        stop = start + len(right)
        if asked.metric == "euclidean":
            scores *= 2
            scores -= (rows.norms[start:stop] ** 2).astype(np.float32)
        if asked.groups is not None and row_groups is not None:
            np.putmask(scores, asked.groups[:, None] == row_groups[None, start:stop], -np.inf)
        if asked.own_rows is not None:
            here = np.flatnonzero((asked.own_rows >= start) & (asked.own_rows < stop))
            scores[here, asked.own_rows[here] - start] = -np.inf
        yield start, scores


def _gather(
    asked: _Asked, rows: _Rows, row_groups: np.ndarray | None, n_candidates: int
) -> tuple[np.ndarray, np.ndarray]:
    """(q, n_candidates) float32 scores and int64 rows of the best by float32, in no order; -inf and -1 where none."""
    n_queries = len(asked.exact)
    best = np.full((n_queries, n_candidates), -np.inf, dtype=np.float32)
    ids = np.full((n_queries, n_candidates), -1, dtype=np.int64)
    for start, products in _products(asked, rows, row_groups):
        # After the first blocks hardly any row beats the list: those queries need no partition.
        busy = np.flatnonzero(products.max(axis=1) > best.min(axis=1))
        if not len(busy):
            continue
        scores = products[busy] if len(busy) < n_queries else products
        columns = _best_columns(scores, n_candidates)
        merged = np.concatenate([best[busy], np.take_along_axis(scores, columns, axis=1)], axis=1)
        merged_ids = np.concatenate([ids[busy], columns + start], axis=1)
        keep = np.argpartition(merged, merged.shape[1] - n_candidates, axis=1)[:, -n_candidates:]
        best[busy] = np.take_along_axis(merged, keep, axis=1)
        ids[busy] = np.take_along_axis(merged_ids, keep, axis=1)
    ids[np.isneginf(best)] = -1
    return best, ids


def _best_columns(scores: np.ndarray, n: int) -> np.ndarray:
    """(q, min(n, width)) columns of the n best of each row, in no order.

    The n best lie in the n strips with the largest maxima, so only those are partitioned: maxima are read at memory
    speed, while partitioning whole rows takes longer than the product itself below about 200 dimensions.
    """
    width = scores.shape[1]
    n_strips = width // _STRIP
    if width <= n:
        return np.broadcast_to(np.arange(width), scores.shape)
    if n_strips <= n:
        return np.argpartition(scores, width - n, axis=1)[:, width - n :]
    # Strip j holds the columns j, j + n_strips, j + 2 n_strips, ...: the maximum then runs along contiguous memory.
    tops = scores[:, : _STRIP * n_strips].reshape(len(scores), _STRIP, n_strips).max(axis=1)
    strips = np.argpartition(tops, n_strips - n, axis=1)[:, n_strips - n :]  # (q, n)
    columns = (strips[:, None, :] + n_strips * np.arange(_STRIP)[:, None]).reshape(len(scores), -1)
    rest = np.broadcast_to(np.arange(_STRIP * n_strips, width), (len(scores), width - _STRIP * n_strips))
    columns = np.concatenate([columns, rest], axis=1)
    found = np.take_along_axis(scores, columns, axis=1)
    keep = np.argpartition(found, found.shape[1] - n, axis=1)[:, found.shape[1] - n :]
    return np.take_along_axis(columns, keep, axis=1)


def _collect(
    asked: _Asked, rows: _Rows, row_groups: np.ndarray | None, floor: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k best of all rows at or above `floor`, however many tie; never more than k a query are held."""
    n_queries = len(asked.exact)
    ids, scores = np.full((n_queries, k), -1, dtype=np.int64), np.full((n_queries, k), np.nan)
    for start, product in _products(asked, rows, row_groups):
        query, column = np.nonzero((product >= floor[:, None]) & np.isfinite(product))
        if not len(query):
            continue
        found = column + start
        held_query, held_slot = np.nonzero(ids >= 0)
        ids, scores = _order(
            np.concatenate([held_query, query]),
            np.concatenate([ids[held_query, held_slot], found]),
            np.concatenate([scores[held_query, held_slot], _rescore(asked, rows, query, found)]),
            n_queries,
            k,
        )
    return ids, scores


def _rescore(asked: _Asked, rows: _Rows, query: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(M,) float64 scores of (query, row) pairs."""
    scores = np.empty(len(query))
    step = max(1, _PAIRS // asked.exact.shape[1])
    for start in range(0, len(query), step):
        part = slice(start, start + step)
        scores[part] = exact_scores(asked.exact[query[part]], rows.exact(found[part]), asked.metric)
    return scores


def _order(
    query: np.ndarray, found: np.ndarray, scores: np.ndarray, n_queries: int, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Turn (query, row, score) triples into (n_queries, k) lists by score descending, then row ascending."""
    order = np.lexsort((found, -scores, query))
    query, found, scores = query[order], found[order], scores[order]
    rank = np.arange(len(query)) - np.searchsorted(query, query)
    keep = rank < k
    ids, values = np.full((n_queries, k), -1, dtype=np.int64), np.full((n_queries, k), np.nan)
    ids[query[keep], rank[keep]] = found[keep]
    values[query[keep], rank[keep]] = scores[keep]
    return ids, values


def _tolerance(asked: _Asked, rows: _Rows) -> np.ndarray:
    """(q,) what rounding may hide in the float32 products of each query."""
    if asked.metric == "cosine":
        return np.full(len(asked.norms), TOLERANCE)
    return TOLERANCE * (asked.norms**2 + rows.norms.max() ** 2)


def _codes(
    query_groups: np.ndarray | None, database_groups: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Groups of any type as int32 codes common to both sides."""
    if query_groups is None or database_groups is None:
        return None, None
    known: dict[object, int] = {}
    database = np.fromiter((known.setdefault(g, len(known)) for g in np.asarray(database_groups).tolist()), np.int32)
    queries = np.fromiter((known.setdefault(g, len(known)) for g in np.asarray(query_groups).tolist()), np.int32)
    return queries, database


def _check(queries: np.ndarray, database: np.ndarray, k: int, metric: str) -> None:
    if queries.ndim != 2 or database.ndim != 2 or queries.shape[1] != database.shape[1]:
        raise ValueError(f"need (Q, d) queries and an (N, d) database, got {queries.shape} and {database.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be cosine or euclidean, got {metric!r}")


def _check_columns(
    n_queries: int,
    n_rows: int,
    query_groups: np.ndarray | None,
    database_groups: np.ndarray | None,
    query_ids: np.ndarray | None,
) -> None:
    if (query_groups is None) != (database_groups is None):
        raise ValueError("query_groups and database_groups come together")
    for name, column, n in (
        ("query_groups", query_groups, n_queries),
        ("database_groups", database_groups, n_rows),
        ("query_ids", query_ids, n_queries),
    ):
        if column is not None and len(column) != n:
            raise ValueError(f"{name} has {len(column)} entries for {n} rows")
