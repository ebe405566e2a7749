"""When the archive has nothing like the query: a threshold with a stated error rate, from patients it knows.

It is a test of novelty, no probability that a label is right; see `histokin.search.agreement` for that.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from histokin.errors import SearchError
from histokin.streams import stream

Kind = Literal["tile", "region", "slide"]
Search = Callable[[np.ndarray, str], np.ndarray]
"""(rows of queries (n,), the patient to leave out) -> (n,) best similarity in the rest of the archive, NaN if none."""

N_NEAREST = 5
"""Patients whose own best similarities a query's is compared with."""
FORMAT = 1
_EXACT = 1e-9  # .29 x 100 is 28.99... in floats: the floor is meant of the exact product


def fewest_patients(alpha: float) -> int:
    """Patients needed for a threshold at error rate alpha: 19 at .05, 9 at .1."""
    _check_alpha(alpha)
    return math.ceil((1 - _EXACT) / alpha) - 1


@dataclass(frozen=True, slots=True)
class Bests:
    """How near each patient comes to any other: one number a patient, whatever number of tiles it has.

    Pooling 200 tiles of each of 5 patients refused 14 % at alpha = .1 in simulation, one number from each of 40
    patients 10.4 % (reference, section 6).

    Attributes:
        patient: their names, sorted.
        best: the best similarity of each to all others.
    """

    patient: tuple[str, ...]
    best: tuple[float, ...]

    @classmethod
    def of(cls, best: np.ndarray, patients: np.ndarray) -> "Bests":
        """The median of each patient's queries; queries without an answer (NaN) count for nothing.

        Args:
            best: (n,) best similarity of each query to all other patients.
            patients: (n,) whose query it is; slides of unknown patients need names of their own.
        """
        _check_named(patients)
        own: dict[str, list[float]] = defaultdict(list)
        for patient, value in zip(patients, np.asarray(best, dtype=np.float64).tolist(), strict=True):
            if not math.isnan(value):
                own[str(patient)].append(value)
        names = tuple(sorted(own))
        return cls(names, tuple(float(np.median(own[name])) for name in names))

    def __len__(self) -> int:
        return len(self.best)

    def threshold(self, alpha: float) -> float | None:
        """The floor(alpha (n + 1))-th smallest; None where that is 0 and nothing can be refused at this rate."""
        _check_alpha(alpha)
        nth = math.floor(alpha * (len(self) + 1) + _EXACT)
        return sorted(self.best)[nth - 1] if nth > 0 else None

    def p_value(self, score: float) -> float:
        """(1 + #{b <= score}) / (n + 1): at most alpha just where the score lies below the threshold."""
        return (1 + sum(b <= score for b in self.best)) / (len(self) + 1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the archive holds something like a query.

    Attributes:
        is_refused: nothing like it; None where that cannot be said.
        threshold: what its best similarity had to reach; None where there is none.
        p_value: share of queries of known kind that would come no nearer.
        basis: the class that was calibrated on, "" for all patients together.
        n_patients: how many of them.
        note: what a reader must know besides, "" if nothing.
    """

    is_refused: bool | None
    threshold: float | None
    p_value: float
    basis: str
    n_patients: int
    note: str


@dataclass(frozen=True, slots=True)
class NoMatch:
    """Calibration of one kind of query on one archive.

    If a new patient is exchangeable with those of the archive, at most a share alpha of its queries is refused.

    Attributes:
        kind: tile, region or slide: what was asked with.
        fingerprint: of the encoder.
        alpha: error rate.
        pooled: of all patients.
        groups: of the patients of each class or organ, by name.
        seen: values of further columns (scanner, site) that were calibrated on.
    """

    kind: Kind
    fingerprint: str
    alpha: float
    pooled: Bests
    groups: tuple[tuple[str, Bests], ...] = ()
    seen: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __post_init__(self) -> None:
        _check_alpha(self.alpha)
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {self.kind!r}")

    @classmethod
    def of(
        cls,
        best: np.ndarray,
        patients: np.ndarray,
        *,
        kind: Kind,
        fingerprint: str,
        alpha: float = 0.05,
        groups: np.ndarray | None = None,
        seen: Mapping[str, np.ndarray] | None = None,
    ) -> "NoMatch":
        """Calibrate on queries of known patients.

        Args:
            best: (n,) from `best_elsewhere` or `search_elsewhere`.
            patients: (n,).
            kind: what was asked with.
            fingerprint: of the encoder.
            alpha: share of queries of known kind that may be refused, in (0, 1).
            groups: (n,) class or organ of each query, "" where unknown; a patient may have several.
            seen: columns (n,) whose values a later query is compared with, such as scanner and site.
        """
        names = () if groups is None else sorted({str(group) for group in groups} - {""})
        cells = ((name, np.flatnonzero(np.asarray(groups, dtype=object) == name)) for name in names)
        columns = {} if seen is None else seen
        return cls(
            kind,
            fingerprint,
            alpha,
            Bests.of(best, patients),
            tuple((name, Bests.of(best[own], patients[own])) for name, own in cells),
            tuple((name, tuple(sorted({str(v) for v in columns[name]} - {""}))) for name in sorted(columns)),
        )

    def judge(self, score: float, group: str = "") -> Verdict:
        """Whether a query whose best similarity is `score` has no match.

        A class with enough patients is judged by its own (Mondrian), any other by all of them together: the error rate
        then holds for the archive's mix of classes, not within that class.

        Args:
            score: best similarity of the query, its own patient left out.
            group: its class or organ, if known.
        """
        basis, cell, notes = "", self.pooled, []
        need = fewest_patients(self.alpha)
        own = dict(self.groups).get(group)
        if own is not None and len(own) >= need:
            basis, cell = group, own
        elif group:
            n_own = len(own) if own is not None else 0
            notes.append(f"judged by all classes together: {group} has {n_own} of the {need} patients needed")
        threshold = cell.threshold(self.alpha)
        if threshold is None:
            notes.append(f"cannot be calibrated: {len(cell)} of the {need} patients needed at alpha {self.alpha:g}")
        is_refused = None if threshold is None else bool(score < threshold)
        return Verdict(is_refused, threshold, cell.p_value(score), basis, len(cell), "; ".join(notes))

    def local_ratio(self, score: float, patients: tuple[str, ...]) -> float:
        """s_1 / median(b of the five nearest patients): below 1 for what is further off than its neighbours are.

        A dense class hides novelty beside it from one threshold for all; this compares with the neighbourhood only.

        Args:
            score: s_1, best similarity of the query.
            patients: of its hits, best first, repetitions allowed; those not calibrated on are passed over.

        Returns:
            The ratio; NaN where no hit is of a known patient, or the median is not above 0.
        """
        known = dict(zip(self.pooled.patient, self.pooled.best, strict=True))
        nearest = [patient for patient in dict.fromkeys(patients) if patient in known][:N_NEAREST]
        middle = float(np.median([known[patient] for patient in nearest])) if nearest else math.nan
        return score / middle if middle > 0 else math.nan

    def strangers(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """What about a query was never calibrated on, one sentence a column: there the error rate is not promised."""
        seen = dict(self.seen)
        return tuple(
            f"{name} {value} is none of those calibrated on: {', '.join(seen[name]) or 'none known'}"
            for name, value in values.items()
            if value and name in seen and value not in seen[name]
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for the index's manifest."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "alpha": self.alpha,
            "pooled": dict(zip(self.pooled.patient, self.pooled.best, strict=True)),
            "groups": {name: dict(zip(cell.patient, cell.best, strict=True)) for name, cell in self.groups},
            "seen": {name: list(values) for name, values in self.seen},
        }

    @classmethod
    def of_json(cls, value: Mapping[str, Any]) -> "NoMatch":
        """What `to_json` gave.

        Raises:
            SearchError: another format, or fields are missing.
        """
        try:
            if value["format"] != FORMAT:
                raise SearchError(
                    f"the calibration has format {value['format']}, this version reads {FORMAT}",
                    "no-match calibration",
                    "Calibrate the index again.",
                )
            return cls(
                value["kind"],
                value["fingerprint"],
                float(value["alpha"]),
                _bests(value["pooled"]),
                tuple((name, _bests(cell)) for name, cell in sorted(value["groups"].items())),
                tuple((name, tuple(values)) for name, values in sorted(value["seen"].items())),
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SearchError(
                f"the calibration cannot be read ({error!r})", "no-match calibration", "Calibrate the index again."
            ) from error


def is_stale(n_changed: int, n: int) -> bool:
    """Whether more than a tenth of the n patients calibrated on were added, removed or changed since."""
    return 10 * n_changed > n


def draw_queries(patients: np.ndarray, *, groups: np.ndarray | None = None, each: int = 1, seed: int = 0) -> np.ndarray:
    """Rows to calibrate with: `each` of every patient (and class), by a stream of that patient's name.

    With one a patient the error rate holds for a single query of a new patient: in simulation 9.5 % of such tiles were
    refused at alpha .1. With more, `Bests` takes their median, and the rate holds for the median of as many queries:
    single tiles were refused in 22 % of cases after medians of eight.

    Args:
        patients: (n,) whose row it is: tiles, centres of regions or slides, in the archive's order.
        groups: (n,) class of each row, to draw of every class that a patient has.
        each: rows of a patient (and class); those with fewer give all.
        seed: of the draws.

    Returns:
        (m,) int64, ascending.
    """
    _check_named(patients)
    if each < 1:
        raise ValueError(f"each must be >= 1, got {each}")
    own: dict[tuple[str, str], list[int]] = defaultdict(list)
    of_row = np.full(len(patients), "", dtype=object) if groups is None else groups
    for row, (patient, group) in enumerate(zip(patients, of_row, strict=True)):
        own[str(patient), str(group)].append(row)
    drawn = [
        stream(seed, "no-match", *key).choice(rows, min(each, len(rows)), replace=False) for key, rows in own.items()
    ]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *drawn]))


def best_elsewhere(similarity: np.ndarray, query_patients: np.ndarray, database_patients: np.ndarray) -> np.ndarray:
    """(Q,) float64 best similarity of each query to rows of other patients, NaN where there are none.

    Args:
        similarity: (Q, N) of queries and archive rows: tiles, or slides by any strategy.
        query_patients: (Q,).
        database_patients: (N,).
    """
    _check_named(query_patients)
    names = np.concatenate([query_patients, database_patients]).astype(str)
    unit = np.unique(names, return_inverse=True)[1]  # texts of (Q, N) pairs would be compared one by one
    is_other = unit[: len(query_patients), None] != unit[len(query_patients) :]
    best = np.where(is_other, similarity, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(is_other.any(axis=1), best, np.nan)


def search_elsewhere(search: Search, query_patients: np.ndarray) -> np.ndarray:
    """(Q,) float64 best similarity of each query to other patients, asked of an index: one call a patient.

    Args:
        search: answers for some of the queries with one patient left out. What a query is (a tile, a region's weighted
            bag, a slide) and how it is scored is known to it alone, and must be what later queries are judged by.
        query_patients: (Q,).
    """
    _check_named(query_patients)
    best = np.full(len(query_patients), np.nan)
    own: dict[str, list[int]] = defaultdict(list)
    for row, patient in enumerate(query_patients):
        own[str(patient)].append(row)
    for patient, rows in own.items():
        best[rows] = search(np.array(rows), patient)
    return best


def _bests(value: Mapping[str, float]) -> Bests:
    names = tuple(sorted(value))
    return Bests(names, tuple(float(value[name]) for name in names))


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")


def _check_named(patients: np.ndarray) -> None:
    """Rows of unknown patients would all pass for one patient, and leave each other out."""
    if any(not patient for patient in patients):
        raise ValueError("a row has no patient: name it by its slide")
