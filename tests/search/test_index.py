"""The index keeps the contract of all searchers, in whatever shape it lies on the disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from search.searcher_suite import (
    DIM,
    FILTERS,
    MADE,
    SearcherSuite,
    as_tuples,
    assert_close,
    assert_equal_hits,
    by_loop,
    entry,
    queries_of,
    world,
)

from histokin.errors import SearchError
from histokin.search.exact_searcher import ExactSearcher
from histokin.search.index import (
    Index,
    add_slides,
    compact,
    create_index,
    delete_slides,
    measure_nprobe,
    retrain,
    set_calibration,
    set_nprobe,
)
from histokin.search.tables import SlideEntry, Where

SAMPLE = entry("sample", 32 * 8).vectors


def new_index(folder: Path, *, n_lists: int = 32) -> Path:
    """An empty index of 32 lists, of which a query looks into 12, or of one list."""
    create_index(folder, MADE, SAMPLE[: 8 * n_lists], 20_000 if n_lists > 1 else 100, planned_mosaics=20_000)
    set_nprobe(folder, 12)
    return folder


def index_of(folder: Path, slides: Sequence[SlideEntry], *, n_lists: int = 32, segment_rows: int = 120) -> Index:
    """An index of these slides in segments of 120 tiles."""
    add_slides(new_index(folder, n_lists=n_lists), MADE, slides, segment_rows=segment_rows)
    return Index(folder)


def worn(folder: Path, slides: Sequence[SlideEntry]) -> Index:
    """An index of these slides after additions one by one, replacements, deletions and a compaction."""
    new_index(folder)
    others = [entry(s.slide, 9, "old", seed=1) for s in slides[::2]] + [entry("gone", 30), entry("lost", 200)]
    add_slides(folder, MADE, others, segment_rows=20)
    for part in np.array_split(np.arange(len(slides)), 3 if len(slides) > 2 else 1):
        add_slides(folder, MADE, [slides[number] for number in part], segment_rows=60)
    delete_slides(folder, ["gone"])
    compact(folder)
    delete_slides(folder, ["lost"])
    return Index(folder)


class TestIndex(SearcherSuite):
    @pytest.fixture(params=["one list", "segments", "worn"], scope="class")
    @classmethod
    def make(cls, request, tmp_path_factory):
        held = {}

        def made(slides):
            key = tuple((s.slide, s.vectors[:1].tobytes()) for s in slides)
            if key not in held:
                folder = tmp_path_factory.mktemp("index") / "index"
                if request.param == "worn":
                    held[key] = worn(folder, slides)
                else:
                    held[key] = index_of(folder, slides, n_lists=1 if request.param == "one list" else 32)
            return held[key]

        return made


# Bit by bit, whatever lies on the disk


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """The world in one segment, in many, after wear, and each slide added alone in reverse order."""
    folder, slides = tmp_path_factory.mktemp("shapes"), world()
    alone = new_index(folder / "alone")
    for slide in slides[::-1]:
        add_slides(alone, MADE, [slide])
    return {
        "one segment": index_of(folder / "one", slides, segment_rows=10_000),
        "segments": index_of(folder / "many", slides, segment_rows=60),
        "worn": worn(folder / "worn", slides),
        "alone": Index(alone),
    }


@pytest.mark.parametrize("field", ["tiles", "mosaics"])
@pytest.mark.parametrize("name", FILTERS)
def test_hits_are_bit_equal_however_the_index_came_about(shapes, name, field):
    asked = queries_of(world(), 12)
    wanted = shapes["one segment"].search(asked, 5, where=FILTERS[name], field=field)
    assert {len(index.manifest.segments) for index in shapes.values()} >= {1, 14}
    for index in shapes.values():
        assert_equal_hits(index.search(asked, 5, where=FILTERS[name], field=field), wanted)


def test_exact_hits_are_bit_equal_to_those_of_the_exact_searcher(shapes):
    asked = queries_of(world(), 12)
    referee = ExactSearcher(MADE, world())
    for name, where in FILTERS.items():
        wanted = referee.search(asked, 9, where=where)
        for index in shapes.values():
            assert_equal_hits(index.search(asked, 9, where=where, exact=True), wanted)
        if (wanted.tile >= 0).sum() > 0 and name == "one slide":  # narrow: answered exactly unasked
            assert_equal_hits(shapes["worn"].search(asked, 9, where=where), wanted)
    numbers = np.array([3, 0, 12])
    for index in shapes.values():
        assert np.array_equal(index.means(numbers), referee.means(numbers))
        assert np.array_equal(index.mosaics(numbers).vectors, referee.mosaics(numbers).vectors)


def test_compaction_changes_no_hit_and_leaves_no_deleted_tile(tmp_path):
    slides = world()
    index = index_of(tmp_path / "i", slides, segment_rows=60)
    asked = queries_of(slides, 12)
    delete_slides(index.folder, ["s04", "s07", "s05"])
    before = {name: index.search(asked, 5, where=where) for name, where in FILTERS.items()}
    done = compact(index.folder, whole=True)
    assert (done.merged > 1, done.written) == (True, 1)
    assert [(s.dead, s.n_tiles) for s in Index(index.folder).manifest.segments] == [((), len(index))]
    for name, where in FILTERS.items():
        assert_equal_hits(index.search(asked, 5, where=where), before[name])
    index.verify()
    assert compact(index.folder).merged == 0


def test_many_small_segments_are_merged_and_worn_ones_written_anew(tmp_path):
    folder = new_index(tmp_path / "i")
    for number in range(8):
        add_slides(folder, MADE, [entry(f"a{number}", 20), entry(f"b{number}", 20)])
    assert compact(folder).merged == 0
    delete_slides(folder, ["a3"])
    assert (compact(folder).merged, len(Index(folder))) == (1, 300)
    add_slides(folder, MADE, [entry("c", 20)])
    done = compact(folder)
    assert (done.merged, done.written, len(Index(folder).manifest.segments)) == (9, 1, 1)
    delete_slides(folder, Index(folder).slides.slide.tolist())
    compact(folder)
    assert (len(Index(folder)), Index(folder).manifest.segments) == (0, ())


def test_new_lists_leave_exact_hits_as_they_were(tmp_path, monkeypatch):
    slides = world()
    index = index_of(tmp_path / "i", slides, n_lists=1)
    asked = queries_of(slides, 12)
    delete_slides(index.folder, ["s03"])
    before = index.search(asked, 5)
    monkeypatch.setattr("histokin.search.index.coarse._FEW", 100)
    assert compact(index.folder, seed=3).retrained == ""  # 506 tiles are not 8 times what was planned
    done = retrain(index.folder, seed=3)
    index.refresh()
    assert (done.retrained, index.manifest.coarse["tiles"].n_lists) == ("asked for", 8)
    assert len(np.flatnonzero(index.pinned().list_sizes())) == 8
    assert_equal_hits(index.search(asked, 5, exact=True), before)
    again = index_of(tmp_path / "j", slides, n_lists=1)
    delete_slides(again.folder, ["s03"])
    retrain(again.folder, seed=3)
    again.refresh()
    assert again.manifest.coarse == index.manifest.coarse  # equal seeds and slides, equal centroids


def test_an_archive_that_outgrew_its_lists_gets_new_ones(tmp_path, monkeypatch):
    monkeypatch.setattr("histokin.search.index.coarse._FEW", 100)
    folder = tmp_path / "i"
    create_index(folder, MADE, np.empty((0, DIM)), 60)
    add_slides(folder, MADE, world()[:9])
    assert compact(folder).retrained == ""
    add_slides(folder, MADE, world())
    assert compact(folder).retrained == "566 tiles, planned for 60"
    index = Index(folder)
    assert index.manifest.coarse["tiles"].n_lists == 8
    assert compact(folder).retrained == ""
    found = index.search(queries_of(world()), 5, exact=True)
    assert_close(as_tuples(index, found), by_loop(world(), queries_of(world()), 5))


def test_a_narrow_filter_is_answered_exactly_however_few_lists_a_query_looks_into(tmp_path):
    slides = world()
    index = index_of(tmp_path / "i", slides)
    set_nprobe(index.folder, 1)
    asked = np.random.default_rng(6).normal(size=(100, DIM))  # between the kinds of tissue
    for where in (
        Where.of(keep={"tile_label": [f"lot{lot:03d}" for lot in range(90)]}),
        Where.of(keep={"slide": ["s09"]}),  # 50 of 566 tiles
    ):
        found = as_tuples(index, index.search(asked, 2, where=where))
        assert_close(found, by_loop(slides, asked, 2, where))
    wide = as_tuples(index, index.search(asked, 2))
    assert wide != by_loop(slides, asked, 2)  # one list does not do without a filter


def test_a_filter_of_tissue_far_from_the_query_is_answered_exactly(tmp_path):
    # The nearest allowed lists hold their share of rows long before the best of the far tissue was looked at.
    rng = np.random.default_rng(8)
    near, far = np.zeros((2, DIM))
    near[0], far[1:] = 1, 1
    slides = []
    for number in range(6):
        is_far = rng.random(100) < 0.4
        vectors = np.where(is_far[:, None], far, 5 * near) + rng.normal(size=(100, DIM))
        slides.append(entry(f"s{number}", 100, vectors=vectors, label=np.where(is_far, "far", "near").astype(object)))
    sample = np.concatenate([slide.vectors for slide in slides])
    create_index(tmp_path / "i", MADE, sample, 20_000)
    add_slides(tmp_path / "i", MADE, slides, segment_rows=150)
    set_nprobe(tmp_path / "i", 4)
    index = Index(tmp_path / "i")
    asked = 5 * near + rng.normal(size=(20, DIM))
    where = Where.of(keep={"tile_label": ["far"]})
    assert index.pinned().list_sizes(where).sum() > 0.3 * len(index)  # not a narrow filter
    assert_close(as_tuples(index, index.search(asked, 10, where=where)), by_loop(slides, asked, 10, where))


# What it says of itself


def test_nprobe_is_the_smallest_that_finds_enough(tmp_path):
    index = index_of(tmp_path / "i", world())
    done = measure_nprobe(index, n=60, seed=1)
    assert (done.n_queries, done.left_out) == (60, "patient")
    assert [row.nprobe for row in done.rows] == [16, 32]
    assert done.rows[-1].recall == 1  # all lists there are
    assert done.rows[0].low <= done.rows[0].recall <= done.rows[0].high
    enough = [row.nprobe for row in done.rows if row.recall >= 0.97 and row.low >= 0.95]
    assert done.chosen == enough[0]
    set_nprobe(index.folder, done.chosen)
    assert Index(index.folder).manifest.nprobe["tiles"] == done.chosen


def test_recall_needs_a_second_slide_to_be_measured(tmp_path):
    with pytest.raises(SearchError, match="cannot be measured on one slide"):
        measure_nprobe(index_of(tmp_path / "i", [entry("a", 30, "p")]))
    two = index_of(tmp_path / "j", [entry("a", 30, "p"), entry("b", 30, "p")])
    assert measure_nprobe(two, n=5).left_out == "slide"


def test_calibration_is_kept_until_it_is_changed(tmp_path):
    folder = new_index(tmp_path / "i")
    set_calibration(folder, {"threshold": 0.71, "patients": ["a"]})
    add_slides(folder, MADE, world()[:2])
    assert Index(folder).manifest.calibration == {"threshold": 0.71, "patients": ["a"]}
