"""What was looked at: scales of maps, tiles as pictures, top tiles, and the test by deletion."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from mil.mil_worlds import planted, task_of
from mil.test_predicting import train
from scipy.stats import entropy, percentileofscore

from histokin.mil import PackedBags
from histokin.mil.heatmaps import (
    Deletion,
    blend_tiles,
    branch_weights,
    contribution_limit,
    delete_tiles,
    effective_tiles,
    is_placed,
    mean_falls,
    percentiles,
    relative_weights,
    top_of_slides,
    top_tiles,
)
from histokin.mil.predicting import map_tiles
from histokin.mil.training import MilSpec

PATIENTS = [f"P{number}" for number in range(20)]


def scores_with_ties(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, max(2, n // 2), n) / 7


# ---- values


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_percentiles_are_those_of_clam_tile_by_tile(n: int) -> None:
    scores = scores_with_ties(n, n)
    assert percentiles(scores) == pytest.approx([percentileofscore(scores, one, "rank") for one in scores])


def test_percentiles_among_other_tiles_are_those_of_clam() -> None:
    scores, reference = scores_with_ties(30, 1), scores_with_ties(17, 2)
    assert percentiles(scores, reference) == pytest.approx(
        [percentileofscore(reference, one, "rank") for one in scores]
    )


def test_the_number_of_effective_tiles_is_the_exponential_of_the_entropy() -> None:
    weights = np.random.default_rng(0).dirichlet(np.ones(30))
    assert effective_tiles(weights) == pytest.approx(math.exp(entropy(weights)))
    assert effective_tiles(np.full(12, 1 / 12, dtype=np.float32)) == pytest.approx(12)
    assert effective_tiles(np.array([0.0, 1.0, 0.0])) == 1


def test_a_branch_is_a_class_s_own_or_the_mean_of_all() -> None:
    weights = np.array([[0.9, 0.2], [0.1, 0.8]], dtype=np.float32)
    assert branch_weights(weights, 1) == pytest.approx([0.2, 0.8])
    assert branch_weights(weights) == pytest.approx([0.55, 0.45])
    assert branch_weights(weights[:, :1], 1) == pytest.approx([0.9, 0.1])  # a single branch serves all classes


def test_even_attention_is_1_everywhere() -> None:
    found = relative_weights(np.full(50, 0.02))
    assert (found.values, found.low, found.high) == (pytest.approx([1.0] * 50), pytest.approx(1), pytest.approx(1))


def test_relative_attention_is_clipped_at_the_slide_s_own_percentiles() -> None:
    weights = np.random.default_rng(3).dirichlet(np.full(300, 0.5))
    found = relative_weights(weights)
    ordered = np.sort(300 * weights)
    at = [0.01 * 299, 0.99 * 299]  # type 7: between two neighbours
    by_hand = [ordered[int(a)] + (a - int(a)) * (ordered[int(a) + 1] - ordered[int(a)]) for a in at]
    assert [found.low, found.high] == pytest.approx(by_hand)
    inside = (300 * weights > found.low) & (300 * weights < found.high)
    assert inside.sum() == 300 - 2 * 3
    assert found.values[inside] == pytest.approx(300 * weights[inside])
    assert set(found.values[~inside]) == {found.low, found.high}


def test_attention_that_rounded_to_zero_takes_the_lower_end_of_the_rest() -> None:
    weights = np.concatenate([np.zeros(50), np.full(50, 0.01), np.full(50, 0.01)])
    found = relative_weights(weights)
    assert found.low == pytest.approx(1.5)
    assert found.values == pytest.approx(np.full(150, 1.5))


def test_neither_one_odd_slide_nor_empty_tiles_set_the_shared_scale() -> None:
    slides = [np.concatenate([np.zeros(1000), [0.1 * sign * (number + 1)]]) for number, sign in enumerate([1, -1] * 10)]
    limit = contribution_limit(slides)
    assert limit == pytest.approx(np.quantile(np.arange(1, 21) / 10, 0.9))
    assert contribution_limit([*slides[:-1], np.array([-900.0])]) == pytest.approx(limit)
    assert contribution_limit([-one for one in slides]) == limit
    assert contribution_limit([np.zeros(3)]) == contribution_limit([]) == 1


@pytest.mark.parametrize("values", [[], [1.0, np.nan], [np.inf]])
def test_values_that_are_none_are_refused(values: list[float]) -> None:
    for function in (percentiles, relative_weights):
        with pytest.raises(ValueError, match="finite"):
            function(np.array(values))


# ---- places


def blended_slowly(values, coords, size, shape, downsample):
    """Pixel by pixel: the mean of the tiles that hold its centre; a tile that holds none takes its own pixel."""
    held: dict[tuple[int, int], list[float]] = {}
    for value, (x, y) in zip(values, coords, strict=True):
        if (x, y) == (-1, -1):
            continue
        own = {
            name: [p for p in range(-9, length + 9) if corner <= (p + 0.5) * downsample < corner + size]
            or [math.floor((corner + size / 2) / downsample)]
            for name, corner, length in (("x", x, shape[1]), ("y", y, shape[0]))
        }
        for row in own["y"]:
            for column in own["x"]:
                held.setdefault((row, column), []).append(value)
    found = np.full(shape, np.nan)
    for (row, column), those in held.items():
        if 0 <= row < shape[0] and 0 <= column < shape[1]:
            found[row, column] = np.mean(those)
    return found


@pytest.mark.parametrize(
    ("size", "stride", "downsample"),
    [(64, 64, 16.0), (64, 32, 16.0), (64, 64, 10.7), (50, 37, 13.3), (8, 32, 16.0), (100, 64, 33.0), (64, 64, 64.0)],
)
def test_a_pixel_is_the_mean_of_the_tiles_over_its_centre(size: int, stride: int, downsample: float) -> None:
    rng = np.random.default_rng(size + stride)
    grid = np.array([(x, y) for y in range(0, 400, stride) for x in range(0, 300, stride)])
    coords = grid[rng.random(len(grid)) < 0.6]
    coords = np.concatenate([coords, [[-1, -1], [390, 460], [-20, 12]]])  # no place, and over the edges
    values = rng.normal(size=len(coords))
    shape = (math.ceil(400 / downsample), math.ceil(300 / downsample))
    found = blend_tiles(values, coords, size, shape=shape, downsample=downsample)
    assert found == pytest.approx(blended_slowly(values, coords, size, shape, downsample), abs=1e-9, nan_ok=True)
    assert np.isnan(found).any()


def test_tiles_without_a_place_are_on_no_map() -> None:
    coords = np.array([[-1, -1], [-1, -1]])
    assert not is_placed(coords).any()
    assert is_placed(np.array([[-1, 0], [0, -1], [0, 0]])).all()
    assert np.isnan(blend_tiles(np.ones(2), coords, 8, shape=(4, 4), downsample=2)).all()


# ---- top tiles


def greedy(scores, coords, reach, k):
    """Tile by tile in the order of the scores; distances one pair at a time."""
    found = []
    for row in sorted(range(len(scores)), key=lambda row: (-scores[row], row)):
        alone = all(
            tuple(coords[row]) == (-1, -1)
            or tuple(coords[other]) == (-1, -1)
            or math.dist(coords[row], coords[other]) >= reach
            for other in found
        )
        if alone and len(found) < k:
            found.append(row)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_top_tiles_are_the_greedy_choice_and_lie_two_widths_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    coords = rng.integers(0, 24, (120, 2)) * 32
    coords[rng.random(120) < 0.05] = -1
    scores = rng.integers(0, 40, 120).astype(np.float32)
    found = top_tiles(scores, coords, 64)
    assert found.tolist() == greedy(scores, coords, 128, 16)
    placed = [coords[row] for row in found if coords[row][0] >= 0]
    assert min(math.dist(a, b) for a, b in combinations(placed, 2)) >= 128
    assert top_tiles(scores, coords, 64, lowest=True).tolist() == greedy(-scores, coords, 128, 16)


def test_a_small_slide_has_as_many_top_tiles_as_find_room() -> None:
    coords = np.array([[0, 0], [10, 0], [128, 0]])
    assert top_tiles(np.array([1.0, 2.0, 3.0]), coords, 64).tolist() == [2, 0]  # 118 from the second: too near
    assert top_tiles(np.array([1.0]), coords[:1], 64, k=5).tolist() == [0]


def test_no_slide_fills_a_sheet_alone() -> None:
    rng = np.random.default_rng(1)
    coords = [np.stack([np.arange(30) * 500, np.zeros(30, int)], axis=1) for _ in range(4)]
    scores = [rng.normal(size=30) + shift for shift in (5, 0, 0, 0)]
    found = top_of_slides(scores, coords, [64] * 4, k=10, most=4)
    by_hand = sorted(
        (-scores[slide][row], slide, row) for slide in range(4) for row in np.argsort(-scores[slide])[:4].tolist()
    )
    assert found == [(slide, row) for _, slide, row in by_hand[:10]]
    assert sum(slide == 0 for slide, _ in found) == 4


# ---- deletion


def additive(evidence: np.ndarray):
    """A model whose word is a known function of the tiles that are left."""
    return lambda kept: np.array([1 / (1 + math.exp(-evidence[rows].sum())) for rows in kept])


@pytest.mark.parametrize("n", [1, 2, 7, 100, 250])
def test_as_many_random_tiles_are_deleted_as_top_ones_and_one_always_stays(n: int) -> None:
    seen: list[np.ndarray] = []

    def tell(kept):
        seen.extend(kept)
        return np.zeros(len(kept))

    scores = np.random.default_rng(n).permutation(n).astype(float)
    found = delete_tiles(tell, scores, rng=np.random.default_rng(0), shares=(0.01, 0.07, 0.9), n_random=3)
    expected = [min(math.ceil(round(share * n, 6)), n - 1) for share in (0.01, 0.07, 0.9)]
    assert list(found.n_deleted) == expected
    assert [n - len(rows) for rows in seen] == [0, *expected * 4]
    order = np.argsort(-scores)
    for rows, gone in zip(seen[1:4], expected, strict=True):
        assert set(rows.tolist()) == set(range(n)) - set(order[:gone].tolist())
    for first in range(4, len(seen), 3):  # what a larger share deletes holds what a smaller one does
        assert set(seen[first + 2].tolist()) <= set(seen[first + 1].tolist()) <= set(seen[first].tolist())


def test_falls_are_those_of_a_model_known_in_full() -> None:
    evidence = np.array([3.0, -1.0, 0.5, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    found = delete_tiles(additive(evidence), evidence, rng=np.random.default_rng(0), shares=(0.1, 0.2), n_random=4)
    logistic = lambda z: 1 / (1 + math.exp(-z))  # noqa: E731
    assert found.whole == pytest.approx(logistic(4.5))
    assert found.top == pytest.approx([logistic(1.5), logistic(-0.5)])
    assert found.random.shape == (4, 2)
    left = {round(logistic(4.5 - gone), 9) for gone in evidence}
    assert {round(value, 9) for value in found.random[:, 0].tolist()} <= left


def test_a_true_map_leads_random_deletion_and_a_false_one_does_not() -> None:
    rng = np.random.default_rng(4)
    true, false = [], []
    for _ in PATIENTS:
        evidence = np.where(rng.random(200) < 0.1, rng.normal(1, 0.3, 200), 0) - 0.05
        for found, scores in ((true, evidence), (false, rng.permutation(evidence))):
            found.append(delete_tiles(additive(evidence), scores, rng=np.random.default_rng(len(found))))
    leads = [fall.lead_interval for fall in mean_falls(true, PATIENTS)]
    assert all(lead.low > 0 for lead in leads)
    for fall in mean_falls(false, PATIENTS):
        assert fall.lead_interval.low < 0 < fall.lead_interval.high


def test_mean_falls_are_means_over_slides_with_the_patient_as_the_unit() -> None:
    rng = np.random.default_rng(9)
    found = [
        Deletion((0.05,), (5,), whole, whole - rng.random(1), whole - rng.random((3, 1))) for whole in rng.random(30)
    ]
    patients = [f"P{number % 12}" for number in range(30)]
    (fall,) = mean_falls(found, patients)
    assert fall.top == pytest.approx(np.mean([one.whole - one.top[0] for one in found]))
    assert fall.random == pytest.approx(np.mean([one.whole - one.random.mean() for one in found]))
    assert fall.lead == pytest.approx(fall.top - fall.random)
    assert (fall.top_interval.cluster, fall.top_interval.n_clusters) == ("patient", 12)
    assert fall.top_interval.low < fall.top < fall.top_interval.high


def test_wrong_shares_and_wrong_answers_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"shares must be in \(0, 1\)"):
        delete_tiles(lambda kept: np.zeros(len(kept)), np.ones(3), rng=rng, shares=(1.0,))
    with pytest.raises(ValueError, match="a probability for each of 34 sets"):
        delete_tiles(lambda kept: np.zeros(len(kept) - 1), np.ones(3), rng=rng)
    with pytest.raises(ValueError, match="the same shares"):
        mean_falls([], [])


def test_a_trained_classifier_s_contributions_find_planted_tiles_and_pass_the_test_by_deletion(tmp_path) -> None:
    bags, truth, rows = planted(40, n_tiles=20, shift=4.0)
    task = task_of(bags, truth)
    spec = MilSpec("mean", lr=5e-2, epochs=25, patience=None, n_seeds=1, n_inner=2, mean_epochs=0)
    ensemble = train(task, tmp_path, spec)
    models = [ensemble.member(number).model for number in range(2)]
    deletions, hits = [], []
    for number in np.flatnonzero(truth == 1).tolist():
        maps = map_tiles(ensemble, task.source, task.source.slides[number])
        assert maps.contrib is not None
        x = torch.from_numpy(bags[number])

        def tell(kept, x=x):
            subsets = PackedBags.of([x[one] for one in kept])
            return np.mean([m(subsets).logits.double().softmax(1)[:, 1].detach().numpy() for m in models], axis=0)

        hits.append(set(rows[number].tolist()) == set(np.argsort(-maps.contrib[:, 1])[:2].tolist()))
        deletions.append(delete_tiles(tell, maps.contrib[:, 1], rng=np.random.default_rng(number), shares=(0.1,)))
    assert np.mean(hits) >= 0.8
    (fall,) = mean_falls(deletions, PATIENTS)
    assert fall.lead_interval.low > 0
