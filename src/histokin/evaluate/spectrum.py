"""How many directions embeddings use: measures of their spectrum, and of the spectrum of objects against their views.

All ranks depend on N and d: print both beside them. Sums are float64 whatever the input.
"""

import math

import numpy as np


def rankme(features: np.ndarray, *, is_centred: bool = False) -> float:
    """Entropy of the singular values, raised to exp (RankMe, Garrido et al. 2023): p_k = sigma_k / sum sigma + 1e-7.

    Raw by default: neither centred nor normalised. 0 where all vectors are zero (after centring: all alike).
    """
    x = np.asarray(features, dtype=np.float64)
    sigma = np.linalg.svd(x - x.mean(axis=0) if is_centred else x, compute_uv=False)
    if sigma.sum() <= 1e-12 * max(1.0, np.abs(x).max()):
        return 0.0
    return _effective_number(sigma / sigma.sum() + 1e-7)


def participation_ratio(features: np.ndarray) -> float:
    """(sum lambda)^2 / sum lambda^2 of the covariance: 1 for a line, d for a ball, NaN for a point."""
    found = eigenvalues(features)
    squares = float((found**2).sum())
    return float(found.sum() ** 2 / squares) if squares > 0 else math.nan


def alpha_req(features: np.ndarray, *, first: int = 11, last: int = 100, is_weighted: bool = True) -> float:
    """How fast the spectrum decays: alpha of lambda_j ~ j^-alpha (alpha-ReQ, Agrawal et al. 2022).

    The slope of -ln lambda_j over ln j, by least squares with weights 1/j, for j = first..min(last, rank); lambda_1 is
    the largest eigenvalue of the covariance. Near 1 is what good encoders have, far above 1 a collapsed spectrum, far
    below 1 noise. Range and weights are those of the authors' code; figures of other ranges do not compare.

    Eigenvalues that rounding alone could make, in float64 or in the type the features come in, count as zero: a
    collapsed encoder stored as float16 would otherwise show a long flat tail of rounding noise.

    Args:
        features: (N, d) floating.
        first: j of the largest eigenvalue used, from 1.
        last: j of the smallest, if the rank reaches so far.
        is_weighted: False weighs all j alike.

    Returns:
        alpha, whatever the scale, rotation or mean of the features; NaN with fewer than two eigenvalues in the range.

    Raises:
        ValueError: not 1 <= first < last.
    """
    if not 1 <= first < last:
        raise ValueError(f"need 1 <= first < last, got {first}, {last}")
    values = eigenvalues(features)
    last = min(last, len(values))
    if last - first < 1:
        return math.nan
    j = np.arange(first, last + 1)
    x, y = np.log(j), -np.log(values[first - 1 : last])
    weights = 1.0 / j if is_weighted else np.ones(len(j))
    x = x - np.average(x, weights=weights)
    return float((weights * x * y).sum() / (weights * x**2).sum())


def lidar(features: np.ndarray, objects: np.ndarray, *, delta: float = 1e-4, eps: float = 1e-8) -> float:
    """Effective number of directions in which objects differ more than their views (LiDAR, Thilak et al. 2023).

        Sb = sum_o (m_o - m)(m_o - m)' / (n - 1),  m the mean of the n object means m_o
        Sw = sum_o sum_x (x - m_o)(x - m_o)' / sum_o (q_o - 1) + delta I
        p = lambda / sum lambda + eps of the eigenvalues of Sw^-1/2 Sb Sw^-1/2;  exp(-sum p ln p)

    With q views of every object sum_o (q_o - 1) is the paper's n (q - 1). Objects of unequal size: every row is used,
    none is drawn or dropped; each object counts once in Sb, since the question is how objects differ, and each view
    counts alike in Sw, which stays an unbiased estimate of one spread within objects. An object of one row has no
    spread within and is left out of both. Scalings and constants differ between tools: their values do not compare.

    It is a rank, not a strength. Objects that do not differ at all, such as groups drawn by lot, differ in sampling
    noise, which points everywhere: they score near min(n - 1, d), above most encoders. Read it only beside a measure
    of how well objects are told apart, with n >= 1000 and q >= 10 as the paper has it.

    Args:
        features: (N, d) floating. `delta` is absolute, so the value holds for the scale they come in, whatever their
            rotation or mean; it stops mattering where the spread within objects is far above it.
        objects: (N,) of any type: the object, such as a tile or a slide, that each row is a view of.
        delta: added to every variance within objects.
        eps: added to every share.

    Returns:
        Between 1 and d (about); 0 where all object means are alike, NaN with fewer than two objects of two rows.

    Raises:
        ValueError: lengths differ, or delta is not positive.
    """
    from scipy.linalg import eigh

    if len(objects) != len(features) or delta <= 0:
        raise ValueError(f"need an object for each row and delta > 0, got {len(objects)}, {len(features)}, {delta}")
    codes = np.unique(np.array([str(one) for one in objects], dtype=str), return_inverse=True)[1]
    is_kept = np.bincount(codes)[codes] > 1
    codes = np.unique(codes[is_kept], return_inverse=True)[1]
    sizes = np.bincount(codes)
    n = len(sizes)
    if n < 2:
        return math.nan
    x = np.asarray(features, dtype=np.float64)[is_kept]
    means = np.zeros((n, x.shape[1]))
    np.add.at(means, codes, x)
    means /= sizes[:, None]
    apart, within = means - means.mean(axis=0), x - means[codes]
    between = apart.T @ apart / (n - 1)
    inside = within.T @ within / (sizes - 1).sum() + delta * np.eye(x.shape[1])
    values = np.clip(eigh(between, inside, eigvals_only=True), 0, None)
    if np.trace(between) <= 1e-24 * max(1.0, float((x**2).max())):
        return 0.0
    return _effective_number(values / values.sum() + eps)


def eigenvalues(features: np.ndarray) -> np.ndarray:
    """Eigenvalues of the covariance (ddof 1) that are more than rounding, largest first.

    One counts if it exceeds both max(N, d) 2^-52 lambda_1, what float64 arithmetic leaves of a zero, and
    (u r (sqrt N + sqrt d))^2 / (N - 1), the largest that independent rounding of every value can add (u the relative
    step of the type the features come in, r their root mean square).

    Args:
        features: (N, d) floating, N >= 2.

    Returns:
        (rank,) float64.
    """
    given = np.asarray(features)
    x = given.astype(np.float64)
    n, d = x.shape
    centred = x - x.mean(axis=0)
    centred -= centred.mean(axis=0)  # the rounding of a mean is the same in all rows: it would be a direction
    gram = centred.T @ centred if d <= n else centred @ centred.T  # the same eigenvalues but for zeros
    values = np.linalg.eigvalsh(gram)[::-1] / (n - 1)
    step = np.finfo(given.dtype).eps if np.issubdtype(given.dtype, np.floating) else np.finfo(np.float64).eps
    rounding = (float(step) * (math.sqrt(n) + math.sqrt(d))) ** 2 * float((x**2).mean()) / (n - 1)
    least = max(max(n, d) * np.finfo(np.float64).eps * float(values[0]), rounding)
    return values[: min(n - 1, d)][values[: min(n - 1, d)] > least]


def _effective_number(p: np.ndarray) -> float:
    """How many equal shares have the same entropy: exp(-sum p ln p) of positive shares."""
    return float(np.exp(-(p * np.log(p)).sum()))
