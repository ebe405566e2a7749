"""Every command through a process of its own: exit code, what it says, what it leaves."""

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from program import histokin, leftovers, modules_after, tree
from worlds import chapter_of

HEAVY = ("torch", "numpy", "pandas", "pydantic", "h5py", "PIL", "cv2", "pyarrow")


def test_run_makes_everything_that_it_promises(finished) -> None:
    assert finished.returncode == 0, finished.stderr
    work = finished.work
    assert len(list(work.glob("thumbnails/*.jpg"))) == 6
    assert len(list(work.glob("masks/*.png"))) == 6
    assert len(list(work.glob("tiles/*/*.parquet"))) == 6
    assert (work / "runs/main/encoder/model.safetensors").exists()
    assert len(list(work.glob("embeddings/*/*"))) == 7  # the encoder, three statistics, three random networks
    assert leftovers(work) == []
    page = (work / "report/index.html").read_text()
    assert "Acc@1" in page or "acc@1" in page
    assert "http://" not in re.sub(r"http://www\.w3\.org/\d+/\w+", "", page)
    assert str(work / "report/index.html").endswith(finished.stdout.split("Report: ")[1].splitlines()[0])


def test_running_again_does_nothing_and_says_the_same(finished) -> None:
    before = tree(finished.work)
    again = histokin(*finished.arguments, cwd=finished.cwd)
    assert again.returncode == 0
    assert tree(finished.work) == before
    assert again.stdout == finished.stdout


def test_every_number_has_interval_chance_prevalence_and_floors(finished) -> None:
    found = json.loads(next(finished.work.glob("evaluation/*/evaluation.json")).read_text())
    chapter = chapter_of(found, "retrieval", "tile")
    measure = chapter["measures"][0]
    rows = {row["name"] for row in measure["rows"]}
    assert {"colour", "histogram", "texture", "random"} < rows
    assert measure["protocol"]["leave_out"] == found["leave_out"] == "patient"
    assert measure["protocol"]["vote"] == "rank"
    assert chapter["counts"]["patients"] == 6
    assert abs(sum(chapter["prevalence"].values()) - 1) < 1e-9
    for row in measure["rows"]:
        for metric, value in row["values"].items():
            assert 0 <= measure["chance"][metric] <= 1
            assert value["low"] <= value["value"] <= value["high"]
    assert "at chance" in chapter["controls"][0]
    assert chapter_of(found, "slides", "slide")["counts"]["queries"] == 6


def test_the_single_stages_give_what_run_gives(finished, tmp_path: Path) -> None:
    table, work = finished.table, tmp_path / "work"
    tiling = ("--tile-px", 64, "--tile-mpp", 1.0, "--stride", 32)
    sets = finished.arguments[finished.arguments.index("--steps") :]
    for arguments in (
        ("tile", table, "--out", "work", *tiling),
        ("pretrain", "work", *sets),
        ("embed", "work"),
        ("evaluate", "work"),
    ):
        done = histokin(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    theirs = tree(finished.work)
    mine = tree(work)
    assert {k: v for k, v in theirs.items() if not k.startswith("report/")} == mine
    done = histokin("report", "work", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (work / "report/index.html").exists()


def test_a_search_for_a_slide_leaves_its_patient_out_and_shows_evidence(finished) -> None:
    done = histokin("search", "work", "--slide", "P01_a", "-k", 3, "--json", cwd=finished.cwd)
    found = json.loads(done.stdout)
    answers = found["answers"]
    assert [a["rank"] for a in answers] == [1, 2, 3]
    assert "P01" not in {a["patient"] for a in answers}
    assert [left["what"] for left in found["searched"]["left_out"]] == ["patient P01, whose the query is"]
    for answer in answers:
        assert sum(pair["share"] for pair in answer["evidence"]) == pytest.approx(1)
    scores = [a["score"] for a in answers]
    assert scores == sorted(scores, reverse=True)


def test_a_search_for_a_tile_agrees_with_a_plain_product(finished) -> None:
    stores = [p for p in finished.work.glob("embeddings/*/*") if not p.name.startswith("floor-")]
    store = next(p for p in stores if "random" not in h5py.File(next(p.glob("*.h5"))).attrs["encoder"])
    vectors, owners = [], []
    for path in sorted(store.glob("*.h5")):
        with h5py.File(path) as file:
            vectors.append(file["features"][:].astype(np.float64))
            owners += [(path.stem, int(i)) for i in file["tile_id"][:]]
    matrix = np.concatenate(vectors)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    query = next(i for i, (slide, _) in enumerate(owners) if slide == "P02_a")
    scores = matrix @ matrix[query]
    scores[[slide == "P02_a" for slide, _ in owners]] = -2
    done = histokin("search", "work", "--slide", "P02_a", "--tile", owners[query][1], "--json", cwd=finished.cwd)
    best = json.loads(done.stdout)["answers"][0]
    assert (best["slide"], best["tile"]) == owners[int(scores.argmax())]
    assert best["score"] == pytest.approx(scores.max(), abs=1e-3)  # vectors are compared as float16


def test_a_slide_from_outside_is_embedded_by_the_run_and_asks_as_from_within(finished, tmp_path: Path) -> None:
    shutil.copytree(finished.work, tmp_path / "work")
    shutil.copy(finished.table.parent / "slides/P04_a.tiff", tmp_path / "new.tiff")
    asked = (("--outside", "new.tiff", "--patient", "P04"), ("--slide", "P04_a"))
    outside, within = (histokin("search", "work", *how, "-k", 3, "--json", cwd=tmp_path) for how in asked)
    assert outside.returncode == 0, outside.stderr
    mine, theirs = (
        [(a["slide"], a["score"], a["evidence"]) for a in json.loads(done.stdout)["answers"]]
        for done in (outside, within)
    )
    assert mine == theirs
    assert len(mine) == 3


def test_an_encoder_for_other_tiles_is_refused_with_both_sides(finished, tmp_path: Path) -> None:
    done = histokin("tile", finished.table, "--out", "work", "--tile-px", 96, cwd=tmp_path)
    assert done.returncode == 0
    encoder = finished.work / "runs/main/encoder"
    done = histokin("embed", "work", "--encoder", encoder, cwd=tmp_path)
    assert done.returncode == 1
    assert "64 px" in done.stderr
    assert "96 px" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "pretrain"),
        (["pretrian"], 2, "Did you mean pretrain"),
        (["run"], 2, "SLIDES"),
        (["run", "nowhere", "--out", "w"], 1, "there is no such file or folder"),
        (["search", "nowhere", "--slide", "a"], 1, "no workspace here"),
        (["report", "nowhere"], 1, "no workspace here"),
        (["--version"], 0, "histokin"),
    ],
)
def test_usage(arguments: list[str], code: int, said: str, tmp_path: Path) -> None:
    done = histokin(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    assert not modules_after("--help", cwd=tmp_path) & set(HEAVY)


def test_info_tile_and_search_never_load_torch(finished, tmp_path: Path) -> None:
    table = str(finished.table)
    assert "torch" not in modules_after("info", table, cwd=tmp_path)
    assert "torch" not in modules_after("tile", table, "--out", "w", "--tile-px", "64", cwd=tmp_path)
    assert "torch" not in modules_after("search", "work", "--slide", "P01_a", cwd=finished.cwd)
    assert "torch" not in modules_after("evaluate", "work", cwd=finished.cwd)


def test_the_snippet_of_the_readme_runs(
    finished, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    import histokin as hk
    from histokin.learn import override, read_recipe
    from histokin.pipeline.stages import TileRequest

    readme = (Path(__file__).parents[2] / "README.md").read_text()
    snippet = readme.split("```python\n")[1].split("```")[0]
    assert len([line for line in snippet.splitlines() if line.strip()]) < 10
    steps = [str(o) for o in finished.arguments if "=" in str(o)]
    spec = hk.RunSpec(
        tiles=TileRequest(tile_px=64, tile_mpp=1.0, stride_px=32),
        recipe=override(read_recipe("simclr"), [*steps, "run.steps=24"]),
    )
    before = hk.run
    monkeypatch.setattr(hk, "run", lambda slides, work: before(finished.table, work, spec), raising=False)  # noqa: ARG005
    shutil.copytree(finished.work, tmp_path / "work")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(snippet, names)
    assert "report: work/report/index.html" in capsys.readouterr().out
    assert names["rows"].features.shape[1] == names["encoder"].dim


def test_the_public_surface_is_complete_and_sorted() -> None:
    import histokin as hk

    assert sorted(hk.__all__) == hk.__all__
    for name in hk.__all__:
        assert getattr(hk, name) is not None
    with pytest.raises(AttributeError, match="it has Cohort"):
        hk.no_such_name  # noqa: B018
