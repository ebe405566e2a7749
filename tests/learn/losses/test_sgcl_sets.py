"""The choice of SGCL's sets: against a slow loop, exact against scalable, laws of memory and of ranks."""

import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from histokin.learn.losses import SetRule, cluster_lists, draw_pool, draw_ranks, select_exact, select_scalable
from histokin.learn.losses.sgcl_sets import _best, auxiliary_anchors, listed, nearest, spatial_neighbours, union
from histokin.streams import stream


def world(N=90, B=5, clusters=(3, 4), seed=0, side=6):
    """Slides of side x side tiles, the last tile of all alone on its slide."""
    rng = np.random.default_rng(seed)
    slide, place = np.arange(N) // (side * side), np.arange(N) % (side * side)
    slide[-1] = slide.max() + 1
    lists = []
    for i in range(N):
        first = slide[i] * side * side
        at = np.arange(first, min(first + side * side, N - 1)) if i < N - 1 else np.array([i])
        gap = np.hypot(place[at] % side - place[i] % side, place[at] // side - place[i] // side)
        lists.append(at[(gap > 0) & (gap < 2)])
    index = np.append(rng.choice(N - 1, B - 1, replace=False), N - 1)
    return {
        "q": torch.from_numpy(rng.normal(size=(B, 4))),
        "backbone": torch.from_numpy(rng.normal(size=(B, 6))),
        "bank": torch.from_numpy(rng.normal(size=(N, 4))),
        "backbone_bank": torch.from_numpy(rng.normal(size=(N, 6))),
        "index": torch.from_numpy(index),
        "indptr": torch.from_numpy(np.concatenate([[0], np.cumsum([len(row) for row in lists])])),
        "indices": torch.from_numpy(np.concatenate(lists).astype(np.int32)),
    }, torch.from_numpy(np.stack([rng.integers(0, k, N) for k in clusters]))


def ragged(sets):
    return [[row for row in rows if row >= 0] for rows in sets.tolist()]


def slow_sets(world, labels, ranks, rule):
    x = {name: value.numpy() for name, value in world.items()}
    for name in ("q", "backbone", "bank", "backbone_bank"):
        x[name] = x[name] / np.linalg.norm(x[name], axis=1, keepdims=True)
    labels, N, found = labels.numpy(), len(x["bank"]), []
    for b, i in enumerate(x["index"]):
        S = sorted(x["indices"][x["indptr"][i] : x["indptr"][i + 1]].tolist())
        aux = sorted(S, key=lambda j: -(x["q"][b] @ x["bank"][j]))[: rule.aux]
        M = set()
        for a, v in [(i, x["q"][b]), *((j, x["bank"][j]) for j in aux)]:
            others = sorted((j for j in range(N) if j != a), key=lambda j: -(v @ x["bank"][j]))
            M |= {j for j in others[: rule.nei_k] if (labels[:, j] == labels[:, a]).all()}
        P = set(S) | M
        candidates = [j for j in range(N) if j not in P and j != i]
        candidates.sort(key=lambda j: -(x["backbone"][b] @ x["backbone_bank"][j]))
        H = [candidates[r] for r in ranks if r < len(candidates)]
        found.append((S, aux, sorted(M), sorted(P), H))
    return [list(column) for column in zip(*found, strict=True)]


@pytest.mark.parametrize("aux", [0, 1, 3])
@pytest.mark.parametrize("nei_k", [1, 20, 500])
@pytest.mark.parametrize("chunk", [1, 17, 1000])
def test_exact_sets_equal_the_loop_at_any_chunk(aux, nei_k, chunk):
    inputs, labels = world()
    rule, ranks = SetRule(aux=aux, nei_k=nei_k, hard_fraction=0.3), [0, 2, 9, 26]
    sets = select_exact(**inputs, labels=labels, ranks=torch.tensor(ranks), rule=rule, chunk=chunk)
    for got, expected in zip(sets, slow_sets(inputs, labels, ranks, rule), strict=True):
        assert ragged(got) == expected


@pytest.mark.parametrize("aux", [0, 1, 3])
@pytest.mark.parametrize("nei_k", [1, 20, 500])
def test_scalable_sets_with_a_pool_of_all_tiles_are_the_exact_ones(aux, nei_k):
    inputs, labels = world(clusters=(2, 2, 1))
    rule, ranks = SetRule(aux=aux, nei_k=nei_k, hard_fraction=0.3, semantic_cap=500), torch.tensor([0, 2, 9, 26])
    exact = select_exact(**inputs, labels=labels, ranks=ranks, rule=rule)
    lists, pool = cluster_lists(labels), torch.arange(90)
    for chunk in (7, 1000):
        scalable = select_scalable(**inputs, lists=lists, pool=pool, ranks=ranks, rule=rule, chunk=chunk)
        for got, expected in zip(scalable, exact, strict=True):
            assert ragged(got) == ragged(expected)


def test_caps_keep_the_most_similar_and_a_pool_keeps_hard_negatives_in_it():
    inputs, labels = world(N=300, clusters=(2,))
    ranks, pool = torch.arange(12), torch.arange(0, 300, 5)
    wide = SetRule(aux=1, nei_k=150, semantic_cap=500)
    lists = cluster_lists(labels)
    full = select_scalable(**inputs, lists=lists, pool=pool, ranks=ranks, rule=wide)
    few = select_scalable(**inputs, lists=lists, pool=pool, ranks=ranks, rule=SetRule(aux=1, nei_k=150, semantic_cap=3))
    assert few.propagated.shape == (5, 3)
    for small, large, positives, hard in zip(*map(ragged, (*few[2:3], *full[2:3], *few[3:])), strict=True):
        assert set(small) <= set(large)
        assert len(large) > 3
        assert not set(hard) & set(positives)
        assert set(hard) <= set(pool.tolist())
        assert len(hard) == 12


def test_an_estimated_threshold_keeps_about_as_many_as_the_exact_one():
    inputs, labels = world(N=2000, B=16, clusters=(1,), side=45)
    rule, rng = SetRule(aux=0, nei_k=400, semantic_cap=2000), np.random.default_rng(0)
    pool = torch.from_numpy(draw_pool(rng, n_tiles=2000, size=500))
    sets = select_scalable(**inputs, lists=cluster_lists(labels), pool=pool, ranks=torch.arange(5), rule=rule)
    kept = (sets.propagated >= 0).sum(1).double()
    assert kept.mean().item() == pytest.approx(400, rel=0.1)


def test_where_every_row_is_among_the_nearest_the_pool_cuts_nothing_off():
    inputs, labels = world(clusters=(2,))
    pool = torch.tensor([i for i in range(90) if i not in inputs["index"]][:10])
    rule = SetRule(aux=0, nei_k=500, semantic_cap=500)
    sets = select_scalable(**inputs, lists=cluster_lists(labels), pool=pool, ranks=torch.tensor([0]), rule=rule)
    for i, members in zip(inputs["index"].tolist(), ragged(sets.propagated), strict=True):
        assert members == [j for j in range(90) if labels[0, j] == labels[0, i] and j != i]


def test_a_row_found_twice_takes_one_place_among_the_best():
    ids, scores = torch.tensor([[3, 5, 3, -1]]), torch.tensor([[0.8, 0.7, 0.9, -torch.inf]])
    assert _best(ids, scores, 2).tolist() == [[3, 5]]
    assert _best(ids, scores, 9).tolist() == [[3, 5, -1, -1]]


def test_a_tile_alone_has_neither_neighbours_nor_auxiliaries():
    inputs, labels = world()
    sets = select_exact(**inputs, labels=labels, ranks=torch.tensor([0]), rule=SetRule(aux=2, nei_k=5))
    assert ragged(sets.spatial)[-1] == ragged(sets.auxiliary)[-1] == []
    nobody = spatial_neighbours(inputs["index"][-1:], inputs["indptr"], inputs["indices"])
    assert nobody.shape == (1, 0)
    assert auxiliary_anchors(inputs["q"][-1:], inputs["bank"], nobody, aux=2).shape == (1, 0)


def test_too_few_candidates_give_fewer_hard_negatives_never_a_positive():
    inputs, labels = world(N=40, clusters=(1,))
    rule = SetRule(aux=0, nei_k=35, hard_fraction=1.0)
    sets = select_exact(**inputs, labels=labels, ranks=torch.arange(40), rule=rule)
    for i, positives, hard in zip(inputs["index"].tolist(), ragged(sets.positives), ragged(sets.hard), strict=True):
        assert sorted({*positives, *hard, i}) == list(range(40))
        assert not set(positives) & set(hard)
        assert i not in hard


def test_ties_go_to_the_lowest_row_at_any_chunk():
    bank = torch.ones(50, 3)
    for chunk in (1, 7, 50):
        _, rows = nearest(torch.ones(1, 3), bank, k=4, excluded=torch.tensor([[2, -1]]), chunk=chunk)
        assert rows.tolist() == [[0, 1, 3, 4]]


def test_union_by_hand():
    left, right = torch.tensor([[5, 2, -1], [-1, -1, -1]]), torch.tensor([[2, 9], [-1, 4]])
    assert union(left, right).tolist() == [[2, 5, 9], [4, -1, -1]]
    assert union(torch.full((2, 3), -1)).shape == (2, 0)
    assert union(torch.empty(2, 0).long()).shape == (2, 0)


def test_lists_hold_exactly_the_tiles_that_agree_in_all_clusterings():
    labels = torch.tensor([[0, 1, 0, 1, 0, 0], [2, 2, 2, 2, 0, 2]])
    lists = cluster_lists(labels)
    members = listed(torch.arange(6), lists, limit=99, phase=0.5)
    assert ragged(members) == [[0, 2, 5], [1, 3], [0, 2, 5], [1, 3], [4], [0, 2, 5]]
    assert ragged(listed(torch.tensor([-1, 4]), lists, limit=99, phase=0.5)) == [[], [4]]


@pytest.mark.parametrize("phase", [0.0, 0.5, 1.0])
def test_long_lists_are_thinned_evenly_without_repeats(phase):
    lists = cluster_lists(torch.zeros(1, 1000).long())
    (members,) = ragged(listed(torch.tensor([3]), lists, limit=30, phase=phase))
    assert len(set(members)) == 30
    assert max(np.diff(members)) <= 34


class Largest(TorchDispatchMode):
    """The largest tensor that any operation made anew."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        inputs = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in inputs:
                self.numel = max(self.numel, tensor.numel())
        return result


def test_memory_does_not_grow_with_the_number_of_tiles():
    peaks, few = [], world(B=8)[0]
    for N in (3000, 30_000):
        generator = torch.Generator().manual_seed(0)
        inputs = few | {
            "bank": torch.randn(N, 4, generator=generator),
            "backbone_bank": torch.randn(N, 6, generator=generator),
            "indptr": torch.arange(N + 1),
            "indices": torch.arange(N).roll(1),
        }
        lists = cluster_lists(torch.randint(5, (2, N), generator=generator))
        pool = torch.arange(0, N, N // 500)[:500]
        rule = SetRule(nei_k=100, semantic_cap=16, list_limit=64)
        with Largest() as largest:
            select_scalable(**inputs, lists=lists, pool=pool, ranks=torch.arange(40), rule=rule, chunk=100)
        peaks.append(largest.numel)
    assert peaks[1] <= 1.5 * peaks[0]
    assert peaks[1] < 30_000


def test_ranks_are_distributed_as_measured_in_the_released_code():
    top = 136_297  # 20 % of 681 486 tiles
    shares = np.concatenate([draw_ranks(stream(0, "ranks", step), n_ranks=4096, top=top) for step in range(5)]) / top
    assert shares.mean() == pytest.approx(0.33, abs=0.01)
    assert np.quantile(shares, [0.05, 0.95]).tolist() == pytest.approx([0.14, 0.56], abs=0.012)


def test_ranks_follow_the_density_bin_by_bin():
    ranks = np.concatenate([draw_ranks(stream(1, step), n_ranks=1, top=100) for step in range(1500)])
    x = 0.0105 + (np.arange(100) + 0.5) / 100 * (0.745 - 0.0105)
    p = x**4 * (1 - x) ** 14
    expected, counts = 1500 * p / p.sum(), np.bincount(ranks, minlength=100)
    many = expected > 5
    assert ((counts - expected)[many] ** 2 / expected[many]).sum() < many.sum() + 4 * math.sqrt(2 * many.sum())


@pytest.mark.parametrize(("n_ranks", "top"), [(1, 1), (5, 3), (7, 7), (64, 1000)])
def test_ranks_are_ascending_without_repeats_and_follow_the_stream_alone(n_ranks, top):
    ranks = draw_ranks(stream(0, "ranks", 3), n_ranks=n_ranks, top=top)
    assert len(ranks) == min(n_ranks, top)
    assert (np.diff(ranks) > 0).all()
    assert 0 <= ranks.min() <= ranks.max() < top
    assert (ranks == draw_ranks(stream(0, "ranks", 3), n_ranks=n_ranks, top=top)).all()


def test_a_pool_is_ascending_without_repeats_or_all_tiles():
    pool = draw_pool(stream(0, "pool"), n_tiles=1000, size=100)
    assert len(pool) == 100
    assert (np.diff(pool) > 0).all()
    assert draw_pool(stream(0, "pool"), n_tiles=10, size=100).tolist() == list(range(10))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"ranks": torch.tensor([18])}, r"ranks must lie in 0\.\.17"),
        ({"index": torch.tensor([0, 1, 2, 3, 90])}, "index must lie in"),
        ({"backbone": torch.ones(4, 6)}, "as many anchors"),
        ({"backbone_bank": torch.ones(80, 6)}, "as many anchors, bank rows"),
        ({"indptr": torch.zeros(90).long()}, "neighbour lists"),
        ({"labels": torch.zeros(2, 80).long()}, r"labels must be \(n_clusterings, 90\)"),
        ({"pool": torch.tensor([3, 3])}, "ascending"),
        ({"pool": torch.empty(0).long()}, "not empty"),
        ({"phase": 2.0}, "phase must lie in"),
    ],
)
def test_misuse_is_refused(change, match):
    inputs, labels = world()
    common = {**inputs, "ranks": torch.tensor([0]), "rule": SetRule()}
    if set(change) & {"pool", "phase"}:
        scalable = {"lists": cluster_lists(labels), "pool": torch.arange(90)}
        with pytest.raises(ValueError, match=match):
            select_scalable(**(common | scalable | change))
    else:
        with pytest.raises(ValueError, match=match):
            select_exact(**(common | {"labels": labels} | change))


def test_rules_labels_and_draws_that_make_no_sense_are_refused():
    for wrong in ({"aux": -1}, {"nei_k": 0}, {"hard_fraction": 0.0}, {"hard_fraction": 1.1}, {"semantic_cap": 0}):
        with pytest.raises(ValueError, match="need aux >= 0"):
            SetRule(**wrong)
    with pytest.raises(ValueError, match=">= 0"):
        cluster_lists(torch.tensor([[0, -1]]))
    with pytest.raises(ValueError, match="multiply to"):
        cluster_lists(torch.full((4, 2), 2**16 - 1))
    with pytest.raises(ValueError, match="n_ranks and top"):
        draw_ranks(np.random.default_rng(0), n_ranks=0, top=5)
