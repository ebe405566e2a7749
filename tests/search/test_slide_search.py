"""Slide search over a searcher: exact answers, candidates, filters, evidence, and nothing that depends on blocks."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from search.archives import make_entries, make_searcher, query_of

from histokin.errors import SearchError
from histokin.search import slide_blocks, slide_search
from histokin.search.exact_searcher import ExactSearcher
from histokin.search.index import Index, add_slides, create_index
from histokin.search.slide_search import Plan, QueryBag, search_slides
from histokin.search.strategies import STRATEGIES, Asked, Fish, RetCCL, Unfitted
from histokin.search.strategies.asked import SLACK
from histokin.search.tables import SlideEntry, Where

PAIRED = ["maxsim", "maxsim_sym", "mean", "median_min", "median_min/binary", "median_min/rotated", "yottixel"]
BOUNDED = ["maxsim", "maxsim_sym", "median_min"]


@pytest.fixture(scope="module")
def searcher():
    return make_searcher(40)


def by_loop(searcher, query, k, strategy, where):
    """Every allowed slide scored by itself, sorted by score, then id."""
    asked = Asked.of(query.vectors, query.weights)
    scored = []
    for number in np.flatnonzero(searcher.slides.allowed(where)):
        held = searcher.means([number]) if strategy.reads == "means" else searcher.mosaics([number]).vectors
        scored.append((-strategy.score(asked, held.astype(np.float64)), searcher.slides.slide[number], number))
    return [(number, -value) for value, _, number in sorted(scored)[:k]]


@pytest.mark.parametrize("name", PAIRED)
def test_equals_scoring_every_slide_by_itself(searcher, name, monkeypatch):
    query = query_of(searcher, 7)
    where = Where.of(keep={"organ": ["colon"]}, leave_out={"patient": ["p2"]})
    strategy = STRATEGIES[name]
    if isinstance(strategy, Unfitted):
        strategy = strategy.fitted(lambda: slide_blocks.archive_sample(searcher))
    expected = by_loop(searcher, query, 6, strategy, where)
    for block in (2**23, 3000):
        monkeypatch.setattr(slide_blocks, "BLOCK", block)
        monkeypatch.setattr(slide_search, "BLOCK", block)
        hits = search_slides(searcher, query, 6, strategy=name, where=where)
        assert list(zip(hits.slide.tolist(), hits.score.tolist(), strict=True)) == expected
        assert hits.is_complete
        assert hits.n_compared == hits.n_allowed == searcher.slides.allowed(where).sum()


@pytest.mark.parametrize("name", BOUNDED)
def test_candidates_give_the_exact_answer_wherever_they_say_so(name, monkeypatch):
    monkeypatch.setattr(slide_search, "_CHUNK", 6)
    searcher = make_searcher(150, tiles=(6, 10), mosaic=5, seed=3)
    proved = 0
    for slide in range(0, 150, 10):
        query = query_of(searcher, slide, 4)
        where = Where.of(leave_out={"patient": [searcher.slides.patient[slide]]})
        exact = search_slides(searcher, query, 5, strategy=name, where=where, exact=True)
        plan = Plan(exact_up_to=20, tile_k=40, n_slides=25, doublings=1)
        found = search_slides(searcher, query, 5, strategy=name, where=where, plan=plan)
        assert found.n_compared <= 50 < exact.n_compared == 147
        left_out = set(exact.slide.tolist()) - set(found.slide.tolist())
        scores = dict(zip(exact.slide.tolist(), exact.score.tolist(), strict=True))
        assert all(scores[number] <= found.bound for number in left_out)
        if found.is_complete:
            proved += 1
            assert found.slide.tolist() == exact.slide.tolist()
            assert found.score.tolist() == exact.score.tolist()
            assert found.notes == ()
        else:
            assert found.notes == (f"a slide that was not compared could score up to {found.bound:.4f}",)
    assert proved >= 3


def test_candidates_find_nearly_all_of_the_exact_answer(monkeypatch):
    monkeypatch.setattr(slide_search, "_CHUNK", 16)
    searcher = make_searcher(300, tiles=(6, 10), mosaic=6, seed=4, kinds=12)
    recalls = {0: [], 2: []}
    for slide in range(0, 300, 30):
        query = query_of(searcher, slide, 6)
        where = Where.of(leave_out={"slide": [searcher.slides.slide[slide]]})
        exact = search_slides(searcher, query, 10, where=where, exact=True)
        for doublings, values in recalls.items():
            plan = Plan(100, tile_k=120, n_slides=80, doublings=doublings)
            found = search_slides(searcher, query, 10, where=where, plan=plan)
            values.append(len(set(exact.slide) & set(found.slide)) / 10)
    assert np.mean(recalls[0]) >= 0.95
    assert np.mean(recalls[2]) >= 0.99


def test_doubling_ends_as_soon_as_the_answer_is_proved(searcher):
    asked = []

    class Watched:
        def __getattr__(self, name):
            return getattr(searcher, name)

        def search(self, queries, k, **how):
            asked.append(k)
            return searcher.search(queries, k, **how)

    query = query_of(searcher, 3)
    wide = search_slides(Watched(), query, 1, plan=Plan(exact_up_to=5, tile_k=10, n_slides=4, doublings=5))
    assert wide.is_complete
    assert asked == [10 * 2**n for n in range(len(asked))]
    assert len(asked) < 6
    before = search_slides(searcher, query, 1, plan=Plan(5, tile_k=10, n_slides=4, doublings=max(0, len(asked) - 2)))
    assert before.is_complete == (len(asked) == 1)


def test_one_version_of_an_index_answers_all_of_a_search(searcher):
    class Following:
        def pinned(self):
            return searcher

    query = query_of(searcher, 3)
    assert search_slides(Following(), query, 4).slide.tolist() == search_slides(searcher, query, 4).slide.tolist()


def test_more_slides_than_candidates_are_filled_up_by_comparing_all(searcher):
    query = query_of(searcher, 0, 1)
    hits = search_slides(searcher, query, 30, plan=Plan(exact_up_to=5, tile_k=3, n_slides=2, doublings=0))
    exact = search_slides(searcher, query, 30, exact=True)
    assert hits.slide.tolist() == exact.slide.tolist()
    assert (hits.n_compared, hits.bound) == (40, -np.inf)


def test_equal_slides_come_by_id_and_asking_for_more_than_there_are_gives_all():
    entries = make_entries(9, seed=5)
    twins = [SlideEntry(f"t{n}", f"q{n}", **_parts(entries[4])) for n in (3, 1, 2)]
    searcher = ExactSearcher(make_searcher(2).made, [*twins, *entries])
    query = query_of(searcher, searcher.slides.number("s0004"))
    for name in PAIRED:
        hits = search_slides(searcher, query, 50, strategy=name)
        ids = searcher.slides.slide[hits.slide].tolist()
        assert len(ids) == 12
        at = ids.index("s0004")
        assert ids[at : at + 4] == ["s0004", "t1", "t2", "t3"]
        assert len(set(hits.score[at : at + 4].tolist())) == 1
        assert (np.diff(hits.score) <= 0).all()


def _parts(entry):
    names = "vectors", "tile", "coords", "columns", "mosaic"
    return {name: getattr(entry, name) for name in names}


@pytest.mark.parametrize("name", PAIRED)
def test_a_mosaic_asked_again_finds_itself_with_each_tile_as_its_own_evidence(searcher, name):
    held = searcher.mosaics(np.array([11]))
    query = QueryBag(held.vectors, np.ones(len(held.tile)), held.tile, held.coords)
    hits = search_slides(searcher, query, 3, strategy=name)
    shown = hits.evidence
    if name != "mean":  # which is over all tiles of a slide
        assert hits.slide[0] == 11
        assert hits.score[0] == pytest.approx(1, abs=1e-3)
    at = hits.slide.tolist().index(11)
    assert sorted(shown.query_row[at]) == list(range(len(held.tile)))
    assert (shown.tile[at] == held.tile[shown.query_row[at]]).all()
    assert (shown.place[at] == held.coords[shown.query_row[at]]).all()
    assert shown.share.sum(axis=1) == pytest.approx(np.ones(len(hits)))
    assert (np.diff(shown.share, axis=1) <= 0).all()


@pytest.mark.parametrize("block", [2**23, 300])
def test_evidence_is_the_best_pair_of_each_query_tile_by_its_weighted_share(searcher, block, monkeypatch):
    monkeypatch.setattr(slide_blocks, "BLOCK", block)
    query = query_of(searcher, 5)
    hits = search_slides(searcher, query, 4)
    unit = query.vectors / np.linalg.norm(query.vectors, axis=1, keepdims=True)
    for hit, number in enumerate(hits.slide):
        held = searcher.mosaics(np.array([number]))
        pairs = unit @ held.vectors.astype(float).T
        mass = query.weights / query.weights.sum() * np.maximum(pairs.max(axis=1), 0)
        rows = hits.evidence.query_row[hit]
        assert (hits.evidence.tile[hit] == held.tile[pairs.argmax(axis=1)[rows]]).all()
        assert hits.evidence.similarity[hit] == pytest.approx(pairs.max(axis=1)[rows])
        assert hits.evidence.share[hit] == pytest.approx((mass / mass.sum())[rows])


@pytest.mark.parametrize("name", [*PAIRED, "retccl", "fish"])
def test_what_is_left_out_is_no_hit_and_changes_no_other_score(searcher, name):
    query = query_of(searcher, 8)
    strategy = Fish(max_hamming=400) if name == "fish" else name
    all_hits = search_slides(searcher, query, 40, strategy=strategy)
    own = searcher.slides.patient[8]
    hits = search_slides(searcher, query, 40, strategy=strategy, where=Where.of(leave_out={"patient": [own]}))
    assert len(hits)
    assert own not in searcher.slides.patient[hits.slide]
    if name in PAIRED:
        rest = [
            (s, v) for s, v in zip(all_hits.slide, all_hits.score, strict=True) if searcher.slides.patient[s] != own
        ]
        assert list(zip(hits.slide, hits.score, strict=True)) == rest


def test_slides_without_tiles_are_no_hits():
    entries = make_entries(6, seed=6)
    empty = SlideEntry(
        "a-empty", "p9", np.zeros((0, 24)), np.zeros(0, int), np.zeros((0, 2), int), mosaic=np.zeros(0, int)
    )
    searcher = ExactSearcher(make_searcher(2).made, [empty, *entries])
    for name in PAIRED:
        hits = search_slides(searcher, query_of(searcher, 3), 20, strategy=name)
        assert searcher.slides.number("a-empty") not in hits.slide
        assert len(hits) == 6
        assert hits.is_complete
        reads = "means" if name == "mean" else "mosaics"
        assert hits.notes == (f"1 slides have nothing to compare (no {reads})",)


def test_nothing_allowed_gives_an_empty_answer(searcher):
    for name in [*PAIRED, "retccl", "fish"]:
        hits = search_slides(
            searcher, query_of(searcher, 0), 3, strategy=name, where=Where.of(keep={"organ": ["skin"]})
        )
        assert len(hits) == 0
        assert hits.evidence.tile.shape == (0, 8)
        assert hits.n_allowed == 0


def test_retccl_bags_are_filled_by_tile_search_above_the_threshold(searcher):
    query = query_of(searcher, 8)
    where = Where.of(leave_out={"patient": [searcher.slides.patient[8]]})
    strategy = RetCCL(threshold=0.75)
    hits = search_slides(searcher, query, 20, strategy=strategy, where=where)
    unit = query.vectors / np.linalg.norm(query.vectors, axis=1, keepdims=True)
    for hit, number in enumerate(hits.slide):
        pairs = unit @ searcher.mosaics(np.array([number])).vectors.astype(float).T
        shown = hits.evidence.query_row[hit]
        assert 0 < (shown >= 0).sum() <= (pairs.max(axis=1) >= 0.75).sum()
        similarity = hits.evidence.similarity[hit]
        assert similarity[shown >= 0] == pytest.approx(pairs.max(axis=1)[shown[shown >= 0]])
        assert np.isnan(similarity[shown < 0]).all()
        assert (hits.evidence.share[hit][shown < 0] == 0).all()
    assert hits.notes == ("ranked with the labels of column label, as published",)
    cut = search_slides(searcher, query, 20, strategy=RetCCL(threshold=0.2, depth=10), where=where)
    assert cut.notes[-1] == "8 bags were cut at 10 hits"


def test_retccl_bags_hold_no_slide_without_a_label():
    entries = make_entries(20, seed=7)
    searcher = ExactSearcher(make_searcher(2).made, entries)
    strategy = RetCCL(threshold=0.5)
    query = query_of(searcher, 3)
    assert 3 in search_slides(searcher, query, 20, strategy=strategy).slide
    entries[3].columns.pop("label")
    bare = search_slides(ExactSearcher(searcher.made, entries), query, 20, strategy=strategy)
    assert len(bare)
    assert 3 not in bare.slide


def test_class_weights_count_the_labelled_slides_that_may_be_hits(searcher):
    seen = []

    class Recorded(RetCCL):
        def rank(self, bags, weights):
            seen.append(weights)
            return super().rank(bags, weights)

    where = Where.of(keep={"organ": ["colon"]})
    search_slides(searcher, query_of(searcher, 0), 3, strategy=Recorded(threshold=0.5, sum_to=30), where=where)
    counts = Counter(searcher.slides.column("label")[searcher.slides.column("organ") == "colon"])
    inverse = {label: 1 / n for label, n in counts.items()}
    total = sum(inverse.values())
    assert seen == [pytest.approx({label: 30 * value / total for label, value in inverse.items()})]


def test_the_sample_of_an_archive_says_whose_tiles_it_holds(monkeypatch):
    entries = make_entries(30, seed=10)
    entries = [
        replace(e, mosaic=e.mosaic[: 1 + n % 5], patient=e.patient if n % 4 else "") for n, e in enumerate(entries)
    ]
    searcher = ExactSearcher(make_searcher(2).made, entries)
    monkeypatch.setattr(slide_blocks, "_SAMPLED", 7)
    vectors, owners = slide_blocks.archive_sample(searcher)
    taken = [0, 4, 9, 14, 19, 24, 29]
    expected = [f"patient {entries[n].patient}" if n % 4 else f"slide {entries[n].slide}" for n in taken]
    assert owners.tolist() == [name for n, name in zip(taken, expected, strict=True) for _ in range(1 + n % 5)]
    assert np.array_equal(vectors, searcher.mosaics(np.array(taken)).vectors)


@pytest.mark.parametrize("name", BOUNDED)
def test_rough_scores_may_be_off_by_as_much_as_is_allowed_for(searcher, name):
    exact = STRATEGIES[name]
    query = query_of(searcher, 7)
    expected = search_slides(searcher, query, 5, strategy=exact)
    gap = float(expected.score[4] - search_slides(searcher, query, 6, strategy=exact).score[5])
    scale = SLACK / gap  # scores so near that the error can turn their order

    class Coarse:
        reads = "mosaics"

        def score(self, asked, vectors):
            return scale * exact.score(asked, vectors)

        def pairs(self, asked, vectors):
            return exact.pairs(asked, vectors)

        def rough(self, asked, vectors, first):
            scores = [self.score(asked, vectors[a:b].astype(float)) for a, b in pairwise(first)]
            return np.array(scores) + np.where(np.array(scores) >= scale * expected.score[4], -SLACK, SLACK) * 0.9

    found = search_slides(searcher, query, 5, strategy=Coarse())
    assert found.slide.tolist() == expected.slide.tolist()


def test_fish_bags_hold_the_nearest_codes_of_labelled_slides_in_any_block(monkeypatch):
    from histokin.search import slide_bags
    from histokin.search.barcodes import falling

    entries = make_entries(20, seed=7)
    entries[3].columns.pop("label")
    searcher = ExactSearcher(make_searcher(2).made, entries)
    query = query_of(searcher, 6)
    strategy = Fish(max_hamming=420, depth=9)
    asked = Asked.of(query.vectors, query.weights)
    labels = searcher.slides.column("label")
    expected = []
    for code in falling(asked.vectors):
        found = []
        for number in np.flatnonzero([bool(label) for label in labels]):
            held = searcher.mosaics(np.array([number]))
            distance = (falling(held.vectors) != code).sum(axis=1)
            found += [
                (int(h), int(number), int(t)) for h, t in zip(distance, held.tile, strict=True) if h <= 420 * 24 / 1024
            ]
        expected.append(sorted(found)[:9])
    for block in (2**23, 2000):
        monkeypatch.setattr(slide_blocks, "BLOCK", block)
        bags = slide_bags._hamming_bags(searcher, asked, strategy, labels, np.arange(20))
        found = [
            list(zip(bags.value[part].astype(int), bags.slide[part], bags.tile[part], strict=True))
            for part in map(bags.of, range(len(bags)))
        ]
        assert found == expected
    hits = search_slides(searcher, query, 5, strategy=strategy)
    assert "1 slides without a label were left out" in hits.notes
    assert 3 not in hits.slide


@pytest.mark.parametrize("name", ["retccl", "fish"])
def test_rankings_with_labels_inside_are_refused_without_labels(name):
    bare = make_searcher(6, labels=False)
    with pytest.raises(SearchError, match=r"needs labels of slides, but the archive has no column 'label'.*organ"):
        search_slides(bare, query_of(bare, 0), 3, strategy=name)
    blank = ExactSearcher(bare.made, [SlideEntry(f"b{n}", "", **_parts(e)) for n, e in enumerate(make_entries(3))])
    strategy = {"retccl": RetCCL(label="stain"), "fish": Fish(label="stain")}[name]
    with pytest.raises(SearchError, match="has no column 'stain'"):
        search_slides(blank, query_of(blank, 0), 3, strategy=strategy)


def test_what_makes_no_sense_is_refused(searcher):
    query = query_of(searcher, 0)
    with pytest.raises(SearchError, match=r"no strategy 'bovw'.*fish, maxsim, maxsim_sym"):
        search_slides(searcher, query, 3, strategy="bovw")
    with pytest.raises(SearchError, match="filter on tile labels has no meaning here"):
        search_slides(searcher, query, 3, where=Where.of(keep={"tile_label": ["tumour"]}))
    with pytest.raises(ValueError, match="k must be at least 1"):
        search_slides(searcher, query, 0)
    bare = ExactSearcher(searcher.made, [replace(entry, mosaic=None) for entry in make_entries(4)])
    for name in ("maxsim", "median_min/rotated", "retccl", "fish"):
        with pytest.raises(SearchError, match="no slide has a mosaic"):
            search_slides(bare, query, 3, strategy=name)
    assert len(search_slides(bare, query, 3, strategy="mean")) == 3
    wide = QueryBag(np.ones((2, 5)), np.ones(2), np.arange(2), np.zeros((2, 2), dtype=int))
    with pytest.raises(SearchError, match="queries of shape"):
        search_slides(searcher, wide, 3)


def test_a_slide_becomes_a_query_of_medoids_weighted_by_what_they_stand_for(searcher):
    from histokin.search.mosaics import MosaicSpec

    tiles = searcher.bag(2)
    query = QueryBag.of(tiles, MosaicSpec(n_tiles=5))
    assert len(query) == 5
    assert query.weights.sum() == pytest.approx(1)
    rows = np.searchsorted(tiles.tile, query.tile)
    assert (tiles.vectors[rows] == query.vectors).all()
    assert (tiles.coords[rows] == query.coords).all()


def test_every_strategy_answers_the_same_twice_and_from_any_order_of_slides():
    entries = make_entries(24, seed=8)
    made = make_searcher(2).made
    searchers = [ExactSearcher(made, entries), ExactSearcher(made, entries[::-1])]
    for name in STRATEGIES:
        strategy = Fish(max_hamming=400) if name == "fish" else name
        plain, turned = (search_slides(s, query_of(s, 4), 8, strategy=strategy) for s in searchers)
        assert len(plain)
        for column in ("slide", "score"):
            assert np.array_equal(getattr(plain, column), getattr(turned, column))
        assert np.array_equal(plain.evidence.tile, turned.evidence.tile)


def test_an_index_on_disk_answers_as_the_same_vectors_in_memory(tmp_path):
    entries = make_entries(60, seed=9)
    held = ExactSearcher(make_searcher(2).made, entries)
    create_index(tmp_path / "index", held.made, np.zeros((0, 24)), 1000)
    for part in (entries[40:], entries[:25], entries[25:40]):
        add_slides(tmp_path / "index", held.made, part)
    index = Index(tmp_path / "index")
    where = Where.of(leave_out={"patient": ["p3"]})
    for name in STRATEGIES:
        strategy = Fish(max_hamming=400) if name == "fish" else name
        for plan in (Plan(), Plan(exact_up_to=10, tile_k=50, n_slides=20)):
            first, second = (
                search_slides(s, query_of(held, 10), 8, strategy=strategy, where=where, plan=plan)
                for s in (held, index)
            )
            assert len(first)
            assert (first.n_compared, first.bound, first.notes) == (second.n_compared, second.bound, second.notes)
            assert np.array_equal(first.slide, second.slide)
            assert np.array_equal(first.score, second.score)
            for column in ("query_row", "tile", "place", "similarity", "share"):
                both = (getattr(hits.evidence, column) for hits in (first, second))
                assert np.array_equal(*both, equal_nan=column in {"similarity", "share"})
