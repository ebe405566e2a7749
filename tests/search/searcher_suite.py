"""What every `Searcher` owes: run by the exact one and by the index, in several shapes on disk.

The referee compares tile by tile in a Python loop; it shares the stored form (float16 of unit length) and nothing else.
"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from histokin.errors import EncoderMismatch, SearchError, StoreError
from histokin.search.searcher import Searcher
from histokin.search.tables import EVERYTHING, Made, SlideEntry, TileHits, Where

DIM = 12
MADE = Made("net", "net-0123", "256px-1mpp", 1.0, 256, DIM)
KINDS = 30  # of tissue
COLUMNS = ("score", "slide", "tile", "x", "y", "label")
Make = Callable[[Sequence[SlideEntry]], Searcher]


def entry(slide: str, n: int, patient: str = "", organ: str = "", seed: int = 0, **changes) -> SlideEntry:
    """A slide whose tiles are of a few kinds of tissue, in no order; every fifth tile equals another slide's."""
    rng = np.random.default_rng([seed, *slide.encode()])
    kinds = np.random.default_rng(7).normal(size=(KINDS, DIM))
    vectors = kinds[rng.integers(0, KINDS, n)] + 0.4 * rng.normal(size=(n, DIM))
    vectors[::5] = kinds[0]
    given = {
        "slide": slide,
        "patient": patient,
        "vectors": (vectors * rng.uniform(0.1, 9, (n, 1))).astype(np.float32),
        "tile": 3 * rng.permutation(n).astype(np.int64),
        "coords": rng.integers(0, 90_000, (n, 2)),
        "label": np.array([f"lot{lot:03d}" for lot in rng.integers(0, 1000, n)], dtype=object),
        "columns": {"organ": organ} if organ else {},
        "mosaic": rng.permutation(n)[: -(-n // 8)],
    }
    return SlideEntry(**{**given, **changes})


@cache
def world() -> list[SlideEntry]:
    """14 slides of 7 patients, one without tiles, one without labels."""
    sizes = [20, 40, 1, 60, 90, 0, 30, 70, 40, 50, 15, 80, 45, 25]
    slides = [entry(f"s{n:02d}", size, f"p{n // 2}", ("colon", "breast")[n % 2]) for n, size in enumerate(sizes)]
    slides[8] = entry("s08", 40, "p4", label=None, mosaic=None)
    return slides


def queries_of(slides: Sequence[SlideEntry], n: int = 8) -> np.ndarray:
    """Tiles of the world with noise, two that equal stored tiles, one that lies far from all."""
    rng = np.random.default_rng(3)
    vectors = np.concatenate([slide.vectors for slide in slides])
    asked = vectors[rng.choice(len(vectors), n)].astype(np.float64)
    asked[3:] += 0.3 * rng.normal(size=asked[3:].shape)
    asked[-1] = -asked[-1]
    return asked


def stored(slide: SlideEntry) -> np.ndarray:
    """(n, d) float16: what is kept of a slide."""
    rows = slide.vectors.astype(np.float64)
    return (rows / np.sqrt((rows * rows).sum(axis=1, keepdims=True))).astype(np.float16)


def is_allowed(slide: SlideEntry, row: int, where: Where) -> bool:
    """Whether a filter lets a tile through, from its definition."""
    own = {"slide": slide.slide, "patient": slide.patient, "organ": slide.columns.get("organ", "")}
    own["tile_label"] = "" if slide.label is None else slide.label[row]
    return all(own[name] in values for name, values in where.keep) and not any(
        own[name] in values for name, values in where.leave_out
    )


def by_loop(slides: Sequence[SlideEntry], queries: np.ndarray, k: int, where: Where = EVERYTHING, field: str = "tiles"):
    """For each query its k best as (score, slide, tile, x, y, label), tile by tile."""
    kept = []
    for slide in slides:
        rows = stored(slide).astype(np.float64)
        for row in range(len(rows)) if field == "tiles" else (() if slide.mosaic is None else slide.mosaic):
            if is_allowed(slide, row, where):
                label = "" if slide.label is None else slide.label[row]
                kept.append((rows[row], slide.slide, int(slide.tile[row]), *slide.coords[row].tolist(), label))
    answers = []
    for query in np.asarray(queries, dtype=np.float64):
        unit = query / np.sqrt((query * query).sum())
        found = sorted((-float((unit * vector).sum()), *rest) for vector, *rest in kept)
        answers.append([(-score, *rest) for score, *rest in found[:k]])
    return answers


@cache
def by_loop_of_world(k: int, where: Where, field: str):
    """`by_loop` for the world and its queries: the same for every searcher."""
    return by_loop(world(), queries_of(world()), k, where, field)


def as_tuples(searcher: Searcher, hits: TileHits):
    """Hits in the form of `by_loop`."""
    answers = []
    for row in zip(*(getattr(hits, name).tolist() for name in COLUMNS), strict=True):
        found = [hit for hit in zip(*row, strict=True) if hit[1] >= 0]
        assert all(np.isnan(hit[0]) and hit[2:] == (-1, -1, -1, "") for hit in zip(*row, strict=True) if hit[1] < 0)
        answers.append([(score, searcher.slides.slide[slide], *rest) for score, slide, *rest in found])
    return answers


def assert_equal_hits(first: TileHits, second: TileHits) -> None:
    """Bit by bit."""
    for name in COLUMNS:
        assert np.array_equal(getattr(first, name), getattr(second, name), equal_nan=name == "score"), name


def assert_close(found, wanted) -> None:
    """Equal places in equal order, scores within the last bits of the loop's sums."""
    assert [[hit[1:] for hit in hits] for hits in found] == [[hit[1:] for hit in hits] for hits in wanted]
    for mine, other in zip(found, wanted, strict=True):
        assert [hit[0] for hit in mine] == pytest.approx([hit[0] for hit in other], abs=1e-14)


FILTERS = {
    "everything": EVERYTHING,
    "one slide": Where.of(keep={"slide": ["s04"]}),
    "own patient left out": Where.of(leave_out={"patient": ["p3", "p0"]}),
    "organ and not patient": Where.of(keep={"organ": ["colon"]}, leave_out={"patient": ["p5"]}),
    "tile labels": Where.of(keep={"tile_label": [f"lot{lot:03d}" for lot in range(300)]}),
    "organ and tile labels": Where.of(
        keep={"organ": ["breast"]}, leave_out={"tile_label": [f"lot{lot:03d}" for lot in range(500)]}
    ),
    "slides without an organ": Where.of(keep={"organ": [""]}),
    "nothing": Where.of(keep={"patient": ["nobody"]}),
}


class SearcherSuite:
    """Subclasses give a fixture `make`: a function from slides to the searcher of them."""

    @pytest.mark.parametrize("field", ["tiles", "mosaics"])
    @pytest.mark.parametrize("name", FILTERS)
    def test_exact_hits_equal_the_loop_over_all_tiles(self, make: Make, name, field):
        slides = world()
        searcher, asked = make(slides), queries_of(slides)
        found = searcher.search(asked, 7, where=FILTERS[name], field=field, exact=True)
        assert found.score.shape == (8, 7)
        assert_close(as_tuples(searcher, found), by_loop_of_world(7, FILTERS[name], field))

    @pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.5, 1.0])
    def test_filtered_search_equals_filtered_brute_force(self, make: Make, share):
        slides = world()
        searcher, asked = make(slides), queries_of(slides)
        lots = [f"lot{lot:03d}" for lot in range(round(1000 * share))]
        where = Where.of(keep={"tile_label": [*lots, ""] if share == 1 else lots})
        found = as_tuples(searcher, searcher.search(asked, 5, where=where))
        wanted = by_loop_of_world(5, where, "tiles")
        hits = sum(len({h[1:3] for h in f} & {h[1:3] for h in w}) for f, w in zip(found, wanted, strict=True))
        assert hits >= 0.95 * sum(map(len, wanted))
        if share <= 0.01:  # narrow filters are answered exactly
            assert_close(found, wanted)

    def test_more_hits_than_tiles_gives_all_tiles(self, make: Make):
        slides = world()[:4]
        searcher, asked = make(slides), queries_of(slides, 3)
        where = Where.of(leave_out={"slide": ["s03"]})
        found = searcher.search(asked, 400, where=where)
        assert found.tile.shape == (3, 400)
        assert_close(as_tuples(searcher, found), by_loop(slides, asked, 400, where))

    def test_equal_tiles_come_by_slide_and_tile(self, make: Make):
        slides = world()
        searcher = make(slides)
        found = searcher.search(slides[0].vectors[:1], 60, exact=True)
        assert len(np.unique(found.score[0])) == 1  # every fifth tile of each slide
        assert_close(as_tuples(searcher, found), by_loop(slides, slides[0].vectors[:1], 60))
        pairs = list(zip(found.slide[0].tolist(), found.tile[0].tolist(), strict=True))
        assert pairs == sorted(pairs)

    @pytest.mark.parametrize("where", [EVERYTHING, FILTERS["tile labels"]])
    def test_hits_do_not_depend_on_insertion_order_batches_or_threads(self, make: Make, where):
        slides = world()
        asked = queries_of(slides, 20)
        searcher = make(slides)
        once = searcher.search(asked, 6, where=where)
        assert_equal_hits(make(slides[::-1]).search(asked, 6, where=where), once)
        with threadpool_limits(1):
            assert_equal_hits(searcher.search(asked, 6, where=where), once)
        for row, query in enumerate(asked):
            alone = searcher.search(query[None], 6, where=where)
            for name in COLUMNS:
                assert np.array_equal(getattr(alone, name)[0], getattr(once, name)[row], equal_nan=name == "score")

    def test_the_scale_of_vectors_makes_no_difference(self, make: Make):
        slides = world()
        asked = queries_of(slides)
        larger = [
            entry(s.slide, len(s.tile), s.patient, vectors=s.vectors * 2.0**9, label=s.label, columns=s.columns)
            for s in slides
        ]
        assert_equal_hits(make(larger).search(asked * 2.0**-20, 5), make(slides).search(asked, 5))

    def test_bags_and_mosaics_are_what_was_given(self, make: Make):
        slides = world()
        searcher = make(slides)
        assert len(searcher) == sum(len(slide.tile) for slide in slides)
        assert searcher.n_mosaic == sum(len(s.mosaic) for s in slides if s.mosaic is not None)
        assert searcher.slides.slide.tolist() == [slide.slide for slide in slides]
        assert searcher.slides.column("organ")[8] == ""
        numbers = np.array([9, 5, 8, 3, 9])
        mosaics = searcher.mosaics(numbers)
        assert len(mosaics) == 5
        for place, number in enumerate(numbers):
            slide = slides[number]
            order = np.argsort(slide.tile)
            bag = searcher.bag(number)
            assert np.array_equal(bag.vectors, stored(slide)[order].astype(np.float32))
            assert np.array_equal(bag.tile, slide.tile[order])
            assert np.array_equal(bag.coords, slide.coords[order])
            assert bag.label.tolist() == ([""] * len(order) if slide.label is None else slide.label[order].tolist())
            standing = order[np.isin(order, [] if slide.mosaic is None else slide.mosaic)]
            rows = slice(mosaics.first[place], mosaics.first[place + 1])
            assert mosaics.vectors.dtype == np.float16
            assert np.array_equal(mosaics.vectors[rows], stored(slide)[standing])
            assert np.array_equal(mosaics.tile[rows], slide.tile[standing])
            assert np.array_equal(mosaics.coords[rows], slide.coords[standing])
        means = searcher.means(numbers)
        assert means.dtype == np.float32
        for mean, number in zip(means, numbers, strict=True):
            wanted = stored(slides[number]).astype(np.float64).mean(axis=0) if len(slides[number].tile) else 0
            assert mean == pytest.approx(wanted, abs=1e-7)

    def test_an_empty_archive_answers_nothing(self, make: Make):
        for slides in ([], [entry("a", 0)]):
            searcher = make(slides)
            assert len(searcher) == searcher.n_mosaic == 0
            for field in ("tiles", "mosaics"):
                found = searcher.search(np.ones((2, DIM)), 3, field=field)
                assert as_tuples(searcher, found) == [[], []]
        assert searcher.search(np.ones((0, DIM)), 3).tile.shape == (0, 3)

    def test_one_vector_is_found(self, make: Make):
        searcher = make([entry("a", 1)])
        found = searcher.search(entry("a", 1).vectors, 2)
        assert found.tile.tolist() == [[0, -1]]
        assert found.score[0, 0] == pytest.approx(1, abs=1e-3)

    @pytest.mark.parametrize(
        ("queries", "said"),
        [
            (np.zeros((1, DIM)), "query 0 is zero"),
            (np.vstack([np.ones(DIM), np.full(DIM, np.nan)]), "query 1 is not finite"),
            (np.ones((1, DIM + 1)), r"\(1, 13\).*12 wide"),
            (np.ones(DIM), "12 wide"),
        ],
    )
    def test_a_query_that_cannot_be_compared_is_refused(self, make: Make, queries, said):
        with pytest.raises(SearchError, match=said):
            make(world()[:2]).search(queries, 3)

    def test_an_unknown_column_is_refused_by_naming_the_known(self, make: Make):
        with pytest.raises(SearchError, match=r"'organs'.*slide, patient, organ"):
            make(world()[:2]).search(np.ones((1, DIM)), 3, where=Where.of(keep={"organs": ["colon"]}))

    def test_no_hits_at_all_cannot_be_asked(self, make: Make):
        with pytest.raises(ValueError, match="at least 1"):
            make(world()[:2]).search(np.ones((1, DIM)), 0)

    @pytest.mark.parametrize(("value", "said"), [(0.0, "zero"), (np.nan, "not finite"), (np.inf, "not finite")])
    def test_a_vector_that_cannot_be_compared_is_refused_by_slide_and_row(self, make: Make, value, said):
        vectors = entry("b", 9).vectors.copy()
        vectors[4] = value
        with pytest.raises(StoreError, match=f"slide b, row 4.*{said}"):
            make([entry("a", 9), entry("b", 9, vectors=vectors)])

    def test_a_slide_of_another_width_is_refused(self, make: Make):
        with pytest.raises(EncoderMismatch, match=r"slide b.*13 wide.*12"):
            make([entry("a", 9), entry("b", 9, vectors=np.ones((9, DIM + 1)))])

    def test_a_slide_that_comes_twice_is_refused(self, make: Make):
        with pytest.raises(SearchError, match=r"slide a.*twice"):
            make([entry("a", 9), entry("a", 9)])
