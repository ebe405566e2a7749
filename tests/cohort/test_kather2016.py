"""The folder of Kather et al. 2016: sources, regions and classes told from names alone, and by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from PIL import Image
from worlds import stained

from histokin.cli.program import main
from histokin.cohort import leave_out_units
from histokin.cohort.kather2016 import MPP, read_kather2016
from histokin.cohort.sources import list_source
from histokin.pipeline.stages import open_tiling
from histokin.workspace import Workspace

FOLDERS = ("01_TUMOR", "02_STROMA", "08_EMPTY")


def unpacked(root: Path, side: int = 48) -> Path:
    """Three sources times three classes times two tiles, as tif files of two writers."""
    for source in (1, 6, 10):
        for number, folder in enumerate(FOLDERS):
            for i in range(2):
                path = (
                    root
                    / folder
                    / f"{source:X}{number}{i}F_CRC-Prim-HE-{source:02d}_0{i}b.tif_Row_1_Col_{150 * i + 1}.tif"
                )
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = stained(side, side, seed=100 * source + 10 * number + i)
                if i:
                    Image.fromarray(picture).save(path)
                else:
                    tifffile.imwrite(path, picture, photometric="rgb", compression="lzw")
    return root


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "source", "region", "label"),
    [
        ("01_TUMOR/17E8F_CRC-Prim-HE-02_007b.tif_Row_151_Col_301.tif", "CRC-Prim-HE-02", "007b", "tumor"),
        ("02_STROMA/4B46_CRC-Prim-HE-07.tif_Row_301_Col_601.tif", "CRC-Prim-HE-07", "", "stroma"),
        ("06_MUCOSA/10647_CRC-Prim-HE-10c.tif_Row_1_Col_1.tif", "CRC-Prim-HE-10", "c", "mucosa"),
        ("03_COMPLEX/1A3D_CRC-Prim-HE-02_copy.tif_Row_151_Col_301.tif", "CRC-Prim-HE-02", "copy", "complex"),
        ("08_EMPTY/12A_CRC-Prim-HE-06_005.tif_Row_6451_Col_8101.png", "CRC-Prim-HE-06", "005", "empty"),
    ],
)
def test_a_name_tells_source_region_and_class(path: str, source: str, region: str, label: str) -> None:
    found = read_kather2016([Path(path)])
    assert found is not None
    (record,), (tile,), _ = found
    assert (tile.slide, tile.region, tile.labels, tile.path) == (source, region, {"label": label}, path)
    assert (record.slide, record.patient, record.labels, record.given_mpp) == (source, "", {}, 0.495)
    assert (tile.x, tile.y, tile.size, tile.patient) == (-1, -1, 0, "")  # the file is the tile


@pytest.mark.parametrize(
    "path",
    [
        "tumor/17E8F_CRC-Prim-HE-02_007b.tif_Row_151_Col_301.tif",  # no numbered class folder
        "01_TUMOR/deep/17E8F_CRC-Prim-HE-02_007b.tif_Row_151_Col_301.tif",
        "01_TUMOR/17E8F_CRC-Prim-HE-2_007b.tif_Row_151_Col_301.tif",
        "01_TUMOR/CRC-Prim-HE-02_007b.tif_Row_151_Col_301.tif",
        "01_TUMOR/17E8F_CRC-Prim-HE-02_007b.tif",
        "01_TUMOR/17E8F_CRC-Prim-HE-02_007b.tif_Row_151_Col_301.svs",
    ],
)
def test_other_names_are_not_this_data_set(path: str) -> None:
    assert read_kather2016([Path(path)]) is None


# --- the folder -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [None, "tiles"])
def test_a_slide_is_a_source_and_not_the_folder(kind, tmp_path: Path) -> None:
    listing = list_source(unpacked(tmp_path), kind=kind)
    assert listing.kind == "tiles"
    assert [r.slide for r in listing.records] == ["CRC-Prim-HE-01", "CRC-Prim-HE-06", "CRC-Prim-HE-10"]
    assert {r.given_mpp for r in listing.records} == {MPP}
    assert len(listing.tiles) == 18
    (note,) = listing.notes
    assert "18 tiles of 3 source pictures in 3 classes, at 0.495 um a pixel" in note
    assert "patients are not known" in note
    assert {r.given_mpp for r in list_source(tmp_path, kind=kind, mpp=0.5).records} == {0.5}


def test_slides_are_listed_where_slides_are_asked_for(tmp_path: Path) -> None:
    listing = list_source(unpacked(tmp_path), kind="slides")
    assert (listing.kind, len(listing.records), listing.tiles) == ("slides", 18, ())


def test_a_file_without_a_source_stays_visible_and_is_not_used(tmp_path: Path) -> None:
    for name in ("01_TUMOR/mine.tif", "08_EMPTY/mine.tif", "overview.png"):
        (unpacked(tmp_path) / name).write_bytes(b"x")
    listing = list_source(tmp_path)
    odd = [r for r in listing.records if not r.is_usable]
    assert [r.path for r in odd] == ["01_TUMOR/mine.tif", "08_EMPTY/mine.tif", "overview.png"]
    assert len({r.slide for r in odd}) == 3
    assert all(r.state == "unsupported" and "tells no source" in r.reason for r in odd)
    assert len(listing.tiles) == 18


def test_a_folder_of_mostly_other_names_is_read_as_class_folders(tmp_path: Path) -> None:
    unpacked(tmp_path)
    for i in range(18):
        Image.fromarray(stained(48, 48)).save(tmp_path / "01_TUMOR" / f"mine{i}.tif")
    assert [r.slide for r in list_source(tmp_path).records] == [tmp_path.name]
    (tmp_path / "01_TUMOR/mine0.tif").unlink()
    assert "CRC-Prim-HE-01" in [r.slide for r in list_source(tmp_path).records]


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_tile_command_makes_a_table_a_source(tmp_path: Path) -> None:
    folder, work = unpacked(tmp_path / "Kather_texture_2016_image_tiles_5000"), tmp_path / "work"
    done = CliRunner().invoke(main, ["tile", str(folder), "--kind", "tiles", "--out", str(work), "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    sources = ["CRC-Prim-HE-01", "CRC-Prim-HE-06", "CRC-Prim-HE-10"]
    assert said["n_tiles"] == 18
    assert said["slides"] == [{"slide": source, "n_tiles": 6} for source in sources]
    tiling = open_tiling(Workspace.open(work))
    assert tiling.spec.tile_px == 48
    assert tiling.spec.mpp == pytest.approx(MPP)
    for record in tiling.records:
        table = tiling.table(record)
        assert sorted(table.labels("label")) == ["empty"] * 2 + ["stroma"] * 2 + ["tumor"] * 2
        assert set(table.numpy("region")) == {"00b", "01b"}
        assert set(table.numpy("patient")) == {""}
        assert all(record.slide in path for path in table.numpy("path"))
        assert (table.numpy("x") == -1).all()
        assert (table.numpy("w0") == -1).all()
    units = leave_out_units(tiling.cohort)
    assert len(set(units.of_slide.values())) == 3  # a source is left out with its tiles


def test_the_tile_command_names_what_it_left_out(tmp_path: Path) -> None:
    folder, work = unpacked(tmp_path / "tiles"), tmp_path / "work"
    Image.fromarray(stained(48, 48)).save(folder / "01_TUMOR" / "mine.tif")
    damaged = next((folder / "02_STROMA").glob("*HE-06_00b*"))
    damaged.write_bytes(damaged.read_bytes()[:60])
    done = CliRunner().invoke(main, ["tile", str(folder), "--out", str(work), "--json"])
    assert done.exit_code == 3, done.output
    assert json.loads(done.stdout)["n_tiles"] == 17
    assert "01_TUMOR/mine.tif" in done.stderr
    assert "tells no source" in done.stderr
    tiling = open_tiling(Workspace.open(work))
    (reason,) = {r for record in tiling.records for r in tiling.table(record).numpy("reason") if r}
    assert reason == "unreadable"
    assert np.sum([~tiling.table(record).numpy("keep") for record in tiling.records]) == 1
