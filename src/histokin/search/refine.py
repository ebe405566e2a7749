"""Asking again: a query moved towards what was marked as meant, or along a concept.

A query is one vector (d,) or a bag of them (n, d): each tile of a bag is moved by itself, its weight stays.
"""

from dataclasses import dataclass

import numpy as np

from histokin.errors import SearchError
from histokin.search.exact import row_norms
from histokin.streams import stream

BETA, GAMMA = 0.75, 0.25
"""Rocchio's weights of what is pinned and what is rejected."""
FEWEST_MARKS = 5
"""Of each kind, for a logistic regression."""
SHOWN_FROM = 0.7
"""A concept's held-out AUC below which it is hidden."""
N_FOLDS = 5


def rocchio(
    query: np.ndarray,
    pins: np.ndarray | None = None,
    rejected: np.ndarray | None = None,
    *,
    beta: float = BETA,
    gamma: float = GAMMA,
) -> np.ndarray:
    """Move a query towards pinned hits and away from rejected ones (Rocchio 1971).

        q' = unit(q + beta mean(pins) - gamma mean(rejected))

    Args:
        query: (d,) or (n, d) floating, any scale.
        pins: (p, d) vectors of hits to keep; None or no rows: none.
        rejected: (r, d) likewise.
        beta: weight of the pins, the query weighing 1.
        gamma: weight of the rejected.

    Returns:
        Unit float64 of the query's shape.

    Raises:
        SearchError: the marks cancel the query.
        StoreError: a vector is zero or not finite.
    """
    pinned, refused = _unit(pins, "pinned"), _unit(rejected, "rejected")
    shift = np.zeros(query.shape[-1])
    if len(pinned):
        shift = shift + beta * pinned.mean(axis=0)
    if len(refused):
        shift = shift - gamma * refused.mean(axis=0)
    return _moved(query, shift)


def learn_from_marks(
    query: np.ndarray, pins: np.ndarray, rejected: np.ndarray, *, strength: float = 1.0, c: float = 1.0
) -> np.ndarray:
    """Move a query along the direction that best tells pinned from rejected hits.

        q' = unit(q + strength v),  v the unit weights of an L2 logistic regression, the two kinds weighing the same

    Unlike `rocchio` this follows only what differs between the two; what they share is left to the query.

    Args:
        query: (d,) or (n, d) floating, any scale.
        pins: (p >= 5, d).
        rejected: (r >= 5, d).
        strength: of the direction, the query weighing 1.
        c: inverse weight of the penalty, as in scikit-learn.

    Returns:
        Unit float64 of the query's shape.

    Raises:
        SearchError: fewer than five marks of a kind, both kinds are the same, or the marks cancel the query.
        StoreError: a vector is zero or not finite.
    """
    from sklearn.linear_model import LogisticRegression

    pinned, refused = _unit(pins, "pinned"), _unit(rejected, "rejected")
    if min(len(pinned), len(refused)) < FEWEST_MARKS:
        raise SearchError(
            f"{len(pinned)} hits are pinned and {len(refused)} rejected",
            "refining",
            f"Mark at least {FEWEST_MARKS} of each, or refine by the mean of the marks.",
        )
    kind = np.repeat([1, 0], [len(pinned), len(refused)])
    model = LogisticRegression(C=c, class_weight="balanced", max_iter=1000).fit(np.concatenate([pinned, refused]), kind)
    return _moved(query, strength * _direction(model.coef_[0], "the pinned and the rejected hits are the same"))


@dataclass(frozen=True, slots=True)
class Concept:
    """A direction that tells tiles with a property from those without.

    Attributes:
        direction: (d,) float64 unit.
        auc: of patients that the direction was not learned from.
        n_with, n_without: tiles learned from.
        n_patients: that they are of.
    """

    direction: np.ndarray
    auc: float
    n_with: int
    n_without: int
    n_patients: int

    @property
    def is_shown(self) -> bool:
        """Whether the direction holds for other patients well enough to be offered."""
        return self.auc >= SHOWN_FROM


def learn_concept(
    vectors: np.ndarray, has: np.ndarray, patients: np.ndarray, *, n_folds: int = N_FOLDS, seed: int = 0
) -> Concept:
    """The direction from the mean of the tiles without a property to the mean of those with it, judged by patient.

    Each tile is scored by the direction learned without its patients' fold, from the middle between that fold's means.
    A direction that only tells patients apart gets an AUC near .5 by this, whatever it gets on its own tiles.

    Args:
        vectors: (n, d) floating, any scale.
        has: (n,) bool.
        patients: (n,); tiles of unknown patients need a name by their slide.
        n_folds: at most; patients are dealt to them by their share of the property, then by lot.
        seed: of the lot.

    Raises:
        SearchError: tiles with or without the property are of one patient only, or their means are equal.
        StoreError: a vector is zero or not finite.
    """
    from sklearn.metrics import roc_auc_score

    x, has = _unit(vectors, "tile"), np.asarray(has, dtype=bool)
    names, patient = np.unique(np.asarray(patients, dtype=str), return_inverse=True)
    if not len(x) == len(has) == len(patient) or "" in names:
        raise ValueError(f"need a mark and a patient's name for each of {len(x)} tiles")
    for kind, own in (("with", has), ("without", ~has)):
        n_own = len(np.unique(patient[own]))
        if n_own < 2:
            raise SearchError(
                f"the tiles {kind} the property are of {n_own} patients",
                "concept",
                "Mark tiles of at least two patients, so that it can be judged on one it was not learned from.",
            )
    fold = _deal(names, np.bincount(patient, weights=has) / np.bincount(patient), n_folds, seed)[patient]
    score = np.empty(len(x))
    for held in range(int(fold.max()) + 1):
        is_held = fold == held
        with_it, without = x[~is_held & has].mean(axis=0), x[~is_held & ~has].mean(axis=0)
        score[is_held] = (x[is_held] - (with_it + without) / 2) @ _difference(with_it, without)
    direction = _difference(x[has].mean(axis=0), x[~has].mean(axis=0))
    return Concept(direction, float(roc_auc_score(has, score)), int(has.sum()), int((~has).sum()), len(names))


def along(query: np.ndarray, concept: Concept, t: float) -> np.ndarray:
    """Move a query along a concept: q' = unit(q + t v).

    Args:
        query: (d,) or (n, d) floating, any scale.
        concept: one that is shown.
        t: from -1 (less of it) to 1 (more of it); 0 leaves the query as it is.

    Returns:
        Unit float64 of the query's shape.

    Raises:
        SearchError: the concept's held-out AUC is too low, or the move cancels the query.
        StoreError: the query is zero or not finite.
    """
    if not -1 <= t <= 1:
        raise ValueError(f"t must lie between -1 and 1, got {t}")
    if not concept.is_shown:
        raise SearchError(
            f"its AUC on patients that it was not learned from is {concept.auc:.2f}, {SHOWN_FROM:g} is needed",
            "concept",
            "Mark more tiles, of more patients.",
        )
    return _moved(query, t * concept.direction)


def _deal(names: np.ndarray, share: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """(P,) fold of each patient: those next to each other in their share of the property lie in different folds."""
    lot = np.array([stream(seed, "concept", name).random() for name in names.tolist()])
    fold = np.empty(len(names), dtype=np.int64)
    fold[np.lexsort((lot, share))] = np.arange(len(names)) % min(max(n_folds, 2), len(names))
    return fold


def _difference(with_it: np.ndarray, without: np.ndarray) -> np.ndarray:
    return _direction(with_it - without, "tiles with and without the property have the same mean")


def _direction(v: np.ndarray, what: str) -> np.ndarray:
    """The unit vector along v."""
    length = np.sqrt((v**2).sum())
    if not length > 1e-9:
        raise SearchError(what, "refining", "Mark hits that differ.")
    return v / length


def _unit(vectors: np.ndarray | None, what: str) -> np.ndarray:
    """(n, d) float64 unit rows."""
    if vectors is None:
        return np.empty((0, 0))
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    return rows / row_norms(rows, "cosine", what)[:, None]


def _moved(query: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Each unit vector of the query plus the shift, as unit vectors."""
    moved = _unit(query, "query") + shift
    length = np.sqrt((moved**2).sum(axis=1))
    if (length < 1e-9).any():
        raise SearchError("the marks cancel the query", "refining", "Reject fewer hits, or pin some.")
    return (moved / length[:, None]).reshape(query.shape)
