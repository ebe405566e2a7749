"""Exact neighbours: what is left out, how ties fall, and that nothing but content decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from histokin.errors import StoreError
from histokin.search import top_k

TIES = np.array([[3, 4], [4, 3], [3, 4], [5, 0], [0, 5], [4, 3], [3, 4], [-3, 4]], dtype=float)
TIE_GROUPS = np.array([0, 0, 1, 1, 2, 2, 3, 3])
TIE_ANSWERS = [[2, 6, 5], [5, 2, 6], [0, 6, 1], [1, 5, 0], [0, 2, 6], [1, 0, 2], [0, 2, 1], [4, 0, 2]]


def by_loop(queries, database, k, *, metric="cosine", query_groups=None, database_groups=None, query_ids=None):
    """Row by row from the definition, in float64."""
    lists = []
    for q, query in enumerate(np.asarray(queries, dtype=np.float64)):
        scored = []
        for row, vector in enumerate(np.asarray(database, dtype=np.float64)):
            if query_groups is not None and query_groups[q] == database_groups[row]:
                continue
            if query_ids is not None and query_ids[q] == row:
                continue
            if metric == "cosine":
                score = float((query / np.linalg.norm(query) * (vector / np.linalg.norm(vector))).sum())
            else:
                score = -float(np.sqrt(((query - vector) ** 2).sum()))
            scored.append((-score, row))
        ids = [row for _, row in sorted(scored)[:k]]
        lists.append(ids + [-1] * (k - len(ids)))
    return np.array(lists)


@pytest.mark.parametrize("block", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("query_block", [1, 3, 100])
def test_ties_fall_by_row_for_every_block_shape(block, query_block):
    found = top_k(
        TIES, TIES, 3, query_groups=TIE_GROUPS, database_groups=TIE_GROUPS, block=block, query_block=query_block
    )
    assert found.ids.tolist() == TIE_ANSWERS


def test_a_group_larger_than_any_margin_does_not_starve_the_list():
    # Golden overfetch_starvation: fetching 2, 4 or 6 and dropping the query's group leaves too few; exact is [8, 6].
    similarity = np.array([1, 0.99, 0.98, 0.97, 0.96, 0.95, 0.5, 0.4, 0.6, 0.3])
    rows = np.column_stack([similarity, np.sqrt(1 - similarity**2)])
    group = np.array([0] * 6 + [1, 1, 2, 2])
    found = top_k(rows[:1], rows, 2, query_groups=group[:1], database_groups=group)
    assert found.ids.tolist() == [[8, 6]]
    assert found.scores[0] == pytest.approx([0.6, 0.5])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("n", "d", "k"), [(2, 1, 1), (5, 3, 10), (40, 8, 3), (90, 4, 5)])
def test_equals_the_loop_over_all_pairs(metric, n, d, k):
    rng = np.random.default_rng(n)
    database = rng.normal(size=(n, d)) + 0.1
    groups = rng.integers(0, max(2, n // 4), n)
    for arguments in (
        {},
        {"query_groups": groups, "database_groups": groups},
        {"query_ids": np.arange(n)},
    ):
        found = top_k(database, database, k, metric=metric, block=16, query_block=7, **arguments)
        assert (found.ids == by_loop(database, database, k, metric=metric, **arguments)).all()
        assert (np.isnan(found.scores) == (found.ids == -1)).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_hundreds_of_equal_tiles_give_the_same_lists_in_any_storage_order(metric):
    rng = np.random.default_rng(1)
    database = rng.normal(size=(900, 16)).astype(np.float32)
    database[rng.choice(900, 400, replace=False)] = rng.normal(size=16)
    groups = np.repeat(np.arange(30), 30)
    expected = by_loop(database[:60], database, 5, metric=metric, query_groups=groups[:60], database_groups=groups)
    for block in (64, 333, 4096):
        found = top_k(
            database[:60],
            database,
            5,
            metric=metric,
            query_groups=groups[:60],
            database_groups=groups,
            block=block,
            query_block=50,
        )
        assert (found.ids == expected).all()


@pytest.mark.parametrize("block", [777, 1024, 5000])
def test_long_blocks_equal_a_full_sort(block):
    rng = np.random.default_rng(4)
    database = rng.normal(size=(5000, 12))
    unit = database / np.linalg.norm(database, axis=1, keepdims=True)
    scores = unit[:50] @ unit.T
    scores[np.arange(50), np.arange(50)] = -np.inf
    found = top_k(database[:50], database, 20, query_ids=np.arange(50), block=block, query_block=32)
    assert (found.ids == np.argsort(-scores, axis=1, kind="stable")[:, :20]).all()


def test_scores_are_bit_equal_for_every_block_shape_and_for_half_precision_files(tmp_path):
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(500, 24)).astype(np.float16)
    path = tmp_path / "vectors.f16"
    vectors.tofile(path)
    mapped = np.memmap(path, dtype=np.float16, mode="r", shape=vectors.shape)
    first = top_k(vectors[:40], vectors, 7, block=512, query_block=64)
    for block, query_block in ((13, 3), (100, 40), (499, 1)):
        again = top_k(mapped[:40], mapped, 7, block=block, query_block=query_block)
        assert (again.ids == first.ids).all()
        assert (again.scores == first.scores).all()


def test_other_tiles_of_the_query_patient_change_nothing_when_it_is_left_out():
    rng = np.random.default_rng(3)
    vectors, patients = rng.normal(size=(60, 6)), np.repeat(np.arange(12), 5)
    plain = top_k(vectors, vectors, 4, query_groups=patients, database_groups=patients)
    planted = np.concatenate([vectors, vectors[:5] + 1e-3])  # near-duplicates of patient 0
    owners = np.concatenate([patients, np.zeros(5, dtype=int)])
    leaky = top_k(vectors[:5], planted, 4, query_groups=patients[:5], database_groups=owners)
    assert (leaky.ids == plain.ids[:5]).all()
    naive = top_k(vectors[:5], planted, 1, query_ids=np.arange(5))
    assert (naive.ids[:, 0] == np.arange(60, 65)).all()


def test_groups_may_be_text():
    groups = np.array(["a", "a", "b", "b", "c", "c", "d", "d"], dtype=object)
    assert top_k(TIES, TIES, 3, query_groups=groups, database_groups=groups).ids.tolist() == TIE_ANSWERS


@settings(derandomize=True, max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.integers(1, 6))
def test_permuting_the_rows_permutes_the_answers(seed, n, k):
    rng = np.random.default_rng(seed)
    database, queries = rng.normal(size=(n, 5)), rng.normal(size=(3, 5))
    order = rng.permutation(n)
    plain, moved = top_k(queries, database, k), top_k(queries, database[order], k)
    assert (np.where(moved.ids >= 0, order[moved.ids], -1) == plain.ids).all()
    assert np.array_equal(moved.scores, plain.scores, equal_nan=True)


def test_zero_and_infinite_vectors_are_refused_by_row():
    good = np.ones((4, 3))
    zero, infinite = good.copy(), good.copy()
    zero[2], infinite[3, 1] = 0, np.inf
    with pytest.raises(StoreError, match="database row 2: the vector is zero"):
        top_k(good, zero, 1)
    with pytest.raises(StoreError, match="query row 3: the vector holds values that are not finite"):
        top_k(infinite, good, 1, query_block=2)
    assert top_k(good, zero, 1, metric="euclidean").ids[0, 0] == 0


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"need \(Q, d\) queries"):
        top_k(np.ones((2, 3)), np.ones((2, 4)), 1)
    with pytest.raises(ValueError, match="k must be at least 1"):
        top_k(TIES, TIES, 0)
    with pytest.raises(ValueError, match="come together"):
        top_k(TIES, TIES, 1, query_groups=TIE_GROUPS)
    with pytest.raises(ValueError, match="database_groups has 3 entries for 8 rows"):
        top_k(TIES, TIES, 1, query_groups=TIE_GROUPS, database_groups=TIE_GROUPS[:3])


def test_no_queries_and_no_rows_give_empty_answers():
    assert top_k(np.ones((0, 2)), TIES, 3).ids.shape == (0, 3)
    assert (top_k(TIES, np.ones((0, 2)), 3).ids == -1).all()
