"""Slide search: the published formula, exclusion before ranking, evidence."""

import json
from pathlib import Path

import numpy as np
import pytest

from histokin.errors import StoreError
from histokin.search import Archive, median_of_minimum, nearest_slides, rank_slides

CASES = {c["id"]: c for c in json.loads(Path(__file__).with_name("golden_search.json").read_text())["cases"]}


def make_bags(n_slides=12, seed=0, d=8):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, d))
    return [centres[i % 3] + 0.5 * rng.normal(size=(rng.integers(3, 9), d)) for i in range(n_slides)]


def archive_of(n, patients=None):
    names = np.array([f"s{i:02d}" for i in range(n)], dtype=object)
    return Archive.of_slides(names, names if patients is None else patients)


def cosines(first, second):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second)]
    return unit[0] @ unit[1].T


def test_median_of_minimum_matches_the_published_cases():
    odd = CASES["median_of_min_odd"]
    assert median_of_minimum(np.array(odd["input"]["D_to_A"])) == odd["expected"]["score_A"]
    assert median_of_minimum(np.array(odd["input"]["D_to_B"])) == odd["expected"]["score_B"]
    for name in ("median_of_min_even_and_direction", "median_of_min_directed_differs"):
        case = CASES[name]
        distances = np.array(case["input"]["D_Q_to_A"])
        assert median_of_minimum(distances) == case["expected"]["score_Q_to_A"]
        assert median_of_minimum(distances.T) == case["expected"]["score_A_to_Q"]


def test_maxsim_and_its_evidence_match_the_golden_case():
    case = CASES["maxsim_basic"]
    bags = [np.array(case["input"]["A"]), np.array(case["input"]["B"])]
    hits = rank_slides([np.array(case["input"]["Q"])], bags, archive_of(2), 2, strategy="maxsim")
    assert hits.row.tolist() == [0, 1]
    assert hits.score == pytest.approx([case["expected"]["Q_to_A"], case["expected"]["Q_to_B"]])
    pairs = hits.to_rows()[0]["evidence"]
    expected = CASES["maxsim_evidence"]["expected"]
    assert [[p["query_tile"], p["tile"], pytest.approx(p["score"])] for p in pairs] == expected["pairs"]
    assert [p["share"] for p in pairs] == pytest.approx(expected["share"])


@pytest.mark.parametrize("strategy", ["mean", "median_min", "maxsim"])
def test_equals_the_loop_over_all_pairs_of_slides(strategy):
    bags = make_bags()
    patients = np.array([f"p{i // 2}" for i in range(len(bags))], dtype=object)
    found = nearest_slides(bags, bags, 5, strategy=strategy, query_groups=patients, database_groups=patients)
    for q, query in enumerate(bags):
        scored = []
        for s, slide in enumerate(bags):
            if patients[q] == patients[s]:
                continue
            pairs = cosines(query, slide)
            means = [(b / np.linalg.norm(b, axis=1, keepdims=True)).mean(axis=0) for b in (query, slide)]
            score = {
                "mean": cosines(means[0][None], means[1][None])[0, 0],
                "median_min": 1 - median_of_minimum(1 - pairs),
                "maxsim": pairs.max(axis=1).mean(),
            }[strategy]
            scored.append((-score, s))
        expected = sorted(scored)[:5]
        assert found.ids[q].tolist() == [s for _, s in expected]
        assert found.scores[q] == pytest.approx([-score for score, _ in expected], abs=1e-12)


def test_equal_slides_come_in_row_order_and_short_lists_are_padded():
    bag = make_bags(1)[0]
    for strategy in ("mean", "median_min"):
        found = nearest_slides([bag], [bag, bag * 2, bag[::-1].copy()], 4, strategy=strategy, query_ids=np.array([1]))
        assert found.ids.tolist() == [[0, 2, -1, -1]]
        assert np.isnan(found.scores[0, 2:]).all()


def test_the_query_patient_is_left_out_before_ranking():
    bags = make_bags(9)
    twin = [*bags, bags[0] + 1e-4]
    owners = np.array([*range(9), 0])
    plain = nearest_slides(bags[:1], bags, 3, strategy="median_min", query_groups=[0], database_groups=owners[:9])
    leaky = nearest_slides(bags[:1], twin, 3, strategy="median_min", query_groups=[0], database_groups=owners)
    naive = nearest_slides(bags[:1], twin, 3, strategy="median_min", query_ids=np.array([0]))
    assert (leaky.ids == plain.ids).all()
    assert naive.ids[0, 0] == 9


def test_hits_name_slides_and_evidence_points_into_whole_bags():
    rng = np.random.default_rng(5)
    bags = [rng.normal(size=(n, 6)) for n in (40, 30, 50)]
    labels = np.array(["a", "", "b"], dtype=object)
    archive = Archive.of_slides(np.array(["x", "y", "z"]), np.array(["1", "2", "3"]), labels)
    hits = rank_slides(bags, bags, archive, 2, query_ids=np.arange(3), strategy="median_min", limit=10, n_pairs=3)
    assert len(hits) == 6
    assert hits.rank.tolist() == [1, 2] * 3
    assert "drawn down to 10 tiles" in hits.notes[0]
    for row in hits.to_rows():
        assert row["label"] == labels[row["row"]]
        for pair in row["evidence"]:
            pair_cosine = cosines(bags[row["query"]][[pair["query_tile"]]], bags[row["row"]][[pair["tile"]]])[0, 0]
            assert pair["score"] == pytest.approx(pair_cosine)
    again = rank_slides(bags, bags, archive, 2, query_ids=np.arange(3), strategy="median_min", limit=10, n_pairs=3)
    assert (again.score == hits.score).all()


def test_a_slide_drawn_down_is_still_its_own_best_match():
    rng = np.random.default_rng(6)
    bags = [rng.normal(size=(60, 6)) for _ in range(5)]
    found = nearest_slides(bags, bags, 1, strategy="median_min", limit=12)
    assert found.ids[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert found.scores[:, 0] == pytest.approx(np.ones(5))


@pytest.mark.parametrize("strategy", ["mean", "median_min"])
def test_euclidean_distance_serves_the_floors(strategy):
    bags = make_bags(6)
    found = nearest_slides(bags, bags, 2, strategy=strategy, metric="euclidean", query_ids=np.arange(6))
    for q, query in enumerate(bags):
        scores = []
        for s, slide in enumerate(bags):
            distance = np.linalg.norm(query[:, None] - slide[None], axis=2)
            mean = np.linalg.norm(query.mean(axis=0) - slide.mean(axis=0))
            scores.append((mean if strategy == "mean" else median_of_minimum(distance), s))
        expected = [pair for pair in sorted(scores) if pair[1] != q][:2]
        assert found.ids[q].tolist() == [s for _, s in expected]
        assert found.scores[q] == pytest.approx([-v for v, _ in expected])


def test_impossible_bags_are_refused():
    good = make_bags(2)
    with pytest.raises(ValueError, match="database bag 1 must be"):
        nearest_slides(good, [good[0], np.ones((0, 8))], 1)
    with pytest.raises(StoreError, match="query slide 0, row 1: the vector is zero"):
        nearest_slides([np.array([[1.0] * 8, [0.0] * 8])], good, 1)
    with pytest.raises(ValueError, match="strategy must be one of mean, median_min, maxsim"):
        nearest_slides(good, good, 1, strategy="best")  # pyright: ignore[reportArgumentType]
