"""Vectors that can be judged, and the nearest of them that an exclusion rule allows."""

from typing import Literal

import numpy as np

from histokin.errors import StoreError
from histokin.evaluate.items import Task
from histokin.search import Neighbours, top_k

_BLOCK = 4096  # rows looked at together


def check_vectors(
    name: str, features: np.ndarray, rows: np.ndarray, *, needs_direction: bool = False, told: np.ndarray | None = None
) -> None:
    """Refuse a vector that no figure could use.

    Args:
        name: of the encoder or floor.
        features: (M, D) floating.
        rows: (N,) int64 of them that are used.
        needs_direction: whether a vector of length zero is refused too.
        told: (N,) the numbers that people know the rows by; by default `rows`.

    Raises:
        StoreError: a value is not finite, or a vector zero; names encoder and row.
    """
    for start in range(0, len(rows), _BLOCK):
        norms = np.linalg.norm(np.asarray(features[rows[start : start + _BLOCK]], dtype=np.float64), axis=1)
        is_bad = ~np.isfinite(norms) | ((norms == 0) & needs_direction)
        if is_bad.any():
            at = int(is_bad.argmax())
            what = "is zero" if norms[at] == 0 else "holds values that are not finite"
            raise StoreError(
                f"the vector {what}",
                f"{name}, row {(rows if told is None else told)[start + at]}",
                "Embed its slide again, or leave the tile out of the store.",
            )


def nearest_allowed(
    name: str,
    features: np.ndarray,
    task: Task,
    k: int,
    metric: Literal["cosine", "euclidean"] = "cosine",
    *,
    is_scaled: bool = False,
) -> Neighbours:
    """The nearest of the task's rows under its exclusion rule.

    Args:
        name: of the encoder or floor, for errors.
        features: (M, D), one row for each item that the task was made of.
        task: rows, queries and groups.
        k: neighbours.
        metric: cosine or euclidean.
        is_scaled: z-score first, by the rows that may answer: all, or a split's database.

    Returns:
        (Q, k) places among the task's rows.

    Raises:
        StoreError: as `check_vectors`.
    """
    check_vectors(name, features, task.rows, needs_direction=metric == "cosine" and not is_scaled)
    known = features if len(task.rows) == len(features) else features[task.rows]
    if task.database is None:
        database = standardised(known) if is_scaled else known
        queries = database if len(task.queries) == len(database) else database[task.queries]
    else:
        database, queries = known[task.database], known[task.queries]
        if is_scaled:
            database, queries = scaled(database.astype(np.float64), queries.astype(np.float64))
    return task.among_rows(top_k(queries, database, k, metric=metric, **task.exclusion))


def standardised(features: np.ndarray) -> np.ndarray:
    """Features with mean 0 and sd 1 in each dimension (ddof 0; a dimension with sd < 1e-12 is only centred)."""
    values = np.asarray(features, dtype=np.float64)
    mean, spread = _moments(values)
    return (values - mean) / spread


def scaled(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both parts z-scored by the training part, as `standardised` does."""
    mean, spread = _moments(train)
    return (train - mean) / spread, (test - mean) / spread


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spread = values.std(axis=0)
    return values.mean(axis=0), np.where(spread < 1e-12, 1.0, spread)
