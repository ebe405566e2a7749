"""Tests and intervals whose units are independent: DeLong's AUC, McNemar, the corrected t over splits.

What resamples patients, and so may have many rows of each, is in `intervals`.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.intervals import FEWEST, Interval, count_of
from histokin.evaluate.items import is_missing

Scale = Literal["wald", "logit"]

_WHERE = "significance"
_Z = 1.959963984540054  # PHI^-1(.975)
_FEW_FOR_WALD = 20  # units of the smaller class
_FEW_FOR_LOGIT = 10
_FAR_FOR_WALD = 0.4  # of an AUC from one half
_ROUNDING = 4 * float(np.finfo(np.float64).eps)


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """P(a positive unit scores higher than a negative one), ties counting half.

    By mid-ranks in O(n log n): (sum of the positives' ranks - m (m + 1) / 2) / (m n) (Mann & Whitney 1947).

    Args:
        scores: (n,) real, higher for positive; infinite is allowed, NaN is not.
        truth: (n,) bool, or 0 and 1.

    Raises:
        EvaluationError: the truth holds one class only.
        ValueError: shapes differ, a score is NaN or the truth is not of two values.
    """
    from scipy.stats import rankdata

    values, is_positive = _checked(np.asarray(scores)[None], truth)
    m = int(is_positive.sum())
    n = len(is_positive) - m
    return float((rankdata(values[0])[is_positive].sum() - m * (m + 1) / 2) / (m * n))


@dataclass(frozen=True, slots=True)
class AucDifference:
    """The AUC of one classifier minus another's, both on the same units.

    Attributes:
        difference: first minus second.
        interval: Wald's, of the difference.
        z: difference over its standard error; 0 where both are 0, NaN where there is no interval for another reason.
        p: two-sided normal; 1 where difference and variance are 0, NaN where z is.
    """

    difference: float
    interval: Interval
    z: float
    p: float


@dataclass(frozen=True, slots=True)
class Delong:
    """AUCs of m classifiers on the same independent units, one row a patient, with their covariance.

    Attributes:
        aucs: (m,) float64.
        covariance: (m, m) float64 of the AUCs; NaN where a class has a single unit.
        n_positive: units that are positive.
        n_negative: the others.
    """

    aucs: np.ndarray
    covariance: np.ndarray
    n_positive: int
    n_negative: int

    def interval(self, i: int, scale: Scale = "logit", *, cluster: str = "patient") -> Interval:
        """The 95 % interval of one AUC; none below 5 units, with a class of one, or where no score tells anything.

        wald: AUC +- 1.96 se, cut at 0 and 1. logit: logit(AUC) +- 1.96 se / (AUC (1 - AUC)), taken back. Covered of
        2000 binormal samples with 20 + 20 units and a true AUC of .70, .85, .95: wald .93, .91, .84; logit .96, .96,
        .95; with 10 + 40: wald .91, .88, .81; logit .94, .94, .94. Hence the default, and "optimistic" for wald with
        a class below 20 or an AUC beyond .9, for logit with a class below 10.

        Args:
            i: row of the scores.
            scale: on which the interval is symmetric.
            cluster: the word for a unit.
        """
        from scipy.special import expit, logit

        if scale not in {"wald", "logit"}:
            raise ValueError(f"scale must be wald or logit, got {scale!r}")
        value, variance = float(self.aucs[i]), float(self.covariance[i, i])
        reason = self._reason_for_none(variance, cluster)
        if reason:
            return self._none(reason, cluster)
        se = math.sqrt(variance)
        if scale == "wald":
            low, high = max(0.0, value - _Z * se), min(1.0, value + _Z * se)
            is_optimistic = self._n_smaller < _FEW_FOR_WALD or abs(value - 0.5) > _FAR_FOR_WALD
        else:
            half = _Z * se / (value * (1 - value))
            low, high = float(expit(logit(value) - half)), float(expit(logit(value) + half))
            is_optimistic = self._n_smaller < _FEW_FOR_LOGIT
        method = "delong" if scale == "wald" else "delong-logit"
        return Interval(low, high, method, self._note(cluster) if is_optimistic else "", cluster, self._n_units)

    def difference(self, i: int, j: int, *, cluster: str = "patient") -> AucDifference:
        """AUC i minus AUC j, var = C_ii + C_jj - 2 C_ij, tested as normal (DeLong et al. 1988).

        Args:
            i: row of the scores.
            j: another.
            cluster: the word for a unit.
        """
        from scipy.special import ndtr

        difference = float(self.aucs[i] - self.aucs[j])
        own = float(self.covariance[i, i] + self.covariance[j, j])
        variance = own - 2 * float(self.covariance[i, j])
        if variance <= _ROUNDING * own:
            variance = 0.0
        reason = self._reason_for_none(variance, cluster)
        if reason:
            is_same = variance == 0 and abs(difference) <= _ROUNDING
            z, p = (0.0, 1.0) if is_same else (math.nan, math.nan)
            return AucDifference(difference, self._none(reason, cluster), z, p)
        se = math.sqrt(variance)
        z = difference / se
        note = self._note(cluster) if self._n_smaller < _FEW_FOR_WALD else ""
        interval = Interval(difference - _Z * se, difference + _Z * se, "delong", note, cluster, self._n_units)
        return AucDifference(difference, interval, z, float(2 * ndtr(-abs(z))))

    @property
    def _n_units(self) -> int:
        return self.n_positive + self.n_negative

    @property
    def _n_smaller(self) -> int:
        return min(self.n_positive, self.n_negative)

    def _reason_for_none(self, variance: float, cluster: str) -> str:
        if self._n_units < FEWEST:
            return count_of(self._n_units, cluster)
        if self._n_smaller < 2:
            return f"{count_of(self._n_smaller, cluster)} in the smaller class"
        return "" if variance > 0 else f"degenerate, {count_of(self._n_units, cluster)}"

    def _none(self, reason: str, cluster: str) -> Interval:
        return Interval(math.nan, math.nan, "n/a", reason, cluster, self._n_units)

    def _note(self, cluster: str) -> str:
        return f"optimistic, {count_of(self._n_smaller, cluster)} in the smaller class"


def delong(truth: np.ndarray, scores: np.ndarray) -> Delong:
    """AUCs and their covariance on independent units: **one row a patient**, never tiles or several slides of one.

    Placements by mid-ranks in O(n log n) (DeLong et al. 1988; Sun & Xu 2014): with V_i the share of negatives that
    positive i outranks and W_j the share of positives that outrank negative j, ties half, AUC = mean V = mean W and
    C = cov(V) / m + cov(W) / n, both covariances with ddof 1. On tiles of 10 to 40 patients its interval covered .41
    to .46 at nominal .95 (reference, section 5); `auc_interval_of_patients` refuses such rows.

    Args:
        truth: (n,) bool, or 0 and 1.
        scores: (m, n) of m classifiers, higher for positive.

    Returns:
        `Delong`.

    Raises:
        EvaluationError: the truth holds one class only.
        ValueError: shapes differ, a score is NaN or the truth is not of two values.
    """
    values, is_positive = _checked(np.asarray(scores), truth)
    v, w = (np.array(side) for side in zip(*(_placements(row, is_positive) for row in values), strict=True))
    covariance = _covariance(v) / v.shape[1] + _covariance(w) / w.shape[1]
    return Delong(v.mean(axis=1), covariance, v.shape[1], w.shape[1])


def auc_interval_of_patients(
    scores: np.ndarray, truth: np.ndarray, patients: Iterable[object], *, scale: Scale = "logit"
) -> Interval:
    """DeLong's interval of an AUC, after making sure that each patient is one row.

    Args:
        scores: (n,) real, higher for positive.
        truth: (n,) bool, or 0 and 1.
        patients: (n,) names or numbers, all different.
        scale: as in `Delong.interval`.

    Raises:
        EvaluationError: a patient has several rows, a row has no patient, or the truth holds one class only.
        ValueError: shapes differ, a score is NaN or the truth is not of two values.
    """
    names = list(patients)
    if len(names) != len(scores):
        raise ValueError(f"need a patient for each score, got {len(names)} for {len(scores)}")
    n_missing, n_patients = sum(map(is_missing, names)), len({str(name) for name in names})
    if n_missing:
        raise EvaluationError(f"{n_missing} of {len(names)} rows have no patient", _WHERE, "Fill the patient column.")
    if n_patients < len(names):
        raise EvaluationError(
            f"{len(names)} rows belong to {count_of(n_patients, 'patient')}, while DeLong needs independent rows",
            _WHERE,
            "Use the cluster bootstrap over patients, or give each patient one score, such as the mean of its rows.",
        )
    return delong(truth, np.asarray(scores)[None]).interval(0, scale)


@dataclass(frozen=True, slots=True)
class McNemar:
    """Whether two classifiers are right equally often on the same patients.

    Attributes:
        exact: two-sided p of the exact conditional test, never too small.
        mid: mid-p, less conservative; in use it keeps the level, without a guarantee.
    """

    exact: float
    mid: float


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """McNemar's test on decisions of which there is one a patient, from the patients on which the two disagree.

    With b and c of them, n = b + c: exact = 2 BinomCDF(min(b, c), n, 1/2), at most 1, and mid = exact - pmf(min(b, c))
    or 1 - pmf / 2 where b = c (Fagerland et al. 2013); both are 1 where nothing is discordant.

    Args:
        only_first: b, patients that only the first gets right.
        only_second: c, patients that only the second gets right.

    Raises:
        ValueError: a count is negative or no whole number.
    """
    from scipy.special import bdtr

    b, c = int(only_first), int(only_second)
    if (b, c) != (only_first, only_second) or min(b, c) < 0:
        raise ValueError(f"need two counts, got {only_first} and {only_second}")
    fewer, n = min(b, c), b + c
    if n == 0:
        return McNemar(1.0, 1.0)
    pmf = math.comb(n, fewer) / (1 << n)
    if b == c:
        return McNemar(1.0, 1 - pmf / 2)
    exact = min(1.0, 2 * float(bdtr(fewer, n, 0.5)))
    return McNemar(exact, exact - pmf)


@dataclass(frozen=True, slots=True)
class CorrectedT:
    """A mean difference over repeated splits that share their training data.

    Attributes:
        mean: of the differences.
        interval: of the mean, by the same standard error and Student's t.
        t: mean over the corrected standard error; NaN where all differences are the same but 0.
        p: two-sided; 1 where all differences are 0, NaN where t is.
        df: J - 1.
    """

    mean: float
    interval: Interval
    t: float
    p: float
    df: int


def nadeau_bengio(differences: np.ndarray, n_train: float, n_test: float) -> CorrectedT:
    """The corrected t of scores over random splits or folds (Nadeau & Bengio 2003).

        t = mean / sqrt((1/J + n_test / n_train) s^2), df = J - 1, s^2 with ddof 1

    Training parts overlap, so folds are no independent trials; the plain t, which says they are, is not offered. It
    speaks of the luck of splitting, not of other patients: print a patient interval beside it.

    Args:
        differences: (J,) score of one method minus the other's on each split; J >= 2.
        n_train: units (patients) in a training part, on average.
        n_test: units in a test part.

    Raises:
        ValueError: fewer than two differences, one is not finite, or a size is not positive.
    """
    from scipy.special import stdtr, stdtrit

    values = np.asarray(differences, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"need (J >= 2,) finite differences, got shape {values.shape}")
    if not (n_train > 0 and n_test > 0):
        raise ValueError(f"sizes must be > 0, got n_train {n_train}, n_test {n_test}")
    n, df = len(values), len(values) - 1
    mean = float(values.mean())
    if np.ptp(values) <= 1e-9 * np.abs(values).max():  # alike but for how they were rounded
        is_zero = not values.any()
        none = Interval(math.nan, math.nan, "n/a", f"degenerate, {count_of(n, 'split')}", "split", n)
        return CorrectedT(mean, none, 0.0 if is_zero else math.nan, 1.0 if is_zero else math.nan, df)
    se = math.sqrt((1 / n + n_test / n_train) * float(values.var(ddof=1)))
    t, half = mean / se, float(stdtrit(df, 0.975)) * se
    interval = Interval(mean - half, mean + half, "corrected-t", "", "split", n)
    return CorrectedT(mean, interval, t, float(2 * stdtr(df, -abs(t))), df)


def _checked(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m, n) scores and (n,) bool."""
    said = np.asarray(truth)
    if said.ndim != 1 or scores.ndim != 2 or scores.shape[1] != len(said) or not len(scores):
        raise ValueError(f"need a score for each truth, got scores {scores.shape}, truth {said.shape}")
    if not np.isin(said, (0, 1)).all():
        raise ValueError("truth must be bool, or 0 and 1")
    if np.isnan(scores).any():
        raise ValueError("a score is NaN")
    is_positive = said.astype(bool)
    if is_positive.all() or not is_positive.any():
        raise EvaluationError(
            "the truth holds one class only" if len(said) else "there is not one row",
            _WHERE,
            "An AUC needs positive and negative units.",
        )
    return scores, is_positive


def _placements(scores: np.ndarray, is_positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m,) share of negatives that each positive outranks, (n,) share of positives that outrank each negative."""
    from scipy.stats import rankdata

    ranks, own, other = rankdata(scores), scores[is_positive], scores[~is_positive]
    beaten = ranks[is_positive] - rankdata(own)
    return beaten / len(other), 1 - (ranks[~is_positive] - rankdata(other)) / len(own)


def _covariance(placements: np.ndarray) -> np.ndarray:
    """(m, m) with ddof 1, NaN from a single unit."""
    m, n = placements.shape
    if n < 2:
        return np.full((m, m), np.nan)
    centred = placements - placements.mean(axis=1, keepdims=True)
    # Not by BLAS: equal rows must give bitwise equal sums, or their difference would have a variance of rounding.
    return np.einsum("ik,jk->ij", centred, centred) / (n - 1)
