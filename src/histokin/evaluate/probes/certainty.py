"""What a probe's probabilities are worth, before and after each fold's temperature, and what it takes for what."""

from dataclasses import dataclass

import numpy as np

from histokin.evaluate.calibration import (
    T_LEAST,
    T_MOST,
    Reliability,
    adaptive_calibration_error,
    brier,
    expected_calibration_error,
    reliability,
    tempered,
)
from histokin.evaluate.probes.outcome import Outcome
from histokin.evaluate.probes.run import Probed

_LEAST_P = float(np.finfo(np.float64).eps)  # as in the figure nll


@dataclass(frozen=True, slots=True)
class Certainty:
    """How far the probabilities of one encoder or floor can be believed; all rows, each held out once, pooled.

    Attributes:
        bins: of the reliability diagram.
        ece: expected calibration error, 15 bins of equal width.
        ace: adaptive calibration error, 10 bins of equally many rows.
        brier: mean of sum_c (p_c - [c = y])^2, 0 to 2.
        nll: natural logarithms, p not below 2.2e-16.
        temperature: mean of the folds' T; it, and what is tempered, is None unless every fold has one (`Fold`).
        n_at_end: folds whose T lies at an end of the range that is searched, which is no fit to trust.
        ece_tempered: `ece` after each fold's probabilities got its own T.
        nll_tempered: `nll` after the same.
    """

    bins: Reliability
    ece: float
    ace: float
    brier: float
    nll: float
    temperature: float | None
    n_at_end: int
    ece_tempered: float | None
    nll_tempered: float | None


def certainty(probed: Probed, name: str) -> Certainty | None:
    """The calibration of one row's probabilities; None for a probe that gives none (margins, values).

    Args:
        probed: of `compare_probes`.
        name: of an encoder or floor; of a floor of several members the first is judged.

    Raises:
        KeyError: there is no such row; the known ones are named.
    """
    outcome, truth = _outcome(probed, name), probed.task.truth
    p = outcome.probabilities
    if p is None:
        return None
    ts = [fold.temperature for fold in outcome.folds if fold.temperature is not None]
    after = None
    if len(ts) == len(outcome.folds):
        after = np.empty_like(p)
        for fold, t in enumerate(ts):
            own = probed.task.fold == fold
            after[own] = tempered(_log(p[own]), t)
    return Certainty(
        bins=reliability(p, truth),
        ece=expected_calibration_error(p, truth),
        ace=adaptive_calibration_error(p, truth),
        brier=brier(p, truth),
        nll=_nll(p, truth),
        temperature=None if after is None else float(np.mean(ts)),
        n_at_end=sum(t in (T_LEAST, T_MOST) for t in ts),
        ece_tempered=None if after is None else expected_calibration_error(after, truth),
        nll_tempered=None if after is None else _nll(after, truth),
    )


def confusion_counts(probed: Probed, name: str) -> np.ndarray:
    """(C, C) int64 rows of each true class (first axis) that were said to be of each class, in the task's order.

    Args:
        probed: of `compare_probes`.
        name: of an encoder or floor; of a floor of several members the first is counted.

    Raises:
        KeyError: there is no such row; the known ones are named.
        ValueError: values were predicted, not classes.
    """
    outcome, n_classes = _outcome(probed, name), len(probed.task.classes)
    if not n_classes:
        raise ValueError(f"{probed.protocol['probe']} predicts values: there are no classes to confuse")
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(counts, (probed.task.truth, outcome.predicted), 1)
    return counts


def _outcome(probed: Probed, name: str) -> Outcome:
    if name not in probed.outcomes:
        raise KeyError(f"no row {name!r}; there are {', '.join(probed.outcomes)}")
    return probed.outcomes[name][0]


def _nll(p: np.ndarray, truth: np.ndarray) -> float:
    return float(-np.log(np.maximum(p[np.arange(len(p)), truth], _LEAST_P)).mean())


def _log(p: np.ndarray) -> np.ndarray:
    """Logarithms, -inf of 0."""
    return np.log(p, out=np.full(p.shape, -np.inf), where=p > 0)
