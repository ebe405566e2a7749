"""Embeddings of any origin, a table of labels, every protocol: what comes out, and what must not."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from embeddings.foreign_files import places, write_clam, write_torchmil, write_trident
from worlds import chapter_of, tissue_on_glass

from histokin.embeddings import embed_cohort
from histokin.errors import EvaluationError
from histokin.pipeline.evaluation import Assessment, EvaluationSpec, evaluate_embeddings
from histokin.pipeline.floors import STATISTICS
from histokin.pipeline.stages import TileRequest, tile
from histokin.workspace import Workspace

N_PATIENTS, N_TILES, D = 14, 24, 12
CLASSES = ("gland", "stroma", "tumour")
OF_CLASSES = ("retrieval", "class-retrieval", "linear", "knn", "svm", "few-shot", "robustness")


class World:
    """Tiles of `N_PATIENTS` patients, a slide each, of two sites, with signals of class, site and patient."""

    def __init__(self, *, signal: float = 0.7, patient: float = 0.4, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.slides = [f"s{number:02d}" for number in range(N_PATIENTS)]
        self.tissue = np.array([rng.permutation(np.arange(N_TILES) % 3) for _ in self.slides])
        self.grade = np.array([number % 2 for number in range(N_PATIENTS)])
        of_class, of_grade = rng.normal(size=(3, D)), rng.normal(size=(2, D))
        of_site, of_patient = rng.normal(size=(2, D)), rng.normal(size=(N_PATIENTS, 1, D))
        site = np.array([number // 2 % 2 for number in range(N_PATIENTS)])
        self.sites = [f"site {code}" for code in site]
        self.features = (
            signal * (of_class[self.tissue] + 0.5 * of_grade[self.grade][:, None])
            + patient * of_patient
            + 0.3 * of_site[site][:, None]
            + rng.normal(size=(N_PATIENTS, N_TILES, D))
        ).astype(np.float32)

    def clam(self, folder: Path, features: np.ndarray | None = None) -> Path:
        """A store as CLAM writes it."""
        folder.mkdir(parents=True)
        for slide, bag in zip(self.slides, self.features if features is None else features, strict=True):
            write_clam(folder / f"{slide}.h5", bag, places(N_TILES))
        return folder

    def labels(self, path: Path, tissue: np.ndarray | None = None, grade: np.ndarray | None = None) -> Path:
        """A CSV by place: tissue of tiles, grade and purity of slides."""
        tissue, grade = self.tissue if tissue is None else tissue, self.grade if grade is None else grade
        rows = []
        for number, slide in enumerate(self.slides):
            for spot, (x, y) in enumerate(places(N_TILES).tolist()):
                purity = f"{self.features[number, spot, 0]:.3f}"
                kind = CLASSES[tissue[number, spot]]
                rows.append([slide + ".svs", x, y, f"p{number}", self.sites[number], 3.9, kind, grade[number], purity])
        with path.open("w", newline="") as file:
            csv.writer(file).writerows(
                [["slide_id", "x", "y", "case_id", "site", "mpp", "tissue", "grade", "purity"], *rows]
            )
        return path


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def judged(
    stores: Sequence[Path], labels: Path, out: Path, protocols: Sequence[str], label: str = "tissue", **spec: object
) -> Assessment:
    return evaluate_embeddings(
        stores, EvaluationSpec(label=label, protocols=tuple(protocols), **spec), out=out, labels=labels
    )


def headline(found: Assessment, protocol: str, level: str = "tile") -> tuple[dict, float]:
    """The first metric of a chapter's first row, and its chance."""
    measure = chapter_of(found.document, protocol, level)["measures"][0]
    metric = measure["metrics"][0]
    return measure["rows"][0]["values"][metric], measure["chance"][metric]


@pytest.fixture(scope="module")
def everything(world: World, tmp_path_factory: pytest.TempPathFactory) -> Assessment:
    folder = tmp_path_factory.mktemp("evaluating")
    store = world.clam(folder / "uni" / "h5_files")
    return judged([store], world.labels(folder / "labels.csv"), folder / "out", ["all"])


def test_every_protocol_is_carried_out_on_another_tools_files(everything: Assessment) -> None:
    found = {(chapter["protocol"], chapter["level"]) for chapter in everything.document["chapters"]}
    assert {(name, "tile") for name in (*OF_CLASSES, "distance-ratio", "label-free", "leaks")} <= found
    assert everything.document["reference"] == "uni"  # CLAM names no encoder: the folder does
    assert {names for names, _ in everything.document["refusals"]} == {"slides", "ridge"}
    assert any("There are no floors" in note for note in everything.document["notes"])
    for name in OF_CLASSES:
        value, chance = headline(everything, name)
        assert value["low"] > chance, name


def test_what_was_measured_can_be_computed_again_from_the_tables(everything: Assessment) -> None:
    with (everything.folder / "queries-tile.csv").open() as file:
        rows = list(csv.DictReader(file))
    right = np.mean([row["labels"].split("|")[0] == row["label"] for row in rows])
    assert right == pytest.approx(headline(everything, "retrieval")[0]["value"])
    with (everything.folder / "predictions-linear-probe-tile.csv").open() as file:
        said = [(row["truth"], row["predicted"]) for row in csv.DictReader(file)]
    recalls = [np.mean([predicted == truth for truth, predicted in said if truth == name]) for name in CLASSES]
    assert np.mean(recalls) == pytest.approx(headline(everything, "linear")[0]["value"])
    counts = np.array(chapter_of(everything.document, "linear", "tile")["confusions"][0]["counts"])
    assert np.trace(counts) == sum(truth == predicted for truth, predicted in said)


def test_the_page_asks_nobody_and_names_every_chapter(everything: Assessment) -> None:
    page = everything.page.read_text()
    assert 'src="http' not in page
    for chapter in everything.document["chapters"]:
        assert chapter["title"] in page
    assert "Tiles: linear probe of tissue" in everything.text


def test_slides_are_judged_by_what_all_their_tiles_share(world: World, tmp_path: Path) -> None:
    store, labels = world.clam(tmp_path / "uni"), world.labels(tmp_path / "l.csv")
    found = judged([store], labels, tmp_path / "o", ["slides", "linear"], "grade")
    assert chapter_of(found.document, "slides", "slide")["counts"]["queries"] == N_PATIENTS
    assert headline(found, "linear", "slide")[0]["value"] > 0.8


def test_folds_come_out_as_clams_files_and_go_in_again(world: World, tmp_path: Path) -> None:
    store, labels = world.clam(tmp_path / "uni"), world.labels(tmp_path / "l.csv")
    judged([store], labels, tmp_path / "o", ["linear"], "grade")
    assert len(list((tmp_path / "o/splits").glob("splits_*.csv"))) == N_PATIENTS  # one patient left out each
    again = evaluate_embeddings(
        [store],
        EvaluationSpec(label="grade", protocols=("leaks",)),
        out=tmp_path / "again",
        labels=labels,
        splits=tmp_path / "o/splits",
    )
    chapter = chapter_of(again.document, "given-splits", "slide")
    assert chapter["quantities"][0]["name"].endswith(f"over {N_PATIENTS} splits")
    assert headline(again, "given-splits", "slide")[0]["low"] is None  # splits are no sample of patients
    with (tmp_path / "again/predictions-given-splits-slide.csv").open() as file:
        right = [row["truth"] == row["predicted"] for row in csv.DictReader(file)]
    assert np.mean(right) > 0.7


def test_a_split_with_a_patient_in_two_parts_is_refused_by_name(world: World, tmp_path: Path) -> None:
    labels = world.labels(tmp_path / "l.csv")
    labels.write_text(labels.read_text().replace(",p1,", ",p0,"))  # s00 and s01 are of one patient
    (tmp_path / "splits").mkdir()
    rest = world.slides[2:]
    lines = [
        ",train,val,test",
        *(f"{n},{a},,{b}" for n, (a, b) in enumerate(zip(["s00", *rest[:6]], ["s01", *rest[6:]], strict=True))),
    ]
    (tmp_path / "splits/splits_0.csv").write_text("\n".join(lines) + "\n")
    found = evaluate_embeddings(
        [world.clam(tmp_path / "uni")],
        EvaluationSpec(label="grade", protocols=()),
        out=tmp_path / "o",
        labels=labels,
        splits=tmp_path / "splits",
    )
    assert "1 patients have slides in two parts of a split: p0" in dict(found.document["refusals"])["given-splits"]


def test_numbers_are_regressed_and_classes_are_not(world: World, tmp_path: Path) -> None:
    store, labels = world.clam(tmp_path / "uni"), world.labels(tmp_path / "l.csv")
    found = judged([store], labels, tmp_path / "o", ["all", "linear"], "purity")
    protocols = {chapter["protocol"] for chapter in found.document["chapters"]}
    assert "ridge" in protocols
    assert not protocols & set(OF_CLASSES)
    assert headline(found, "ridge")[0]["value"] > 0.9  # it is one of the vectors' own numbers
    (refusal,) = [names for names, why in found.document["refusals"] if "the column purity holds numbers" in why]
    assert set(refusal.split(", ")) == set(OF_CLASSES)  # all says of the rest why not


def test_shuffled_labels_are_at_chance_in_every_protocol(world: World, tmp_path: Path) -> None:
    store, missed = world.clam(tmp_path / "uni"), []
    for seed in (1, 2):
        shuffled = np.random.default_rng(seed).permuted(world.tissue.ravel()).reshape(world.tissue.shape)
        labels = world.labels(tmp_path / f"{seed}.csv", tissue=shuffled)
        found = judged([store], labels, tmp_path / f"o{seed}", OF_CLASSES)
        for name in OF_CLASSES:
            value, chance = headline(found, name)
            assert abs(value["value"] - chance) < 0.12, (name, value, chance)
            if not value["low"] <= chance <= value["high"]:
                missed.append((name, seed))
    assert len(missed) <= 2, missed  # of 14 intervals of 95 %, alike within a shuffle


def test_labels_of_patients_shuffled_over_patients_fall_to_their_null(tmp_path: Path) -> None:
    world, values, nulls = World(patient=1.0), [], []
    store = world.clam(tmp_path / "uni")
    for seed in range(6):
        grade = np.random.default_rng(seed).permutation(world.grade)
        labels = world.labels(tmp_path / f"{seed}.csv", grade=grade)
        found = judged([store], labels, tmp_path / f"o{seed}", ["slides"], "grade")
        chapter = chapter_of(found.document, "slides", "slide")
        values.append(headline(found, "slides", "slide")[0]["value"])
        null = next(q for q in chapter["quantities"] if q["name"].startswith("acc@1 after exchanging"))
        nulls.append(null["values"]["uni"])
    spread = np.std(values, ddof=1) / np.sqrt(len(values))
    assert abs(np.mean(values) - np.mean(nulls)) < 3 * max(spread, 0.05)


def test_a_leak_through_the_own_slide_raises_the_naive_figure_and_not_ours(tmp_path: Path) -> None:
    world = World(signal=0.0, patient=3.0)  # vectors tell the patient and nothing of the grade
    store, labels = world.clam(tmp_path / "uni"), world.labels(tmp_path / "l.csv")
    text = labels.read_text().splitlines()
    grades = [line.split(",") for line in text]
    for cells in grades[1:]:
        cells[6] = "abc"[int(cells[7])]  # every tile carries its patient's label
    labels.write_text("\n".join(",".join(cells) for cells in grades))
    found = judged([store], labels, tmp_path / "o", ["retrieval"])
    naive = next(q for q in chapter_of(found.document, "retrieval", "tile")["quantities"] if q["name"] == "acc@1, self")
    value, chance = headline(found, "retrieval")
    assert naive["values"]["uni"] > 0.95
    assert value["low"] <= chance <= value["high"] or value["value"] < chance


def test_half_precision_changes_no_figure_by_more_than_a_hundredth(world: World, tmp_path: Path) -> None:
    labels, protocols = world.labels(tmp_path / "l.csv"), ("retrieval", "linear", "knn", "distance-ratio", "label-free")
    found = {}
    for dtype in (np.float32, np.float16):
        folder = tmp_path / f"{dtype.__name__}/uni"
        folder.mkdir(parents=True)
        for slide, bag in zip(world.slides, world.features, strict=True):
            write_trident(folder / f"{slide}.h5", bag.astype(dtype))
        found[dtype] = judged(
            [folder], _by_row(labels, tmp_path / "rows.csv"), tmp_path / f"o{dtype.__name__}", protocols
        )
    assert [s["dtype"] for f in found.values() for s in f.document["stores"]] == ["float32", "float16"]
    for protocol in ("retrieval", "linear", "knn"):
        first, second = (headline(f, protocol)[0]["value"] for f in found.values())
        assert first == pytest.approx(second, abs=0.01)


def _by_row(labels: Path, path: Path) -> Path:
    """The same labels by number of the tile: TRIDENT's places differ from the CSV's."""
    with labels.open() as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["slide", "tile_id", "patient", "site", "tissue"])
        writer.writeheader()
        for i, row in enumerate(rows):
            writer.writerow({"slide": row["slide_id"], "tile_id": i % N_TILES, "patient": row["case_id"],
                             "site": row["site"], "tissue": row["tissue"]})  # fmt: skip
    return path


def test_the_order_of_rows_and_of_files_changes_nothing(world: World, tmp_path: Path) -> None:
    labels, protocols = world.labels(tmp_path / "l.csv"), ("retrieval", "linear", "knn", "class-retrieval")
    straight = judged([world.clam(tmp_path / "a/uni")], labels, tmp_path / "o", protocols)
    folder = tmp_path / "b/uni"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for slide, bag in sorted(zip(world.slides, world.features, strict=True), reverse=True):
        order = rng.permutation(N_TILES)
        write_clam(folder / f"{slide}.h5", bag[order], places(N_TILES)[order])
    turned = judged([folder], labels, tmp_path / "t", protocols)
    for protocol in protocols:
        first, second = (chapter_of(f.document, protocol, "tile")["measures"][0]["rows"] for f in (straight, turned))
        for metric, value in first[0]["values"].items():
            assert value["value"] == pytest.approx(second[0]["values"][metric]["value"], abs=1e-9), (protocol, metric)
            assert value["low"] == pytest.approx(second[0]["values"][metric]["low"], abs=1e-9), (protocol, metric)


def test_encoders_on_the_same_tiles_stand_side_by_side(world: World, tmp_path: Path) -> None:
    worse = world.features + 3 * np.random.default_rng(9).normal(size=world.features.shape).astype(np.float32)
    stores = [world.clam(tmp_path / "uni"), world.clam(tmp_path / "noisy", worse)]
    found = judged(stores, world.labels(tmp_path / "l.csv"), tmp_path / "o", ["retrieval", "linear"])
    for protocol in ("retrieval", "linear"):
        rows = chapter_of(found.document, protocol, "tile")["measures"][0]["rows"]
        assert [row["name"] for row in rows] == ["uni", "noisy"]
        (metric, minus), *_ = rows[0]["minus"].items()
        assert minus["noisy"]["low"] > 0, metric
        assert rows[1]["minus"][metric]["uni"]["value"] == pytest.approx(-minus["noisy"]["value"])
    assert [card["name"] for card in found.document["stores"]] == ["uni", "noisy"]


def test_encoders_on_other_tiles_are_compared_by_slides_alone(world: World, tmp_path: Path) -> None:
    other = tmp_path / "coarse"
    other.mkdir()
    for slide, bag in zip(world.slides[:-1], world.features, strict=False):
        write_clam(other / f"{slide}.h5", bag[::2], places(N_TILES)[::2])
    stores = [world.clam(tmp_path / "uni"), other]
    found = judged(stores, world.labels(tmp_path / "l.csv"), tmp_path / "o", ["retrieval", "slides", "linear"], "grade")
    assert {(c["protocol"], c["level"]) for c in found.document["chapters"]} == {
        ("slides", "slide"),
        ("linear", "slide"),
    }
    assert "different tiles of the same slides" in dict(found.document["refusals"])["retrieval"]
    assert any("uni: 1 of 14 slides are not in every store" in note for note in found.document["notes"])


def test_stores_in_another_order_are_brought_into_the_first_ones(world: World, tmp_path: Path) -> None:
    turned = tmp_path / "turned"
    turned.mkdir()
    order = np.random.default_rng(5).permutation(N_TILES)
    for slide, bag in zip(world.slides, world.features, strict=True):
        write_clam(turned / f"{slide}.h5", bag[order], places(N_TILES)[order])
    stores = [world.clam(tmp_path / "uni"), turned]
    found = judged(stores, world.labels(tmp_path / "l.csv"), tmp_path / "o", ["retrieval"])
    first, second = chapter_of(found.document, "retrieval", "tile")["measures"][0]["rows"]
    assert first["values"] == second["values"]


def test_rows_without_places_are_not_taken_for_the_same_tiles(world: World, tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    blind.mkdir()
    for slide, bag in zip(world.slides, world.features, strict=True):
        write_torchmil(blind / f"{slide}.h5", bag[::-1])
    stores = [world.clam(tmp_path / "uni"), blind]
    found = judged(stores, world.labels(tmp_path / "l.csv"), tmp_path / "o", ["retrieval"])
    assert "which tile each row of blind is" in dict(found.document["refusals"])["retrieval"]
    by_slide = judged(stores, world.labels(tmp_path / "l.csv"), tmp_path / "s", ["slides"], "grade")
    assert [row["name"] for row in chapter_of(by_slide.document, "slides", "slide")["measures"][0]["rows"]] == [
        "uni",
        "blind",
    ]


def test_empty_cells_make_no_strangers_of_one_slides_tiles(world: World, tmp_path: Path) -> None:
    store, labels = world.clam(tmp_path / "uni"), world.labels(tmp_path / "l.csv")
    whole = judged([store], labels, tmp_path / "whole", ["retrieval"])
    lines = labels.read_text().splitlines()
    for number in range(1, len(lines)):
        if number % 3:
            cells = lines[number].split(",")
            cells[3] = "NA" if number % 2 else ""
            lines[number] = ",".join(cells)
    labels.write_text("\n".join(lines) + "\n")
    found = judged([store], labels, tmp_path / "o", ["retrieval"])
    assert headline(found, "retrieval") == headline(whole, "retrieval")
    assert found.document["counts"]["patients"] == N_PATIENTS
    mixed = tmp_path / "mixed.csv"
    mixed.write_text("slide,tile_id,patient,tissue\ns00,0,a,gland\ns00,1,b,stroma\ns00,2,,gland\n")
    with pytest.raises(EvaluationError, match="22 tiles of s00 name no patient"):
        judged([store], mixed, tmp_path / "m", ["retrieval"])


def test_a_table_that_is_lost_is_made_again_and_an_outdated_one_removed(world: World, tmp_path: Path) -> None:
    store, labels = world.clam(tmp_path / "uni"), world.labels(tmp_path / "l.csv")
    judged([store], labels, tmp_path / "o", ["retrieval", "knn"])
    (tmp_path / "o/queries-tile.csv").unlink()
    (tmp_path / "o/index.html").unlink()
    judged([store], labels, tmp_path / "o", ["retrieval", "knn"])
    assert (tmp_path / "o/queries-tile.csv").exists()
    assert (tmp_path / "o/index.html").exists()
    judged([store], labels, tmp_path / "o", ["retrieval"], k=(1,))
    assert not list((tmp_path / "o").glob("predictions-*"))
    assert not (tmp_path / "o/chapters/knn-tile.json").exists()


def test_a_store_that_is_named_twice_is_refused(world: World, tmp_path: Path) -> None:
    store = world.clam(tmp_path / "uni")
    with pytest.raises(EvaluationError, match="named twice"):
        judged([store, store], world.labels(tmp_path / "l.csv"), tmp_path / "o", ["retrieval"])


def test_an_evaluation_goes_on_from_finished_chapters_and_repeats_for_nothing(world: World, tmp_path: Path) -> None:
    store, labels = world.clam(tmp_path / "uni"), world.labels(tmp_path / "l.csv")
    whole = judged([store], labels, tmp_path / "whole", ["retrieval", "knn"])
    judged([store], labels, tmp_path / "parts", ["knn"])
    before = (tmp_path / "parts/chapters/knn-tile.json").stat().st_mtime_ns
    parts = judged([store], labels, tmp_path / "parts", ["retrieval", "knn"])
    assert (tmp_path / "parts/chapters/knn-tile.json").stat().st_mtime_ns == before
    files = sorted(path.relative_to(whole.folder) for path in whole.folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(parts.folder) for path in parts.folder.rglob("*") if path.is_file())
    for path in files:
        assert (whole.folder / path).read_bytes() == (parts.folder / path).read_bytes(), path
    stamps = {path: (whole.folder / path).stat().st_mtime_ns for path in files if path.name != "manifest.json"}
    judged([store], labels, tmp_path / "whole", ["retrieval", "knn"])
    assert stamps == {path: (whole.folder / path).stat().st_mtime_ns for path in stamps}


def test_other_labels_make_the_chapters_anew(world: World, tmp_path: Path) -> None:
    store, labels = world.clam(tmp_path / "uni"), world.labels(tmp_path / "l.csv")
    first = headline(judged([store], labels, tmp_path / "o", ["retrieval"]), "retrieval")
    world.labels(tmp_path / "l.csv", tissue=np.roll(world.tissue, 1, axis=1))
    assert headline(judged([store], labels, tmp_path / "o", ["retrieval"]), "retrieval") != first


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"protocols": ("linnear",)}, "no protocol linnear.*linear"),
        ({"label": "stage"}, "no label 'stage'|There are: grade, purity, tissue"),
    ],
)
def test_what_is_not_there_is_named_with_what_is(spec: dict, match: str, world: World, tmp_path: Path) -> None:
    store, labels = world.clam(tmp_path / "uni"), world.labels(tmp_path / "l.csv")
    with pytest.raises(EvaluationError) as raised:
        evaluate_embeddings([store], EvaluationSpec(**spec), out=tmp_path / "o", labels=labels)
    import re

    assert re.search(match, f"{raised.value.what} {raised.value.remedy}")


def test_tables_that_name_other_slides_or_tiles_are_refused(world: World, tmp_path: Path) -> None:
    store = world.clam(tmp_path / "uni")
    for text, match in (
        ("slide,tissue\nother,gland\n", "none of its slides is embedded"),
        ("slide,x,y,tissue\ns00,7,7,gland\n", "none of its 1 rows is an embedded tile"),
        ("slide,tile_id,tissue\ns00,a,gland\n", "line 2: tile_id must be whole numbers"),
        ("slide,tissue\ns00,gland\ns00,stroma\n", "line 3 says something else of s00"),
        ("picture,tissue\ns00,gland\n", "no slide column among"),
    ):
        path = tmp_path / "bad.csv"
        path.write_text(text)
        with pytest.raises(EvaluationError, match=match):
            evaluate_embeddings([store], EvaluationSpec(label="tissue"), out=tmp_path / "o", labels=path)
    with pytest.raises(EvaluationError, match="no workspace to write into"):
        evaluate_embeddings([store])


def test_patients_that_nobody_names_are_said_to_be_unknown(world: World, tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("slide,label\n" + "".join(f"{s},{g}\n" for s, g in zip(world.slides, "ab" * 7, strict=True)))
    found = evaluate_embeddings([world.clam(tmp_path / "uni")], out=tmp_path / "o", labels=path)
    assert any(f"patient of {N_PATIENTS} of {N_PATIENTS} slides is not known" in n for n in found.document["notes"])


def test_without_labels_there_is_quality_and_a_sentence(world: World, tmp_path: Path) -> None:
    found = evaluate_embeddings([world.clam(tmp_path / "uni")], out=tmp_path / "o")
    assert [chapter["protocol"] for chapter in found.document["chapters"]] == ["label-free"]
    assert "neither the slides nor their tiles carry any" in dict(found.document["refusals"])["labels"]


def test_a_vector_that_is_broken_names_its_file(world: World, tmp_path: Path) -> None:
    store = world.clam(tmp_path / "uni")
    with h5py.File(store / "s03.h5", "r+") as file:
        file["features"][2] = 0
    with pytest.raises(Exception, match=r"s03\.h5"):
        evaluate_embeddings([store], out=tmp_path / "o", labels=world.labels(tmp_path / "l.csv"))


def test_a_tile_of_two_patients_is_found_in_a_workspace(tmp_path: Path) -> None:
    rows = ["path,label,patient"]
    for patient in range(4):
        for number in range(4):
            name = f"p{patient}_{number}.png"
            picture = tissue_on_glass(64, 64, (0, 0, 64, 64), seed=10 * patient + number)
            if (patient, number) == (3, 0):  # another patient's tile, saved a little brighter
                picture = np.clip(tissue_on_glass(64, 64, (0, 0, 64, 64), seed=12).astype(int) + 2, 0, 255).astype(
                    np.uint8
                )
            cv2.imwrite(str(tmp_path / name), picture)
            rows.append(f"{name},{'ab'[number % 2]},q{patient}")
    (tmp_path / "tiles.csv").write_text("\n".join(rows))
    tiling = tile(tmp_path / "tiles.csv", tmp_path / "w", request=TileRequest(), mpp=1.0)
    work = Workspace.open(tmp_path / "w")
    embed_cohort(work, tiling, STATISTICS)
    store = work.embeddings(tiling.spec.spec_id, "floor-texture-1")
    found = evaluate_embeddings([store], EvaluationSpec(protocols=("leaks",)), out=tmp_path / "o")
    notes = chapter_of(found.document, "leaks", "tile")["notes"]
    assert any("near" in note and "leaks.csv" in note for note in notes)
    with (tmp_path / "o/leaks.csv").open() as file:
        patients = [row["patient"] for row in csv.DictReader(file) if row["kind"] == "near"]
    assert sorted(patients) == ["q1", "q3"]
    assert json.loads((tmp_path / "o/evaluation.json").read_text())["stores"][0]["writer"] == "histokin"
