"""Which list a vector lies in, and which lists a query looks into: equal for any batch, block or thread.

Matrix products sum in another order for another shape, so whatever they leave within rounding is decided by float64
sums of single pairs; equal scores go to the lower list.
"""

import numpy as np

from histokin.search.exact import TOLERANCE, exact_scores

_BLOCK = 4096  # rows assigned at a time
_FEW = 10_000  # tiles for which one list, that is an exact search, takes a millisecond
_PER_LIST = 39  # tiles planned a list at least: below that k-means has nothing to average
_PER_SAMPLE = 8  # vectors of the sample a centroid at least


def count_lists(n_planned: int, n_sample: int) -> int:
    """Lists for so many tiles: 4 sqrt(N) rounded down to a power of two, 1 where everything can be looked at.

    Measured on tissue: 1024 for 10^5, 2048 for 10^6 (search.md, 3.6).
    """
    if n_planned < _FEW:
        return 1
    wanted = min(4 * n_planned**0.5, n_planned / _PER_LIST, n_sample / _PER_SAMPLE)
    return 1 << int(np.log2(wanted)) if wanted >= 2 else 1


def assign(rows: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """(n,) int32 list of each stored row (n, d) float16: that of the largest inner product."""
    if len(centroids) == 1:
        return np.zeros(len(rows), dtype=np.int32)
    lists = np.empty(len(rows), dtype=np.int32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK].astype(np.float32)
        products = block @ centroids.T
        best = products.argmax(axis=1)
        floor = np.take_along_axis(products, best[:, None], axis=1) - TOLERANCE
        open_rows = np.flatnonzero((products >= floor).sum(axis=1) > 1)
        row, column = np.nonzero(products[open_rows] >= floor[open_rows])
        scores = exact_scores(block[open_rows[row]].astype(np.float64), centroids[column].astype(np.float64), "cosine")
        order = np.lexsort((column, -scores, row))
        first = order[np.searchsorted(row[order], np.arange(len(open_rows)))]
        best[open_rows] = column[first]
        lists[start : start + _BLOCK] = best
    return lists


def nearest_lists(
    query: np.ndarray, products: np.ndarray, centroids: np.ndarray, n_lists: int, counts: np.ndarray, n_rows: float
) -> np.ndarray:
    """The lists nearest to a query, until they are `n_lists` and hold `n_rows` rows.

    Args:
        query: (d,) float64 unit.
        products: (nlist,) float32 of the query with the centroids.
        centroids: (nlist, d) float32.
        n_lists: lists at least.
        counts: (nlist,) rows of each list that count.
        n_rows: of these at least.

    Returns:
        (m,) int64 lists, in no order.
    """
    order = np.argsort(-products)
    held = np.cumsum(counts[order])
    m = max(n_lists, int(np.searchsorted(held, n_rows)) + 1)
    if m >= len(order):
        return order
    last = products[order[m - 1]]
    falling = -products[order]
    start = int(np.searchsorted(falling, -(last + TOLERANCE)))
    stop = int(np.searchsorted(falling, -(last - TOLERANCE), side="right"))
    if stop - start == 1:
        return order[:m]
    # Which of these come before which is within rounding: the exact order says where to stop.
    window = np.sort(order[start:stop])
    scores = exact_scores(np.broadcast_to(query, (len(window), len(query))), centroids[window].astype(float), "cosine")
    window = window[np.lexsort((window, -scores))]
    reached = (held[start - 1] if start else 0) + np.cumsum(counts[window])
    n_more = max(n_lists - start, int(np.searchsorted(reached, n_rows)) + 1)
    return np.concatenate([order[:start], window[:n_more]])
