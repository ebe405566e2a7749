"""ROC and precision-recall curves of one class against the rest, with bands over resampled patients."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from histokin.evaluate.intervals import (
    FEWEST,
    Statistic,
    bootstrap_interval,
    class_strata,
    patient_weights,
)
from histokin.evaluate.items import text_codes
from histokin.report.document import Value
from histokin.report.mil.document import ClassCurve

_GRID = np.linspace(0, 1, 51)
_MOST_POINTS = 400  # of a curve: more than a drawing can show
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
_Counts = tuple[NDArray[np.float64], NDArray[np.float64]]


def class_curve(
    row: str,
    of: str,
    probability: NDArray[np.float64],
    is_positive: NDArray[np.bool_],
    patients: NDArray[np.object_],
    *,
    seed: int = 0,
    n_draws: int = 1000,
) -> ClassCurve:
    """Both curves of one class.

    Of equal probabilities all or none are called positive, so that ties give a slanted line and no lucky order. Bands
    are pointwise: 95 % of the resampled curves lie within at each x, not everywhere at once.

    Args:
        row: the classifier's name.
        of: the class.
        probability: (N,) of the class, held out.
        is_positive: (N,) both values occurring.
        patients: (N,) whose: they are resampled, and where each has slides of one truth, within both truths.
        seed: of the resamples.
        n_draws: resamples.
    """
    if not is_positive.any() or is_positive.all():
        raise ValueError(f"{of}: need slides of the class and others")
    names, codes = text_codes(patients)
    # (P, 2) slides of each patient by truth
    sizes = np.stack([np.bincount(codes[is_positive == truth], minlength=len(names)) for truth in (False, True)], 1)
    order = np.argsort(-probability, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(probability[order])), len(order) - 1)  # last of each run of equal ones
    own, positive = codes[order], is_positive[order].astype(np.float64)

    def counted(weights: NDArray[np.float64]) -> _Counts:
        """(B, K) true and false positives at each of K thresholds, from the highest down."""
        each = weights[:, own]
        return (each * positive).cumsum(axis=1)[:, ends], (each * (1 - positive)).cumsum(axis=1)[:, ends]

    weights = patient_weights(len(names), n_draws=n_draws, seed=seed, strata=class_strata(sizes.astype(np.float64)))
    whole = counted(np.ones((1, len(names))))
    roc_x, roc_y = (found[0] for found in _roc(*whole))
    pr_x, pr_y = (found[0] for found in _pr(*whole))
    is_resampled = len(names) >= FEWEST
    drawn = counted(weights) if is_resampled else whole
    return ClassCurve(
        row=row,
        of=of,
        n_positive=int(is_positive.sum()),
        n=len(is_positive),
        roc=_points(roc_x, roc_y),
        pr=_points(*_steps(pr_x, pr_y)),
        auc=_value(lambda w: _auc(*counted(w)), weights),
        ap=_value(lambda w: _ap(*counted(w)), weights),
        roc_band=_band(_roc(*drawn), _on_line) if is_resampled else [],
        pr_band=_band(_pr(*drawn), _next_step) if is_resampled else [],
    )


def _roc(hits: NDArray[np.float64], alarms: NDArray[np.float64]) -> Curve:
    """(B, K + 1) false positive rate and recall, from (0, 0); NaN where a resample lacks a truth."""
    start = np.zeros((len(hits), 1))
    with np.errstate(invalid="ignore"):
        return (np.hstack([start, alarms / alarms[:, -1:]]), np.hstack([start, hits / hits[:, -1:]]))


def _pr(hits: NDArray[np.float64], alarms: NDArray[np.float64]) -> Curve:
    """(B, K) recall and precision; precision is NaN above the first slide that counts."""
    with np.errstate(invalid="ignore"):
        return hits / hits[:, -1:], hits / (hits + alarms)


def _steps(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> Curve:
    """The corners of the curve whose area is the average precision: each recall at the precision it is reached with."""
    is_reached = np.diff(recall, prepend=0.0) > 0
    ends, heights = recall[is_reached], precision[is_reached]
    return np.stack([np.append(0.0, ends[:-1]), ends], axis=1).ravel(), heights.repeat(2)


def _auc(hits: NDArray[np.float64], alarms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area under the lines between the points: ties count half."""
    x, y = _roc(hits, alarms)
    return (np.diff(x) * (y[:, 1:] + y[:, :-1]) / 2).sum(axis=1)


def _ap(hits: NDArray[np.float64], alarms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average precision, sum of (R_k - R_k-1) P_k: no line is drawn between the points, which would flatter."""
    recall, precision = _pr(hits, alarms)
    steps = np.diff(recall, axis=1, prepend=0.0)
    return np.where(np.isnan(recall[:, -1]), np.nan, (steps * np.nan_to_num(precision)).sum(axis=1))


def _on_line(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The height of a rising line at each place of the grid; of an upright piece its upper end."""
    at = np.searchsorted(x, _GRID, side="right") - 1
    after = np.minimum(at + 1, len(x) - 1)
    width = x[after] - x[at]
    share = np.divide(_GRID - x[at], width, out=np.zeros(len(_GRID)), where=width > 0)
    return y[at] + share * (y[after] - y[at])


def _next_step(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """The precision with which each recall of the grid is first reached."""
    first = np.flatnonzero(~np.isnan(y))[0]
    return y[first:][np.searchsorted(x[first:], _GRID - 1e-12).clip(0, len(y) - first - 1)]


def _band(
    drawn: Curve, read: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]
) -> list[tuple[float, float, float]]:
    """(x, low, high) over the resamples in which both truths occur."""
    heights = [read(x, y) for x, y in zip(*drawn, strict=True) if np.isfinite(x[-1]) and np.isfinite(y[-1])]
    if not heights:
        return []
    low, high = np.quantile(heights, [0.025, 0.975], axis=0)
    return list(zip(_GRID.tolist(), low.tolist(), high.tolist(), strict=True))


def _points(x: NDArray[np.float64], y: NDArray[np.float64]) -> list[tuple[float, float]]:
    """A curve's corners, those inside straight pieces left out, thinned where there are still too many."""
    steps = np.stack([np.diff(x), np.diff(y)], axis=1)
    turns = np.abs(steps[:-1, 0] * steps[1:, 1] - steps[:-1, 1] * steps[1:, 0]) > 1e-12
    kept = np.concatenate([[True], turns, [True]])[: len(x)].nonzero()[0]
    if len(kept) > _MOST_POINTS:
        kept = kept[np.linspace(0, len(kept) - 1, _MOST_POINTS).round().astype(int)]
    return list(zip(x[kept].tolist(), y[kept].tolist(), strict=True))


def _value(statistic: Statistic, weights: NDArray[np.float64]) -> Value:
    found = bootstrap_interval(statistic, weights)
    low, high = (end if np.isfinite(end) else None for end in (found.low, found.high))
    return Value(float(statistic(np.ones((1, weights.shape[1])))[0]), low, high, found.note)
