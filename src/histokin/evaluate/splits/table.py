"""What is divided and how it was divided: `SplitItems` and `SplitTable`, the only table of splits.

A table in which a patient, or one picture under two names, stands in two parts of one fold cannot be built.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.items import Items, is_missing, text_codes

if TYPE_CHECKING:
    import pyarrow as pa

Part = Literal["train", "val", "test"]
Unit = Literal["patient", "site", "slide"]
PARTS: tuple[Part, ...] = get_args(Part)
UNITS: tuple[Unit, ...] = get_args(Unit)
_WHERE = "split"
_SHOWN = 5
_TEXTS = ("item", "group", "slide", "patient", "site", "label", "picture")
_COLUMNS = (*_TEXTS, "repeat", "fold", "part")
_MAY_LACK = ("group", "site", "label", "picture")
_METADATA = b"histokin.split"
# Columns of which no value may stand in two parts of a fold; a picture that several slides show never may. A slide may
# hold tiles of several patients (a tissue microarray), so it is kept whole only where slides are what is held out.
# What must be known of every row for that: unknown patients would pass as different ones.
_KNOWN = {"patient": ("group",), "site": ("group", "site"), "slide": ("slide",)}
_KEPT_WHOLE = {"patient": ("patient", "group"), "site": ("patient", "group", "site"), "slide": ("slide",)}


@dataclass(frozen=True, slots=True)
class SplitItems:
    """What is divided, slides or tiles, as aligned columns of N texts; "" where unknown.

    Attributes:
        item: id, unique.
        group: what must stay together; the patient unless slides of several patients show the same picture.
        slide: the slide the item lies on (or is).
        patient: whose it is.
        site: where it was scanned.
        label: class.
        picture: what the slide shows; slides of the same content under different ids share it.
    """

    item: np.ndarray
    group: np.ndarray
    slide: np.ndarray
    patient: np.ndarray
    site: np.ndarray
    label: np.ndarray
    picture: np.ndarray

    @classmethod
    def of(
        cls,
        *,
        slide: Sequence[Any] | np.ndarray,
        patient: Sequence[Any] | np.ndarray,
        label: Sequence[Any] | np.ndarray | None = None,
        site: Sequence[Any] | np.ndarray | None = None,
        item: Sequence[Any] | np.ndarray | None = None,
        group: Sequence[Any] | np.ndarray | None = None,
        picture: Sequence[Any] | np.ndarray | None = None,
    ) -> "SplitItems":
        """Items from any sequences, which become text.

        Args:
            slide: (N,) slide ids.
            patient: (N,) whose.
            label: (N,) classes; without them only what needs no classes can be made.
            site: (N,) where scanned.
            item: (N,) ids; the slide ids if None.
            group: (N,) what stays together, such as the cohort's leave-out units; the patients if None.
            picture: (N,) ids of the slides' contents, such as those of the cohort's leave-out units; the slide itself
                where missing.

        Raises:
            EvaluationError: there are none, an id repeats, or an item has no group.
            ValueError: lengths differ.
        """
        blank = [""] * len(slide)
        return cls(
            _texts(slide if item is None else item),
            _texts(patient if group is None else group),
            _texts(slide),
            _texts(patient),
            _texts(blank if site is None else site),
            _texts(blank if label is None else label),
            _filled(_texts(blank if picture is None else picture), _texts(slide)),
        )

    @classmethod
    def from_items(
        cls,
        items: Items,
        *,
        item: Sequence[Any] | None = None,
        group: Sequence[Any] | None = None,
        picture: Sequence[Any] | None = None,
    ) -> "SplitItems":
        """The items of an evaluation, with ids, groups and pictures as in `of`."""
        return cls.of(
            slide=items.slide,
            patient=items.patient,
            label=items.label,
            site=items.site,
            item=item,
            group=group,
            picture=picture,
        )

    def __post_init__(self) -> None:
        if len({len(getattr(self, name)) for name in _TEXTS}) > 1:
            raise ValueError("the columns of the items differ in length")
        if not len(self.item):
            raise EvaluationError("there is nothing to divide", _WHERE, "Name a cohort that has slides.")
        names, n_times = np.unique(self.item, return_counts=True)
        if (n_times > 1).any():
            raise EvaluationError(
                f"ids repeat: {listed(names[n_times > 1])}", _WHERE, "Give every item an id of its own."
            )
        alone = np.flatnonzero(self.group == "")
        if len(alone):
            raise EvaluationError(
                f"{len(alone)} of {len(self)} items have no patient: {listed(self.item[alone])}",
                _WHERE,
                "Fill the cohort's patient column.",
            )

    def __len__(self) -> int:
        return len(self.item)

    def take(self, rows: np.ndarray) -> "SplitItems":
        """The items of some rows."""
        return SplitItems(*(getattr(self, name)[rows] for name in _TEXTS))


@dataclass(frozen=True, slots=True)
class SplitTable:
    """Which item is in which part of which fold; M rows, one an item, repeat and fold.

    An item may be absent from a fold (files of others leave some out), never in it twice.

    Attributes:
        item, group, slide, patient, site, label, picture: (M,) texts as in `SplitItems`.
        repeat: (M,) int64 >= 0.
        fold: (M,) int64 >= 0.
        part: (M,) texts train, val or test.
        unit: what is kept whole: the patient (and group); site adds sites; slide keeps slides alone and says nothing
            about new patients.
        kind: how it was made, such as stratified-k-fold or monte-carlo; named beside every figure.
        warnings: sentences a reader must see beside figures made with it.
        folds: (repeat, fold) of all folds, ascending.
    """

    item: np.ndarray
    group: np.ndarray
    slide: np.ndarray
    patient: np.ndarray
    site: np.ndarray
    label: np.ndarray
    picture: np.ndarray
    repeat: np.ndarray
    fold: np.ndarray
    part: np.ndarray
    unit: Unit = "patient"
    kind: str = "given"
    warnings: tuple[str, ...] = ()
    folds: tuple[tuple[int, int], ...] = field(init=False, repr=False, compare=False)
    _fold_of: np.ndarray = field(init=False, repr=False, compare=False)  # (M,) int64 place of the row's fold in `folds`
    _order: np.ndarray = field(init=False, repr=False, compare=False)  # (M,) rows fold by fold, each ascending
    _starts: np.ndarray = field(init=False, repr=False, compare=False)  # (folds + 1,) where each begins in `_order`

    @classmethod
    def of_parts(
        cls,
        items: SplitItems,
        parts: Mapping[tuple[int, int], np.ndarray],
        *,
        unit: Unit = "patient",
        kind: str = "given",
        warnings: Sequence[str] = (),
    ) -> "SplitTable":
        """The table of some folds.

        Args:
            items: N of them.
            parts: by (repeat, fold) the (N,) part of each item, "" where it takes no part.
            unit, kind, warnings: as in the class.

        Raises:
            EvaluationError: as the class.
        """
        rows = {key: np.flatnonzero(column != "") for key, column in parts.items()}
        taken = np.concatenate([np.zeros(0, np.int64), *rows.values()])
        sizes = [len(found) for found in rows.values()]
        return cls(
            *(getattr(items, name)[taken] for name in _TEXTS),
            repeat=np.repeat(np.array([repeat for repeat, _ in rows], dtype=np.int64), sizes),
            fold=np.repeat(np.array([fold for _, fold in rows], dtype=np.int64), sizes),
            part=_texts([text for key, found in rows.items() for text in parts[key][found]]),
            unit=unit,
            kind=kind,
            warnings=tuple(warnings),
        )

    @classmethod
    def joined(cls, tables: Sequence["SplitTable"]) -> "SplitTable":
        """Several repeats in one table.

        Raises:
            ValueError: they differ in kind or unit, or there are none.
            EvaluationError: they hold the same fold twice.
        """
        if len({(table.kind, table.unit) for table in tables}) != 1:
            raise ValueError("only tables of one kind and unit can be joined")
        columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in _COLUMNS}
        warnings = tuple(dict.fromkeys(text for table in tables for text in table.warnings))
        return cls(**columns, unit=tables[0].unit, kind=tables[0].kind, warnings=warnings)

    def __post_init__(self) -> None:
        if len({len(getattr(self, name)) for name in _COLUMNS}) > 1:
            raise ValueError("the columns of the split differ in length")
        if self.unit not in UNITS:
            raise ValueError(f"unit must be one of {', '.join(UNITS)}, got {self.unit!r}")
        if not len(self):
            raise EvaluationError("the split has no rows", _WHERE, "Divide at least two patients.")
        if self.repeat.min() < 0 or self.fold.min() < 0:
            raise ValueError("repeat and fold count from 0")
        unknown = sorted(set(self.part) - set(PARTS))
        if unknown:
            raise EvaluationError(f"unknown parts: {listed(unknown)}", _WHERE, f"Use {', '.join(PARTS)}.")
        pairs, fold_of = np.unique(np.stack([self.repeat, self.fold], axis=1), axis=0, return_inverse=True)
        fold_of = fold_of.ravel()
        sizes = np.bincount(fold_of, minlength=len(pairs))
        for name, value in {
            "folds": tuple((int(repeat), int(fold)) for repeat, fold in pairs),
            "_fold_of": fold_of,
            "_order": np.argsort(fold_of, kind="stable"),
            "_starts": np.concatenate([[0], np.cumsum(sizes)]),
        }.items():
            object.__setattr__(self, name, value)
        for name in _KNOWN[self.unit]:
            self._refuse_unknown(name)
        self._refuse_repeated()
        for name in _KEPT_WHOLE[self.unit]:
            self._refuse_divided(name, *coded(getattr(self, name)))
        self._refuse_divided("picture", *shared_pictures(self))

    def __len__(self) -> int:
        return len(self.item)

    def rows(self, repeat: int, fold: int, part: Part | None = None) -> np.ndarray:
        """(n,) int64 rows of the table that belong to a part of a fold, or to the whole fold.

        Raises:
            ValueError: there is no such part.
            KeyError: there is no such fold.
        """
        if part is not None and part not in PARTS:
            raise ValueError(f"part must be one of {', '.join(PARTS)}, got {part!r}")
        if (repeat, fold) not in self.folds:
            raise KeyError(f"no fold {fold} in repeat {repeat}; there are {list(self.folds)}")
        place = self.folds.index((repeat, fold))
        own = self._order[self._starts[place] : self._starts[place + 1]]
        return own if part is None else own[self.part[own] == part]

    def items(self, rows: np.ndarray) -> SplitItems:
        """The items of some rows.

        Raises:
            EvaluationError: one stands in several of them, or as `SplitItems`.
        """
        return SplitItems(*(getattr(self, name)[rows] for name in _TEXTS))

    def rows_of(self, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """(N, J) int64 rows of the items asked for in the J `folds`, -1 where absent.

        Args:
            ids: (N,) of items. One may be asked for often: tiles by the slides of a table of slides.

        Raises:
            EvaluationError: not one of them is in the table.
        """
        names, asked = text_codes(ids)
        place = {name: i for i, name in enumerate(names)}
        at = np.array([place.get(name, -1) for name in self.item], dtype=np.int64)
        known = np.flatnonzero(at >= 0)
        if not len(known):
            raise EvaluationError(
                f"not one of {len(ids)} ids is in the split", _WHERE, f"Its ids are like {listed(self.item, 2)}."
            )
        found = np.full((len(names), len(self.folds)), -1, dtype=np.int64)
        found[at[known], self._fold_of[known]] = known
        return found[asked]

    def part_codes(self, ids: Sequence[Any] | np.ndarray) -> np.ndarray:
        """(N, J) int8 of the items asked for in the J `folds`: 0 train, 1 val, 2 test, -1 absent; ids as in `rows_of`.

        Raises:
            EvaluationError: not one of them is in the table.
        """
        rows = self.rows_of(ids)
        return np.where(rows >= 0, self._part_numbers()[rows], -1).astype(np.int8)

    def class_counts(
        self, repeat: int, fold: int, *, of: Literal["item", "slide", "patient", "group"] = "item"
    ) -> dict[str, dict[str, int]]:
        """By part and class, how many items, slides, patients or groups; all classes of the table, also those at 0."""
        classes = ordered_classes(self.label)
        found = {}
        for part in PARTS:
            rows = self.rows(repeat, fold, part)
            counts = Counter(label for _, label in set(zip(getattr(self, of)[rows], self.label[rows], strict=True)))
            found[part] = {name: counts[name] for name in classes}
        return found

    def to_arrow(self) -> "pa.Table":
        """The columns, with unit, kind and warnings in the schema's metadata."""
        import pyarrow as pa

        columns = {name: pa.array(getattr(self, name), pa.string()).dictionary_encode() for name in (*_TEXTS, "part")}
        columns |= {name: pa.array(getattr(self, name), pa.int64()) for name in ("repeat", "fold")}
        meta = json.dumps({"unit": self.unit, "kind": self.kind, "warnings": self.warnings})
        return pa.table({name: columns[name] for name in _COLUMNS}, metadata={_METADATA: meta.encode()})

    @classmethod
    def of_columns(
        cls,
        columns: Mapping[str, Sequence[Any] | np.ndarray],
        *,
        unit: Unit = "patient",
        kind: str = "given",
        warnings: Sequence[str] = (),
    ) -> "SplitTable":
        """The split of (M,) columns by name.

        Args:
            columns: those of the class; `group` may be missing or empty (the patient then), `picture` too (the slide
                then), `site` and `label` as well.
            unit, kind, warnings: as in the class.

        Raises:
            EvaluationError: a column is missing, a repeat or fold is no whole number, or as the class.
        """
        missing = [name for name in _COLUMNS if name not in (*columns, *_MAY_LACK)]
        if missing:
            raise EvaluationError(
                f"columns are missing: {', '.join(missing)}", _WHERE, f"A split has {', '.join(_COLUMNS)}."
            )
        nothing = [""] * len(columns["item"])
        texts = {name: _texts(columns.get(name, nothing)) for name in (*_TEXTS, "part")}
        texts["group"] = _filled(texts["group"], texts["patient"])
        texts["picture"] = _filled(texts["picture"], texts["slide"])
        numbers = {name: _whole_numbers(columns[name], name) for name in ("repeat", "fold")}
        return cls(**texts, **numbers, unit=unit, kind=kind, warnings=tuple(warnings))

    @classmethod
    def from_arrow(cls, columns: "pa.Table") -> "SplitTable":
        """The split of such columns as `of_columns` reads them; without metadata it is kept whole by patient.

        Raises:
            EvaluationError: as `of_columns`.
        """
        meta = json.loads((columns.schema.metadata or {}).get(_METADATA, b"{}"))
        read = {name: columns.column(name).to_pylist() for name in columns.column_names}
        return cls.of_columns(read, **{name: meta[name] for name in ("unit", "kind", "warnings") if name in meta})

    def _part_numbers(self) -> np.ndarray:
        """(M,) int8 places in PARTS."""
        numbers = np.zeros(len(self), dtype=np.int8)
        for number, part in enumerate(PARTS):
            numbers[self.part == part] = number
        return numbers

    def _refuse_unknown(self, name: str) -> None:
        rows = np.flatnonzero(getattr(self, name) == "")
        if len(rows):
            what = "patient" if name == "group" else name
            raise EvaluationError(
                f"{len(rows)} of {len(self)} rows have no {what}: {_described(self, rows)}",
                _WHERE,
                f"Fill the {what} column, or keep another unit whole than the {self.unit}.",
            )

    def _refuse_repeated(self) -> None:
        names, codes = coded(self.item)
        keys = self._fold_of * len(names) + codes
        _, place, n_rows = np.unique(keys, return_inverse=True, return_counts=True)
        again = np.flatnonzero(n_rows[place.ravel()] > 1)
        if len(again):
            first = self._fold_of[again].min()
            repeat, fold = self.folds[first]
            raise EvaluationError(
                f"items stand twice in repeat {repeat}, fold {fold}: "
                f"{_described(self, again[self._fold_of[again] == first])}",
                _WHERE,
                "Keep one row an item, repeat and fold.",
            )

    def _refuse_divided(self, name: str, names: list[str], codes: np.ndarray) -> None:
        """Refuse (M,) codes of `names`, -1 for rows in none, that stand in two parts of a fold."""
        known = np.flatnonzero(codes >= 0)
        folds, part = self._fold_of[known], self._part_numbers()[known]
        keys, place = np.unique(folds * len(names) + codes[known], return_inverse=True)
        place = place.ravel()
        least, most = np.full(len(keys), len(PARTS), dtype=np.int8), np.full(len(keys), -1, dtype=np.int8)
        np.minimum.at(least, place, part)
        np.maximum.at(most, place, part)
        is_divided = least < most
        if not is_divided.any():
            return
        first = int(keys[is_divided][0]) // len(names)
        repeat, fold = self.folds[first]
        n_bad = int((keys[is_divided] // len(names) == first).sum())
        bad = known[is_divided[place] & (folds == first)]
        some = bad[codes[bad] == codes[bad[0]]]
        raise EvaluationError(
            f"{n_bad} {name}{' stands' if n_bad == 1 else 's stand'} in two parts of repeat {repeat}, fold {fold}, "
            f"{len(bad)} rows in all; {name} {names[codes[bad[0]]]}: {_described(self, some)}",
            _WHERE,
            f"Put all rows of a {name} into one part.",
        )


def coded(values: Sequence[str] | np.ndarray) -> tuple[list[str], np.ndarray]:
    """Sorted names and (N,) int64 codes into them; -1 for "" (unknown)."""
    names, codes = text_codes(_texts(values))
    return (names[1:], codes - 1) if names and names[0] == "" else (names, codes)


def shared_pictures(items: SplitItems | SplitTable) -> tuple[list[str], np.ndarray]:
    """The pictures that several slides show, sorted, and (N,) int64 codes into them; -1 for rows of none.

    A picture of one slide joins nothing: tiles of several patients on it (a tissue microarray) are different tissue.
    """
    if (items.picture == items.slide).all():  # as a rule, and quickly seen
        return [], np.full(len(items), -1, dtype=np.int64)
    names, codes = coded(items.picture)
    slides = text_codes(np.where(items.slide == "", items.item, items.slide))[1]  # unknown ones are not one slide
    shown = np.unique(np.stack([codes, slides], axis=1)[codes >= 0], axis=0)
    is_shared = np.bincount(shown[:, 0], minlength=len(names)) > 1
    place = np.append(np.where(is_shared, np.cumsum(is_shared) - 1, -1), -1)  # the last is that of code -1
    return [name for name, mark in zip(names, is_shared, strict=True) if mark], place[codes]


def joined_by_pictures(units: np.ndarray, items: SplitItems | SplitTable) -> np.ndarray:
    """(N,) units, where those that show a common picture have become one, under the first of their names.

    Args:
        units: (N,) texts such as patients, "" where unknown.
        items: N of them.
    """
    pictures, picture = shared_pictures(items)
    if not pictures:
        return units
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    names, unit = coded(units)
    rows = np.flatnonzero((unit >= 0) & (picture >= 0))
    n_nodes = len(names) + len(pictures)
    links = coo_array((np.ones(len(rows)), (unit[rows], len(names) + picture[rows])), shape=(n_nodes, n_nodes))
    component = connected_components(links, directed=False)[1][: len(names)]
    _, first, place = np.unique(component, return_index=True, return_inverse=True)
    counts_as = np.concatenate([[0], 1 + first[place.ravel()]])
    return np.array(["", *names], dtype=object)[counts_as[unit + 1]]


def ordered_classes(labels: Sequence[str] | np.ndarray) -> list[str]:
    """The classes that occur, in order: as numbers where all of them are (2 before 10), else as text."""
    names = [str(name) for name in np.unique(labels) if name != ""]
    return sorted(names, key=float) if all(name.isdecimal() for name in names) else names


def stands_in_two(codes: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """(G,) bool: whether members of a group stand in different parts of one fold.

    Args:
        codes: (N,) int64 group codes, -1 for items in none.
        parts: (N, J) part codes in J folds, -1 where absent.
    """
    n_groups = int(codes.max(initial=-1)) + 1
    highest = int(parts.max(initial=-1)) + 1
    first, last = np.full((n_groups, parts.shape[1]), highest), np.full((n_groups, parts.shape[1]), -1)
    known = np.flatnonzero(codes >= 0)
    given = parts[known].astype(np.int64)
    np.minimum.at(first, codes[known], np.where(given < 0, highest, given))
    np.maximum.at(last, codes[known], given)
    return np.asarray((last > first).any(axis=1))


def missing_classes(table: SplitTable) -> tuple[str, ...]:
    """A sentence for each class that a part of some fold has no item of (parts that are empty have none to miss)."""
    lacking: dict[str, list[str]] = {}
    for repeat, fold in table.folds:
        for part, counts in table.class_counts(repeat, fold).items():
            for name in counts if sum(counts.values()) else ():
                if not counts[name]:
                    lacking.setdefault(name, []).append(f"{part} of repeat {repeat} fold {fold}")
    return tuple(f"no item of class {name} in {listed(places)}" for name, places in lacking.items())


def overlapping_tests(table: SplitTable) -> tuple[str, ...]:
    """A sentence where an item is tested in several folds, as in repeated folds and Monte-Carlo splits."""
    tested = np.flatnonzero(table.part == "test")
    names, item = text_codes(table.item[tested])
    if len(names) == len(tested):
        return ()
    n_repeats = len(np.unique(table.repeat[tested]))
    n_pairs = len(np.unique(np.stack([item, table.repeat[tested]], axis=1), axis=0))
    is_each_once = n_pairs == len(tested) == len(names) * n_repeats and len(table.folds) > n_repeats
    kind = "repeated folds" if is_each_once else "Monte-Carlo, as CLAM's splits are by design"
    return (f"test parts overlap ({kind}): compare by Nadeau-Bengio, never by sd / sqrt(R)",)


def listed(names: Sequence[str] | np.ndarray, n_shown: int = _SHOWN) -> str:
    """The first few names, and how many there are."""
    shown = ", ".join(str(name) for name in names[:n_shown])
    return shown if len(names) <= n_shown else f"{shown}, ... ({len(names)} in all)"


def _whole_numbers(values: Sequence[Any] | np.ndarray, name: str) -> np.ndarray:
    """(M,) int64 of a column.

    Raises:
        EvaluationError: a value is no whole number; names the row.
    """
    for row, value in enumerate(values.tolist() if isinstance(values, np.ndarray) else values):
        if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
            raise EvaluationError(f"{name} holds {value!r} in row {row}", _WHERE, "Count repeats and folds from 0.")
    return np.array(values, dtype=np.int64)


def _described(table: SplitTable, rows: np.ndarray) -> str:
    return listed([f"row {row} ({table.item[row]}, {table.part[row]})" for row in rows.tolist()])


def _filled(column: np.ndarray, others: np.ndarray) -> np.ndarray:
    """A column with the others' texts where it has none; as it is where lengths differ, which the class refuses."""
    return np.where(column == "", others, column) if len(column) == len(others) else column


def _texts(values: Sequence[Any] | np.ndarray) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = ["" if is_missing(value) else str(value) for value in values]
    return column
