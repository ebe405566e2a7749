"""`histokin index` and `histokin search` through processes of their own: exit codes, what is said, what is left."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from program import histokin, leftovers, modules_after, tree

SLIDES = {f"P0{n}_a" for n in range(1, 7)}


@pytest.fixture(scope="module")
def cwd(finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the finished workspace with an index that was checked."""
    folder = tmp_path_factory.mktemp("searched")
    shutil.copytree(finished.work, folder / "work")
    for arguments in (("index", "build", "work"), ("index", "check", "work", "--strategies", "maxsim,mean")):
        done = histokin(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        (folder / f"{arguments[1]}.txt").write_text(done.stdout)
    return folder


def test_building_and_checking_say_what_was_done_and_what_is_next(cwd: Path) -> None:
    built, checked = (cwd / "build.txt").read_text(), (cwd / "check.txt").read_text()
    assert "tiles of 6 slides; 6 added\nNext: histokin index check work" in built
    assert "slides, leaving out the query's patient: 6 queries of 6 patients" in checked
    for row in ("maxsim", "mean", "mean, colour", "mean, random", "chance"):
        words = row.replace(",", "").split()
        assert any(all(word in line for word in words) for line in checked.splitlines()), row
    assert "cannot be calibrated (6 patients, alpha 0.05)" in checked
    (folder,) = (cwd / "work/index").iterdir()
    assert json.loads((folder / "check.json").read_text())["size"]["slides"] == 6
    assert leftovers(cwd) == []


def test_building_again_changes_nothing(cwd: Path) -> None:
    before = tree(cwd / "work")
    again = histokin("index", "build", "work", "--json", cwd=cwd)
    assert again.returncode == 0
    told = json.loads(again.stdout)
    assert (told["added"], told["replaced"], told["removed"], told["n_slides"]) == ([], [], [], 6)
    assert tree(cwd / "work") == before


def test_info_verifies_and_an_index_with_a_flipped_bit_ends_with_1(cwd: Path, tmp_path: Path) -> None:
    shutil.copytree(cwd / "work", tmp_path / "work")
    said = histokin("index", "info", "work", "--verify", "--json", cwd=tmp_path)
    facts = json.loads(said.stdout)
    assert (facts["slides"], facts["recall"], facts["files"], facts["up to date"]) == (
        6,
        1.0,
        "as they were written",
        "yes",
    )
    path = next((tmp_path / "work/index").glob("*/seg-*/tiles.faiss"))
    broken = bytearray(path.read_bytes())
    broken[-100] ^= 1
    path.write_bytes(bytes(broken))
    done = histokin("index", "info", "work", "--verify", cwd=tmp_path)
    assert done.returncode == 1
    assert "tiles.faiss" in done.stderr
    assert "[search-index-damaged]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_search_writes_page_table_and_outlines_and_says_where(cwd: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = histokin(
        "search", "work", "--slide", "P01_a", "--box", "100,100,150,120", "-k", 4, "--out", out, "--explain", 1, cwd=cwd
    )
    assert done.returncode == 0, done.stderr
    assert "Region asked: 150 x 120 um of P01_a" in done.stdout
    assert "left out: patient P01, whose the query is (1 slide" in done.stdout
    assert "Rank 1 of 4: slide P0" in done.stdout
    assert done.stdout.rstrip().endswith(f"Page: {out / 'index.html'}")
    document = json.loads((out / "search.json").read_text())
    assert (document["format"], document["query"]["box_um"]) == ("search", [150, 120])
    assert "--box 100,100,150,120" in document["command"]
    with (out / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["slide"] for row in rows] == [a["slide"] for a in document["answers"]]
    drawn = {path.stem for path in (out / "qupath").glob("*.geojson")}
    assert drawn == {"P01_a", *(a["slide"] for a in document["answers"])}
    assert "data:image/jpeg" in (out / "index.html").read_text()
    assert leftovers(out) == []


def test_json_is_the_document_with_page_and_explanation(cwd: Path) -> None:
    done = histokin(
        "search", "work", "--slide", "P02_a", "--where", "site=scanner_a", "--where", "diagnosis=carcinoma,benign",
        "--without", "slide=P03_a", "--leave-out", "slide", "--strategy", "mean", "--explain", 1, "--json", cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [a["slide"] for a in found["answers"]] == ["P01_a"]
    assert found["searched"]["keep"] == {"diagnosis": ["benign", "carcinoma"], "site": ["scanner_a"]}
    assert (found["page"], found["searched"]["strategy"], found["level"]) == (None, "mean", "slide")
    assert found["explained"].startswith("Rank 1 of 1: slide P01_a of patient P01, carcinoma")
    assert found["warnings"][0].startswith("Only the query's slide was left out")


def test_a_slide_from_outside_is_embedded_and_a_search_within_loads_no_torch(
    finished, cwd: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "new.tiff"
    shutil.copy(finished.table.parent / "slides/P04_a.tiff", outside)
    done = histokin("search", "work", "--outside", outside, "--patient", "P04", "-k", 3, "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    within = histokin("search", "work", "--slide", "P04_a", "-k", 3, "--json", cwd=cwd)
    mine, theirs = (json.loads(text)["answers"] for text in (done.stdout, within.stdout))
    assert [(a["slide"], a["score"], a["evidence"]) for a in mine] == [
        (a["slide"], a["score"], a["evidence"]) for a in theirs
    ]
    for arguments in (
        ("search", "work", "--slide", "P01_a", "--box", "100,100,150,120", "--out", str(tmp_path / "o")),
        ("index", "build", "work"),
        ("index", "info", "work", "--verify"),
        ("index", "check", "work", "--strategies", "mean"),
    ):
        assert "torch" not in modules_after(*arguments, cwd=cwd), arguments


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--slide", "P09_a"], 1, "there is no slide 'P09_a' among 6"),
        (["--slide", "P01_a", "--box", "5000,0,10,10"], 1, "the box lies outside the slide"),
        (["--slide", "P01_a", "--strategy", "retccl"], 1, "Name their column with --label"),
        (["--slide", "P01_a", "--explain", "9"], 1, "no answer has rank 9. The search has 5 answers"),
        (["--slide", "P01_a", "--where", "stain=HE"], 1, "slides have no column 'stain'"),
        ([], 1, "ask with a slide of the archive or with a file"),
        (["--slide", "P01_a", "--exclude", "patient"], 2, "--exclude"),
        (["--slide", "P01_a", "--box", "1,2,3"], 2, "give 4 numbers"),
        (["--slide", "P01_a", "--where", "organ"], 2, "such as organ=colon,rectum"),
        (["--slide", "P01_a", "--pin", "P02_a"], 2, "SLIDE:NUMBER"),
        (["--slide", "P01_a", "-k", "0"], 2, "-k"),
        (["--leave-out", "site", "--slide", "P01_a"], 2, "'site' is not one of 'patient', 'slide', 'self'"),
    ],
)
def test_what_cannot_be_asked_ends_with_its_code_and_one_sentence(
    cwd: Path,
    arguments: list[str],
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import sys

    from histokin.cli import run

    monkeypatch.chdir(cwd)
    monkeypatch.setattr(sys, "argv", ["histokin", "search", "work", *arguments])
    with pytest.raises(SystemExit) as ended:
        run()
    shown = capsys.readouterr()
    assert ended.value.code == code
    assert said in " ".join(shown.err.split())
    assert shown.out == ""
    assert "Traceback" not in shown.err


def test_what_is_removed_no_longer_answers_until_it_is_built_again(cwd: Path, tmp_path: Path) -> None:
    shutil.copytree(cwd / "work", tmp_path / "work")
    removed = histokin("index", "remove", "work", "P03_a", cwd=tmp_path)
    assert removed.stdout.startswith("1 slides removed, version")
    found = json.loads(histokin("search", "work", "--slide", "P01_a", "--json", cwd=tmp_path).stdout)
    assert {a["slide"] for a in found["answers"]} == SLIDES - {"P01_a", "P03_a"}
    assert "The index does not know of 1 new slides: run `histokin index build`." in found["notes"]
    unknown = histokin("index", "remove", "work", "P03_a", cwd=tmp_path)
    assert unknown.returncode == 1
    assert "Nothing was deleted" in unknown.stderr
    assert "1 added" in histokin("index", "build", "work", cwd=tmp_path).stdout
