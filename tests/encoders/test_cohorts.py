"""Encoders in the embed stage: stain normalisation by slide, and tiles of another size from the command line."""

import dataclasses
import json

import numpy as np
import pytest
from click.testing import CliRunner
from program import tree
from worlds import MeanColour, damage_tile, stained, write_csv

from histokin.artefacts import write_json
from histokin.cli.commands.embed import command
from histokin.cohort import take_inventory
from histokin.embeddings import EmbeddingStore, embed_cohort, read_embeddings
from histokin.embeddings.embedder import SAMPLE_TILES, fit_to_slide, sample_rows
from histokin.encoders import Encoder, save_encoder
from histokin.slides.generated import write_pyramid
from histokin.tiles import TileSpec, open_tiles, tile_cohort
from histokin.tissue.colour import TARGET, lab_statistics, normalise_lab
from histokin.workspace import Workspace

SPEC = TileSpec(40, 1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("slides")
    for i, name in enumerate("ab"):
        picture = stained(800, 600 + 100 * i, i)
        write_pyramid(root / f"{name}.tiff", picture if i else 255 - (255 - picture) // 4 * 3, mpp=0.5)
    return write_csv(root / "t.csv", [{"path": f"{name}.tiff", "patient": name} for name in "ab"])


def tiled(world, folder, spec=SPEC):
    work = Workspace.create(folder)
    tiling = tile_cohort(work, take_inventory(world), spec)
    write_json(work.tiling, spec)
    return work, tiling


@pytest.fixture
def lab(network, card):
    return Encoder(network, dataclasses.replace(card, name="lab", normalise="lab"), device="cpu")


def pixels_of(tiling, record, rows=None):
    batches = list(open_tiles(tiling.cohort, record, tiling.table(record), tiling.spec, rows).stream(10_000))
    return batches[0].pixels


def test_each_slide_is_normalised_by_a_sample_of_its_own_tiles(world, tmp_path, lab, network, card):
    work, tiling = tiled(world, tmp_path / "w")
    folder = embed_cohort(work, tiling, [lab]).folders["lab"]
    plain = Encoder(network, card, device="cpu")
    for record in tiling.records:
        kept = tiling.table(record).kept
        assert len(kept) > SAMPLE_TILES
        have = lab_statistics(pixels_of(tiling, record, sample_rows(kept)))
        expected = plain.embed(normalise_lab(pixels_of(tiling, record), have, TARGET))
        found = read_embeddings(folder / f"{record.file_name}.h5").features
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
        raw = plain.embed(pixels_of(tiling, record))
        assert np.abs(raw - expected).max() > 0.05


def test_other_slides_and_other_embedders_change_nothing(world, tmp_path, lab):
    work, tiling = tiled(world, tmp_path / "w")
    together = embed_cohort(work, tiling, [MeanColour(), lab]).folders
    alone_work, alone = tiled(world, tmp_path / "alone")
    alone = dataclasses.replace(alone, receipts={"b": alone.receipts["b"]})
    other = embed_cohort(alone_work, alone, [lab]).folders["lab"]
    assert (other / "b.h5").read_bytes() == (together["lab"] / "b.h5").read_bytes()
    plain_work, plain = tiled(world, tmp_path / "plain")
    assert tree(embed_cohort(plain_work, plain, [MeanColour()]).folders["mean"]) == tree(together["mean"])


def test_a_damaged_tile_in_the_sample_is_left_out_of_it(world, tmp_path, lab):
    root = tmp_path / "slides"
    write_pyramid(root.parent / "a.tiff", stained(800, 600, 0), mpp=0.5)
    damage_tile(root.parent / "a.tiff", (0, 0))
    table = write_csv(root.parent / "t.csv", [{"path": "a.tiff", "patient": "a"}])
    work, tiling = tiled(table, tmp_path / "w")
    outcome = embed_cohort(work, tiling, [lab])
    assert outcome.n_corrupt["a"] > 0
    assert outcome.failed == ()
    assert len(EmbeddingStore(outcome.folders["lab"]).load()) == outcome.n_tiles > 0


def test_a_sample_is_evenly_strided_and_never_repeats():
    rows = np.arange(100, 200)
    assert sample_rows(rows, 4).tolist() == [112, 137, 162, 187]
    assert sample_rows(rows[:3], 16).tolist() == [100, 101, 102]
    assert sample_rows(rows[:0]).tolist() == []
    for n in range(1, 60):
        found = sample_rows(np.arange(n))
        assert len(set(found.tolist())) == min(n, SAMPLE_TILES)
        assert (np.diff(found) > 0).all()


def test_an_embedder_that_needs_no_sample_reads_none(network, card):
    def never():
        raise AssertionError("read")

    for embedder in (MeanColour(), Encoder(network, card, device="cpu")):
        assert fit_to_slide(embedder, never) is embedder


def embed_by_command(work, *options):
    return CliRunner().invoke(command, [str(work.root), "--no-floors", "--device", "cpu", "--json", *options])


def test_the_command_embeds_tiles_of_another_size_only_when_asked(world, tmp_path, network, card):
    work, tiling = tiled(world, tmp_path / "w", TileSpec(79, 1.01))
    folder = tmp_path / "encoder"
    save_encoder(folder, network, card)
    refused = embed_by_command(work, "--encoder", str(folder))
    assert "--any-field" in str(refused.exception)
    done = embed_by_command(work, "--encoder", str(folder), "--any-field")
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["n_tiles"] == tiling.n_tiles > 0
    assert said["fingerprint"] != json.loads((folder / "card.json").read_text())["fingerprint"]
