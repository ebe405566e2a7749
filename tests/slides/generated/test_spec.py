import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histokin.slides.generated import CLASSES, DIAGNOSES, GeneratedSlideSpec


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 63}, r"width must be 64 to 40000 px, got 63"),
        ({"height": 40_001}, r"height must be 64 to 40000 px, got 40001"),
        ({"mpp": 0.0}, r"mpp must be 0\.1 to 2\.0 um a pixel, got 0\.0"),
        ({"mpp": float("nan")}, r"mpp must be .* got nan"),
        ({"patient": -1}, r"patient must be 0 or more, got -1"),
        ({"scanner": -2}, r"scanner must be 0 or more"),
        ({"diagnosis": "cold"}, r"diagnosis must be one of carcinoma, .* got 'cold'"),
        ({"colour_leak": 1.1}, r"colour_leak must be 0 to 1, got 1\.1"),
        ({"jpeg_quality": 0}, r"jpeg_quality must be 1 to 100, got 0"),
    ],
)
def test_an_impossible_slide_is_refused_with_its_limits(change, message):
    with pytest.raises(ValueError, match=message):
        GeneratedSlideSpec(**change)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    width=st.integers(64, 40_000),
    height=st.integers(64, 40_000),
    mpp=st.floats(0.1, 2.0),
    diagnosis=st.sampled_from(sorted(DIAGNOSES)),
    leak=st.floats(0, 1),
)
def test_everything_within_the_limits_is_accepted(width, height, mpp, diagnosis, leak):
    spec = GeneratedSlideSpec(width=width, height=height, mpp=mpp, diagnosis=diagnosis, colour_leak=leak)
    assert (spec.width, spec.height) == (width, height)


def test_diagnoses_are_shares_of_known_tissue():
    assert len(DIAGNOSES) >= 3
    for name, diagnosis in DIAGNOSES.items():
        assert sum(diagnosis.mix.values()) == pytest.approx(1), name
        assert all(0 < index < len(CLASSES) for index in diagnosis.mix), name
