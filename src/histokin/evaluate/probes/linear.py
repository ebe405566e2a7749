"""Multinomial logistic regression on frozen features."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from histokin.evaluate.calibration import fit_temperature
from histokin.evaluate.probes.choosing import best_setting, part_to_choose_on
from histokin.evaluate.probes.folds import grouped_folds
from histokin.evaluate.probes.outcome import Part, Predicted

C_GRID = tuple(10.0**e for e in range(-4, 3))
_STAND_IN = 1.0  # where a single training group leaves nothing to choose on
_MAX_ITER = 2000
# Up to so many unknowns Newton's method is the quicker way to the same optimum: 257 of them took lbfgs 137 ms a fit.
_FEW_UNKNOWNS = 600


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Logistic regression: minimise sum_i w_i CE_i + (1/(2C)) ||W||^2, intercept free (scikit-learn).

    With two classes W is one vector (scikit-learn's binomial form), whose penalty is twice that of the equal
    multinomial pair. Features are z-scored by the training part.

    Attributes:
        c: C, or None to choose it among `C_GRID` by the balanced accuracy of inner grouped folds (of 4000 rows where
            there are more); ties take the smaller C. Then a temperature is fitted to what these folds held out, which
            leaves the probabilities as they are.
        is_balanced: w_i = N / (classes * rows of its class) instead of 1. The default, since the headline is the mean
            recall and the documented floors were made so; NLL and ECE then judge reweighted probabilities.
    """

    c: float | None = None
    is_balanced: bool = True

    def __post_init__(self) -> None:
        if self.c is not None and not self.c > 0:
            raise ValueError(f"C must be > 0, got {self.c}")

    @property
    def word(self) -> str:
        return "linear"

    @property
    def is_standardised(self) -> bool:
        return True

    def predict(self, train: Part, test: np.ndarray) -> Predicted:
        """Probabilities (n, C); classes absent from the training part get 0, a sole class gets 1."""
        c, temperature, is_at_edge, is_unchosen = self.c, None, False, False
        if c is None:
            c, temperature = _chosen_c(train, is_balanced=self.is_balanced)
            is_unchosen = c is None
            c = _STAND_IN if c is None else c
            is_at_edge = not is_unchosen and c in (C_GRID[0], C_GRID[-1])
        model = logistic(c, _unknowns(train), is_balanced=self.is_balanced)
        is_converged = fit(model, train.x, train.truth)
        return Predicted(
            probabilities(model, test, train.truth, train.n_classes),
            c,
            is_at_edge,
            is_unchosen,
            is_converged,
            temperature=temperature,
        )


def _unknowns(train: Part) -> int:
    n_vectors = train.n_classes if train.n_classes > 2 else 1
    return n_vectors * (train.x.shape[1] + 1)


def logistic(c: float, n_unknowns: int, *, is_balanced: bool, is_choosing: bool = False) -> Any:
    """An unfitted scikit-learn model of the probe's objective; while choosing, each fit starts from the one before."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(
        C=c,
        solver="newton-cholesky" if n_unknowns <= _FEW_UNKNOWNS else "lbfgs",
        class_weight="balanced" if is_balanced else None,
        max_iter=_MAX_ITER,
        tol=1e-4,
        warm_start=is_choosing,
    )


def fit(model: Any, x: np.ndarray, truth: np.ndarray) -> bool:
    """Fit; whether it converged. A single class needs no fit."""
    from sklearn.exceptions import ConvergenceWarning

    if len(np.unique(truth)) < 2:
        return True
    with warnings.catch_warnings():  # told in the fold's record instead
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, truth)
    return int(np.max(model.n_iter_)) < _MAX_ITER


def probabilities(model: Any, test: np.ndarray, train_truth: np.ndarray, n_classes: int) -> np.ndarray:
    """(n, n_classes) float64 of a fitted model, or of the only class it saw."""
    found = np.zeros((len(test), n_classes))
    seen = np.unique(train_truth)
    found[:, seen] = 1.0 if len(seen) == 1 else model.predict_proba(test)
    return found


@dataclass(frozen=True, slots=True)
class _InnerFold:
    """What one inner fold was asked and the linear functions that answered.

    Attributes:
        test: (m, D) z-scored rows.
        seen: (K,) int64 codes of the classes that were fitted on.
        coefs: by C, (K, D), or (1, D) of two classes; none of a single class.
        intercepts: by C, (K,) or (1,).
    """

    test: np.ndarray
    seen: np.ndarray
    coefs: list[np.ndarray]
    intercepts: list[np.ndarray]

    def logits(self, setting: int, n_classes: int) -> np.ndarray:
        """(m, n_classes) float64 whose softmax are the probabilities, -inf where these are 0.

        Not their logarithm: a probability of 1e-17 beside one of 1 is rounded to 0, and then no temperature helps.
        """
        margins = (self.test @ self.coefs[setting].T + self.intercepts[setting]).astype(np.float64)
        if len(self.seen) == 2:  # of the second against the first
            margins = np.hstack([np.zeros_like(margins), margins])
        found = np.full((len(self.test), n_classes), -np.inf)
        found[:, self.seen] = margins
        return found


def _chosen_c(train: Part, *, is_balanced: bool) -> tuple[float | None, float | None]:
    """The C of `best_setting`, None where the training part is a single group, and the temperature of its logits.

    The path of growing C starts each fit from the one before: the optimum is the same, the way to it shorter.
    """
    n_unknowns = _unknowns(train)
    part, n_times = part_to_choose_on(train)
    # Half the digits are enough to choose by, in less than half the time; Newton's method needs them all.
    dtype = np.float64 if n_unknowns <= _FEW_UNKNOWNS else np.float32
    inner: list[_InnerFold] = []

    def answers(x: np.ndarray, truth: np.ndarray, test: np.ndarray) -> np.ndarray:
        model = logistic(C_GRID[0] * n_times, n_unknowns, is_balanced=is_balanced, is_choosing=True)
        x, test = x.astype(dtype), test.astype(dtype)
        own = _InnerFold(test, np.unique(truth), [], [])
        inner.append(own)
        said = []
        for c in C_GRID:
            model.set_params(C=c * n_times)
            fit(model, x, truth)
            said.append(probabilities(model, test, truth, train.n_classes).argmax(axis=1))
            if len(own.seen) > 1:
                own.coefs.append(model.coef_.copy())
                own.intercepts.append(model.intercept_.copy())
        return np.array(said)

    best = best_setting(part, len(C_GRID), answers)
    return (None, None) if best is None else (C_GRID[best], _temperature(part, inner, best))


def _temperature(part: Part, inner: list[_InnerFold], setting: int) -> float | None:
    """T of the inner folds' held-out rows, those left out whose class was not fitted on; None where no row is left."""
    folds = grouped_folds(part.groups, part.n_inner, part.truth)  # those of `best_setting`, as `inner` is in order
    logits, truths = [], []
    for fold, one in enumerate(inner):
        if len(one.seen) > 1:
            truth = part.truth[folds == fold]
            is_known = np.isin(truth, one.seen)
            logits.append(one.logits(setting, part.n_classes)[is_known])
            truths.append(truth[is_known])
    if not sum(map(len, truths)):
        return None
    return fit_temperature(np.concatenate(logits), np.concatenate(truths)).t
