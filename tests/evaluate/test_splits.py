"""Split tables and how they are made: the golden folds, what no table may hold, and what decides nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histokin.errors import EvaluationError
from histokin.evaluate import Items
from histokin.evaluate.splits import (
    SplitItems,
    SplitTable,
    inner_folds,
    leave_one_out,
    monte_carlo,
    nested,
    preserved_site_folds,
    stratified_folds,
)
from histokin.evaluate.splits.table import (
    coded,
    joined_by_pictures,
    missing_classes,
    ordered_classes,
    overlapping_tests,
    shared_pictures,
    stands_in_two,
)

COLUMNS = ("item", "group", "slide", "patient", "site", "label", "picture", "repeat", "fold", "part")
GOLDEN = {case["id"]: case for case in json.loads(Path(__file__).with_name("golden_probes.json").read_text())["cases"]}


def cohort(n_patients: int = 12, n_slides: int = 2, n_classes: int = 2, n_sites: int = 3) -> SplitItems:
    """`n_slides` slides a patient, patients of classes and sites in turn."""
    patient = np.repeat(np.arange(n_patients), n_slides)
    return SplitItems.of(
        slide=[f"s{i:03d}" for i in range(len(patient))],
        patient=[f"p{p:02d}" for p in patient],
        label=[f"c{p % n_classes}" for p in patient],
        site=[f"h{p // n_classes % n_sites}" for p in patient],
    )


def as_sets(table: SplitTable) -> set[tuple]:
    return set(zip(*(getattr(table, name).tolist() for name in COLUMNS), strict=True))


def test_set_f1_gives_the_golden_folds(f1):
    expected = GOLDEN["stratified_group_kfold_F1"]["expected"]
    row = np.arange(240)
    kept = np.flatnonzero(row % 10 < 4 + f1.patient % 7)
    items = SplitItems.from_items(f1.items.take(kept), item=[f"t{i:03d}" for i in kept])
    table = stratified_folds(items, 4)
    tested = table.part == "test"
    fold_of = dict(zip(table.patient[tested], table.fold[tested].tolist(), strict=True))
    assert [fold_of[f"p{p:02d}"] for p in range(24)] == expected["fold_of_patient"]
    counts = [[table.class_counts(0, fold)["test"][f"c{c}"] for c in range(4)] for fold in range(4)]
    assert counts == expected["class_counts"]


def test_a_table_with_a_patient_in_two_parts_is_refused_and_names_the_rows():
    table = stratified_folds(cohort(), 3)
    part = table.part.copy()
    rows = table.rows(0, 1, "test")
    part[rows[0]] = "train"
    with pytest.raises(
        EvaluationError, match=rf"1 patient stands in two parts .* 2 rows in all.*row {rows[0]} .*train"
    ):
        replace(table, part=part)


def test_a_twin_under_another_patient_may_not_stand_in_another_part():
    items = SplitItems.of(slide=["a", "b", "c"], patient=["p", "q", "r"], group=["p", "p", "r"])
    parts = np.array(["train", "test", "train"], dtype=object)
    with pytest.raises(EvaluationError, match="group p: row 0"):
        SplitTable.of_parts(items, {(0, 0): parts})
    assert len(SplitTable.of_parts(replace(items, group=items.patient), {(0, 0): parts})) == 3


def test_groups_finer_than_patients_do_not_slip_through():
    items = SplitItems.of(slide=["a", "b", "c"], patient=["p", "p", "r"], group=["a", "b", "c"])
    with pytest.raises(EvaluationError, match="1 patient stands in two parts of repeat 0, fold 0"):
        leave_one_out(items)


def test_a_site_in_two_parts_is_refused_where_sites_are_held_out():
    items = SplitItems.of(slide=["a", "b", "c"], patient=["p", "q", "r"], site=["h", "h", "k"])
    parts = {(0, 0): np.array(["train", "test", "train"], dtype=object)}
    assert SplitTable.of_parts(items, parts).unit == "patient"
    with pytest.raises(EvaluationError, match="1 site stands in two parts of repeat 0, fold 0, 2 rows in all; site h"):
        SplitTable.of_parts(items, parts, unit="site")


def test_the_same_patient_may_change_parts_between_folds_and_repeats():
    items = cohort(2, 1)
    first, second = (np.array(pair, dtype=object) for pair in (("train", "test"), ("test", "train")))
    table = SplitTable.of_parts(items, {(0, 0): first, (0, 1): second, (1, 0): second})
    assert table.folds == ((0, 0), (0, 1), (1, 0))
    assert table.item[table.rows(1, 0, "test")].tolist() == ["s000"]


def test_what_is_no_split_is_refused():
    items = cohort(2, 1)
    table = SplitTable.of_parts(items, {(0, 0): np.array(["train", "test"], dtype=object)})
    twice = {name: np.concatenate([getattr(table, name), getattr(table, name)]) for name in COLUMNS}
    with pytest.raises(EvaluationError, match="items stand twice in repeat 0, fold 0: row 0"):
        SplitTable(**twice)
    with pytest.raises(EvaluationError, match="unknown parts: valid"):
        replace(table, part=np.array(["train", "valid"], dtype=object))
    with pytest.raises(ValueError, match="columns of the split differ"):
        replace(table, fold=table.fold[:1])
    with pytest.raises(ValueError, match="unit must be one of patient, site, slide"):
        replace(table, unit="section")
    with pytest.raises(ValueError, match="count from 0"):
        replace(table, fold=table.fold - 1)
    with pytest.raises(EvaluationError, match="no rows"):
        SplitTable.of_parts(items, {(0, 0): np.array(["", ""], dtype=object)})
    with pytest.raises(KeyError, match="no fold 7 in repeat 0"):
        table.rows(0, 7)
    with pytest.raises(ValueError, match="part must be one of"):
        table.rows(0, 0, "valid")


def test_items_without_patient_or_with_one_id_twice_are_refused():
    with pytest.raises(EvaluationError, match=r"2 of 3 items have no patient: b, c"):
        SplitItems.of(slide=["a", "b", "c"], patient=["p", None, float("nan")])
    with pytest.raises(EvaluationError, match="ids repeat: a"):
        SplitItems.of(slide=["a", "a", "b"], patient=["p", "p", "q"])
    with pytest.raises(EvaluationError, match="nothing to divide"):
        SplitItems.of(slide=[], patient=[])
    with pytest.raises(ValueError, match="differ in length"):
        SplitItems.of(slide=["a"], patient=["p", "q"])
    assert SplitItems.of(slide=["a"], patient=[""], group=["slide:a"]).group.tolist() == ["slide:a"]


def test_items_of_an_evaluation_become_items_of_a_split():
    items = SplitItems.from_items(Items.of([1, None], [7, 8], ["a", "b"], ["x", None]))
    assert items.label.tolist() == ["1", ""]
    assert items.patient.tolist() == items.group.tolist() == ["7", "8"]
    assert items.site.tolist() == ["x", ""]


def test_a_table_survives_arrow_and_a_csv_without_metadata():
    table = monte_carlo(cohort(), 2, val_share=0.3, seed=4)
    table = replace(table, warnings=("beware",))
    back = SplitTable.from_arrow(table.to_arrow())
    assert as_sets(back) == as_sets(table)
    assert (back.unit, back.kind, back.warnings) == (table.unit, table.kind, ("beware",))
    bare = table.to_arrow().replace_schema_metadata().drop_columns(["group", "site", "picture"])
    plain = SplitTable.from_arrow(pa.table({name: bare.column(name).to_pylist() for name in bare.column_names}))
    assert (plain.unit, plain.kind) == ("patient", "given")
    assert (plain.group == table.patient).all()
    assert (plain.picture == table.slide).all()
    assert set(plain.site) == {""}
    with pytest.raises(EvaluationError, match="columns are missing: part"):
        SplitTable.from_arrow(bare.drop_columns(["part"]))


def test_ids_that_the_split_does_not_hold_are_no_split():
    items = SplitItems.of(slide=["1", "2"], patient=["p", "q"])
    table = SplitTable.of_parts(items, {(0, 0): np.array(["train", "test"], dtype=object)})
    assert table.part_codes([1, 2, 3, 1]).tolist() == [[0], [2], [-1], [0]]
    with pytest.raises(EvaluationError, match="not one of 2 ids is in the split"):
        table.part_codes(["1.svs", "2.svs"])


def test_a_file_whose_patients_are_unknown_keeps_none_whole():
    columns = {"item": ["a", "b"], "slide": ["a", "b"], "repeat": [0, 0], "fold": [0, 0], "part": ["train", "test"]}
    with pytest.raises(EvaluationError, match=r"1 of 2 rows have no patient: row 1 \(b, test\)"):
        SplitTable.from_arrow(pa.table({**columns, "patient": ["p", ""]}))
    known = SplitTable.from_arrow(pa.table({**columns, "patient": ["p", "q"], "group": ["", "g"]}))
    assert known.group.tolist() == ["p", "g"]
    for folds, said in (([0.5, 1.0], "0.5 in row 0"), ([0, None], "None in row 1"), (["0", "1"], "'0' in row 0")):
        with pytest.raises(EvaluationError, match=f"fold holds {said}"):
            SplitTable.from_arrow(pa.table({**columns, "patient": ["p", "q"], "fold": folds}))


def test_part_codes_follow_the_ids_asked_for():
    items = cohort(4, 1)
    parts = {
        (0, 0): np.array(["train", "val", "test", ""], dtype=object),
        (0, 1): np.array(["test", "train", "", "train"], dtype=object),
    }
    codes = SplitTable.of_parts(items, parts).part_codes(["s003", "s000", "other"])
    assert codes.tolist() == [[-1, 0], [0, 2], [-1, -1]]


def test_class_counts_count_items_slides_or_patients():
    table = leave_one_out(cohort(4, 3), "patient")
    assert table.class_counts(0, 0) == {
        "train": {"c0": 3, "c1": 6},
        "val": {"c0": 0, "c1": 0},
        "test": {"c0": 3, "c1": 0},
    }
    assert table.class_counts(0, 0, of="patient")["train"] == {"c0": 1, "c1": 2}


def test_joined_repeats_are_one_table_and_different_kinds_are_not():
    items = cohort()
    first, second = (stratified_folds(items, 3, repeat=repeat) for repeat in (0, 1))
    both = SplitTable.joined([first, second])
    assert both.folds == tuple((repeat, fold) for repeat in range(2) for fold in range(3))
    assert as_sets(both) == as_sets(first) | as_sets(second)
    with pytest.raises(EvaluationError, match="stand twice"):
        SplitTable.joined([first, first])
    with pytest.raises(ValueError, match="one kind"):
        SplitTable.joined([first, leave_one_out(items)])


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(-1, 2), st.integers(-1, 2)), min_size=1, max_size=30),
)
def test_stands_in_two_is_what_a_loop_finds(rows):
    codes = np.array([row[0] for row in rows]) - 1  # some belong to no group
    parts = np.array([row[1:] for row in rows])
    expected = [
        any(len({part for part in parts[codes == group, j].tolist() if part >= 0}) > 1 for j in range(2))
        for group in range(codes.max() + 1)
    ]
    assert stands_in_two(codes, parts).tolist() == expected


def test_the_golden_leaking_patient_is_found(golden):
    case = golden["leak_patient_in_two_folds"]
    names, codes = coded(case["input"]["patient"])
    apart = stands_in_two(codes, np.array(case["input"]["fold"])[:, None])
    assert [name for name, mark in zip(names, apart, strict=True) if mark] == case["expected"]["leaking"]
    assert apart[codes].sum() == case["expected"]["n_items"]


def test_classes_that_are_numbers_are_ordered_as_numbers():
    assert ordered_classes(["10", "9", "", "2"]) == ["2", "9", "10"]
    assert ordered_classes(["10", "9", "b"]) == ["10", "9", "b"]


SPLITTERS = {
    "folds": lambda items: stratified_folds(items, 3, repeat=2, val_share=0.25),
    "folds without shuffling": lambda items: stratified_folds(items, 4),
    "monte-carlo": lambda items: monte_carlo(items, 3, test_share=0.3, val_share=0.2, seed=1),
    "leave one patient out": leave_one_out,
    "leave one site out": lambda items: leave_one_out(items, "site"),
    "inner": lambda items: nested(items, 3, 2).inner[1],
}


@pytest.mark.parametrize("name", SPLITTERS)
def test_the_order_of_items_changes_no_split(name):
    items = cohort(14, 3)
    order = np.random.default_rng(0).permutation(len(items))
    first, second = SPLITTERS[name](items), SPLITTERS[name](items.take(order))
    assert as_sets(first) == as_sets(second)
    assert as_sets(first) == as_sets(SPLITTERS[name](items))
    assert first.warnings == second.warnings


def merged(units: list[str], items: SplitItems) -> set[frozenset[str]]:
    """Items that must stand together, merged until nothing changes: of one unit, or slides of one picture."""
    together = [{i} for i in range(len(units))]
    for _ in units:
        for i, j in np.argwhere(
            [
                [
                    units[i] == units[j] or (items.picture[i] == items.picture[j] and len(slides_of(items, i)) > 1)
                    for j in range(len(units))
                ]
                for i in range(len(units))
            ]
        ):
            together[i] = together[j] = together[i] | together[j]
    return {frozenset(items.item[sorted(own)]) for own in together}


def slides_of(items: SplitItems | SplitTable, row: int) -> set[str]:
    return {slide for slide, shown in zip(items.slide, items.picture, strict=True) if shown == items.picture[row]}


@settings(max_examples=25)
@given(st.lists(st.tuples(*(st.integers(0, 5) for _ in range(2)), st.integers(0, 3)), min_size=3, max_size=12))
def test_units_that_share_a_picture_are_held_out_together(rows):
    slide = [f"s{a}" for a, _, _ in rows]  # a slide may hold tiles of several patients
    items = SplitItems.of(
        item=[f"t{i:02d}" for i in range(len(rows))],
        slide=slide,
        patient=[f"p{b}" for _, b, _ in rows],
        picture=[f"s{a % (c + 1)}" for a, _, c in rows],
    )
    for unit, column in (("patient", items.patient), ("slide", items.slide)):
        expected = merged(column.tolist(), items)
        joined = joined_by_pictures(column, items)
        assert {frozenset(items.item[joined == name]) for name in set(joined)} == expected
        for name in set(joined):
            assert name == min(column[joined == name])
        if len(expected) < 2:
            with pytest.raises(EvaluationError, match=rf"leaving one {unit} out needs .*only {min(column)}"):
                leave_one_out(items, unit)
            continue
        table = leave_one_out(items, unit)
        assert {frozenset(table.item[table.rows(*key, "test")]) for key in table.folds} == expected
        assert any("show the same picture" in said for said in table.warnings) == (len(expected) < len(set(column)))


def test_patients_of_one_picture_are_named_as_one():
    items = replace(cohort(6, 1), picture=np.array(["a", "a", "s002", "a", "b", "b"], dtype=object))
    table = stratified_folds(items, 2, allow_missing_class=True)
    assert table.warnings[0] == ("patients that show the same picture are held out as one: p00 = p01 = p03, p04 = p05")
    told = replace(items, group=np.array(["p00", "p00", "p02", "p00", "p04", "p04"], dtype=object))
    assert not any("picture" in said for said in stratified_folds(told, 2, allow_missing_class=True).warnings)


@pytest.mark.parametrize("name", [*SPLITTERS, "preserved sites"])
def test_no_way_of_dividing_parts_two_slides_of_one_picture(name):
    items = cohort(24, 2, n_sites=6)
    picture = items.slide.copy()
    picture[[5, 10, 21]], picture[[30, 46]] = "x", "s030"
    items = replace(items, picture=picture)
    split = SPLITTERS.get(name, lambda items: preserved_site_folds(items, 2, seconds=0.2)[0])
    table = split(items)
    for key in table.folds:
        rows = table.rows(*key)
        for shown in ("x", "s030"):
            assert len(set(table.part[rows[table.picture[rows] == shown]])) <= 1
    assert any("show the same picture" in said for said in table.warnings)


@pytest.mark.parametrize("unit", ["patient", "slide"])
def test_a_table_with_one_picture_in_two_parts_is_refused_and_names_the_rows(unit):
    items = SplitItems.of(slide=["a", "b", "c", "d"], patient=list("pqrs"), picture=["", "", "a", ""])
    assert items.picture.tolist() == ["a", "b", "a", "d"]
    parts = {(0, 0): np.array(["train", "val", "test", "test"], dtype=object)}
    said = (
        r"1 picture stands in two parts of repeat 0, fold 0, 2 rows in all; "
        r"picture a: row 0 \(a, train\), row 2 \(c, test\)\. Put all rows of a picture into one part"
    )
    with pytest.raises(EvaluationError, match=said):
        SplitTable.of_parts(items, parts, unit=unit)
    assert len(SplitTable.of_parts(replace(items, picture=items.slide), parts, unit=unit)) == 4


def test_patients_on_one_slide_may_be_divided_unless_it_has_a_twin():
    tiles = SplitItems.of(item=list("123"), slide=["array", "array", "b"], patient=["p", "q", "r"])
    assert len(leave_one_out(tiles).folds) == 3
    twin = replace(tiles, picture=np.array(["array", "array", "array"], dtype=object))
    with pytest.raises(EvaluationError, match=r"only p; patients that show the same picture .* p = q = r"):
        leave_one_out(twin)
    parts = {(0, 0): np.array(["train", "test", ""], dtype=object)}
    assert len(SplitTable.of_parts(twin, parts)) == 2  # of the rows of this table one slide shows it


def test_a_picture_of_slides_unknown_is_taken_for_several():
    columns = {"item": ["1", "2"], "slide": ["", ""], "patient": ["p", "q"], "picture": ["x", "x"]}
    columns |= {"repeat": [0, 0], "fold": [0, 0], "part": ["train", "test"]}
    with pytest.raises(EvaluationError, match="1 picture stands in two parts"):
        SplitTable.of_columns(columns)
    unknown = SplitTable.of_columns(columns | {"picture": ["", ""]})
    assert shared_pictures(unknown)[0] == []
    assert shared_pictures(replace(unknown, slide=np.array(["a", "b"], object)))[1].tolist() == [-1, -1]


def test_pictures_survive_arrow_and_stay_in_inner_folds():
    items = replace(cohort(12, 1), picture=np.array(["a", "s001", "a", *cohort(12, 1).slide[3:]], dtype=object))
    table = stratified_folds(items, 3)
    assert as_sets(SplitTable.from_arrow(table.to_arrow())) == as_sets(table)
    for inner in inner_folds(table, 2):
        assert set(zip(inner.item, inner.picture, strict=True)) <= set(zip(items.item, items.picture, strict=True))


def test_tests_that_overlap_are_told_by_their_kind():
    items = cohort(12, 1)
    folds = [stratified_folds(items, 3, repeat=repeat) for repeat in range(2)]
    assert overlapping_tests(folds[0]) == overlapping_tests(leave_one_out(items)) == ()
    assert overlapping_tests(SplitTable.joined(folds))[0].startswith("test parts overlap (repeated folds): compare by")
    drawn = monte_carlo(items, 20)
    assert overlapping_tests(drawn)[0].startswith("test parts overlap (Monte-Carlo, as CLAM's")
    in_one_repeat = replace(drawn, repeat=drawn.fold, fold=drawn.repeat)
    assert overlapping_tests(in_one_repeat) == overlapping_tests(drawn)
    names = np.array(list("abcd"), dtype=object)
    tested = {(0, 0): "ab", (0, 1): "bc", (1, 0): "ac", (1, 1): "ad"}  # twice on average, but not once a repeat
    parts = {key: np.where(np.isin(names, list(own)), "test", "train") for key, own in tested.items()}
    table = SplitTable.of_parts(SplitItems.of(slide=names, patient=names), parts)
    assert overlapping_tests(table) == overlapping_tests(drawn)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 2)), min_size=12, max_size=60),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.2, 0.5]),
    st.integers(0, 2),
)
def test_folds_test_each_item_once_and_divide_no_patient(rows, n_folds, val_share, repeat):
    patient, label = np.array(rows).T
    if len(np.unique(patient)) < n_folds:
        return
    items = SplitItems.of(slide=[f"s{i}" for i in range(len(rows))], patient=patient, label=label)
    table = stratified_folds(items, n_folds, repeat=repeat, val_share=val_share, allow_missing_class=True)
    assert sorted(table.item[table.part == "test"]) == sorted(items.item)
    assert len(table) == len(items) * len(table.folds)
    assert len(table.folds) == n_folds
    for key in table.folds:
        parts = [set(table.patient[table.rows(*key, part)]) for part in ("train", "val", "test")]
        assert parts[0]
        assert parts[2]
        assert len(set.union(*parts)) == sum(map(len, parts))
    assert table.warnings == missing_classes(table)


def test_a_validation_part_is_that_share_of_each_class():
    table = stratified_folds(cohort(40, 2), 5, val_share=0.25)
    for fold in range(5):
        counts = table.class_counts(0, fold, of="patient")
        assert counts == {"train": {"c0": 12, "c1": 12}, "val": {"c0": 4, "c1": 4}, "test": {"c0": 4, "c1": 4}}
    assert len({tuple(table.item[table.rows(0, fold, "val")]) for fold in range(5)}) == 5


def test_a_class_with_fewer_patients_than_folds_is_named_unless_allowed():
    items = cohort(12, 2)
    label = items.label.copy()
    label[items.patient == "p00"] = "rare"
    label[1:2] = "c0"
    items = replace(items, label=label)
    with pytest.raises(EvaluationError, match=r"too few patients for 4 folds, 4 of each class .*class rare \(1\)"):
        stratified_folds(items, 4)
    table = stratified_folds(items, 4, allow_missing_class=True)
    assert any("no item of class rare in" in warning for warning in table.warnings)
    assert not any("class c0" in warning for warning in table.warnings)
    with pytest.raises(EvaluationError, match="12 patients cannot fill 13 folds"):
        stratified_folds(items, 13, allow_missing_class=True)


def test_items_without_label_are_not_silently_a_class():
    items = replace(cohort(), label=np.array(["", *cohort().label[1:]], dtype=object))
    for split in (stratified_folds, monte_carlo, nested):
        with pytest.raises(EvaluationError, match="1 of 24 items have no label: s000"):
            split(items)
    assert len(leave_one_out(items).folds) == 12


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda items: stratified_folds(items, 1), "n_folds >= 2"),
        (lambda items: stratified_folds(items, repeat=-1), "repeat >= 0"),
        (lambda items: stratified_folds(items, val_share=1.0), "val_share must lie"),
        (lambda items: monte_carlo(items, 0), "n_repeats >= 1"),
        (lambda items: monte_carlo(items, test_share=0), "test_share > 0"),
        (lambda items: monte_carlo(items, test_share=1.5), "test_share must lie"),
        (lambda items: leave_one_out(items, "scanner"), "unit must be one of"),
        (lambda items: nested(items, 3, 1), "n_inner >= 2"),
    ],
)
def test_impossible_arguments_are_refused(call, match):
    with pytest.raises(ValueError, match=match):
        call(cohort())


def test_monte_carlo_takes_its_share_of_each_class_and_overlaps():
    table = monte_carlo(cohort(30, 2), 8, test_share=0.2, val_share=0.25, seed=3)
    assert table.folds == tuple((repeat, 0) for repeat in range(8))
    for key in table.folds:
        counts = table.class_counts(*key, of="patient")
        assert counts == {"train": {"c0": 9, "c1": 9}, "val": {"c0": 3, "c1": 3}, "test": {"c0": 3, "c1": 3}}
    tested = [frozenset(table.patient[table.rows(*key, "test")]) for key in table.folds]
    assert len(set(tested)) > 1
    assert len(frozenset.union(*tested)) < sum(map(len, tested))
    assert as_sets(table) != as_sets(monte_carlo(cohort(30, 2), 8, test_share=0.2, val_share=0.25, seed=4))
    few = monte_carlo(cohort(30, 2), 3, test_share=0.2, val_share=0.25, seed=3)  # more repeats change no earlier one
    assert as_sets(few) == {row for row in as_sets(table) if row[COLUMNS.index("repeat")] < 3}


def test_a_large_share_leaves_a_patient_of_each_class():
    table = monte_carlo(cohort(8, 1), 2, test_share=0.9, val_share=0.9)
    counts = table.class_counts(1, 0)
    assert counts == {"train": {"c0": 1, "c1": 1}, "val": {"c0": 0, "c1": 0}, "test": {"c0": 3, "c1": 3}}


def test_every_patient_is_drawn_alike():
    table = monte_carlo(cohort(20, 1), 100, test_share=0.2)
    n_times = np.unique(table.patient[table.part == "test"], return_counts=True)[1]
    assert len(n_times) == 20
    spread = np.sqrt(100 * 0.2 * 0.8)
    assert np.abs(n_times - 20).max() < 4 * spread


def test_a_patient_of_two_labels_counts_by_majority_and_ties_go_to_the_highest_class():
    label = {"a": "121", "b": "12", "c": "11", "d": "22", "e": "2"}
    rows = [(patient, one) for patient, text in label.items() for one in text]
    items = SplitItems.of(
        slide=[f"s{i}" for i in range(len(rows))], patient=[p for p, _ in rows], label=[one for _, one in rows]
    )
    table = monte_carlo(items, 40, test_share=0.5)  # class 1: a, c; class 2: b, d, e: one and two are tested
    tested = [set(table.patient[table.rows(*key, "test")]) for key in table.folds]
    assert {frozenset(found & {"a", "c"}) for found in tested} == {frozenset("a"), frozenset("c")}
    assert {frozenset(found & {"b", "d", "e"}) for found in tested} == {
        frozenset("bd"),
        frozenset("be"),
        frozenset("de"),
    }


def test_monte_carlo_names_a_class_that_does_not_go_round():
    items = replace(cohort(6, 1), label=np.array(["a", "a", "a", "a", "b", "b"], dtype=object))
    assert monte_carlo(items, 2).warnings == ()
    with pytest.raises(EvaluationError, match=r"too few patients for 3 parts, 3 of each class .*class b \(2\)"):
        monte_carlo(items, 2, val_share=0.2)
    table = monte_carlo(items, 1, val_share=0.2, allow_missing_class=True)
    assert table.warnings == ("no item of class b in val of repeat 0 fold 0",)


@pytest.mark.parametrize("unit", ["patient", "site", "slide"])
def test_leave_one_out_tests_each_unit_alone(unit):
    items = cohort(9, 2)
    table = leave_one_out(items, unit)
    column = getattr(table, unit)
    tested = [set(column[table.rows(*key, "test")]) for key in table.folds]
    assert [len(found) for found in tested] == [1] * len(set(column))
    assert set().union(*tested) == set(column)
    for key, found in zip(table.folds, tested, strict=True):
        assert not found & set(column[table.rows(*key, "train")])
        assert len(table.rows(*key)) == len(items)
    assert bool(table.warnings) == (unit == "slide")


def test_leave_one_out_names_what_is_missing():
    items = cohort(4, 2, n_classes=2, n_sites=2)
    with pytest.raises(EvaluationError, match=r"leaving one site out needs at least 3 .* only h0, h1"):
        leave_one_out(items, "site")
    with pytest.raises(EvaluationError, match="8 of 8 items have no site"):
        leave_one_out(replace(items, site=np.full(8, "", dtype=object)), "site")
    with pytest.raises(EvaluationError, match="only p00"):
        leave_one_out(items.take(np.arange(2)))
    apart = replace(cohort(9, 2), site=np.array([f"h{i % 3}" for i in range(18)], dtype=object))
    with pytest.raises(EvaluationError, match=r"stands? in two parts"):
        leave_one_out(apart, "site")


def test_a_group_is_left_out_whole():
    items = replace(cohort(6, 1), group=np.array(["p00", "p00", "p02", "p03", "p04", "p05"], dtype=object))
    table = leave_one_out(items)
    assert len(table.folds) == 5
    assert set(table.patient[table.rows(0, 0, "test")]) == {"p00", "p01"}


def test_inner_folds_choose_on_what_the_test_part_leaves():
    split = nested(cohort(15, 2), 3, 2)
    for key in split.outer.folds:
        tested = set(split.outer.patient[split.outer.rows(*key, "test")])
        inner = split.inner_of(*key)
        assert len(inner.folds) == 2
        assert set(inner.part) == {"train", "val"}
        assert not tested & set(inner.patient)
        assert len(set(inner.patient)) == 15 - len(tested)
        assert sorted(inner.item[inner.part == "val"]) == sorted(set(inner.item))


def test_labels_of_the_test_part_decide_nothing_inside():
    outer = stratified_folds(cohort(20, 2), 4, val_share=0.2)
    label = outer.label.copy()
    tested = np.flatnonzero(outer.part == "test")
    label[tested] = np.random.default_rng(1).permutation([f"new{i % 3}" for i in range(len(tested))])
    n_left = [len(outer.rows(*key)) - len(outer.rows(*key, "test")) for key in outer.folds]
    assert [len(table) for table in inner_folds(outer, 3)] == [3 * n for n in n_left]  # with the validation part
    before, after = inner_folds(outer, 3), inner_folds(replace(outer, label=label), 3)
    assert [as_sets(table) for table in before] == [as_sets(table) for table in after]


def test_inner_folds_keep_what_the_outer_split_keeps_whole():
    by_slide = inner_folds(leave_one_out(cohort(2, 4, n_classes=1), "slide"), 3)
    assert {table.unit for table in by_slide} == {"slide"}
    by_site = inner_folds(leave_one_out(cohort(12, 2), "site"), 2)
    assert {table.unit for table in by_site} == {"patient"}
    with pytest.raises(EvaluationError, match="too few patients for 4 folds"):
        nested(cohort(8, 1), 4, 4)
