"""Slides come and go in whole versions; a writer that fails or dies leaves the last one."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from search.searcher_suite import (
    MADE,
    as_tuples,
    assert_close,
    assert_equal_hits,
    by_loop,
    entry,
    queries_of,
    world,
)
from search.test_index import index_of, new_index

from histokin.errors import EncoderMismatch, IndexLocked, SearchError, StoreError
from histokin.search.index import Index, add_slides, compact, delete_slides, set_calibration
from histokin.search.index.manifest import locked
from histokin.search.tables import Made


def test_a_change_is_seen_by_the_next_query_of_an_open_index(tmp_path):
    index = index_of(tmp_path / "i", world()[:4])
    slide = entry("zz", 12)
    add_slides(index.folder, MADE, [slide])
    found = index.search(slide.vectors[1:2], 1, exact=True)
    assert index.slides.slide[found.slide[0, 0]] == "zz"
    delete_slides(index.folder, ["zz"])
    found = index.search(slide.vectors, 300, exact=True)
    assert "zz" not in index.slides.slide[np.unique(found.slide[found.slide >= 0])]
    assert (found.slide >= 0).sum(axis=1).tolist() == [len(index)] * 12


def test_a_pinned_version_stays_while_slides_come_and_go(tmp_path):
    index = index_of(tmp_path / "i", world(), segment_rows=60)
    asked = queries_of(world())
    version = index.pinned()
    before = version.search(asked, 5)
    delete_slides(index.folder, ["s00", "s01", "s12"])
    add_slides(index.folder, MADE, [entry("aa", 50)])
    for _ in range(4):
        compact(index.folder, whole=True)
        set_calibration(index.folder, {"n": 1})
    assert_equal_hits(version.search(asked, 5), before)
    assert version.slides.slide[0] == "s00"
    assert np.array_equal(version.bag(13).tile, np.sort(world()[13].tile))
    index.refresh()
    assert index.slides.slide[0] == "aa"


def test_an_index_built_anew_in_the_same_folder_is_seen_by_an_open_one(tmp_path):
    index = index_of(tmp_path / "i", world()[:4])
    shutil.rmtree(tmp_path / "i")
    other = [entry(slide.slide, len(slide.tile), seed=5) for slide in world()[:4]]
    index_of(tmp_path / "i", other)
    asked = queries_of(other)
    found = index.search(asked, 4, exact=True)
    assert_close(as_tuples(index, found), by_loop(other, asked, 4))


def test_replacing_a_slide_is_one_version(tmp_path):
    index = index_of(tmp_path / "i", world()[:5])
    other = entry("s03", 7, "p9", seed=4)
    done = add_slides(index.folder, MADE, [other, entry("t", 3)])
    assert (done.replaced, done.slides, done.tiles) == (("s03",), 2, 10)
    assert done.version == index.manifest.number + 1
    index.refresh()
    bag = index.bag(index.slides.number("s03"))
    assert bag.tile.tolist() == np.sort(other.tile).tolist()
    assert index.slides.patient[index.slides.number("s03")] == "p9"
    assert len(index) == sum(len(s.tile) for s in world()[:5]) - 60 + 10


def test_deleting_what_is_not_there_deletes_nothing(tmp_path):
    index = index_of(tmp_path / "i", world()[:3])
    with pytest.raises(SearchError, match="1 of 2 slides are not in the index: s77"):
        delete_slides(index.folder, ["s01", "s77"])
    assert not index.refresh()


@pytest.mark.parametrize("name", ["fingerprint", "grid_id", "dim"])
def test_vectors_of_another_encoder_or_tiling_are_refused(tmp_path, name):
    folder = new_index(tmp_path / "i")
    other = Made(**{**{n: getattr(MADE, n) for n in Made.__slots__}, name: 13 if name == "dim" else "other"})
    with pytest.raises(EncoderMismatch, match=f"{name} (other|13) instead of"):
        add_slides(folder, other, [entry("a", 3)])


def test_a_failed_addition_leaves_the_index_and_the_disk_as_they_were(tmp_path):
    index = index_of(tmp_path / "i", world()[:3])
    before = sorted(p.relative_to(index.folder) for p in index.folder.rglob("*"))
    bad = entry("y", 200)
    bad.vectors[150] = 0
    with pytest.raises(StoreError, match="slide y, row 150"):
        add_slides(index.folder, MADE, [entry("x", 200), bad], segment_rows=100)
    assert sorted(p.relative_to(index.folder) for p in index.folder.rglob("*")) == before
    assert not index.refresh()


def test_a_second_writer_is_told_to_wait(tmp_path):
    folder = new_index(tmp_path / "i")
    code = "import sys; from histokin.search.index import delete_slides; delete_slides(sys.argv[1], [])"
    with locked(folder):
        with pytest.raises(IndexLocked, match="another process is writing"):
            add_slides(folder, MADE, [entry("a", 3)])
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert "IndexLocked" in done.stderr
    assert add_slides(folder, MADE, [entry("a", 3)]).slides == 1


def test_litter_of_a_killed_writer_is_removed_by_the_next(tmp_path):
    folder = index_of(tmp_path / "i", world()[:3]).folder
    for litter in ("seg-000009/tiles.faiss", "coarse-0123456789abcdef.npy", "MANIFEST-000099.json"):
        (folder / litter).parent.mkdir(exist_ok=True)
        (folder / litter).write_bytes(b"torn")
    (folder / "notes.txt").write_text("mine")
    assert len(Index(folder)) == 61
    add_slides(folder, MADE, [entry("x", 4)])
    assert not any((folder / name).exists() for name in ("seg-000009", "coarse-0123456789abcdef.npy"))
    assert json.loads((folder / "MANIFEST-000004.json").read_text())["parent"] == 3
    assert not (folder / "MANIFEST-000099.json").exists()
    assert (folder / "notes.txt").exists()
    Index(folder).verify()


def test_versions_that_nobody_opens_any_more_leave_the_disk(tmp_path):
    folder = index_of(tmp_path / "i", world()[:3]).folder

    def versions():
        return sorted(int(p.stem.removeprefix("MANIFEST-")) for p in folder.glob("MANIFEST-*"))

    for number in range(4):
        set_calibration(folder, {"n": number})
    compact(folder, whole=True)
    assert versions() == list(range(1, Index(folder).manifest.number + 1))  # all of the last hour
    for path in folder.glob("MANIFEST-*"):
        os.utime(path, (1, 1))
    first = Index(folder).manifest.number
    add_slides(folder, MADE, [entry("x", 4)])
    assert versions() == [first - 1, first, first + 1]
    needed = {s.name for s in Index(folder).manifest.segments}
    assert needed <= {p.name for p in folder.glob("seg-*")}
    Index(folder).verify()
