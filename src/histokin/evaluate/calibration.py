"""Whether probabilities mean what they say: calibration errors, Brier scores, reliability, temperature.

Values of one set of rows; of the expected error also as a function of patient weights, for its intervals.
"""

import math
from dataclasses import dataclass

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.intervals import Statistic

ECE_BINS = 15
ACE_BINS = 10
T_LEAST, T_MOST = 0.01, 20.0
"""Between these a temperature is sought."""


@dataclass(frozen=True, slots=True)
class Reliability:
    """How right the rows of each bin of certainty are: the table behind a reliability diagram.

    Attributes:
        low: (B,) float64, lower edge of each bin, itself outside it.
        high: (B,) float64, upper edge, inside it.
        n: (B,) int64 rows; empty bins are kept.
        confidence: (B,) float64, mean of the largest probability; NaN where n is 0.
        accuracy: (B,) float64, share of rows that are right; NaN where n is 0.
    """

    low: np.ndarray
    high: np.ndarray
    n: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def reliability(probabilities: np.ndarray, truth: np.ndarray, n_bins: int = ECE_BINS) -> Reliability:
    """Bins (lo, hi] of equal width over the largest probability of each row.

    Args:
        probabilities: (N, C) rows that sum to 1; of two classes both columns. The first of equal ones is predicted.
        truth: (N,) codes of the classes.
        n_bins: B, of (0, 1].

    Raises:
        ValueError: no rows, shapes differ, rows are no probabilities, a code is none of a class, or n_bins < 1.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be >= 1, got {n_bins}")
    surest, is_right = _judged(probabilities, truth)
    edges = np.arange(n_bins + 1) / n_bins
    bins = np.searchsorted(edges[1:-1], surest, side="left")
    n = np.bincount(bins, minlength=n_bins)
    confidence, accuracy = (
        np.divide(np.bincount(bins, weights=values, minlength=n_bins), n, out=np.full(n_bins, np.nan), where=n > 0)
        for values in (surest, is_right)
    )
    return Reliability(edges[:-1], edges[1:], n, confidence, accuracy)


def expected_calibration_error(probabilities: np.ndarray, truth: np.ndarray, n_bins: int = ECE_BINS) -> float:
    """Mean gap between how sure and how right: sum over bins of n / N |accuracy - confidence| (Guo et al. 2017).

    In [0, 1]. It is biased upwards where bins hold few rows: a calibrated classifier does not get 0.

    Args:
        probabilities: (N, C) rows that sum to 1.
        truth: (N,) codes.
        n_bins: of equal width, as in `reliability`.

    Raises:
        ValueError: as `reliability`.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be >= 1, got {n_bins}")
    p, codes = _checked(probabilities, truth)
    of_all = ece_statistic(p, codes, np.zeros(len(p), dtype=np.int64), 1, n_bins=n_bins)
    return float(of_all(np.ones((1, 1)))[0])


def ece_statistic(
    probabilities: np.ndarray, truth: np.ndarray, clusters: np.ndarray, n_clusters: int, *, n_bins: int = ECE_BINS
) -> Statistic:
    """Mean gap between how sure and how right: sum over bins of the bin's share times |share right - mean probability|.

    Bins (lo, hi] of equal width over the largest probability of each row.

    Args:
        probabilities: (N, C).
        truth: (N,) codes.
        clusters: (N,) codes.
        n_clusters: P.
        n_bins: of (0, 1].
    """
    surest = probabilities.max(axis=1)
    bins = np.searchsorted(np.arange(1, n_bins) / n_bins, surest, side="left")
    gaps = np.zeros((n_clusters, n_bins))
    np.add.at(gaps, (clusters, bins), (probabilities.argmax(axis=1) == truth) - surest)
    sizes = np.bincount(clusters, minlength=n_clusters).astype(np.float64)

    def value(weights: np.ndarray) -> np.ndarray:
        return np.abs(weights @ gaps).sum(axis=1) / (weights @ sizes)

    return value


def adaptive_calibration_error(probabilities: np.ndarray, truth: np.ndarray, n_bins: int = ACE_BINS) -> float:
    """The same mean gap over bins that hold equally many rows.

    Rows are sorted by their largest probability, stably, and cut into n_bins parts whose sizes differ by one at most,
    the larger first; rows that tie across a cut fall as they were given. Nixon et al. 2019 bin each class by itself;
    this is of the predicted class alone, as in `expected_calibration_error`.

    Args:
        probabilities: (N, C) rows that sum to 1.
        truth: (N,) codes.
        n_bins: parts; with fewer rows each is its own.

    Raises:
        ValueError: as `reliability`.
    """
    if n_bins < 1:
        raise ValueError(f"n_bins must be >= 1, got {n_bins}")
    surest, is_right = _judged(probabilities, truth)
    parts = np.array_split(np.argsort(surest, kind="stable"), n_bins)
    gaps = is_right - surest
    return float(sum(abs(gaps[part].sum()) for part in parts) / len(surest))


def brier(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean of sum_c (p_c - [c = y])^2 over all classes: 0 to 2, twice `binary_brier` for two classes (Brier 1950).

    Args:
        probabilities: (N, C) rows that sum to 1.
        truth: (N,) codes.

    Raises:
        ValueError: as `reliability`.
    """
    p, codes = _checked(probabilities, truth)
    return float(((p - np.eye(p.shape[1])[codes]) ** 2).sum(axis=1).mean())


def binary_brier(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean of (p - [positive])^2 over one column: 0 to 1.

    Args:
        probabilities: (N,) of being positive, in [0, 1].
        truth: (N,) bool, or 0 and 1.

    Raises:
        ValueError: no rows, shapes differ, values outside [0, 1], or the truth is not of two values.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    if p.ndim != 1 or p.shape != y.shape or not len(p):
        raise ValueError(f"need two equal (N >= 1,) columns, got {p.shape} and {y.shape}")
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a probability lies outside [0, 1]")
    if not np.isin(y, (0, 1)).all():
        raise ValueError("truth must be bool, or 0 and 1")
    return float(((p - y.astype(np.float64)) ** 2).mean())


@dataclass(frozen=True, slots=True)
class Temperature:
    """What logits are divided by to be calibrated.

    Attributes:
        t: above 1 makes probabilities less sure, below 1 surer.
        is_at_end: t is 0.01 or 20 because the optimum lies at or beyond it: logits that tell nothing or mislead want
            to be flattened without end, logits that are always right to be sharpened. Not a fit to trust.
    """

    t: float
    is_at_end: bool


def fit_temperature(logits: np.ndarray, truth: np.ndarray) -> Temperature:
    """The T in [0.01, 20] that minimises the NLL of softmax(z / T) (Guo et al. 2017).

    The NLL is convex in beta = 1 / T, so its slope mean(sum_c q_c z_c - z_y) rises and has one root, found by
    bisection. 1 where no row prefers any class and T changes nothing.

    Fit on the inner validation part, never on the rows whose calibration is then reported.

    Args:
        logits: (N, C) floating, or log probabilities; -inf is allowed for classes that are not the truth.
        truth: (N,) codes.

    Raises:
        EvaluationError: a true class has probability 0, which no temperature mends.
        ValueError: no rows, shapes differ, a code is none of a class, or a row is NaN, +inf or all -inf.
    """
    from scipy.optimize import root_scalar

    z = _shifted(logits)
    codes = _codes(truth, z.shape)
    z_true = z[np.arange(len(z)), codes]
    n_impossible = int((z_true == -np.inf).sum())
    if n_impossible:
        raise EvaluationError(
            f"{n_impossible} of {len(z)} rows give their true class probability 0",
            "temperature",
            "Floor the probabilities, or leave out classes that the training part lacks.",
        )
    weighed = np.where(np.isfinite(z), z, 0)  # 0 * -inf is 0 here

    def slope(log_t: float) -> float:
        return float((_softmax(z / math.exp(log_t)) * weighed).sum(axis=1).mean() - z_true.mean())

    if not weighed.any():
        return Temperature(1.0, is_at_end=False)
    low, high = math.log(T_LEAST), math.log(T_MOST)
    if slope(high) >= 0:  # at the smallest beta already past the root
        return Temperature(T_MOST, is_at_end=True)
    if slope(low) <= 0:
        return Temperature(T_LEAST, is_at_end=True)
    root = root_scalar(slope, bracket=(low, high), method="bisect", xtol=1e-12).root
    return Temperature(math.exp(root), is_at_end=False)


def tempered(logits_or_log_probabilities: np.ndarray, t: float) -> np.ndarray:
    """softmax(z / t): (N, C) float64 probabilities whose order within a row is that of z.

    Args:
        logits_or_log_probabilities: (N, C) floating; -inf stays probability 0.
        t: positive; 1 changes nothing.

    Raises:
        ValueError: t is not positive and finite, or a row is NaN, +inf or all -inf.
    """
    if not (t > 0 and math.isfinite(t)):
        raise ValueError(f"t must be > 0 and finite, got {t}")
    return _softmax(_shifted(logits_or_log_probabilities) / t)


def _judged(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) largest probability, (N,) bool whether its class is the true one."""
    p, codes = _checked(probabilities, truth)
    return p.max(axis=1), p.argmax(axis=1) == codes


def _checked(probabilities: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or not len(p) or p.shape[1] < 2:
        raise ValueError(f"need (N >= 1, C >= 2) probabilities, got {p.shape}")
    # 1e-3: rows that were rounded to float16
    if not (p >= 0).all() or not (np.abs(p.sum(axis=1) - 1) <= 1e-3).all():
        raise ValueError("each row must be probabilities that sum to 1")
    return p, _codes(truth, p.shape)


def _codes(truth: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    codes = np.asarray(truth)
    if codes.shape != shape[:1]:
        raise ValueError(f"need a code for each row, got {codes.shape} for {shape}")
    if codes.dtype.kind not in "biu" or codes.min() < 0 or codes.max() >= shape[1]:
        raise ValueError(f"truth must be whole numbers from 0 to {shape[1] - 1}")
    return codes.astype(np.int64)


def _shifted(logits: np.ndarray) -> np.ndarray:
    """(N, C) float64 less each row's largest, which changes no probability and keeps exp finite."""
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or not len(z) or z.shape[1] < 2:
        raise ValueError(f"need (N >= 1, C >= 2) logits, got {z.shape}")
    largest = z.max(axis=1, keepdims=True)
    if not np.isfinite(largest).all():
        raise ValueError("a row of logits is NaN, +inf or all -inf")
    return z - largest


def _softmax(shifted: np.ndarray) -> np.ndarray:
    e = np.exp(shifted)
    return e / e.sum(axis=1, keepdims=True)
