"""What a blind ranking would score: exact chance after exclusion, and the null of permuted patient labels."""

from collections.abc import Callable

import numpy as np

from histokin.streams import stream


def chance_acc(n_allowed: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """P(Acc@k = 1) in random order: 1 - C(N - R, k) / C(N, k) (E1 of the reference).

    Where k > N the whole of the allowed rows is the list.

    Args:
        n_allowed: (Q,) N_i candidates.
        n_relevant: (Q,) R_i of them right.
        k: length of the lists.

    Returns:
        (Q,) float64.
    """
    n, r = np.asarray(n_allowed, dtype=np.float64), np.asarray(n_relevant, dtype=np.float64)
    missed = np.ones(np.broadcast(n, r).shape)
    for slot in range(k):
        left = n - slot
        missed = missed * np.where(left > 0, np.clip(n - r - slot, 0, None) / np.maximum(left, 1), 1.0)
    return 1 - missed


def chance_precision(n_allowed: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """E[P@k] = (R/N) min(k, N)/k in random order."""
    n, r = np.asarray(n_allowed, dtype=np.float64), np.asarray(n_relevant, dtype=np.float64)
    return r / np.maximum(n, 1) * np.minimum(k, n) / k


def chance_ap(n_allowed: np.ndarray, n_relevant: np.ndarray, k: int) -> np.ndarray:
    """E[AP@k] in random order, denominator min(k, R) (E2 of the reference).

    (1/min(k,R)) sum_{r=1..k} (R/N) (1 + (r-1)(R-1)/(N-1)) / r; 0 where R = 0.
    """
    n, r = np.asarray(n_allowed, dtype=np.float64), np.asarray(n_relevant, dtype=np.float64)
    rank = np.arange(1, k + 1)[:, None]
    n_row, r_row = np.atleast_1d(n)[None], np.atleast_1d(r)[None]
    terms = r_row / np.maximum(n_row, 1) * (1 + (rank - 1) * (r_row - 1) / np.maximum(n_row - 1, 1)) / rank
    summed = (terms * (rank <= n_row)).sum(axis=0).reshape(n.shape)
    divisor = np.minimum(k, r)
    return np.divide(summed, divisor, out=np.zeros(n.shape), where=divisor > 0)


def chance_mmv(counts: np.ndarray, truth: np.ndarray, k: int, *, rule: str = "rank") -> np.ndarray:
    """P(the vote of k random rows is right), exactly (E3 of the reference).

    The sum over count vectors v of the k slots of the multivariate hypergeometric probability of v, times
    [true class is a mode] / #modes (`rank`, `smallest` on average), without the division (`anytie`), or times
    [v_true > k/2] (`strict`). Count vectors are not listed: for each count t of the true class, the other classes
    enter one by one into a polynomial in (slots used, classes that reach t), so that cost grows with C k^4.

    Args:
        counts: (M, C) allowed rows of each class.
        truth: (M,) the true class.
        k: length of the lists; min(k, N) where fewer rows are allowed (`fish` then differs and is not offered).
        rule: rank, anytie or strict.

    Returns:
        (M,) float64.
    """
    if rule not in ("rank", "anytie", "strict"):
        raise ValueError(f"chance is known for rank, anytie and strict, not for {rule!r}")
    counts, truth = np.asarray(counts, dtype=np.float64), np.asarray(truth)
    result = np.zeros(len(counts))
    length = np.minimum(k, counts.sum(axis=1)).astype(int)
    for n_slots in np.unique(length[length > 0]):
        rows = np.flatnonzero(length == n_slots)
        result[rows] = _chance_vote(counts[rows], truth[rows], int(n_slots), rule)
    return result


def _chance_vote(counts: np.ndarray, truth: np.ndarray, k: int, rule: str) -> np.ndarray:
    n_rows, n_classes = counts.shape
    ways = _scaled_binomials(counts, counts.sum(axis=1), k)  # (M, C, k + 1)
    own = ways[np.arange(n_rows), truth]  # (M, k + 1)
    total = _scaled_binomials(counts.sum(axis=1)[:, None], counts.sum(axis=1), k)[:, 0, k]
    right = np.zeros(n_rows)
    for t in range(1, k + 1):
        if rule == "strict" and 2 * t <= k:
            continue
        limit = t if rule != "strict" else k
        state = np.zeros((n_rows, k - t + 1, k // t + 1))  # (slots used by others, others that reach t)
        state[:, 0, 0] = 1
        for c in range(n_classes):
            grown = np.zeros_like(state)
            for v in range(min(limit, k - t) + 1):
                moved = state[:, : k - t + 1 - v] * ways[:, c, v, None, None]
                if rule != "strict" and v == t:
                    grown[:, v:, 1:] += moved[:, :, :-1]
                else:
                    grown[:, v:] += moved
            state = np.where((truth == c)[:, None, None], state, grown)
        share = 1.0 / (1 + np.arange(state.shape[2])) if rule == "rank" else np.ones(state.shape[2])
        right += own[:, t] * (state[:, k - t] * share).sum(axis=1)
    return right / total


def _scaled_binomials(counts: np.ndarray, scale: np.ndarray, k: int) -> np.ndarray:
    """(M, C, k + 1): C(n, v) / N^v, so that 10^6 rows and k = 50 stay within float64."""
    ways = np.ones((*counts.shape, k + 1))
    for v in range(1, k + 1):
        ways[..., v] = ways[..., v - 1] * np.clip(counts - v + 1, 0, None) / v / scale[:, None]
    return ways


def permuted_null(
    statistic: Callable[[np.ndarray], np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    roles: np.ndarray | None = None,
    n: int = 200,
    seed: int = 0,
) -> np.ndarray | None:
    """A statistic under random exchange of whole patients' labels: the null where neighbours come in clumps.

    Random order is no null for k > 1 when a label belongs to the patient: a neighbour's own tiles follow it.

    Args:
        statistic: of (N,) label codes.
        labels: (N,) int64 codes.
        groups: (N,) int64 patient codes 0..P-1, each occurring.
        roles: (P,) int64, see `exchanged`; by default all patients are alike.
        n: permutations.
        seed: of the named stream.

    Returns:
        (n, ...) values, or None where some patient carries two labels.
    """
    label_of = constant_labels(labels, groups)
    if label_of is None:
        return None
    rng = stream(seed, "permuted-null")
    alike = np.zeros(len(label_of), dtype=np.int64) if roles is None else roles
    return np.stack([statistic(exchanged(label_of, alike, rng)[groups]) for _ in range(n)])


def exchanged(labels: np.ndarray, roles: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(U,) the labels of U units, exchanged at random between units of one role, see `items.Task.roles`."""
    drawn = labels.copy()
    for role in np.unique(roles):
        own = roles == role
        drawn[own] = rng.permutation(labels[own])
    return drawn


def constant_labels(labels: np.ndarray, groups: np.ndarray) -> np.ndarray | None:
    """(P,) the label of each patient, or None where some patient has tiles of two."""
    label_of = np.full(int(groups.max()) + 1, -1, dtype=np.int64)
    label_of[groups] = labels
    return label_of if (label_of[groups] == labels).all() else None
