"""Choosing a probe's setting by inner grouped folds of its training part, so that nothing held out has a say."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from histokin.evaluate.items import sample_queries
from histokin.evaluate.probes.folds import grouped_folds
from histokin.evaluate.probes.outcome import Part
from histokin.evaluate.vectors import scaled

MOST_CHOSEN_ON = 4000
"""Of more training rows so many, equally many a group, choose: dozens of fits on all would take most of the time."""

Answers = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(n, D) z-scored rows, their (n,) codes and (m, D) others to the (S, m) codes that each of S settings gives these."""


def part_to_choose_on(train: Part, most: int = MOST_CHOSEN_ON) -> tuple[Part, float]:
    """At most `most` rows, and how many times more there are.

    A loss that is a sum over rows binds the less the more rows there are: what C is on all of them is C times that
    number on the part.
    """
    n_all = len(train.x)
    if n_all <= most:
        return train, 1.0
    rows = sample_queries(train.groups, most, seed=0)
    return replace(train, x=train.x[rows], truth=train.truth[rows], groups=train.groups[rows]), n_all / len(rows)


def best_setting(train: Part, n_settings: int, answers: Answers) -> int | None:
    """The setting of the best pooled inner balanced accuracy, ties to the first; None where there is a single group.

    Args:
        train: the part to choose on.
        n_settings: S.
        answers: what each setting says, fitted on one inner part.
    """
    folds = grouped_folds(train.groups, train.n_inner, train.truth)
    if folds.max() == 0:
        return None
    said = np.zeros((n_settings, len(train.x)), dtype=np.int64)
    for fold in range(int(folds.max()) + 1):
        is_test = folds == fold
        x, test = scaled(train.x[~is_test], train.x[is_test])
        said[:, is_test] = answers(x, train.truth[~is_test], test)
    recalls = [(said[:, train.truth == code] == code).mean(axis=1) for code in np.unique(train.truth)]
    return int(np.mean(recalls, axis=0).round(12).argmax())
