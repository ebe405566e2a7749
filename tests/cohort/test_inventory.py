import os
import shutil
from pathlib import Path

import pytest
from worlds import bad_slides, damage_tile, png, stained, write_csv

from histokin.cohort import Cohort, take_inventory
from histokin.slides.generated import write_pyramid


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    root = tmp_path_factory.mktemp("catalogue")
    return root, bad_slides(root)


@pytest.fixture(scope="module")
def looked_at(catalogue: tuple[Path, dict[str, str]]) -> Cohort:
    return take_inventory(catalogue[0])


def test_every_kind_of_bad_file_has_its_state(catalogue: tuple[Path, dict[str, str]], looked_at: Cohort) -> None:
    # what lies on the glass is for the tile stage to find
    expected = {name: "ok" if state == "no_tissue" else state for name, state in catalogue[1].items()}
    assert {r.slide: r.state for r in looked_at.records} == expected


def test_every_reason_says_what_to_do(looked_at: Cohort) -> None:
    for record in looked_at.records:
        if record.is_usable:
            assert record.reason == ""
            continue
        assert ". " in record.reason, record
        assert record.reason.endswith("."), record
        assert "Traceback" not in record.reason
    reasons = {r.slide: r.reason for r in looked_at.records}
    assert "--mpp" in reasons["plain"]
    assert "not square (0.25 x 0.5 um)" in reasons["oblong"]
    assert "truncated" in reasons["half"]


def test_a_good_slide_is_described(looked_at: Cohort) -> None:
    record = looked_at.record("good")
    assert (record.width, record.height, record.n_levels, record.mpp_source, record.vendor, record.reader) == (
        512, 512, 2, "file", "generic-tiff", "openslide",
    )  # fmt: skip
    assert record.mpp == pytest.approx(0.5)
    assert len(record.content_key) == 64


def test_a_given_mpp_makes_plain_pictures_usable(catalogue: tuple[Path, dict[str, str]]) -> None:
    cohort = take_inventory(catalogue[0] / "plain.png", mpp=0.5)
    assert [(r.state, r.mpp, r.mpp_source) for r in cohort.records] == [("ok", 0.5, "user")]


@pytest.mark.parametrize("mpp", [0, -0.5, 1000])
@pytest.mark.parametrize("name", ["plain.png", "good.tiff"])
def test_an_impossible_mpp_is_unsupported(mpp: float, name: str, catalogue: tuple[Path, dict[str, str]]) -> None:
    (record,) = take_inventory(catalogue[0] / name, mpp=mpp).records
    assert record.state == "unsupported"
    assert f"{mpp:g}" in record.reason


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    for name, seed in (("a", 1), ("b", 2)):
        write_pyramid(tmp_path / f"{name}.tiff", stained(300, 300, seed), mpp=0.5)
    return tmp_path


def states(table: Path) -> dict[str, str]:
    return {r.path: r.state for r in take_inventory(table).records}


def test_a_slide_with_a_damaged_smaller_level_is_unreadable(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tiff", stained(600, 600), mpp=0.5)
    damage_tile(tmp_path / "a.tiff", (0, 0), level=1)
    (record,) = take_inventory(tmp_path / "a.tiff").records
    assert record.state == "unreadable"
    assert "level 1" in record.reason


def test_a_table_that_names_a_missing_slide_keeps_the_row(slides: Path) -> None:
    table = write_csv(slides / "t.csv", [{"path": "a.tiff"}, {"path": "gone.svs"}, {"path": "."}])
    assert states(table) == {"a.tiff": "ok", "gone.svs": "missing", ".": "unsupported"}


@pytest.mark.parametrize(("first", "second"), [("x", "x"), ("Slide", "slide"), ("é", "e\u0301"), ("ß", "SS")])
def test_ids_that_a_file_system_may_confuse_are_duplicates_and_the_rest_goes_on(
    first: str, second: str, slides: Path
) -> None:
    rows = [{"slide": first, "path": "a.tiff"}, {"slide": second, "path": "b.tiff"}, {"slide": "z", "path": "a.tiff"}]
    cohort = take_inventory(write_csv(slides / "t.csv", rows))
    assert sorted(r.state for r in cohort.records) == ["duplicate", "duplicate", "ok"]
    assert "b.tiff" in next(r.reason for r in cohort.records if r.path == "a.tiff" and r.state == "duplicate")


def test_the_same_content_twice_stays_usable_and_shares_a_group(slides: Path) -> None:
    shutil.copy(slides / "a.tiff", slides / "copy.tiff")
    cohort = take_inventory(slides)
    assert cohort.states == {"ok": 3}
    assert cohort.record("copy").twin_of == "a"
    assert any("copy has the same content as a" in note for note in cohort.notes)


@pytest.mark.parametrize(
    "name", ["a b.tiff", "🧬 ä.tiff", "'q\".tiff", "two\nlines.tiff", "-dash.tiff", "50%.tiff", "組" * 80 + ".tiff"]
)
def test_odd_names_are_slides_like_others(name: str, slides: Path, tmp_path: Path) -> None:
    (slides / "a.tiff").rename(slides / name)
    cohort = take_inventory(slides)
    assert cohort.states == {"ok": 2}
    assert Path(name).stem in [r.slide for r in cohort.records]
    cohort.save(tmp_path / "out" / "cohort.parquet")
    assert Cohort.load(tmp_path / "out" / "cohort.parquet") == cohort


def test_a_slash_in_an_id_is_kept_and_quoted_for_files(slides: Path) -> None:
    (record,) = take_inventory(write_csv(slides / "t.csv", [{"slide": "p/1", "path": "a.tiff"}])).records
    assert (record.slide, record.file_name, record.state) == ("p/1", "p%2F1", "ok")


def test_links_pipes_and_loops_end_in_states(slides: Path) -> None:
    (slides / "dead.svs").symlink_to(slides / "nowhere")
    (slides / "loop.svs").symlink_to(slides / "loop.svs")
    os.mkfifo(slides / "pipe.svs")
    (slides / "linked.tiff").symlink_to(slides / "a.tiff")
    assert states(slides) == {
        "a.tiff": "ok", "b.tiff": "ok", "linked.tiff": "ok", "dead.svs": "missing", "loop.svs": "missing",
        "pipe.svs": "unsupported",
    }  # fmt: skip


def test_records_are_in_the_order_of_their_ids_whatever_the_tables(slides: Path) -> None:
    rows = [{"slide": "z", "path": "a.tiff"}, {"slide": "b", "path": "b.tiff"}]
    first = take_inventory(write_csv(slides / "1.csv", rows))
    second = take_inventory(write_csv(slides / "2.csv", rows[::-1]))
    assert [r.slide for r in first.records] == ["b", "z"]
    assert first.records == second.records


def test_the_generated_cohort_is_all_usable(small_cohort: Path) -> None:
    cohort = take_inventory(small_cohort)
    assert cohort.states == {"ok": 4}
    assert cohort.n_patients == 4
    assert cohort.label_columns == ("diagnosis",)
    assert {r.site for r in cohort.records} == {"scanner_a", "scanner_b"}


# --- ready tiles ----------------------------------------------------------------------------------------------------


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for i in range(4):
        path = tmp_path / "set" / ("tumour" if i % 2 else "stroma") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(stained(64, 64, i)))
    return tmp_path / "set"


def test_class_folders_need_an_mpp(classes: Path) -> None:
    assert [r.state for r in take_inventory(classes).records] == ["no_mpp"]
    (record,) = take_inventory(classes, mpp=0.5).records
    assert (record.state, record.width, record.mpp) == ("ok", 64, 0.5)
    assert [r.state for r in take_inventory(classes, mpp=352.8).records] == ["unsupported"]


def test_the_identity_of_a_tile_set_is_the_content_of_its_files(classes: Path) -> None:
    key = take_inventory(classes, mpp=0.5).records[0].content_key
    assert take_inventory(classes, mpp=0.5).records[0].content_key == key
    (classes / "stroma" / "0.png").write_bytes(png(stained(64, 64, 99)))
    assert take_inventory(classes, mpp=0.5).records[0].content_key not in {key, ""}


def test_one_damaged_or_missing_tile_does_not_lose_the_set(classes: Path) -> None:
    (classes / "stroma" / "0.png").write_bytes(b"no picture")
    assert take_inventory(classes, mpp=0.5).states == {"ok": 1}
    rows = [{"path": "set/stroma/2.png", "label": "a"}, {"path": "set/gone.png", "label": "b"}]
    table = write_csv(classes.parent / "t.csv", rows)
    assert take_inventory(table, mpp=0.5, kind="tiles").states == {"ok": 1}
    rows = [{"path": "gone.png", "label": "b"}]
    assert take_inventory(write_csv(table, rows), mpp=0.5, kind="tiles").states == {"missing": 1}


def test_tiles_cut_from_two_places_of_one_picture_are_no_twins(classes: Path) -> None:
    row = {"path": "set/stroma/0.png", "y": 0, "size": 16}
    table = write_csv(classes.parent / "t.csv", [row | {"slide": "core1", "x": 0}, row | {"slide": "core2", "x": 32}])
    assert [r.twin_of for r in take_inventory(table, mpp=0.5).records] == ["", ""]
    table = write_csv(classes.parent / "t.csv", [row | {"slide": "core1", "x": 0}, row | {"slide": "core2", "x": 0}])
    assert [r.twin_of for r in take_inventory(table, mpp=0.5).records] == ["", "core1"]
