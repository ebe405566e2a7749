import json
from pathlib import Path

import pytest

from histokin.artefacts import read_lines
from histokin.errors import WorkspaceError
from histokin.workspace import Workspace


def test_a_workspace_is_made_once_and_opened_ever_after(tmp_path: Path) -> None:
    made = Workspace.create(tmp_path / "a" / "work")
    before = made.marker.read_bytes()
    assert Workspace.create(made.root) == Workspace.open(str(made.root)) == made
    assert made.marker.read_bytes() == before
    assert json.loads(before)["name"] == "work"


def test_paths_follow_the_layout_of_the_design(tmp_path: Path) -> None:
    work = Workspace(tmp_path)
    paths = [work.cohort, work.thumbnails, work.masks, work.tiles("S"), work.run("R"), work.embeddings("S", "E"),
             work.evaluation("V"), work.cache, work.report]  # fmt: skip
    assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
        "cohort.parquet", "thumbnails", "masks", "tiles/S", "runs/R", "embeddings/S/E", "evaluation/V", "cache",
        "report",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_refused_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(WorkspaceError, match="not empty and is no workspace"):
        Workspace.create(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_a_kill_before_the_marker_leaves_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".histokin.json.1-0123456789abcdef.tmp.json").write_text("{")
    assert Workspace.create(tmp_path).marker.exists()


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(WorkspaceError, match="a file, not a folder"):
        Workspace.create(tmp_path / "f")
    with pytest.raises(WorkspaceError, match="no workspace here"):
        Workspace.open(tmp_path / "f")


def test_a_folder_without_marker_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="histokin run"):
        Workspace.open(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"format": "histokin-workspace"}', "\udcff"])
def test_a_damaged_marker_is_said_so(text: str, tmp_path: Path) -> None:
    (tmp_path / "histokin.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(WorkspaceError, match="damaged"):
        Workspace.open(tmp_path)


@pytest.mark.parametrize(("kind", "version"), [("histokin-workspace", "2.0"), ("zarr", "1.0"), ("zarr", "x")])
def test_another_format_is_refused_with_both_versions(kind: str, version: str, tmp_path: Path) -> None:
    (tmp_path / "histokin.json").write_text(json.dumps({"format": kind, "format_version": version}))
    with pytest.raises(WorkspaceError, match=rf"{kind} {version}, this program knows histokin-workspace 1\.x"):
        Workspace.open(tmp_path)


def test_a_newer_minor_version_opens(tmp_path: Path) -> None:
    (tmp_path / "histokin.json").write_text('{"format": "histokin-workspace", "format_version": "1.7", "new": 1}')
    assert Workspace.open(tmp_path).root == tmp_path


def test_events_are_logged_with_the_time(tmp_path: Path) -> None:
    work = Workspace.create(tmp_path / "w")
    work.log("tiled", n=3)
    work.log("done")
    lines = read_lines(work.root / "log.jsonl")
    assert [(line["event"], line.get("n")) for line in lines] == [("tiled", 3), ("done", None)]
    assert lines[0]["time"] <= lines[1]["time"]
