"""How sure a figure is, the patient being the unit: intervals, paired differences, swap test, Holm.

Tile-level intervals are about four times too narrow; nothing here counts tiles as independent.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from histokin.streams import stream

Statistic = Callable[[np.ndarray], np.ndarray]
"""(B, P) float64 weights of the patients -> (B,) values; ones(1, P) gives the estimate itself."""

N_DRAWS = 2000
FEWEST = 5
"""Below so many patients there is no interval."""
_FEW_FOR_BCA = 10
_FEW_FOR_WILSON = 20
_FEW_FOR_BOOTSTRAP = 40


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, or the reason why there is none.

    Attributes:
        low: lower end, NaN if there is none.
        high: upper end.
        method: wilson-deff, bca, percentile or n/a.
        note: what limits it, such as "optimistic, 9 patients".
        cluster: the unit that was resampled: patient, site or slide.
        n_clusters: how many of them.
    """

    low: float
    high: float
    method: str
    note: str
    cluster: str
    n_clusters: int

    def __str__(self) -> str:
        return f"[{self.low:.3f}, {self.high:.3f}]" if math.isfinite(self.low) else f"n/a ({self.note})"


def ratio(hits: np.ndarray, sizes: np.ndarray) -> Statistic:
    """The statistic sum h_p / sum m_p: any mean over queries."""

    def value(weights: np.ndarray) -> np.ndarray:
        above, below = weights @ hits, weights @ sizes
        return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)

    return value


def cluster_robust_se(hits: np.ndarray, sizes: np.ndarray) -> float:
    """Standard error of a ratio over patients: sqrt(P/(P-1) sum (h_p - theta m_p)^2) / sum m, of theta = sum h / sum m.

    Args:
        hits: (P,) summed values of each patient.
        sizes: (P,) its queries.
    """
    theta = hits.sum() / sizes.sum()
    n = len(hits)
    return float(np.sqrt(n / (n - 1) * ((hits - theta * sizes) ** 2).sum()) / sizes.sum())


def design_effect(hits: np.ndarray, sizes: np.ndarray) -> float:
    """How many times the tile-level variance the true one is, at least 1; mean m_p where theta is 0 or 1."""
    theta = float(hits.sum() / sizes.sum())
    if theta <= 0 or theta >= 1:
        return max(1.0, float(sizes.mean()))
    return max(1.0, cluster_robust_se(hits, sizes) ** 2 / (theta * (1 - theta) / float(sizes.sum())))


def wilson_interval(hits: np.ndarray, sizes: np.ndarray, *, cluster: str = "patient") -> Interval:
    """The default for hit rates: Wilson's interval at n = N / deff with the t quantile of P - 1 degrees of freedom.

    It covered .87 to .95 at nominal .95 with 8 to 60 patients, better than every bootstrap (reference, section 5).

    Args:
        hits: (P,) summed hits of each patient.
        sizes: (P,) its queries, all > 0.
        cluster: the word for a patient.
    """
    from scipy.special import stdtrit

    n_clusters = len(hits)
    if n_clusters < FEWEST:
        return _none(n_clusters, cluster)
    theta = float(np.clip(hits.sum() / sizes.sum(), 0, 1))
    n = float(sizes.sum()) / design_effect(hits, sizes)
    z = float(stdtrit(n_clusters - 1, 0.975))
    centre = (theta + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(theta * (1 - theta) / n + z * z / (4 * n * n))
    is_optimistic = n_clusters < _FEW_FOR_WILSON or theta > 0.95
    note = f"optimistic, {count_of(n_clusters, cluster)}" if is_optimistic else ""
    return Interval(max(0.0, centre - half), min(1.0, centre + half), "wilson-deff", note, cluster, n_clusters)


def patient_weights(
    n_patients: int, *, n_draws: int = N_DRAWS, seed: int = 0, strata: np.ndarray | None = None
) -> np.ndarray:
    """(B, P) float64: how much each patient counts in B resamples; the same for all encoders of a table.

    Within strata, n - 1 of a stratum's n patients are drawn, with replacement, and count n / (n - 1) each (Rao and Wu
    1988): every resample weighs a stratum as the data do, and a mean varies by its own variance. Plain draws of n
    vary by (n - 1) / n of it; with 5 of 20 patients in a class their intervals covered .89, these .90.

    Args:
        n_patients: P.
        n_draws: B.
        seed: of the named streams.
        strata: (P,) int64 codes inside which patients are drawn, such as their classes; a patient alone in its stratum
            always counts once. None draws from all, n of n.
    """
    if strata is None:
        rng = stream(seed, "patient-bootstrap", n_patients)
        return weights_of(rng.integers(0, n_patients, (n_draws, n_patients)), n_patients)
    if strata.shape != (n_patients,):
        raise ValueError(f"need a stratum for each of {n_patients} patients, got {strata.shape}")
    weights = np.ones((n_draws, n_patients))
    for stratum in np.unique(strata).tolist():
        own = np.flatnonzero(strata == stratum)
        n = len(own)
        if n > 1:
            rng = stream(seed, "patient-bootstrap", n, "stratum", stratum)
            weights[:, own] = weights_of(rng.integers(0, n, (n_draws, n - 1)), n) * (n / (n - 1))
    return weights


def class_strata(sizes: np.ndarray) -> np.ndarray | None:
    """(P,) int64, the class that each patient has rows of, to draw patients within; None where that is not to be done.

    That is where a patient has rows of several classes, and where no class has two patients: nothing would vary.

    Args:
        sizes: (P, C) rows of each patient and class.
    """
    has = sizes > 0
    if (has.sum(axis=1) != 1).any() or has.sum(axis=0).max() < 2:
        return None
    return has.argmax(axis=1)


def resampled(strata: np.ndarray | None, *, cluster: str = "patient") -> str:
    """What the draws of `patient_weights` are of, in words for a protocol."""
    return f"{cluster}s" if strata is None else f"{cluster}s within classes"


def weights_of(draws: np.ndarray, n_patients: int) -> np.ndarray:
    """(B, P) weights from (B, n) drawn patient numbers."""
    n_draws = len(draws)
    flat = (draws + n_patients * np.arange(n_draws)[:, None]).ravel()
    return np.bincount(flat, minlength=n_draws * n_patients).reshape(n_draws, n_patients).astype(np.float64)


def mean_of_classes(hits: np.ndarray, sizes: np.ndarray) -> Statistic:
    """Mean over classes of summed hits by summed sizes, as a function of cluster weights.

    A resample that lacks a class that the whole data hold gives NaN: the mean of the others is another quantity, and
    where few patients have a class such draws would reach into the interval.

    Args:
        hits: (P, C) of each cluster and class.
        sizes: (P, C); a class of no rows at all is left out.
    """
    is_held = sizes.sum(axis=0) > 0
    hits, sizes = hits[:, is_held], sizes[:, is_held]

    def value(weights: np.ndarray) -> np.ndarray:
        above, below = weights @ hits, weights @ sizes
        return np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0).mean(axis=1)

    return value


def bootstrap_interval(statistic: Statistic, weights: np.ndarray, *, cluster: str = "patient") -> Interval:
    """Patient bootstrap: BCa from 10 patients, percentile below, none below 5 or if degenerate.

    Marked optimistic below 40 patients: of 30 whose mean rate was .93 it covered .90 (benchmarks/bench_coverage.py).

    Args:
        statistic: of patient weights.
        weights: (B, P) of `patient_weights`.
        cluster: the word for a patient.
    """
    n_clusters = weights.shape[1]
    if n_clusters < FEWEST:
        return _none(n_clusters, cluster)
    draws = statistic(weights)
    draws = draws[np.isfinite(draws)]
    if not len(draws) or draws.min() == draws.max():
        return Interval(np.nan, np.nan, "n/a", f"degenerate, {count_of(n_clusters, cluster)}", cluster, n_clusters)
    note = "" if n_clusters >= _FEW_FOR_BOOTSTRAP else f"optimistic, {count_of(n_clusters, cluster)}"
    ends = None
    if n_clusters >= _FEW_FOR_BCA:
        ends = bca_ends(statistic, draws, n_clusters)
    method = "percentile" if ends is None else "bca"
    low, high = percentile_ends(draws) if ends is None else ends
    return Interval(low, high, method, note, cluster, n_clusters)


def percentile_ends(draws: np.ndarray) -> tuple[float, float]:
    """Type-7 quantiles .025 and .975."""
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def bca_ends(statistic: Statistic, draws: np.ndarray, n_clusters: int) -> tuple[float, float] | None:
    """Bias-corrected and accelerated ends (Efron 1987); None where z0 or a cannot be had.

    z0 = PHI^-1((#{t < theta} + .5 #{t = theta}) / B); a = sum d^3 / (6 (sum d^2)^1.5) with d = mean(jack) - jack_p,
    leave-one-patient-out.
    """
    from scipy.special import ndtr, ndtri

    theta = float(statistic(np.ones((1, n_clusters)))[0])
    is_equal = np.abs(draws - theta) <= 1e-12 * max(1.0, abs(theta))  # the order of a sum must not decide a tie
    z0 = float(ndtri(((draws[~is_equal] < theta).sum() + 0.5 * is_equal.sum()) / len(draws)))
    jack = statistic(1 - np.eye(n_clusters))
    d = jack.mean() - jack
    spread = float((d**2).sum()) ** 1.5
    if not math.isfinite(z0) or not math.isfinite(spread) or spread == 0:
        return None
    a = float((d**3).sum()) / (6 * spread)
    z = z0 + ndtri(np.array([0.025, 0.975]))
    low, high = np.quantile(draws, ndtr(z0 + z / (1 - a * z)))
    return float(low), float(high)


@dataclass(frozen=True, slots=True)
class Difference:
    """The reference encoder minus another, on the same queries and the same resampled patients.

    Attributes:
        value: of the difference.
        interval: paired patient bootstrap, percentile.
        p: two-sided p of the patient swap test, NaN for statistics that are no mean over queries.
        p_holm: adjusted over the rows of one metric.
    """

    value: float
    interval: Interval
    p: float
    p_holm: float = float("nan")


def paired_interval(first: Statistic, second: Statistic, weights: np.ndarray, *, cluster: str = "patient") -> Interval:
    """Percentile interval of first minus second, both on the same resampled patients."""
    n_clusters = weights.shape[1]
    if n_clusters < FEWEST:
        return _none(n_clusters, cluster)
    draws = first(weights) - second(weights)
    draws = draws[np.isfinite(draws)]
    if not len(draws):
        return Interval(np.nan, np.nan, "n/a", "degenerate", cluster, n_clusters)
    low, high = percentile_ends(draws)
    note = "" if n_clusters >= _FEW_FOR_WILSON else f"optimistic, {count_of(n_clusters, cluster)}"
    return Interval(low, high, "percentile", note, cluster, n_clusters)


def swap_test(differences: np.ndarray, *, seed: int = 0, n_draws: int = 10_000) -> float:
    """Two-sided p that the encoders are exchangeable within patients: random signs of per-patient differences.

    Exact over all 2^P sign patterns up to 16 patients, else (count + 1) / (draws + 1).

    Args:
        differences: (P,) summed hits of one encoder minus the other's.
        seed: of the named stream.
        n_draws: sign patterns beyond 16 patients.
    """
    values = np.asarray(differences, dtype=np.float64)
    observed = abs(values.sum()) - 1e-9 * max(1.0, np.abs(values).sum())  # sums of fractions in another order
    if len(values) <= 16:
        signs = 1 - 2 * ((np.arange(2 ** len(values))[:, None] >> np.arange(len(values))) & 1)
        return float((np.abs(signs @ values) >= observed).mean())
    signs = 1 - 2 * stream(seed, "swap-test").integers(0, 2, (n_draws, len(values)))
    return float(((np.abs(signs @ values) >= observed).sum() + 1) / (n_draws + 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p; NaN entries are no comparisons and stay NaN."""
    known = [i for i, p in enumerate(p_values) if math.isfinite(p)]
    order = sorted(known, key=lambda i: p_values[i])
    adjusted = [math.nan] * len(p_values)
    steps = [min(1.0, (len(order) - rank) * p_values[i]) for rank, i in enumerate(order)]
    for i, p in zip(order, _running_max(steps), strict=True):
        adjusted[i] = p
    return adjusted


def _running_max(values: list[float]) -> list[float]:
    result = list(values)
    for i, (before, now) in enumerate(pairwise(values), start=1):
        result[i] = max(result[i - 1], before, now)
    return result


def _none(n_clusters: int, cluster: str) -> Interval:
    return Interval(np.nan, np.nan, "n/a", count_of(n_clusters, cluster), cluster, n_clusters)


def count_of(n: int, cluster: str) -> str:
    """Such as 1 patient, 9 patients."""
    return f"{n} {cluster}" + ("" if n == 1 else "s")
