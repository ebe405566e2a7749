"""New slides: a store in, a table out; and which tiles were looked at."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from mil.mil_worlds import CLASSES, bytes_below, planted, task_of
from mil.test_reading import write

from histokin.embeddings import EmbeddingStore
from histokin.errors import EncoderMismatch, TrainingError
from histokin.evaluate.splits import SplitTable, inner_folds
from histokin.mil.predicting import map_tiles, predict_slides, predict_stores
from histokin.mil.reading import BagSource, pack_stores
from histokin.mil.training import Ensemble, MilSpec, MilTask, Targets, fit_ensemble, read_ensemble

SPEC = MilSpec(
    options={"hidden": (8,), "attention": 4}, lr=2e-2, epochs=20, patience=None, n_seeds=2, n_inner=2, batch=4
)


def train(task: MilTask, folder: Path, spec: MilSpec = SPEC) -> Ensemble:
    everyone = SplitTable.of_parts(task.items, {(0, 0): np.full(len(task), "train", dtype=object)})
    return fit_ensemble(task, inner_folds(everyone, spec.n_inner)[0], spec, folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[np.ndarray], np.ndarray]:
    """Folder of an ensemble trained on one store, another store, its bags and truth."""
    root = tmp_path_factory.mktemp("world")
    bags, truth, _ = planted(40, n_tiles=8, shift=5.0)
    for number, bag in enumerate(bags):
        write(root / ("old" if number < 30 else "new"), f"s{number:02d}", bag)
    write(root / "new", "without", np.zeros((0, 8)))
    source = pack_stores(root / "pack", [EmbeddingStore(root / "old")])
    labels = Targets.of_classes([CLASSES[code] for code in truth[:30]], CLASSES)
    train(MilTask.of(source, [f"s{number:02d}" for number in range(30)], labels), root / "trained")
    return root / "trained", root / "new", bags[30:], truth[30:]


def test_a_store_becomes_a_table_of_calibrated_probabilities(
    world: tuple[Path, Path, list[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    trained, store, bags, truth = world
    found = predict_stores(trained, [EmbeddingStore(store)], tmp_path / "out", cache=tmp_path / "cache")
    rows = pq.read_table(tmp_path / "out" / "predictions.parquet").to_pylist()
    texts = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    assert [row["slide"] for row in rows] == [f"s{number}" for number in range(30, 40)]
    assert [row["n_tiles"] for row in rows] == [len(bag) for bag in bags]
    assert [text["predicted"] for text in texts] == [row["predicted"] for row in rows]
    assert np.mean([row["predicted"] == CLASSES[code] for row, code in zip(rows, truth, strict=True)]) >= 0.8
    assert [row["told_some"] + row["told_none"] for row in rows] == pytest.approx([1.0] * 10)
    document = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert document["without_tiles"] == ["without"]
    assert document["n_models"] == 4
    assert found.empty == ("without",)


def test_the_word_of_the_ensemble_is_the_mean_of_its_models(
    world: tuple[Path, Path, list[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    trained, store, bags, _ = world
    ensemble, source = read_ensemble(trained), pack_stores(tmp_path / "pack", [EmbeddingStore(store)])
    told = predict_slides(ensemble, source, ["s33"]).told
    x = torch.from_numpy(bags[3].astype(np.float16).astype(np.float32))
    by_hand = []
    for number in range(4):
        model = ensemble.member(number).model
        logits = model.forward_padded(x[None], torch.ones(1, len(x), dtype=torch.bool)).logits.double()
        by_hand.append((logits / ensemble.temperature).softmax(1)[0].detach().numpy())
    assert told[0] == pytest.approx(np.mean(by_hand, axis=0), abs=1e-6)


def test_predicting_twice_gives_equal_bytes(
    world: tuple[Path, Path, list[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    trained, store, _, _ = world
    for name in ("one", "two"):
        predict_stores(trained, [EmbeddingStore(store)], tmp_path / name, cache=tmp_path / f"{name}-cache")
    assert bytes_below(tmp_path / "one") == bytes_below(tmp_path / "two")


def test_tiles_are_mapped_in_the_order_of_their_file_and_planted_ones_stand_out(
    world: tuple[Path, Path, list[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    trained, store, bags, truth = world
    ensemble, source = read_ensemble(trained), pack_stores(tmp_path / "pack", [EmbeddingStore(store)])
    n_found = 0
    for number, (bag, code) in enumerate(zip(bags, truth, strict=True), start=30):
        maps = map_tiles(ensemble, source, f"s{number}")
        assert maps.rows.tolist() == list(range(len(bag)))
        assert maps.coords[:, 0].tolist() == [10 * row for row in range(len(bag))]
        assert maps.weights is not None
        assert maps.contrib is not None
        assert maps.weights.sum(axis=0) == pytest.approx([1.0], abs=1e-5)
        if code:
            n_found += int(maps.contrib[:, 1].argmax() in np.flatnonzero(bag[:, :4].mean(axis=1) > 2.5))
    assert n_found >= 4  # of five


def test_contributions_add_up_to_the_logits_less_the_bias(
    world: tuple[Path, Path, list[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    trained, store, _, _ = world
    ensemble, source = read_ensemble(trained), pack_stores(tmp_path / "pack", [EmbeddingStore(store)])
    maps = map_tiles(ensemble, source, "s31")
    logits = ensemble.tell(source, source.numbers(["s31"])).logits[:, 0].mean(axis=0)
    bias = np.mean([ensemble.member(number).model.state_dict()["head.bias"].numpy() for number in range(4)], axis=0)
    assert maps.contrib is not None
    assert maps.contrib.sum(axis=0) == pytest.approx(logits - bias, abs=1e-4)


def test_embeddings_of_another_encoder_are_refused_showing_both(
    world: tuple[Path, Path, list[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    trained, _, bags, _ = world
    write(tmp_path / "store", "s", bags[0], mark="bb")
    with pytest.raises(EncoderMismatch, match=r"read net sha256:aa.*of net sha256:bb"):
        predict_stores(trained, [EmbeddingStore(tmp_path / "store")], tmp_path / "out", cache=tmp_path / "cache")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_classifiers_or_with_torn_ones_is_refused(
    world: tuple[Path, Path, list[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match="no trained classifiers here"):
        read_ensemble(tmp_path)
    trained = world[0]
    for path in trained.glob("*.*"):
        if path.is_file():
            (tmp_path / path.name).write_bytes(
                path.read_bytes()[:100] if path.suffix == ".safetensors" else path.read_bytes()
            )
    with pytest.raises(TrainingError, match="cannot be read"):
        read_ensemble(tmp_path).member(0)


@pytest.mark.parametrize("model", ["mean", "max", "clam_mb", "dsmil", "transmil", "mil_rnn"])
def test_every_model_trains_is_filed_and_comes_back(model: str, tmp_path: Path) -> None:
    bags, truth, _ = planted(12, n_tiles=4)
    task = task_of(bags, truth)
    spec = replace(SPEC, model=model, options={}, epochs=1, n_seeds=1)
    ensemble = train(task, tmp_path, spec)
    told = ensemble.tell(task.source, task.bags).values
    assert told.shape == (2, 12, 2)
    assert np.array_equal(told, read_ensemble(tmp_path).tell(task.source, task.bags).values)
    assert told.sum(axis=2) == pytest.approx(np.ones((2, 12)))


def test_risks_and_values_are_filed_with_their_units(tmp_path: Path) -> None:
    bags, truth, _ = planted(16, n_tiles=4, n_planted=8)
    names = [f"s{number}" for number in range(16)]
    source = BagSource.of_arrays(bags, names)
    targets = {
        "value": Targets.of_values((500 + 100.0 * truth).tolist()),
        "survival": Targets.of_survival((1.0 + np.arange(16)).tolist(), [True] * 16),
    }
    for kind, target in targets.items():
        ensemble = train(MilTask.of(source, names, target), tmp_path / kind, replace(SPEC, epochs=1, n_seeds=1))
        assert (ensemble.kind, ensemble.temperature, ensemble.threshold) == (kind, 1.0, None)
        found = predict_slides(ensemble, source)
        assert found.told.shape == (16, 1)
        assert "predicted" not in found.columns
    assert np.abs(predict_slides(read_ensemble(tmp_path / "value"), source).told - 550).max() < 150
