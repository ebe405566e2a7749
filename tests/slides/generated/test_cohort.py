import csv
import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
import openslide
import pytest

from histokin.slides.generated import (
    CLASSES,
    GeneratedCohortSpec,
    generate_cohort,
    plan_cohort,
    render_slide,
)

SPEC = GeneratedCohortSpec(n_patients=3, slides_per_patient=2, size=256, pen_every=4)


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    assert generate_cohort(folder, SPEC) == folder / "cohort.csv"
    return folder


def test_the_table_names_every_slide_and_its_truth(cohort):
    with (cohort / "cohort.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["slide", "path", "patient", "diagnosis", "site", "class_map"]
    assert [row["slide"] for row in rows] == ["P01_a", "P01_b", "P02_a", "P02_b", "P03_a", "P03_b"]
    assert [row["diagnosis"] for row in rows[::2]] == ["carcinoma", "inflammation", "benign"]
    for row in rows:
        assert (cohort / row["class_map"]).is_file()
        with openslide.OpenSlide(cohort / row["path"]) as slide:
            assert slide.dimensions == (256, 256)
            assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)


def test_the_truth_covers_the_slide_at_two_um(cohort):
    planned = plan_cohort(SPEC)[1]
    truth = cv2.imread(str(cohort / planned.class_map), cv2.IMREAD_UNCHANGED)
    assert truth.dtype == np.uint8
    assert truth.shape == (64, 64)
    np.testing.assert_array_equal(np.kron(truth, np.ones((4, 4), np.uint8)), render_slide(planned.spec).classes)
    names = json.loads((cohort / "truth" / "classes.json").read_text())
    assert names == {str(index): name for index, name in enumerate(CLASSES)}


def test_a_second_run_touches_no_slide(cohort):
    before = {p: p.stat().st_mtime_ns for p in cohort.glob("*/*.tiff")}
    generate_cohort(cohort, SPEC)
    assert {p: p.stat().st_mtime_ns for p in cohort.glob("*/*.tiff")} == before


@pytest.mark.parametrize("lost", ["slides/P02_a.tiff", "truth/P02_a.png", ".receipts/P02_a.json"])
def test_what_is_lost_is_made_anew_with_the_same_bytes_and_nothing_else_is(cohort, lost):
    whole = contents(cohort)
    before = {p.name: p.stat().st_mtime_ns for p in cohort.glob("slides/*.tiff")}
    (cohort / lost).unlink()
    notes = []

    class Task:
        def advance(self, _n: float = 1, note: str = "") -> None:
            notes.append(note)

    @contextmanager
    def report(stage, total, unit):
        assert (stage, total, unit) == ("generate", 6, "slides")
        yield Task()

    generate_cohort(cohort, SPEC, report)
    assert contents(cohort) == whole
    changed = {p.name for p in cohort.glob("slides/*.tiff") if p.stat().st_mtime_ns != before.get(p.name)}
    assert changed == {"P02_a.tiff"}
    assert notes == [slide.slide for slide in plan_cohort(SPEC)]


def test_an_interrupted_run_ends_in_the_bytes_of_an_uninterrupted_one(cohort, tmp_path):
    class Stop(Exception):
        pass

    class Task:
        def advance(self, _n: float = 1, note: str = "") -> None:
            if note == "P02_a":
                raise Stop

    @contextmanager
    def report(stage, total, unit):
        yield Task()

    with pytest.raises(Stop):
        generate_cohort(tmp_path, SPEC, report)
    assert not (tmp_path / "cohort.csv").exists()
    generate_cohort(tmp_path, SPEC)
    assert contents(tmp_path) == contents(cohort)


def test_a_larger_cohort_keeps_the_slides_of_the_smaller(cohort, tmp_path):
    small = replace(SPEC, n_patients=1)
    generate_cohort(tmp_path, small)
    kept = (tmp_path / "slides" / "P01_a.tiff").stat().st_mtime_ns
    generate_cohort(tmp_path, SPEC)
    assert (tmp_path / "slides" / "P01_a.tiff").stat().st_mtime_ns == kept
    assert contents(tmp_path) == contents(cohort)


def test_diagnoses_are_dealt_evenly_and_scanners_do_not_tell_them():
    planned = plan_cohort(GeneratedCohortSpec(n_patients=18, slides_per_patient=1))
    pairs = Counter((slide.spec.diagnosis, slide.site) for slide in planned)
    assert len(pairs) == 9
    assert set(pairs.values()) == {2}


def test_slides_of_a_patient_share_all_but_the_section():
    planned = plan_cohort(GeneratedCohortSpec(pen_every=5))
    assert len({slide.slide for slide in planned}) == 24
    by_patient = {}
    for slide in planned:
        spec = replace(slide.spec, section=0, pen=False)
        assert by_patient.setdefault(slide.patient, (spec, slide.site)) == (spec, slide.site)
    assert [i + 1 for i, slide in enumerate(planned) if slide.spec.pen] == [5, 10, 15, 20]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_patients": 0}, r"n_patients must be 1 to 999, got 0"),
        ({"slides_per_patient": 27}, r"slides_per_patient must be 1 to 26, got 27"),
        ({"n_scanners": 0}, r"n_scanners must be 1 to 26"),
        ({"size": 10}, r"width must be 64 to"),
        ({"diagnoses": ()}, r"diagnoses must name one or more of carcinoma"),
        ({"diagnoses": ("benign", "flu")}, r"diagnosis must be one of .* got 'flu'"),
        ({"pen_every": 0}, r"pen_every must be 1 or more, or None, got 0"),
    ],
)
def test_an_impossible_cohort_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        replace(SPEC, **change)
