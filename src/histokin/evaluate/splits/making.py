"""Making splits: grouped stratified folds, Monte-Carlo repeats, leave-one-out, and inner folds for what is chosen.

All depend on seed and ids alone, never on the order of the items. Whatever is held out, slides of one picture under
several names fall into one part: the patients, slides or sites that show it count as one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.probes.folds import grouped_folds
from histokin.evaluate.splits.table import (
    SplitItems,
    SplitTable,
    Unit,
    coded,
    joined_by_pictures,
    listed,
    missing_classes,
    ordered_classes,
)
from histokin.streams import stream

_WHERE = "split"


@dataclass(frozen=True, slots=True)
class NestedSplit:
    """Outer folds that judge and inner folds that choose.

    Attributes:
        outer: train and test.
        inner: for each fold of `outer.folds`, in their order, the items outside its test part as train and val. C, k,
            temperature, epoch and threshold are chosen on these alone.
    """

    outer: SplitTable
    inner: tuple[SplitTable, ...]

    def inner_of(self, repeat: int, fold: int) -> SplitTable:
        """The inner folds of an outer one.

        Raises:
            ValueError: there is no such fold.
        """
        return self.inner[self.outer.folds.index((repeat, fold))]


def stratified_folds(
    items: SplitItems,
    n_folds: int = 5,
    *,
    repeat: int = 0,
    val_share: float = 0.0,
    allow_missing_class: bool = False,
) -> SplitTable:
    """K folds of whole patients with like shares of every class: each item is tested once (the default split).

    The greedy rule of scikit-learn's `StratifiedGroupKFold`, as in `probes.grouped_folds`.

    Args:
        items: labelled.
        n_folds: K >= 2.
        repeat: 0 takes the groups in the order of their names, others shuffle them first; it is the table's `repeat`.
        val_share: share of the patients outside the test part that become its validation part, class by class.
        allow_missing_class: accept a class with fewer patients than folds; what it lacks is said in `warnings`.

    Raises:
        EvaluationError: items without label, fewer groups than folds, or a class with fewer patients than folds.
        ValueError: n_folds < 2, repeat < 0 or a share outside [0, 1).
    """
    if n_folds < 2 or repeat < 0:
        raise ValueError(f"need n_folds >= 2 and repeat >= 0, got {n_folds}, {repeat}")
    _check_share("val_share", val_share)
    grouped = Grouped.of(items)
    fold_of = grouped.folds(n_folds, repeat=repeat, allow_missing_class=allow_missing_class)
    parts = {}
    n_made = int(fold_of.max()) + 1
    for fold in range(n_made):
        is_test = np.zeros(len(grouped.names), dtype=bool)
        is_test[grouped.codes[fold_of == fold]] = True
        is_val = grouped.drawn(val_share, ~is_test, seed=repeat, names=("folds-validation", fold))
        parts[repeat, fold] = grouped.parts(is_test, is_val)
    kind = f"stratified {n_made}-fold by patient"
    return with_missing(SplitTable.of_parts(items, parts, kind=kind, warnings=joined_units(items)))


def monte_carlo(
    items: SplitItems,
    n_repeats: int = 10,
    *,
    test_share: float = 0.2,
    val_share: float = 0.0,
    seed: int = 0,
    allow_missing_class: bool = False,
) -> SplitTable:
    """Repeated random test parts of whole patients, stratified by patient label.

    The test parts of different repeats overlap, so their scores are not independent: compare encoders with the
    Nadeau-Bengio test, never with sd / sqrt(R). CLAM's splits are made so by design; they are no k folds.

    A patient's label is the majority of its items', ties going to the highest class. Of a class with n patients
    test_share * n, rounded, are tested, at least one, and at least one is left.

    Args:
        items: labelled.
        n_repeats: R >= 1; each is a `repeat` with the one fold 0.
        test_share: of the patients of each class.
        val_share: of the patients of each class that the test part leaves.
        seed: of all draws.
        allow_missing_class: accept a class with a single patient (two, with a validation part), which stays in the
            training part as far as it does not go round.

    Raises:
        EvaluationError: items without label, or a class with too few patients for the parts.
        ValueError: n_repeats < 1 or a share outside [0, 1), or no test part.
    """
    _check_share("test_share", test_share)
    _check_share("val_share", val_share)
    if n_repeats < 1 or test_share == 0:
        raise ValueError(f"need n_repeats >= 1 and test_share > 0, got {n_repeats}, {test_share}")
    grouped = Grouped.of(items)
    n_needed = 3 if val_share else 2
    n_having = np.bincount(grouped.label, minlength=len(grouped.classes))
    purpose = f"{n_needed} parts"
    check_classes(grouped.classes, n_having, n_needed, "patients", purpose, is_allowed=allow_missing_class)
    everyone = np.ones(len(grouped.names), dtype=bool)
    parts = {}
    for repeat in range(n_repeats):
        is_test = grouped.drawn(test_share, everyone, seed=seed, names=("monte-carlo-test", repeat))
        is_val = grouped.drawn(val_share, ~is_test, seed=seed, names=("monte-carlo-validation", repeat))
        parts[repeat, 0] = grouped.parts(is_test, is_val)
    kind = "monte-carlo by patient"
    return with_missing(SplitTable.of_parts(items, parts, kind=kind, warnings=joined_units(items)))


def leave_one_out(items: SplitItems, unit: Unit = "patient") -> SplitTable:
    """One fold a patient (group), site or slide, tested while all others train; labels are not needed.

    The table has N rows for each unit: it is meant for slides, not for a million tiles.

    Args:
        items: labelled or not.
        unit: what is left out. `slide` leaves other slides of the patient in the training part: for cohorts of one
            patient, and the table says so.

    Raises:
        EvaluationError: fewer than two units (three sites), items without a site, or patients at two sites.
        ValueError: unknown unit.
    """
    column = column_of(items, unit)
    names, codes = coded(column)
    n_needed = 3 if unit == "site" else 2
    if len(names) < n_needed:
        only = "; ".join([listed(names), *joined_units(items, unit)])
        raise EvaluationError(
            f"leaving one {unit} out needs at least {n_needed} of them, there is only {only}",
            _WHERE,
            "Add slides of others, or leave out a smaller unit.",
        )
    parts = {(0, fold): _texts_where(codes == fold, "test", "train") for fold in range(len(names))}
    caution = "slides of one patient stand in training and test part: figures say nothing about new patients"
    has_mates = len(np.unique(column_of(items, "patient"))) < len(names)
    warnings = (*joined_units(items, unit), *(caution,) * (unit == "slide" and has_mates))
    return SplitTable.of_parts(items, parts, unit=unit, kind=f"leave one {unit} out", warnings=warnings)


def nested(
    items: SplitItems,
    n_folds: int = 5,
    n_inner: int = 3,
    *,
    repeat: int = 0,
    allow_missing_class: bool = False,
) -> NestedSplit:
    """Outer stratified folds, and for each of them inner ones of everything outside its test part.

    Args:
        items, n_folds, repeat, allow_missing_class: as in `stratified_folds`, the last for inner folds too.
        n_inner: inner folds, 3 to 5 as a rule.

    Raises:
        EvaluationError: as `stratified_folds`, for the inner folds too.
        ValueError: as there.
    """
    outer = stratified_folds(items, n_folds, repeat=repeat, allow_missing_class=allow_missing_class)
    return NestedSplit(outer, inner_folds(outer, n_inner, allow_missing_class=allow_missing_class))


def inner_folds(outer: SplitTable, n_inner: int = 3, *, allow_missing_class: bool = False) -> tuple[SplitTable, ...]:
    """Stratified folds of what lies outside the test part, for each fold of any split.

    No test item is looked at: whatever labels the test part has, the inner folds are the same.

    Args:
        outer: any table; training and validation part are joined.
        n_inner: >= 2.
        allow_missing_class: as in `stratified_folds`.

    Returns:
        For each of `outer.folds` a table of parts train and val, with the outer repeat and inner fold numbers.

    Raises:
        EvaluationError: as `stratified_folds`.
        ValueError: n_inner < 2.
    """
    if n_inner < 2:
        raise ValueError(f"need n_inner >= 2, got {n_inner}")
    tables = []
    for repeat, fold in outer.folds:
        rows = outer.rows(repeat, fold)
        rows = rows[outer.part[rows] != "test"]
        items = outer.items(rows)
        # Patients are kept whole under an outer split by site too: of three sites two are left, too few for folds.
        unit: Unit = "slide" if outer.unit == "slide" else "patient"
        fold_of = Grouped.of(items, unit).folds(n_inner, repeat=repeat, allow_missing_class=allow_missing_class)
        n_made = int(fold_of.max()) + 1
        parts = {(repeat, inner): _texts_where(fold_of == inner, "val", "train") for inner in range(n_made)}
        kind = f"inner {n_made}-fold of: {outer.kind}"
        table = SplitTable.of_parts(items, parts, unit=unit, kind=kind, warnings=joined_units(items, unit))
        tables.append(with_missing(table))
    return tuple(tables)


@dataclass(frozen=True, slots=True)
class Grouped:
    """Labelled items as codes: N items in G groups.

    Attributes:
        names: of the groups, sorted.
        codes: (N,) int64 groups.
        classes: in order.
        strata: (N,) int64 classes of the items.
        label: (G,) int64 majority class of each group, ties to the highest.
        unit: word for a group in messages.
    """

    names: list[str]
    codes: np.ndarray
    classes: list[str]
    strata: np.ndarray
    label: np.ndarray
    unit: Unit

    @classmethod
    def of(cls, items: SplitItems, unit: Unit = "patient") -> "Grouped":
        """The items by patient (their `group`), site or slide, as `column_of` joins them.

        Raises:
            EvaluationError: items without label or unit.
        """
        check_known(items, items.label, "label")
        names, codes = coded(column_of(items, unit))
        classes = ordered_classes(items.label)
        place = {name: code for code, name in enumerate(classes)}
        strata = np.array([place[label] for label in items.label], dtype=np.int64)
        counts = np.zeros((len(names), len(classes)), dtype=np.int64)
        np.add.at(counts, (codes, strata), 1)
        label = len(classes) - 1 - counts[:, ::-1].argmax(axis=1)
        return cls(names, codes, classes, strata, label, unit)

    def folds(self, n_folds: int, *, repeat: int, allow_missing_class: bool) -> np.ndarray:
        """(N,) int64 fold of each item, greedy and stratified.

        Raises:
            EvaluationError: fewer groups than folds, or a class in fewer groups than folds.
        """
        if len(self.names) < n_folds:
            raise EvaluationError(
                f"{len(self.names)} {self.unit}s cannot fill {n_folds} folds", _WHERE, "Ask for fewer folds."
            )
        pairs = np.unique(np.stack([self.codes, self.strata], axis=1), axis=0)
        n_having = np.bincount(pairs[:, 1], minlength=len(self.classes))
        purpose = f"{n_folds} folds"
        check_classes(self.classes, n_having, n_folds, f"{self.unit}s", purpose, is_allowed=allow_missing_class)
        return grouped_folds(self.codes, n_folds, self.strata, repeat=repeat)

    def drawn(self, share: float, among: np.ndarray, *, seed: int, names: Sequence[str | int]) -> np.ndarray:
        """(G,) bool: a share of the groups of each class, at least one of them, at least one left; none if share is 0.

        Args:
            share: in [0, 1).
            among: (G,) bool, who may be drawn.
            seed: with names, of the draw; each class has its own, so that no class disturbs another.
            names: of the stream.
        """
        is_drawn = np.zeros(len(self.names), dtype=bool)
        for code, name in enumerate(self.classes):
            own = np.flatnonzero(among & (self.label == code))
            if share == 0 or len(own) < 2:
                continue
            n_drawn = min(max(1, int(share * len(own) + 0.5)), len(own) - 1)
            is_drawn[stream(seed, *names, name).permutation(own)[:n_drawn]] = True
        return is_drawn

    def parts(self, is_test: np.ndarray, is_val: np.ndarray) -> np.ndarray:
        """(N,) parts of the items from (G,) bools of their groups."""
        part = np.full(len(self.names), "train", dtype=object)
        part[is_val], part[is_test] = "val", "test"
        return part[self.codes]


def check_classes(
    classes: Sequence[str], n_having: np.ndarray, n_needed: int, of: str, purpose: str, *, is_allowed: bool
) -> None:
    """Refuse classes with fewer patients or sites than needed, by name.

    Raises:
        EvaluationError: there are such, and they are not allowed.
    """
    few = [f"{classes[c]} ({n_having[c]})" for c in np.flatnonzero(n_having < n_needed).tolist()]
    if few and not is_allowed:
        raise EvaluationError(
            f"too few {of} for {purpose}, {n_needed} of each class are needed: class {listed(few)}",
            _WHERE,
            "Ask for fewer folds, join classes, or pass --allow-missing-class.",
        )


def column_of(items: SplitItems, unit: Unit) -> np.ndarray:
    """(N,) what is kept whole: groups, sites or slides; those that show one picture under the first of their names.

    Raises:
        EvaluationError: items without it.
        ValueError: unknown unit.
    """
    return joined_by_pictures(_own_column(items, unit), items)


def joined_units(items: SplitItems, unit: Unit = "patient") -> tuple[str, ...]:
    """A sentence that names the groups, sites or slides that pictures make one.

    Raises:
        EvaluationError, ValueError: as `column_of`.
    """
    own, joined = _own_column(items, unit), column_of(items, unit)
    changed = np.flatnonzero(np.isin(joined, joined[own != joined]))
    if not len(changed):
        return ()
    names = [" = ".join(np.unique(own[changed[joined[changed] == first]])) for first in np.unique(joined[changed])]
    return (f"{unit}s that show the same picture are held out as one: {listed(names)}",)


def check_known(items: SplitItems, column: np.ndarray, word: str) -> None:
    """Refuse items whose label or site is unknown, by id.

    Raises:
        EvaluationError: there are such.
    """
    unknown = np.flatnonzero(column == "")
    if len(unknown):
        raise EvaluationError(
            f"{len(unknown)} of {len(items)} items have no {word}: {listed(items.item[unknown])}",
            _WHERE,
            f"Fill the {word} in, or leave these items out.",
        )


def with_missing(table: SplitTable) -> SplitTable:
    """The table, its warnings naming the classes that parts of it lack."""
    return replace(table, warnings=(*table.warnings, *missing_classes(table)))


def _own_column(items: SplitItems, unit: Unit) -> np.ndarray:
    columns = {"patient": items.group, "site": items.site, "slide": items.slide}
    if unit not in columns:
        raise ValueError(f"unit must be one of {', '.join(columns)}, got {unit!r}")
    check_known(items, columns[unit], unit)
    return columns[unit]


def _texts_where(condition: np.ndarray, yes: str, no: str) -> np.ndarray:
    return np.where(condition, yes, no).astype(object)


def _check_share(name: str, share: float) -> None:
    if not 0 <= share < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {share}")
