"""Ridge regression on frozen features."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from histokin.evaluate.probes.folds import grouped_folds
from histokin.evaluate.probes.outcome import Part, Predicted
from histokin.evaluate.vectors import scaled

ALPHAS = tuple(10.0 ** (e / 2) for e in range(-4, 13))
"""1e-2 to 1e6 in half decades."""
_STAND_IN = 10.0  # where a single training group leaves nothing to choose on


@dataclass(frozen=True, slots=True)
class RidgeProbe:
    """Ridge regression: minimise sum_i (y_i - b - w.x_i)^2 + alpha ||w||^2 on z-scored features, b free.

    Attributes:
        alphas: one is taken, of several that with the least squared error is chosen; ties take the larger.
        chosen_by: `group`, inner grouped folds; `row`, leave-one-row-out, which sees rows of the same group and so
            regularises too little: for parity with figures that were made so.
    """

    alphas: tuple[float, ...] = ALPHAS
    chosen_by: Literal["group", "row"] = "group"

    def __post_init__(self) -> None:
        if not self.alphas or min(self.alphas) <= 0:
            raise ValueError(f"alphas must be > 0 and at least one, got {self.alphas}")
        if self.chosen_by not in ("group", "row"):
            raise ValueError(f"chosen_by must be group or row, got {self.chosen_by!r}")

    @property
    def word(self) -> str:
        return "ridge"

    @property
    def is_standardised(self) -> bool:
        return True

    def predict(self, train: Part, test: np.ndarray) -> Predicted:
        """Values (n,)."""
        alphas = sorted(set(self.alphas))
        path = _path(train.x, train.truth)
        errors = None
        if len(alphas) > 1:
            errors = path.left_out_errors(alphas) if self.chosen_by == "row" else _inner_errors(train, alphas)
        if errors is None:
            is_unchosen = len(alphas) > 1
            alpha = min(alphas, key=lambda a: abs(np.log(a / _STAND_IN))) if is_unchosen else alphas[0]
            return Predicted(path.predict(test, [alpha])[0], alpha, is_unchosen=is_unchosen)
        best = len(alphas) - 1 - int(errors[::-1].argmin())
        return Predicted(path.predict(test, [alphas[best]])[0], alphas[best], is_at_edge=best in (0, len(alphas) - 1))


@dataclass(frozen=True, slots=True)
class _RidgePath:
    """All ridge solutions of one training part, through the eigenvectors of its scatter matrix.

    Attributes:
        x: (n, D) centred.
        residual: (n,) y minus its mean.
        mean_x, mean_y: what was taken away.
        basis: (D, r) eigenvectors of x'x with eigenvalue > 0.
        eigenvalues: (r,).
    """

    x: np.ndarray
    residual: np.ndarray
    mean_x: np.ndarray
    mean_y: float
    basis: np.ndarray
    eigenvalues: np.ndarray

    def predict(self, test: np.ndarray, alphas: list[float]) -> np.ndarray:
        """(alphas, m) values of the (m, D) rows."""
        target = (self.x @ self.basis).T @ self.residual
        rows = (test - self.mean_x) @ self.basis
        shrunk = target / (self.eigenvalues + np.array(alphas)[:, None])
        return self.mean_y + shrunk @ rows.T

    def left_out_errors(self, alphas: list[float]) -> np.ndarray:
        """(alphas,) mean squared error of each row when fitted without it: e_i / (1 - h_ii)."""
        rows = self.x @ self.basis
        target = rows.T @ self.residual
        errors = []
        for alpha in alphas:
            inverse = 1 / (self.eigenvalues + alpha)
            leverage = (rows**2) @ inverse + 1 / len(rows)
            errors.append((((self.residual - rows @ (target * inverse)) / (1 - leverage)) ** 2).mean())
        return np.array(errors)


def _path(x: np.ndarray, y: np.ndarray) -> _RidgePath:
    mean_x, mean_y = x.mean(axis=0), float(y.mean())
    centred = x - mean_x
    if len(x) >= x.shape[1]:
        eigenvalues, basis = np.linalg.eigh(centred.T @ centred)
    else:  # fewer rows than dimensions: the same eigenvectors from the smaller matrix
        eigenvalues, left = np.linalg.eigh(centred @ centred.T)
        basis = centred.T @ left / np.sqrt(np.maximum(eigenvalues, np.finfo(np.float64).tiny))
    kept = eigenvalues > 1e-12 * max(float(eigenvalues.max()), np.finfo(np.float64).tiny)
    return _RidgePath(centred, y - mean_y, mean_x, mean_y, basis[:, kept], eigenvalues[kept])


def _inner_errors(train: Part, alphas: list[float]) -> np.ndarray | None:
    """(alphas,) mean squared error over inner grouped folds; None where the training part is a single group."""
    folds = grouped_folds(train.groups, train.n_inner)
    if folds.max() == 0:
        return None
    squares = np.zeros((len(alphas), len(train.x)))
    for fold in range(int(folds.max()) + 1):
        is_test = folds == fold
        x, test = scaled(train.x[~is_test], train.x[is_test])
        squares[:, is_test] = (_path(x, train.truth[~is_test]).predict(test, alphas) - train.truth[is_test]) ** 2
    return squares.mean(axis=1)
