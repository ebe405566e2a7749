import numpy as np
import pytest

from histokin.slides.generated.nuclei import (
    FIBROBLAST,
    LYMPHOCYTE,
    N_ANGLES,
    OD_STEPS,
    Plane,
    make_red_cells,
    make_stamps,
    make_turned_stamps,
)
from histokin.streams import stream


def test_overlapping_stamps_keep_the_denser_instead_of_adding():
    plane = Plane(60, 50, 0.5)
    light, dark = np.full((5, 5), 40, np.uint8), np.full((5, 5), 90, np.uint8)
    plane.stamp(np.array([[10.0, 10.0], [10.5, 10.0]]), [light, dark], np.array([0, 1]))
    pixels = plane.window(0, 0, 60, 50)
    assert set(np.unique(pixels)) == {0, 40, 90}
    assert (pixels == 90).sum() == 25  # the later, darker one is whole
    assert (pixels == 40).sum() == 5


def test_stamps_at_the_rim_are_cut_by_the_slide_alone():
    plane = Plane(60, 50, 0.5)
    plane.stamp(np.array([[0.0, 0.0], [29.9, 24.9]]), [np.full((9, 9), 70, np.uint8)], np.array([0, 0]))
    assert (plane.window(0, 0, 60, 50) > 0).sum() == 25 + 25
    assert (plane.window(-8, -8, 76, 66) > 0).sum() == 81 + 81


@pytest.mark.parametrize("mpp", [0.25, 0.5, 1.0])
def test_lymphocytes_have_their_diameter_at_any_resolution(mpp):
    stamps = make_stamps(stream(0, "stamps"), LYMPHOCYTE, mpp, 30)
    assert len(stamps) == 120
    area = np.mean([(s > 0.5 * np.median(s[s > 0])).sum() for s in stamps]) * mpp**2
    assert 2 * np.sqrt(area / np.pi) == pytest.approx(LYMPHOCYTE.diameter, rel=0.15)


def test_stamps_fade_out_before_their_border():
    for kind in (LYMPHOCYTE, FIBROBLAST):
        for stamp in make_stamps(stream(1, "stamps"), kind, 0.5, 20):
            border = np.concatenate([stamp[0], stamp[-1], stamp[:, 0], stamp[:, -1]])
            assert border.max() == 0


def test_turned_stamps_lie_along_their_angle():
    for index, stamps in enumerate(make_turned_stamps(stream(0, "turned"), FIBROBLAST, 0.25, 1)):
        y, x = np.nonzero(stamps[0] > 0.3 * OD_STEPS)
        _, vectors = np.linalg.eigh(np.cov(x, y))
        angle = np.arctan2(vectors[1, 1], vectors[0, 1]) % np.pi
        off = abs(angle - index * np.pi / N_ANGLES)
        assert min(off, np.pi - off) < 0.15


def test_red_cells_are_as_large_as_red_cells():
    sizes = [np.sqrt((s > 20).sum()) * 0.25 for s in make_red_cells(stream(0, "red"), 0.25, 40)]
    assert 4.5 < np.mean(sizes) < 7
