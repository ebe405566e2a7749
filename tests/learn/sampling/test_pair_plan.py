"""Near and far by slide: the limits asked for, shrunk ones for small tissue, none where they make no sense."""

import numpy as np
import pytest

from histokin.learn.sampling import plan_pairs


def section(side_um, pitch_um, slide=0, *, is_round=False):
    """A square or round section's slide numbers and tile centres."""
    at = np.arange(0, side_um + 1e-6, pitch_um)
    points = np.stack(np.meshgrid(at, at), -1).reshape(-1, 2)
    if is_round:
        points = points[np.hypot(*(points - side_um / 2).T) <= side_um / 2]
    return np.full(len(points), slide), points


def joined(*parts):
    slides, points = zip(*parts, strict=True)
    return np.concatenate(slides), np.concatenate(points)


def test_a_slide_of_30_mm_keeps_the_limits_asked_for():
    (one,) = plan_pairs(*section(30000, 250.0, is_round=True), 250.0).limits
    assert (one.state, one.near_um, one.far_um, one.reason) == ("ok", 2000, 10000, "")
    assert one.extent_um == 30000


def test_a_section_of_6_mm_takes_limits_shrunk_to_it():
    (one,) = plan_pairs(*section(6000, 100.0, is_round=True), 100.0).limits
    assert one.state == "fallback"
    assert one.extent_um == 6000
    assert one.near_um == pytest.approx(900)
    assert one.far_um == pytest.approx(3600)
    assert "10000 um apart, the farthest 6000 um" in one.reason


def test_the_near_limit_asked_for_is_not_exceeded_by_the_shrunk_one():
    (one,) = plan_pairs(*section(6000, 100.0), 100.0, near_um=500).limits
    assert one.extent_um == pytest.approx(6000 * np.sqrt(2))
    assert (one.state, one.near_um) == ("fallback", 500)


@pytest.mark.parametrize(
    ("last_um", "state", "far_um"), [(9999, "fallback", 5999.4), (10000, "fallback", 6000), (10001, "ok", 10000)]
)
def test_the_shrunk_limits_hold_up_to_the_far_limit_itself(last_um, state, far_um):
    points = np.array([[0.0, 0.0], [300, 0], [last_um, 0]])  # at exactly 10 mm no pair lies beyond 10 mm
    (one,) = plan_pairs(np.zeros(3, int), points, 300.0).limits
    assert one.state == state
    assert one.far_um == pytest.approx(far_um)


@pytest.mark.parametrize(("side_um", "state"), [(2000, "fallback"), (700, "fallback"), (690, "too_small_for_pairs")])
def test_near_below_one_and_a_half_steps_is_too_small(side_um, state):
    # Along a line: 0.15 L = 1.5 steps of 70 um at L = 700 um.
    points = np.stack([np.arange(0, side_um + 1, 10.0), np.zeros(side_um // 10 + 1)], -1)
    (one,) = plan_pairs(np.zeros(len(points), int), points, 70.0).limits
    assert one.state == state
    if state == "too_small_for_pairs":
        assert "less than 1.5 steps of 70 um" in one.reason


@pytest.mark.parametrize("points", [[[5.0, 5.0]], [[5.0, 5.0], [5.0, 5.0]]])
def test_tiles_in_one_place_are_too_small(points):
    (one,) = plan_pairs(np.zeros(len(points), int), np.array(points), 100.0).limits
    assert (one.state, one.extent_um) == ("too_small_for_pairs", 0)


def test_lonely_tiles_on_a_large_slide_give_no_pairs_at_all():
    (one,) = plan_pairs(np.zeros(3, int), np.array([[0.0, 0.0], [12000, 0], [0, 15000]]), 250.0).limits
    assert one.state == "too_small_for_pairs"
    assert one.reason == "no two tiles lie less than 2000 um apart"


def test_the_known_pairs_are_near_and_far_on_their_slide():
    slides, points = joined(section(30000, 500.0, 4), section(6000, 100.0, 2), section(300, 100.0, 9))
    mixed = np.random.default_rng(0).permutation(len(slides))
    slides, points = slides[mixed], points[mixed]
    plan = plan_pairs(slides, points, 100.0)
    assert [one.slide for one in plan.limits] == [2, 4, 9]
    assert [one.state for one in plan.limits] == ["fallback", "ok", "too_small_for_pairs"]
    for one, near, far in zip(plan.limits[:2], plan.near_known[:2], plan.far_known[:2], strict=True):
        assert (slides[near] == one.slide).all()
        assert (slides[far] == one.slide).all()
        assert 0 < np.hypot(*(points[near[0]] - points[near[1]])) < one.near_um
        assert np.hypot(*(points[far[0]] - points[far[1]])) > one.far_um
    assert (plan.near_known[2] == -1).all()


def test_the_order_of_rows_changes_no_limits():
    slides, points = joined(section(12000, 500.0, 0), section(6000, 250.0, 1))
    mixed = np.random.default_rng(0).permutation(len(slides))
    assert plan_pairs(slides, points, 250.0).limits == plan_pairs(slides[mixed], points[mixed], 250.0).limits


def test_the_summary_says_what_was_used_and_what_was_left_out():
    parts = [section(30000, 1000.0, 0), section(6000, 100.0, 1, is_round=True), section(8000, 100.0, 2, is_round=True)]
    slides, points = joined(*parts, section(300, 100.0, 3))
    assert plan_pairs(slides, points, 100.0).summary == (
        "pairs on 4 slides: 1 with near < 2000 um and far > 10000 um; 2 smaller than that (6000 to 8000 um across), "
        "with near < 900 to 1200 um and far > 3600 to 4800 um; 1 too_small_for_pairs (424 um across): no pairs"
    )
    across = plan_pairs(slides, points, 100.0, cross_slide=True).summary
    assert across.endswith("1 too_small_for_pairs (424 um across): far pairs with other slides only")
    assert plan_pairs(np.zeros(0, int), np.zeros((0, 2)), 100.0).summary == "pairs on 0 slides"


def test_misuse_is_refused():
    slides, points = section(1000, 100.0)
    with pytest.raises(ValueError, match=r"\(n,\) slides and \(n, 2\) positions"):
        plan_pairs(slides[1:], points, 100.0)
    with pytest.raises(ValueError, match="0 < near < far"):
        plan_pairs(slides, points, 100.0, near_um=3000, far_um=3000)
    with pytest.raises(ValueError, match="positive pitch"):
        plan_pairs(slides, points, 0.0)
    with pytest.raises(ValueError, match="positions must be finite"):
        plan_pairs(slides, np.where(points == 0, np.nan, points), 100.0)


def test_each_slide_is_judged_by_its_own_pitch():
    slides, points = joined(section(2000, 50.0), section(2000, 250.0, slide=1))
    plan = plan_pairs(slides, points, np.where(slides == 0, 50.0, 250.0), near_um=300)
    assert [one.state for one in plan.limits] == ["fallback", "too_small_for_pairs"]
