"""`histokin mil` as a user calls it: exit codes, what is said, what is left behind, kill and resume."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from embeddings.foreign_files import write_trident
from mil.test_reading import write
from pipeline.mil_archives import SETTINGS, archive, slides_of, table
from program import histokin, kill_when, leftovers, tree

from histokin.cli.program import main
from histokin.errors import EvaluationError, HistokinError, RecipeError

N = 16
SMALL = ("--folds", 2, "--seeds", 1, "--epochs", 2, *(word for key in SETTINGS for word in ("--set", key)))
TRAIN = ("mil", "train", "features_uni_v1", "--label", "finding", "--labels", "labels.csv", *SMALL, "--out", "run")


def called(*arguments: object) -> Result:
    """The command in this process, which has loaded everything already."""
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TRIDENT's embeddings and a table of labels."""
    root = tmp_path_factory.mktemp("world")
    archive(root / "features_uni_v1", n=N, writer="trident")
    table(root / "labels.csv", n=N)
    return root


@pytest.fixture(scope="module")
def trained(world: Path) -> tuple[Path, str]:
    """A run that the program made, and what it said."""
    done = histokin(*TRAIN, cwd=world)
    assert done.returncode == 0, done.stderr
    return world / "run", done.stdout


def test_train_says_what_it_found_and_keeps_all_that_it_promises(trained: tuple[Path, str]) -> None:
    folder, said = trained
    for word in ("16 slides", "8 patients", "clear 50 %", "chance", "majority *", "mean + logistic *", "Optimistic"):
        assert word in said
    assert "Page: run/index.html" in said
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


def test_another_encoder_fails_in_one_sentence_that_shows_both(world: Path, trained: tuple[Path, str]) -> None:
    write(world / "wrong", "n0", np.random.default_rng(0).normal(size=(5, 8)))
    refused = histokin("mil", "predict", "wrong", "--with", "run", "--out", "refused", cwd=world)
    assert refused.returncode == 1
    assert "the classifiers read uni_v1" in refused.stderr
    assert "these bags are of net" in refused.stderr
    assert "[store-encoder-mismatch]" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_predictions_are_one_json_object_and_tables(world: Path, trained: tuple[Path, str], tmp_path: Path) -> None:
    done = called(
        "mil", "predict", world / "features_uni_v1", "--with", trained[0], "--out", tmp_path / "told", "--json"
    )
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert document["counts"]["slides"] == N
    assert "16 of 16 slides" in document["warnings"][0]
    with (tmp_path / "told" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["slide"] for row in rows] == slides_of(N)
    assert {row["was_trained_on"] for row in rows} == {"True"}
    told = {one["slide"]: one["told"]["some"] for one in document["predictions"]}
    write_trident(world / "features_uni_v1" / "empty.h5", np.zeros((0, 8), np.float32))
    again = called("mil", "predict", world / "features_uni_v1", "--with", trained[0], "--out", tmp_path / "again")
    assert again.exit_code == 3  # done, but of one slide nothing can be told
    assert "1 slide, such as empty" in again.output
    (world / "features_uni_v1" / "empty.h5").unlink()
    assert {row["slide"]: float(row["told_some"]) for row in rows} == pytest.approx(told)


@pytest.mark.parametrize(
    ("more", "kind", "sentence"),
    [
        (("--label", "grade"), EvaluationError, "no slide has a column 'grade'"),
        (("--label", "finding", "--model", "abmill"), RecipeError, r"Did you mean abmil\?"),
        (("--label", "finding", "--set", "epoch=3"), RecipeError, r"Did you mean epochs\?"),
        (("--label", "finding", "--folds", 9), EvaluationError, "8 patients cannot fill 9 folds"),
        (("--label", "time", "--target", "survival"), RecipeError, "1 columns are named for survival"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    world: Path, tmp_path: Path, more: tuple[object, ...], kind: type[HistokinError], sentence: str
) -> None:
    asked = ["mil", "train", world / "features_uni_v1", "--labels", world / "labels.csv", "--out", tmp_path / "run"]
    with pytest.raises(kind, match=sentence):
        main.main([str(one) for one in (*asked, *more)], standalone_mode=False)
    assert not (tmp_path / "run" / "mil.json").exists()


def test_wrong_usage_is_told_before_anything_is_read() -> None:
    assert called("mil", "train", "nowhere").exit_code == 2
    assert "Missing option '--label'" in called("mil", "train", "nowhere").output
    assert called("mil", "train", "nowhere", "--label", "a", "--name", "a/b").exit_code == 2
    assert called("mil", "compare", "nowhere", "--label", "a", "--models", ",").exit_code == 2


def test_compare_and_heatmap_write_where_they_are_told(world: Path, trained: tuple[Path, str], tmp_path: Path) -> None:
    store, labels = world / "features_uni_v1", world / "labels.csv"
    done = called(
        *("mil", "compare", store, "--label", "finding", "--labels", labels, "--models", "mean,max", "--folds", 2),
        *("--seeds", 1, "--epochs", 2, "--set", "n_inner=2", "--out", tmp_path / "compared"),
    )
    assert done.exit_code == 0, done.output
    assert "mean - row" in done.output
    assert "chosen after looking" in done.output
    assert (tmp_path / "compared" / "differences.csv").exists()
    done = called(
        *("mil", "heatmap", store, "--with", trained[0], "--slide", "s03", "--out", tmp_path / "maps", "--json")
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["predictions"][0]["slide"] == "s03"
    assert (tmp_path / "maps" / "tiles" / "s03.csv").exists()
