"""Robustness index: whether a tile's neighbours share its class or its centre, and how many neighbours to look at."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.comparison import Score, score_interval
from histokin.evaluate.intervals import Interval, patient_weights, ratio
from histokin.evaluate.items import Items, Task, is_missing, make_task, text_codes
from histokin.evaluate.protocol import MAX_QUERIES
from histokin.evaluate.vectors import nearest_allowed
from histokin.search.votes import VoteRule, votes

K_GRID = (1, 3, 5, 7, 9, *range(11, 102, 10))
"""PathoROB's steps, which go on to 600 or 1200 there; its data sets end at 11, 46 and 61."""
ASSOCIATED = 0.3
"""Cramer's V from which class and centre are said to go together."""
METRIC = "robustness_index"
_WHERE = "robustness"

Column = Sequence[Any] | np.ndarray


@dataclass(frozen=True, slots=True)
class Robustness:
    """How far neighbours share the class and not the centre.

    Attributes:
        value: SO / (SO + OS), from 0 (neighbours follow the centre) to 1 (the class); NaN where there are neither.
        interval: patient bootstrap over the queries.
        null: what labels that have nothing to do with the features give; not 0.5 unless the cohort makes it so.
        k: neighbours a query.
        n_queries: tiles asked.
        n_patients: they belong to.
        shares: of all neighbours counted: SO same class and other centre, OS other class and same centre, SS both the
            same, OO neither.
        association: Cramer's V of class and centre over all tiles with both.
        leave_out: whose tiles are no neighbours: the query's patient's or slide's.
        warning: what a reader must see beside the value, "" if nothing.
    """

    value: float
    interval: Interval
    null: float
    k: int
    n_queries: int
    n_patients: int
    shares: dict[str, float]
    association: float
    leave_out: str
    warning: str


def robustness_index(
    features: np.ndarray,
    classes: Column,
    centres: Column,
    patients: Column,
    slides: Column,
    k: int,
    *,
    leave_out: Literal["patient", "slide"] = "patient",
    max_queries: int = MAX_QUERIES,
    seed: int = 0,
) -> Robustness:
    """Of the neighbours that share either class or centre with the query, the share that has the class (PathoROB).

        RI(k) = sum SO / (sum SO + sum OS)   over the k nearest of all queries, by cosine

    (on unit vectors the order of Euclidean distances). Neighbours that share both or neither say nothing and are
    ignored. Tiles of the query's patient are taken out before ranking, so that every query has k neighbours if so many
    are allowed; PathoROB takes out the slide alone, after ranking, and cuts all lists to the shortest. Its bootstrap
    draws tiles; this one draws patients with all their queries, the tiles that answer staying as they are.

    The null value is the ratio of what random allowed neighbours give on average, exactly, from the counts of allowed
    tiles: it moves with the number of classes and centres and with which class came from where. With patients of one
    class or one centre each, leaving the patient out moves it too.

    Args:
        features: (N, d) floating, ranked by cosine.
        classes: (N,) biological class; None, "" or NaN where unknown.
        centres: (N,) where it was prepared; the same. Tiles that lack either are left out, and counted in the warning.
        patients: (N,) ids.
        slides: (N,) ids.
        k: neighbours; all allowed tiles where there are fewer. See `choose_k`.
        leave_out: `patient`, or `slide` for parity with PathoROB.
        max_queries: more are sampled equally per patient; all tiles may answer.
        seed: of query sampling and bootstrap.

    Returns:
        `Robustness`.

    Raises:
        EvaluationError: there is one class, one centre or one patient (slide) only, or ids are missing.
        StoreError: a vector is zero or not finite; names its row among the tiles with class and centre.
        ValueError: lengths differ or k < 1.
    """
    _check_rows(features, slides)
    asked = placed_task(classes, centres, patients, slides, leave_out=leave_out, max_queries=max_queries, seed=seed)
    task = asked.task
    kinds = asked.kinds(nearest_allowed("features", features, task, k).ids)
    score = asked.score(kinds)
    return Robustness(
        value=score.value(task.n_clusters),
        interval=score_interval(score, patient_weights(task.n_clusters, seed=seed), cluster=task.cluster),
        null=asked.null(k),
        k=k,
        n_queries=len(task.queries),
        n_patients=asked.n_patients,
        shares=shares_of(kinds),
        association=asked.association,
        leave_out=leave_out,
        warning=" ".join(asked.warnings(k)),
    )


@dataclass(frozen=True, slots=True)
class ChosenK:
    """A number of neighbours, and what it was chosen by.

    Attributes:
        k: of the best balanced accuracy; the smallest of several.
        balanced_accuracy: by k, of the plurality vote.
    """

    k: int
    balanced_accuracy: dict[int, float]


def choose_k(
    features: np.ndarray,
    classes: Column,
    patients: Column,
    slides: Column,
    *,
    leave_out: Literal["patient", "slide"] = "patient",
    grid: Sequence[int] = K_GRID,
    rule: VoteRule = "rank",
    max_queries: int = MAX_QUERIES,
    seed: int = 0,
) -> ChosenK:
    """The k at which neighbours tell the class best: mean recall over classes, under the index's own exclusion.

    To compare encoders, take one k for all: PathoROB takes the median over encoders of what each would choose.

    Args:
        features, classes, patients, slides, leave_out, max_queries, seed: as in `robustness_index`.
        grid: tried, as far as every query has so many allowed tiles.
        rule: of the vote; PathoROB's is `smallest`.

    Returns:
        `ChosenK`.

    Raises:
        EvaluationError: as `robustness_index`, or no k of the grid can be tried.
        StoreError: a vector is zero or not finite.
        ValueError: lengths differ or a k is below 1.
    """
    _check_rows(features, slides)
    task = _task(Items.of(classes, patients, slides), leave_out, max_queries, seed)
    tried = possible_ks(task, grid)
    return chosen_k([nearest_allowed("features", features, task, tried[-1]).ids], task, tried, rule=rule)


def possible_ks(task: Task, grid: Sequence[int] = K_GRID) -> list[int]:
    """The numbers of a grid, ascending, that every query has so many allowed tiles for.

    Raises:
        EvaluationError: there is none.
    """
    most = int(task.allowed_counts().sum(axis=1).min())
    tried = sorted({k for k in grid if k <= most})
    if not tried:
        raise EvaluationError(
            f"no number of neighbours in {sorted(grid)} can be tried: some tile has only {most} that may answer",
            _WHERE,
            "Try smaller numbers, or add patients.",
        )
    return tried


def chosen_k(members: Sequence[np.ndarray], task: Task, tried: Sequence[int], *, rule: VoteRule = "rank") -> ChosenK:
    """The best of some k for what was found already.

    Args:
        members: (Q, K >= the largest k) places among the task's rows; of several the mean balanced accuracy counts.
        task: of classes.
        tried: ascending.
        rule: of the vote.
    """
    recalls = {
        k: float(np.mean([_mean_recall(votes(task.codes[ids[:, :k]], rule=rule), task.truth) for ids in members]))
        for k in tried
    }
    return ChosenK(max(recalls, key=lambda k: round(recalls[k], 12)), recalls)  # of equals the first, the smallest


@dataclass(frozen=True, slots=True)
class PlacedTask:
    """Which tiles ask and answer and where each was prepared: the same for every set of features.

    Attributes:
        task: of the tiles with class and centre; N of them.
        centre: (N,) int64 codes.
        association: Cramer's V of class and centre.
    """

    task: Task
    centre: np.ndarray
    association: float

    @property
    def n_patients(self) -> int:
        """That are asked."""
        return len(np.unique(self.task.patients[self.task.queries]))

    def kinds(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """(Q,) numbers of SO, OS, SS and OO among (Q, k) neighbours, -1 past the end of a list."""
        task, is_found = self.task, ids >= 0
        is_class = (task.codes[ids] == task.truth[:, None]) & is_found
        is_centre = (self.centre[ids] == self.centre[task.queries][:, None]) & is_found
        both = (is_class & is_centre).sum(axis=1)
        class_alone, centre_alone = is_class.sum(axis=1) - both, is_centre.sum(axis=1) - both
        neither = is_found.sum(axis=1) - class_alone - centre_alone - both
        return {"SO": class_alone, "OS": centre_alone, "SS": both, "OO": neither}

    def score(self, kinds: Mapping[str, np.ndarray]) -> Score:
        """The index as a function of cluster weights."""
        shared = kinds["SO"], kinds["SO"] + kinds["OS"]
        return Score(METRIC, ratio(*(np.bincount(self.task.clusters, weights=one) for one in shared)))

    def null(self, k: int) -> float:
        """Expected SO over expected SO + OS where each query draws min(k, n) of its n allowed tiles by lot."""
        task, centre = self.task, self.centre
        n_allowed = _allowed(np.zeros_like(centre), task)
        both = _allowed(task.codes * (centre.max() + 1) + centre, task)
        other_centre, other_class = _allowed(task.codes, task) - both, _allowed(centre, task) - both
        drawn = np.minimum(k, n_allowed) / np.maximum(n_allowed, 1)
        below = float((drawn * (other_centre + other_class)).sum())
        return float((drawn * other_centre).sum()) / below if below > 0 else math.nan

    def warnings(self, k: int) -> tuple[str, ...]:
        """What a reader must be told of the cohort."""
        said = confounded(self.association, f"the null value of {self.null(k):.3f} is what to compare with")
        if self.task.n_unlabelled:
            said.append(f"{self.task.n_unlabelled} tiles without class or centre are left out.")
        is_short = self.task.allowed_counts().sum(axis=1) < k
        if is_short.any():
            said.append(f"{is_short.sum()} of {len(is_short)} queries have fewer than {k} tiles that may answer.")
        return tuple(said)


def placed_task(
    classes: Column,
    centres: Column,
    patients: Column,
    slides: Column,
    *,
    leave_out: Literal["patient", "slide"],
    max_queries: int,
    seed: int,
) -> PlacedTask:
    """Fix what `robustness_index` asks; its arguments and its errors."""
    known = [None if is_missing(where) else what for what, where in zip(classes, centres, strict=True)]
    items = Items.of(known, patients, slides, centres)
    task = _task(items, leave_out, max_queries, seed)
    centre = coded(items.site, task.rows, "centre")
    return PlacedTask(task, centre, cramers_v(task.codes, centre))


def shares_of(kinds: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The share of each kind among all neighbours counted."""
    n_found = sum(int(one.sum()) for one in kinds.values())
    return {name: float(one.sum() / n_found) for name, one in kinds.items()}


def _check_rows(features: np.ndarray, slides: Column) -> None:
    if len(features) != len(slides):
        raise ValueError(f"{len(features)} rows of features for {len(slides)} tiles")


def _task(items: Items, leave_out: Literal["patient", "slide"], max_queries: int, seed: int) -> Task:
    """The items' task, refused where the index cannot mean anything."""
    if leave_out not in ("patient", "slide"):  # without the centre nothing is of the same centre
        raise ValueError(f"leave_out must be patient or slide, got {leave_out!r}")
    task = make_task(items, leave_out=leave_out, max_queries=max_queries, seed=seed)
    _check_several(task.classes, "class")
    return task


def _allowed(codes: np.ndarray, task: Task) -> np.ndarray:
    """(Q,) how many tiles with the query's own code may answer it."""
    names, pair = np.unique(codes * (task.groups.max() + 1) + task.groups, return_inverse=True)
    n_inside = np.bincount(pair[task.answering], minlength=len(names))
    n_all = np.bincount(codes[task.answering], minlength=int(codes.max()) + 1)
    return (n_all[codes] - n_inside[pair])[task.queries]


def cramers_v(classes: np.ndarray, centres: np.ndarray) -> float:
    """Cramer's V of two columns of codes 0, 1, .. that each occur: 0 independent, 1 the one tells the other."""
    from scipy.stats.contingency import association

    table = np.zeros((int(classes.max()) + 1, int(centres.max()) + 1), dtype=np.int64)
    np.add.at(table, (classes, centres), 1)
    return float(association(table, method="cramer"))


def confounded(association: float, so: str) -> list[str]:
    """The warning that class and centre go together, and what follows; none up to `ASSOCIATED`."""
    if association <= ASSOCIATED:
        return []
    together = f"Class and centre go together in this cohort (Cramer's V {association:.2f})"
    return [f"{together}, so the figure is also one of how the cohort was put together: {so}."]


def _mean_recall(said: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean([(said[truth == code] == code).mean() for code in np.unique(truth)]))


def coded(column: Column, rows: np.ndarray, word: str) -> np.ndarray:
    """(n,) int64 codes of some rows of a column, refused where they are all of one value."""
    names, codes = text_codes(column[row] for row in rows)
    _check_several(names, word)
    return codes


def _check_several(names: Sequence[str], word: str) -> None:
    if len(names) < 2:
        what = f"all tiles are of one {word} ({names[0]})" if names else f"no tile has a {word}"
        raise EvaluationError(
            f"{what}: whether they follow the class or the centre cannot be told",
            _WHERE,
            f"Add tiles of another {word}, or name another column.",
        )
