"""CLAM's split files: byte by byte there and back, and never a patient on both sides unseen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.errors import EvaluationError
from histokin.evaluate.splits import (
    ClamSplit,
    SplitItems,
    clam_split_of,
    import_clam_splits,
    leave_one_out,
    parse_clam_descriptor,
    parse_clam_split,
    render_clam_descriptor,
    render_clam_split,
    stratified_folds,
)

# As pandas writes the frames of CLAM's save_splits: shorter columns end in empty cells.
LISTS = ",train,val,test\n0,normal_003,normal_081,test_057\n1,tumor_001,,test_128\n2,tumor_002,,\n"
TRUTHS = (
    ",train,val,test\nnormal_003,True,False,False\ntumor_001,True,False,False\ntumor_002,True,False,False\n"
    "normal_081,False,True,False\ntest_057,False,False,True\ntest_128,False,False,True\n"
)
SPLIT = ClamSplit(("normal_003", "tumor_001", "tumor_002"), ("normal_081",), ("test_057", "test_128"))
DESCRIPTOR = ",train,val,test\nnormal_tissue,1,1,1\ntumor_tissue,2,0,1\n"


def cohort() -> SplitItems:
    """Eight slides of four patients, two sites."""
    return SplitItems.of(
        slide=[f"s{i}" for i in range(8)],
        patient=[f"p{i // 2}" for i in range(8)],
        label=[f"c{i // 4}" for i in range(8)],
        site=[f"h{i // 4}" for i in range(8)],
    )


WHOLE = ClamSplit(("s0", "s1", "s4", "s5"), ("s2", "s3"), ("s6", "s7"))
TORN = ClamSplit(("s0", "s2", "s4", "s5"), ("s1", "s3"), ("s6", "s7"))


@pytest.mark.parametrize(("text", "form"), [(LISTS, "lists"), (TRUTHS, "bool")])
def test_both_forms_are_read_and_written_byte_by_byte(text, form):
    assert parse_clam_split(text) == SPLIT
    assert render_clam_split(SPLIT, form) == text


def test_the_descriptor_counts_slides_by_class():
    labels = {"normal_003": "normal_tissue", "normal_081": "normal_tissue", "test_057": "normal_tissue"}
    labels |= dict.fromkeys(("tumor_001", "tumor_002", "test_128"), "tumor_tissue")
    assert render_clam_descriptor(SPLIT, labels) == DESCRIPTOR
    assert parse_clam_descriptor(DESCRIPTOR)["tumor_tissue"] == {"train": 2, "val": 0, "test": 1}
    with pytest.raises(KeyError, match="tumor_002"):
        render_clam_descriptor(SPLIT, {name: label for name, label in labels.items() if name != "tumor_002"})


ids = st.text("abcTF-_. ,\"'é19", min_size=1).filter(lambda name: name == name.strip())


@given(st.lists(ids, unique=True), st.integers(0, 2**30), st.sampled_from(["lists", "bool"]))
def test_any_ids_survive_the_way_there_and_back(names, seed, form):
    parts = np.random.default_rng(seed).integers(0, 3, len(names))
    split = ClamSplit(*(tuple(n for n, p in zip(names, parts, strict=True) if p == part) for part in range(3)))
    assert parse_clam_split(render_clam_split(split, form)) == split


@pytest.mark.parametrize(
    "text",
    [
        LISTS.replace("\n", "\r\n"),
        "\ufeff" + LISTS,
        LISTS + "\n",
        "train,val,test\nnormal_003,normal_081,test_057\ntumor_001,,test_128\ntumor_002,,\n",
        ",train,val,test\n0,normal_003,normal_081,test_057\n1,tumor_001,,test_128\n2,tumor_002\n",
        TRUTHS + "left_out,False,False,False\n",
    ],
)
def test_files_that_other_tools_touched_are_read_alike(text):
    assert parse_clam_split(text) == SPLIT


def test_a_file_without_rows_has_empty_parts():
    assert parse_clam_split(",train,val,test\n") == ClamSplit((), (), ())


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "the header is ''"),
        ("slide,part\na,train\n", "the header is 'slide,part'"),
        (",train,test,val\n0,a,b,c\n", "the header is ',train,test,val'"),
        (LISTS + "3,a,b,c,d\n", "line 5 has 5 cells"),
        (TRUTHS + "x,True,False,True\n", "line 8 puts x into train and test"),
    ],
)
def test_what_is_no_split_is_refused(text, match):
    with pytest.raises(EvaluationError, match=match):
        parse_clam_split(text)


@pytest.mark.parametrize(
    "text", [LISTS, ",train,val\na,1,2\n", ",train,val,test\na,1,2\n", ",train,val,test\na,1,2,-3\n"]
)
def test_what_is_no_descriptor_is_refused(text):
    with pytest.raises(EvaluationError, match="no table of classes"):
        parse_clam_descriptor(text)


def test_unknown_forms_are_refused():
    with pytest.raises(ValueError, match="form must be lists or bool"):
        render_clam_split(SPLIT, "onehot")


def test_our_folds_are_clams_files_and_come_back_the_same():
    items = cohort()
    table = stratified_folds(items, 2, val_share=0.4)
    splits = [parse_clam_split(render_clam_split(clam_split_of(table, 0, fold))) for fold in range(2)]
    back = import_clam_splits(splits, items)
    names = ("item", "patient", "site", "label", "repeat", "fold", "part")
    rows = [set(zip(*(getattr(t, name).tolist() for name in names), strict=True)) for t in (table, back)]
    assert rows[0] == rows[1]
    assert (back.kind, back.unit, back.warnings) == ("CLAM, folds", "patient", ())


def test_tiles_are_listed_as_their_slides():
    tiles = SplitItems.of(slide=["a", "a", "b"], patient=["p", "p", "q"], item=["a1", "a2", "b1"])
    assert clam_split_of(leave_one_out(tiles), 0, 0) == ClamSplit(("b",), (), ("a",))
    shared = replace(tiles, patient=np.array(["p", "r", "q"], dtype=object), group=np.array(["p", "r", "q"], object))
    with pytest.raises(EvaluationError, match="tiles of one slide stand in several parts: a"):
        clam_split_of(leave_one_out(shared), 0, 0)


def test_a_split_by_slide_is_refused_and_names_its_patients():
    with pytest.raises(EvaluationError, match="2 patients have slides in two parts of a split: p0, p1"):
        import_clam_splits([TORN], cohort())
    table = import_clam_splits([TORN], cohort(), allow_shared_patients=True)
    assert table.unit == "slide"
    assert table.warnings == ("2 patients have slides in two parts of a split: p0, p1",)
    assert table.item[table.rows(0, 0, "val")].tolist() == ["s1", "s3"]


def test_slides_of_one_picture_in_two_parts_are_refused():
    twins = replace(cohort(), group=np.array(["p0"] * 2 + ["p1"] * 4 + ["p3"] * 2, dtype=object))
    with pytest.raises(EvaluationError, match="1 patients have slides in two parts of a split: p1"):
        import_clam_splits([WHOLE], twins)


@pytest.mark.parametrize("is_allowed", [False, True])
def test_one_picture_under_two_names_is_in_no_case_imported_into_two_parts(is_allowed):
    items = cohort()
    twins = replace(items, picture=np.where(items.slide == "s7", "s0", items.slide))
    with pytest.raises(EvaluationError, match=r"picture s0: row 0 \(s0, train\), row 7 \(s7, test\)"):
        import_clam_splits([WHOLE], twins, allow_shared_patients=is_allowed)
    apart = replace(WHOLE, test=("s6",))
    assert import_clam_splits([apart], twins).warnings == ("split 0 leaves out 1 of 8 slides of the cohort",)


def test_a_patient_may_change_parts_between_files():
    other = ClamSplit(WHOLE.test, WHOLE.val, WHOLE.train)
    table = import_clam_splits([WHOLE, other], cohort())
    assert table.folds == ((0, 0), (0, 1))
    assert table.kind == "CLAM, folds"


def test_overlapping_test_parts_are_monte_carlo_repeats():
    other = ClamSplit(WHOLE.val + WHOLE.train[:2], WHOLE.train[2:], WHOLE.test)
    table = import_clam_splits([WHOLE, other], cohort())
    assert table.folds == ((0, 0), (1, 0))
    assert table.kind == "CLAM, monte-carlo"
    said = "test parts overlap (Monte-Carlo, as CLAM's splits are by design): compare by Nadeau-Bengio, never by sd"
    assert table.warnings == (f"{said} / sqrt(R)",)


def test_slides_that_a_file_leaves_out_are_counted():
    table = import_clam_splits([replace(WHOLE, val=())], cohort())
    assert table.warnings == ("split 0 leaves out 2 of 8 slides of the cohort",)
    assert len(table) == 6


def test_unknown_slides_and_slides_named_twice_are_refused_by_name():
    with pytest.raises(EvaluationError, match="split 1 names slides that the cohort does not have: s9, t1"):
        import_clam_splits([WHOLE, replace(WHOLE, val=("s9", "t1"))], cohort())
    with pytest.raises(EvaluationError, match=r"split 0 names slides twice: s0 \(train and val\)"):
        import_clam_splits([replace(WHOLE, val=("s0", "s2"))], cohort(), allow_shared_patients=True)
    with pytest.raises(ValueError, match="no splits"):
        import_clam_splits([], cohort())
    tiles = SplitItems.of(slide=["a", "a"], patient=["p", "p"], item=["1", "2"])
    with pytest.raises(EvaluationError, match="several items a slide"):
        import_clam_splits([WHOLE], tiles)


def test_endings_are_taken_off_and_dots_within_ids_stay():
    tcga = "TCGA-AA-0001-01Z-00-DX1.8F3A"
    slides = SplitItems.of(slide=[tcga, "b.svs", "c", "c.h5", "e.svs", "e.tif"], patient=list("pqrrss"))
    split = ClamSplit((f"{tcga}.svs",), ("b",), ("c", "c.h5"))
    table = import_clam_splits([split], slides)
    assert dict(zip(table.slide, table.part, strict=True)) == {
        tcga: "train",
        "b.svs": "val",
        "c": "test",
        "c.h5": "test",
    }
    with pytest.raises(EvaluationError, match="does not have: TCGA-AA-0001-01Z-00-DX1"):
        import_clam_splits([ClamSplit(("TCGA-AA-0001-01Z-00-DX1",), (), ())], slides)
    with pytest.raises(EvaluationError, match=r"does not have: d\.tif"):
        import_clam_splits([ClamSplit(("d.tif",), (), ())], slides)
    with pytest.raises(EvaluationError, match=r"does not have: e\. Import"):
        import_clam_splits([ClamSplit(("e",), (), ())], slides)  # which of the two is not said
