"""What label a ranked list of hits votes for, under each published rule and the one shown to users.

The rule is worth up to 20 points of a published figure, so each has a name and every figure states it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

VoteRule = Literal["rank", "strict", "anytie", "smallest", "fish"]
TallyRule = Literal["histokin", "first_seen"]


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
    check_votes(labels, rule)
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


def slot_counts(labels: np.ndarray) -> np.ndarray:
    """(Q, k) int64: how often the label of each slot occurs in its list, 0 for empty slots."""
    counts = np.zeros(labels.shape, dtype=np.int64)
    for slot in range(labels.shape[1]):  # k is small; a (Q, k, k) array would not be
        counts += labels == labels[:, slot : slot + 1]
    return np.where(labels >= 0, counts, 0)


def check_votes(labels: np.ndarray, rule: str) -> None:
    """Refuse lists and rules that mean nothing."""
    if rule not in get_args(VoteRule):
        raise ValueError(f"the vote rule must be one of {', '.join(get_args(VoteRule))}, got {rule!r}")
    if labels.ndim != 2 or labels.shape[1] < 1:
        raise ValueError(f"need (Q, k >= 1) labels, got {labels.shape}")


@dataclass(frozen=True, slots=True)
class LabelVotes:
    """What one label has in a list of hits.

    Attributes:
        label: its text.
        count: hits that carry it.
        similarity: sum of their similarities.
        rank: competition rank of its best hit, 1 + the number of strictly better hits in the list.
    """

    label: str
    count: int
    similarity: float
    rank: int


def tally(
    labels: Sequence[str] | np.ndarray, similarity: Sequence[float] | np.ndarray, *, rule: TallyRule = "histokin"
) -> tuple[LabelVotes, ...]:
    """The labels of one list of hits, the winner first.

        histokin    more hits, then the larger sum of similarities, then the better best rank, then the label's text:
                    the label shown to a user, independent of the order in which equal scores are listed
        first_seen  more hits, then the label met first (Counter.most_common in the published codes; `rank` of `votes`)

    Args:
        labels: k texts in rank order; "" is unlabelled and has no vote.
        similarity: k numbers, larger is more alike.
        rule: named in whatever shows the result.

    Returns:
        One entry a label; empty where no hit is labelled.
    """
    if rule not in get_args(TallyRule):
        raise ValueError(f"the tally rule must be one of {', '.join(get_args(TallyRule))}, got {rule!r}")
    values = np.asarray(similarity, dtype=np.float64)
    if len(labels) != len(values):
        raise ValueError(f"{len(labels)} labels for {len(values)} similarities")
    held: dict[str, list[float]] = {}
    for label, value in zip(labels, values.tolist(), strict=True):
        if label:
            held.setdefault(str(label), []).append(value)
    found = [
        # fsum: the sum of a label must not depend on the order of its hits.
        LabelVotes(label, len(own), math.fsum(own), 1 + int((values > max(own)).sum()))
        for label, own in held.items()
    ]
    if rule == "first_seen":
        return tuple(sorted(found, key=lambda entry: -entry.count))  # sorted is stable: first met, first listed
    return tuple(sorted(found, key=lambda entry: (-entry.count, -entry.similarity, entry.rank, entry.label)))
