"""Preserved-site folds: whole sites held out, with as like numbers of every class as sites allow.

Sites leave their mark in stain and scanner; where a site also predicts the class, folds that mix sites measure the
mark (Howard et al. 2021, Nature Communications 12:4423).
"""

import math
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.splits.making import Grouped, check_classes, column_of, joined_units, with_missing
from histokin.evaluate.splits.table import SplitItems, SplitTable, coded, listed
from histokin.streams import stream

_WHERE = "split"
_N_STARTS = 500  # 0.4 s for 20 to 60 sites; 2000 starts found better folds for 3 of 16 such tables
_SHARE_OF_LOCAL = 0.5  # of the seconds, where the starts take so long


@dataclass(frozen=True, slots=True)
class SiteFolds:
    """Sites put into folds.

    Attributes:
        fold: (S,) int64 fold of each site, 0..K-1, numbered as they first occur; none is empty.
        counts: (K, C) int64 patients of each class in each fold.
        objective: sum_f sum_c (K n_fc - N_c)^2, what was minimised.
        bound: no assignment of single patients, let alone sites, can be better.
        found_by: local search or milp.
        is_timed_out: the limit ended a search, so another machine may find other folds.
    """

    fold: np.ndarray
    counts: np.ndarray
    objective: int
    bound: int
    found_by: Literal["local", "milp"]
    is_timed_out: bool


def preserved_sites(counts: np.ndarray, n_folds: int, *, seed: int = 0, seconds: float = 15.0) -> SiteFolds:
    """Put whole sites into folds so that each class is spread evenly.

    With K folds, n_sc patients of class c at site s, N_c of them in all and g_fs whether site s is in fold f, minimises
    (Howard et al. 2021, who solve it with CPLEX)

        sum_f sum_c (K sum_s g_fs n_sc - N_c)^2,   sum_f g_fs = 1 for every s.

    Two heuristics, neither of which dominates: local search by moves and swaps from many random starts, and the L1
    form as a mixed-integer linear programme (HiGHS), whose answer the same local search polishes; the lower squared
    objective is kept. Where the local search reaches the bound, the programme is not needed.

    Args:
        counts: (S, C) whole numbers >= 0.
        n_folds: K, 2 <= K <= S.
        seed: of the random starts.
        seconds: for both, of processor time for the local search (a busy machine finds the same) and by the clock for
            the programme. 500 starts rarely need them, the programme of a large table always does.

    Raises:
        EvaluationError: fewer sites than folds.
        ValueError: counts that are no table of whole numbers, n_folds < 2 or no time.
    """
    table = np.asarray(counts)
    if table.ndim != 2 or not table.size or (table < 0).any() or (table != np.floor(table)).any():
        raise ValueError(f"counts must be an (S, C) table of whole numbers >= 0, got shape {table.shape}")
    if n_folds < 2 or seconds <= 0:
        raise ValueError(f"need n_folds >= 2 and seconds > 0, got {n_folds}, {seconds}")
    if len(table) < n_folds:
        raise EvaluationError(f"{len(table)} sites cannot fill {n_folds} folds", _WHERE, "Ask for fewer folds.")
    started = time.process_time()
    problem = _Problem(table.astype(np.float64), n_folds)
    fold, is_timed_out = _searched(problem, seed, started + _SHARE_OF_LOCAL * seconds)
    best, found_by = problem.objective(fold), "local"
    if best > problem.bound:
        programmed, is_cut = _programmed(problem, max(0.1, started + seconds - time.process_time()))
        is_timed_out = is_timed_out or is_cut
        if programmed is not None:
            polished = _descended(problem, programmed)
            if problem.objective(polished) < best:
                fold, best, found_by = polished, problem.objective(polished), "milp"
    fold = _numbered(_filled(problem, fold))
    spread = np.zeros((n_folds, table.shape[1]), dtype=np.int64)
    np.add.at(spread, fold, table.astype(np.int64))
    return SiteFolds(fold, spread, problem.objective(fold), problem.bound, found_by, is_timed_out)


def preserved_site_folds(
    items: SplitItems,
    n_folds: int = 3,
    *,
    seed: int = 0,
    seconds: float = 15.0,
    allow_missing_class: bool = False,
) -> tuple[SplitTable, SiteFolds]:
    """The split of `preserved_sites`: patients (groups) counted by majority class, ties to the highest.

    Args:
        items: labelled, all with a site; for TCGA the tissue source site code.
        n_folds: K >= 2.
        seed, seconds: as in `preserved_sites`.
        allow_missing_class: accept a class with patients at fewer sites than folds.

    Returns:
        The table (test part = the fold's sites), and the sites' folds in the order of their sorted names; sites that
        show one picture are one, under the first of their names.

    Raises:
        EvaluationError: items without label or site, a patient at two sites, fewer sites than folds, or a class at
            fewer sites than folds.
    """
    grouped = Grouped.of(items)
    names, site = coded(column_of(items, "site"))
    site_of = np.full(len(grouped.names), -1)
    site_of[grouped.codes] = site
    wandering = np.unique(grouped.codes[site_of[grouped.codes] != site])
    if len(wandering):
        raise EvaluationError(
            f"{len(wandering)} patients have slides at two sites: {listed([grouped.names[g] for g in wandering])}",
            _WHERE,
            "Name one site a patient, or give both sites one name.",
        )
    counts = np.zeros((len(names), len(grouped.classes)), dtype=np.int64)
    np.add.at(counts, (site_of, grouped.label), 1)
    if len(names) >= n_folds:
        n_sites = (counts > 0).sum(axis=0)
        purpose = f"{n_folds} site-preserving folds"
        check_classes(grouped.classes, n_sites, n_folds, "sites", purpose, is_allowed=allow_missing_class)
    found = preserved_sites(counts, n_folds, seed=seed, seconds=seconds)
    parts = {(0, fold): np.where(found.fold[site] == fold, "test", "train").astype(object) for fold in range(n_folds)}
    ended = ("the search for folds was ended by its time limit: another run may find others",) * found.is_timed_out
    warnings = (*joined_units(items, "site"), *ended)
    kind = f"site-preserving {n_folds}-fold (objective {found.objective}, bound {found.bound})"
    return with_missing(SplitTable.of_parts(items, parts, unit="site", kind=kind, warnings=warnings)), found


class _Problem:
    """Counts with what the search needs of them; all sums are whole numbers below 2^53, exact in float64."""

    def __init__(self, counts: np.ndarray, n_folds: int) -> None:
        self.counts, self.n_folds = counts, n_folds
        self.total = counts.sum(axis=0)
        self.products = counts @ counts.T
        left = self.total % n_folds
        self.bound = int((left * (n_folds - left) * n_folds).sum())  # N_c in K parts as equal as whole numbers are

    def excess(self, fold: np.ndarray) -> np.ndarray:
        """(K, C) K n_fc - N_c."""
        spread = np.zeros((self.n_folds, len(self.total)))
        np.add.at(spread, fold, self.counts)
        return self.n_folds * spread - self.total

    def objective(self, fold: np.ndarray) -> int:
        return int((self.excess(fold) ** 2).sum())


def _searched(problem: _Problem, seed: int, deadline: float) -> tuple[np.ndarray, bool]:
    """The best of many descents, and whether the deadline, in processor time, ended them."""
    best, least = np.zeros(0, dtype=np.int64), math.inf
    for start in range(_N_STARTS):
        rng = stream(seed, "preserved-sites", start)
        fold = _descended(problem, rng.integers(0, problem.n_folds, len(problem.counts)))
        if problem.objective(fold) < least:
            best, least = fold, problem.objective(fold)
        if least <= problem.bound:
            break
        if time.process_time() > deadline:
            return best, True
    return best, False


def _descended(problem: _Problem, start: np.ndarray) -> np.ndarray:
    """Take the best move of a site or swap of two until none lowers the objective.

    With F = K n - N of the folds, site s going from a to b changes it by 2 K n_s . (F_b - F_a) + 2 K^2 |n_s|^2; sites
    s of a and t of b changing places by 2 K d . (F_a - F_b) + 2 K^2 |d|^2 with d = n_t - n_s. For a = b both are >= 0,
    so staying is never taken for a step.
    """
    counts, k = problem.counts, problem.n_folds
    fold = start.copy()
    everyone, squares = np.arange(len(counts)), np.diag(problem.products)
    distances = squares[:, None] + squares - 2 * problem.products
    while True:
        meets = counts @ problem.excess(fold).T  # (S, K) n_s . F_f
        own = meets[everyone, fold]
        move = 2 * k * (meets - own[:, None]) + 2 * k * k * squares[:, None]
        across = meets[:, fold]
        swap = 2 * k * (across + across.T - own[:, None] - own) + 2 * k * k * distances
        at_move, at_swap = int(move.argmin()), int(swap.argmin())
        if min(move.flat[at_move], swap.flat[at_swap]) >= 0:
            return fold
        if move.flat[at_move] <= swap.flat[at_swap]:
            site, to = divmod(at_move, k)
            fold[site] = to
        else:
            first, second = divmod(at_swap, len(counts))
            fold[first], fold[second] = fold[second], fold[first]


def _programmed(problem: _Problem, seconds: float) -> tuple[np.ndarray | None, bool]:
    """Minimise sum_f sum_c |K n_fc - N_c| with HiGHS: the folds, None if none were found, and whether time ran out.

    The differences of a class add up to 0 over the folds, so those below 0 are half of the sum and stand for it.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, hstack, kron, vstack

    (n_sites, n_classes), k = problem.counts.shape, problem.n_folds
    n_places, n_sums = n_sites * k, k * n_classes  # site s in fold f at s K + f; lack of class c in f at c K + f
    once = hstack([kron(csr_array(np.eye(n_sites)), np.ones((1, k))), csr_array((n_sites, n_sums))])
    enough = hstack([kron(csr_array(k * problem.counts.T), np.eye(k)), csr_array(np.eye(n_sums))])
    least = np.concatenate([np.ones(n_sites), np.repeat(problem.total, k)])
    most = np.concatenate([np.ones(n_sites), np.full(n_sums, np.inf)])
    largest = np.concatenate([np.ones(n_places), np.full(n_sums, np.inf)])
    first = int(np.diag(problem.products).argmax())
    largest[first * k + 1 : (first + 1) * k] = 0  # folds have no names: the largest site goes into the first
    rules = vstack([once, enough])
    answer = milp(
        np.concatenate([np.zeros(n_places), np.ones(n_sums)]),
        integrality=np.concatenate([np.ones(n_places), np.zeros(n_sums)]),
        bounds=Bounds(0, largest),  # pyright: ignore[reportArgumentType] - its stub knows no arrays
        constraints=LinearConstraint(rules, least, most),  # pyright: ignore[reportArgumentType] - neither
        options={"time_limit": seconds},
    )
    folds = None if answer.x is None else answer.x[:n_places].reshape(n_sites, k).argmax(axis=1)
    return folds, answer.status == 1


def _filled(problem: _Problem, fold: np.ndarray) -> np.ndarray:
    """The same with no fold empty, at no cost.

    Moving site s into an empty fold changes the objective by -2 K^2 n_s . (all other sites of its fold), so the search
    leaves a fold empty only where sites have no class in common.
    """
    filled = fold.copy()
    for empty in np.flatnonzero(np.bincount(fold, minlength=problem.n_folds) == 0):
        is_shared = np.bincount(filled, minlength=problem.n_folds)[filled] > 1
        filled[np.flatnonzero(is_shared)[0]] = empty
    return filled


def _numbered(fold: np.ndarray) -> np.ndarray:
    """Folds numbered in the order in which they first occur."""
    names, first, codes = np.unique(fold, return_index=True, return_inverse=True)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(names))
    return rank[codes]
