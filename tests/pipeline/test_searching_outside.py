"""Questions from outside an archive: a picture, a box too small for its tiles, a slide that is not in it."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from pipeline.painted import MPP, PX, SIDE_UM, TEXTURE, Painted, painted
from worlds import MeanColour, glass, png

from histokin.embeddings import embed_cohort
from histokin.errors import EncoderMismatch, HistokinError, NoResolution, SearchError
from histokin.pipeline.indexing.build import build_index
from histokin.pipeline.searching import Question, SearchResult, Wish, find_place, search_archive
from histokin.slides import open_slide
from histokin.slides.generated import write_pyramid
from histokin.workspace import Workspace

UNKNOWN = "Whose the query is was not said: where its patient is in the archive, it answers itself."


def asked(archive: Painted, question: Question, **wish: object) -> SearchResult:
    return search_archive(archive.place, question, Wish(**wish), is_pictured=False)  # pyright: ignore[reportArgumentType]


def cut(archive: Painted, slide: str, box_um: tuple[float, float, float, float], path: Path) -> Path:
    """A PNG of a box of a slide, with the slide's pixels."""
    with open_slide(archive.table.parent / f"slides/{slide}.tiff") as opened:
        x, y, w, h = (round(value / MPP) for value in box_um)
        path.write_bytes(png(opened.read(x, y, w, h)))
    return path


def test_a_picture_cut_from_the_archive_finds_its_own_place_unless_its_patient_is_said(
    painted_archive: Painted, tmp_path: Path
) -> None:
    picture = cut(painted_archive, "d1", (64, 64, 96, 64), tmp_path / "d.png")
    found = asked(painted_archive, Question(file=picture, mpp=MPP), k=4)
    first = found.document.answers[0]
    assert (first.slide, first.score) == ("d1", pytest.approx(1, abs=1e-3))
    assert (first.box.x, first.box.y) == (64 / MPP, 64 / MPP)
    assert (found.document.level, found.document.query.kind) == ("region", "picture")
    assert (found.document.query.n_tiles, found.document.query.box_um) == (6, (96, 64))
    assert found.document.warnings == [UNKNOWN]
    said = asked(painted_archive, Question(file=picture, mpp=MPP, patient="pd"), k=4)
    assert "d1" not in {answer.slide for answer in said.document.answers}
    assert not said.document.warnings
    assert said.document.searched.left_out[0].what == "patient pd, whose the query is"


def test_a_picture_at_another_pixel_size_finds_the_same_place(painted_archive: Painted, tmp_path: Path) -> None:
    fine = cv2.imread(str(cut(painted_archive, "e1", (64, 64, 64, 64), tmp_path / "e.png")))
    cv2.imwrite(str(tmp_path / "coarse.png"), cv2.resize(fine, (64, 64), interpolation=cv2.INTER_AREA))
    first = asked(painted_archive, Question(file=tmp_path / "coarse.png", mpp=1.0)).document.answers[0]
    assert (first.slide, first.box.x, first.box.y) == ("e1", 64 / MPP, 64 / MPP)
    wrong = asked(painted_archive, Question(file=tmp_path / "coarse.png", mpp=MPP)).document.answers[0]
    assert wrong.score < first.score


def test_a_picture_smaller_than_a_tile_is_continued_by_its_mirror_image_and_says_so(
    painted_archive: Painted, tmp_path: Path
) -> None:
    picture = cut(painted_archive, "c1", (64, 64, 24, 24), tmp_path / "c.png")
    found = asked(painted_archive, Question(file=picture, mpp=MPP), level="tile", k=1)
    first = found.document.answers[0]
    assert (first.slide, first.box.x, first.box.y) == ("c1", 64 / MPP, 64 / MPP)
    assert "The picture is smaller than a tile: its mirror image continues it." in found.document.notes
    pixels = cv2.cvtColor(cv2.imread(str(picture)), cv2.COLOR_BGR2RGB)
    side = round(SIDE_UM / MPP)
    margins = [(side - length) // 2 for length in pixels.shape[:2]]
    rest = [side - length - margin for length, margin in zip(pixels.shape[:2], margins, strict=True)]
    wide = np.pad(pixels, [*zip(margins, rest, strict=True), (0, 0)], mode="symmetric")
    tile = cv2.resize(wide, (PX, PX), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(found.asked.bag.vectors, TEXTURE.embed(tile[None]), atol=1e-6)


def test_pictures_that_cannot_ask_are_refused_by_the_reason(painted_archive: Painted, tmp_path: Path) -> None:
    picture = cut(painted_archive, "f1", (64, 64, 40, 40), tmp_path / "f.png")
    with pytest.raises(NoResolution, match=r"states no pixel size. Pass it with --mpp"):
        asked(painted_archive, Question(file=picture))
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((65 * PX, 65 * PX, 3), np.uint8))
    with pytest.raises(SearchError, match=r"holds 4225 tiles of 32 um, a query at most 4096.*--outside"):
        asked(painted_archive, Question(file=tmp_path / "large.png", mpp=1.0))
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(HistokinError, match=r"text\.png"):
        asked(painted_archive, Question(file=tmp_path / "text.png", mpp=MPP))


def test_a_box_smaller_than_a_tile_is_cut_at_its_centre_and_embedded(painted_archive: Painted) -> None:
    found = asked(painted_archive, Question("a1", box_um=(70, 75, 20, 12)), leave_out="slide")
    assert found.document.notes[0] == "The box holds no whole tile: one was cut at its centre."
    with open_slide(painted_archive.table.parent / "slides/a1.tiff") as slide:
        corner = [round(value / MPP) for value in (80 - SIDE_UM / 2, 81 - SIDE_UM / 2)]
        pixels = slide.read(*corner, round(SIDE_UM / MPP), round(SIDE_UM / MPP))
    wanted = TEXTURE.embed(cv2.resize(pixels, (PX, PX), interpolation=cv2.INTER_AREA)[None])
    np.testing.assert_allclose(found.asked.bag.vectors, wanted, atol=2e-2)
    assert found.asked.bag.coords.tolist() == [corner]
    assert found.document.answers[0].slide in ("a2", "z1")
    # on a tile of the grid what is cut is that tile
    x, y = painted_archive.vectors["a1"][2][20] * MPP
    exact = asked(painted_archive, Question("a1", box_um=(x + 8, y + 8, 16, 16)), level="tile", leave_out="slide")
    of_tile = asked(painted_archive, Question("a1", at_um=(x + 16, y + 16)), leave_out="slide")
    assert [(a.slide, a.tile) for a in exact.document.answers] == [(a.slide, a.tile) for a in of_tile.document.answers]


def test_a_slide_from_outside_asks_as_it_would_from_within_to_the_last_bit(tmp_path: Path) -> None:
    """More tiles than a mosaic holds would show a choice of others as well."""
    archive = Painted.make(tmp_path / "archive", ("a1", "b1", "c1", "d1"))
    build_index(archive.place.index, archive.place.source)
    outside = tmp_path / "elsewhere.tiff"
    shutil.copy(archive.table.parent / "slides/a1.tiff", outside)
    for wish in ({}, {"strategy": "median_min/binary"}, {"level": "tile"}, {"level": "region"}):
        inside = asked(archive, Question("a1"), **wish)
        found = asked(archive, Question(file=outside, is_slide=True, patient="pa"), **wish)
        assert found.answered == inside.answered, wish
        assert len(found.answered.found) > 1
        assert np.array_equal(found.asked.bag.vectors, inside.asked.bag.vectors)
    unsaid = asked(archive, Question(file=outside, is_slide=True))
    assert unsaid.answered == asked(archive, Question("a1")).answered  # known by its content
    assert unsaid.document.notes[0] == "The archive holds this slide as a1, whose patient is left out."
    before = {path: path.stat().st_mtime_ns for path in archive.root.rglob("*.h5")}
    again = asked(archive, Question(file=outside, is_slide=True, patient="pa"))
    assert again.answered == asked(archive, Question("a1")).answered
    assert {path: path.stat().st_mtime_ns for path in archive.root.rglob("*.h5")} == before  # embedded once
    shown = search_archive(archive.place, Question(file=outside, is_slide=True, patient="pa"), Wish(k=2))
    assert shown.document.query.image is not None
    assert shown.document.answers[0].evidence[0].query.image is not None


def test_a_slide_from_outside_without_tissue_or_pixel_size_is_refused_by_its_state(
    painted_archive: Painted, tmp_path: Path
) -> None:
    root = tmp_path / "work"
    shutil.copytree(painted_archive.root, root)
    archive = Painted(painted_archive.table, root)
    write_pyramid(tmp_path / "empty.tiff", glass(448, 640), mpp=MPP)
    with pytest.raises(HistokinError, match=r"none of 1 slides can be used.*no_tissue"):
        asked(archive, Question(file=tmp_path / "empty.tiff", is_slide=True))
    (tmp_path / "plain.png").write_bytes(png(painted(3)))
    with pytest.raises(HistokinError, match="no_mpp"):
        asked(archive, Question(file=tmp_path / "plain.png", is_slide=True))


def test_an_encoder_that_makes_other_vectors_is_not_asked(painted_archive: Painted, tmp_path: Path) -> None:
    root = tmp_path / "work"
    shutil.copytree(painted_archive.root, root)
    embed_cohort(Workspace.open(root), painted_archive.place.tiling, [MeanColour(name="colour")])
    place = find_place(root, encoder="colour")
    picture = cut(painted_archive, "f1", (64, 64, 40, 40), tmp_path / "f.png")
    with pytest.raises(EncoderMismatch, match=r"store: colour sha256:abab\w*, loaded by that name: floor-colour-1"):
        search_archive(place, Question(file=picture, mpp=MPP))


def test_an_index_of_another_encoder_is_refused_with_both_sides(painted_archive: Painted, tmp_path: Path) -> None:
    root = tmp_path / "work"
    shutil.copytree(painted_archive.root, root)
    embed_cohort(Workspace.open(root), painted_archive.place.tiling, [MeanColour()])
    texture, colour = find_place(root, encoder="texture", index="one"), find_place(root, encoder="mean", index="one")
    build_index(texture.index, texture.source)
    before = (texture.index / "CURRENT").read_text()
    for attempt in (lambda: build_index(colour.index, colour.source), lambda: search_archive(colour, Question("a1"))):
        with pytest.raises(EncoderMismatch, match=r"vectors of mean do not fit those of texture: fingerprint sha256:"):
            attempt()
    assert (texture.index / "CURRENT").read_text() == before


def test_a_folder_of_vectors_cannot_embed_what_is_outside(painted_archive: Painted, tmp_path: Path) -> None:
    shutil.copytree(painted_archive.place.source.store.folder, tmp_path / "vectors")
    picture = cut(painted_archive, "f1", (64, 64, 40, 40), tmp_path / "f.png")
    for is_slide in (False, True):
        with pytest.raises(SearchError, match=r"nothing new can be embedded like them.*Ask with a slide"):
            search_archive(find_place(tmp_path / "vectors"), Question(file=picture, mpp=MPP, is_slide=is_slide))
