"""What label a ranked list of neighbours votes for, under each published rule; the rule is worth up to 20 points."""

from typing import Literal, get_args

import numpy as np

VoteRule = Literal["rank", "strict", "anytie", "smallest", "fish"]


def votes(labels: np.ndarray, *, rule: VoteRule = "rank") -> np.ndarray:
    """The label each list votes for.

        rank      plurality; a tie goes to the label whose best-ranked member comes first (SISH, Yottixel, default)
        strict    the label with more than half of the list
        smallest  plurality; a tie goes to the lowest code (scipy's mode): depends on how labels are coded
        fish      rank, but a list shorter than k also needs ceil(k/2) votes (SISH slide script)

    Args:
        labels: (Q, k) int64 codes by rank, -1 where the list is shorter than k.
        rule: `anytie` names no single label and is refused here.

    Returns:
        (Q,) int64 codes, -1 where the list votes for nothing.
    """
    _check(labels, rule)
    if rule == "anytie":
        raise ValueError("the rule anytie is a way to count as right, not to name a label")
    n_queries, k = labels.shape
    counts = slot_counts(labels)
    most = counts.max(axis=1, initial=0)
    is_mode = (counts == most[:, None]) & (labels >= 0)
    if rule == "smallest":
        winner = np.where(is_mode, labels, np.iinfo(np.int64).max).min(axis=1)
    else:
        winner = labels[np.arange(n_queries), is_mode.argmax(axis=1)]
    length = (labels >= 0).sum(axis=1)
    has_winner = length > 0
    if rule == "strict":
        has_winner &= 2 * most > length
    if rule == "fish":
        has_winner &= (length == k) | (2 * most >= k)  # votes are whole: 2 v >= k equals v >= ceil(k/2)
    return np.where(has_winner, winner, -1)


def votes_right(labels: np.ndarray, truth: np.ndarray, *, rule: VoteRule = "rank") -> np.ndarray:
    """Whether each list's vote is the query's label; under `anytie`, whether that label is among the modes.

    Args:
        labels: (Q, k) int64 codes by rank, -1 past the end.
        truth: (Q,) int64 codes >= 0.
        rule: see `votes`.

    Returns:
        (Q,) bool; an empty list is wrong.
    """
    if rule != "anytie":
        return votes(labels, rule=rule) == truth
    _check(labels, rule)
    own = (labels == truth[:, None]).sum(axis=1)
    return (own > 0) & (own == slot_counts(labels).max(axis=1, initial=0))


def slot_counts(labels: np.ndarray) -> np.ndarray:
    """(Q, k) int64: how often the label of each slot occurs in its list, 0 for empty slots."""
    counts = np.zeros(labels.shape, dtype=np.int64)
    for slot in range(labels.shape[1]):  # k is small; a (Q, k, k) array would not be
        counts += labels == labels[:, slot : slot + 1]
    return np.where(labels >= 0, counts, 0)


def _check(labels: np.ndarray, rule: str) -> None:
    if rule not in get_args(VoteRule):
        raise ValueError(f"the vote rule must be one of {', '.join(get_args(VoteRule))}, got {rule!r}")
    if labels.ndim != 2 or labels.shape[1] < 1:
        raise ValueError(f"need (Q, k >= 1) labels, got {labels.shape}")
