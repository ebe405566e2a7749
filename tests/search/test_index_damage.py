"""What was damaged is refused by name, before anything is believed of it."""

import hashlib
import json
from pathlib import Path

import pytest
from search.searcher_suite import MADE, world
from search.test_index import index_of, new_index

from histokin.errors import IndexDamaged, SearchError
from histokin.search.index import Index, add_slides
from histokin.search.index.segment import FILES


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return index_of(tmp_path_factory.mktemp("whole") / "i", world()[:3]).folder


@pytest.fixture
def damaged(whole):
    """The index, and a function that damages one of its files until the test is over."""
    kept: dict[Path, bytes] = {}

    def put(path, change):
        content = kept[path] = path.read_bytes()
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :]
        path.unlink()
        if change != "missing":
            path.write_bytes(content[:-1] if change == "shorter" else flipped)

    yield whole, put
    for path, content in kept.items():
        path.write_bytes(content)


@pytest.mark.parametrize("change", ["shorter", "missing", "flipped"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(damaged, change, name):
    folder, put = damaged
    index = Index(folder)
    put(folder / "seg-000001" / name, change)
    with pytest.raises(IndexDamaged, match=name):
        index.verify()
    if change != "flipped":
        with pytest.raises(IndexDamaged, match=name):
            Index(folder)


def test_a_file_that_lies_about_its_lists_is_refused_before_faiss_reads_it(whole, damaged):
    _, put = damaged
    path = whole / "seg-000001" / "tiles.faiss"
    put(path, "flipped")
    content = bytearray(path.read_bytes())
    table = content.index(b"ilar") + 32
    content[table : table + 8] = (10**9).to_bytes(8, "little")
    path.write_bytes(bytes(content))
    with pytest.raises(IndexDamaged, match=r"tiles\.faiss.*table of lists"):
        Index(whole)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("CURRENT", "flipped", "does not name a manifest"),
        ("CURRENT", "missing", "no index here"),
        ("MANIFEST-000003.json", "flipped", "was changed"),
        ("MANIFEST-000003.json", "missing", "a file is missing"),
    ],
)
def test_a_damaged_manifest_is_refused(damaged, name, change, said):
    folder, put = damaged
    put(folder / name, change)
    with pytest.raises(SearchError, match=said):
        Index(folder)


def test_another_format_is_refused_by_both_versions(tmp_path):
    folder = new_index(tmp_path / "i")
    path = folder / "MANIFEST-000002.json"
    given = json.loads(path.read_text())
    path.write_text(json.dumps({**given, "format_version": "2.0"}))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "CURRENT").write_text(f"{path.name} {digest}\n")
    with pytest.raises(SearchError, match=r"histokin-index 2\.0, this program knows histokin-index 1\.x"):
        Index(folder)


def test_an_index_is_made_only_where_there_is_nothing(tmp_path):
    folder = new_index(tmp_path / "i")
    with pytest.raises(SearchError, match="there is an index here"):
        new_index(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "slides.csv").write_text("mine")
    with pytest.raises(SearchError, match="not empty"):
        new_index(tmp_path / "other")
    with pytest.raises(SearchError, match="no index here"):
        Index(tmp_path)
    with pytest.raises(SearchError, match="no index here"):
        add_slides(tmp_path, MADE, [])


def test_what_was_killed_while_it_was_made_is_made_anew(tmp_path):
    folder = new_index(tmp_path / "i")
    (folder / "CURRENT").unlink()
    (folder / ".CURRENT.999999999-0123456789abcdef.tmp").write_text("torn")
    new_index(folder)
    add_slides(folder, MADE, world()[:2])
    assert len(Index(folder)) == 60
    assert not list(folder.glob(".*"))
