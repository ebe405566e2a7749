"""Slide classification from an archive to its page: what is written, that it is right, and what is refused."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from embeddings.foreign_files import write_clam
from mil.mil_worlds import planted
from mil.test_reading import write
from pipeline.mil_archives import CLASSES, SETTINGS, N, archive, patients_of, slides_of, table, workspace
from program import tree
from scipy.stats import spearmanr
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from histokin.errors import EncoderMismatch, EvaluationError, RecipeError, TrainingError
from histokin.pipeline.mil import (
    MilOutcome,
    MilRequest,
    compare_classifiers,
    map_slides,
    predict_archive,
    spec_of,
    train_classifiers,
)
from histokin.workspace import Workspace

SPEC = spec_of("abmil", settings=SETTINGS, n_folds=2, epochs=10, n_seeds=1)
REQUEST = MilRequest("finding", spec=SPEC)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def figure(found: MilOutcome, metric: str, row: str = "abmil", unit: str = "slide") -> dict:
    judged = next(one for one in found.document["judgements"] if one["unit"] == unit)
    return next(one for one in judged["measure"]["rows"] if one["name"] == row)["values"][metric]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of embeddings, a table of labels, and a finished run."""
    root = tmp_path_factory.mktemp("world")
    archive(root / "store")
    table(root / "labels.csv")
    train_classifiers(root / "store", REQUEST, labels=root / "labels.csv", out=root / "run")
    return root


@pytest.fixture(scope="module")
def run(world: Path) -> MilOutcome:
    return train_classifiers(world / "store", REQUEST, labels=world / "labels.csv", out=world / "run")


# ---- train


def test_what_is_told_of_slides_held_out_is_written_and_judged_right(run: MilOutcome) -> None:
    rows = rows_of(run.folder / "predictions.csv")
    assert sorted(row["slide"] for row in rows) == slides_of()
    p = [float(row["told_some"]) for row in rows]
    truth = [row["truth"] == "some" for row in rows]
    assert figure(run, "macro_auc")["value"] == pytest.approx(roc_auc_score(truth, p))
    said = [row["predicted"] == "some" for row in rows]
    assert figure(run, "balanced_accuracy")["value"] == pytest.approx(balanced_accuracy_score(truth, said))
    assert figure(run, "macro_auc")["value"] > 0.8
    by_patient = {who: [float(r["told_some"]) for r in rows if r["patient"] == who] for who in set(patients_of())}
    joined = roc_auc_score([who[1] == "1" for who in by_patient], [np.mean(own) for own in by_patient.values()])
    assert figure(run, "macro_auc", unit="patient")["value"] == pytest.approx(joined)
    assert [row["slide"] for row in pq.read_table(run.folder / "predictions.parquet").to_pylist()] == [
        row["slide"] for row in rows
    ]


def test_every_figure_stands_beside_interval_counts_prevalence_chance_and_floors(run: MilOutcome) -> None:
    document = run.document
    assert document["counts"] == {"slides": N, "patients": 12, "tiles": document["counts"]["tiles"]}
    assert document["prevalence"] == {"clear": 0.5, "some": 0.5}
    for judged in document["judgements"]:
        names = [row["name"] for row in judged["measure"]["rows"]]
        assert names == ["abmil", "majority", "bag size", "mean + logistic", "min-max + logistic", "site"]
        assert judged["measure"]["chance"]["macro_auc"] == 0.5
        assert judged["n_patients"] == 12
    found = figure(run, "macro_auc")
    assert found["low"] < found["value"] <= found["high"]
    assert figure(run, "accuracy", "majority")["value"] == 0.5
    assert any("Optimistic: intervals over 12 patients" in text for text in document["warnings"])
    for word in (
        "24 slides, 12 patients",
        "clear 50 %",
        "chance",
        "majority *",
        "by patient: 12 patients",
        "Optimistic",
    ):
        assert word in run.text
    assert "majority" in run.page.read_text()


def test_no_patient_is_told_by_models_that_saw_a_slide_of_theirs(run: MilOutcome) -> None:
    rows = rows_of(run.folder / "splits.csv")
    for fold in {row["fold"] for row in rows}:
        tested, trained = (
            {row["patient"] for row in rows if row["fold"] == fold and row["part"] == part}
            for part in ("test", "train")
        )
        assert tested
        assert not tested & trained


def test_running_again_reads_what_is_there_and_other_settings_are_refused(world: Path, run: MilOutcome) -> None:
    before = tree(run.folder)
    again = train_classifiers(world / "store", REQUEST, labels=world / "labels.csv", out=world / "run")
    assert again.text == run.text
    assert tree(run.folder) == before
    other = replace(REQUEST, spec=replace(SPEC, epochs=3))
    with pytest.raises(RecipeError, match="the run here has epochs 10, asked is 3"):
        train_classifiers(world / "store", other, labels=world / "labels.csv", out=world / "run")
    assert tree(run.folder) == before


def test_shuffled_labels_are_at_chance(world: Path, tmp_path: Path) -> None:
    labels = table(tmp_path / "shuffled.csv", patients=slides_of(), shuffled=4)
    found = train_classifiers(world / "store", REQUEST, labels=labels, out=tmp_path / "run")
    auc = figure(found, "macro_auc")
    assert auc["low"] < 0.5 < auc["high"]


def test_times_values_and_labels_are_judged_by_their_own_figures(world: Path, tmp_path: Path) -> None:
    spec = replace(SPEC, epochs=2, patience=None, survival="cox", batch=16)
    found = {}
    for label, target in (("score", "regression"), ("time,dead", "survival"), ("has_some,is_odd", "multilabel")):
        request = MilRequest(label, target, spec=spec)  # pyright: ignore[reportArgumentType]
        found[target] = train_classifiers(world / "store", request, labels=world / "labels.csv", out=tmp_path / target)
    rows = rows_of(tmp_path / "regression" / "predictions.csv")
    by_hand = spearmanr([float(row["truth"]) for row in rows], [float(row["told_value"]) for row in rows])[0]
    assert figure(found["regression"], "spearman")["value"] == pytest.approx(by_hand)
    assert figure(found["regression"], "r2", "mean + ridge")["value"] is not None

    rows = rows_of(tmp_path / "survival" / "predictions.csv")
    risk = [float(row["told_risk"]) for row in rows]
    time, dead = ([float(row[f"truth_{name}"]) for row in rows] for name in ("time", "event"))
    pairs = [(i, j) for i in range(N) for j in range(N) if dead[i] and time[i] < time[j]]
    by_hand = np.mean([1.0 if risk[i] > risk[j] else 0.5 * (risk[i] == risk[j]) for i, j in pairs])
    assert figure(found["survival"], "c_index")["value"] == pytest.approx(by_hand)
    assert found["survival"].document["prevalence"] == {"event": pytest.approx(2 / 3)}

    rows = rows_of(tmp_path / "multilabel" / "predictions.csv")
    areas = []
    for name in ("has_some", "is_odd"):
        known = [row for row in rows if row[f"truth_{name}"]]
        truth = [float(row[f"truth_{name}"]) for row in known]
        areas.append(roc_auc_score(truth, [float(row[f"told_{name}"]) for row in known]))
    assert figure(found["multilabel"], "macro_auc")["value"] == pytest.approx(np.mean(areas))


def test_a_run_into_a_folder_of_embeddings_needs_a_place_and_tiles_shared_by_patients_are_refused(
    world: Path, tmp_path: Path
) -> None:
    with pytest.raises(EvaluationError, match=r"no workspace to write into.*--out"):
        train_classifiers(world / "store", REQUEST, labels=world / "labels.csv")
    store = archive(tmp_path / "store")
    bags, _, _ = planted(N, n_tiles=8, shift=4.0)
    write(store, "s23", np.concatenate([bags[23], bags[0][:1]]))
    with pytest.raises(TrainingError, match="hold tiles of the same vector: s00 and s23"):
        train_classifiers(store, REQUEST, labels=world / "labels.csv", out=tmp_path / "run")


# ---- predict


@pytest.fixture(scope="module")
def others(world: Path) -> Path:
    """Slides of new patients, but for the first, which is a trained one's."""
    store, rows = world / "others", []
    bags, truth, _ = planted(12, n_tiles=8, shift=4.0, seed=9)
    for number, (bag, code) in enumerate(zip(bags, truth.tolist(), strict=True)):
        write(store, f"n{number:02d}", bag)
        who = "p0-0" if number == 0 else f"q{number % 2}-{number // 4}"
        rows.append(f"n{number:02d},{who},{CLASSES[code]}")
    write(store, "without", np.zeros((0, 8)))
    (world / "others.csv").write_text("\n".join(["slide,patient,finding", *rows]))
    return store


def test_new_slides_and_patients_are_told_and_judged_without_those_trained_on(
    world: Path, run: MilOutcome, others: Path, tmp_path: Path
) -> None:
    found = predict_archive(others, run.folder, tmp_path / "out", labels=world / "others.csv")
    slides, patients = (rows_of(found.folder / f"{name}.csv") for name in ("predictions", "patients"))
    assert [row["slide"] for row in slides] == [f"n{number:02d}" for number in range(12)]
    assert [row["slide"] for row in slides if row["was_trained_on"] == "True"] == ["n00"]
    for row in patients:
        own = [float(one["told_some"]) for one in slides if one["patient"] == row["patient"]]
        assert float(row["told_some"]) == pytest.approx(np.mean(own))
        assert int(row["n_slides"]) == len(own)
    truth = [number % 2 for number in range(1, 12)]
    by_hand = roc_auc_score(truth, [float(row["told_some"]) for row in slides[1:]])
    assert figure(found, "macro_auc")["value"] == pytest.approx(by_hand)
    assert by_hand > 0.8
    assert found.document["judgements"][0]["n"] == 11
    assert any("Optimistic: 1 of 12 slides" in text for text in found.document["warnings"])
    assert found.left_out == ("without",)
    assert "Without tiles, so that nothing is told: 1 slide, such as without." in found.document["notes"]


def test_a_runs_own_folder_is_kept_from_predictions_and_maps(world: Path, run: MilOutcome) -> None:
    before = tree(run.folder)
    for write_into in (predict_archive, lambda *rest: map_slides(rest[0], rest[1], ["s00"], rest[2])):
        with pytest.raises(RecipeError, match=r"the folder of a run.*another --out"):
            write_into(world / "store", run.folder, run.folder)
    assert tree(run.folder) == before


def test_without_truth_nothing_is_judged_and_that_is_said(run: MilOutcome, others: Path, tmp_path: Path) -> None:
    found = predict_archive(others, run.folder, tmp_path / "out")
    assert found.document["judgements"] == []
    assert any("Nothing was judged" in text for text in found.document["warnings"])
    assert not (found.folder / "patients.csv").exists()  # not one is known


def test_another_encoder_and_a_folder_without_a_run_are_refused(run: MilOutcome, tmp_path: Path) -> None:
    write(tmp_path / "store", "s", np.ones((3, 8)), mark="bb")
    with pytest.raises(EncoderMismatch, match=r"read net sha256:aa.*of net sha256:bb"):
        predict_archive(tmp_path / "store", run.folder, tmp_path / "out")
    assert not (tmp_path / "out" / "predictions.csv").exists()
    with pytest.raises(TrainingError, match="no finished run"):
        predict_archive(tmp_path / "store", tmp_path, tmp_path / "out")


# ---- compare


def test_a_comparison_is_the_single_runs_on_the_same_folds_with_paired_differences(
    world: Path, run: MilOutcome, tmp_path: Path
) -> None:
    others = spec_of("max", settings=["options.hidden=[8]", "lr=0.02", "n_inner=2"], n_folds=2, epochs=3, n_seeds=1)
    specs = [SPEC, others]
    found = compare_classifiers([world / "store"], REQUEST, specs, tmp_path / "out", labels=world / "labels.csv")
    assert figure(found, "macro_auc") == figure(run, "macro_auc")
    assert [one["name"] for one in found.document["classifiers"]] == ["abmil", "max"]
    alone, beside = (rows_of(folder / "predictions.csv") for folder in (run.folder, found.folder / "entries" / "abmil"))
    assert alone == beside
    differences = {
        (row["unit"], row["row"], row["minus"]): row
        for row in rows_of(found.folder / "differences.csv")
        if row["metric"] == "macro_auc"
    }
    value = {row: figure(found, "macro_auc", row)["value"] for row in ("abmil", "max")}
    assert float(differences["slide", "abmil", "max"]["value"]) == pytest.approx(value["abmil"] - value["max"])
    assert float(differences["slide", "max", "abmil"]["value"]) == pytest.approx(value["max"] - value["abmil"])
    assert {other for _, row, other in differences if row == "max"} > {"majority", "bag size", "mean + logistic"}
    figures_ = rows_of(found.folder / "figures.csv")
    assert {row["n_patients"] for row in figures_} == {"12"}
    assert {row["chance"] for row in figures_ if row["metric"] == "macro_auc"} == {"0.5"}


def test_embeddings_of_another_tool_give_the_same_figures_on_the_slides_that_all_have(
    world: Path, tmp_path: Path
) -> None:
    spec = replace(SPEC, epochs=2, patience=None)
    for path in archive(tmp_path / "uni", writer="clam").glob("s0[01].h5"):
        path.unlink()
    stores = [world / "store", tmp_path / "uni"]
    found = compare_classifiers(
        stores, replace(REQUEST, spec=spec), [spec], tmp_path / "out", labels=world / "labels.csv"
    )
    names = ["abmil, net", "abmil, uni"]  # CLAM's files name no encoder: the folder does
    assert [one["name"] for one in found.document["classifiers"]] == names
    assert found.document["counts"]["slides"] == N - 2
    assert "not in every store or without finding: 2 slides" in found.document["notes"][0]
    told = [rows_of(path / "predictions.csv") for path in sorted((found.folder / "entries").iterdir())]
    assert told[0] == told[1]  # the same vectors under two names


def test_two_stores_of_one_name_and_stores_without_a_common_slide_are_refused(world: Path, tmp_path: Path) -> None:
    write(tmp_path / "small", "s00", np.ones((3, 4), np.float32), mark="cc")
    with pytest.raises(EvaluationError, match="two stores are called net"):
        compare_classifiers([world / "store", tmp_path / "small"], REQUEST, [SPEC], tmp_path / "o")
    write_clam(tmp_path / "small" / "t00.h5", np.ones((3, 8)))
    (tmp_path / "small" / "s00.h5").unlink()
    with pytest.raises(EvaluationError, match="the archives share no slide"):
        compare_classifiers([world / "store", tmp_path / "small"], REQUEST, [SPEC], tmp_path / "o")


def test_a_workspace_knows_the_patients_and_labels_of_another_tools_embeddings_of_its_slides(
    painted: tuple[Workspace, MilOutcome], tmp_path: Path
) -> None:
    (tmp_path / "uni").mkdir()
    for number in range(10):  # two of them the workspace does not know
        write_clam(tmp_path / "uni" / f"s{number:02d}.h5", np.random.default_rng(number).normal(size=(6, 5)))
    spec = spec_of("mean", settings=["n_inner=2", "patience=none"], n_folds=2, epochs=1, n_seeds=1)
    request = MilRequest("finding", spec=spec, allow_shared_tiles=True)
    work = painted[0]
    found = compare_classifiers([tmp_path / "uni", work.root], request, [spec], encoders=["histogram"], name="both")
    assert found.folder == work.mil("both")
    assert [one["name"] for one in found.document["classifiers"]] == ["mean, uni", "mean, histogram"]
    assert found.document["counts"]["patients"] == 8
    assert "without finding: 2 slides" in found.document["notes"][0]


# ---- heatmap


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, MilOutcome]:
    """A workspace whose positive slides are purple in one corner, and a run on it."""
    work = workspace(tmp_path_factory.mktemp("painted"))
    spec = spec_of("abmil", settings=SETTINGS, n_folds=2, epochs=12, n_seeds=1)
    return work, train_classifiers(
        work.root, MilRequest("finding", spec=spec, allow_shared_tiles=True), encoder="histogram"
    )


@pytest.fixture(scope="module")
def mapped(painted: tuple[Workspace, MilOutcome], tmp_path_factory: pytest.TempPathFactory) -> MilOutcome:
    work, trained = painted
    return map_slides(work.root, trained.folder, ["s01", "s02"], tmp_path_factory.mktemp("maps"), of="some")


def test_a_slide_is_mapped_by_the_models_that_had_not_seen_it(
    painted: tuple[Workspace, MilOutcome], mapped: MilOutcome
) -> None:
    trained, found = painted[1], mapped
    told = {row["slide"]: row for row in rows_of(trained.folder / "predictions.csv")}
    for one in found.document["predictions"]:
        assert one["fold"] == f"0-{told[one['slide']]['fold']}"
        assert one["told"]["some"] == pytest.approx(float(told[one["slide"]]["told_some"]), abs=1e-6)


def test_maps_tables_objects_and_top_tiles_show_the_planted_corner(mapped: MilOutcome) -> None:
    folder = mapped.folder
    rows = rows_of(folder / "tiles" / "s01.csv")
    is_planted = np.array([32 <= int(r["x"]) + 24 < 160 and 32 <= int(r["y"]) + 24 < 160 for r in rows])
    contribution = np.array([float(row["contrib_1"]) for row in rows])
    assert 0 < is_planted.mean() < 0.3
    assert roc_auc_score(is_planted, contribution) > 0.9
    objects = json.loads((folder / "qupath" / "s01.geojson").read_text())["features"]
    assert len(objects) == len(rows)
    values = [one["properties"]["measurements"]["Contribution to some"] for one in objects]
    assert values == pytest.approx(contribution.tolist(), abs=1e-6)
    sides = {one["geometry"]["coordinates"][0][2][0] - one["geometry"]["coordinates"][0][0][0] for one in objects}
    assert sides == {48}
    for kind in ("percentile", "relative", "contribution"):
        picture = cv2.imread(str(folder / "maps" / f"s01-{kind}.png"))
        assert picture is not None
        assert picture.shape[0] == picture.shape[1]
    top = cv2.imread(str(folder / "top-tiles" / "some-highest.png"))
    lowest = cv2.imread(str(folder / "top-tiles" / "some-lowest.png"))
    assert top is not None
    assert lowest is not None
    green = [float(sheet[:200, :200, 1].mean()) for sheet in (top, lowest)]
    assert green[0] < green[1]  # purple is darker in green than pink


def test_the_page_of_a_workspace_shows_maps_and_top_tiles_and_tests_the_maps(
    painted: tuple[Workspace, MilOutcome],
) -> None:
    _, trained = painted
    assert trained.folder.name == "finding-abmil-histogram"
    (tested,) = trained.document["faithfulness"]
    assert tested["n_slides"] == 8
    assert tested["by"] == "contribution to the logit"
    assert trained.document["contribution_limit"] > 0
    assert trained.page.read_text().count("<img") + trained.page.read_text().count("<image") >= 8


def test_an_unknown_slide_or_class_is_refused_and_a_bare_archive_has_tables_alone(
    painted: tuple[Workspace, MilOutcome], world: Path, run: MilOutcome, tmp_path: Path
) -> None:
    work, trained = painted
    with pytest.raises(EvaluationError, match=r"there is no slide s99.*There are 8: s00"):
        map_slides(work.root, trained.folder, ["s99"], tmp_path)
    with pytest.raises(EvaluationError, match=r"nothing is told of 'cancer'.*There are clear, some"):
        map_slides(work.root, trained.folder, ["s01"], tmp_path, of="cancer")
    found = map_slides(world / "store", run.folder, ["s01"], tmp_path)
    assert len(rows_of(tmp_path / "tiles" / "s01.csv")) > 0
    assert not (tmp_path / "maps").exists()
    assert any("neither pictures nor QuPath objects" in text for text in found.document["notes"])
