"""Negative controls: what must fall to chance when the truth is taken away."""

import math
from dataclasses import dataclass

import numpy as np

from histokin.evaluate.chance import constant_labels
from histokin.evaluate.items import Items, LeaveOut, make_task
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
        chance: exact expectation of a shuffle, whatever the neighbours are.
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
    n_shuffles: int = 100,
    max_queries: int = 5_000,
    seed: int = 0,
) -> Control:
    """Acc@1 of the same search after the labels were shuffled; above chance means that labels leak into the ranking.

    Labels that are constant per patient are exchanged between patients, others between items. A neighbour never
    shares the unit that was shuffled (its patient is left out, or it is another item), so a shuffle's expectation is
    sum_c n_c (n_c - 1) / (U (U - 1)) over U units, exactly.

    Args:
        features: (N, d) ranked by cosine.
        items: as in `evaluate_retrieval`; labels are shuffled among the labelled.
        leave_out: exclusion rule; under `self` and `slide` labels are always exchanged between items.
        n_shuffles: seeded.
        max_queries: sampled equally per patient.
        seed: of sampling and shuffles.

    Returns:
        `Control`.

    Raises:
        EvaluationError: as `evaluate_retrieval`.
    """
    task = make_task(items, leave_out=leave_out, max_queries=max_queries, seed=seed)
    found = nearest_allowed("features", np.asarray(features), task, 1)
    constant = constant_labels(task.codes, task.patients) if leave_out == "patient" else None
    units = task.codes if constant is None else constant
    rng = stream(seed, "shuffled-labels")
    values = []
    for _ in range(n_shuffles):
        shuffled = rng.permutation(units)
        frame = task.frame(found, shuffled if constant is None else shuffled[task.patients])
        values.append(float(acc_at_k(frame, 1).mean()))
    counts, n_units = np.bincount(units).astype(np.float64), len(units)
    chance = float((counts * (counts - 1)).sum() / (n_units * (n_units - 1)))
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
