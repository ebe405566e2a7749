"""The hand-worked cases of golden_search.json, a test for each, named by its id.

no_match_threshold, no_match_p_value and region_weighted_median are tested beside calibration and regions; a test here
says that no case is left without one.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from histokin.evaluate.retrieval import Retrieved, acc_at_k, ap_at_k, mmv_at_k
from histokin.search.barcodes import falling, hamming, pack, rising
from histokin.search.exact_searcher import ExactSearcher
from histokin.search.mosaics import allocation, nearest_free_members
from histokin.search.slides import median_of_minimum
from histokin.search.strategies import Asked, Bags, MaxSim, MaxSimBoth, RetCCL
from histokin.search.strategies.asked import shares
from histokin.search.strategies.fish import (
    fish_clean,
    fish_filter,
    fish_lengths_kept,
    fish_order,
    fish_uncertainty,
)
from histokin.search.strategies.fish_index import fish_index, fish_seeds
from histokin.search.strategies.retccl import retccl_answer, retccl_eta, retccl_kept, retccl_uncertainty
from histokin.search.strategies.weights import class_weights, hshr_rank_weights
from histokin.search.tables import Made, SlideEntry, TileHits, Where
from histokin.search.votes import tally, votes

CASES = {c["id"]: c for c in json.loads(Path(__file__).with_name("golden_search.json").read_text())["cases"]}
TESTED_ELSEWHERE = {"no_match_threshold", "no_match_p_value", "region_weighted_median"}


def case(name):
    return CASES[name]["input"], CASES[name]["expected"]


def test_every_case_has_a_test_of_its_name():
    named = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(CASES) - TESTED_ELSEWHERE <= named


def bits(code, *rows):
    return code(np.array(rows)).astype(int).tolist()


def test_barcode_two_vectors():
    given, expected = case("barcode_two_vectors")
    rows = given["u"], given["v"]
    assert bits(falling, *rows) == [expected["yottixel_u"], expected["yottixel_v"]]
    assert bits(rising, *rows) == [expected["fish_u"], expected["fish_v"]]
    for code, name in ((falling, "hamming_yottixel"), (rising, "hamming_fish")):
        packed = pack(code(np.array(rows)))
        assert hamming(packed, packed).tolist() == [[0, expected[name]], [expected[name], 0]]


def test_barcode_shift_scale_invariant():
    given, expected = case("barcode_shift_scale_invariant")
    names = "u", "scaled", "permuted"
    assert bits(falling, *(given[n] for n in names)) == [expected[f"yottixel_{n}"] for n in names]


def test_median_of_min_odd():
    given, expected = case("median_of_min_odd")
    scores = {name: median_of_minimum(np.array(given[f"D_to_{name}"])) for name in "AB"}
    assert [scores["A"], scores["B"]] == [expected["score_A"], expected["score_B"]]
    assert sorted(scores, key=scores.__getitem__) == expected["ranking"]


def check_both_directions(name):
    given, expected = case(name)
    distances = np.array(given["D_Q_to_A"])
    assert median_of_minimum(distances) == expected["score_Q_to_A"]
    assert median_of_minimum(distances.T) == expected["score_A_to_Q"]


def test_median_of_min_even_and_direction():
    check_both_directions("median_of_min_even_and_direction")


def test_median_of_min_directed_differs():
    check_both_directions("median_of_min_directed_differs")


def test_mosaic_allocation():
    given, expected = case("mosaic_allocation")
    sizes = np.array(given["cluster_sizes"])
    assert allocation(sizes, given["rate_yottixel"]).tolist() == expected["yottixel"]
    assert allocation(sizes, given["rate_fish"], small="all").tolist() == expected["fish_code"]
    assert allocation(sizes, given["rate_retccl"]).tolist() == expected["retccl"]


def test_mosaic_pick_nearest_free_member():
    given, expected = case("mosaic_pick_nearest_free_member")
    picked = nearest_free_members(np.array(given["tiles_xy"]), np.array(given["centres"]))
    assert picked.tolist() == expected["picked_indices"]


def test_fish_index_constant_latent():
    assert fish_index(np.full((64, 64), 5)) == case("fish_index_constant_latent")[1]["index"]


def test_fish_index_ramp_latent():
    expected = case("fish_index_ramp_latent")[1]
    codes = np.arange(4096).reshape(64, 64) % 128
    assert codes.sum() == expected["sum_of_codes"]
    assert fish_index(codes) == expected["index"]
    assert expected["index"] == expected["s1"] + 10**6 * expected["s2"] + 10**11 * expected["s3"]


def test_fish_seed_indices():
    given, expected = case("fish_seed_indices")
    back, forward = fish_seeds(given["m"], step=given["C"], n=given["T"])
    assert (back, forward) == (expected["back"], expected["forward"])


def test_fish_class_weights():
    given, expected = case("fish_class_weights")
    assert class_weights(given["slides_per_class"], sum_to=given["sum_to"]) == pytest.approx(expected)


def test_fish_uncertainty():
    given, expected = case("fish_uncertainty")
    entropy, shared, counts = fish_uncertainty(given["labels_by_rank"], given["weights"])
    assert entropy == pytest.approx(expected["entropy_bits"], abs=1e-6)
    assert shared == pytest.approx({"A": expected["p_A"], "B": expected["p_B"]}, abs=1e-6)
    assert counts == pytest.approx({"A": expected["count_A"], "B": expected["count_B"]}, abs=1e-6)


@pytest.mark.parametrize("variant", ["as_commented", "as_coded"])
def test_fish_uncertainty_round_up(variant):
    given, expected = case("fish_uncertainty_round_up")
    entropy, _, counts = fish_uncertainty(given["labels_by_rank"], given["weights"], variant=variant)
    assert entropy == pytest.approx(expected[variant]["entropy_bits"], abs=1e-6)
    assert list(counts.values()) == pytest.approx(expected[variant]["counts"], abs=1e-6)


def test_fish_clean_mean_rule():
    given, expected = case("fish_clean_mean_rule")
    entropy = np.array([bag["entropy"] for bag in given["bags"]])
    kept, threshold = fish_clean(entropy, [np.array(bag["hamming"]) for bag in given["bags"]])
    assert kept == expected["kept_in_order"]
    assert threshold == pytest.approx(expected["threshold"])


def check_lengths(name):
    given, expected = case(name)
    lengths = np.array(given["lengths"])
    kept, low, high = fish_lengths_kept(lengths)
    assert (low, high) == pytest.approx((expected["p5"], expected["p95"]))
    assert lengths[kept].tolist() == expected["kept_lengths"]


def test_fish_clean_length_trim():
    check_lengths("fish_clean_length_trim")


def test_fish_clean_length_trim_flaw():
    check_lengths("fish_clean_length_trim_flaw")


def check_filter(name):
    given, expected = case(name)
    assert fish_filter(given["bags"]) == (expected["removed"], expected["winner"])


def test_fish_filter_by_prediction():
    check_filter("fish_filter_by_prediction")


def test_fish_filter_by_prediction_fallback():
    check_filter("fish_filter_by_prediction_fallback")


def test_fish_final_order():
    given, expected = case("fish_final_order")
    bags = given["bags_by_entropy"]
    hits = [[(int(slide[1:]), distance) for slide, distance in bag["hits"]] for bag in bags]
    ranked = fish_order([bag["entropy"] for bag in bags], hits, given["threshold"])
    assert [f"s{slide}" for slide, _ in ranked] == expected["order"]


def retrieved(lists, truth):
    codes = np.array([[ord(label) - 65 for label in labels] for labels in lists])
    own = np.array([ord(label) - 65 for label in truth])
    n, k = codes.shape
    rows = np.broadcast_to(np.arange(k), (n, k))
    return Retrieved(np.arange(n), own, rows, codes, -rows / k, np.full(n, k), np.full(n, k), tuple("ABC"))


def test_fish_ap_at_5():
    given, expected = case("fish_ap_at_5")
    frame = retrieved([given["returned"]], given["truth"])
    assert ap_at_k(frame, 5, denominator="over-k") == pytest.approx([expected["ap"]], abs=1e-6)


def tile_hits(bags, numbers):
    """Hits of lists of (slide, label, cosine), sorted, and the labels by slide number."""
    k = max(len(bag) for bag in bags)
    slide, score = np.full((len(bags), k), -1), np.full((len(bags), k), np.nan)
    labels = np.full(len(numbers), "", dtype=object)
    for q, bag in enumerate(bags):
        for slot, (name, label, cosine) in enumerate(sorted(bag, key=lambda hit: -hit[2])):
            slide[q, slot], score[q, slot] = numbers[name], cosine
            labels[numbers[name]] = label
    return TileHits(score, slide, np.where(slide < 0, -1, 0), slide * 0, slide * 0, slide.astype(object)), labels


NUMBERS = {f"s{n}": n for n in range(6)}


def bags_of(lists, threshold=-1.0):
    return Bags.of_hits(*tile_hits(lists, NUMBERS), threshold)


def test_retccl_bag_entropy():
    given, expected = case("retccl_bag_entropy")
    bags = bags_of([given["candidates"]], given["threshold"])
    assert [f"s{slide}" for slide in bags.slide] == expected["bag"]
    entropy, shared = retccl_uncertainty(bags.label.tolist(), bags.value, given["weights"])
    assert entropy == pytest.approx(expected["entropy_nats"], abs=1e-6)
    assert shared == pytest.approx({"A": expected["p_A"], "B": expected["p_B"]}, abs=1e-6)


def test_retccl_eta_removal_and_vote():
    given, expected = case("retccl_eta_removal_and_vote")
    bags = bags_of([bag["hits"] for bag in given["bags"]])
    eta = np.array([retccl_eta(bags.value[bags.of(q)]) for q in range(3)])
    assert eta == pytest.approx(expected["eta"], abs=1e-6)
    kept, threshold = retccl_kept(eta, np.diff(bags.first))
    assert threshold == pytest.approx(expected["eta_threshold"], abs=1e-6)
    assert np.flatnonzero(kept).tolist() == expected["kept_tiles"]
    for order, name in (("ascending", "returned_ascending_entropy"), ("descending", "returned_review_code_order")):
        ranked = RetCCL(order=order).rank(bags, {"A": 4, "B": 6})
        assert [f"s{slide}" for slide in ranked.slide] == expected[name]


def test_retccl_empty_bag_is_not_certain():
    given, expected = case("retccl_empty_bag_is_not_certain")
    bags = bags_of([bag["hits"] for bag in given["bags"]])
    eta = np.array([retccl_eta(bags.value[bags.of(q)]) for q in range(2)])
    kept, threshold = retccl_kept(eta, np.diff(bags.first))
    assert threshold == pytest.approx(expected["eta_threshold"])
    assert np.flatnonzero(kept).tolist() == expected["kept_tiles"]
    assert RetCCL().rank(bags, {"A": 1}).slide.tolist() == [1]


def test_retccl_duplicate_slide():
    given, expected = case("retccl_duplicate_slide")
    bags = bags_of(given["bags_in_order"])
    published = retccl_answer(bags, [0, 1, 2], score="first")
    assert [f"s{slide}" for slide, _ in published] == expected["returned"]
    assert published[0][1] == expected["score_of_s1"]
    assert retccl_answer(bags, [0, 1, 2]) == [(1, 0.95), (2, 0.8)]


def test_vote_tie_first_seen():
    given, expected = case("vote_tie_first_seen")
    found = tally(given["labels"], np.linspace(0.9, 0.5, 5), rule="first_seen")
    assert found[0].label == expected["winner"]
    assert {entry.label: entry.count for entry in found} == expected["counts"]
    codes = np.array([[ord(label) for label in given["labels"]]])
    assert votes(codes).tolist() == [ord(expected["winner"])]


def test_vote_tie_histokin():
    given, expected = case("vote_tie_histokin")
    found = tally([label for label, _ in given["hits"]], [value for _, value in given["hits"]])
    assert found[0].label == expected["winner"]
    assert {entry.label: entry.similarity for entry in found} == pytest.approx(expected["sums"])


def test_vote_tie_all_equal():
    given, expected = case("vote_tie_all_equal")
    assert tally(*zip(*given["hits"], strict=True))[0].label == expected["winner"]


def test_fish_short_list_rule():
    given, expected = case("fish_short_list_rule")
    lists = [[*(ord(label) for label in labels), *[-1] * (given["K"] - len(labels))] for labels in given["lists"]]
    assert (votes(np.array(lists), rule="fish") == ord(given["truth"])).tolist() == expected["correct"]


def test_acc_at_k_vs_mmv():
    given, expected = case("acc_at_k_vs_mmv")
    frame = retrieved(given["lists"], given["truth"])
    found = {"acc@1": acc_at_k(frame, 1), "acc@5": acc_at_k(frame, 5), "mMV@5": mmv_at_k(frame, 5)}
    assert {name: values.mean() for name, values in found.items()} == expected


def test_maxsim_basic():
    given, expected = case("maxsim_basic")
    slides = {name: np.array(given[name]) for name in "AB"}
    asked = Asked.of(np.array(given["Q"]))
    there = {name: MaxSim().score(asked, slide) for name, slide in slides.items()}
    back = {name: MaxSim().score(Asked.of(slide), asked.vectors) for name, slide in slides.items()}
    both = {name: MaxSimBoth().score(asked, slide) for name, slide in slides.items()}
    assert there == pytest.approx({name: expected[f"Q_to_{name}"] for name in "AB"})
    assert back == pytest.approx({name: expected[f"{name}_to_Q"] for name in "AB"})
    assert both == pytest.approx({name: expected[f"sym_{name}"] for name in "AB"})
    assert sorted(there, key=there.__getitem__, reverse=True) == expected["ranking"]


def test_maxsim_weighted():
    given, expected = case("maxsim_weighted")
    asked = Asked.of(np.array(given["Q"]), np.array(given["weights"]))
    assert {name: MaxSim().score(asked, np.array(given[name])) for name in "AB"} == pytest.approx(expected)


def test_maxsim_evidence():
    given, expected = case("maxsim_evidence")
    asked = Asked.of(np.array(given["Q"]))
    row, similarity = MaxSim().pairs(asked, np.array(given["A"]))
    assert [[q, r, pytest.approx(s)] for q, (r, s) in enumerate(zip(row, similarity, strict=True))] == expected["pairs"]
    assert shares(asked.weights, similarity) == pytest.approx(expected["share"])


def test_rank_tie_rule():
    given, expected = case("rank_tie_rule")
    made = Made("hand", "hand", "grid", 1.0, 256, 2)
    owners = {slide: patient for slide, _, _, patient in given["hits"]}
    entries = []
    for slide, patient in owners.items():
        own = [(tile, cosine) for name, tile, cosine, _ in given["hits"] if name == slide]
        cosine = np.array([value for _, value in own])
        vectors = np.stack([cosine, np.sqrt(1 - cosine**2)], axis=1)
        places = np.zeros((len(own), 2), dtype=int)
        entries.append(SlideEntry(slide, patient, vectors, np.array([tile for tile, _ in own]), places))
    searcher = ExactSearcher(made, entries)
    where = Where.of(leave_out={"patient": [given["exclude_patient"]]})
    hits = searcher.search(np.array([[1.0, 0.0]]), 4, where=where)
    found = [[searcher.slides.slide[s], t] for s, t in zip(hits.slide[0], hits.tile[0], strict=True) if s >= 0]
    assert found == expected["order"]


def test_hshr_rank_weights():
    given, expected = case("hshr_rank_weights")
    assert hshr_rank_weights(given["k"]) == pytest.approx(expected["weights"], abs=1e-6)
