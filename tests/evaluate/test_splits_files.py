"""Split tables as CSV text: there and back whatever they hold, and every bad cell named by line and column."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.errors import EvaluationError
from histokin.evaluate.splits import SplitItems, SplitTable, leave_one_out, splits_csv, splits_from_csv
from histokin.evaluate.splits.table import joined_by_pictures

COLUMNS = ("item", "group", "slide", "patient", "site", "label", "picture", "repeat", "fold", "part")
TEXT = (
    "item,slide,patient,site,label,repeat,fold,part\n"
    "a,a,p,h,tumour,0,0,train\n"
    "b,b,p,h,normal,0,0,train\n"
    "c,c,q,,tumour,0,0,val\n"
    "d,d,r,k,,0,0,test\n"
)
names = st.text("abN ,;\"'\n\r\té_-.19\ufeff", min_size=1, max_size=4)


def as_rows(table: SplitTable) -> list[tuple]:
    return list(zip(*(getattr(table, name).tolist() for name in COLUMNS), strict=True))


@st.composite
def tables(draw):
    """Tables by patient, site or slide, of any names, with or without groups and twins."""
    n = draw(st.integers(2, 6))
    texts, ids = (st.lists(names, min_size=n, max_size=n, unique=unique) for unique in (False, True))
    unit, slide = draw(st.sampled_from(["patient", "site", "slide"])), draw(ids)
    items = SplitItems.of(
        item=draw(st.none() | ids),
        slide=slide,
        patient=draw(texts),
        label=draw(texts),
        group=draw(st.none() | (texts if unit == "slide" else st.just(["all"] * n))),
        picture=draw(st.none() | st.lists(st.sampled_from(["", *slide]), min_size=n, max_size=n)),
    )
    items = replace(items, site=items.group)
    together = joined_by_pictures(items.slide if unit == "slide" else items.group, items)
    parts = {}
    for key in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), min_size=1, max_size=3, unique=True)):
        chosen = {name: draw(st.sampled_from(["train", "val", "test"])) for name in dict.fromkeys(together)}
        parts[key] = np.array([chosen[name] for name in together], dtype=object)
    return SplitTable.of_parts(items, parts, unit=unit)


@given(tables())
def test_any_table_survives_the_way_there_and_back(table):
    text = splits_csv(table)
    back = splits_from_csv(text)
    assert as_rows(back) == as_rows(table)
    assert (back.unit, back.kind, back.warnings) == (table.unit, "given", ())
    assert splits_csv(back) == text
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(row["item"], row["part"]) for row in read] == list(zip(table.item, table.part, strict=True))
    assert ("picture" in read[0]) == (table.picture.tolist() != table.slide.tolist())


def test_the_text_is_one_line_a_row_and_columns_that_say_nothing_are_left_out():
    table = splits_from_csv(TEXT, kind="CLAM, folds", warnings=["beware"])
    assert (table.unit, table.kind, table.warnings) == ("patient", "CLAM, folds", ("beware",))
    assert (table.picture == table.slide).all()
    assert (table.group == table.patient).all()
    assert splits_csv(table) == TEXT
    twins = replace(table, picture=np.array(["a", "a", "c", "d"], dtype=object), unit="slide")
    first, second, *_ = splits_csv(twins).splitlines()
    assert first == "item,slide,patient,site,label,repeat,fold,part,picture,unit"
    assert second == "a,a,p,h,tumour,0,0,train,a,slide"


@pytest.mark.parametrize(
    "text",
    [
        TEXT.replace("\n", "\r\n"),
        "\ufeff" + TEXT,
        TEXT.replace("\na", "\n\na") + "\n",
        "part,fold,repeat,label,site,patient,slide,item\n"
        + "".join(",".join(reversed(line.split(","))) + "\n" for line in TEXT.splitlines()[1:]),
        "".join(f"{line},{end}\n" for line, end in zip(TEXT.splitlines(), ["unit", *["patient"] * 4], strict=True)),
        "".join(f"{line},{end}\n" for line, end in zip(TEXT.splitlines(), ["group", *"ppqr"], strict=True)),
    ],
)
def test_files_that_other_tools_touched_are_read_alike(text):
    assert as_rows(splits_from_csv(text)) == as_rows(splits_from_csv(TEXT))


def test_site_and_label_may_be_missing():
    bare = "".join(",".join(np.array(line.split(","))[[0, 1, 2, 5, 6, 7]]) + "\n" for line in TEXT.splitlines())
    table = splits_from_csv(bare)
    assert set(table.site) == set(table.label) == {""}
    assert table.part.tolist() == splits_from_csv(TEXT).part.tolist()


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("b,b,p,h,normal,0,0,train", "b,b,p,h,normal,zero,0,train", "line 3, column repeat holds 'zero'"),
        ("c,c,q,,tumour,0,0,val", "c,c,q,,tumour,0,-1,val", "line 4, column fold holds '-1'"),
        ("c,c,q,,tumour,0,0,val", "c,c,q,,tumour,0,1.5,val", r"line 4, column fold holds '1\.5'"),
        ("d,d,r,k,,0,0,test", "d,d,r,k,,0,,test", "line 5, column fold is empty"),
        ("d,d,r,k,,0,0,test", "d,d,r,k,,0,0,tests", "line 5, column part holds 'tests'.*Use train, val, test"),
        ("d,d,r,k,,0,0,test", "d,d,,k,,0,0,test", "line 5, column patient is empty"),
        ("b,b,p,", ",b,p,", "line 3, column item is empty"),
        ("b,b,p,h,normal", '"b\nb",b,p,h,normal,x', "line 4 has 9 cells, the header 8"),
        ("b,b,p,h,normal", 'b,b,p,h,"nor"mal', "line 3 is no line of a CSV"),
        (",part\n", ",Part\n", "line 1: columns are missing: part"),
        ("item,slide", "item,item,slide", "line 1: columns are there twice: item"),
        (",part\n", ",part,picure\n", "line 1: unknown columns: picure"),
        (TEXT, "", "line 1: columns are missing: item, slide"),
        ("\n".join(TEXT.splitlines()[1:]), "", "the split has no rows"),
        ("d,d,r,k", "d,d,p,k", r"rows counted from 0 below .*1 patient stands in two parts .*row 3 \(d, test\)"),
        ("d,d,r,k", "a,d,r,k", r"items stand twice in repeat 0, fold 0: row 0 \(a, train\), row 3"),
    ],
)
def test_what_cannot_be_read_is_named_by_line_and_column(old, new, match):
    assert TEXT.count(old) == 1
    with pytest.raises(EvaluationError, match=f"(?s)split file.*{match}"):
        splits_from_csv(TEXT.replace(old, new))


@pytest.mark.parametrize(
    ("units", "match"),
    [
        (["slide", "slide", "patient", "slide"], "line 4, column unit holds 'patient'"),
        (["section"] * 4, "line 2, column unit holds 'section'.*patient, site, slide"),
        (["site"] * 4, "line 4, column site is empty"),
    ],
)
def test_one_unit_is_named_for_the_whole_file(units, match):
    lines = zip(TEXT.splitlines(), ["unit", *units], strict=True)
    with pytest.raises(EvaluationError, match=match):
        splits_from_csv("".join(f"{line},{unit}\n" for line, unit in lines))


def test_a_split_by_slide_says_so_in_its_file_and_unknown_slides_are_refused():
    table = leave_one_out(SplitItems.of(slide=["a", "b"], patient=["p", "p"]), "slide")
    text = splits_csv(table)
    assert splits_from_csv(text).unit == "slide"
    with pytest.raises(EvaluationError, match="1 patient stands in two parts"):
        splits_from_csv(text.replace(",slide\n", ",patient\n"))
    with pytest.raises(EvaluationError, match="line 2, column slide is empty"):
        splits_from_csv(text.replace("a,a,", "a,,"))
