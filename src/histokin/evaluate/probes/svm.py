"""Support vector machines on frozen features: linear, or with a Gaussian (RBF) kernel."""

import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from histokin.evaluate.probes.choosing import best_setting, part_to_choose_on
from histokin.evaluate.probes.outcome import Part, Predicted
from histokin.streams import seed64, stream

LINEAR_C_GRID = tuple(10.0**e for e in range(-3, 3))
RBF_C_GRID = (1.0, 10.0, 100.0)
GAMMA_GRID = (0.1, 1.0, 10.0)
"""Multiples of 1 / (D var(X)), var over all numbers of the training part."""
MOST_EXACT = 10_000
"""With more training rows the RBF kernel is approximated: its cost grows with their square."""
N_LANDMARKS = 2000
MOST_CHOSEN_ON = 2000
"""Rows on which C and gamma are chosen: half of what other probes take, for a cost that grows with their square."""
MOST_PRECOMPUTED = 5000
"""Training rows up to which the RBF kernel is one matrix (200 MB), many times faster than libsvm's own rows of it."""
_TOLERANCE = {"choosing": 1e-2, "fitting": 1e-3}  # of liblinear: at large C the last digits take most of the steps
_STAND_IN = 1.0  # of C and of gamma's multiple, where a single training group leaves nothing to choose on
_MAX_ITER = {"linear": 1_000, "rbf": 1_000_000}  # passes over the rows; pairs of rows


@dataclass(frozen=True, slots=True)
class SVMProbe:
    """A support vector machine (scikit-learn) on features that are z-scored by the training part.

    Linear: one class against the rest each, minimise (||w||^2 + b^2) / 2 + C sum_i w_i max(0, 1 - y_i f(x_i))^2
    (liblinear; the square and the penalised b are its own). RBF: exp(-gamma ||x - z||^2), hinge loss not squared, one
    class against one (libsvm); the pairs' votes, with their margins settling equal votes, are the classes' values.
    Linear and pairwise is the RBF machine with the inner product in the kernel's place.
    Beyond 10 000 training rows the RBF kernel is approximated by 2000 of them (Nystroem) under the linear machine,
    which then works one against the rest and with the squared loss; such folds are marked.

    An SVM knows no probabilities. It hands on margins, whose order within a fold is all they claim: argmax and the
    one-against-rest area are theirs, NLL and ECE are not defined. Their scale may differ between folds whose C or
    gamma do, which an area over all folds feels.

    Attributes:
        kernel: linear or rbf.
        c: C > 0, or None to choose it among `LINEAR_C_GRID` or `RBF_C_GRID` by the balanced accuracy of inner grouped
            folds (of 2000 rows where there are more); ties take the smaller C, then the smaller gamma.
        gamma: of the RBF kernel, > 0, as it stands in the equation; "scale" for 1 / (D var(X)) of each training part;
            None to choose it along with C among `GAMMA_GRID` times that.
        is_balanced: w_i = N / (classes * rows of its class) instead of 1; of more than two classes, liblinear weighs
            in each machine the class's own rows so and the rest by 1.
        is_pairwise: a linear machine for each two classes (libsvm) instead of one against the rest each; of no effect
            on the RBF kernel, which knows no other way.
    """

    kernel: Literal["linear", "rbf"] = "linear"
    c: float | None = None
    gamma: float | Literal["scale"] | None = None
    is_balanced: bool = True
    is_pairwise: bool = False

    def __post_init__(self) -> None:
        if self.kernel not in ("linear", "rbf"):
            raise ValueError(f"kernel must be linear or rbf, got {self.kernel!r}")
        gamma = 1.0 if self.gamma in (None, "scale") else self.gamma
        if (self.c is not None and not self.c > 0) or isinstance(gamma, str) or not gamma > 0:
            raise ValueError(f"C and gamma must be > 0 (or gamma scale), got {self.c} and {self.gamma}")
        if self.kernel == "linear" and self.gamma is not None:
            raise ValueError("a linear machine has no gamma")

    @property
    def word(self) -> str:
        return "svm" if self.kernel == "linear" else "svm-rbf"

    @property
    def is_standardised(self) -> bool:
        return True

    def predict(self, train: Part, test: np.ndarray) -> Predicted:
        """Margins (n, C), not probabilities: the largest is the class predicted.

        A class that is absent from the training part has -inf; a sole class is answered without a fit. The order of
        the training rows is of no effect.
        """
        seen = np.unique(train.truth)
        if len(seen) == 1:
            found = margins(None, test, seen, train.n_classes)
            return Predicted(found, _STAND_IN if self.c is None else self.c, is_probability=False)
        train = _ordered(train)
        is_approximate = self.kernel == "rbf" and len(train.x) > MOST_EXACT
        grid = self._grid()
        best = _chosen(self, train, grid) if len(grid) > 1 else 0
        is_unchosen = best is None
        c, multiple = self._stand_in() if best is None else grid[best]
        gamma = None if self.kernel == "linear" else self.gamma_on(train.x, multiple)
        x, asked, is_kernel = train.x, test, False
        if is_approximate:
            x, asked = _mapped(train.x, test, gamma)
        elif gamma is not None and len(train.x) <= MOST_PRECOMPUTED:
            x, asked, is_kernel = _rbf(train.x, train.x, gamma), _rbf(test, train.x, gamma), True
        model = machine(
            c,
            None if is_approximate else gamma,
            is_balanced=self.is_balanced,
            is_pairwise=self.is_pairwise and not is_approximate,
            is_kernel=is_kernel,
        )
        is_converged = fit(model, x, train.truth)
        return Predicted(
            margins(model, asked, seen, train.n_classes),
            c,
            is_at_edge=not is_unchosen and self._is_at_edge(c, multiple),
            is_unchosen=is_unchosen,
            is_converged=is_converged,
            gamma=gamma,
            is_approximate=is_approximate,
            is_probability=False,
        )

    def gamma_on(self, x: np.ndarray, multiple: float) -> float:
        """The kernel's gamma on one training part: as given, or multiple / (D var(X))."""
        if isinstance(self.gamma, float | int):
            return self.gamma
        return multiple / (x.shape[1] * (float(x.var()) or 1.0))

    def _grid(self) -> list[tuple[float, float]]:
        """C and gamma's multiple in the order in which ties are settled."""
        return [(c, multiple) for c in self._cs() for multiple in self._multiples()]

    def _cs(self) -> tuple[float, ...]:
        grid = LINEAR_C_GRID if self.kernel == "linear" else RBF_C_GRID
        return grid if self.c is None else (self.c,)

    def _multiples(self) -> tuple[float, ...]:
        return GAMMA_GRID if self.kernel == "rbf" and self.gamma is None else (1.0,)

    def _stand_in(self) -> tuple[float, float]:
        return _STAND_IN if self.c is None else self.c, _STAND_IN

    def _is_at_edge(self, c: float, multiple: float) -> bool:
        return any(
            len(values) > 1 and value in (values[0], values[-1])
            for value, values in ((c, self._cs()), (multiple, self._multiples()))
        )


def machine(
    c: float,
    gamma: float | None,
    *,
    is_balanced: bool,
    is_pairwise: bool = False,
    is_kernel: bool = False,
    aim: Literal["choosing", "fitting"] = "fitting",
) -> Any:
    """An unfitted scikit-learn machine: linear where gamma is None, primal or dual as rows and dimensions suggest.

    With `is_kernel` it is given the kernel's values in place of rows.
    """
    from sklearn.svm import SVC, LinearSVC

    weight = "balanced" if is_balanced else None
    if gamma is None and is_pairwise:
        return SVC(kernel="linear", C=c, class_weight=weight, cache_size=500, max_iter=_MAX_ITER["rbf"])
    if gamma is None:
        steps, seed = _MAX_ITER["linear"], _sklearn_seed("svm-passes")
        how: dict[str, Any] = {"dual": "auto", "tol": _TOLERANCE[aim], "max_iter": steps, "random_state": seed}
        return LinearSVC(C=c, class_weight=weight, **how)
    if is_kernel:
        return SVC(kernel="precomputed", C=c, class_weight=weight, cache_size=500, max_iter=_MAX_ITER["rbf"])
    # Set apart, since the default "scale" makes type checkers take gamma for a text.
    return SVC(C=c, class_weight=weight, cache_size=500, max_iter=_MAX_ITER["rbf"]).set_params(gamma=gamma)


def fit(model: Any, x: np.ndarray, truth: np.ndarray) -> bool:
    """Fit to two classes or more; whether it converged."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():  # told in the fold's record instead
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, truth)
    return int(np.max(model.n_iter_)) < model.max_iter


def margins(model: Any, test: np.ndarray, seen: np.ndarray, n_classes: int) -> np.ndarray:
    """(n, n_classes) float64 decision values of a fitted machine; -inf for classes it never saw, 0 for a sole one.

    With two classes (-f, f) of the one machine there is.
    """
    found = np.full((len(test), n_classes), -np.inf)
    if len(seen) == 1:
        found[:, seen] = 0
        return found
    values = model.decision_function(test)
    found[:, seen] = np.column_stack([-values, values]) if values.ndim == 1 else values
    return found


def _sklearn_seed(name: str) -> int:
    return seed64(0, name) % 2**32


def _ordered(train: Part) -> Part:
    """The rows in an order of their own values: solvers stop at a tolerance and landmarks are drawn by position."""
    key = train.x @ stream(0, "svm-order").standard_normal(train.x.shape[1])
    order = np.lexsort((train.truth, key))
    return replace(train, x=train.x[order], truth=train.truth[order], groups=train.groups[order])


def _mapped(train: np.ndarray, test: np.ndarray, gamma: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Both parts in coordinates whose inner products approximate the kernel (Williams & Seeger 2001, Nystroem)."""
    from sklearn.kernel_approximation import Nystroem

    kernel = Nystroem(n_components=min(N_LANDMARKS, len(train)), random_state=_sklearn_seed("svm-landmarks"))
    kernel.set_params(gamma=gamma)
    return kernel.fit_transform(train), kernel.transform(test)


def _rbf(rows: np.ndarray, others: np.ndarray, gamma: float) -> np.ndarray:
    """(n, m) float64 exp(-gamma ||x - z||^2), through one matrix product."""
    return np.exp(-gamma * _squared_distances(rows, others))


def _squared_distances(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    found = (rows**2).sum(axis=1)[:, None] + (others**2).sum(axis=1)[None, :] - 2 * (rows @ others.T)
    return np.maximum(found, 0)


def _chosen(probe: SVMProbe, train: Part, grid: list[tuple[float, float]]) -> int | None:
    """Which of the grid `best_setting` takes; on so few rows the kernel is exact."""
    part, n_times = part_to_choose_on(train, MOST_CHOSEN_ON)

    def answers(x: np.ndarray, truth: np.ndarray, test: np.ndarray) -> np.ndarray:
        seen = np.unique(truth)
        if len(seen) == 1:
            return np.full((len(grid), len(test)), seen[0])
        given: dict[float | None, tuple[np.ndarray, np.ndarray]] = {None: (x, test)}
        if probe.kernel == "rbf":
            near, far = _squared_distances(x, x), _squared_distances(test, x)
            gammas = {probe.gamma_on(x, multiple) for _, multiple in grid}
            given = {gamma: (np.exp(-gamma * near), np.exp(-gamma * far)) for gamma in gammas}
        said = []
        for c, multiple in grid:
            gamma = None if probe.kernel == "linear" else probe.gamma_on(x, multiple)
            how: dict[str, Any] = {
                "is_balanced": probe.is_balanced,
                "is_pairwise": probe.is_pairwise,
                "is_kernel": gamma is not None,
            }
            model = machine(c * n_times, gamma, aim="choosing", **how)
            fit(model, given[gamma][0], truth)
            said.append(margins(model, given[gamma][1], seen, int(seen[-1]) + 1).argmax(axis=1))
        return np.array(said)

    return best_setting(part, len(grid), answers)
