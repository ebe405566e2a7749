"""Classification through search: the frame of retrieved labels, and every metric as a function of it.

All figures derive from this frame, so any statistic can be had again without the embeddings.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from histokin.evaluate.intervals import Statistic
from histokin.evaluate.votes import votes_right
from histokin.search.votes import VoteRule, votes

ApDenominator = Literal["over-min", "over-k"]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What Q queries were answered, as codes; K neighbours each.

    Attributes:
        query: (Q,) int64 database row of each query.
        truth: (Q,) int64 label codes into `classes`.
        ids: (Q, K) int64 rows, -1 past the end.
        labels: (Q, K) int64 codes of these rows, -1 past the end.
        scores: (Q, K) float64, NaN past the end.
        n_allowed: (Q,) int64 rows that were candidates.
        n_relevant: (Q,) int64 of these that carry the query's label: R_i, counted after exclusion.
        classes: label texts, sorted.
    """

    query: np.ndarray
    truth: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    n_allowed: np.ndarray
    n_relevant: np.ndarray
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (len(self.query) == len(self.truth) == len(self.labels) == len(self.n_relevant) == len(self.n_allowed)):
            raise ValueError("the columns of a frame of retrieved labels differ in length")

    def __len__(self) -> int:
        return len(self.truth)

    def first(self, k: int) -> np.ndarray:
        """(Q, k) label codes of the first k."""
        if not 1 <= k <= self.labels.shape[1]:
            raise ValueError(f"the frame holds {self.labels.shape[1]} neighbours a query, asked for {k}")
        return self.labels[:, :k]


def acc_at_k(frame: Retrieved, k: int) -> np.ndarray:
    """(Q,) 1 where any of the first k is right (Patho-Bench, RetCCL); rises with k by chance."""
    return (frame.first(k) == frame.truth[:, None]).any(axis=1).astype(np.float64)


def precision_at_k(frame: Retrieved, k: int) -> np.ndarray:
    """(Q,) share of right ones among k; a short list is divided by k all the same."""
    return (frame.first(k) == frame.truth[:, None]).sum(axis=1) / k


def mmv_at_k(frame: Retrieved, k: int, *, rule: VoteRule = "rank") -> np.ndarray:
    """(Q,) 1 where the vote of the first k is right."""
    return votes_right(frame.first(k), frame.truth, rule=rule).astype(np.float64)


def ap_at_k(frame: Retrieved, k: int, *, denominator: ApDenominator = "over-min") -> np.ndarray:
    """(Q,) average precision of the first k.

        AP@k = (1/D) sum over hits at rank r of (hits up to r) / r

    with D = min(k, R_i) (`over-min`) or k (`over-k`: SISH's patch script, Patho-Bench); 0 where R_i = 0.
    """
    if denominator not in ("over-min", "over-k"):
        raise ValueError(f"denominator must be over-min or over-k, got {denominator!r}")
    hit = frame.first(k) == frame.truth[:, None]
    summed = (hit * hit.cumsum(axis=1) / np.arange(1, k + 1)).sum(axis=1)
    divisor = np.minimum(k, frame.n_relevant) if denominator == "over-min" else np.full(len(frame), k)
    return np.divide(summed, divisor, out=np.zeros(len(frame)), where=divisor > 0)


def confusion(truth: np.ndarray, predicted: np.ndarray, groups: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """How often each class was rightly predicted, predicted, and true, in each group of queries.

    Args:
        truth: (Q,) label codes.
        predicted: (Q,) label codes, -1 predicts nothing.
        groups: (Q,) codes, such as patients.
        shape: number of groups G and of classes C.

    Returns:
        (3, G, C) float64 counts.
    """
    counts = np.zeros((3, *shape))
    said = predicted >= 0
    right = predicted == truth
    np.add.at(counts[0], (groups[right], truth[right]), 1)
    np.add.at(counts[1], (groups[said], predicted[said]), 1)
    np.add.at(counts[2], (groups, truth), 1)
    return counts


def macro_f1(
    right: np.ndarray, predicted: np.ndarray, true: np.ndarray, *, listed: np.ndarray | None = None
) -> np.ndarray:
    """Mean over listed classes of F1_c = 2 right_c / (predicted_c + true_c); a listed class with 0/0 counts 0.

    Args:
        right: (..., C) counts, see `confusion`.
        predicted: (..., C).
        true: (..., C).
        listed: (..., C) bool, the classes averaged over; by default those that are true of some query.

    Returns:
        (...) float64; NaN where no class is listed.
    """
    both = predicted + true
    listed = true > 0 if listed is None else listed
    f1 = np.divide(2 * right, both, out=np.zeros(np.shape(both)), where=both > 0)
    n_listed = np.broadcast_to(listed, both.shape).sum(axis=-1)
    summed = (f1 * listed).sum(axis=-1)
    return np.divide(summed, n_listed, out=np.full(np.shape(summed), np.nan), where=n_listed > 0)


def macro_f1_of(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> Statistic:
    """Macro-F1 over the classes that the whole data hold, as a function of cluster weights of (P, C) counts.

    NaN for a resample that lacks one of them, as in `intervals.mean_of_classes`.
    """
    is_held = true.sum(axis=0) > 0

    def value(weights: np.ndarray) -> np.ndarray:
        held = weights @ true
        found = macro_f1(weights @ right, weights @ predicted, held, listed=is_held)
        return np.where((held[:, is_held] > 0).all(axis=1), found, np.nan)

    return value


def macro_f1_at_k(frame: Retrieved, k: int, *, classes: tuple[str, ...] | None = None) -> float:
    """Macro-F1 of the `rank` vote of the first k.

    Args:
        frame: of retrieved labels.
        k: length of the lists.
        classes: averaged over; by default those that occur among the queries. One that is neither truth nor
            prediction counts 0.
    """
    everyone = np.zeros(len(frame), dtype=np.int64)
    right, predicted, true = confusion(frame.truth, votes(frame.first(k)), everyone, (1, len(frame.classes)))[:, 0]
    if classes is None:
        return float(macro_f1(right, predicted, true))
    listed = np.isin(frame.classes, classes)
    f1 = float(macro_f1(right, predicted, true, listed=listed))
    return f1 * int(listed.sum()) / len(classes) if listed.any() else 0.0


def mean_over(values: np.ndarray, groups: np.ndarray) -> float:
    """Mean of group means: over classes or over patients, each counting once.

    Args:
        values: (Q,) per-query values.
        groups: (Q,) integer codes >= 0.
    """
    sizes = np.bincount(groups)
    sums = np.bincount(groups, weights=values)
    return float((sums[sizes > 0] / sizes[sizes > 0]).mean())
