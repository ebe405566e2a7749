"""Which rows are held out together: leave-one-group-out, or grouped stratified K folds where groups are many."""

from dataclasses import dataclass

import numpy as np

from histokin.streams import stream

MOST_GROUPS = 20
"""Up to so many groups each is held out by itself."""
MANY_FOLDS = 5


@dataclass(frozen=True, slots=True)
class Split:
    """How a probe's rows are divided.

    Attributes:
        unit: the word for what is held out together: patient, slide, section, site.
        n_folds: outer folds; None leaves one group out where there are at most 20 and makes 5 folds of more. As many
            as groups or more leave one group out.
        n_inner: folds of the training part on which C or alpha is chosen, grouped alike.
        repeat: 0 takes the groups in the order of their names; others shuffle them before they are put into folds
            (of no effect where one group is left out).
    """

    unit: str = "patient"
    n_folds: int | None = None
    n_inner: int = 3
    repeat: int = 0

    def __post_init__(self) -> None:
        if (self.n_folds is not None and self.n_folds < 2) or self.n_inner < 2 or self.repeat < 0:
            raise ValueError(
                f"a split needs n_folds >= 2 or None, n_inner >= 2 and repeat >= 0, got {self.n_folds}, "
                f"{self.n_inner}, {self.repeat}"
            )


def outer_folds(groups: np.ndarray, split: Split, strata: np.ndarray | None = None) -> np.ndarray:
    """(N,) int64 fold of each row, 0..F-1.

    Args:
        groups: (N,) int64 codes 0..G-1.
        split: how.
        strata: (N,) int64 class codes, or None (values): folds of like size.
    """
    n_groups = int(groups.max()) + 1
    wanted = split.n_folds or (n_groups if n_groups <= MOST_GROUPS else MANY_FOLDS)
    return groups.copy() if wanted >= n_groups else grouped_folds(groups, wanted, strata, repeat=split.repeat)


def grouped_folds(groups: np.ndarray, n_folds: int, strata: np.ndarray | None = None, *, repeat: int = 0) -> np.ndarray:
    """Greedy grouped folds whose class shares are alike (the rule of scikit-learn's StratifiedGroupKFold).

    Groups in descending standard deviation of their class counts (stable), each to the fold that minimises the mean
    over classes of the standard deviation over folds of class shares; ties go to the fold with fewer rows. Without
    strata the largest groups come first, each to the smallest fold. Unlike there, a class with fewer rows than folds
    is no error: training parts that lack it say so.

    Args:
        groups: (N,) integer codes, gaps allowed.
        n_folds: at most; fewer where there are fewer groups.
        strata: (N,) integer class codes >= 0.
        repeat: 0 takes groups in the order of their codes, others shuffle them first.

    Returns:
        (N,) int64 codes 0..F-1, none empty.
    """
    names, codes = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), 1 if strata is None else int(strata.max()) + 1))
    np.add.at(counts, (codes, np.zeros_like(codes) if strata is None else strata), 1)
    counts = counts[:, counts.sum(axis=0) > 0]
    order = np.arange(len(names)) if repeat == 0 else stream(0, "folds", repeat).permutation(len(names))
    spread = counts.std(axis=1) if counts.shape[1] > 1 else counts[:, 0]
    order = order[np.argsort(-spread[order], kind="stable")]
    filled = np.zeros((min(n_folds, len(names)), counts.shape[1]))
    fold_of = np.zeros(len(names), dtype=np.int64)
    for group in order:
        fold_of[group] = _best_fold(filled, counts[group], counts.sum(axis=0))
        filled[fold_of[group]] += counts[group]
    return np.unique(fold_of[codes], return_inverse=True)[1].astype(np.int64)


def _best_fold(filled: np.ndarray, group: np.ndarray, total: np.ndarray) -> int:
    best, least, fewest = 0, np.inf, np.inf
    for fold in range(len(filled)):
        tried = filled.copy()
        tried[fold] += group
        uneven, n_rows = float((tried / total).std(axis=0).mean()), float(filled[fold].sum())
        if uneven < least or (np.isclose(uneven, least) and n_rows < fewest):
            best, least, fewest = fold, uneven, n_rows
    return best
