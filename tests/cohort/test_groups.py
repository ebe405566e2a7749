from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from histokin.cohort import Cohort, SlideRecord, TileRow, leave_out_units


def cohort(*records: SlideRecord) -> Cohort:
    return Cohort(Path(), "slides", records)


def test_a_slide_without_patient_is_its_own_unit() -> None:
    found = leave_out_units(
        cohort(SlideRecord("a", "a"), SlideRecord("b", "b"), SlideRecord("c", "c", patient="p"))
    ).of_slide
    assert found == {"a": "slide:a", "b": "slide:b", "c": "p"}


def test_a_patient_called_like_a_slide_is_no_slide() -> None:
    found = leave_out_units(cohort(SlideRecord("a", "a"), SlideRecord("b", "b", patient="a"))).of_slide
    assert found["a"] != found["b"]


def test_twins_join_their_patients_through_any_chain() -> None:
    found = leave_out_units(
        cohort(
            SlideRecord("a", "a", patient="p"),
            SlideRecord("b", "b", patient="q", twin_of="a"),
            SlideRecord("c", "c", patient="q"),
            SlideRecord("d", "d", patient="r", twin_of="c"),
            SlideRecord("e", "e", patient="s"),
        )
    ).of_slide
    assert found == {"a": "p", "b": "p", "c": "p", "d": "p", "e": "s"}


@given(st.lists(st.tuples(st.sampled_from("pqrstu"), st.integers(-1, 8)), min_size=1, max_size=9))
def test_units_are_the_connected_components(rows: list[tuple[str, int]]) -> None:
    records = [
        SlideRecord(str(i), "", patient=p, twin_of=str(twin) if 0 <= twin < i else "")
        for i, (p, twin) in enumerate(rows)
    ]
    found = leave_out_units(cohort(*records)).of_slide
    group = {r.slide: {r.slide} for r in records}  # slow reference: merge until nothing changes
    for _ in records:
        for a in records:
            for b in records:
                if a.patient == b.patient or a.twin_of == b.slide or b.twin_of == a.slide:
                    merged = group[a.slide] | group[b.slide]
                    for slide in merged:
                        group[slide] = merged
    for a in records:
        for b in records:
            assert (found[a.slide] == found[b.slide]) == (b.slide in group[a.slide])


def test_twins_with_ready_tiles_of_several_patients_join_these_and_leave_others_alone() -> None:
    records = (
        SlideRecord("s1", ""),
        SlideRecord("s2", ""),
        SlideRecord("s3", ""),
        SlideRecord("s4", "", twin_of="s3"),
    )
    tiles = tuple(
        TileRow(s, "", patient=p) for s, p in (("s1", "A"), ("s2", "A"), ("s1", "B"), ("s3", "C"), ("s4", "D"))
    )
    units = leave_out_units(Cohort(Path(), "tiles", records, tiles))
    assert units.of_tile("s1", "A") == units.of_tile("s2", "A") == "A"
    assert units.of_tile("s1", "B") == "B"
    assert units.of_tile("s3", "C") == units.of_tile("s4", "D") == units.of_tile("s4", "")


def test_slides_of_the_same_content_count_as_one_picture() -> None:
    found = leave_out_units(
        cohort(
            SlideRecord("a", "a"),
            SlideRecord("b", "b", twin_of="a"),
            SlideRecord("c", "c", twin_of="b"),
            SlideRecord("d", "d"),
        )
    ).picture
    assert found == {"a": "a", "b": "a", "c": "a", "d": "d"}
