"""Whether the vote of a ranked list is right; the rules themselves live with the search."""

import numpy as np

from histokin.search.votes import VoteRule, check_votes, slot_counts, votes

__all__ = ["VoteRule", "votes", "votes_right"]


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
    check_votes(labels, rule)
    own = (labels == truth[:, None]).sum(axis=1)
    return (own > 0) & (own == slot_counts(labels).max(axis=1, initial=0))
