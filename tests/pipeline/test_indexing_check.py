"""What a check says of an index, against the same figures from elsewhere; and what searches make of it afterwards."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pipeline.vector_folders import CLASSES, D, SlideOfVectors, built, planted, write_folder

from histokin.errors import SearchError
from histokin.evaluate import Evaluation, Items, evaluate_retrieval, evaluate_slides
from histokin.pipeline.indexing.archive import PICTURE
from histokin.pipeline.indexing.build import build_index
from histokin.pipeline.indexing.check import Checked, IndexReport, check_index
from histokin.pipeline.searching import Place, Question, SearchResult, Wish, open_archive, search_archive
from histokin.search.index import Index, add_slides

METRICS = ("acc@1", "acc@3", "acc@5", "mmv@5", "map@5", "macro_f1@5")
Slides = dict[str, SlideOfVectors]


@pytest.fixture(scope="module")
def slides() -> Slides:
    return planted(20)


@pytest.fixture(scope="module")
def checked(slides: Slides, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, IndexReport]:
    place, _ = built(tmp_path_factory.mktemp("checked"), slides)
    return place, check_index(place.index)


def stored(slides: Slides) -> list[np.ndarray]:
    """Each slide's (n, D) float64 unit vectors as float16 keeps them, in order of slide."""
    found = []
    for _, slide in sorted(slides.items()):
        rows = slide.vectors.astype(np.float64)
        found.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float64))
    return found


def tile_items(slides: Slides) -> Items:
    by = sorted(slides.items())
    return Items.of(
        [CLASSES[kind] for _, slide in by for kind in slide.tissue],
        [slide.patient for _, slide in by for _ in slide.tissue],
        [name for name, slide in by for _ in slide.tissue],
        [slide.columns["site"] for _, slide in by for _ in slide.tissue],
    )


def slide_items(slides: Slides) -> Items:
    by = sorted(slides.items())
    of = [(s.columns["diagnosis"], s.patient, name, s.columns["site"]) for name, s in by]
    return Items.of(*zip(*of, strict=True))


def figure(found: IndexReport, level: str, leave_out: str) -> Evaluation:
    return next(f for f in found.figures if (f.results[0].level, f.results[0].leave_out) == (level, leave_out))


def assert_same_figures(own: Evaluation, name: str, other: Evaluation, other_name: str, strategy: str = "") -> None:
    """Value, interval, chance and prevalence, to the last bit."""
    for metric in METRICS:
        first, second = own.result(name, metric, strategy), other.result(other_name, metric, strategy)
        for part in ("value", "chance", "prevalence", "n_queries", "n_patients"):
            assert getattr(first, part) == getattr(second, part), (metric, part)
        spans = [(r.interval.low, r.interval.high) for r in (first, second)]
        assert np.array_equal(*spans, equal_nan=True), metric


@pytest.mark.parametrize("leave_out", ["patient", "site"])
def test_figures_of_tiles_are_those_of_an_evaluation_of_the_same_vectors(
    slides: Slides, checked: tuple[Place, IndexReport], leave_out: str
) -> None:
    wanted = evaluate_retrieval({"e": np.concatenate(stored(slides))}, tile_items(slides), leave_out=leave_out)
    found = figure(checked[1], "tile", leave_out)
    assert_same_figures(found, checked[0].source.store.encoder, wanted, "e")
    value = found.result(checked[0].source.store.encoder, "acc@1")
    assert value.value > value.chance + 0.1


@pytest.mark.parametrize("leave_out", ["patient", "site"])
def test_figures_of_slides_are_those_of_an_evaluation_of_the_same_bags(
    slides: Slides, checked: tuple[Place, IndexReport], leave_out: str
) -> None:
    strategies, items = ("mean", "median_min"), slide_items(slides)
    wanted = evaluate_slides({"e": stored(slides)}, items, strategies=strategies, leave_out=leave_out)
    found = figure(checked[1], "slide", leave_out)
    for strategy in strategies:
        assert_same_figures(found, checked[0].source.store.encoder, wanted, "e", strategy)


def test_floors_stand_beside_the_mean_with_the_figures_of_an_evaluation(slides: Slides, tmp_path: Path) -> None:
    slides = {n: replace(s, tissue=s.tissue * 0 - 1, columns={**s.columns, "site": ""}) for n, s in slides.items()}
    place, _ = built(tmp_path / "own", slides)
    seeds = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        noise = {n: replace(s, vectors=rng.normal(size=(12, D)).astype(np.float32)) for n, s in slides.items()}
        seeds.append((write_folder(tmp_path / f"noise {seed}", noise).source.store.folder, noise))
    part = write_folder(tmp_path / "part", {"s00a": slides["s00a"]}).source.store.folder
    floors = {"random": [folder for folder, _ in seeds], "texture": [part]}
    found = check_index(place.index, floors=floors, strategies=("mean",))
    bags = {"random": [[s.vectors for _, s in sorted(noise.items())] for _, noise in seeds]}
    wanted = evaluate_slides({"e": stored(slides)}, slide_items(slides), floors=bags, strategies=("mean",))
    own = figure(found, "slide", "patient")
    for metric in METRICS:
        first, second = own.result("random", metric, "mean"), wanted.result("random", metric, "mean")
        assert (first.value, first.kind, first.delta) == (second.value, second.kind, second.delta)
    assert {(r.name, r.strategy) for r in own.results if r.kind == "floor"} == {("random", "mean")}
    assert "The floor texture lacks some of the slides and was left out." in found.notes


def test_the_default_strategy_is_right_where_a_loop_over_all_pairs_of_tiles_is(
    slides: Slides, checked: tuple[Place, IndexReport]
) -> None:
    bags, names = stored(slides), sorted(slides)
    right = []
    for asked, bag in enumerate(bags):
        unit = bag / np.linalg.norm(bag, axis=1, keepdims=True)
        scores = [np.mean([max(float(t @ u) for u in other) for t in unit]) for other in bags]
        scores[asked] = -np.inf
        said = slides[names[int(np.argmax(scores))]].columns["diagnosis"]
        right.append(said == slides[names[asked]].columns["diagnosis"])
    value = figure(checked[1], "slide", "patient").result(checked[0].source.store.encoder, "acc@1", "maxsim")
    assert value.value == np.mean(right)
    assert (value.n_queries, value.leave_out) == (20, "patient")


def test_shuffled_labels_are_at_chance(tmp_path: Path) -> None:
    missed = []
    for seed in range(2):
        slides = planted(20, tiles=6, seed=7, signal=2.0)
        rng = np.random.default_rng(seed)
        kinds = rng.permutation(np.concatenate([s.tissue for s in slides.values()]))
        names = rng.permutation([s.columns["diagnosis"] for s in slides.values()])
        turned = {
            name: replace(s, tissue=kinds[6 * n : 6 * n + 6], columns={"diagnosis": str(names[n])})
            for n, (name, s) in enumerate(slides.items())
        }
        place, _ = built(tmp_path / str(seed), turned)
        found = check_index(place.index, strategies=("maxsim",))
        for level, strategy in (("tile", ""), ("slide", "maxsim")):
            value = figure(found, level, "patient").result(place.source.store.encoder, "acc@1", strategy)
            if not value.interval.low <= value.chance <= value.interval.high:
                missed.append((seed, level, value))
    assert len(missed) <= 1, missed  # of 4 intervals of 95 %


def test_a_threshold_is_the_smallest_of_the_patients_nearest_others(
    slides: Slides, checked: tuple[Place, IndexReport]
) -> None:
    """At alpha .05 floor(.05 x 21) = 1: of 20 patients the first in order."""
    bags = stored(slides)
    every, owner = np.concatenate(bags), np.repeat(np.arange(20), 12)
    unit = every / np.linalg.norm(every, axis=1, keepdims=True)
    nearest = np.where(owner[:, None] == owner, -np.inf, unit @ every.T).max(axis=1)
    tests = checked[1].no_match
    for patient, best in zip(tests["tile"].pooled.patient, tests["tile"].pooled.best, strict=True):
        assert np.abs(nearest[owner == int(patient[1:])] - best).min() < 1e-12  # one of its tiles was drawn
    slide_best = [
        max(np.mean((unit[owner == a] @ bags[b].T).max(axis=1)) for b in range(20) if b != a) for a in range(20)
    ]
    assert tests["slide"].pooled.best == pytest.approx(slide_best, abs=1e-12)
    for test in tests.values():
        assert test.pooled.threshold(0.05) == min(test.pooled.best)
    told = checked[1].to_json()["no_match"]["slide"]
    assert told == {"alpha": 0.05, "patients": 20, "threshold": min(tests["slide"].pooled.best)}


def test_below_nineteen_patients_no_threshold_is_given(tmp_path: Path) -> None:
    place, _ = built(tmp_path, planted(18, tiles=4, is_labelled=False))
    found = check_index(place.index, strategies=("mean",))
    assert [told["threshold"] for told in found.to_json()["no_match"].values()] == [None, None]
    assert "slide queries: cannot be calibrated (18 patients, alpha 0.05)" in found.text
    document = search_archive(place, Question("s03a")).document
    assert document.test is not None
    assert document.test.verdict == "not calibrated"
    assert {answer.p for answer in document.answers} == {None}


def asked(place: Place, question: Question, **wish: object) -> SearchResult:
    return search_archive(place, question, Wish(**wish))  # pyright: ignore[reportArgumentType]


def test_searches_after_a_check_judge_their_answers_by_it(checked: tuple[Place, IndexReport]) -> None:
    place, found = checked
    test = found.no_match["slide"].pooled
    document = asked(place, Question("s03a"), k=30).document
    assert document.warnings == []
    assert document.test.threshold == test.threshold(0.05)
    for answer in document.answers:
        assert answer.p == (1 + sum(best <= answer.score for best in test.best)) / 21
    assert document.test.p == document.answers[0].p
    tile = asked(place, Question("s03a", tile=2), k=300).document
    shares = [answer.percentile for answer in tile.answers]
    assert shares == sorted(shares, reverse=True)
    pairs = np.array(Checked.of(open_archive(place).version).kept["pairs"])
    assert shares[0] == pytest.approx((pairs < tile.answers[0].score).sum() * 100 / 101)
    assert tile.test.threshold == found.no_match["tile"].pooled.threshold(0.05)
    assert (tile.searched.how, tile.searched.nprobe, tile.searched.recall) == ("exact", None, None)
    assert asked(place, Question("s03a"), strategy="mean").document.test is None  # was calibrated by maxsim
    assert asked(place, Question("s03a"), pins=(("s01a", 1),)).document.test is None


def test_one_list_is_exact_and_says_so(checked: tuple[Place, IndexReport]) -> None:
    place, found = checked
    assert found.search is None
    assert Checked.of(open_archive(place).version).recall == 1.0
    assert "it has one list, and every search compares all of it" in found.notes[0]
    written = json.loads((place.index / "check.json").read_text())
    assert written == json.loads(json.dumps(found.to_json()))
    assert (written["size"]["tiles"], written["size"]["slides"], written["size"]["patients"]) == (240, 20, 20)
    assert written["size"]["bytes_a_tile"] * 240 == written["size"]["bytes"]
    assert {"tile", "tile, exact", "slide, maxsim"} == set(written["latency_ms"])
    assert all(0 < p50 <= p95 for p50, p95 in written["latency_ms"].values())
    for line in (
        "240 tiles of 20 slides, 20 patients",
        "tiles, leaving out the query's patient: 240 queries",
        "slides, leaving out the query's site: 20 queries",
        "tile queries: no good match below 0.",
    ):
        assert line in found.text


def test_of_many_lists_recall_is_measured_and_the_nprobe_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(200, D))
    large = {}
    for n in range(12):
        vectors = kinds[rng.integers(0, 200, 900)] + 0.8 * rng.normal(size=(900, D))
        large[f"s{n:02d}"] = SlideOfVectors(vectors.astype(np.float32), np.zeros(900, int), f"p{n}", {"site": "x"})
    place, _ = built(tmp_path, large)
    version = open_archive(place).version
    assert version is not None
    n_lists = len(version.list_sizes())
    assert n_lists > 64
    found = check_index(place.index, strategies=("mean",))
    rows = {row.nprobe: row for row in found.search.rows}
    assert max(rows) == n_lists if n_lists <= 256 else 256
    assert rows[n_lists].recall == 1.0
    assert found.search.chosen == min(n for n, row in rows.items() if row.recall >= 0.97 and row.low >= 0.95)
    assert rows[16].recall < 1.0
    kept = open_archive(place)
    assert kept.version.manifest.nprobe["tiles"] == found.search.chosen
    assert found.search.chosen < n_lists
    document = asked(place, Question("s00", tile=0)).document
    assert (document.searched.how, document.searched.nprobe) == ("index", found.search.chosen)
    assert document.searched.recall == rows[found.search.chosen].recall
    exact = asked(place, Question("s00", tile=0), exact=True).document
    assert (exact.searched.how, exact.searched.recall) == ("exact", None)
    both = [{(a.slide, a.tile): a.score for a in d.answers} for d in (document, exact)]
    shared = both[0].keys() & both[1].keys()
    assert len(shared) >= 7
    assert all(both[0][key] == both[1][key] for key in shared)


def test_after_a_tenth_of_the_patients_changed_a_check_is_out_of_date(tmp_path: Path) -> None:
    slides = planted(20, tiles=3, is_labelled=False)
    place, _ = built(tmp_path, slides)
    check_index(place.index, strategies=("mean",))
    del slides["s00a"]
    place, _ = built(tmp_path, slides)
    assert asked(place, Question("s03a")).document.warnings == []
    del slides["s01a"], slides["s02a"]
    place, _ = built(tmp_path, slides)
    (warning,) = asked(place, Question("s03a")).document.warnings
    assert warning.startswith("More than a tenth of the patients changed since the index was checked")


def test_a_query_from_a_site_that_was_not_calibrated_on_is_warned_of(tmp_path: Path) -> None:
    slides = planted(20, tiles=3, is_labelled=False)
    place, _ = built(tmp_path, slides)
    check_index(place.index, strategies=("mean",))
    slides["s03a"] = replace(slides["s03a"], columns={**slides["s03a"].columns, "site": "elsewhere"})
    place, _ = built(tmp_path, slides)
    (warning,) = asked(place, Question("s03a")).document.warnings
    assert warning == "Site elsewhere is none of those calibrated on: site 0, site 1."


def test_slides_of_one_content_are_one_slide_of_one_site(tmp_path: Path) -> None:
    """One patient, twins at two sites: neither by slide nor by site do twins find each other."""
    slides = planted(1, per_patient=1)
    rng = np.random.default_rng(1)
    for n in range(6):
        twin = SlideOfVectors(
            rng.normal(size=(12, D)).astype(np.float32),
            np.arange(12) % 3,
            "p00",
            {"diagnosis": f"d{n % 2}", "site": "a"},
        )
        slides |= {f"t{n}": twin, f"u{n}": replace(twin, columns={**twin.columns, "site": "b"})}
    del slides["s00a"]
    place, _ = built(tmp_path, slides)
    naive = check_index(place.index, strategies=("mean",))
    encoder = place.source.store.encoder
    assert figure(naive, "tile", "slide").result(encoder, "acc@1").value == 1.0
    entries = [replace(e, columns={**e.columns, PICTURE: e.slide.replace("u", "t")}) for e in place.source.entries()]
    add_slides(place.index, place.source.made, entries)
    found = check_index(place.index, strategies=("mean",))
    assert figure(found, "tile", "slide").result(encoder, "acc@1").value < 0.6
    assert figure(found, "slide", "slide").result(encoder, "acc@1", "mean").value < 1.0
    assert not [f for f in found.figures if f.results[0].leave_out == "site"]  # all of it is of one site
    assert any("leaving out the site" in note for note in found.notes)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"strategies": ("cosine",)}, "there is no strategy 'cosine'.*Known: maxsim"),
        ({"label": "grade"}, "slides have no column 'grade'"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    checked: tuple[Place, IndexReport], how: dict[str, object], said: str
) -> None:
    with pytest.raises(SearchError, match=said):
        check_index(checked[0].index, **how)  # pyright: ignore[reportArgumentType]


def test_strategies_that_rank_by_labels_are_checked_on_the_column_of_the_figures(tmp_path: Path) -> None:
    columns = {n: {"kind": s.columns["diagnosis"], "fixer": "ab"[n > "s05"]} for n, s in planted(12).items()}
    slides = planted(12, tiles=6, is_labelled=False)
    place, _ = built(tmp_path, {n: replace(s, columns=columns[n]) for n, s in slides.items()})
    found = check_index(place.index, strategies=("retccl", "fish"), label="kind")
    for strategy in ("retccl", "fish"):
        value = figure(found, "slide", "patient").result(place.source.store.encoder, "acc@1", strategy)
        assert value.value > value.chance
        assert set(value.prevalence) == {"benign", "carcinoma"}
    unsaid = check_index(place.index, strategies=("retccl",))  # two columns, neither of a name that decides it
    assert "No column labels the slides: classification of slides was not measured." in unsaid.notes


def test_an_archive_without_labels_is_measured_as_far_as_it_goes(tmp_path: Path) -> None:
    unlabelled = {n: replace(s, columns={"diagnosis": ""}) for n, s in planted(3).items()}
    place = write_folder(tmp_path, unlabelled)
    place = replace(place, source=replace(place.source, labels=None))
    build_index(place.index, place.source)
    found = check_index(place.index)
    assert found.figures == ()
    assert "No tile carries a label: classification of tiles was not measured." in found.notes
    assert "No column labels the slides: classification of slides was not measured." in found.notes
    assert Index(place.index).slides.patient.tolist() == ["slide:s00a", "slide:s01a", "slide:s02a"]
    assert asked(place, Question("s00a")).document.answers[0].patient == ""
