"""`histokin mil` through processes of its own: exit codes, what is said, what is left behind, kill and resume."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from mil.test_reading import write
from pipeline.mil_archives import SETTINGS, archive, slides_of, table
from program import histokin, kill_when, leftovers, tree

SMALL = ("--folds", 2, "--seeds", 1, "--epochs", 3, *(word for key in SETTINGS for word in ("--set", key)))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TRIDENT's embeddings, a table of labels, and a run beside them that the program made."""
    root = tmp_path_factory.mktemp("world")
    archive(root / "features_uni_v1", writer="trident")
    table(root / "labels.csv")
    return root


TRAIN = ("mil", "train", "features_uni_v1", "--label", "finding", "--labels", "labels.csv", *SMALL, "--out", "run")


@pytest.fixture(scope="module")
def trained(world: Path) -> tuple[Path, str]:
    done = histokin(*TRAIN, cwd=world)
    assert done.returncode == 0, done.stderr
    return world / "run", done.stdout


def test_train_says_what_it_found_and_keeps_all_that_it_promises(trained: tuple[Path, str]) -> None:
    folder, said = trained
    for word in ("30 slides", "16 patients", "clear 50 %", "chance", "majority *", "mean + logistic *", "Optimistic"):
        assert word in said
    assert f"Page: {Path('run') / 'index.html'}" in said
    assert "Next: histokin mil predict" in said
    for name in ("predictions.csv", "predictions.parquet", "patients.csv", "splits.csv", "mil.json", "manifest.json"):
        assert (folder / name).exists()
    assert (folder / "ensemble" / "ensemble.json").exists()
    assert leftovers(folder) == []
    assert "http://" not in (folder / "index.html").read_text().replace("http://www.w3.org/", "")


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(
    world: Path, trained: tuple[Path, str], tmp_path: Path
) -> None:
    for name in ("features_uni_v1", "labels.csv"):
        (tmp_path / name).symlink_to(world / name)
    second = tmp_path / "run" / "fold-0-1"
    assert kill_when(lambda: any(second.glob("*.safetensors")), *TRAIN, cwd=tmp_path)
    assert not (tmp_path / "run" / "mil.json").exists()
    done = histokin(*TRAIN, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == trained[1]
    assert leftovers(tmp_path / "run") == []
    assert tree(tmp_path / "run") == tree(trained[0])


def test_predictions_are_one_json_object_and_tables(world: Path, trained: tuple[Path, str]) -> None:
    write_new = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    write(world / "wrong", "n0", write_new)
    refused = histokin("mil", "predict", "wrong", "--with", "run", "--out", "refused", cwd=world)
    assert refused.returncode == 1
    assert "the classifiers read uni_v1" in refused.stderr
    assert "these bags are of net" in refused.stderr
    assert "[store-encoder-mismatch]" in refused.stderr
    done = histokin("mil", "predict", "features_uni_v1", "--with", "run", "--out", "told", "--json", cwd=world)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["counts"]["slides"] == 30
    assert "30 of 30 slides" in document["warnings"][0]
    with (world / "told" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["slide"] for row in rows] == slides_of()
    assert {row["was_trained_on"] for row in rows} == {"True"}
    told = {one["slide"]: one["told"]["some"] for one in document["predictions"]}
    assert {row["slide"]: float(row["told_some"]) for row in rows} == pytest.approx(told)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("train", "features_uni_v1"), 2, "Missing option '--label'"),
        (("train", "features_uni_v1", "--label", "grade", "--out", "x"), 1, "no slide has a column 'grade'"),
        ((*TRAIN[1:], "--model", "abmill"), 1, "Did you mean abmil?"),
        ((*TRAIN[1:], "--set", "epoch=3"), 1, "Did you mean epochs?"),
        ((*TRAIN[1:-1], "elsewhere", "--folds", "9"), 1, "too few patients for 9 folds"),
        (("heatmap", "features_uni_v1", "--with", "labels.csv", "--slide", "a", "--out", "x"), 2, "is a file"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    world: Path, arguments: tuple[object, ...], code: int, sentence: str
) -> None:
    done = histokin(*(arguments if arguments[0] == "mil" else ("mil", *arguments)), cwd=world)
    assert done.returncode == code, done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_compare_and_heatmap_write_where_they_are_told(world: Path, trained: tuple[Path, str]) -> None:
    done = histokin(
        *("mil", "compare", "features_uni_v1", "--label", "finding", "--labels", "labels.csv"),
        *("--models", "mean,max", "--folds", 2, "--seeds", 1, "--epochs", 2, "--set", "n_inner=2", "--out", "compared"),
        cwd=world,
    )
    assert done.returncode == 0, done.stderr
    assert "mean - row" in done.stdout
    assert "chosen after looking" in done.stdout
    assert (world / "compared" / "differences.csv").exists()
    done = histokin(
        "mil", "heatmap", "features_uni_v1", "--with", "run", "--slide", "s03", "--out", "maps", "--json", cwd=world
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predictions"][0]["slide"] == "s03"
    assert (world / "maps" / "tiles" / "s03.csv").exists()
