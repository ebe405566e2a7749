"""The page of a comparison, from a real one of a few steps."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from histokin.pipeline.comparison.page import comparison_document
from histokin.pipeline.comparison.plan import ComparisonPlan, EntrySpec, TaskSpec
from histokin.pipeline.comparison.running import DOCUMENT, Comparison, compare
from histokin.pipeline.lookups import draw_queries
from histokin.pipeline.stages import TileRequest, tile
from histokin.report import ComparisonDocument, write_comparison
from histokin.slides.generated import GeneratedCohortSpec, generate_cohort
from histokin.workspace import Workspace

SHORT = ("run.steps=2", "run.batch=8", "backbone.name=resnet10t")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Comparison]:
    folder = tmp_path_factory.mktemp("comparison")
    spec = GeneratedCohortSpec(n_patients=6, slides_per_patient=1, size=384, n_scanners=1, seed=5)
    tile(
        generate_cohort(folder / "in", spec), folder / "w", request=TileRequest(tile_px=32, tile_mpp=2.0, stride_px=32)
    )
    entries = (EntrySpec("a"), EntrySpec("b", "byol", at_most=12, against=("a",)))
    plan = ComparisonPlan((TaskSpec(str(folder / "w"), "diagnosis"),), entries, settings=SHORT, seed=3)
    return Workspace.open(folder / "w"), compare(plan, folder / "c", command="histokin compare w --out c")


@pytest.fixture(scope="module")
def document(made: tuple[Workspace, Comparison]) -> ComparisonDocument:
    found = made[1]
    return comparison_document(Workspace.open(found.folder), found.document)


def test_a_comparison_ends_with_its_page(made: tuple[Workspace, Comparison]) -> None:
    found = made[1]
    assert found.page == found.folder / "report" / "index.html"
    html = found.page.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert "histokin compare w --out c" in html


def test_the_page_can_be_written_again_from_the_json_alone(made: tuple[Workspace, Comparison]) -> None:
    found = made[1]
    before = found.page.read_bytes()
    read = json.loads((found.folder / DOCUMENT).read_text(encoding="utf-8"))
    work = Workspace.open(found.folder)
    assert write_comparison(comparison_document(work, read), work.report).read_bytes() == before


def test_figures_are_those_of_the_json(made: tuple[Workspace, Comparison], document: ComparisonDocument) -> None:
    given = made[1].document["tasks"][0]["measures"]
    (task,) = document.tasks
    assert [m.name for m in task.measures] == ["linear probe", "retrieval"]
    assert [m.metrics for m in task.measures] == [["balanced_accuracy", "macro_f1"], ["acc@1", "mmv@5"]]
    for measure, raw in zip(task.measures, given, strict=True):
        rows = {row["name"]: row for row in raw["rows"]}
        assert [row.kind for row in measure.rows] == ["entry"] * 2 + ["floor"] * 4
        for row in measure.rows:
            for metric in measure.metrics:
                figure = rows[row.name]["figures"][metric]
                assert row.values[metric].value == figure["value"]
                assert row.values[metric].low == figure["interval"]["low"]
                assert set(row.minus[metric]) == set(figure["minus"])
                assert measure.chance[metric] == figure["chance"]
    assert set(task.measures[0].rows[0].minus["macro_f1"]) == {"b", "colour", "histogram", "texture", "random"}


def test_entries_say_what_they_learned_from(made: tuple[Workspace, Comparison], document: ComparisonDocument) -> None:
    first, second = document.entries
    assert (first.train, second.train) == (["w"], ["w"])
    assert second.n_tiles == 12
    assert first.n_tiles == made[1].document["tasks"][0]["n_tiles"]
    assert "method: simclr" in first.recipe_text
    assert [step for step, _ in first.losses] == [1.0, 2.0]
    assert "at_most: 12" in document.plan_text


def test_pictures_keep_to_the_exclusion_and_are_right_where_the_class_is_the_query_s(
    document: ComparisonDocument,
) -> None:
    (task,) = document.tasks
    assert 1 <= len(task.lookups) <= 3
    for lookup in task.lookups:
        names = [name for name, _ in lookup.answers]
        assert names[:2] == ["a", "b"]
        assert names[2] in {"colour", "histogram", "texture", "random"}
        for _, hits in lookup.answers:
            assert len(hits) == 5
            for hit in hits:
                assert hit.patient != lookup.query.patient
                assert hit.label
                assert hit.is_right == (hit.label == lookup.query.label)
                assert hit.image[:3] == b"\xff\xd8\xff"


def test_pictures_of_the_floor_that_ranks_best_are_shown(document: ComparisonDocument) -> None:
    (task,) = document.tasks
    floors = {r.name: r.values["mmv@5"].value or 0.0 for r in task.measures[1].rows if r.kind == "floor"}
    assert task.lookups[0].answers[-1][0] == max(floors, key=lambda name: floors[name])


def test_a_workspace_that_is_gone_costs_the_pictures_alone(made: tuple[Workspace, Comparison], tmp_path: Path) -> None:
    found = made[1]
    raw = json.loads(json.dumps(found.document))
    raw["tasks"][0]["task"]["work"] = str(tmp_path / "gone")
    (task,) = comparison_document(Workspace.open(found.folder), raw).tasks
    assert task.lookups == []
    assert task.lookup_note == "No pictures: no workspace here."
    assert task.measures


def test_a_task_that_could_not_be_measured_still_has_its_pictures(made: tuple[Workspace, Comparison]) -> None:
    found = made[1]
    raw = json.loads(json.dumps(found.document))
    raw["tasks"][0] |= {"measures": [], "refusals": ["linear probe: one class."]}
    (task,) = comparison_document(Workspace.open(found.folder), raw).tasks
    assert task.refusals == ["linear probe: one class."]
    assert [name for name, _ in task.lookups[0].answers] == ["a", "b"]


def test_missing_embeddings_cost_the_pictures_alone(made: tuple[Workspace, Comparison], tmp_path: Path) -> None:
    work, found = made
    shutil.copytree(work.root, tmp_path / "w")
    shutil.rmtree(tmp_path / "w" / "embeddings")
    raw = json.loads(json.dumps(found.document))
    raw["tasks"][0]["task"]["work"] = str(tmp_path / "w")
    (task,) = comparison_document(Workspace.open(found.folder), raw).tasks
    assert task.lookup_note.startswith("No pictures: ")


def test_queries_are_drawn_a_class_after_the_other_and_by_the_seed_alone() -> None:
    labels = np.array(["a"] * 50 + ["b"] * 50 + [""] * 50, object)
    queries = draw_queries(labels, 0, is_numeric=False)
    assert len(set(queries)) == 3
    assert {labels[row] for row in queries} == {"a", "b"}
    assert queries == draw_queries(labels, 0, is_numeric=False)
    assert len({tuple(draw_queries(labels, seed, is_numeric=False)) for seed in range(10)}) > 5


def test_of_values_one_query_comes_from_each_third() -> None:
    values = np.array([""] + [str(v) for v in range(9)], object)
    for seed in range(10):
        low, middle, high = (float(values[row]) for row in draw_queries(values, seed, is_numeric=True))
        assert low <= 2 < middle <= 5 < high


@pytest.mark.parametrize("is_numeric", [False, True])
def test_fewer_tiles_than_queries_ask_once_each_and_none_ask_nothing(is_numeric: bool) -> None:
    assert sorted(draw_queries(np.array(["1", "", "2"], object), 0, is_numeric=is_numeric)) == [0, 2]
    assert draw_queries(np.array(["", ""], object), 0, is_numeric=is_numeric) == []
