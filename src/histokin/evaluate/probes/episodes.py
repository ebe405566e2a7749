"""Episodes of few-shot classification: which rows teach and which are asked, never of the same patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.probes.outcome import ProbeTask
from histokin.streams import stream


@dataclass(frozen=True, slots=True)
class LabelledRows:
    """The labelled rows in the order of patient and id.

    Attributes:
        rows: (N,) int64 among all rows given.
        truth: (N,) int64 codes.
        patients: (N,) int64 codes, ascending.
        queries: (Q,) int64 of the N, those that are asked unless their patient is in the support.
        weights: (Q,) float64 rows of their patient and class that each stands for.
    """

    rows: np.ndarray
    truth: np.ndarray
    patients: np.ndarray
    queries: np.ndarray
    weights: np.ndarray


def labelled_rows(task: ProbeTask, ids: Sequence[Any] | np.ndarray | None, max_queries: int, seed: int) -> LabelledRows:
    """Those of a task, ordered and with its queries drawn; `ids` and `max_queries` as in `few_shot`.

    Raises:
        ValueError: too few ids, or two rows of a patient share one.
    """
    own = np.arange(len(task))
    if ids is not None:
        if len(ids) != len(task) + task.n_unlabelled:
            raise ValueError(f"there are {len(ids)} ids for {len(task) + task.n_unlabelled} rows")
        own = np.unique(np.array([str(ids[row]) for row in task.rows]), return_inverse=True)[1]
    order = np.lexsort((own, task.groups))
    truth, patients, own = task.truth[order], task.groups[order], own[order]
    if ((np.diff(own) == 0) & (np.diff(patients) == 0)).any():
        raise ValueError("two rows of a patient have the same id: join slide and tile, or leave the ids out")
    queries, weights = np.arange(len(truth)), np.ones(len(truth))
    if len(truth) > max_queries:
        queries, weights = _sample(truth, patients, max_queries, seed)
    return LabelledRows(task.rows[order], truth, patients, queries, weights)


def draw_episodes(
    truth: np.ndarray,
    patients: np.ndarray,
    classes: Sequence[str],
    *,
    wanted: int,
    n_episodes: int,
    seed: int = 0,
) -> np.ndarray:
    """The supports of all episodes, drawn as `few_shot` says.

    Args:
        truth: (N,) int64 codes into `classes`, every class present.
        patients: (N,) int64 codes; rows of one patient in an order that does not depend on the order they came in.
        classes: C names.
        wanted: most shots; fewer are the first of them, whatever `wanted` is.
        n_episodes: E; each has a random stream of its own.
        seed: of the streams.

    Returns:
        (E, C, wanted) int64 rows, -1 from where a class has no more; all -1 where patients could not be set aside.

    Raises:
        EvaluationError: a class has a single patient.
    """
    n_patients = int(patients.max()) + 1
    has = np.zeros((n_patients, len(classes)), dtype=bool)
    has[patients, truth] = True
    few = [str(name) for name, n in zip(classes, has.sum(axis=0), strict=True) if n < 2]
    if few:
        raise EvaluationError(
            f"{', '.join(few)}: a single patient has it, who cannot both teach and be asked",
            "evaluation",
            "Leave such classes out, or add patients who have them.",
        )
    cells = [_cells(truth, patients, code) for code in range(len(classes))]
    found = np.full((n_episodes, len(classes), wanted), -1, dtype=np.int64)
    for episode in range(n_episodes):
        rng = stream(seed, "few-shot", episode)
        aside = _set_aside(rng, has)
        if aside is None:
            continue
        keys = rng.random(len(truth))
        for code, rows in enumerate(cells):
            order = rng.permutation(np.flatnonzero(has[:, code] & ~aside))
            drawn = _in_turn([rows[p] for p in order[:wanted].tolist()], keys)[:wanted]
            found[episode, code, : len(drawn)] = drawn
    return found


def is_made(episodes: np.ndarray, shots: int) -> np.ndarray:
    """(E,) bool: every class has so many."""
    return np.min(episodes[:, :, shots - 1], axis=1) >= 0


def asked(labelled: LabelledRows, episodes: np.ndarray, shots: Sequence[int]) -> list[tuple[float, float]]:
    """By shots the median patients and tiles that an episode asks; NaN where none could be made."""
    sizes = np.bincount(labelled.patients)
    found = []
    for s in shots:
        counts = []
        for support in episodes[is_made(episodes, s), :, :s]:
            taught = np.unique(labelled.patients[support])
            counts.append((len(sizes) - len(taught), sizes.sum() - sizes[taught].sum()))
        found.append(tuple(np.median(counts, axis=0).tolist()) if counts else (np.nan, np.nan))
    return found


def _sample(truth: np.ndarray, patients: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ascending rows, of each patient and class the same share and at least one, and what each stands for."""
    rng = stream(seed, "few-shot-queries")
    order = np.lexsort((truth, patients))
    starts = np.flatnonzero((np.diff(truth[order]) != 0) | (np.diff(patients[order]) != 0)) + 1
    drawn = []
    weights = []
    for cell in np.split(order, starts):
        n = max(1, len(cell) * most // len(truth))
        drawn.append(rng.choice(cell, n, replace=False))
        weights.append(np.full(n, len(cell) / n))
    rows = np.concatenate(drawn)
    return np.sort(rows), np.concatenate(weights)[np.argsort(rows)]


def _cells(truth: np.ndarray, patients: np.ndarray, code: int) -> dict[int, np.ndarray]:
    """The rows of a class by patient."""
    own = np.flatnonzero(truth == code)
    own = own[np.argsort(patients[own], kind="stable")]
    names, starts = np.unique(patients[own], return_index=True)
    return dict(zip(names.tolist(), np.split(own, starts[1:]), strict=True))


def _set_aside(rng: np.random.Generator, has: np.ndarray) -> np.ndarray | None:
    """(P,) bool patients who are only asked; None where the draw came to a class that could not be served."""
    aside = np.zeros(len(has), dtype=bool)
    for code in np.argsort(has.sum(axis=0), kind="stable"):
        if (has[:, code] & aside).any():
            continue
        left = has[~aside].sum(axis=0)
        is_free = has[:, code] & ~aside & (left - has >= 1).all(axis=1)
        if not is_free.any():
            return None
        aside[rng.choice(np.flatnonzero(is_free))] = True
    return aside


def _in_turn(cells: list[np.ndarray], keys: np.ndarray) -> np.ndarray:
    """Rows in the order of drawing: one of each cell, then a second of each; within a cell by their random keys."""
    drawn = np.concatenate([rows[np.argsort(keys[rows])] for rows in cells])
    rounds = np.concatenate([np.arange(len(rows)) for rows in cells])
    return drawn[np.argsort(rounds, kind="stable")]
