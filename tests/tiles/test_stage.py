import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from program import leftovers, tree
from worlds import bad_slides, damage_tile, glass, png, stained, tissue_on_glass, write_csv

from histokin.cohort import Cohort, take_inventory
from histokin.errors import NoUsableSlide
from histokin.slides.generated import write_pyramid
from histokin.tiles import TileSpec, Tiling, find_tiling, native_spec, open_tiles, tile_cohort
from histokin.tissue import TissueSpec
from histokin.workspace import Workspace

SPEC = TileSpec(32, 2.0)


def tile(source: Path, out: Path, spec: TileSpec = SPEC, **options: object) -> tuple[Workspace, Tiling]:
    work = Workspace.create(out)
    return work, tile_cohort(work, take_inventory(source, **options), spec)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def done(small_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Tiling]:
    return tile(small_cohort, tmp_path_factory.mktemp("w") / "work")


@pytest.fixture
def copy(done: tuple[Workspace, Tiling], tmp_path: Path) -> Workspace:
    shutil.copytree(done[0].root, tmp_path / "work")
    return Workspace(tmp_path / "work")


# --- what it makes --------------------------------------------------------------------------------------------------


def test_every_slide_gets_mask_picture_and_table(done: tuple[Workspace, Tiling]) -> None:
    work, tiling = done
    names = {r.slide for r in tiling.records}
    assert names == {"P01_a", "P02_a", "P03_a", "P04_a"}
    for folder, suffix in ((work.masks, "png"), (work.thumbnails, "jpg"), (tiling.folder, "parquet")):
        assert {p.stem for p in folder.glob(f"*.{suffix}")} == names
    assert tiling.n_tiles == sum(len(tiling.table(r).kept) for r in tiling.records) > 40
    assert leftovers(work.root) == []


def test_tables_carry_patient_and_the_truth_of_the_class_map(
    small_cohort: Path, done: tuple[Workspace, Tiling]
) -> None:
    tiling = done[1]
    names = json.loads((small_cohort.parent / "truth" / "classes.json").read_text())
    for record in tiling.records:
        table = tiling.table(record)
        truth = cv2.imread(str(small_cohort.parent / record.class_map), cv2.IMREAD_GRAYSCALE)
        assert set(table.numpy("patient")) == {record.patient}
        scale = truth.shape[1] / record.width
        for i in table.kept[:10]:
            x, y = (round(table.numpy(axis)[i] * scale) for axis in "xy")
            side = round(table.numpy("w0")[i] * scale)
            values, counts = np.unique(truth[y : y + side, x : x + side], return_counts=True)
            shares = {names[str(v)]: c / side**2 for v, c in zip(values, counts, strict=True) if v}
            best = max(shares.values(), default=0)
            assert table.numpy("label_frac")[i] == pytest.approx(best, abs=0.02)
            assert shares.get(table.numpy("label")[i], 0) == pytest.approx(best, abs=0.02)


def test_the_manifest_lists_what_the_cohort_holds(done: tuple[Workspace, Tiling]) -> None:
    manifest = json.loads((done[1].folder / "manifest.json").read_text())
    assert [entry["key"] for entry in manifest["entries"]] == ["P01_a", "P02_a", "P03_a", "P04_a"]
    assert TileSpec(**manifest["spec"]) == SPEC


def test_what_is_found_again_is_what_was_made(done: tuple[Workspace, Tiling]) -> None:
    work, tiling = done
    found = find_tiling(work, Cohort.load(work.cohort), SPEC)
    assert found == tiling


# --- the laws of resuming -------------------------------------------------------------------------------------------


def stamps(root: Path) -> dict[str, int]:
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.rglob("*") if p.is_file()}


def test_two_workspaces_of_the_same_slides_are_equal_in_bytes(
    small_cohort: Path, done: tuple[Workspace, Tiling], tmp_path: Path
) -> None:
    work, _ = tile(small_cohort, tmp_path / "work")
    assert tree(work.root) == tree(done[0].root)


def test_a_second_run_makes_no_artefact_again(small_cohort: Path, copy: Workspace) -> None:
    before, bytes_before = stamps(copy.root), tree(copy.root)
    tile(small_cohort, copy.root)
    written = {name for name, stamp in stamps(copy.root).items() if before.get(name) != stamp}
    assert written == {"cohort.parquet", f"tiles/{SPEC.spec_id}/manifest.json"}
    assert tree(copy.root) == bytes_before


TABLE = f"tiles/{SPEC.spec_id}/P02_a.parquet"
RECEIPT = f"tiles/{SPEC.spec_id}/.receipts/P02_a.json"


@pytest.mark.parametrize(
    ("target", "harm", "redone"),
    [
        (TABLE, Path.unlink, {TABLE, RECEIPT}),
        (TABLE, lambda p: p.write_bytes(p.read_bytes()[:-1]), {TABLE, RECEIPT}),
        (RECEIPT, lambda p: p.write_bytes(p.read_bytes()[:40]), {TABLE, RECEIPT}),
        (RECEIPT, lambda p: p.write_bytes(b"\xff"), {TABLE, RECEIPT}),
    ],
)
def test_what_is_lost_or_torn_is_made_again_alone(
    target: str, harm: Callable, redone: set[str], small_cohort: Path, copy: Workspace
) -> None:
    whole = tree(copy.root)
    harm(copy.root / target)
    before = stamps(copy.root)
    tile(small_cohort, copy.root)
    written = {name for name, stamp in stamps(copy.root).items() if before.get(name) != stamp}
    assert written - {"cohort.parquet", f"tiles/{SPEC.spec_id}/manifest.json"} == redone
    assert tree(copy.root) == whole


@pytest.mark.parametrize("lost", ["masks/P02_a.png", "thumbnails/P02_a.jpg", "masks/.receipts/P02_a.json"])
def test_a_lost_mask_comes_back_when_its_table_is_made(lost: str, small_cohort: Path, copy: Workspace) -> None:
    whole = tree(copy.root)
    (copy.root / lost).unlink()
    (copy.root / TABLE).unlink()
    tile(small_cohort, copy.root)
    assert tree(copy.root) == whole


def test_another_spec_gets_a_folder_of_its_own_and_reuses_the_masks(small_cohort: Path, copy: Workspace) -> None:
    before = stamps(copy.root)
    _, tiling = tile(small_cohort, copy.root, replace(SPEC, min_tissue=0.9))
    assert tiling.folder != copy.tiles(SPEC.spec_id)
    after = stamps(copy.root)
    assert {n for n in before if n.startswith(("masks", "tiles")) and after[n] != before[n]} == set()


def test_another_tissue_recipe_redoes_masks_and_tables(small_cohort: Path, copy: Workspace) -> None:
    before = stamps(copy.root)
    tile_cohort(copy, take_inventory(small_cohort), SPEC, TissueSpec(min_piece_mm2=0.03))
    after = stamps(copy.root)
    assert all(after[f"masks/P0{i}_a.png"] != before[f"masks/P0{i}_a.png"] for i in (1, 2, 3, 4))
    assert all(
        after[f"tiles/{SPEC.spec_id}/P0{i}_a.parquet"] != before[f"tiles/{SPEC.spec_id}/P0{i}_a.parquet"]
        for i in (1, 4)
    )


def test_new_content_patient_class_map_or_class_names_redo_the_table(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tiff", tissue_on_glass(512, 512, (64, 64, 448, 448)), mpp=0.5)
    values = np.full((64, 64), 1, np.uint8)
    cv2.imwrite(str(tmp_path / "map.png"), values)
    (tmp_path / "classes.json").write_text('{"0": "background", "1": "tumour"}')
    row = {"slide": "a", "path": "a.tiff", "patient": "p", "class_map": "map.png"}

    def label(**changed: str) -> tuple[str, str]:
        _, tiling = tile(write_csv(tmp_path / "t.csv", [row | changed]), tmp_path / "work")
        table = tiling.table(tiling.records[0])
        return table.numpy("label")[0], table.numpy("patient")[0]

    assert label() == ("tumour", "p")
    assert label(patient="q") == ("tumour", "q")
    assert label() == ("tumour", "p")
    (tmp_path / "classes.json").write_text('{"0": "background", "1": "stroma"}')
    assert label() == ("stroma", "p")
    cv2.imwrite(str(tmp_path / "map.png"), values * 0)
    assert label() == ("", "p")
    write_pyramid(tmp_path / "a.tiff", tissue_on_glass(512, 512, (64, 64, 300, 448)), mpp=0.5)
    _, tiling = tile(tmp_path / "t.csv", tmp_path / "work")
    assert tiling.n_tiles < 6 * 6 - 6


@pytest.mark.parametrize(
    ("names", "said"), [(None, "not there"), ("[1]", "no mapping"), ("{", "no mapping"), ('{"a": "b"}', "no mapping")]
)
def test_a_wrong_class_map_costs_the_labels_and_is_said(names: str | None, said: str, tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tiff", tissue_on_glass(512, 512, (64, 64, 448, 448)), mpp=0.5)
    cv2.imwrite(str(tmp_path / "map.png"), np.ones((9, 9), np.uint8))
    if names is not None:
        (tmp_path / "classes.json").write_text(names)
    table = write_csv(tmp_path / "t.csv", [{"path": "a.tiff", "class_map": "map.png"}])
    _, tiling = tile(table, tmp_path / "work")
    assert tiling.n_tiles > 0
    assert not any(tiling.table(tiling.records[0]).numpy("label"))
    assert any(said in note and "no labels" in note for note in tiling.cohort.notes)


# --- bad input ------------------------------------------------------------------------------------------------------


def test_the_catalogue_of_bad_input_comes_to_its_states_and_the_good_slide_is_tiled(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    expected = bad_slides(tmp_path / "in")
    work, tiling = tile(tmp_path / "in", tmp_path / "work")
    cohort = Cohort.load(work.cohort)
    assert {r.slide: r.state for r in cohort.records} == expected
    assert cohort == tiling.cohort
    assert [r.slide for r in tiling.records] == ["good"]
    assert all(r.reason for r in cohort.records if not r.is_usable)
    assert cohort.record("pen").reason == "only pen marks, no tissue"
    assert cohort.record("black").reason == "not a bright-field slide"
    again = tile(tmp_path / "in", tmp_path / "work")[1]
    assert again.cohort.records == tiling.cohort.records


def test_damage_under_the_thumbnail_makes_a_slide_unreadable_and_the_rest_goes_on(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pyramid(tmp_path / f"{name}.tiff", stained(1024, 1024, ord(name)), mpp=0.5, levels=(1,))
    damage_tile(tmp_path / "b.tiff", (1, 1))
    tiling = tile(write_csv(tmp_path / "t.csv", [{"path": "a.tiff"}, {"path": "b.tiff"}]), tmp_path / "work")[1]
    assert {r.slide: r.state for r in tiling.cohort.records} == {"a": "ok", "b": "unreadable"}


def test_a_slide_that_vanishes_after_the_inventory_is_missing(tmp_path: Path) -> None:
    for name in "ab":
        write_pyramid(tmp_path / f"{name}.tiff", stained(600, 600, ord(name)), mpp=0.5)
    cohort = take_inventory(write_csv(tmp_path / "t.csv", [{"path": "a.tiff"}, {"path": "b.tiff"}]))
    (tmp_path / "a.tiff").unlink()
    tiling = tile_cohort(Workspace.create(tmp_path / "work"), cohort, SPEC)
    assert tiling.cohort.states == {"ok": 1, "missing": 1}


def test_a_cohort_without_tissue_says_so_and_keeps_the_states_on_disk(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tiff", glass(300, 300), mpp=0.5)
    with pytest.raises(NoUsableSlide, match="1 no_tissue"):
        tile(tmp_path / "a.tiff", tmp_path / "work")
    assert Cohort.load(tmp_path / "work" / "cohort.parquet").states == {"no_tissue": 1}


def test_tissue_that_no_tile_fits_on_is_said_in_square_millimetres(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tiff", tissue_on_glass(600, 600, (400, 400, 590, 590)), mpp=1.0)
    with pytest.raises(NoUsableSlide, match=r"0\.0\d mm² of tissue, but no tile of 256 px at 2 µm/px"):
        tile(tmp_path / "a.tiff", tmp_path / "work", TileSpec(256, 2.0))


def test_slides_coarser_than_the_tiles_are_noted_once(tmp_path: Path) -> None:
    write_pyramid(tmp_path / "a.tiff", stained(300, 300), mpp=2.0)
    for _ in range(2):
        _, tiling = tile(tmp_path / "a.tiff", tmp_path / "work", TileSpec(32, 1.0))
        assert sum("enlarged" in note for note in tiling.cohort.notes) == 1


def test_odd_ids_are_tiled_and_found_again(tmp_path: Path) -> None:
    ids = ["a/b", "..", "50%", "🧬 x", "'\"", "two\nlines", "-rf", ".hidden", "組" * 120]
    for i, _ in enumerate(ids):
        write_pyramid(tmp_path / f"{i}.tiff", stained(200, 200, i), mpp=1.0)
    table = write_csv(tmp_path / "t.csv", [{"slide": s, "path": f"{i}.tiff"} for i, s in enumerate(ids)])
    work, tiling = tile(table, tmp_path / "work")
    assert tiling.cohort.states == {"ok": len(ids)}
    assert all(len(tiling.table(r).kept) > 0 for r in tiling.records)
    assert {p.parent for p in work.root.rglob("*.parquet")} == {work.root, tiling.folder}
    assert find_tiling(work, Cohort.load(work.cohort), SPEC) == tiling


# --- given tiles ----------------------------------------------------------------------------------------------------


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for i in range(6):
        path = tmp_path / "set" / ("tumour" if i % 2 else "stroma") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(stained(64, 64, i)))
    return tmp_path / "set"


def tile_set(source: Path, out: Path, **options: object) -> tuple[Workspace, Tiling]:
    cohort = take_inventory(source, mpp=0.5, **options)  # type: ignore[arg-type]
    work = Workspace.create(out)
    return work, tile_cohort(work, cohort, native_spec(cohort.tiles, 64, 0.5, None))


def test_class_folders_become_one_table_with_labels(classes: Path, tmp_path: Path) -> None:
    work, tiling = tile_set(classes, tmp_path / "work")
    (record,) = tiling.records
    table = tiling.table(record)
    assert table.labels("label").tolist() == ["stroma"] * 3 + ["tumour"] * 3
    assert tiling.n_tiles == 6
    batches = list(open_tiles(tiling.cohort, record, table, tiling.spec).stream(100))
    assert np.array_equal(batches[0].pixels[0], stained(64, 64, 0))
    assert find_tiling(work, Cohort.load(work.cohort), tiling.spec) == tiling


def test_one_damaged_tile_is_left_out_with_its_reason_and_noted(classes: Path, tmp_path: Path) -> None:
    (classes / "stroma" / "2.png").write_bytes(b"no picture")
    for _ in range(2):
        _, tiling = tile_set(classes, tmp_path / "work")
        table = tiling.table(tiling.records[0])
        assert table.numpy("reason").tolist() == ["", "unreadable", "", "", "", ""]
        assert tiling.n_tiles == 5
        assert "set: 1 of 6 tiles are left out (1 unreadable)" in tiling.cohort.notes


def test_a_set_without_one_sound_tile_is_unreadable(classes: Path, tmp_path: Path) -> None:
    for path in classes.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(NoUsableSlide, match="1 unreadable"):
        tile_set(classes, tmp_path / "work")


def test_a_tile_whose_content_changed_redoes_the_table(classes: Path, tmp_path: Path) -> None:
    first = tile_set(classes, tmp_path / "work")[1].receipts
    (classes / "stroma" / "2.png").write_bytes(png(stained(64, 64, 77)))
    assert tile_set(classes, tmp_path / "work")[1].receipts != first


def test_squares_outside_their_picture_are_left_out_not_padded(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(stained(100, 200)))
    corners = [(0, 0), (168, 68), (169, 68), (168, 69), (-1, 0), (0, -1)]
    rows = [{"slide": "s", "path": "a.png", "x": x, "y": y, "size": 32} for x, y in corners]
    _, tiling = tile_set(write_csv(tmp_path / "t.csv", rows), tmp_path / "work")
    assert tiling.table(tiling.records[0]).numpy("reason").tolist() == ["", ""] + ["outside"] * 4
    assert any("4 of 6 tiles are left out (4 outside)" in note for note in tiling.cohort.notes)


def test_centres_and_corners_cut_the_same_tiles(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(stained(100, 200)))
    pixels = []
    for name, shift, origin in (("t", 0, "top-left"), ("c", 16, "centre")):
        rows = [{"slide": "s", "path": "a.png", "x": x + shift, "y": 9 + shift, "size": 32} for x in (0, 40, 150)]
        _, tiling = tile_set(write_csv(tmp_path / f"{name}.csv", rows), tmp_path / name, origin=origin)
        record = tiling.records[0]
        (batch,) = open_tiles(tiling.cohort, record, tiling.table(record), tiling.spec).stream(9)
        pixels.append(batch.pixels)
    assert np.array_equal(*pixels)
    assert np.array_equal(pixels[0][1], stained(100, 200)[9:41, 40:72])
