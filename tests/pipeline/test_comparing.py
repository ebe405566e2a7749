"""Comparisons: the same tiles, budget and floors for every entry; resumed, varied, and honest about what it saw."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from histokin.cohort.records import NoUsableSlide
from histokin.errors import EvaluationError, HistokinError, RecipeError, TrainingError
from histokin.pipeline.comparison.page import comparison_document
from histokin.pipeline.comparison.plan import ComparisonPlan, EntrySpec, TaskSpec, read_plan, simple_plan
from histokin.pipeline.comparison.running import compare
from histokin.pipeline.stages import TileRequest, open_tiling, tile, with_mpp
from histokin.report import comparison_text
from histokin.slides.generated import GeneratedCohortSpec, generate_cohort
from histokin.workspace import Workspace

SHORT = ("run.steps=3", "run.batch=8", "run.monitor_tiles=16", "views.train_px=32", "precision=fp32")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six slides of six patients, tiled at 1 um."""
    root = tmp_path_factory.mktemp("comparing")
    spec = GeneratedCohortSpec(n_patients=6, slides_per_patient=1, size=640, n_scanners=2, seed=5)
    table = generate_cohort(root / "cohort", spec)
    tile(table, root / "w", request=TileRequest(tile_px=64, tile_mpp=1.0, stride_px=32))
    return root / "w"


def plan_of(world: Path, *entries: EntrySpec, **task: object) -> ComparisonPlan:
    return ComparisonPlan((TaskSpec(str(world), **task),), entries, settings=SHORT)  # pyright: ignore[reportArgumentType] - a test's shorthand


@pytest.fixture(scope="module")
def compared(world: Path, tmp_path_factory: pytest.TempPathFactory):
    plan = plan_of(
        world,
        EntrySpec("simclr"),
        EntrySpec("byol", recipe="byol", against=("simclr",)),
        EntrySpec("half", at_most=40),
        spatial=True,
    )
    out = tmp_path_factory.mktemp("compared")
    return plan, out / "c", compare(plan, out / "c")


def rows_of(task: dict, measure: str) -> dict[str, dict]:
    return {row["name"]: row for m in task["measures"] if m["name"] == measure for row in m["rows"]}


def test_every_entry_meets_every_floor_and_each_other_on_the_same_tiles(compared) -> None:
    task = compared[2].document["tasks"][0]
    for measure, metric in (("linear probe", "balanced_accuracy"), ("retrieval", "acc@1"), ("distance ratio", "addr")):
        rows = rows_of(task, measure)
        assert list(rows) == ["simclr", "byol", "half", "colour", "histogram", "texture", "random"]
        for name in ("simclr", "byol", "half"):
            figure = rows[name]["figures"][metric]
            assert set(figure["minus"]) == set(rows) - {name}
            for other, minus in figure["minus"].items():
                assert minus["value"] == pytest.approx(figure["value"] - rows[other]["figures"][metric]["value"])


def test_differences_of_two_entries_are_opposite(compared) -> None:
    rows = rows_of(compared[2].document["tasks"][0], "retrieval")
    there = rows["simclr"]["figures"]["acc@1"]["minus"]["byol"]
    back = rows["byol"]["figures"]["acc@1"]["minus"]["simclr"]
    assert there["value"] == -back["value"]
    np.testing.assert_allclose(
        [there["interval"]["low"], there["interval"]["high"]], [-back["interval"]["high"], -back["interval"]["low"]]
    )


def test_entries_say_how_they_were_trained(compared) -> None:
    entries = {entry["name"]: entry for entry in compared[2].document["entries"]}
    assert [entry["steps"] for entry in entries.values()] == [3, 3, 3]
    assert entries["byol"]["method"] == "byol"
    assert len(entries["simclr"]["losses"]) == 3
    assert len({entry["fingerprint"] for entry in entries.values()}) == 3


def test_a_repeated_comparison_trains_and_writes_nothing_anew(compared) -> None:
    plan, out, first = compared
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    again = compare(plan, out)
    assert again.document == first.document
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()} == before


def test_the_text_holds_value_and_differences_of_each_entry(compared) -> None:
    text = compared[2].text
    for word in ("balanced_accuracy", "acc@1", "addr", "- random", "- best floor", "texture *", "half"):
        assert word in text


@pytest.mark.slow
def test_pixel_sizes_are_judged_apart_and_leave_the_workspace_as_it_was(world: Path, tmp_path: Path) -> None:
    before = open_tiling(Workspace.open(world)).spec
    plan = plan_of(world, EntrySpec("fine"), EntrySpec("coarse", mpp=1.25))
    found = compare(plan, tmp_path / "c").document
    assert [task["entries"] for task in found["tasks"]] == [["fine"], ["coarse"]]
    assert found["tasks"][1]["n_tiles"] < found["tasks"][0]["n_tiles"]
    assert open_tiling(Workspace.open(world)).spec == before


def test_another_pixel_size_keeps_the_pixels_a_tile_has(world: Path) -> None:
    work = Workspace.open(world)
    coarse = with_mpp(work, open_tiling(work), 2.0)
    assert (coarse.spec.tile_px, coarse.spec.mpp, coarse.spec.stride_px) == (64, 2.0, 32)


def test_what_is_kept_out_is_not_learned_from(world: Path, tmp_path: Path) -> None:
    patients = sorted({record.patient for record in open_tiling(Workspace.open(world)).records})
    plan = plan_of(world, EntrySpec("without", without=(f"patient={patients[0]},{patients[1]}",)), EntrySpec("with"))
    found = compare(plan, tmp_path / "c").document
    assert found["entries"][0]["fingerprint"] != found["entries"][1]["fingerprint"]
    nobody = plan_of(world, EntrySpec("x", without=("patient=nobody",)))
    with pytest.raises(TrainingError, match="no patient called nobody"):
        compare(nobody, tmp_path / "d")


def test_a_label_that_is_not_there_is_an_error_that_names_it(world: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match=r"have a column grade\. *There are|have a column grade"):
        compare(plan_of(world, EntrySpec("simclr"), label="grade"), tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("tasks: []\nentries: [{name: a}]", "at least one task"),
        ("tasks: [{work: w}]\nentries: [{name: a}, {name: a}]", "two entries have one name"),
        ("tasks: [{work: w}]\nentries: [{name: a, against: [b]}]", "`against` names no entry: b"),
        ("tasks: [{work: w, label: a, value: b}]\nentries: [{name: a}]", "a label or a value"),
        ("tasks: [{work: w, nme: b}]\nentries: [{name: a}]", "nme"),
        ("tasks: [{work: w}]\nentries: [{name: texture}]", "'texture': that is a floor"),
        ("tasks: [{work: w}]\nentries: [{name: random 2}]", "'random 2': that is a floor"),
        ("tasks: [{work: w}]\nentries: [{name: ' '}]", "needs a name"),
        ("tasks: [{work: w}]\nentries: [{name: a, at_most: -5}]", "at_most is at least 8, not -5"),
        ("tasks: [{work: w}]\nentries: [{name: a, mpp: 0}]", "mpp is a positive number, not 0"),
        ("tasks: [", "no YAML"),
    ],
)
def test_a_wrong_plan_is_refused_in_a_sentence(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(RecipeError, match=match):
        read_plan(tmp_path / "plan.yaml")


def test_a_plans_folders_are_relative_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("tasks: [{work: a}]\ntrain: [b]\nentries: [{name: x, recipe: mine.yaml}]")
    plan = read_plan(tmp_path / "plan.yaml")
    assert (plan.tasks[0].work, plan.train) == (str(tmp_path / "a"), (str(tmp_path / "b"),))
    assert plan.entries[0].recipe == str(tmp_path / "mine.yaml")


def test_options_make_an_entry_of_everything_that_is_varied() -> None:
    plan = simple_plan(
        ("a", "b"), ("simclr", "byol"), task={}, settings=(), mpps=(1.0, 2.0), counts=(100,), each_cohort=True
    )
    assert len(plan.entries) == 2 * 2 * 1 * 3
    assert plan.entries[0].name == "simclr, 1 mpp, 100 tiles"
    assert plan.entries[1].train == ("a",)


def test_the_document_is_json(compared) -> None:
    content = json.loads((compared[1] / "comparison.json").read_text(encoding="utf-8"))
    assert content["plan"]["entries"][0]["name"] == "simclr"


def test_conditions_and_clusters_must_be_columns_of_the_tiles(world: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="have a column block, grde"):
        compare(plan_of(world, EntrySpec("simclr"), only=("grde=1",), cluster="block"), tmp_path / "c")


def test_texts_are_no_values(world: Path, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="label is no column of numbers"):
        compare(plan_of(world, EntrySpec("simclr"), value="label"), tmp_path / "c")


def test_two_tasks_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="two tasks have one name"):
        ComparisonPlan((TaskSpec("a/w"), TaskSpec("b/w")), (EntrySpec("x"),))
    with pytest.raises(RecipeError, match="two entries have one name"):
        simple_plan(("a",), ("simclr", "simclr"), task={}, settings=())


def test_a_coarse_tiling_beside_the_one_in_use_changes_no_state(world: Path) -> None:
    work = Workspace.open(world)
    before = work.cohort.read_bytes()
    for mpp in (3.5, 6.0):  # tiles of 224 and 384 um find tissue enough on few of these slides, or on none
        with contextlib.suppress(NoUsableSlide):
            with_mpp(work, open_tiling(work), mpp)
    assert work.cohort.read_bytes() == before


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides of each of five patients, all of one site."""
    root = tmp_path_factory.mktemp("pairs")
    spec = GeneratedCohortSpec(n_patients=5, slides_per_patient=2, size=512, n_scanners=1, seed=6)
    tile(
        generate_cohort(root / "cohort", spec), root / "w", request=TileRequest(tile_px=32, tile_mpp=1.25, stride_px=16)
    )
    return root / "w"


def intervals_of(document: dict) -> dict[str, dict]:
    (task,) = document["tasks"]
    return {
        measure["name"]: figure["interval"]
        for measure in task["measures"]
        for figure in [next(iter(measure["rows"][0]["figures"].values()))]
    }


@pytest.mark.slow  # half a minute: 6000 tiles, since pairs of tiles need a fine grid on so small slides
def test_intervals_resample_patients_also_where_slides_are_left_out(pairs: Path, tmp_path: Path) -> None:
    patients = {record.patient for record in open_tiling(Workspace.open(pairs)).records}
    named = plan_of(pairs, EntrySpec("a"), leave_out="slide", label="diagnosis", spatial=True)
    found = intervals_of(compare(named, tmp_path / "c").document)
    assert set(found) == {"linear probe", "retrieval", "distance ratio"}
    assert {(one["cluster"], one["n_clusters"]) for one in found.values()} == {("patient", len(patients))}


@pytest.mark.slow  # as above
def test_a_plan_may_name_what_is_resampled(pairs: Path, tmp_path: Path) -> None:
    n_slides = len(open_tiling(Workspace.open(pairs)).records)
    named = plan_of(pairs, EntrySpec("a"), leave_out="patient", label="diagnosis", spatial=True, cluster="slide")
    found = intervals_of(compare(named, tmp_path / "c").document)
    assert {(one["cluster"], one["n_clusters"]) for one in found.values()} == {("slide", n_slides)}


def test_conditions_hold_for_the_distance_ratio_too(world: Path, tmp_path: Path) -> None:
    plan = plan_of(world, EntrySpec("a"), spatial=True, label="", only=("label=stroma",), name="stroma")
    (task,) = compare(plan, tmp_path / "c").document["tasks"]
    assert 0 < task["n_judged"] < task["n_tiles"]
    ratios = [m for m in task["measures"] if m["name"] == "distance ratio"]
    assert not ratios or ratios[0]["protocol"]["n_slides"] <= 6


def test_entries_that_come_to_the_same_encoder_share_its_vectors(world: Path, tmp_path: Path) -> None:
    plan = plan_of(world, EntrySpec("all"), EntrySpec("more than there are", at_most=10**6))
    rows = rows_of(compare(plan, tmp_path / "c").document["tasks"][0], "linear probe")
    assert rows["all"]["figures"]["balanced_accuracy"]["minus"]["more than there are"]["value"] == 0


def test_labels_that_are_judged_are_not_learned(world: Path, tmp_path: Path) -> None:
    taught = EntrySpec("taught", "supervised", settings=("run.label=label",))
    with pytest.raises(EvaluationError, match=r"taught would learn the labels \(label\) of slides it is judged on"):
        compare(plan_of(world, taught), tmp_path / "c")
    assert not list((tmp_path / "c").rglob("result.json"))


@pytest.mark.slow
def test_it_is_said_who_has_met_the_judged_slides(world: Path, pairs: Path, tmp_path: Path) -> None:
    records = open_tiling(Workspace.open(world)).records
    half = ",".join(record.slide for record in records[:3])
    plan = plan_of(
        world,
        EntrySpec("same"),
        EntrySpec("half", without=(f"slide={half}",)),
        EntrySpec("other", train=(str(pairs),), mpp=1.0),
        label="label",
    )
    found = compare(replace(plan, entries=plan.entries[:2]), tmp_path / "c")
    assert found.document["tasks"][0]["transductive"] == {"same": 1.0, "half": 0.5}
    assert "Transductive, that is trained, without these labels, on slides that are judged: same; half (50 %" in (
        found.text
    )
    alone = compare(replace(plan, entries=plan.entries[2:]), tmp_path / "d")
    assert alone.document["tasks"][0]["transductive"] == {"other": 0.0}
    assert "No entry met the judged slides in training." in alone.text
    assert "No entry met the judged slides in training." in alone.page.read_text(encoding="utf-8")


def test_what_cannot_be_judged_is_refused_before_training(world: Path, pairs: Path, tmp_path: Path) -> None:
    for plan, said in (
        (plan_of(world, EntrySpec("x", train=(str(pairs),))), "x learns at 1.25 um a pixel, and would be judged at 1"),
        (plan_of(pairs, EntrySpec("x"), leave_out="site"), "all tiles belong to one site|have no site"),
        (plan_of(world, EntrySpec("x", settings=("loss.tmperature=1",))), "there is no key 'loss.tmperature'"),
    ):
        with pytest.raises(HistokinError, match=said):
            compare(plan, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_figure_that_is_undefined_is_a_dash(compared) -> None:
    document = json.loads(json.dumps(compared[2].document))
    for row in document["tasks"][0]["measures"][0]["rows"]:
        row["figures"]["balanced_accuracy"]["value"] = None
    text = comparison_text(comparison_document(Workspace.open(compared[1]), document))
    assert "- best floor\n" not in text
    assert any(line.split()[:2] == ["simclr", "–"] for line in text.splitlines())
