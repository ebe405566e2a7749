"""Questions from within an archive: who answers, who must not, and with what score."""

import csv
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pipeline.painted import MPP, MPPS, ORGANS, PATIENTS, SIDE_UM, SITES, Painted

from histokin.errors import NoResolution, SearchError
from histokin.pipeline.indexing.build import build_index
from histokin.pipeline.searching import Question, SearchResult, Wish, find_place, open_archive, search_archive
from histokin.pipeline.searching.questions import resolve
from histokin.search.strategies import STRATEGIES

KIN = {"a1", "a2", "a9", "z1"}
"""Slides of the patient of a1, and of the one who counts as the same for owning the same file."""


@pytest.fixture(scope="module")
def indexed(painted_archive: Painted, tmp_path_factory: pytest.TempPathFactory) -> Painted:
    """The same archive with an index."""
    root = tmp_path_factory.mktemp("indexed")
    shutil.copytree(painted_archive.root, root / "work")
    made = Painted(painted_archive.table, root / "work")
    build_index(made.place.index, made.place.source)
    return made


def asked(archive: Painted, question: Question, **wish: object) -> SearchResult:
    return search_archive(archive.place, question, Wish(**wish), is_pictured=False)  # pyright: ignore[reportArgumentType]


def slides_of(found: SearchResult) -> list[str]:
    return [answer.slide for answer in found.document.answers]


def tiles_of(found: SearchResult) -> list[tuple[float, str, int | None]]:
    return [(answer.score, answer.slide, answer.tile) for answer in found.document.answers]


def every_tile(archive: Painted, query: np.ndarray, allowed: Iterator[str] | set[str]) -> list[tuple[float, str, int]]:
    """All tiles of the allowed slides, tile by tile, best first."""
    unit = query / np.sqrt((query * query).sum())
    found = [
        (float((unit * vector).sum()), slide, int(tile))
        for slide in allowed
        for vector, tile in zip(archive.vectors[slide][0], archive.vectors[slide][1], strict=True)
    ]
    return sorted(found, key=lambda hit: (-hit[0], hit[1], hit[2]))


def assert_same_tiles(found: SearchResult, wanted: list[tuple[float, str, int]]) -> None:
    n = len(found.document.answers)
    assert n
    assert [hit[1:] for hit in tiles_of(found)] == [hit[1:] for hit in wanted[:n]]
    assert [hit[0] for hit in tiles_of(found)] == pytest.approx([hit[0] for hit in wanted[:n]], abs=1e-13)


def test_a_tile_is_answered_as_a_loop_over_all_tiles_of_other_patients_answers_it(painted_archive: Painted) -> None:
    vectors, tiles, _ = painted_archive.vectors["a1"]
    found = asked(painted_archive, Question("a1", tile=int(tiles[17])), k=12)
    assert_same_tiles(found, every_tile(painted_archive, vectors[17], PATIENTS.keys() - KIN))
    best = found.document.answers[0]
    _, numbers, places = painted_archive.vectors[best.slide]
    assert (best.box.x, best.box.y) == tuple(places[numbers == best.tile][0])
    assert best.box.w == best.box.h == SIDE_UM / MPPS[best.slide]
    assert (best.patient, best.labels["organ"]) == (PATIENTS[best.slide], ORGANS[best.slide])


@pytest.mark.parametrize(
    ("question", "level"),
    [
        (Question("a1", tile=5), None),
        (Question("a1", tile=5), "slide"),
        (Question("a1", box_um=(30, 40, 100, 96)), None),
        (Question("a1", box_um=(30, 40, 100, 96)), "tile"),
        (Question("a1"), None),
        (Question("a1"), "region"),
    ],
)
def test_a_near_copy_of_the_querys_patient_answers_only_where_it_is_let_in(
    painted_archive: Painted, question: Question, level: str | None
) -> None:
    by_patient = asked(painted_archive, question, k=50, level=level)
    assert KIN.isdisjoint(slides_of(by_patient))
    assert slides_of(by_patient)[0] in ("b1", "c1")
    assert by_patient.document.searched.left_out[0].what == "patient pa, whose the query is"
    assert by_patient.document.searched.left_out[0].n_slides == len(KIN)
    assert not by_patient.document.warnings
    by_slide = asked(painted_archive, question, k=400, level=level, leave_out="slide")
    assert {"a1", "a9"}.isdisjoint(slides_of(by_slide))  # the same file under another id is the same slide
    assert {"a2", "z1"} <= set(slides_of(by_slide))
    assert by_slide.document.answers[0].score >= by_patient.document.answers[0].score
    assert "answers may be of the same patient" in by_slide.document.warnings[0]
    itself = asked(painted_archive, question, k=400, level=level, leave_out="self")
    assert {"a9", "a2", "z1"} & set(slides_of(itself))
    assert itself.document.searched.left_out


def test_only_itself_left_out_a_slide_never_answers_for_its_own_tissue(painted_archive: Painted) -> None:
    for level in ("slide", "tile", "region"):
        assert "a1" not in slides_of(asked(painted_archive, Question("a1"), level=level, leave_out="self", k=500))
    tile = asked(painted_archive, Question("a1", tile=5), leave_out="self", k=2)
    assert ("a1", 5) not in [hit[1:] for hit in tiles_of(tile)]
    assert tiles_of(tile)[0] == (pytest.approx(1, abs=1e-3), "a9", 5)
    assert [left.what for left in tile.document.searched.left_out] == ["the query itself"]
    box = (64.0, 64.0, 64.0, 64.0)  # four whole tiles
    region = asked(painted_archive, Question("a1", box_um=box), level="tile", leave_out="self", k=500)
    _, tiles, places = painted_archive.vectors["a1"]
    outside = ((places * MPP < 64) | (places * MPP >= 128)).any(axis=1)
    assert sorted(hit[2] for hit in tiles_of(region) if hit[1] == "a1") == tiles[outside].tolist()
    assert region.document.searched.left_out[0].n_tiles == 4
    assert region.document.searched.n_tiles == 9 * len(tiles) - 4


def test_an_index_answers_as_the_store_does_to_the_last_bit(painted_archive: Painted, indexed: Painted) -> None:
    questions = [
        (Question("a1", tile=3), {}),
        (Question("d1", tile=0), {"leave_out": "self", "keep": (("organ", ("lung",)),)}),
        (Question("b1", box_um=(10, 10, 90, 70)), {}),
        (Question("c1"), {}),
        (Question("c1"), {"strategy": "mean"}),
        (Question("c1"), {"strategy": "median_min/binary"}),
        (Question("c1"), {"level": "region", "leave_out": "slide"}),
    ]
    for question, wish in questions:
        from_store, from_index = asked(painted_archive, question, **wish), asked(indexed, question, **wish)
        assert from_store.answered == from_index.answered, question
        assert from_store.answered.found
        assert from_index.document.searched.version == "version 2"
        assert from_index.document.warnings == [
            *from_store.document.warnings,
            "This index was never checked: run `histokin index check`.",
        ]
    archive = open_archive(indexed.place)
    assert archive.index == indexed.place.index
    assert not archive.notes


def test_filters_of_one_column_add_up_and_those_of_several_all_hold(painted_archive: Painted) -> None:
    def found(**wish: object) -> set[str]:
        return set(slides_of(asked(painted_archive, Question("a1"), k=20, **wish)))

    assert found(keep=(("organ", ("lung",)),)) == {"c1", "d1", "e1", "f1"}
    assert found(keep=(("organ", ("lung",)), ("site", ("south",)))) == {"c1", "e1", "f1"}
    assert found(keep=(("slide", ("c1",)), ("slide", ("d1", "a2")))) == {"c1", "d1"}
    assert found(drop=(("slide", ("b1",)), ("slide", ("c1",)))) == {"d1", "e1", "f1"}
    assert found(drop=(("patient", ("pb",)),)) == {"c1", "d1", "e1", "f1"}  # the query's own stays out as well
    assert found(keep=(("organ", ("brain",)),)) == set()
    one = asked(painted_archive, Question("a1"), keep=(("organ", ("lung",)),), drop=(("site", ("south",)),))
    assert slides_of(one) == ["d1"]
    assert one.document.searched.keep == {"organ": ["lung"]}
    assert (one.document.searched.n_slides, one.document.searched.n_tiles) == (1, 56)
    n_south = sum(site == "south" for site in SITES.values())
    assert [(out.what, out.n_slides, out.n_tiles) for out in one.document.searched.left_out] == [
        ("patient pa, whose the query is", 4, 224),
        ("site south", n_south, 56 * n_south),
    ]


@pytest.mark.parametrize(
    ("question", "wish", "said"),
    [
        (Question("a0"), {}, r"no slide 'a0' among 9.*Did you mean"),
        (Question("a1", tile=4711), {}, r"slide a1 has no embedded tile 4711. Its tiles are numbered 0 to \d+"),
        (Question("a1", at_um=(300, 100)), {}, r"a1: there is no embedded tile at 300, 100 um"),
        (Question("a1", box_um=(330, 0, 40, 40)), {}, r"the box lies outside the slide. It is 320 x 224 um large"),
        (Question("a1", box_um=(-50, 0, 40, 40)), {}, "the box lies outside the slide"),
        (Question("a1", box_um=(264, 10, 50, 200)), {}, "no tissue to ask with in the box. Draw it on tissue"),
        (Question("a1", box_um=(290, 10, 8, 8)), {}, "no tissue to ask with in the box"),
        (Question("a1", box_um=(10, 10, 0, 40)), {}, "Give a position, and a width and a height above 0"),
        (Question("a1"), {"strategy": "cosine"}, "no strategy 'cosine'.*Known: fish, maxsim"),
        (Question("a1"), {"strategy": "retccl"}, "the strategy retccl ranks with labels.*Name their column"),
        (Question("a1"), {"keep": (("stain", ("HE",)),)}, r"slides have no column 'stain'.*Known: slide, patient"),
        (Question("a1", tile=5), {"label": "grade"}, "slides have no column 'grade'"),
        (Question("a1"), {"keep": (("tile_label", ("x",)),)}, "slides cannot be filtered by the labels of tiles"),
        (Question("a1"), {"pins": (("b1", 4711),)}, "slide b1 has no tile 4711.*Name a hit as SLIDE:TILE"),
    ],
)
def test_what_cannot_be_answered_is_refused_with_one_sentence_and_a_remedy(
    painted_archive: Painted, question: Question, wish: dict[str, object], said: str
) -> None:
    with pytest.raises(SearchError, match=said) as raised:
        asked(painted_archive, question, **wish)
    assert "\n" not in str(raised.value)


def test_questions_that_name_several_things_are_refused(tmp_path: Path) -> None:
    for wrong in ({}, {"slide": "a", "file": tmp_path}):
        with pytest.raises(SearchError, match="ask with a slide of the archive or with a file"):
            Question(**wrong)
    for wrong in ({"slide": "a", "tile": 0, "at_um": (0.0, 0.0)}, {"file": tmp_path, "tile": 0}):
        with pytest.raises(SearchError, match="three ways to name one thing"):
            Question(**wrong)


@pytest.mark.parametrize("slide", ["a1", "b1"])
def test_a_place_in_um_means_the_tile_that_holds_it_whatever_the_slides_pixel_size(
    painted_archive: Painted, slide: str
) -> None:
    archive = open_archive(painted_archive.place)
    _, tiles, places = painted_archive.vectors[slide]
    for number in (0, 20, 55):
        x, y = places[number] * MPPS[slide]
        for dx, dy in ((0.1, 0.1), (16, 16), (31.9, 31.9)):
            found = resolve(Question(slide, at_um=(x + dx, y + dy)), painted_archive.place, archive)
            assert found.bag.tile.tolist() == [tiles[number]]
            assert found.name == f"tile {tiles[number]} of {slide}"


@pytest.mark.parametrize("slide", ["a1", "b1"])
def test_a_box_in_um_asks_with_the_tiles_it_covers_by_the_area_that_they_share(
    painted_archive: Painted, slide: str
) -> None:
    x, y, w, h = box = (40.0, 24.0, 100.0, 72.0)
    found = asked(painted_archive, Question(slide, box_um=box))
    _, tiles, places = painted_archive.vectors[slide]
    weight = {}
    for tile, (left, top) in zip(tiles.tolist(), (places * MPPS[slide]).tolist(), strict=True):
        wide = min(left + SIDE_UM, x + w) - max(left, x)
        high = min(top + SIDE_UM, y + h) - max(top, y)
        if wide > 0 and high > 0:
            weight[tile] = wide * high
    total = sum(weight.values())
    asked_with = dict(zip(found.asked.bag.tile.tolist(), found.asked.bag.weights.tolist(), strict=True))
    assert asked_with == pytest.approx({tile: area / total for tile, area in weight.items()})
    assert found.document.query.box_um == pytest.approx((w, h))
    first = found.document.answers[0]
    assert first.box.w * MPPS[first.slide] == pytest.approx(w)  # as large in um, on a slide of another pixel size
    assert first.box.h * MPPS[first.slide] == pytest.approx(h)
    assert first.slide in {"a1": ("b1",), "b1": KIN}[slide]
    assert sum(pair.share for pair in first.evidence) == pytest.approx(1)


def test_region_answers_do_not_overlap_and_score_what_their_evidence_scores(painted_archive: Painted) -> None:
    found = asked(painted_archive, Question("a1", box_um=(0, 0, 96, 64)), k=20)
    for n, one in enumerate(found.document.answers):
        for other in found.document.answers[:n]:
            apart = abs(one.box.x - other.box.x) >= one.box.w or abs(one.box.y - other.box.y) >= one.box.h
            assert one.slide != other.slide or apart
    first = found.answered.found[0]
    assert first.score == pytest.approx(sum(found.asked.bag.weights[met.row] * met.score for met in first.evidence))
    vectors, tiles, places = painted_archive.vectors["b1"]
    side = SIDE_UM / MPPS["b1"]
    x, y, w, h = first.box
    inside = ((places + side / 2 >= (x, y)) & (places + side / 2 < (x + w, y + h))).all(axis=1)
    for met in first.evidence:
        query = found.asked.bag.vectors[met.row].astype(float)
        pairs = vectors[inside] @ (query / np.linalg.norm(query))
        assert met.score == pytest.approx(pairs.max(), abs=1e-12)
        assert met.tile == tiles[inside][pairs.argmax()]


def test_a_whole_slide_is_ranked_by_the_mean_of_its_tiles_best_pairs(painted_archive: Painted) -> None:
    found = asked(painted_archive, Question("c1"), k=20)
    query = painted_archive.vectors["c1"][0]
    query = query / np.linalg.norm(query, axis=1, keepdims=True)
    wanted = {
        slide: np.mean([max(float(tile @ other) for other in painted_archive.vectors[slide][0]) for tile in query])
        for slide in PATIENTS.keys() - {"c1"}
    }
    assert slides_of(found) == sorted(wanted, key=lambda slide: (-wanted[slide], slide))
    assert [a.score for a in found.document.answers] == pytest.approx(sorted(wanted.values(), reverse=True), abs=1e-12)


def test_pins_draw_answers_near_and_rejects_push_them_away(painted_archive: Painted) -> None:
    question = Question("a1", tile=5)
    plain = asked(painted_archive, question, k=400)
    place_of = {hit[1:]: n for n, hit in enumerate(tiles_of(plain))}
    vectors, tiles, _ = painted_archive.vectors["f1"]
    pinned = asked(painted_archive, question, k=400, pins=(("f1", int(tiles[3])),))
    place_then = {hit[1:]: n for n, hit in enumerate(tiles_of(pinned))}
    assert place_then["f1", int(tiles[3])] < place_of["f1", int(tiles[3])]
    query = painted_archive.vectors["a1"][0][painted_archive.vectors["a1"][1] == 5][0]
    moved = query / np.linalg.norm(query) + 0.75 * vectors[3] / np.linalg.norm(vectors[3])
    assert_same_tiles(pinned, every_tile(painted_archive, moved, PATIENTS.keys() - KIN))
    best = plain.document.answers[0]
    rejected = asked(painted_archive, question, k=400, rejects=((best.slide, best.tile),))
    _, unwanted, _ = painted_archive.vectors[best.slide]
    away = painted_archive.vectors[best.slide][0][unwanted == best.tile][0]
    moved = query / np.linalg.norm(query) - 0.25 * away / np.linalg.norm(away)
    assert_same_tiles(rejected, every_tile(painted_archive, moved, PATIENTS.keys() - KIN))
    assert rejected.document.answers[0].score < best.score
    assert slides_of(asked(painted_archive, Question("a1"), pins=(("f1", 3), ("f1", 4))))  # bags are moved as well
    assert pinned.document.test is None


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_every_strategy_names_the_slide_of_the_same_tissue_first(painted_archive: Painted, strategy: str) -> None:
    found = asked(painted_archive, Question("a1"), strategy=strategy, label="diagnosis", k=3)
    assert slides_of(found)[0] == "b1"
    assert found.document.searched.strategy == strategy
    assert KIN.isdisjoint(slides_of(found))
    assert found.document.label_column == "diagnosis"


def test_the_pixel_size_must_be_known_for_places_in_um(painted_archive: Painted, tmp_path: Path) -> None:
    """Vectors copied out of their workspace are a folder of vectors: nothing says how large a tile is there."""
    shutil.copytree(painted_archive.place.source.store.folder, tmp_path / "vectors")
    place = find_place(tmp_path / "vectors")
    assert place.work is None
    with pytest.raises((SearchError, NoResolution), match="must be known"):
        search_archive(place, Question("a1", box_um=(0, 0, 50, 50)))
    with pytest.raises((SearchError, NoResolution), match="Name the tile by its number"):
        search_archive(place, Question("a1", at_um=(10, 10)))
    found = search_archive(place, Question("a1", tile=5), Wish(k=3))
    assert tiles_of(found)[0][1:] == ("a9", 5)  # whose a copy is nobody knows without the cohort
    assert [answer.box for answer in found.document.answers] == [None] * 3


def test_everything_is_written_whole_and_says_the_same(painted_archive: Painted, tmp_path: Path) -> None:
    found = search_archive(
        painted_archive.place, Question("a1", box_um=(30, 40, 100, 96)), Wish(k=5), command="histokin it"
    )
    page = found.write(tmp_path / "out")
    document = json.loads((tmp_path / "out/search.json").read_text())
    with (tmp_path / "out/answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [answer["slide"] for answer in document["answers"]] == [row["slide"] for row in rows] == slides_of(found)
    assert [answer["score"] for answer in document["answers"]] == [float(row["score"]) for row in rows]
    html = page.read_text()
    assert "histokin it" in html
    assert 'src="http' not in html
    assert len(re.findall(r"data:image/jpeg", html)) >= 5 * 2
    of_b1 = json.loads((tmp_path / "out/qupath/b1.geojson").read_text())
    outlines = [f for f in of_b1["features"] if f["properties"]["objectType"] == "annotation"]
    corner = outlines[0]["geometry"]["coordinates"][0][0]
    assert corner == [round(found.document.answers[0].box.x, 2), round(found.document.answers[0].box.y, 2)]
    (own,) = json.loads((tmp_path / "out/qupath/a1.geojson").read_text())["features"]
    assert own["geometry"]["coordinates"][0][0] == [30 / MPP, 40 / MPP]
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    search_archive(
        painted_archive.place, Question("a1", box_um=(30, 40, 100, 96)), Wish(k=5), command="histokin it"
    ).write(tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_page_of_slides_shows_thumbnails_and_pairs_of_tiles(painted_archive: Painted, tmp_path: Path) -> None:
    found = search_archive(painted_archive.place, Question("a1"), Wish(k=3))
    first = found.document.answers[0]
    assert first.image is not None
    assert [pair.query.image is not None for pair in first.evidence[:5]] == [True] * 4 + [False]
    assert found.document.slides["b1"].thumbnail is not None
    assert found.document.slides["b1"].labels["organ"] == "colon"
    assert found.write(tmp_path / "o").stat().st_size > 20_000
    said = found.explain(1)
    assert said.startswith("Rank 1 of 3: slide b1 of patient pb, tumour, score 0.99")
    assert "Could not answer: patient pa, whose the query is (4 slides)." in said
    pair = first.evidence[0]
    assert f"met ({pair.answer.box.x:.0f}, {pair.answer.box.y:.0f})" in said
