import os
from pathlib import Path

import pytest
from worlds import png, stained, write_csv

from histokin.cohort.sources import list_source
from histokin.errors import CohortError

TILE = png(stained(64, 64))


def touch(root: Path, *names: str, data: bytes = b"x") -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def table(root: Path, text: str | bytes, name: str = "cohort.csv") -> Path:
    (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return root / name


# --- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_lists_slides_of_all_depths_and_nothing_hidden(tmp_path: Path) -> None:
    touch(
        tmp_path, "b.svs", "a/c.NDPI", "a/deep/d.tiff", ".e.svs", ".hidden/f.svs", "a/.g/h.svs", "notes.txt", "a/x.csv"
    )
    listing = list_source(tmp_path, mpp=0.5)
    assert [(r.slide, r.path, r.given_mpp) for r in listing.records] == [
        ("c", "a/c.NDPI", 0.5),
        ("d", "a/deep/d.tiff", 0.5),
        ("b", "b.svs", 0.5),
    ]
    assert listing.kind == "slides"
    assert "no patients" in listing.notes[0]


def test_linked_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "a.svs")
    root = touch(tmp_path / "root", "b.svs", "sub/c.svs")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "sub" / "up").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    assert sorted(r.path for r in list_source(root).records) == ["b.svs", "linked/a.svs", "sub/c.svs"]


def test_dead_and_looping_links_stay_visible(tmp_path: Path) -> None:
    (tmp_path / "gone.svs").symlink_to(tmp_path / "nowhere.svs")
    (tmp_path / "loop.svs").symlink_to(tmp_path / "loop.svs")
    assert [r.slide for r in list_source(tmp_path).records] == ["gone", "loop"]


def test_a_name_that_is_no_text_is_shown_and_not_used(tmp_path: Path) -> None:
    touch(tmp_path, "good.svs")
    (tmp_path / os.fsdecode(b"b\xff.svs")).write_bytes(b"")
    good, bad = sorted(list_source(tmp_path).records, key=lambda r: r.state)
    assert (good.slide, good.state) == ("good", "ok")
    assert (bad.slide, bad.state) == ("b?", "unsupported")
    assert "UTF-8" in bad.reason


def test_an_empty_folder_and_a_missing_one_say_so(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"holds no slide.*\.svs"):
        list_source(tmp_path)
    with pytest.raises(CohortError, match="no such file or folder"):
        list_source(tmp_path / "gone")


def test_a_single_file_is_a_cohort_of_one(tmp_path: Path) -> None:
    listing = list_source(touch(tmp_path, "a.b.svs") / "a.b.svs", mpp=0.25)
    assert [(r.slide, r.path, r.given_mpp) for r in listing.records] == [("a.b", "a.b.svs", 0.25)]
    assert listing.root == tmp_path


def test_class_folders_of_small_pictures_are_tiles(tmp_path: Path) -> None:
    touch(tmp_path, "tumour/1.png", "tumour/2.png", "stroma/1.png", data=TILE)
    listing = list_source(tmp_path, mpp=1.0)
    assert listing.kind == "tiles"
    assert [(t.path, t.labels, t.size) for t in listing.tiles] == [
        ("stroma/1.png", {"label": "stroma"}, 0),
        ("tumour/1.png", {"label": "tumour"}, 0),
        ("tumour/2.png", {"label": "tumour"}, 0),
    ]
    assert [r.slide for r in listing.records] == [tmp_path.name]
    assert "3 tiles in 2 class folders" in listing.notes[0]
    assert list_source(tmp_path, kind="slides").kind == "slides"


def test_class_folders_of_large_pictures_are_slides_unless_told(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/2.png", data=png(stained(20, 1100)))
    assert list_source(tmp_path).kind == "slides"
    assert list_source(tmp_path, kind="tiles").kind == "tiles"


def test_tiles_that_lie_in_no_class_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match="class folders"):
        list_source(touch(tmp_path, "1.png", data=TILE), kind="tiles")


# --- tables of slides -----------------------------------------------------------------------------------------------


def test_ids_are_text_and_keep_their_zeros(tmp_path: Path) -> None:
    path = table(tmp_path, 'slide,path,patient,label\n007,"a, b.svs",NA,1.0\n1e5, c.svs ,None,\n')
    first, second = list_source(path).records
    assert (first.slide, first.path, first.patient, first.labels) == ("007", "a, b.svs", "NA", {"label": "1.0"})
    assert (second.slide, second.path, second.patient, second.labels) == ("1e5", "c.svs", "None", {})


@pytest.mark.parametrize(
    "data",
    [
        b"slide,path\ns,a.svs\n",
        b"\xef\xbb\xbfslide,path\r\ns,a.svs\r\n",  # as Excel saves it
        b"slide,path\rs,a.svs\r",  # as an old Macintosh
        b" Slide , PATH \n\ns,a.svs\n,\n\n",  # blank rows
        b'"slide","path"\n"s","a.svs"',
        b"slide,path\ns,a.svs,,\n",  # empty cells too many
    ],
)
def test_the_same_table_however_it_was_saved(data: bytes, tmp_path: Path) -> None:
    assert [(r.slide, r.path) for r in list_source(table(tmp_path, data)).records] == [("s", "a.svs")]


@pytest.mark.parametrize(
    "header",
    ["slide_id,file,case_id", "image,filename,PATIENT", "section,wsi,patient_id", "slide,path,case"],
)
def test_words_of_other_tools_are_understood(header: str, tmp_path: Path) -> None:
    (record,) = list_source(table(tmp_path, f"{header}\ns,f.svs,p\n")).records
    assert (record.slide, record.path, record.patient, record.labels) == ("s", "f.svs", "p", {})


def test_semicolons_separate_a_csv_whose_header_has_no_comma(tmp_path: Path) -> None:
    (record,) = list_source(table(tmp_path, "path;label\na.svs;x, y\n")).records
    assert (record.path, record.labels) == ("a.svs", {"label": "x, y"})


def test_tabs_separate_a_tsv(tmp_path: Path) -> None:
    (record,) = list_source(table(tmp_path, "path\tlabel\na.svs\tx, y\n", "t.tsv")).records
    assert (record.slide, record.labels) == ("a", {"label": "x, y"})


def test_the_tables_mpp_goes_before_the_flag(tmp_path: Path) -> None:
    records = list_source(table(tmp_path, "path,mpp\na.svs,0.25\nb.svs,\nc.svs,0\n"), mpp=0.5).records
    assert [r.given_mpp for r in records] == [0.25, 0.5, 0.0]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no path column|no rows"),
        (b"slide,path\n", "no rows"),
        (b"slide,path\n,\n\n", "no rows"),
        (b"slide|path\na|a.svs\n", "no path column among slide.path"),
        (b"slide,where\na,a.svs\n", "no path column among slide, where"),
        (b"slide,path\n\xe4,a.svs\n", "not UTF-8"),
        ("slide,path\na,a.svs\n".encode("utf-16"), "not UTF-8"),
        (b"path,mpp\na.svs,0.25\n\nb.svs,quarter\n", "line 4: mpp is 'quarter', not a number"),
        (b"path,mpp\na.svs,nan\n", "line 2: mpp is 'nan'"),
        (b"path,mpp\na.svs,inf\n", "line 2: mpp is 'inf'"),
        (b"path,label\na.svs,x,y\n", "line 2 has 3 cells, the header 2"),
        (b'path,label\na.svs,"' + b"x" * 200_000 + b'"\n', "this is no table"),
    ],
    ids=[
        "empty",
        "header",
        "blank",
        "bars",
        "column",
        "latin-1",
        "utf-16",
        "word",
        "nan",
        "inf",
        "ragged",
        "huge",
    ],
)
def test_a_wrong_table_is_refused_with_line_and_reason(data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=said) as caught:
        list_source(table(tmp_path, data))
    assert caught.value.remedy


# --- tables of tiles ------------------------------------------------------------------------------------------------


def tiles(root: Path, rows: list[dict[str, object]], **options: object) -> tuple:
    touch(root, "a.png", data=TILE)
    listing = list_source(write_csv(root / "t.csv", rows), **options)  # type: ignore[arg-type]
    assert listing.kind == "tiles"
    return listing.tiles, listing.records


def test_x_y_and_size_cut_tiles_out_of_pictures(tmp_path: Path) -> None:
    rows = [{"path": "a.png", "x": 3, "y": 5, "size": 16, "label": "t", "patient": "p"}]
    (tile,), (record,) = tiles(tmp_path, rows, mpp=0.5)
    assert (tile.slide, tile.x, tile.y, tile.size, tile.labels, tile.patient) == ("a", 3, 5, 16, {"label": "t"}, "p")
    assert (record.slide, record.path, record.patient, record.given_mpp) == ("a", "a.png", "p", 0.5)


@pytest.mark.parametrize(("origin", "corner"), [("top-left", (31, 40)), ("centre", (23, 32))])
def test_coordinates_that_are_not_whole_must_be_explained(origin: str, corner: tuple, tmp_path: Path) -> None:
    rows = [{"path": "a.png", "x": 30.5, "y": 40, "size": 16}]
    with pytest.raises(CohortError, match=r"line 2: x, y are not whole.*--tile-origin"):
        tiles(tmp_path, rows)
    (tile,), _ = tiles(tmp_path, rows, origin=origin)
    assert (tile.x, tile.y) == corner


def test_a_centre_near_the_edge_gives_a_negative_corner_rounded_like_any_other(tmp_path: Path) -> None:
    (tile,), _ = tiles(tmp_path, [{"path": "a.png", "x": 4.2, "y": 20, "size": 16}], origin="centre")
    assert (tile.x, tile.y) == (-4, 12)


@pytest.mark.parametrize("missing", ["x", "y", "size"])
def test_a_square_must_be_whole(missing: str, tmp_path: Path) -> None:
    row = {"path": "a.png", "x": 1, "y": 1, "size": 16} | {missing: ""}
    with pytest.raises(CohortError, match="line 2: x, y and size must all be given"):
        tiles(tmp_path, [row])


def test_tiles_of_one_slide_with_two_pixel_sizes_are_refused(tmp_path: Path) -> None:
    row = {"path": "a.png", "x": 1, "y": 1, "size": 16}
    with pytest.raises(CohortError, match=r"line 3: a has tiles of 0\.5 and of 0\.25 um"):
        tiles(tmp_path, [row | {"mpp": 0.5}, row | {"mpp": 0.25}])


def test_a_label_that_all_tiles_share_is_the_slides_too(tmp_path: Path) -> None:
    row = {"path": "a.png", "x": 1, "y": 1, "size": 16, "label": "t", "organ": "lung", "site": "H", "region": "r"}
    given, (record,) = tiles(tmp_path, [row, row | {"label": "s", "x": 20}])
    assert record.labels == {"organ": "lung"}
    assert record.site == "H"
    assert [t.labels["label"] for t in given] == ["t", "s"]
    assert {t.region for t in given} == {"r"}


def test_small_pictures_with_labels_are_tiles_and_without_slide_column_one_set(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png", data=TILE)
    listing = list_source(table(tmp_path, "path,label\n1.png,a\n2.png,b\n"))
    assert (listing.kind, [t.size for t in listing.tiles]) == ("tiles", [0, 0])
    assert [r.slide for r in listing.records] == [tmp_path.name]
    assert any("patients may overlap" in note for note in listing.notes)
