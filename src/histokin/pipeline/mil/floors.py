"""What is had without a network, on the same folds, whatever the target: bag size, mean tile, extremes, site, majority.

Classes take the logistic regression of `mil.training.floors`; labels one of each; values ridge regression; survival
ridge regression of the log time of those who had the event, shorter meaning a higher risk.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from histokin.evaluate.items import text_codes
from histokin.evaluate.probes.linear import LinearProbe
from histokin.evaluate.probes.outcome import Part
from histokin.evaluate.probes.ridge import RidgeProbe
from histokin.evaluate.splits import SplitTable
from histokin.evaluate.vectors import scaled
from histokin.mil.training import MilTask
from histokin.mil.training.figures import Judged
from histokin.mil.training.floors import floor_features, floor_predictions

MAJORITY = "majority"
Rows = NDArray[np.int64]
_Fit = Callable[[NDArray[np.float64], MilTask, NDArray[np.int64], Rows, Rows, int], NDArray[np.float64]]


def floors_of(task: MilTask, outer: SplitTable, judged: Judged, *, n_inner: int) -> dict[str, NDArray[np.float64]]:
    """Out-of-fold (n, P) of each floor, in the order in which slides are judged.

    Args:
        task: slides and targets.
        outer: the folds.
        judged: the truth, fold by fold, as `cross_validate` has it.
        n_inner: inner folds that choose the regularisation.
    """
    features = floor_features(task)
    if task.targets.kind == "classes":
        found = floor_predictions(features, task, outer, n_inner=n_inner)
    else:
        fit = {"labels": _labels, "value": _values, "survival": _risks}[task.targets.kind]
        word = "logistic" if task.targets.kind == "labels" else "ridge"
        found = {name.replace("logistic", word): _folds(x, task, outer, fit, n_inner) for name, x in features.items()}
    return constant_floor(judged) | found


def constant_floor(judged: Judged) -> dict[str, NDArray[np.float64]]:
    """The commonest class always, told as the shares of all classes; of other targets chance says the same."""
    if judged.kind != "classes":
        return {}
    counts = np.bincount(judged.truth, minlength=len(judged.names))
    return {MAJORITY: np.tile(counts / counts.sum(), (len(judged.truth), 1))}


def _folds(x: NDArray[np.float64], task: MilTask, outer: SplitTable, fit: _Fit, n_inner: int) -> NDArray[np.float64]:
    codes, groups = outer.part_codes(task.items.item), text_codes(task.items.group)[1]
    parts = []
    for place in range(len(outer.folds)):
        train = np.flatnonzero((codes[:, place] == 0) | (codes[:, place] == 1))
        parts.append(fit(x, task, groups, train, np.flatnonzero(codes[:, place] == 2), n_inner))
    return np.concatenate(parts)


def _labels(
    x: NDArray[np.float64], task: MilTask, groups: NDArray[np.int64], train: Rows, test: Rows, n_inner: int
) -> NDArray[np.float64]:
    told = np.empty((len(test), len(task.targets.names)))
    for label in range(told.shape[1]):
        truth = task.targets.values[:, label]
        known = train[~np.isnan(truth[train])]
        if len(np.unique(truth[known])) < 2:
            told[:, label] = 0.5
            continue
        own, asked = scaled(x[known], x[test])
        part = Part(own, truth[known].astype(np.int64), groups[known], 2, n_inner)
        told[:, label] = LinearProbe().predict(part, asked).values[:, 1]
    return told


def _values(
    x: NDArray[np.float64], task: MilTask, groups: NDArray[np.int64], train: Rows, test: Rows, n_inner: int
) -> NDArray[np.float64]:
    return _ridge(x, np.asarray(task.targets.values, np.float64), groups, train, test, n_inner)


def _risks(
    x: NDArray[np.float64], task: MilTask, groups: NDArray[np.int64], train: Rows, test: Rows, n_inner: int
) -> NDArray[np.float64]:
    time, event = task.targets.values.T
    with_event = train[event[train] > 0]
    return -_ridge(x, np.log(time), groups, with_event, test, n_inner)


def _ridge(
    x: NDArray[np.float64], truth: NDArray[np.float64], groups: NDArray[np.int64], train: Rows, test: Rows, n_inner: int
) -> NDArray[np.float64]:
    own, asked = scaled(x[train], x[test])
    return RidgeProbe().predict(Part(own, truth[train], groups[train], 0, n_inner), asked).values[:, None]
