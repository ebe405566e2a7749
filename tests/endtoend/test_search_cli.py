"""`histokin index` and `histokin search` as they are typed: exit codes, what is said, what is left."""

import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pipeline.painted import PATIENTS, Painted
from program import histokin, leftovers, modules_after, tree

from histokin.cli import run

Typed = Callable[..., tuple[int, str, str]]
KIN = {"a1", "a2", "a9", "z1"}


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace `work` that has an index; what its two commands said lies beside it."""
    folder = tmp_path_factory.mktemp("searched") / "archive"
    Painted.make(folder)
    for arguments in (("index", "build", "work"), ("index", "check", "work", "--strategies", "maxsim,mean")):
        done = histokin(*arguments, "--encoder", "texture", cwd=folder)
        assert done.returncode == 0, done.stderr
        (folder / f"{arguments[1]}.txt").write_text(done.stdout)
    return folder


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """The program in this process: (exit code, stdout, stderr)."""

    def type_it(folder: Path, *arguments: object) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["histokin", *map(str, arguments), "--encoder", "texture"])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run()
        shown = capsys.readouterr()
        assert "Traceback" not in shown.err
        return int(str(ended.value.code)), shown.out, shown.err

    return type_it


def test_building_and_checking_say_what_was_done_and_what_is_next(cwd: Path) -> None:
    built, checked = (cwd / "build.txt").read_text(), (cwd / "check.txt").read_text()
    assert "504 tiles of 9 slides; 9 added\nNext: histokin index check work" in built
    assert "slides, leaving out the query's patient: 9 queries of 6 patients" in checked
    assert all(f"\n    {row:<10}" in checked for row in ("maxsim", "mean", "chance"))
    assert "cannot be calibrated (6 patients, alpha 0.05)" in checked
    assert json.loads((cwd / "work/index/texture/check.json").read_text())["size"]["slides"] == 9
    assert leftovers(cwd) == []


def test_building_again_changes_nothing(cwd: Path, typed: Typed) -> None:
    before = tree(cwd / "work")
    code, said, _ = typed(cwd, "index", "build", "work", "--json")
    told = json.loads(said)
    assert (code, told["added"], told["replaced"], told["removed"], told["n_slides"]) == (0, [], [], [], 9)
    assert tree(cwd / "work") == before


def test_info_verifies_and_an_index_with_a_flipped_bit_ends_with_1(cwd: Path, tmp_path: Path, typed: Typed) -> None:
    shutil.copytree(cwd / "work", tmp_path / "work")
    facts = json.loads(typed(tmp_path, "index", "info", "work", "--verify", "--json")[1])
    assert (facts["slides"], facts["patients"], facts["columns"]) == (9, 6, "diagnosis, organ, site")
    assert (facts["recall"], facts["files"], facts["up to date"]) == (1.0, "as they were written", "yes")
    (path,) = (tmp_path / "work/index").glob("*/seg-*/tiles.faiss")
    broken = bytearray(path.read_bytes())
    broken[-100] ^= 1
    path.write_bytes(bytes(broken))
    code, said, error = typed(tmp_path, "index", "info", "work", "--verify")
    assert (code, said) == (1, "")
    assert "tiles.faiss" in error
    assert "[search-index-damaged]" in error


def test_a_search_writes_page_table_and_outlines_and_says_where(cwd: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = histokin(
        "search", "work", "--slide", "a1", "--box", "30,40,100,96", "-k", 4, "--out", out, "--explain", 1,
        "--encoder", "texture", cwd=cwd,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Region asked: 100 x 96 um of a1" in done.stdout
    assert "left out: patient pa, whose the query is (4 slides, 224 tiles)" in done.stdout
    assert "Rank 1 of 4: slide b1 at (" in done.stdout
    assert done.stdout.rstrip().endswith(f"Page: {out / 'index.html'}")
    document = json.loads((out / "search.json").read_text())
    assert (document["format"], document["query"]["box_um"]) == ("search", [100, 96])
    assert "histokin search work --slide a1 --box 30,40,100,96" in document["command"]
    with (out / "answers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["slide"] for row in rows] == [a["slide"] for a in document["answers"]]
    drawn = {path.stem for path in (out / "qupath").glob("*.geojson")}
    assert drawn == {"a1", *(a["slide"] for a in document["answers"])}
    assert "data:image/jpeg" in (out / "index.html").read_text()
    assert leftovers(out) == []


def test_json_is_the_document_with_page_and_explanation(cwd: Path, typed: Typed) -> None:
    code, said, _ = typed(
        cwd, "search", "work", "--slide", "c1", "--where", "site=south", "--where", "slide=z1,e1", "--where",
        "slide=f1", "--without", "slide=e1", "--without", "slide=f1", "--leave-out", "slide", "--strategy", "mean",
        "--explain", 1, "--json",
    )  # fmt: skip
    found = json.loads(said)
    assert code == 0
    assert [a["slide"] for a in found["answers"]] == ["z1"]
    assert found["searched"]["keep"] == {"site": ["south"], "slide": ["e1", "f1", "z1"]}
    assert (found["page"], found["searched"]["strategy"], found["level"]) == (None, "mean", "slide")
    assert found["explained"].startswith("Rank 1 of 1: slide z1 of patient pa, tumour, score")
    assert found["warnings"][0].startswith("Only the query's slide was left out")


def test_a_hit_can_be_pinned_by_what_the_answers_call_it(cwd: Path, typed: Typed) -> None:
    plain = json.loads(typed(cwd, "search", "work", "--slide", "a1", "--tile", 5, "-k", 200, "--json")[1])["answers"]
    last = plain[-1]
    pin = f"{last['slide']}:{last['tile']}"
    asked = ("search", "work", "--slide", "a1", "--tile", 5, "-k", 200, "--json", "--pin", pin)
    pinned = json.loads(typed(cwd, *asked)[1])["answers"]
    rank = {(a["slide"], a["tile"]): a["rank"] for a in pinned}
    assert rank[last["slide"], last["tile"]] < last["rank"]


def test_what_is_kept_and_indexed_is_searched_without_torch(cwd: Path, tmp_path: Path) -> None:
    for arguments in (
        ("search", "work", "--slide", "a1", "--box", "30,40,100,96", "--out", str(tmp_path / "o")),
        ("index", "build", "work"),
        ("index", "check", "work", "--strategies", "mean"),
    ):
        assert "torch" not in modules_after(*arguments, "--encoder", "texture", cwd=cwd), arguments


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--slide", "a0"], 1, "there is no slide 'a0' among 9"),
        (["--slide", "a1", "--box", "5000,0,10,10"], 1, "the box lies outside the slide"),
        (["--slide", "a1", "--strategy", "retccl"], 1, "Name their column with --label"),
        (["--slide", "a1", "--explain", "9"], 1, "no answer has rank 9. The search has 5 answers"),
        (["--slide", "a1", "--where", "stain=HE"], 1, "slides have no column 'stain'"),
        ([], 1, "ask with a slide of the archive or with a file"),
        (["--slide", "a1", "--exclude", "patient"], 2, "--exclude"),
        (["--slide", "a1", "--box", "1,2,3"], 2, "give 4 numbers"),
        (["--slide", "a1", "--where", "organ"], 2, "such as organ=colon,rectum"),
        (["--slide", "a1", "--pin", "b1"], 2, "SLIDE:NUMBER"),
        (["--slide", "a1", "-k", "0"], 2, "-k"),
        (["--leave-out", "site", "--slide", "a1"], 2, "'site' is not one of 'patient', 'slide', 'self'"),
    ],
)
def test_what_cannot_be_asked_ends_with_its_code_and_one_sentence(
    cwd: Path, arguments: list[str], code: int, said: str, typed: Typed
) -> None:
    ended, out, error = typed(cwd, "search", "work", *arguments)
    assert (ended, out) == (code, "")
    assert said in " ".join(error.split())


def test_what_is_removed_no_longer_answers_until_it_is_built_again(cwd: Path, tmp_path: Path, typed: Typed) -> None:
    shutil.copytree(cwd / "work", tmp_path / "work")
    assert typed(tmp_path, "index", "remove", "work", "b1")[1].startswith("1 slides removed, version")
    found = json.loads(typed(tmp_path, "search", "work", "--slide", "a1", "--json")[1])
    assert {a["slide"] for a in found["answers"]} == PATIENTS.keys() - KIN - {"b1"}
    assert "The index does not know of 1 new slides: run `histokin index build`." in found["notes"]
    code, _, error = typed(tmp_path, "index", "remove", "work", "b1")
    assert code == 1
    assert "Nothing was deleted" in error
    assert "1 added" in typed(tmp_path, "index", "build", "work")[1]
