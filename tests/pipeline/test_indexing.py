"""Keeping an index in step with its archive: whatever happened to either, it answers like one built from nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from embeddings.foreign_files import write_trident
from pipeline.vector_folders import D, SlideOfVectors, built, changed, planted, write_folder
from program import tree
from search.searcher_suite import assert_equal_hits
from worlds import write_csv

from histokin.artefacts import write_bytes
from histokin.cohort import UNNAMED
from histokin.errors import EncoderMismatch, IndexDamaged, SearchError
from histokin.pipeline.evaluation.labels import read_labels
from histokin.pipeline.indexing import build as building
from histokin.pipeline.indexing.archive import PICTURE, SOURCE, ArchiveSource
from histokin.pipeline.indexing.build import build_index
from histokin.pipeline.indexing.describing import describe_index
from histokin.pipeline.searching import Place, Question, Wish, find_place, open_archive, search_archive
from histokin.search.exact_searcher import ExactSearcher
from histokin.search.index import Index, delete_slides
from histokin.search.searcher import Searcher
from histokin.search.tables import SlideEntry, Where


def assert_same_archive(first: Searcher, second: Searcher) -> None:
    """Equal slides with equal columns, and equal answers to the last bit."""
    assert first.slides.slide.tolist() == second.slides.slide.tolist()
    assert first.slides.patient.tolist() == second.slides.patient.tolist()
    assert {n: c.tolist() for n, c in first.slides.columns.items()} == {
        n: c.tolist() for n, c in second.slides.columns.items()
    }
    queries = np.random.default_rng(5).normal(size=(6, D))
    for where in (Where(), Where.of(keep={"tile_label": ["gland"]}), Where.of(leave_out={"diagnosis": ["benign"]})):
        for name in ("tiles", "mosaics"):
            assert_equal_hits(
                first.search(queries, 25, where=where, field=name), second.search(queries, 25, where=where, field=name)
            )


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class KilledSource(ArchiveSource):
    """An archive in the middle of whose slides the process dies."""

    def entries(self, wanted=None) -> Iterator[SlideEntry]:
        for entry in super().entries(wanted):
            if entry.slide == self.last:
                raise Killed
            yield entry


def killed_at(place: Place, slide: str) -> None:
    """Build until a slide is read, and die."""
    source = KilledSource(place.source.store, place.source.tiling, place.source.labels)
    object.__setattr__(source, "last", slide)
    with pytest.raises(Killed):
        build_index(place.index, source)


@pytest.mark.parametrize("seed", range(2))
def test_after_any_changes_and_kills_an_index_is_what_it_would_be_from_nothing(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "BATCH_TILES", 30)
    rng = np.random.default_rng(seed)
    slides = planted(6, seed=seed)
    place, _ = built(tmp_path / "kept", slides)
    for step in range(3):
        slides = dict(slides)
        names = sorted(slides)
        added, replaced, gone, relabelled = rng.choice(names, 4, replace=False)
        slides[f"new{step}"] = changed(slides[added], rng)
        slides[replaced] = changed(slides[replaced], rng)
        slides[relabelled] = replace(slides[relabelled], patient=f"q{step}", columns={"diagnosis": "carcinoma"})
        del slides[gone]
        place = write_folder(tmp_path / "kept", slides)
        if step % 2 == seed % 2:
            killed_at(place, str(max(f"new{step}", replaced, relabelled)))
            place = write_folder(tmp_path / "kept", slides)
        outcome = build_index(place.index, place.source)
        assert outcome.removed == (gone,)
        assert set(outcome.added + outcome.replaced) <= {f"new{step}", replaced, relabelled}
    fresh, _ = built(tmp_path / "fresh", slides)
    assert_same_archive(Index(place.index), Index(fresh.index))
    assert_same_archive(Index(place.index), ExactSearcher(fresh.source.made, fresh.source.entries()))
    assert not open_archive(place).notes


def test_an_index_that_is_up_to_date_is_not_touched(tmp_path: Path) -> None:
    place, first = built(tmp_path, planted(5))
    before = tree(place.index)
    again = build_index(find_place(tmp_path / "h5_files", labels=tmp_path / "labels.csv", index=place.index).index,
                        write_folder(tmp_path, planted(5)).source)  # fmt: skip
    assert tree(place.index) == before
    assert (first.is_changed, again.is_changed) == (True, False)
    assert (first.n_slides, first.n_tiles) == (again.n_slides, again.n_tiles) == (5, 60)
    assert again.text.endswith("60 tiles of 5 slides; up to date")
    assert first.text.endswith("5 added")
    assert first.to_json()["added"] == ["s00a", "s01a", "s02a", "s03a", "s04a"]


def test_a_killed_build_keeps_whole_batches_and_goes_on_after_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "BATCH_TILES", 24)  # two slides
    place = write_folder(tmp_path, planted(7))
    killed_at(place, "s05a")
    assert Index(place.index).slides.slide.tolist() == ["s00a", "s01a", "s02a", "s03a"]
    archive = open_archive(place)
    assert archive.notes == ("The index does not know of 3 new slides: run `histokin index build`.",)
    assert search_archive(place, Question("s00a", tile=0), Wish(k=3), archive=archive).document.answers
    outcome = build_index(place.index, place.source)
    assert (outcome.added, outcome.replaced) == (("s04a", "s05a", "s06a"), ())
    assert_same_archive(Index(place.index), Index(built(tmp_path / "fresh", planted(7))[0].index))


def test_a_build_killed_before_its_first_version_starts_again(tmp_path: Path) -> None:
    place = write_folder(tmp_path, planted(4))
    place.index.mkdir()
    write_bytes(place.index / "LOCK", b"")
    write_bytes(place.index / ("coarse-" + "0" * 16 + ".npy"), b"half")
    assert build_index(place.index, place.source).n_slides == 4
    Index(place.index).verify()


def test_only_slides_whose_labels_changed_are_written_anew(tmp_path: Path) -> None:
    slides = planted(6)
    built(tmp_path, slides)
    turned = replace(slides["s03a"], tissue=slides["s03a"].tissue[::-1])
    other_site = replace(slides["s01a"], columns={**slides["s01a"].columns, "site": "elsewhere"})
    place, outcome = built(tmp_path, {**slides, "s03a": turned, "s01a": other_site})
    assert (outcome.added, outcome.replaced, outcome.removed) == ((), ("s01a", "s03a"), ())
    index = Index(place.index)
    assert index.slides.column("site")[1] == "elsewhere"
    assert index.bag(3).label.tolist() == [("gland", "stroma", "tumour")[kind] for kind in turned.tissue]


def test_what_was_removed_by_hand_is_told_and_put_back(tmp_path: Path) -> None:
    place, _ = built(tmp_path, planted(5))
    delete_slides(place.index, ["s02a"])
    archive = open_archive(place)
    assert "s02a" not in archive.searcher.slides.slide
    assert "1 new slides" in archive.notes[0]
    with pytest.raises(SearchError, match="no slide 's02a'"):
        search_archive(place, Question("s02a"), archive=archive)
    assert build_index(place.index, place.source).added == ("s02a",)


def test_verifying_finds_one_flipped_bit_in_any_file(tmp_path: Path) -> None:
    place, _ = built(tmp_path, planted(5))
    assert describe_index(place, verify=True)["files"] == "as they were written"
    named = Index(place.index).pinned().manifest.files()
    assert len(named) > 5
    for name in named:
        path = place.index / name
        whole = path.read_bytes()
        broken = bytearray(whole)
        broken[len(broken) // 2] ^= 1
        path.write_bytes(bytes(broken))
        with pytest.raises(IndexDamaged) as raised:
            describe_index(place, verify=True)
        assert Path(raised.value.where) in (path, path.parent)  # tables of a segment are read together
        path.write_bytes(whole)
    describe_index(place, verify=True)


def test_the_facts_of_an_index_are_those_of_the_archive(tmp_path: Path) -> None:
    place, _ = built(tmp_path, planted(6, per_patient=2))
    found = describe_index(place)
    assert (found["tiles"], found["slides"], found["patients"], found["dimensions"]) == (144, 12, 6, D)
    assert (found["columns"], found["recall"], found["up to date"]) == ("diagnosis, site", "not checked", "yes")
    assert found["files"] == "not read"
    n_bytes = sum(path.stat().st_size for path in place.index.rglob("*") if path.is_file())
    assert 0 < found["bytes"] <= n_bytes
    write_folder(tmp_path, planted(7, per_patient=2))
    later = find_place(tmp_path / "h5_files", labels=tmp_path / "labels.csv", index=place.index)
    assert "2 new slides" in describe_index(later)["up to date"]
    with pytest.raises(SearchError, match=r"there is no index.*histokin index build"):
        describe_index(replace(place, index=tmp_path / "none"))


def test_vectors_of_another_encoder_are_refused_and_change_nothing(tmp_path: Path) -> None:
    place, _ = built(tmp_path, planted(4))
    before = tree(place.index)
    wide = {n: replace(s, vectors=np.pad(s.vectors, [(0, 0), (0, 3)])) for n, s in planted(4).items()}
    other = write_folder(tmp_path / "other", wide)
    with pytest.raises(EncoderMismatch, match=r"do not fit those of unnamed.*dim 15 instead of 12"):
        build_index(place.index, other.source)
    assert tree(place.index) == before


def test_a_slide_of_two_patients_is_refused_by_name(tmp_path: Path) -> None:
    place = write_folder(tmp_path, planted(3))
    text = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(text.replace("p01", "p07", 1))
    with pytest.raises(SearchError, match=r"slide s01a holds tiles of 2 patients \(p01, p07\)"):
        build_index(place.index, replace(place.source, labels=read_labels(tmp_path / "labels.csv")))


def test_empty_cells_say_nothing_against_a_patient_that_other_tiles_name(tmp_path: Path) -> None:
    place = write_folder(tmp_path, planted(3))
    text = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(text.replace(",p01,", ",,", 1))
    source = replace(place.source, labels=read_labels(tmp_path / "labels.csv"))
    assert {slide: known.patient for slide, known in source.known.items()} == {
        "s00a": "p00",
        "s01a": "p01",
        "s02a": "p02",
    }


def test_a_table_that_names_none_of_the_slides_is_refused(tmp_path: Path) -> None:
    place = write_folder(tmp_path, planted(3))
    table = write_csv(tmp_path / "other.csv", [{"slide": "elsewhere", "patient": "p"}])
    with pytest.raises(SearchError, match=r"it names none of the 3 slides\. Name them as the archive does: s00a"):
        build_index(place.index, replace(place.source, labels=read_labels(table)))


def test_columns_of_labels_may_have_any_name(tmp_path: Path) -> None:
    """Also those of words that an archive uses of itself, but for the one by which filters know labels of tiles."""
    place = write_folder(tmp_path, planted(3))
    rows = [{"slide": s, "patient": p, "source": "biopsy", "picture": "x"} for s, p in (("s00a", "p"), ("s01a", "q"))]
    labels = read_labels(write_csv(tmp_path / "own.csv", rows))
    known = replace(place.source, labels=labels).known
    assert (known["s00a"].columns["source"], known["s01a"].columns["picture"]) == ("biopsy", "x")
    assert known["s02a"].patient == UNNAMED + "s02a"
    assert len({what.columns[SOURCE] for what in known.values()}) == 3
    assert [what.columns[PICTURE] for what in known.values()] == ["s00a", "s01a", "s02a"]
    rows = [{"slide": "s00a", "patient": "p", "tile_label": "x"}]
    labels = read_labels(write_csv(tmp_path / "own.csv", rows))
    with pytest.raises(SearchError, match=r"a column of slides is called tile_label.*Name the column otherwise"):
        replace(place.source, labels=labels).known  # noqa: B018
    rows = [{"slide": "s00a", "tile_id": n, "tile_label": "x"} for n in range(12)]
    labels = read_labels(write_csv(tmp_path / "own.csv", rows))
    build_index(place.index, replace(place.source, labels=labels))
    assert Index(place.index).bag(0).label.tolist() == ["x"] * 12


def test_patients_of_the_users_table_who_own_the_same_file_count_as_one(painted_archive, tmp_path: Path) -> None:
    rows = [{"slide": s, "patient": p} for s, p in (("a1", "one"), ("a9", "two"), ("z1", "two"), ("b1", "three"))]
    labels = read_labels(write_csv(tmp_path / "own.csv", rows))
    known = replace(painted_archive.place.source, labels=labels).known
    assert {s: known[s].patient for s in ("a1", "a9", "z1", "b1", "c1")} == {
        "a1": "one", "a9": "one", "z1": "one", "b1": "three", "c1": "pc"
    }  # fmt: skip


def test_a_sample_has_as_many_vectors_of_a_large_slide_as_of_a_small_one(tmp_path: Path) -> None:
    slides = planted(4)
    rng = np.random.default_rng(0)
    large = SlideOfVectors(rng.normal(size=(400, D)).astype(np.float32), rng.integers(0, 3, 400), "p9")
    source = write_folder(tmp_path, {**slides, "large": large}).source
    sample = source.sample(50)
    of_large = (sample[:, None] == large.vectors[None]).all(-1).any(1)
    assert (len(sample), of_large.sum()) == (50, 10)


def test_an_archive_without_one_tile_says_so(tmp_path: Path) -> None:
    write_trident(tmp_path / "empty.h5", np.zeros((0, D), np.float32))
    place = find_place(tmp_path)
    for attempt in (lambda: build_index(place.index, place.source), lambda: search_archive(place, Question("empty"))):
        with pytest.raises(SearchError, match="not one slide has tiles"):
            attempt()
