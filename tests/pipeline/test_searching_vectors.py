"""Other tools' embeddings with a table of labels: indexed, checked and searched without a single picture."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from embeddings.foreign_files import write_clam, write_stamp, write_trident
from pipeline.vector_folders import CLASSES, D, SlideOfVectors, built, planted, write_folder
from worlds import write_csv

from histokin.cli.program import main
from histokin.errors import SearchError, WorkspaceError
from histokin.pipeline.searching import Place, Question, SearchResult, Wish, find_place, open_archive, search_archive
from histokin.pipeline.searching import archive as opening

WRITERS = {"CLAM": write_clam, "TRIDENT": write_trident, "STAMP": write_stamp}
TILES = {
    "CLAM": "tiles: of a size that is not known",
    "TRIDENT": "tiles: 256 px",
    "STAMP": "tiles: 224 px at 1.143 µm/px: 256 µm wide",
}


@pytest.fixture(scope="module")
def slides() -> dict[str, SlideOfVectors]:
    return planted(10, per_patient=2)


@pytest.fixture(scope="module")
def place(slides: dict[str, SlideOfVectors], tmp_path_factory: pytest.TempPathFactory) -> Place:
    return built(tmp_path_factory.mktemp("vectors"), slides)[0]


def asked(place: Place, question: Question, **wish: object) -> SearchResult:
    return search_archive(place, question, Wish(**wish))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_the_whole_way_through_the_program(writer: str, slides: dict[str, SlideOfVectors], tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    folder.mkdir()
    for name, slide in slides.items():
        WRITERS[writer](folder / f"{name}.h5", slide.vectors)
    rows = [{"slide": f"{n}.svs", "case_id": s.patient, "diagnosis": s.columns["diagnosis"]} for n, s in slides.items()]
    labels = str(write_csv(tmp_path / "labels.csv", rows))
    options = [str(folder), "--labels", labels, "--json"]

    def ran(*arguments: str) -> dict:
        done = CliRunner().invoke(main, list(arguments))
        assert done.exit_code == 0, (arguments, done.output, done.exception)
        return json.loads(done.stdout)

    first = ran("search", *options, "--slide", "s03a", "-k", "4")
    assert ran("index", "build", *options)["added"] == sorted(slides)
    assert ran("index", "build", *options)["added"] == []
    report = ran("index", "check", *options, "--strategies", "maxsim")
    acc = [r for r in report["figures"][-1]["results"] if r["metric"] == "acc@1"]
    assert acc[0]["level"] == "slide"
    assert acc[0]["value"] > acc[0]["chance"]
    facts = ran("index", "info", *options, "--verify")
    assert (facts["tiles"], facts["patients"], facts["recall"], facts["up to date"]) == (240, 10, 1.0, "yes")
    found = ran("search", *options, "--slide", "s03a", "-k", "4")
    for document in (first, found):
        assert [a["rank"] for a in document["answers"]] == [1, 2, 3, 4]
        assert "p03" not in {a["patient"] for a in document["answers"]}
    assert [(a["slide"], a["score"]) for a in first["answers"]] == [(a["slide"], a["score"]) for a in found["answers"]]
    assert found["by_patient"][0]["column"] == "diagnosis"
    shown = CliRunner().invoke(main, ["search", *options[:-1], "--slide", "s03a"]).output.splitlines()
    assert next(line.strip() for line in shown if "tiles:" in line) == TILES[writer]
    assert ran("index", "remove", *options, "s03b")["removed"] == ["s03b"]
    assert ran("index", "compact", *options)["merged"] == 0  # one segment with few deleted tiles
    assert ran("index", "info", *options)["slides"] == 19
    assert (folder / "index" / "CURRENT").exists()


def test_tiles_are_found_and_filtered_by_their_own_labels(slides: dict[str, SlideOfVectors], place: Place) -> None:
    found = asked(place, Question("s03a", tile=2), k=12, keep=(("tile_label", ("gland",)),))
    assert {a.labels["tile_label"] for a in found.document.answers} == {"gland"}
    assert found.document.label_column == "tile_label"
    query = slides["s03a"].vectors[2].astype(float)
    scores = {
        (name, n): float(v @ query / np.linalg.norm(v) / np.linalg.norm(query))
        for name, s in slides.items()
        for n, v in enumerate(s.vectors.astype(float))
        if s.patient != "p03" and CLASSES[s.tissue[n]] == "gland"
    }
    wanted = sorted(scores, key=lambda key: -scores[key])[:12]
    assert [(a.slide, a.tile) for a in found.document.answers] == wanted
    assert [a.score for a in found.document.answers] == pytest.approx([scores[key] for key in wanted], abs=1e-3)
    n_gland = sum(int((s.tissue == 0).sum()) for s in slides.values() if s.patient != "p03")
    assert found.document.searched.n_tiles == n_gland
    without = asked(place, Question("s03a", tile=2), k=12, drop=(("tile_label", ("gland", "tumour")),))
    assert {a.labels["tile_label"] for a in without.document.answers} == {"stroma"}
    left = {out.what: out.n_tiles for out in without.document.searched.left_out}
    assert left["tile_label gland, tumour"] == 160
    assert without.document.searched.n_tiles == 80 - 8


def test_without_an_index_the_same_figures_are_told(
    slides: dict[str, SlideOfVectors], place: Place, tmp_path: Path
) -> None:
    bare = write_folder(tmp_path, slides)
    for question, wish in (
        (Question("s03a", tile=2), {"keep": (("tile_label", ("gland",)),)}),
        (Question("s03a", tile=2), {"drop": (("tile_label", ("gland",)), ("site", ("site 0",)))}),
        (Question("s03a"), {"leave_out": "slide"}),
    ):
        from_index, from_store = asked(place, question, **wish), asked(bare, question, **wish)
        assert from_index.answered == from_store.answered
        for name in ("n_tiles", "n_slides", "n_patients", "n_sites", "left_out", "keep"):
            assert getattr(from_index.document.searched, name) == getattr(from_store.document.searched, name), name
    assert open_archive(bare).index is None


def test_only_the_querys_slide_left_out_its_patients_other_slide_answers(place: Place) -> None:
    by_patient = asked(place, Question("s03a"), k=30)
    assert {"s03a", "s03b"}.isdisjoint(a.slide for a in by_patient.document.answers)
    by_slide = asked(place, Question("s03a"), k=30, leave_out="slide")
    own = [a.slide for a in by_slide.document.answers if a.patient == "p03"]
    assert (own, len(by_slide.document.answers)) == (["s03b"], 19)
    assert by_slide.document.warnings[0] == "Only the query's slide was left out: answers may be of the same patient."


def test_strategies_that_rank_with_labels_need_their_column(place: Place) -> None:
    for strategy in ("retccl", "fish"):
        with pytest.raises(
            SearchError, match=f"the strategy {strategy} ranks with labels.*Name their column with --label"
        ):
            asked(place, Question("s03a"), strategy=strategy)
        found = asked(place, Question("s03a"), strategy=strategy, label="diagnosis")
        assert found.document.answers[0].labels["diagnosis"] == "carcinoma"
        assert found.document.label_column == "diagnosis"
        assert "p03" not in {a.patient for a in found.document.answers}


def test_a_tile_is_named_by_its_number_where_its_size_is_not_known(place: Place, tmp_path: Path) -> None:
    found = asked(place, Question("s03a", tile=2), k=3)
    assert [a.box for a in found.document.answers] == [None] * 3
    best = found.document.answers[0]
    assert f"slide {best.slide}, tile {best.tile} of patient {best.patient}" in found.explain(1)
    pinned = asked(place, Question("s03a", tile=2), k=3, pins=((best.slide, best.tile),))
    assert pinned.document.answers[0].tile == best.tile
    page = found.write(tmp_path / "o")
    assert "<img" not in page.read_text()
    for wish, question in (({"level": "region"}, Question("s03a")), ({}, Question("s03a", box_um=(0, 0, 9, 9)))):
        with pytest.raises(SearchError, match="size of tiles"):
            asked(place, question, **wish)


def test_a_large_store_asks_for_an_index_unless_everything_is_to_be_compared(
    slides: dict[str, SlideOfVectors], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "FEW_TILES", 239)
    bare = write_folder(tmp_path, slides)
    with pytest.raises(SearchError, match=r"there is no index, and 240 tiles are many.*histokin index build.*--exact"):
        asked(bare, Question("s03a"))
    assert asked(bare, Question("s03a"), exact=True).document.answers


def test_an_archive_is_a_workspace_or_a_folder_with_vectors(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="no workspace here"):
        find_place(tmp_path)


def test_slides_of_unknown_patients_leave_out_only_themselves(
    slides: dict[str, SlideOfVectors], tmp_path: Path
) -> None:
    for name in ("s03a", "s03b", "s04a"):
        write_clam(tmp_path / f"{name}.h5", slides[name].vectors)
    found = asked(find_place(tmp_path), Question("s03a"))
    assert [a.slide for a in found.document.answers] == ["s03b", "s04a"]
    assert (found.document.searched.n_patients, found.document.query.patient) == (0, "")
    assert found.document.searched.left_out[0].what == "slide s03a, whose the query is"
    assert found.asked.bag.vectors.shape == (12, D)


def test_an_index_of_other_patients_is_refused(slides: dict[str, SlideOfVectors], tmp_path: Path) -> None:
    place, _ = built(tmp_path, slides)
    assert open_archive(place).version is not None
    moved = write_folder(tmp_path, slides | {"s03a": replace(slides["s03a"], patient="p01")})
    with pytest.raises(SearchError, match=r"slide s03a is of patient p01 now, in the index of p.*index build"):
        open_archive(moved)


def test_an_index_that_is_named_must_be_there(slides: dict[str, SlideOfVectors], tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no such index"):
        open_archive(replace(write_folder(tmp_path, slides), is_named=True))


def test_what_is_of_files_or_of_slides_alone_is_not_passed_over(place: Place) -> None:
    with pytest.raises(SearchError, match="patient, mpp and weights are of a file"):
        Question("s03a", patient="p01")
    with pytest.raises(SearchError, match="tiles are not ranked by a strategy of slides such as mean"):
        asked(place, Question("s03a", tile=2), strategy="mean")


def test_filters_that_leave_nothing_are_told_and_no_verdict_is_given(place: Place) -> None:
    found = asked(place, Question("s03a", tile=2), keep=(("site", ("nowhere",)),))
    assert found.document.answers == []
    assert found.document.test is None
    assert "Nothing could answer: look at what the filters leave." in found.document.warnings
