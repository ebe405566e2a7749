from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histokin.slides.generated import CLASSES, DIAGNOSES, GeneratedSlideSpec, render_slide
from histokin.slides.generated.classes import BACKGROUND, BLOOD, FAT, GLAND, LYMPHOID, NECROSIS, STROMA, TUMOUR
from histokin.slides.generated.noise import Grid
from histokin.slides.generated.regions import lay_out
from histokin.slides.generated.render import _mix_of
from histokin.slides.generated.stain import patient_style, scanner_style
from histokin.streams import stream

SPEC = GeneratedSlideSpec(width=640, height=512, patient=3)


@pytest.fixture(scope="module")
def large():
    """One slide of each diagnosis, large enough to hold its tissues."""
    return {name: render_slide(GeneratedSlideSpec(width=1280, height=1280, diagnosis=name)) for name in DIAGNOSES}


def test_the_same_spec_gives_the_same_slide():
    first, second = render_slide(SPEC), render_slide(replace(SPEC))
    np.testing.assert_array_equal(first.rgb, second.rgb)
    np.testing.assert_array_equal(first.classes, second.classes)


@pytest.mark.parametrize("change", [{"seed": 1}, {"patient": 4}, {"section": 1}, {"diagnosis": "benign"}])
def test_any_other_slide_has_other_tissue(change):
    assert (render_slide(SPEC).classes != render_slide(replace(SPEC, **change)).classes).mean() > 0.02


def test_scanner_leak_and_pen_change_colours_but_not_the_truth():
    plain = render_slide(SPEC)
    for change in ({"scanner": 1}, {"colour_leak": 1.0}, {"pen": True}):
        other = render_slide(replace(SPEC, **change))
        np.testing.assert_array_equal(plain.classes, other.classes)
        assert (plain.rgb != other.rgb).any(), change


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    width=st.integers(64, 500),
    height=st.integers(64, 500),
    mpp=st.sampled_from([0.17, 0.25, 0.4, 0.5, 1.0, 2.0]),
    diagnosis=st.sampled_from(sorted(DIAGNOSES)),
    pen=st.booleans(),
)
def test_slides_of_any_size_and_resolution_have_matching_truth(width, height, mpp, diagnosis, pen):
    slide = render_slide(GeneratedSlideSpec(width=width, height=height, mpp=mpp, diagnosis=diagnosis, pen=pen))
    assert slide.rgb.shape == (height, width, 3)
    assert slide.classes.shape == slide.ink.shape == slide.tissue.shape == (height, width)
    assert slide.rgb.dtype == slide.classes.dtype == np.uint8
    assert slide.classes.max() < len(CLASSES)
    assert pen or not slide.ink.any()


def test_glass_is_bright_and_even_and_tissue_is_not(large):
    for name, slide in large.items():
        grey = slide.rgb.mean(axis=2)
        assert np.quantile(grey[~slide.tissue], 0.02) > 215, name
        assert 0.25 < slide.tissue.mean() < 0.8, name
        for index in (TUMOUR, STROMA, LYMPHOID, NECROSIS):
            if (slide.classes == index).mean() > 0.01:
                assert grey[slide.classes == index].mean() < 205, (name, CLASSES[index])


def test_classes_look_like_what_they_are(large):
    """Nuclei are blue-black, blood is red, fat is mostly empty: in whichever slides hold the class."""

    def nuclear(slide, index):
        """Share of dark bluish pixels."""
        pixels = slide.rgb[slide.classes == index].astype(int)
        return ((pixels[:, 2] - pixels[:, 0] > 15) & (pixels[:, 0] < 115)).mean()

    seen = set()
    for slide in large.values():
        area = np.bincount(slide.classes.ravel(), minlength=len(CLASSES)) / slide.classes.size
        present = {index for index in range(len(CLASSES)) if area[index] > 0.02}
        seen |= present
        if {LYMPHOID, STROMA} <= present:
            assert nuclear(slide, LYMPHOID) > 2 * nuclear(slide, STROMA)
        if {TUMOUR, STROMA} <= present:
            assert nuclear(slide, TUMOUR) > 1.5 * nuclear(slide, STROMA)
        if BLOOD in present:
            red = slide.rgb[slide.classes == BLOOD].astype(int)
            assert (red[:, 0] - red[:, 2]).mean() > 15
        if FAT in present:
            assert np.median(slide.rgb[slide.classes == FAT].mean(axis=1)) > 215
    assert {TUMOUR, STROMA, GLAND, LYMPHOID, FAT, BLOOD} <= seen


def test_the_mix_follows_the_diagnosis():
    for name, diagnosis in DIAGNOSES.items():
        mixes = [_mix_of(GeneratedSlideSpec(patient=p, diagnosis=name)) for p in range(200)]
        for index, share in diagnosis.mix.items():
            assert np.mean([mix[index] for mix in mixes]) == pytest.approx(share, abs=0.03), (name, CLASSES[index])
            assert np.std([mix[index] for mix in mixes]) > 0.15 * share, "patients must vary"
        assert all(mix[index] == 0 for mix in mixes for index in mix if index not in diagnosis.mix)


def test_areas_follow_the_mix():
    diagnosis, grid = DIAGNOSES["carcinoma"], Grid.over(3072, 3072, 0.5)
    areas = np.zeros(len(CLASSES))
    for seed in range(6):
        classes = lay_out(stream(seed, "areas"), grid, diagnosis.mix, diagnosis).classes
        areas += np.bincount(classes.ravel(), minlength=len(CLASSES)) / (classes > BACKGROUND).sum() / 6
    for index, share in diagnosis.mix.items():
        assert areas[index] == pytest.approx(share, abs=0.08), CLASSES[index]


def test_slides_of_a_patient_share_their_stain_and_patients_differ():
    styles = [patient_style(0, patient, 0.3) for patient in range(8)]
    np.testing.assert_array_equal(styles[0].stains, patient_style(0, 0, 0.3).stains)
    for other in styles[1:]:
        assert np.abs(styles[0].stains - other.stains).max() > 0.02
    assert np.std([scanner_style(0, k).gamma for k in range(6)]) > 0.01


def test_without_leak_the_class_does_not_tell_the_colour():
    """Negative control: averaged over patients, the confounded classes have one colour at leak 0, and not at 1."""

    def spread(leak):
        eosin = np.mean([patient_style(0, p, leak).eosin for p in range(400)], axis=0)
        return np.ptp(eosin[[TUMOUR, STROMA, GLAND, LYMPHOID, NECROSIS]])

    assert spread(0.0) < 0.03
    assert spread(1.0) > 0.2
    assert spread(0.0) < spread(0.3) < spread(1.0)


def test_colours_of_a_class_vary_more_between_patients_than_within():
    spec = GeneratedSlideSpec(width=512, height=512, diagnosis="benign")
    means = np.empty((5, 2, 3))
    for patient in range(5):
        for section in range(2):
            slide = render_slide(replace(spec, patient=patient, section=section))
            means[patient, section] = slide.rgb[slide.classes == STROMA].mean(axis=0)
    within = means.std(axis=1, ddof=1).mean()
    between = means.mean(axis=1).std(axis=0, ddof=1).mean()
    assert between > 2 * within


def test_pen_marks_are_where_they_are_said_to_be():
    spec = GeneratedSlideSpec(width=768, height=768, seed=4)
    plain, marked = render_slide(spec), render_slide(replace(spec, pen=True))
    change = np.abs(plain.rgb.astype(int) - marked.rgb).max(axis=2)
    assert marked.ink.mean() > 0.01
    assert (change[marked.ink] > 15).mean() > 0.95
    assert (change[~marked.ink] > 40).mean() < 0.01
    assert not plain.ink.any()


@pytest.mark.parametrize("axis", [0, 1])
def test_pixels_lie_where_the_truth_says(large, axis):
    """The outline of the tissue agrees best with the class map when neither is shifted."""
    slide = large["benign"]
    is_dark = slide.rgb.min(axis=2) < 200
    agreement = {d: (np.roll(is_dark, d, axis) == slide.tissue).mean() for d in range(-4, 5)}
    assert max(agreement, key=agreement.__getitem__) in (-1, 0, 1), agreement
