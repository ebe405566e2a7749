"""Regions as weighted bags, and windows against a search over every place that a window could begin at."""

import numpy as np
import pytest

from histokin.errors import SearchError, StoreError
from histokin.search.region import Box, condense, find_windows, plan_region, tile_weights, weighted_median
from histokin.search.tables import SlideTable, TileHits

SIDE = (100.0, 100.0)


def grid_of(n_x=6, n_y=5, side=100):
    coords = np.array([(x * side, y * side) for y in range(n_y) for x in range(n_x)], dtype=np.int64)
    return np.arange(len(coords)) + 10, coords


def hits_of(slide, x, y, score, tile=None):
    slide = np.asarray(slide)
    tile = np.arange(slide.size).reshape(slide.shape) if tile is None else tile
    return TileHits(np.asarray(score), slide, tile, np.asarray(x), np.asarray(y), np.full(slide.shape, "", object))


def slides_of(*patients):
    return SlideTable.of([f"s{i}" for i in range(len(patients))], patients)


# ---- boxes and tiles


def test_a_box_of_micrometres_is_divided_by_each_axis_pixel_size():
    assert Box.of_um(10, 20, 30, 40, 0.5) == Box(20, 40, 60, 80)
    assert Box.of_um(10, 20, 30, 40, (0.5, 0.25)) == Box(20, 80, 60, 160)


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, -1), (np.nan, 0, 5, 5)])
def test_a_box_without_area_is_refused(box):
    with pytest.raises(SearchError, match="width and a height above 0"):
        Box(*box)


def test_weights_are_the_shared_pixels_times_the_tissue():
    """Referee: the pixels of both are counted."""
    _, coords = grid_of()
    tissue = np.linspace(0.1, 1, len(coords))
    box = Box(130, 70, 245, 180)
    picture = np.zeros((600, 700))
    picture[70:250, 130:375] = 1
    expected = np.array([picture[y : y + 100, x : x + 100].sum() for x, y in coords]) * tissue
    assert tile_weights(coords, SIDE, box, tissue=tissue) == pytest.approx(expected / expected.sum(), abs=1e-12)


def test_a_region_names_its_tiles_by_id_and_leaves_out_those_without_overlap_tissue_or_place():
    tile, coords = grid_of()
    tissue = np.ones(len(tile))
    tissue[tile == 17] = 0
    coords[tile == 18] = -1
    order = np.random.default_rng(0).permutation(len(tile))
    region = plan_region(Box(100, 50, 200, 150), tile[order], coords[order], SIDE, tissue=tissue[order])
    assert region.cut is None
    assert region.tile.tolist() == [11, 12]  # of the two rows, the lower one (17, 18) has no tissue and no place
    assert region.weight.tolist() == [0.5, 0.5]


def test_a_tile_without_a_place_weighs_nothing_where_a_box_begins_at_the_corner():
    weight = tile_weights(np.array([[-1, -1], [0, 0]]), SIDE, Box(0, 0, 200, 100))
    assert weight.tolist() == [0, 1]


def test_a_box_smaller_than_a_tile_or_without_the_centre_of_one_is_cut_as_a_tile_around_it():
    tile, coords = grid_of()
    small = plan_region(Box(210, 220, 60, 40), tile, coords, SIDE)
    assert small.cut == Box(190, 190, 100, 100)
    assert not len(small.tile)
    between = plan_region(Box(160, 160, 80, 320), tile, coords, SIDE)  # tall, but no column has its centre inside
    assert between.cut == Box(150, 270, 100, 100)
    assert plan_region(Box(160, 160, 100, 320), tile, coords, SIDE).cut is None
    whole = plan_region(Box(200, 100, 100, 100), tile, coords, SIDE)
    assert (whole.tile.tolist(), whole.weight.tolist(), whole.cut) == ([18], [1.0], None)
    strip = plan_region(Box(100, 220, 300, 60), tile, coords, SIDE)  # long: three tiles tell more of it than one
    assert strip.tile.tolist() == [23, 24, 25]
    background = plan_region(Box(210, 110, 150, 150), tile, coords, SIDE, tissue=np.zeros(len(tile)))
    assert background.cut == Box(235, 135, 100, 100)


def test_the_tile_that_is_cut_stays_on_the_slide_where_it_fits():
    tile, coords = grid_of()
    assert plan_region(Box(0, 480, 20, 20), tile, coords, SIDE, slide_size=(600, 500)).cut == Box(0, 400, 100, 100)
    assert Box(0, 0, 20, 20).tile_at_centre(SIDE, (50, 50)) == Box(0, 0, 100, 100)


def test_a_slide_of_tiles_without_positions_has_no_regions():
    with pytest.raises(SearchError, match="Ask with a tile or the whole slide"):
        plan_region(Box(0, 0, 10, 10), np.arange(3), np.full((3, 2), -1), SIDE)


# ---- medoids


def planted(n_kinds, n_each, d=16, seed=0):
    rng = np.random.default_rng(seed)
    kinds = np.linalg.qr(rng.normal(size=(d, n_kinds)))[0].T
    rows = kinds.repeat(n_each, axis=0) + 0.02 * rng.normal(size=(n_kinds * n_each, d))
    return rows, np.arange(n_kinds).repeat(n_each)


def test_medoids_find_planted_groups_and_weigh_what_the_groups_do():
    """Referee: scikit-learn's mean of each planted group, and a loop for the member nearest to it."""
    rows, kind = planted(6, 30)
    weight = np.random.default_rng(1).random(len(rows))
    tile = np.random.default_rng(2).permutation(len(rows))
    chosen, mass = condense(rows, weight, tile, limit=6)
    assert sorted(kind[chosen]) == list(range(6))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for row, value in zip(chosen, mass, strict=True):
        own = np.flatnonzero(kind == kind[row])
        assert value == pytest.approx(weight[own].sum() / weight.sum(), abs=1e-12)
        assert row == max(own, key=lambda r: unit[r] @ unit[own].sum(axis=0))
    assert (np.diff(tile[chosen]) > 0).all()


def test_medoids_do_not_depend_on_the_order_of_the_rows():
    rows, weight = np.random.default_rng(0).normal(size=(400, 8)), np.random.default_rng(1).random(400)
    tile = np.arange(400) * 3
    first = condense(rows, weight, tile)
    order = np.random.default_rng(2).permutation(400)
    again = condense(rows[order], weight[order], tile[order])
    assert len(first[0]) == 64
    assert first[0].tolist() == order[again[0]].tolist()
    assert again[1] == pytest.approx(first[1], abs=1e-12)


def test_equal_tiles_are_stood_for_by_the_lowest_id_and_small_regions_are_kept_whole():
    rows = np.ones((100, 4))
    tile = np.random.default_rng(0).permutation(100)
    chosen, mass = condense(rows, np.ones(100), tile)
    assert (tile[chosen].tolist(), mass) == ([0], pytest.approx([1.0]))
    chosen, mass = condense(rows[:3], np.array([1.0, 0.0, 3.0]), np.array([7, 5, 2]))
    assert (chosen.tolist(), mass.tolist()) == ([2, 0], [0.75, 0.25])
    with pytest.raises(StoreError, match="query row 1"):
        condense(np.array([[1.0, 0], [0, 0]]), np.ones(2), np.arange(2))


# ---- weighted median


def test_weighted_median_meets_the_golden_case():
    """Case region_weighted_median of the reference."""
    assert weighted_median(np.array([1, 4, 9]), np.array([0.25, 0.25, 0.5])) == pytest.approx(6.5)
    assert weighted_median(np.array([1, 4, 9]), np.array([0.2, 0.2, 0.6])) == pytest.approx(9.0)


def test_weighted_median_of_equal_weights_is_the_median():
    rng = np.random.default_rng(0)
    for n in range(1, 30):
        values = rng.integers(0, 10, size=(n, 4)).astype(float)
        # 1/n summed n/2 times is not one half in floats: the rule compares to 1e-12
        assert weighted_median(values, np.full(n, 0.1)) == pytest.approx(np.median(values, axis=0))


def test_weighted_median_is_that_of_values_repeated_by_their_weight_and_skips_those_without():
    rng = np.random.default_rng(1)
    for _ in range(30):
        values, weights = rng.normal(size=9), rng.integers(0, 4, size=9)
        weights[0] += weights.sum() == 0
        assert weighted_median(values, weights) == pytest.approx(np.median(np.repeat(values, weights)))


def test_weights_that_mean_nothing_are_refused():
    for weights in ([0, 0], [1, -1], [1, np.nan]):
        with pytest.raises(ValueError, match="weights must be"):
            weighted_median(np.zeros(2), np.array(weights))
    with pytest.raises(ValueError, match="finite value"):
        weighted_median(np.array([1, np.nan]), np.ones(2))


# ---- windows


def test_windows_of_all_tiles_score_as_weighted_maxsim():
    """Case maxsim_weighted of the reference: slide 0 holds the tiles of A, slide 1 that of B."""
    q, a, b = np.eye(2), np.array([[0.6, 0.8], [1, 0]]), np.array([[0.8, 0.6]])
    score = np.concatenate([q @ a.T, q @ b.T], axis=1)
    hits = hits_of([[0, 0, 1]] * 2, [[0, 100, 0]] * 2, [[0, 0, 0]] * 2, score)
    found = find_windows(hits, slides_of("p", "q"), weights=np.array([1, 3]), size=[200, 100], side=SIDE)
    assert found.slide.tolist() == [0, 1]
    assert found.score == pytest.approx([0.85, 0.65])
    assert found.met.tolist() == [1, 1]
    assert found.slot.tolist() == [[1, 0], [2, 2]]


def judged(hits, place, slide, weights, size, side):
    """(score, met) of a window by the formula, hit by hit."""
    score = met = 0.0
    for q, weight in enumerate(weights / weights.sum()):
        own = [
            hits.score[q, k]
            for k in range(hits.slide.shape[1])
            if hits.slide[q, k] == slide
            and 0 <= hits.x[q, k] + side[0] / 2 - place[0] < size[0]
            and 0 <= hits.y[q, k] + side[1] / 2 - place[1] < size[1]
        ]
        score += weight * (max(own) if own else np.nanmin(hits.score[q]))
        met += weight * bool(own)
    return score, met


def random_hits(seed, n_slides=3, q=5, k=12, extent=12, step=100):
    rng = np.random.default_rng(seed)
    slide = rng.integers(0, n_slides, (q, k))
    slide[0, k // 2 :] = -1  # a list may be shorter
    score = np.where(slide >= 0, -np.sort(-rng.random((q, k)), axis=1), np.nan)
    x, y = (np.where(slide >= 0, rng.integers(0, extent, (q, k)) * step, -1) for _ in range(2))
    return hits_of(slide, x, y, score), rng.random(q) + 0.1


@pytest.mark.parametrize(("step", "size"), [(100, (300, 200)), (50, (250, 130)), (37, (100, 100))])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_window_of_each_slide_is_the_best_of_all_places_it_could_begin_at(seed, step, size):
    hits, weights = random_hits(seed, step=step)
    found = find_windows(hits, slides_of("", "", ""), weights=weights, size=size, side=SIDE, per_slide=1)
    assert sorted(found.slide) == [0, 1, 2]
    for slide, score, met, x, y in zip(found.slide, found.score, found.met, found.x, found.y, strict=True):
        own = hits.slide == slide
        best = max(
            judged(hits, (left, top), slide, weights, size, SIDE)[0]
            for left in np.unique(hits.x[own])
            for top in np.unique(hits.y[own])
        )
        assert score >= best - 1e-12
        assert (score, met) == pytest.approx(judged(hits, (x, y), slide, weights, size, SIDE), abs=1e-12)
    assert (np.diff(found.score) <= 0).all()


@pytest.mark.parametrize("seed", range(6))
def test_windows_do_not_overlap_and_keep_to_the_limits_of_slide_patient_and_number(seed):
    hits, weights = random_hits(seed, n_slides=6, k=40)
    slides = slides_of("p", "p", "p", "q", "", "")
    found = find_windows(hits, slides, weights=weights, size=(300, 300), side=SIDE, n=9, per_slide=2, per_patient=3)
    assert len(found) == 3 + 2 + 2 + 2
    units = [slides.patient[s] or s for s in found.slide]
    assert units.count("p") == 3
    assert max(found.slide.tolist().count(s) for s in range(6)) == 2
    for i in range(len(found)):
        for j in range(i):
            same = found.slide[i] == found.slide[j]
            apart = abs(found.x[i] - found.x[j]) >= 300 or abs(found.y[i] - found.y[j]) >= 300
            assert not same or apart
    few = find_windows(hits, slides, weights=weights, size=(300, 300), side=SIDE, n=4, per_slide=2, per_patient=3)
    assert few.score.tolist() == found.score[:4].tolist()


def test_the_hits_lie_in_the_middle_of_their_window_and_slots_name_them():
    hits = hits_of([[0, 0, 0], [0, 0, -1]], [[500, 3000, 600], [700, 500, -1]], [[400, 0, 400], [400, 500, -1]],
                   [[0.9, 0.8, 0.9], [0.7, 0.6, np.nan]], tile=np.array([[5, 9, 4], [6, 7, -1]]))  # fmt: skip
    found = find_windows(hits, slides_of("p"), weights=np.ones(2), size=(500, 400), side=SIDE, per_slide=1)
    assert (found.x[0], found.y[0]) == (400, 300)  # around the hits at 500 to 800, 400 to 600
    assert found.slot.tolist() == [[2, 0]]  # of two equal scores the lower tile id
    assert found.score == pytest.approx([0.8])
    # The slide's corner stops a window from being moved further.
    corner = find_windows(hits_of([[0]], [[0]], [[100]], [[0.5]]), slides_of("p"), weights=np.ones(1),
                          size=(500, 400), side=SIDE)  # fmt: skip
    assert (corner.x.tolist(), corner.y.tolist()) == ([0], [0])


def test_a_window_is_moved_only_where_that_keeps_it_clear_of_better_ones_and_loses_no_hit():
    row = hits_of([[0] * 4], [[0, 100, 200, 300]], [[0] * 4], [[0.9, 0.8, 0.7, 0.6]])
    found = find_windows(row, slides_of("p"), weights=np.ones(1), size=(300, 100), side=SIDE)
    assert found.x.tolist() == [0, 300]  # in the middle of a window from 200 on the last hit would lie
    # Centres at 51, 101 and 150 fit a window of 100 px from 51 on; their middle, 50.5, is rounded to 50.
    tight = hits_of([[0, 1]] * 3, [[1, 0], [51, 0], [100, 0]], [[0, 0]] * 3, [[0.9, 0.1]] * 3)
    found = find_windows(tight, slides_of("p", "q"), weights=np.ones(3), size=SIDE, side=SIDE, n=1)
    assert (found.x.tolist(), found.met) == ([51], pytest.approx([1]))


def test_places_between_hits_that_hold_none_of_them_are_no_windows():
    hits = hits_of([[0, 0]], [[0, 5000]], [[0, 5000]], [[0.9, 0.8]])
    found = find_windows(
        hits, slides_of("p"), weights=np.ones(1), size=(300, 300), side=SIDE, per_slide=4, per_patient=4
    )
    assert found.score.tolist() == [0.9, 0.8]


def test_a_query_tile_without_a_hit_in_the_window_counts_with_the_lowest_of_its_list():
    hits = hits_of([[0, 1], [1, 1]], [[0, 0], [0, 5000]], [[0, 0], [0, 0]], [[0.9, 0.5], [0.8, 0.4]])
    found = find_windows(hits, slides_of("p", "q"), weights=np.array([1, 1]), size=SIDE, side=SIDE, per_slide=1)
    assert found.slide.tolist() == [0, 1]  # (.9 + .4) / 2 and (.5 + .8) / 2 are equal: by slide number
    assert found.score == pytest.approx([0.65, 0.65])
    assert found.met.tolist() == [0.5, 1.0]


def test_windows_are_of_each_slides_own_pixels_and_at_least_a_tile():
    hits = hits_of([[0, 1, 0, 1]], [[0, 0, 100, 200]], [[0] * 4], [[0.9, 0.8, 0.7, 0.6]])
    found = find_windows(hits, slides_of("p", "q"), weights=np.ones(1), size=[[10, 10], [20, 20]],
                         side=[[100, 100], [200, 200]])  # fmt: skip
    assert list(zip(found.slide, found.x, found.w, found.score, strict=True)) == [
        (0, 0, 100, 0.9), (1, 0, 200, 0.8), (0, 100, 100, 0.7), (1, 200, 200, 0.6),
    ]  # fmt: skip


def test_hits_without_a_place_are_counted_and_no_hits_give_no_windows():
    hits = hits_of([[0, 0]], [[-1, 0]], [[-1, 0]], [[0.9, 0.8]])
    found = find_windows(hits, slides_of("p"), weights=np.ones(1), size=SIDE, side=SIDE)
    assert (found.n_unplaced, found.score.tolist()) == (1, [0.8])
    half = hits_of([[0], [-1]], [[0], [-1]], [[0], [-1]], [[0.9], [np.nan]])  # one query tile met nothing at all
    found = find_windows(half, slides_of("p"), weights=np.ones(2), size=SIDE, side=SIDE)
    assert (found.score.tolist(), found.met.tolist()) == ([0.45], [0.5])
    none = hits_of([[-1], [-1]], [[-1], [-1]], [[-1], [-1]], [[np.nan], [np.nan]])
    found = find_windows(none, slides_of("p"), weights=np.ones(2), size=SIDE, side=SIDE)
    assert (len(found), found.slot.shape, found.n_unplaced) == (0, (0, 2), 0)
    with pytest.raises(ValueError, match="a weight for each"):
        find_windows(none, slides_of("p"), weights=np.ones(3), size=SIDE, side=SIDE)


def test_tiles_on_no_grid_lose_a_quarter_of_a_tile_at_most(monkeypatch):
    hits, weights = random_hits(3, n_slides=1, q=4, k=30, extent=1500, step=1)
    arguments = {"weights": weights, "size": (400, 400), "side": SIDE, "per_slide": 1}
    exact = find_windows(hits, slides_of("p"), **arguments)
    monkeypatch.setattr("histokin.search.region._PLACES", 100)
    thinned = find_windows(hits, slides_of("p"), **arguments)
    wider = find_windows(hits, slides_of("p"), **(arguments | {"size": (425, 425)}))
    narrower = find_windows(hits, slides_of("p"), **(arguments | {"size": (375, 375)}))
    assert narrower.score[0] - 1e-12 <= thinned.score[0] <= wider.score[0] + 1e-12
    assert narrower.score[0] <= exact.score[0] <= wider.score[0]
