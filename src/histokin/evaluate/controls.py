"""Negative controls: what must fall to chance when the truth is taken away."""

import math
from dataclasses import dataclass

import numpy as np

from histokin.evaluate.chance import constant_labels, exchanged
from histokin.evaluate.items import Items, LeaveOut, Mask, make_task
from histokin.evaluate.retrieval import acc_at_k
from histokin.evaluate.vectors import nearest_allowed
from histokin.streams import stream


@dataclass(frozen=True, slots=True)
class Control:
    """Acc@1 with shuffled labels.

    Attributes:
        value: mean over the shuffles.
        low: 2.5 % quantile of single shuffles.
        high: 97.5 % quantile.
        chance: exact expectation of a shuffle.
        is_at_chance: `value` lies within 4 standard errors of `chance`.
        unit: what the labels were exchanged between: tile or patient.
        n_shuffles: how many.
    """

    value: float
    low: float
    high: float
    chance: float
    is_at_chance: bool
    unit: str
    n_shuffles: int


def shuffled_labels_control(
    features: np.ndarray,
    items: Items,
    *,
    leave_out: LeaveOut = "patient",
    queries: Mask | None = None,
    database: Mask | None = None,
    n_shuffles: int = 100,
    max_queries: int = 5_000,
    seed: int = 0,
) -> Control:
    """Acc@1 of the same search after the labels were shuffled; above chance means that labels leak into the ranking.

    Labels that are constant per patient are exchanged between patients, others between items. A neighbour never
    shares the unit that was shuffled (its patient is left out, or it is another item), so a shuffle's expectation is
    sum_c n_c (n_c - 1) / (U (U - 1)) over U units, exactly and whatever the neighbours are.

    Across a split labels stay within their role (units that ask, answer, or do both), so that both sides keep their
    classes. Two units of one role agree with the probability above; two of roles r and s, whose labels are
    independent, with sum_c n_rc n_sc / (U_r U_s). The expectation is the mean over the queries of that of their own
    and their neighbour's role; 0 where there is no neighbour.

    Args:
        features: (N, d) ranked by cosine.
        items: as in `evaluate_retrieval`; labels are shuffled among the labelled.
        leave_out: exclusion rule; but under `patient` labels are always exchanged between items.
        queries, database: as in `evaluate_retrieval`.
        n_shuffles: seeded.
        max_queries: sampled equally per patient.
        seed: of sampling and shuffles.

    Returns:
        `Control`.

    Raises:
        EvaluationError: as `evaluate_retrieval`.
    """
    task = make_task(items, leave_out=leave_out, max_queries=max_queries, seed=seed, queries=queries, database=database)
    found = nearest_allowed("features", np.asarray(features), task, 1)
    constant = constant_labels(task.codes, task.patients) if leave_out == "patient" else None
    unit_of = np.arange(len(task.rows)) if constant is None else task.patients
    labels = task.codes if constant is None else constant
    roles = task.roles(unit_of)
    rng = stream(seed, "shuffled-labels")
    values = []
    for _ in range(n_shuffles):
        frame = task.frame(found, exchanged(labels, roles, rng)[unit_of])
        values.append(float(acc_at_k(frame, 1).mean()))
    nearest = found.ids[:, 0]
    is_answered = nearest >= 0
    chance = _expectation(labels, roles, unit_of[task.queries[is_answered]], unit_of[nearest[is_answered]])
    chance *= float(is_answered.mean())
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    low, high = np.quantile(values, [0.025, 0.975])
    return Control(
        mean,
        float(low),
        float(high),
        chance,
        abs(mean - chance) <= 4 * sd / math.sqrt(n_shuffles) + 1e-12,
        "tile" if constant is None else "patient",
        n_shuffles,
    )


def _expectation(labels: np.ndarray, roles: np.ndarray, asking: np.ndarray, answering: np.ndarray) -> float:
    """How often (asking, answering) pairs of different units agree once labels are exchanged within roles."""
    counts = np.zeros((int(roles.max()) + 1, int(labels.max()) + 1))
    np.add.at(counts, (roles, labels), 1)
    sizes = counts.sum(axis=1)
    agreeing, pairs = counts @ counts.T - np.diag(sizes), np.outer(sizes, sizes) - np.diag(sizes)
    asked = np.zeros_like(pairs)
    np.add.at(asked, (roles[asking], roles[answering]), 1)
    met = asked > 0
    return float((asked[met] / max(1, len(asking)) * (agreeing[met] / pairs[met])).sum())
