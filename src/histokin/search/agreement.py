"""How far hits agree, and how right such agreement has been: witnesses, votes, their reliability, sets of labels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from histokin.errors import SearchError
from histokin.search.votes import tally

N_WITNESSES = 5
MARGIN_CUTS = (0.3, 0.7)
"""Of five votes 3:2 and what is closer lies below, 3:1:1 and 4:1 between, 5:0 above."""
N_SIMILARITY_BINS = 3
_EXACT = 1e-9  # the floor is meant of the exact product
_Z = 1.959963984540054  # the normal quantile of 97.5 %


@dataclass(frozen=True, slots=True)
class Witnesses:
    """Hits by patient: five tiles of one patient are one witness.

    Attributes:
        slot: (Q, n) int64, the best hit of each patient in the order of the list: its column there, -1 for none.
        n_hits: (Q, n) int64, how many hits of the list are that patient's.
        n_patients: (Q,) int64, patients in the whole list.
    """

    slot: np.ndarray
    n_hits: np.ndarray
    n_patients: np.ndarray

    def of(self, column: np.ndarray, empty: str | float) -> np.ndarray:
        """(Q, n) values of a column (Q, k) of the hits, `empty` where there are fewer witnesses."""
        return np.where(self.slot >= 0, np.take_along_axis(column, np.maximum(self.slot, 0), axis=1), empty)


def witnesses(units: np.ndarray, n: int = N_WITNESSES, *, own: np.ndarray | None = None) -> Witnesses:
    """The best hit of each of the first n patients of ranked lists.

    Args:
        units: (Q, k) patient of each hit, best first, "" where there is no hit; slides of unknown patients need names
            of their own.
        n: witnesses a query.
        own: (Q,) patient of each query, where it must be left out.

    Raises:
        SearchError: a hit is of the query's own patient.
    """
    if units.ndim != 2 or n < 1:
        raise ValueError(f"need (Q, k) units and n >= 1, got {units.shape} and {n}")
    is_hit = units != ""
    if own is not None:
        leaks = is_hit & (units == np.asarray(own, dtype=object)[:, None])
        if leaks.any():
            query = int(np.argmax(leaks.any(axis=1)))
            raise SearchError(
                f"{int(leaks.sum())} hits are of the query's own patient, the first of {own[query]}",
                f"query {query}",
                "Leave the patient out of the search, not of the list.",
            )
    slot, n_hits = np.full((len(units), n), -1), np.zeros((len(units), n), dtype=np.int64)
    n_patients = np.zeros(len(units), dtype=np.int64)
    for row, (names, found) in enumerate(zip(units.tolist(), is_hit.tolist(), strict=True)):
        columns: dict[str, list[int]] = {}
        for column, (name, is_there) in enumerate(zip(names, found, strict=True)):
            if is_there:
                columns.setdefault(name, []).append(column)
        n_patients[row] = len(columns)
        for place, hits in enumerate(list(columns.values())[:n]):
            slot[row, place], n_hits[row, place] = hits[0], len(hits)
    return Witnesses(slot, n_hits, n_patients)


@dataclass(frozen=True, slots=True)
class Majority:
    """What Q lists of witnesses vote for, by the rule `histokin` of `search.votes`.

    Attributes:
        label: (Q,) object, "" where no witness is labelled.
        n_for: (Q,) int64 witnesses for it.
        n_votes: (Q,) int64 witnesses that are labelled.
        margin: (Q,) float64 in [0, 1], votes for it less those for the next label, as a share of all; NaN if none.
        similarity: (Q,) float64 mean similarity of the witnesses, labelled or not; NaN if there are none.
    """

    label: np.ndarray
    n_for: np.ndarray
    n_votes: np.ndarray
    margin: np.ndarray
    similarity: np.ndarray


def majority(label: np.ndarray, score: np.ndarray) -> Majority:
    """The vote of each list.

    Args:
        label: (Q, n) texts of the witnesses, best first, "" where unlabelled or none.
        score: (Q, n) their similarities, NaN where there is none.
    """
    if label.shape != score.shape or label.ndim != 2:
        raise ValueError(f"need equal (Q, n) labels and scores, got {label.shape} and {score.shape}")
    is_there = ~np.isnan(score)
    columns: list[tuple[str, int, int, float]] = []
    for texts, values, there in zip(label, score, is_there, strict=True):
        entries = tally(texts[there], values[there])
        counts = [entry.count for entry in entries] + [0, 0]
        n_votes = sum(counts)
        margin = (counts[0] - counts[1]) / n_votes if n_votes else math.nan
        columns.append((entries[0].label if entries else "", counts[0], n_votes, margin))
    names, n_for, n_votes, margin = zip(*columns, strict=True) if columns else ((), (), (), ())
    total = np.where(is_there, score, 0).sum(axis=1)
    return Majority(
        np.array(names, dtype=object),
        np.array(n_for, dtype=np.int64),
        np.array(n_votes, dtype=np.int64),
        np.array(margin, dtype=np.float64),
        np.divide(total, is_there.sum(axis=1), out=np.full(len(score), np.nan), where=is_there.any(axis=1)),
    )


@dataclass(frozen=True, slots=True)
class Record:
    """How right votes like one were.

    Attributes:
        share: mean over patients of the share of their votes that were right; NaN where there were none.
        low, high: Wilson's 95 % interval, the patients being counted.
        n_patients, n_queries: that it rests on.
    """

    share: float
    low: float
    high: float
    n_patients: int
    n_queries: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How right the majority was, by bins of its margin (M) and of the similarity of its witnesses (S).

    Attributes:
        margin_cuts: (M - 1,) float64, the lower ends of all bins but the first.
        similarity_cuts: (S - 1,) float64, likewise.
        share, low, high: (M, S) float64 as in `Record`, NaN in empty bins.
        n_patients, n_queries: (M, S) int64.
        n_left_out: queries without a label or without a vote.
    """

    margin_cuts: np.ndarray
    similarity_cuts: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    n_patients: np.ndarray
    n_queries: np.ndarray
    n_left_out: int

    def record(self, margin: float, similarity: float) -> Record:
        """How right votes of this margin and similarity were; the record of nothing if either is NaN."""
        if math.isnan(margin) or math.isnan(similarity):
            return Record(math.nan, math.nan, math.nan, 0, 0)
        at = _bin(self.margin_cuts, margin), _bin(self.similarity_cuts, similarity)
        return Record(
            float(self.share[at]),
            float(self.low[at]),
            float(self.high[at]),
            int(self.n_patients[at]),
            int(self.n_queries[at]),
        )


def reliability(
    votes: Majority,
    truth: np.ndarray,
    patients: np.ndarray,
    *,
    margin_cuts: Sequence[float] = MARGIN_CUTS,
    n_similarity_bins: int = N_SIMILARITY_BINS,
) -> Reliability:
    """Compare votes with the labels of queries whose patients were left out of the lists.

    A patient counts once in a bin, with the share of its votes there that were right: a thousand tiles of a patient are
    one trial. Bins of similarity hold equally many queries, as far as ties allow.

    Args:
        votes: of Q queries.
        truth: (Q,) their labels, "" where unknown.
        patients: (Q,).
        margin_cuts: ascending, within (0, 1).
        n_similarity_bins: S; fewer where similarities tie.
    """
    is_used = (votes.label != "") & (np.asarray(truth, dtype=object) != "")
    margin, similarity = votes.margin[is_used], votes.similarity[is_used]
    cuts = np.asarray(margin_cuts, dtype=np.float64)
    shares = np.arange(1, n_similarity_bins) / n_similarity_bins
    similarity_cuts = np.unique(np.quantile(similarity, shares)) if len(similarity) else np.empty(0)
    bins = _bin(cuts, margin) * (len(similarity_cuts) + 1) + _bin(similarity_cuts, similarity)
    is_right = (votes.label == truth)[is_used].astype(np.float64)
    names, patient = np.unique(np.asarray(patients[is_used], dtype=str), return_inverse=True)
    shape = (len(cuts) + 1, len(similarity_cuts) + 1)
    n_bins = shape[0] * shape[1]
    cell = bins * max(len(names), 1) + patient
    size = np.bincount(cell, minlength=n_bins * len(names)).reshape(n_bins, -1)
    right = np.bincount(cell, weights=is_right, minlength=n_bins * len(names)).reshape(n_bins, -1)
    n_patients = (size > 0).sum(axis=1)
    total = np.divide(right, size, out=np.zeros(right.shape), where=size > 0).sum(axis=1)
    share = np.divide(total, n_patients, out=np.full(n_bins, np.nan), where=n_patients > 0)
    low, high = _wilson(share, n_patients)
    return Reliability(
        cuts,
        similarity_cuts,
        share.reshape(shape),
        low.reshape(shape),
        high.reshape(shape),
        n_patients.reshape(shape),
        size.sum(axis=1).reshape(shape),
        int((~is_used).sum()),
    )


def vote_shares(label: np.ndarray, score: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """(Q, C) float64: similarity of each class's witnesses as a share of that of all labelled ones.

    Negative similarities weigh nothing. Rows without a labelled witness are 0 throughout.

    Args:
        label: (Q, n) texts, "" where unlabelled or none.
        score: (Q, n), NaN where there is none.
        classes: C different labels, all that occur.

    Raises:
        ValueError: a label is none of the classes.
    """
    strange = sorted({str(text) for text in label.ravel()} - {"", *classes})
    if strange:
        raise ValueError(f"labels {', '.join(strange)} are none of the classes")
    mass = np.where(np.isnan(score), 0, np.maximum(score, 0))
    shares = np.stack([np.where(label == name, mass, 0).sum(axis=1) for name in classes], axis=1)
    total = shares.sum(axis=1, keepdims=True)
    return np.divide(shares, total, out=np.zeros(shares.shape), where=total > 0)


@dataclass(frozen=True, slots=True)
class LabelSets:
    """Sets of labels that hold the right one of a new patient's query with probability 1 - alpha at least.

    Split conformal prediction (Vovk et al. 2005) with 1 - share of weighted votes for how badly a label fits.

    Attributes:
        classes: all labels.
        alpha: error rate.
        limit: labels that fit no worse are in the set; None where there are too few patients: then all are.
        n_patients: calibrated on.
    """

    classes: tuple[str, ...]
    alpha: float
    limit: float | None
    n_patients: int

    @classmethod
    def of(
        cls, shares: np.ndarray, truth: np.ndarray, patients: np.ndarray, classes: Sequence[str], *, alpha: float = 0.1
    ) -> "LabelSets":
        """Calibrate on one query a patient, each answered without its own patient.

        Args:
            shares: (n, C) from `vote_shares`.
            truth: (n,) labels.
            patients: (n,), no two equal; `draw_queries` draws such.
            classes: C labels.
            alpha: in (0, 1).

        Raises:
            ValueError: a patient occurs twice, or a label is none of the classes.
        """
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
        if len(set(patients)) != len(patients):
            raise ValueError("a patient occurs twice; calibrate on one query a patient")
        place = {name: number for number, name in enumerate(classes)}
        strange = sorted({str(label) for label in truth} - set(place))
        if strange:
            raise ValueError(f"labels {', '.join(strange)} are none of the classes")
        column = np.array([place[label] for label in truth], dtype=np.int64)
        misfit = np.sort(_misfit(shares)[np.arange(len(column)), column])
        n_worse = math.floor(alpha * (len(misfit) + 1) + _EXACT)  # patients that the set may miss
        limit = float(misfit[-n_worse]) if n_worse > 0 else None
        return cls(tuple(classes), alpha, limit, len(misfit))

    def labels(self, shares: np.ndarray) -> tuple[str, ...]:
        """The labels of one query's set, the best first, of equal ones in the order of the classes.

        Args:
            shares: (C,) of its votes.
        """
        limit = 1.0 if self.limit is None else self.limit
        misfit = _misfit(shares)
        order = np.argsort(misfit, kind="stable")
        return tuple(self.classes[number] for number in order.tolist() if misfit[number] <= limit)


def _misfit(shares: np.ndarray) -> np.ndarray:
    return (1 - shares).round(12)  # sums of equal votes in another order are equal


def _bin(cuts: np.ndarray, values: np.ndarray | float) -> np.ndarray:
    """Bins [lower, upper): a value on a cut lies above it."""
    return np.searchsorted(cuts, values, side="right")


def _wilson(share: np.ndarray, n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95 % interval of shares of n trials, NaN where n is 0.

    scipy's takes whole counts only; a patient that was half right is half a count. Its variance is then less than that
    of a whole one, so the interval is rather too wide.
    """
    n = np.where(n > 0, n, np.nan).astype(np.float64)
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)
