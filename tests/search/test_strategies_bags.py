"""Strategies that rank from bags: the whole published order, step by step in a slow referee."""

import math
from collections import Counter

import numpy as np
import pytest

from histokin.errors import SearchError
from histokin.search.strategies import Bags, Fish, RetCCL, cross_patient_quantile
from histokin.search.strategies.fish import fish_clean, fish_filter, fish_order
from histokin.search.strategies.fish_index import fish_index
from histokin.search.strategies.weights import class_weights

LABELS = ["A", "B", "C"]


def bags_of(lists, n_bits=0):
    """Bags of lists of (slide, value); the label of slide s is the s-th of ABC in turn."""
    hits = [hit for bag in lists for hit in bag]
    slide = np.array([slide for slide, _ in hits], dtype=np.int64)
    return Bags(
        np.cumsum([0, *(len(bag) for bag in lists)]),
        slide,
        np.arange(len(hits)),
        np.zeros((len(hits), 2), dtype=np.int64),
        np.array([value for _, value in hits], dtype=float),
        np.array([LABELS[s % 3] for s in slide], dtype=object),
        n_bits,
    )


def random_bags(seed, n_bits=0):
    rng = np.random.default_rng(seed)
    lists = []
    for _ in range(int(rng.integers(3, 14))):
        n = int(rng.choice([0, 1, 3, 5, 8]))
        values = rng.integers(20, 128, n) if n_bits else rng.uniform(0.3, 1, n)
        lists.append(list(zip(rng.integers(0, 12, n).tolist(), np.sort(values)[:: 1 if n_bits else -1], strict=True)))
    return lists


WEIGHTS = {"A": 2.0, "B": 5.0, "C": 3.0}


def slow_retccl(lists, order):
    """The steps of reference and re-implementation, with Counter for the vote."""
    eta = [sum(v for _, v in bag[:5]) / len(bag[:5]) if bag else 0.0 for bag in lists]
    found = []
    for number, bag in enumerate(lists):
        if not bag or eta[number] < sum(eta) / len(eta) - 1e-12:
            continue
        mass = Counter()
        for slide, value in bag:
            mass[LABELS[slide % 3]] += WEIGHTS[LABELS[slide % 3]] * (value + 1) / 2
        total = sum(mass.values())
        entropy = -sum(m / total * math.log(m / total) for m in mass.values())
        winner = Counter(LABELS[s % 3] for s, _ in bag[:5]).most_common(1)[0][0]
        hit = next((s, v) for s, v in bag[:5] if LABELS[s % 3] == winner)
        found.append((round(entropy, 12) if order == "ascending" else -round(entropy, 12), -eta[number], number, hit))
    answer = {}
    for *_, (slide, value) in sorted(found):
        answer[slide] = max(value, answer.get(slide, value))
    return list(answer.items())


@pytest.mark.parametrize("order", ["ascending", "descending"])
def test_retccl_equals_a_slow_walk_over_its_steps(order):
    n_answers = 0
    for seed in range(40):
        lists = random_bags(seed)
        ranked = RetCCL(order=order).rank(bags_of(lists), WEIGHTS)
        expected = slow_retccl(lists, order)
        assert ranked.slide.tolist() == [slide for slide, _ in expected]
        assert ranked.score == pytest.approx([value for _, value in expected])
        n_answers += len(expected)
    assert n_answers > 100


def test_retccl_bags_that_are_all_alike_are_all_kept():
    values = np.random.default_rng(0).uniform(0.5, 1, 2000)
    above = next(v for v in values.tolist() if math.fsum([v] * 11) / 11 > v)  # a mean may exceed all it is of
    assert RetCCL().rank(bags_of([[(0, above)]] * 11), WEIGHTS).used.all()


def slow_fish(lists, n_bits, *, is_coded):
    """`eval.py` of SISH as the reference describes it, steps 1 to 5, on lists of (slide, Hamming)."""
    summary = []
    for bag in lists:
        if bag:
            counts = {}
            for rank, (slide, _) in enumerate(bag, start=1):
                label = LABELS[slide % 3]
                counts[label] = counts.get(label, 0) + WEIGHTS[label] / rank
            if not is_coded:
                counts = {label: max(1, count) for label, count in counts.items()}
            total = sum(counts.values())
            shares = {label: count / total for label, count in counts.items()}
            entropy = 0.0 if len(shares) == 1 else -sum(p * math.log2(p) for p in shares.values())
            summary.append((entropy, shares, bag))
    lengths = [len(bag) for _, _, bag in summary]
    if len(set(lengths)) > 3:
        low, high = np.percentile(lengths, 5), np.percentile(lengths, 95)
        summary = [entry for entry in summary if low < len(entry[2]) < high]
    if not summary:
        return []
    means = [np.mean([h for _, h in bag[:5]]) for _, _, bag in summary]
    threshold = np.mean(means)
    kept = [entry for entry, mean in zip(summary, means, strict=True) if mean <= threshold + 1e-9]
    kept.sort(key=lambda entry: entry[0])
    votes = Counter()
    for _, shares, _ in kept[:5]:
        votes.update(shares)
    for winner, _ in votes.most_common():
        wrong = [n for n, entry in enumerate(kept[:5]) if max(entry[1], key=entry[1].get) != winner]
        if len(wrong) < len(kept[:5]):
            break
    results, gone = {}, set()
    for number, (entropy, _, bag) in enumerate(kept):
        if number in wrong and not is_coded:
            continue
        for slide, distance in bag:
            if (entropy == 0 or distance <= threshold) and slide not in results:
                results[slide] = (entropy, distance, slide)
                if number in wrong:
                    gone.add(slide)
    return [(slide, 1 - distance / n_bits) for _, distance, slide in sorted(results.values()) if slide not in gone]


@pytest.mark.parametrize("variant", ["as_coded", "as_commented"])
def test_fish_equals_a_slow_walk_over_its_steps(variant):
    n_answers = 0
    for seed in range(40):
        lists = random_bags(seed, n_bits=1024)
        ranked = Fish(variant=variant).rank(bags_of(lists, n_bits=1024), WEIGHTS)
        expected = slow_fish(lists, 1024, is_coded=variant == "as_coded")
        assert ranked.slide.tolist() == [slide for slide, _ in expected]
        assert ranked.score == pytest.approx([value for _, value in expected])
        n_answers += len(expected)
    assert n_answers > 50


def test_fish_as_coded_loses_a_slide_first_seen_in_a_removed_bag():
    entropy, hits = [0.2, 0.5], [[(1, 50), (2, 60)], [(1, 40), (3, 45)]]
    assert fish_order(entropy, hits, 100, removed=[0]) == [(3, 45)]
    assert fish_order(entropy, hits, 100, removed=[0], variant="as_commented") == [(1, 40), (3, 45)]


def test_fish_removes_bags_of_the_first_five_only():
    shares = [{"A": 1.0}] * 5 + [{"B": 1.0}] * 4
    assert fish_filter(shares) == ([], "A")
    assert fish_filter([]) == ([], "")


def test_fish_without_any_hit_answers_nothing():
    assert fish_clean(np.zeros(0), [])[0] == []
    assert len(Fish().rank(bags_of([[], []], n_bits=1024), WEIGHTS).slide) == 0


def test_the_hamming_limit_follows_the_length_of_the_code():
    assert Fish().limit(1024) == 128
    assert Fish().limit(512) == 64


def test_the_index_hardly_knows_where_codes_lie():
    # What the tree is searched by changes with the sum of codes; shuffling all positions moves it by truncation alone.
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 128, size=(64, 64))
    shuffled = rng.permutation(codes.ravel()).reshape(64, 64)
    assert abs(fish_index(codes) / fish_index(shuffled) - 1) < 0.02
    assert fish_index(codes + 8) / fish_index(codes) > 1.1
    with pytest.raises(ValueError, match="sides divide by 8"):
        fish_index(np.zeros((60, 64), dtype=int))


def test_class_weights_sum_to_what_is_asked_and_favour_the_rare():
    weights = class_weights({"A": 1, "B": 2, "C": 10}, sum_to=30)
    assert sum(weights.values()) == pytest.approx(30)
    assert weights["A"] == pytest.approx(2 * weights["B"]) == pytest.approx(10 * weights["C"])


def test_the_cross_patient_quantile_leaves_pairs_of_one_patient_out():
    rng = np.random.default_rng(1)
    unit = rng.normal(size=(60, 5))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    rows, patients = np.repeat(unit, 5, axis=0), np.repeat(np.arange(60), 5)  # five equal tiles a patient
    pairs = (unit @ unit.T)[np.triu_indices(60, 1)]
    found = cross_patient_quantile(rows, patients, 0.9, n_pairs=200_000)
    assert found == pytest.approx(np.quantile(pairs, 0.9), abs=0.02)
    assert np.isnan(cross_patient_quantile(rows, np.zeros(300)))


def test_retccl_takes_its_threshold_from_the_archive_unless_it_is_given():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(400, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    patients = np.arange(400) // 4
    assert RetCCL().fitted(lambda: (rows, patients)).threshold == cross_patient_quantile(rows, patients, 0.99)
    assert RetCCL(threshold=0.7).fitted(lambda: pytest.fail("the archive was read")).limit(0) == 0.7
    with pytest.raises(SearchError, match="there is one patient only"):
        RetCCL().fitted(lambda: (rows, np.zeros(400)))
    with pytest.raises(ValueError, match="call `fitted`"):
        RetCCL().limit(0)
