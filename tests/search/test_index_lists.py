"""Lists on the disk and the choice among them: against faiss itself, and against float64 one pair at a time."""

import faiss
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from histokin.search.index.coarse import assign, count_lists, nearest_lists
from histokin.search.index.lists import Lists, train_centroids, write_lists


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    rows = rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_faiss(rows: np.ndarray, centroids: np.ndarray, lists: np.ndarray):
    """The same lists, filled and written by faiss: its index, rows numbered in the order of the lists."""
    index = faiss.IndexIVFScalarQuantizer(
        faiss.IndexFlatIP(rows.shape[1]),
        rows.shape[1],
        len(centroids),
        faiss.ScalarQuantizer.QT_fp16,
        faiss.METRIC_INNER_PRODUCT,
        False,
    )
    index.quantizer.add(centroids)
    index.train(rows.astype(np.float32))
    order = np.argsort(lists, kind="stable")
    vectors, ids = np.ascontiguousarray(rows[order], dtype=np.float32), np.arange(len(rows))
    chosen = lists[order].astype(np.int64)
    index.add_core(len(rows), *(faiss.swig_ptr(array) for array in (vectors, ids, chosen)))
    return index, order


@pytest.mark.parametrize(("n", "d", "n_lists"), [(200, 24, 8), (1, 5, 1), (37, 3, 16), (300, 8, 40)])
def test_the_file_is_byte_for_byte_what_faiss_writes(tmp_path, monkeypatch, n, d, n_lists):
    monkeypatch.setattr("histokin.search.index.lists._GROUP", 16)  # several groups, lists longer than one
    rng = np.random.default_rng(n)
    rows, centroids = unit(rng, n, d).astype(np.float16), unit(rng, n_lists, d)
    lists = np.arange(n) % n_lists if n_lists == 40 else assign(rows, centroids)
    index, order = by_faiss(rows, centroids, lists)
    sizes = np.bincount(lists, minlength=n_lists)
    write_lists(tmp_path / "own", d, sizes, lambda start, stop: rows[order[start:stop]])
    index.quantizer = faiss.IndexFlatIP(d)
    faiss.write_index(index, str(tmp_path / "theirs"))
    if (sizes > 0).sum() > n_lists // 2:  # below that faiss has a shorter table, which only it reads
        assert (tmp_path / "own").read_bytes() == (tmp_path / "theirs").read_bytes()
    held = Lists(tmp_path / "own", d, n_lists, n)
    assert np.array_equal(held.vectors(np.arange(n)), rows[order])
    assert np.array_equal(held.list_of(np.arange(n)), lists[order])
    query = unit(rng, 3, d)
    every = np.tile(np.arange(n_lists), (3, 1))
    scores, found = held.scan(query, every, n, None)
    assert np.sort(found, axis=1).tolist() == [list(range(n))] * 3
    assert scores == pytest.approx(
        np.take_along_axis(query @ rows[order].T.astype(np.float32), found, axis=1), abs=1e-5
    )


def test_a_scan_finds_what_its_bitmap_and_lists_allow_and_nothing_else(tmp_path):
    rng = np.random.default_rng(0)
    rows = unit(rng, 500, 16).astype(np.float16)
    sizes = np.full(10, 50)
    write_lists(tmp_path / "lists", 16, sizes, lambda start, stop: rows[start:stop])
    held = Lists(tmp_path / "lists", 16, 10, 500)
    is_allowed = rng.random(500) < 0.3
    lists = np.array([[3, 7, -1], [0, 1, 2]])
    _, found = held.scan(unit(rng, 2, 16), lists, 500, np.packbits(is_allowed, bitorder="little"))
    for row, chosen in zip(found, lists, strict=True):
        wanted = np.flatnonzero(is_allowed & np.isin(np.arange(500) // 50, chosen))
        assert np.sort(row[row >= 0]).tolist() == wanted.tolist()


def test_rows_go_to_the_list_of_the_largest_product_in_any_batch(monkeypatch):
    rng = np.random.default_rng(1)
    centroids = unit(rng, 20, 12)
    centroids[13], centroids[7] = centroids[2], centroids[5]  # exact ties go to the lower list
    bits = rng.choice([-1, 1], (6, 12)).astype(np.float32)
    centroids[14:] = np.nextafter(centroids[8:14], centroids[8:14] + bits)  # float32 products do not tell these apart
    rows = np.concatenate([unit(rng, 300, 12), centroids, (centroids[3:4] + centroids[4:5]) / 2]).astype(np.float16)
    products = np.array([[float((c.astype(float) * r.astype(float)).sum()) for c in centroids] for r in rows])
    lists = assign(rows, centroids)
    assert lists.tolist() == products.argmax(axis=1).tolist()
    assert set(lists.tolist()).isdisjoint({7, 13})
    monkeypatch.setattr("histokin.search.index.coarse._BLOCK", 7)
    assert assign(rows, centroids).tolist() == lists.tolist()


@pytest.mark.parametrize("n_lists", [1, 4, 19])
@pytest.mark.parametrize("n_rows", [0.0, 150.0, 700.5])
def test_a_query_looks_into_the_nearest_lists_until_they_hold_enough(n_lists, n_rows):
    rng = np.random.default_rng(2)
    centroids, counts = unit(rng, 20, 6), rng.integers(0, 90, 20)
    centroids[[4, 9, 17]] = centroids[11]  # which of these come first is settled by their number
    query = centroids[11].astype(float) + 0.1 * rng.normal(size=6)
    query /= np.linalg.norm(query)
    exact = np.array([float((c.astype(float) * query).sum()) for c in centroids])
    order = sorted(range(20), key=lambda number: (-exact[number], number))
    wanted = next((m for m in range(1, 21) if m >= n_lists and counts[order[:m]].sum() >= n_rows), 20)
    noise = rng.uniform(-3e-6, 3e-6, 20)  # float32 products of another batch
    for products in (exact, exact + noise, exact - noise):
        found = nearest_lists(query, products.astype(np.float32), centroids, n_lists, counts, n_rows)
        assert sorted(found.tolist()) == sorted(order[:wanted])


@pytest.mark.parametrize(
    ("n_planned", "n_sample", "wanted"),
    [(0, 0, 1), (9_999, 9_999, 1), (10**5, 10**5, 1024), (10**6, 65_536, 2048), (10**7, 10**6, 8192), (10**6, 800, 64)],
)
def test_lists_grow_with_the_root_of_the_archive(n_planned, n_sample, wanted):
    assert count_lists(n_planned, n_sample) == wanted


def test_centroids_depend_on_the_seed_and_not_on_threads():
    sample = unit(np.random.default_rng(3), 3000, 32)
    centroids = train_centroids(sample, 16, seed=5)
    with threadpool_limits(1):
        assert np.array_equal(train_centroids(sample, 16, seed=5), centroids)
    assert not np.array_equal(train_centroids(sample, 16, seed=6), centroids)
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(1, abs=1e-5)
