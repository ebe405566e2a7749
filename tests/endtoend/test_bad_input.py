"""Each kind of bad input: its own sentence and state, the rest goes on, the exit code tells."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from program import histokin

from histokin.slides.generated import write_pyramid


@pytest.fixture(scope="module")
def mixed(cohort_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with two good slides and one of each kind of trouble."""
    root = tmp_path_factory.mktemp("mixed")
    good = sorted((cohort_table.parent / "slides").glob("*.tiff"))[:2]
    for path in good:
        shutil.copy(path, root / path.name)
    (root / "text.svs").write_text("this is no slide")
    (root / "short.tiff").write_bytes(good[0].read_bytes()[: good[0].stat().st_size // 2])
    rng = np.random.default_rng(0)
    white = np.clip(rng.normal(243, 1.0, (512, 512, 3)), 0, 255).astype(np.uint8)
    write_pyramid(root / "white.tiff", white, mpp=0.5)
    import cv2

    cv2.imwrite(str(root / "plain.png"), rng.integers(0, 255, (300, 300, 3), dtype=np.uint8))
    rows = [
        {"slide": "a", "path": good[0].name, "patient": "p1"},
        {"slide": "b", "path": good[1].name, "patient": "p2"},
        {"slide": "text", "path": "text.svs", "patient": "p3"},
        {"slide": "short", "path": "short.tiff", "patient": "p3"},
        {"slide": "white", "path": "white.tiff", "patient": "p4"},
        {"slide": "plain", "path": "plain.png", "patient": "p5"},
        {"slide": "gone", "path": "gone.svs", "patient": "p6"},
        {"slide": "twice", "path": good[0].name, "patient": "p7"},
        {"slide": "twice", "path": good[1].name, "patient": "p8"},
    ]
    table = root / "cohort.csv"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return table


STATES = {
    "a": "ok",
    "b": "ok",
    "text": "unreadable",
    "short": "unreadable",
    "white": "no_tissue",
    "plain": "no_mpp",
    "gone": "missing",
    "twice": "duplicate",
}


def test_each_trouble_has_its_state_and_the_rest_goes_on(mixed: Path, tmp_path: Path) -> None:
    done = histokin("tile", mixed, "--out", "work", "--tile-px", 64, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    info = histokin("info", "work", "--json", cwd=tmp_path)
    found = {s["slide"]: s for s in json.loads(info.stdout)["slides"]}
    assert {name: s["state"] for name, s in found.items()} == STATES
    reasons = [s["reason"] for s in found.values() if s["state"] != "ok"]
    assert all(reasons)
    assert len(set(reasons)) >= 6
    assert "--mpp" in found["plain"]["reason"]
    assert "truncated" in found["short"]["reason"]
    for name, state in STATES.items():
        if state != "ok":
            assert f"left out: {name} [{state}]" in done.stderr
    assert len(list((tmp_path / "work").glob("tiles/*/*.parquet"))) >= 2


def test_a_whole_run_with_troubled_slides_ends_with_3_and_shows_them(mixed: Path, tmp_path: Path) -> None:
    done = histokin(
        "run", mixed, "--out", "work", "--tile-px", 64, "--stride", 32, "--steps", 3, "--set", "run.batch=8",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    page = (tmp_path / "work/report/index.html").read_text()
    for name in ("text", "short", "white", "plain", "gone", "twice"):
        assert name in page
    assert "truncated" in page


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: (root / "empty").mkdir() or root / "empty", "holds no slide"),
        (lambda root: _write(root / "t.csv", "slide,file_name\na,b\n"), "no path column"),
        (lambda root: _write(root / "t.csv", "slide,path\n"), "no rows"),
        (lambda root: _write(root / "t.csv", "slide,path\na,gone.svs\n"), "none of 1 slides can be used"),
        (lambda root: _write(root / "t.svs", "text"), "none of 1 slides can be used"),
    ],
)
def test_nothing_usable_ends_with_1_and_one_sentence(make, said: str, tmp_path: Path) -> None:
    done = histokin("run", make(tmp_path), "--out", "work", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_folder_that_is_no_workspace_is_not_written_into(cohort_table: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.txt").write_text("mine")
    done = histokin("tile", cohort_table, "--out", "work", cwd=tmp_path)
    assert done.returncode == 1
    assert "not empty and is no workspace" in done.stderr
    assert [p.name for p in (tmp_path / "work").iterdir()] == ["thesis.txt"]


def _write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
