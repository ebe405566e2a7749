"""What the stages ask of tiles, and what they leave out."""

from pathlib import Path

import numpy as np
import pytest
from worlds import chapter_of

from histokin.cohort import take_inventory
from histokin.embeddings import EmbeddingStore, embed_cohort
from histokin.errors import EvaluationError, StoreError, WorkspaceError
from histokin.pipeline.evaluation import EvaluationSpec, evaluate_workspace
from histokin.pipeline.floors import STATISTICS
from histokin.pipeline.gathering import gather, tile_labels
from histokin.pipeline.packing import pack_cohort
from histokin.pipeline.pictures import choose_examples, tile_pictures
from histokin.pipeline.stages import TileRequest, open_tiling, pretrain, tile
from histokin.slides.generated import GeneratedCohortSpec, generate_cohort
from histokin.tiles import Tiling
from histokin.workspace import Workspace

REQUEST = TileRequest(tile_px=64, tile_mpp=1.0, stride_px=32)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = GeneratedCohortSpec(n_patients=6, slides_per_patient=1, size=640, n_scanners=1, seed=5)
    return generate_cohort(tmp_path_factory.mktemp("stages"), spec)


@pytest.fixture(scope="module")
def tiled(table: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, Tiling]:
    out = tmp_path_factory.mktemp("work") / "w"
    tiling = tile(table, out, request=REQUEST)
    work = Workspace.open(out)
    embed_cohort(work, tiling, STATISTICS)
    return work, tiling


def _store(work: Workspace, tiling: Tiling, name: str) -> Path:
    return work.embeddings(tiling.spec.spec_id, f"floor-{name}-1")


def test_ready_tiles_keep_their_own_size_and_scale(tmp_path: Path) -> None:
    import cv2

    rows = ["path,x,y,size,label,patient"]
    cv2.imwrite(str(tmp_path / "p.png"), np.full((200, 300, 3), 128, np.uint8))
    rows += [f"p.png,{x},0,100,a,p1" for x in (0, 100, 200)]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    cohort = take_inventory(tmp_path / "t.csv", mpp=0.5)
    own = TileRequest().spec_for(cohort)
    assert (own.tile_px, own.mpp, own.is_given) == (100, 0.5, True)
    coarse = TileRequest(tile_mpp=1.0).spec_for(cohort)
    assert (coarse.tile_px, coarse.mpp) == (50, 1.0)
    assert coarse.tile_um == own.tile_um


def test_a_workspace_works_on_the_tiling_that_was_made_last(table: Path, tmp_path: Path) -> None:
    coarse = tile(table, tmp_path / "w", request=REQUEST)
    fine = tile(table, tmp_path / "w", request=TileRequest(tile_px=48, tile_mpp=1.0))
    work = Workspace.open(tmp_path / "w")
    assert open_tiling(work).spec == fine.spec
    assert tile(table, tmp_path / "w", request=REQUEST).n_tiles == coarse.n_tiles
    assert open_tiling(work).spec == coarse.spec
    work.tiling.unlink()
    with pytest.raises(WorkspaceError, match="no tiles yet"):
        open_tiling(work)


def test_another_recipe_is_refused_or_sets_the_old_run_aside(tiled) -> None:
    from histokin.learn import override, read_recipe
    from histokin.learn.checkpoint import CheckpointMismatch

    work, tiling = tiled
    short = override(read_recipe("simclr"), ["run.steps=1", "run.batch=8"])
    first = pretrain(work, tiling, short, "r")
    other = override(short, ["seed=1"])
    with pytest.raises(CheckpointMismatch, match="seed"):
        pretrain(work, tiling, other, "r")
    second = pretrain(work, tiling, other, "r", replace=True)
    assert second.fingerprint != first.fingerprint
    kept = next(p for p in (work.root / "runs").iterdir() if p.name.startswith("r-"))
    assert (kept / "encoder" / "model.safetensors").exists()
    assert not pretrain(work, tiling, other, "r", replace=True).is_new


def test_packed_tiles_are_the_tiles_that_are_embedded(tiled) -> None:
    work, tiling = tiled
    packed = pack_cohort(work, tiling)
    assert len(packed) == tiling.n_tiles
    colour = EmbeddingStore(_store(work, tiling, "colour")).load()
    assert np.array_equal(packed.slides, colour.slide)
    assert np.array_equal(packed.table_rows, colour.tile_id)
    seen = STATISTICS[0].embed(packed.read(np.arange(len(packed))))
    np.testing.assert_allclose(seen, colour.features, atol=2.5)  # JPEG once more, float16 on disk


def test_labels_come_from_the_planted_truth_and_mixed_tiles_have_none(tiled) -> None:
    work, tiling = tiled
    rows = EmbeddingStore(_store(work, tiling, "colour")).load()
    labels = tile_labels(tiling, rows, "label")
    assert set(labels) <= {"", "tumour", "stroma", "gland", "lymphoid", "fat", "necrosis", "blood", "mucin"}
    assert 0 < (labels == "").mean() < 0.9


def test_a_store_of_other_or_changed_tiles_is_refused(tiled, table: Path, tmp_path: Path) -> None:
    work, tiling = tiled
    other = tile(table, tmp_path / "w", request=TileRequest(tile_px=64, tile_mpp=1.0, stride_px=64))
    place = Workspace.open(tmp_path / "w")
    embed_cohort(place, other, STATISTICS)
    with pytest.raises(StoreError, match="changed since it was embedded"):
        gather(tiling, _store(work, tiling, "colour"), {"texture": [_store(place, other, "texture")]})


def test_a_replaced_slide_is_noticed_before_old_vectors_meet_new_labels(table: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(table.parent, tmp_path / "in")
    tiling = tile(tmp_path / "in" / table.name, tmp_path / "w", request=REQUEST)
    work = Workspace.open(tmp_path / "w")
    embed_cohort(work, tiling, STATISTICS[:1])
    gather(tiling, _store(work, tiling, "colour"), {})
    first, second = sorted((tmp_path / "in" / "slides").glob("*.tiff"))[:2]
    shutil.copy(second, first)
    changed = tile(tmp_path / "in" / table.name, tmp_path / "w", request=REQUEST)
    with pytest.raises(StoreError, match="changed since"):
        gather(changed, _store(work, changed, "colour"), {})
    embed_cohort(work, changed, STATISTICS[:1])
    gather(changed, _store(work, changed, "colour"), {})


def test_examples_follow_the_rules_of_the_figures(tiled) -> None:
    work, tiling = tiled
    gathered = gather(tiling, _store(work, tiling, "texture"), {})
    labels = tile_labels(tiling, gathered.main, "label")
    examples = choose_examples(gathered, labels, seed=1)
    assert len({labels[e.query] for e in examples}) == len(examples)
    for example in examples:
        assert all(labels[hit] for hit in example.hits)
        assert all(gathered.patient[hit] != gathered.patient[example.query] for hit in example.hits)
        assert list(example.scores) == sorted(example.scores, reverse=True)
    wanted = sorted({row for e in examples for row in (e.query, *e.hits)})
    pictures = tile_pictures(tiling, gathered.main, wanted)
    assert sorted(pictures) == wanted
    assert all(picture[:3] == b"\xff\xd8\xff" for picture in pictures.values())


def test_an_unknown_label_names_the_known_ones(tiled) -> None:
    work, tiling = tiled
    with pytest.raises(EvaluationError, match="diagnosis"):
        evaluate_workspace(work, tiling, _store(work, tiling, "texture"), {}, EvaluationSpec(label="grade"))


def test_texture_beats_chance_and_shuffled_labels_fall_to_it(tiled) -> None:
    work, tiling = tiled
    found = evaluate_workspace(work, tiling, _store(work, tiling, "texture"), {}, EvaluationSpec())
    chapter = chapter_of(found.document, "retrieval", "tile")
    measure = chapter["measures"][0]
    assert measure["rows"][0]["values"]["acc@1"]["value"] > measure["chance"]["acc@1"] + 0.05
    assert "at chance, as it must be" in chapter["controls"][0]
    assert (found.folder / "queries-tile.csv").read_text().count("\n") > 20


def test_one_patient_gets_a_sentence_instead_of_a_figure(table: Path, tmp_path: Path) -> None:
    lines = table.read_text().splitlines()
    header = lines[0].split(",")
    kept = [line.split(",") for line in lines[1:3]]
    for row in kept:
        row[header.index("patient")] = "P01"
        for name in ("path", "class_map"):
            row[header.index(name)] = str(table.parent / row[header.index(name)])
    one = tmp_path / "one.csv"
    one.write_text("\n".join([lines[0], *(",".join(row) for row in kept)]))
    tiling = tile(one, tmp_path / "w", request=REQUEST)
    work = Workspace.open(tmp_path / "w")
    embed_cohort(work, tiling, STATISTICS[:1])
    found = evaluate_workspace(work, tiling, _store(work, tiling, "colour"), {}, EvaluationSpec())
    assert [c["protocol"] for c in found.document["chapters"]] == ["label-free"]
    assert "--leave-out slide" in dict(found.document["refusals"])["retrieval"]
    by_slide = evaluate_workspace(work, tiling, _store(work, tiling, "colour"), {}, EvaluationSpec(leave_out="slide"))
    warnings = chapter_of(by_slide.document, "retrieval", "tile")["measures"][0]["warnings"]
    assert "may share its patient" in warnings[0]
