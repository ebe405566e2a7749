"""`histokin evaluate` with queries and database apart, and with the query's region left out."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from embeddings.foreign_files import places
from pipeline.test_evaluating import CLASSES, N_PATIENTS, N_TILES, World
from worlds import MeanColour, chapter_of, tissue_on_glass

from histokin.cli.program import main
from histokin.embeddings import embed_cohort, short_id
from histokin.errors import EvaluationError
from histokin.pipeline.evaluation import Assessment, EvaluationSpec, evaluate_embeddings
from histokin.pipeline.evaluation.sources import find_sources
from histokin.pipeline.evaluation.stage import default_folder
from histokin.pipeline.floors import STATISTICS
from histokin.pipeline.stages import TileRequest, tile
from histokin.workspace import Workspace

Column = Callable[[int, int], object]


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def labels_with(world: World, path: Path, **columns: Column) -> Path:
    """The world's labels by place with further columns, each a function of the slide's and the tile's number."""
    with world.labels(path).open() as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        row.update({name: str(cell(i // N_TILES, i % N_TILES)) for name, cell in columns.items()})
    return written(path, rows)


def written(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def judged(store: Path, labels: Path, out: Path, *protocols: str, label: str = "tissue", **spec: object) -> Assessment:
    return evaluate_embeddings(
        [store], EvaluationSpec(label=label, protocols=protocols, **spec), out=out, labels=labels
    )  # pyright: ignore[reportArgumentType]


def answers(found: Assessment, level: str = "tile") -> list[dict[str, str]]:
    with (found.folder / f"queries-{level}.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_command_asks_one_side_of_every_patient_and_answers_from_the_other(world: World, tmp_path: Path) -> None:
    store = world.clam(tmp_path / "uni")
    labels = labels_with(world, tmp_path / "l.csv", split=lambda _, tile: "test" if tile % 3 else "train")
    asked = ["--queries", "split=test", "--database", "split=train", "--protocol", "retrieval,class-retrieval"]
    done = CliRunner().invoke(
        main,
        ["evaluate", str(store), "--labels", str(labels), "--label", "tissue", *asked, "--out", str(tmp_path / "o")],
    )
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "o/evaluation.json").read_text())
    chapter = chapter_of(document, "retrieval", "tile")
    n_train = N_PATIENTS * N_TILES // 3
    assert (chapter["counts"]["queries"], chapter["counts"]["candidates"]) == (2 * n_train, n_train)
    protocol = chapter["measures"][0]["protocol"]
    assert (protocol["query_database"], protocol["n_database"]) == ("split", n_train)

    x = world.features.reshape(-1, world.features.shape[-1]).astype(float)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    patient, tissue = np.repeat(np.arange(N_PATIENTS), N_TILES), world.tissue.ravel()
    is_test = np.arange(len(x)) % N_TILES % 3 > 0
    scores = np.where(is_test | (patient[:, None] == patient), -np.inf, x @ x.T)
    expected = {i: scores[i].argmax() for i in np.flatnonzero(is_test)}
    with (tmp_path / "o/queries-tile.csv").open() as file:
        found = {int(row["item"]): int(row["ids"].split()[0]) for row in csv.DictReader(file)}
    assert found == expected
    value = chapter["measures"][0]["rows"][0]["values"]["acc@1"]["value"]
    assert value == pytest.approx(np.mean([tissue[i] == tissue[j] for i, j in expected.items()]))
    by_class = chapter_of(document, "class-retrieval", "tile")["measures"][0]["rows"][0]["values"]
    for code, name in enumerate(CLASSES):
        own = [tissue[i] == tissue[j] for i, j in expected.items() if tissue[i] == code]
        assert by_class[name]["value"] == pytest.approx(np.mean(own))
    assert any("at chance, as it must be" in control for control in chapter["controls"])
    assert any("those with split=test ask, those with split=train may answer" in note for note in document["notes"])


def test_slides_are_divided_by_what_all_their_tiles_share_and_halves_stay_outside(world: World, tmp_path: Path) -> None:
    store = world.clam(tmp_path / "uni")

    def split(slide: int, tile: int) -> str:
        return "train" if slide < 8 else "test" if slide < 12 or tile % 2 else "train"

    labels = labels_with(world, tmp_path / "l.csv", split=split)
    found = judged(store, labels, tmp_path / "o", "slides", label="grade", queries="split=test", database="split=train")
    rows = answers(found, "slide")
    assert {row["item"] for row in rows} == {"8", "9", "10", "11"}
    assert {int(item) for row in rows for item in row["ids"].split()} <= set(range(8))
    assert {row["n_allowed"] for row in rows} == {"8"}
    warnings = chapter_of(found.document, "slides", "slide")["measures"][0]["warnings"]
    assert "2 labelled items are neither queries nor database: they took no part." in warnings


def test_a_row_a_slide_divides_its_tiles_and_sites_divide_without_a_column(world: World, tmp_path: Path) -> None:
    rows = [
        {"slide": slide, "patient": slide, "site": site, "tissue": CLASSES[number % 3]}
        for number, (slide, site) in enumerate(zip(world.slides, world.sites, strict=True))
    ]
    labels = written(tmp_path / "l.csv", rows)
    found = judged(world.clam(tmp_path / "uni"), labels, tmp_path / "o", "slides", queries="site=site 1")
    n_asked = world.sites.count("site 1")
    chapter = chapter_of(found.document, "slides", "slide")
    assert (chapter["counts"]["queries"], chapter["counts"]["candidates"]) == (n_asked, N_PATIENTS)
    assert "those with site=site 1 ask, all may answer" in " ".join(found.document["notes"])


def test_a_copy_in_the_querys_own_region_is_found_by_itself_alone(tmp_path: Path) -> None:
    world = World(signal=0.0, patient=0.0)
    world.features[:, 1::2] = world.features[:, ::2] + 1e-3  # copies of the same class, two and two in one region
    world.tissue[:, 1::2] = world.tissue[:, ::2]
    store = world.clam(tmp_path / "uni")
    labels = labels_with(world, tmp_path / "l.csv", region=lambda _, tile: f"r{tile // 6}")
    found = judged(store, labels, tmp_path / "o", "retrieval", "linear", leave_out="region")
    chapter = chapter_of(found.document, "retrieval", "tile")
    measure = chapter["measures"][0]
    naive = next(q for q in chapter["quantities"] if q["name"] == "acc@1, self")["values"]["uni"]
    assert naive == 1.0
    assert abs(measure["rows"][0]["values"]["acc@1"]["value"] - measure["chance"]["acc@1"]) < 0.12
    assert "neighbours may share its slide and patient. Not about new patients." in measure["warnings"][0]
    linear = chapter_of(found.document, "linear", "tile")
    assert linear["measures"][0]["protocol"]["held_out"] == "region"
    assert {line["part"] for line in linear["per_group"]} == {f"{s}/r{n}" for s in world.slides for n in range(4)}
    assert found.document["leave_out"] == "region"


def test_a_workspaces_own_split_and_regions_are_taken_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    rows = []
    for number in range(24):
        patient, spot = number // 6, number % 6
        name = f"{number}.png"
        cv2.imwrite(str(tmp_path / name), tissue_on_glass(64, 64, (0, 0, 64, 64), seed=number))
        rows.append(
            {
                "path": name,
                "slide": f"t{patient}",
                "patient": f"q{patient}",
                "label": "ab"[number % 2],
                "region": f"r{spot // 2}",
                "split": "test" if patient > 1 else "train",
            }
        )
    tiling = tile(written(tmp_path / "tiles.csv", rows), tmp_path / "w", request=TileRequest(), mpp=1.0)
    work = Workspace.open(tmp_path / "w")
    embed_cohort(work, tiling, (*STATISTICS[:1], MeanColour()))
    store = work.embeddings(tiling.spec.spec_id, short_id(MeanColour().fingerprint))

    def carried_out(out: str, labels: Path | None = None) -> Assessment:
        spec = EvaluationSpec(
            protocols=("retrieval",), leave_out="region", queries="split=test", database="split=train", k=(1,)
        )
        return evaluate_embeddings([store], spec, out=tmp_path / out, labels=labels)

    found = answers(carried_out("own"))
    assert {int(row["item"]) for row in found} == set(range(12, 24))
    assert {row["n_allowed"] for row in found} == {"12"}
    table = [{"slide": f"t{p}", "patient": f"q{p}", "split": "train" if p == 3 else "test"} for p in range(4)]
    other = answers(carried_out("other", written(tmp_path / "l.csv", table)))
    assert {int(row["item"]) for row in other} == set(range(18))
    assert {int(i) for row in other for i in row["ids"].split()} <= set(range(18, 24))
    both = EvaluationSpec(protocols=("retrieval",), leave_out="region", k=(1,))
    whole = evaluate_embeddings([store], both, out=tmp_path / "whole")
    assert {row["n_allowed"] for row in answers(whole)} == {"22"}  # all but the two of the region


def test_every_question_has_its_own_folder_and_the_plain_one_keeps_its_name(tmp_path: Path) -> None:
    source = tmp_path / "cohort"
    source.mkdir()
    cv2.imwrite(str(source / "a.png"), tissue_on_glass(64, 64, (0, 0, 64, 64)))
    written(tmp_path / "cohort/tiles.csv", [{"path": "a.png", "label": "x", "slide": "s"}])
    tiling = tile(tmp_path / "cohort/tiles.csv", tmp_path / "w", request=TileRequest(), mpp=1.0)
    embed_cohort(Workspace.open(tmp_path / "w"), tiling, STATISTICS[:1])
    sources = find_sources([Workspace.open(tmp_path / "w").embeddings(tiling.spec.spec_id, "floor-colour-1")])
    names = [
        default_folder(sources, EvaluationSpec(**spec)).name
        for spec in ({}, {"queries": "split=test"}, {"database": "split=test"}, {"queries": "site=A/B"})
    ]
    assert names[0] == "auto-leave-patient-floor-colour-1"
    assert len(set(names)) == 4
    assert all(name.startswith(names[0]) and "/" not in name for name in names)


def test_what_divides_nothing_is_refused_with_what_there_is(world: World, tmp_path: Path) -> None:
    store = world.clam(tmp_path / "uni")
    labels = labels_with(world, tmp_path / "l.csv", split=lambda slide, _: "train" if slide < 9 else "test")

    def refused(**spec: str) -> EvaluationError:
        with pytest.raises(EvaluationError) as raised:
            judged(store, labels, tmp_path / "o", "retrieval", **spec)
        return raised.value

    assert str(refused(queries="split=tset")).endswith("split is test, train. [evaluation]")
    assert "no tile and no slide has a fold" in str(refused(database="fold=1"))
    assert "There are grade, purity, split, tissue; and slide, patient, site" in str(refused(database="fold=1"))
    assert "no tile and no slide has a region" in str(refused(leave_out="region"))
    none = judged(store, labels, tmp_path / "n", "retrieval", queries="split=test", database="patient=p9", k=(1,))
    assert chapter_of(none.document, "retrieval", "tile")["counts"]["candidates"] == N_TILES
    alone = judged(store, labels, tmp_path / "a", "retrieval", queries="patient=p9", database="patient=p9")
    assert "all labelled items belong to one patient (p9)" in dict(alone.document["refusals"])["retrieval"]
    with pytest.raises(ValueError, match="queries and database are COLUMN=VALUE, not 'split'"):
        EvaluationSpec(queries="split")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", ".", "--queries", "split"], "name a column and its value, such as split=test"),
        (["evaluate", ".", "--database", "=train"], "name a column and its value, such as split=test"),
        (["report", ".", "--leave-out", "region"], "'region' is not one of 'patient', 'slide', 'site', 'self'"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_read(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_defaults_ask_all_and_the_spec_is_all_that_is_new(world: World, tmp_path: Path) -> None:
    store = world.clam(tmp_path / "uni")
    found = judged(store, world.labels(tmp_path / "l.csv"), tmp_path / "o", "retrieval", k=(1,))
    chapter = chapter_of(found.document, "retrieval", "tile")
    assert chapter["measures"][0]["protocol"]["query_database"] == "all"
    assert "candidates" not in chapter["counts"]
    assert len(places(N_TILES)) * N_PATIENTS == chapter["counts"]["queries"]
    assert (found.document["more"]["asked"]["queries"], found.document["more"]["asked"]["database"]) == ("", "")
