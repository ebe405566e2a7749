"""What training gets to see of workspaces: whose tiles, with which labels and places, and how much around them."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds import png, stained, tissue_on_glass, write_csv

from histokin.errors import RecipeError, TableError, TrainingError
from histokin.learn import PixelSource, Recipe, override, read_recipe
from histokin.pipeline.packing import Without
from histokin.pipeline.packing import training_pixels as pixels_for_training
from histokin.pipeline.stages import TileRequest, tile
from histokin.slides import open_slide
from histokin.slides.generated import write_pyramid
from histokin.tiles import Tiling
from histokin.workspace import Workspace

SIDE, PX = 320, 64
Place = tuple[Workspace, Tiling]
Row = Mapping[str, object]

# slide, patient, site, kind: slides of tissue of 5 x 5 tiles with glass around it
SLIDES = [("a1", "A", "north", "x"), ("a2", "A", "south", "y"), ("b1", "B", "south", "x"), ("c1", "C", "north", "")]


def workspace(folder: Path, rows: Sequence[tuple[str, str, str, str]], seed: int = 0) -> Place:
    """A workspace of slides at 1 um, cut into tiles of 64 px."""
    folder.mkdir()
    for number, (name, *_) in enumerate(rows):
        picture = tissue_on_glass(SIDE + 128, SIDE + 128, (0, 0, SIDE, SIDE), seed + number)
        write_pyramid(folder / f"{name}.tiff", picture, mpp=1.0, quality=95)
    columns = ("slide", "patient", "site", "kind")
    table = [{"path": f"{row[0]}.tiff", **dict(zip(columns, row, strict=True))} for row in rows]
    tiling = tile(write_csv(folder / "s.csv", table), folder / "w", request=TileRequest(PX, 1.0))
    return Workspace.open(folder / "w"), tiling


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return workspace(tmp_path_factory.mktemp("one") / "in", SLIDES)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return workspace(tmp_path_factory.mktemp("two") / "in", [("d1", "D", "north", "z"), ("d2", "A", "west", "x")], 9)


def recipe(*settings: str) -> Recipe:
    return override(read_recipe("simclr"), list(settings))


@contextmanager
def training_pixels(*arguments: Any, **named: Any) -> Iterator[Any]:
    """As the trainer gets them, nothing lost; labels and places are looked at without asking whether there are any."""
    with pixels_for_training(*arguments, **named) as tiles:
        assert tiles.notes == ()
        yield tiles.source


def pixels_of(source: PixelSource) -> np.ndarray:
    return source.read(np.arange(len(source)))


def test_tiles_of_two_workspaces_are_one_source(first: Place, second: Place) -> None:
    with training_pixels([first], recipe()) as one, training_pixels([second], recipe()) as two:
        apart = pixels_of(one), pixels_of(two)
        n, n_slides = len(one), len(set(one.slides))
    with training_pixels([first, second], recipe()) as both:
        np.testing.assert_array_equal(pixels_of(both), np.concatenate(apart))
        assert len(both) == first[1].n_tiles + second[1].n_tiles
        assert both.cohorts.tolist() == [0] * n + [1] * (len(both) - n)
        assert len(set(both.slides)) == n_slides + 2
        assert both.places is not None
        assert both.labels is None


def test_a_tile_is_what_the_slide_shows_at_its_place(first: Place) -> None:
    work, tiling = first
    with training_pixels([first], recipe()) as source:
        tiles, places = pixels_of(source), source.places
        paths = [tiling.cohort.path_of(record) for record in tiling.records]
        for row in range(0, len(source), 7):
            x, y = (places.centres_um[row] - PX / 2).astype(int)  # 1 um a pixel
            with open_slide(paths[source.slides[row]]) as slide:
                np.testing.assert_allclose(tiles[row], slide.read(x, y, PX, PX).astype(int), atol=24)
    assert (places.pitch_um == PX).all()
    assert work.cache.exists()


def test_a_wider_field_shows_the_slide_around_each_tile(first: Place) -> None:
    _, tiling = first
    margin = PX // 2
    with training_pixels([first], recipe("views.field=2")) as source, training_pixels([first], recipe()) as plain:
        assert (source.px, source.field_px) == (PX, 2 * PX)
        fields, tiles = pixels_of(source), pixels_of(plain)
        middle = fields[:, margin:-margin, margin:-margin].astype(int)
        assert np.abs(middle - tiles).mean() < 2  # JPEG twice, on another grid
        paths = [tiling.cohort.path_of(record) for record in tiling.records]
        n_outside = 0
        for row in range(0, len(source), 7):
            x, y = (source.places.centres_um[row] - PX).astype(int)
            with open_slide(paths[source.slides[row]]) as slide:
                around = slide.read(x, y, 2 * PX, 2 * PX).astype(int)
            assert np.abs(fields[row] - around).mean() < 2
            outside = np.s_[: max(0, -y), :]
            n_outside += outside[0].stop
            assert (fields[row][outside] > 245).all()  # white beyond the edge
        assert n_outside > 0
        assert source.digest != plain.digest


def tile_files(folder: Path) -> Place:
    (folder / "in" / "k").mkdir(parents=True)
    for number in range(6):
        (folder / "in" / "k" / f"{number}.png").write_bytes(png(stained(PX, PX, number)))
    tiling = tile(folder / "in", folder / "w", mpp=1.0)
    return Workspace.open(folder / "w"), tiling


def test_tiles_that_are_files_have_no_surroundings_and_no_places(tmp_path: Path) -> None:
    place = tile_files(tmp_path)
    with training_pixels([place], recipe()) as source:
        assert len(source) == 6
        assert source.places is None
    with (
        pytest.raises(TableError, match=r"\.png: a tile that is a file of its own has no surroundings\. Set views\.f"),
        training_pixels([place], recipe("views.field=1.5")),
    ):
        pass


def test_places_of_slides_joined_with_tile_files_are_unknown(first: Place, tmp_path: Path) -> None:
    with training_pixels([first, tile_files(tmp_path)], recipe()) as source:
        assert source.places is None


def test_tiles_of_other_size_are_not_trained_on_together(first: Place, tmp_path: Path) -> None:
    _, tiling = first
    other = tile(tiling.cohort.root / "s.csv", tmp_path / "w", request=TileRequest(80, 1.0))
    with (
        pytest.raises(TrainingError, match=r"tiles of 64 and 80 px cannot"),
        training_pixels([first, (Workspace.open(tmp_path / "w"), other)], recipe()),
    ):
        pass


@pytest.mark.parametrize(
    ("texts", "slides"),
    [
        (["slide=a1"], {"a2", "b1", "c1", "d1", "d2"}),
        (["slide=a1,c1", "slide= d2 "], {"a2", "b1", "d1"}),
        (["patient=A"], {"b1", "c1", "d1"}),  # in both workspaces
        (["patient=A,D"], {"b1", "c1"}),
        (["site=north"], {"a2", "b1", "d2"}),
    ],
)
def test_what_is_kept_out_is_not_seen(first: Place, second: Place, texts: list[str], slides: set[str]) -> None:
    names = [record.slide for place in (first, second) for record in place[1].records]
    with training_pixels([first, second], recipe()) as everything:
        owner = np.array(names, object)[everything.slides]
        expected = pixels_of(everything)[[name in slides for name in owner]]
        whole = everything.digest
    with training_pixels([first, second], recipe(), without=Without.parse(texts)) as source:
        np.testing.assert_array_equal(pixels_of(source), expected)
        assert {names[number] for number in source.slides} == slides
        assert source.digest != whole


def test_unknown_names_and_nothing_left_are_said(first: Place) -> None:
    for texts, sentence in (
        (["patient=A,Q,R"], r"there is no patient called Q, R\. There are: A, B, C\."),
        (["site=east"], r"there is no site called east\. There are: north, south\."),
        (["patient=A,B,C"], r"no tile is left without these patients\. Name fewer"),
    ):
        with (
            pytest.raises(TrainingError, match=sentence),
            training_pixels([first], recipe(), without=Without.parse(texts)),
        ):
            pass


@pytest.mark.parametrize("texts", [["a1"], ["patients=A"], ["patient="], ["patient=A", "site=north"], ["=A"]])
def test_what_is_kept_out_is_named_in_one_form(texts: list[str]) -> None:
    with pytest.raises(RecipeError, match=r"slide=A,B or patient=A,B or site=A,B"):
        Without.parse(texts)


def test_so_many_tiles_are_the_same_ones_each_time(first: Place, second: Place) -> None:
    drawn = []
    for seed in (0, 0, 1):
        with training_pixels([first, second], recipe(f"seed={seed}"), at_most=20) as source:
            drawn.append((pixels_of(source), source.digest))
    with training_pixels([first, second], recipe()) as everything:
        all_tiles, digest = [t.tobytes() for t in pixels_of(everything)], everything.digest
    np.testing.assert_array_equal(drawn[0][0], drawn[1][0])
    assert len({digest, *(each for _, each in drawn)}) == 3
    places = [all_tiles.index(t.tobytes()) for t in drawn[0][0]]
    assert len(places) == 20
    assert places == sorted(set(places))


def test_at_least_as_many_tiles_as_there_are_is_all_of_them(first: Place) -> None:
    with training_pixels([first], recipe()) as everything:
        n, digest = len(everything), everything.digest
    with training_pixels([first], recipe(), at_most=n) as source:
        assert (len(source), source.digest) == (n, digest)
    with training_pixels([first], recipe(), without=Without.parse(["slide=a1"]), at_most=5) as source:
        assert len(source) == 5
        assert 0 not in source.slides


def test_labels_are_coded_by_name_and_groups_by_patient(first: Place, second: Place) -> None:
    with training_pixels([first], recipe("run.label=kind")) as source:
        labels, slide = source.labels, source.slides
    assert labels.classes == ("x", "y")
    by_slide = {
        number: (set(labels.codes[slide == number]), set(labels.groups[slide == number])) for number in {*slide}
    }
    assert [by_slide[number] for number in range(4)] == [({0}, {0}), ({1}, {0}), ({0}, {1}), ({-1}, {2})]
    with training_pixels([first, second], recipe("run.label=kind")) as both:
        assert both.labels.classes == ("x", "y", "z")
        n = len(slide)
        assert set(both.labels.codes[n:]) == {0, 2}
        assert not set(both.labels.groups[:n]) & set(both.labels.groups[n:])


def cut_tiles(folder: Path, rows: Sequence[Row]) -> Place:
    """Ready tiles: squares of one picture that looks the same every 64 px."""
    folder.mkdir()
    (folder / "p.png").write_bytes(png(np.tile(stained(PX, PX, 1), (1, 6, 1))))
    squares = [{"path": "p.png", "x": PX * n, "y": 0, "size": PX, **row} for n, row in enumerate(rows)]
    tiling = tile(write_csv(folder / "t.csv", squares), folder / "w", mpp=1.0)
    return Workspace.open(folder / "w"), tiling


ROWS: list[Row] = [{"kind": kind, "patient": patient} for kind, patient in zip("aab ", "ppqr", strict=True)]


def changed(number: int, **values: object) -> list[Row]:
    return [{**row, **(values if n == number else {})} for n, row in enumerate(ROWS)]


def test_the_digest_changes_with_labels_groups_and_places(tmp_path: Path) -> None:
    worlds = {
        "as it is": ROWS,
        "again": ROWS,
        "one label": changed(0, kind="b"),
        "a class's name": [{**row, "kind": str(row["kind"]).replace("b", "c")} for row in ROWS],
        "one patient": changed(0, patient="q"),
    }
    digests = {}
    for name, rows in worlds.items():
        with training_pixels([cut_tiles(tmp_path / name, rows)], recipe("run.label=kind")) as source:
            digests[name] = source.digest
            if name == "as it is":
                assert source.labels.codes.tolist() == [0, 0, 1, -1]
                assert source.labels.groups.tolist() == [0, 0, 1, 2]
    assert digests.pop("again") == digests["as it is"]
    assert len(set(digests.values())) == 4


def test_the_digest_of_unlabelled_tiles_knows_no_patients_but_where_they_lie(tmp_path: Path) -> None:
    found = []
    for number, rows in enumerate((ROWS, changed(0, patient="q"), changed(3, x=5 * PX))):
        with training_pixels([cut_tiles(tmp_path / str(number), rows)], recipe()) as source:
            found.append((source.digest, pixels_of(source).tobytes()))
    assert found[0] == found[1]
    assert found[0][0] != found[2][0]
    assert found[0][1] == found[2][1]


def test_a_slide_that_cannot_be_read_any_more_is_left_out_with_a_note(tmp_path: Path) -> None:
    work, tiling = workspace(tmp_path / "in", SLIDES[:2])
    (tmp_path / "in" / "a2.tiff").unlink()
    with pixels_for_training([(work, tiling)], recipe()) as tiles:
        assert set(tiles.source.slides) == {0}
    (note,) = tiles.notes
    assert note.startswith("slide a2 was not trained on: ")


def test_a_copy_of_what_is_kept_out_is_kept_out_too(tmp_path: Path) -> None:
    rows = [("a1", "A", "north", "x"), ("b1", "B", "south", "x"), ("z1", "Z", "east", "x")]
    workspace(tmp_path / "in", rows)
    shutil.copy(tmp_path / "in" / "a1.tiff", tmp_path / "in" / "z1.tiff")  # under another name, patient and site
    tiling = tile(tmp_path / "in" / "s.csv", tmp_path / "in" / "w", request=TileRequest(PX, 1.0))
    place = Workspace.open(tmp_path / "in" / "w"), tiling
    for said in ("slide=a1", "slide=z1", "site=north", "patient=A"):
        with training_pixels([place], recipe(), without=Without.parse([said])) as source:
            assert set(source.slides) == {1}, said
