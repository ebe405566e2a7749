import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from program import leftovers, tree
from worlds import MeanColour, damage_tile, stained, write_csv

from histokin.cohort import Cohort, take_inventory
from histokin.embeddings import EmbeddingStore, check_fit, embed_cohort, read_embeddings
from histokin.errors import EncoderMismatch, StoreError
from histokin.slides.generated import write_pyramid
from histokin.tiles import TileSpec, Tiling, find_tiling, open_tiles, tile_cohort
from histokin.workspace import Workspace

SPEC = TileSpec(32, 1.0)


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace `work` with three tiled slides, their table beside it."""
    root = tmp_path_factory.mktemp("t")
    for i, name in enumerate("abc"):
        write_pyramid(root / f"{name}.tiff", stained(600, 600 + 64 * i, i), mpp=0.5)
    table = write_csv(root / "t.csv", [{"path": f"{name}.tiff", "patient": name} for name in "abc"])
    tile_cohort(Workspace.create(root / "work"), take_inventory(table), SPEC)
    return root


@pytest.fixture
def root(tiled: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiled, tmp_path / "r")
    return tmp_path / "r"


def opened(root: Path) -> tuple[Workspace, Tiling]:
    work = Workspace.open(root / "work")
    tiling = tile_cohort(work, take_inventory(root / "t.csv"), SPEC)
    return work, tiling


def test_every_tile_gets_its_own_vector(root: Path) -> None:
    work, tiling = opened(root)
    outcome = embed_cohort(work, tiling, [MeanColour()])
    data = EmbeddingStore(outcome.folders["mean"]).load()
    assert outcome.failed == ()
    assert outcome.n_tiles == tiling.n_tiles == len(data)
    for number, record in enumerate(tiling.records):
        table = tiling.table(record)
        (batch,) = open_tiles(tiling.cohort, record, table, SPEC).stream(10_000)
        assert data.tile_id[data.slide == number].tolist() == batch.rows.tolist()
        assert np.abs(data.bag(number) - batch.pixels.mean(axis=(1, 2))).max() < 0.1


def test_several_embedders_share_one_reading_and_agree_with_one_alone(root: Path, tmp_path: Path) -> None:
    work, tiling = opened(root)
    first = MeanColour("first", "sha256:" + "1" * 64)
    second = MeanColour("second", "sha256:" + "2" * 64, transform=lambda x: 2 * x)
    together = embed_cohort(work, tiling, [first, second])
    assert first.n_tiles == second.n_tiles == tiling.n_tiles
    alone = Workspace.create(tmp_path / "alone")
    other = embed_cohort(alone, tiling, [second])
    assert tree(other.folders["second"]) == tree(together.folders["second"])
    assert {f.name for f in together.folders.values()} == {"1" * 16, "2" * 16}


def test_a_second_run_embeds_nothing_and_counts_the_same(root: Path) -> None:
    work, tiling = opened(root)
    first = embed_cohort(work, tiling, [MeanColour()])
    before = tree(work.root)
    again = MeanColour()
    second = embed_cohort(work, tiling, [again])
    assert again.n_tiles == 0
    assert second == first
    assert tree(work.root) == before
    assert leftovers(work.root) == []


@pytest.mark.parametrize("harm", ["delete", "truncate", "receipt"])
def test_what_is_lost_is_embedded_again_alone(harm: str, root: Path) -> None:
    work, tiling = opened(root)
    folder = embed_cohort(work, tiling, [MeanColour()]).folders["mean"]
    whole = tree(work.root)
    path = folder / "b.h5"
    if harm == "delete":
        path.unlink()
    elif harm == "truncate":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        (folder / ".receipts" / "b.json").write_bytes(b"{")
    embedder = MeanColour()
    embed_cohort(work, tiling, [embedder])
    assert embedder.n_tiles == tiling.receipts["b"].facts["n_kept"]
    assert tree(work.root) == whole


def test_another_fingerprint_gets_a_store_of_its_own(root: Path) -> None:
    work, tiling = opened(root)
    first = embed_cohort(work, tiling, [MeanColour()]).folders["mean"]
    before = tree(first)
    second = embed_cohort(work, tiling, [MeanColour(fingerprint="sha256:" + "cd" * 32)]).folders["mean"]
    assert second != first
    assert tree(first) == before


def test_new_tiles_are_embedded_anew(root: Path) -> None:
    work, tiling = opened(root)
    embed_cohort(work, tiling, [MeanColour()])
    write_pyramid(root / "b.tiff", stained(700, 700, 9), mpp=0.5)
    work, tiling = opened(root)
    embedder = MeanColour()
    outcome = embed_cohort(work, tiling, [embedder])
    assert embedder.n_tiles == tiling.receipts["b"].facts["n_kept"]
    assert (
        read_embeddings(outcome.folders["mean"] / "b.h5").attrs["content_key"] == tiling.cohort.record("b").content_key
    )


# --- damage ---------------------------------------------------------------------------------------------------------


def test_damaged_tiles_are_left_out_counted_and_the_rest_is_untouched(root: Path, tmp_path: Path) -> None:
    work, tiling = opened(root)
    whole = read_embeddings(embed_cohort(work, tiling, [MeanColour()]).folders["mean"] / "a.h5")
    damage_tile(root / "a.tiff", (1, 1))
    damaged = Workspace.create(tmp_path / "damaged")
    outcome = embed_cohort(damaged, tiling, [MeanColour()])
    data = read_embeddings(outcome.folders["mean"] / "a.h5")
    lost = sorted(set(whole.tile_id) - set(data.tile_id))
    facts = json.loads((outcome.folders["mean"] / ".receipts" / "a.json").read_text())["facts"]
    assert 0 < len(lost) == facts["n_corrupt"] == len(whole.tile_id) - facts["n_tiles"] <= 20
    kept = np.isin(whole.tile_id, data.tile_id)
    assert np.array_equal(data.features, whole.features[kept])
    assert outcome.failed == ()


@pytest.fixture
def half_ruined(root: Path) -> Path:
    for column in range(2):
        for row in range(3):
            damage_tile(root / "b.tiff", (column, row))
    return root


def test_a_slide_damaged_all_over_is_a_state_and_the_others_are_embedded(tiled: Path, half_ruined: Path) -> None:
    _, sound = opened(tiled)
    work = Workspace.open(half_ruined / "work")
    # an earlier, sound run left its receipt
    before = embed_cohort(Workspace.create(half_ruined / "before"), sound, [MeanColour()]).folders["mean"]
    receipt = (before / ".receipts" / "b.json").read_bytes()
    tiling = Tiling(Cohort(half_ruined, "slides", sound.cohort.records), SPEC, work.tiles(SPEC.spec_id), sound.receipts)
    outcome = embed_cohort(work, tiling, [MeanColour()])
    assert [(r.slide, r.state) for r in outcome.failed] == [("b", "damaged")]
    (outcome.folders["mean"] / ".receipts" / "b.json").write_bytes(receipt)
    assert embed_cohort(work, tiling, [MeanColour()]) == outcome
    assert outcome.failed[0].reason
    assert EmbeddingStore(outcome.folders["mean"]).load().slides == ("a", "c")
    assert outcome.n_tiles == sum(sound.receipts[s].facts["n_kept"] for s in "ac")


def test_a_store_holds_the_present_cohort_only(root: Path) -> None:
    work, tiling = opened(root)
    embed_cohort(work, tiling, [MeanColour()])
    write_csv(root / "t.csv", [{"path": f"{name}.tiff", "patient": name} for name in "ac"])
    work, tiling = opened(root)
    again = MeanColour()
    folder = embed_cohort(work, tiling, [again]).folders["mean"]
    assert again.n_tiles == 0
    assert EmbeddingStore(folder).load().slides == ("a", "c")
    assert find_tiling(work, Cohort.load(work.cohort), SPEC).n_tiles == len(EmbeddingStore(folder).load())


def test_an_encoder_that_gives_nan_stops_the_stage_with_its_name(root: Path) -> None:
    work, tiling = opened(root)
    with pytest.raises(StoreError, match="mean gave NaN"):
        embed_cohort(work, tiling, [MeanColour(transform=lambda x: x * np.nan)])
    assert leftovers(work.root) == []


@pytest.mark.parametrize(
    ("made_for", "fits"),
    [(SPEC, True), (TileSpec(32, 1.005), True), (TileSpec(32, 0.5), False), (TileSpec(64, 1.0), False)],
)
def test_an_encoder_is_only_used_on_tiles_it_was_made_for(made_for: TileSpec, fits: bool, root: Path) -> None:
    _, tiling = opened(root)
    embedder = MeanColour(spec=made_for)
    if fits:
        check_fit(embedder, tiling)
        return
    with pytest.raises(
        EncoderMismatch, match=rf"{made_for.tile_px} px at {made_for.mpp:g} mpp, these: 32 px at 1 µm/px"
    ):
        check_fit(embedder, tiling)
