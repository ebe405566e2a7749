import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from histokin.cohort import Cohort, SlideRecord, TileRow, file_name_of
from histokin.cohort.records import given_tiles_path
from histokin.errors import CohortError, NoUsableSlide

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
LABELS = st.dictionaries(st.sampled_from(["label", "grade", "µ m", "label:x"]), st.text("ab1", min_size=1), max_size=3)
RECORDS = st.builds(
    SlideRecord, slide=TEXT, path=TEXT, patient=TEXT, site=TEXT, labels=LABELS,
    given_mpp=st.none() | st.sampled_from([0.25, 1, 2.0]), state=st.sampled_from(["ok", "missing"]), reason=TEXT,
    mpp=st.none() | st.floats(0.1, 2), width=st.integers(0, 2**40), twin_of=TEXT,
)  # fmt: skip
TILES = st.builds(TileRow, slide=TEXT, path=TEXT, x=st.integers(-9, 9), size=st.integers(0, 9), labels=LABELS)


@given(st.lists(RECORDS, max_size=4), st.lists(TILES, max_size=3), st.sampled_from(["slides", "tiles"]), st.lists(TEXT))
def test_a_cohort_comes_back_from_disk(tmp_path: Path, records: list, tiles: list, kind: str, notes: list) -> None:
    given_tiles = tuple(tiles) if kind == "tiles" else ()
    cohort = Cohort(tmp_path.resolve(), kind, tuple(records), given_tiles, tuple(notes))  # type: ignore[arg-type]
    cohort.save(tmp_path / "cohort.parquet")
    assert Cohort.load(tmp_path / "cohort.parquet") == cohort


def test_a_label_that_the_first_slide_lacks_is_not_lost(tmp_path: Path) -> None:
    records = (SlideRecord("a", "a"), SlideRecord("b", "b", labels={"grade": "2"}))
    Cohort(tmp_path, "slides", records).save(tmp_path / "c.parquet")
    assert Cohort.load(tmp_path / "c.parquet").records[1].labels == {"grade": "2"}


def test_equal_cohorts_give_equal_bytes_and_digests(tmp_path: Path) -> None:
    cohort = Cohort(tmp_path, "slides", (SlideRecord("a", "a", labels={"x": "1"}, mpp=0.5),))
    for name in ("1.parquet", "2.parquet"):
        cohort.save(tmp_path / name)
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert Cohort.load(tmp_path / "1.parquet").digest == cohort.digest
    changed = replace(cohort, records=(replace(cohort.records[0], patient="p"),))
    assert changed.digest != cohort.digest


def test_what_is_no_cohort_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cohort.parquet"
    with pytest.raises(CohortError, match="no cohort yet"):
        Cohort.load(path)
    for data in (b"", b"PAR1", b"text"):
        path.write_bytes(data)
        with pytest.raises(CohortError, match="cannot be read"):
            Cohort.load(path)
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(CohortError, match="no cohort file"):
        Cohort.load(path)
    meta = json.dumps({"format": "cohort", "format_version": "2.0", "root": "", "kind": "slides", "notes": []})
    pq.write_table(pa.table({"slide": ["a"]}).replace_schema_metadata({"histokin": meta}), path)
    with pytest.raises(CohortError, match=r"format 2\.0"):
        Cohort.load(path)


def test_given_tiles_that_are_gone_are_said_so(tmp_path: Path) -> None:
    Cohort(tmp_path, "tiles", (SlideRecord("a", "a"),), (TileRow("a", "a"),)).save(tmp_path / "c.parquet")
    given_tiles_path(tmp_path / "c.parquet").unlink()
    with pytest.raises(CohortError, match="cannot be read"):
        Cohort.load(tmp_path / "c.parquet")


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slide", "name"),
    [
        ("TCGA-A1.2_x (3)+", "TCGA-A1.2_x (3)+"),
        ("Ä-組織-007", "Ä-組織-007"),
        ("a/b", "a%2Fb"),
        ("../x", "%2E.%2Fx"),
        (".hidden", "%2Ehidden"),
        ("50%", "50%25"),
        ("a\nb", "a%0Ab"),
        ("'\"", "%27%22"),
        ("-dash", "-dash"),
        ("🧬", "%F0%9F%A7%AC"),
    ],
)
def test_file_names_by_hand(slide: str, name: str) -> None:
    assert file_name_of(slide) == name


@given(TEXT, TEXT)
def test_different_ids_have_different_file_names(first: str, second: str) -> None:
    assert (file_name_of(first) == file_name_of(second)) == (first == second)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300))
def test_every_id_gives_a_name_that_a_file_system_takes(tmp_path: Path, slide: str) -> None:
    name = file_name_of(slide)
    assert "/" not in name
    assert not name.startswith(".")
    path = tmp_path / f".{name}.parquet.4194304-0123456789abcdef.tmp.parquet"
    path.write_bytes(b"")
    path.unlink()


def test_long_ids_that_differ_at_the_end_keep_different_names() -> None:
    first, second = file_name_of("組" * 300 + "a"), file_name_of("組" * 300 + "b")
    assert first != second
    assert first.startswith("組" * 50)


# --- looking up -----------------------------------------------------------------------------------------------------


def test_an_unknown_slide_is_answered_with_the_nearest() -> None:
    cohort = Cohort(Path("r"), "slides", (SlideRecord("slide_01", "a"), SlideRecord("other", "b")))
    assert cohort.record("other").path == "b"
    with pytest.raises(CohortError, match=r"slide_1.*Did you mean slide_01\?"):
        cohort.record("slide_1")


def test_a_cohort_without_usable_slides_says_all_states_and_the_first_reason() -> None:
    bad = SlideRecord("a", "a").with_state("missing", "it is gone")
    with pytest.raises(NoUsableSlide, match=r"none of 2 slides.*2 missing.*a: it is gone"):
        Cohort(Path("r"), "slides", (bad, replace(bad, slide="b"))).require_usable()
    with pytest.raises(NoUsableSlide, match="no slide was found"):
        Cohort(Path("r"), "slides", ()).require_usable()


def test_updating_replaces_the_named_rows_and_keeps_the_order() -> None:
    records = tuple(SlideRecord(name, name) for name in "abc")
    cohort = Cohort(Path("r"), "slides", records).updated([records[1].with_state("damaged", "why")])
    assert [r.state for r in cohort.records] == ["ok", "damaged", "ok"]
    assert cohort.states == {"ok": 2, "damaged": 1}
    assert [r.slide for r in cohort.usable] == ["a", "c"]


def test_named_patients_are_counted_among_usable_slides() -> None:
    records = (SlideRecord("a", "a", patient="p"), SlideRecord("b", "b", patient="p"), SlideRecord("c", "c"),
               SlideRecord("d", "d"), SlideRecord("e", "e", patient="q").with_state("missing", ""))  # fmt: skip
    assert Cohort(Path(), "slides", records).n_patients == 1


def test_absolute_paths_stay_absolute() -> None:
    cohort = Cohort(Path("/data"), "slides", ())
    assert cohort.path_of(SlideRecord("a", "/else/a.svs")) == Path("/else/a.svs")
    assert cohort.path_of(TileRow("a", "b/a.png")) == Path("/data/b/a.png")
