"""Supervised training from random and from given weights, frozen and whole; any method begins from any weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from learn.methods.worlds import recipe_of, two_slides
from safetensors.torch import load_file, save_file

from histokin.artefacts import read_lines
from histokin.encoders import load_encoder
from histokin.errors import EncoderError, RecipeError
from histokin.learn import ArrayPixels, Recipe, TrainingResult, override, pretrain
from histokin.learn.methods import METHODS
from histokin.learn.pixels import Labels
from histokin.learn.resolve import resolve_recipe
from histokin.learn.steps import starting_network

LONG = ("run.steps=40", "run.monitor_every=40", "run.checkpoint_every=40", "optimiser.lr=0.004", "run.batch=16")
N_TILES = 72


@pytest.fixture(scope="module")
def field() -> Any:
    return two_slides()


@pytest.fixture(scope="module")
def pretrained(field: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder folder of a short run without labels, its BatchNorm statistics far from where they start."""
    return pretrain(field, recipe_of("simclr"), tmp_path_factory.mktemp("pretrained"), device="cpu").encoder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def accuracy(folder: Path) -> float:
    """Mean over the last quarter of the steps."""
    lines = [line["terms"]["accuracy"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line]
    return float(np.mean(lines[-len(lines) // 4 :]))


def from_weights(start: Path | str, *settings: str) -> Recipe:
    return recipe_of("supervised", f"backbone.init={start}", *settings)


@pytest.mark.parametrize("begins", ["random", "pretrained"])
@pytest.mark.parametrize("frozen", [False, True])
def test_an_easy_label_is_learnt(field, pretrained, tmp_path, begins, frozen):
    recipe = from_weights(pretrained if begins == "pretrained" else "random", *LONG, f"loss.frozen={frozen}".lower())
    pretrain(field, recipe, tmp_path, device="cpu")
    # Prevalence is one half; 160 draws of a coin give at most .63 in 999 of 1000 cases.
    assert accuracy(tmp_path) > (0.63 if frozen else 0.9)


@pytest.mark.parametrize("begins", ["random", "pretrained"])
def test_a_frozen_encoder_keeps_every_bit(field, pretrained, tmp_path, begins):
    init = pretrained if begins == "pretrained" else "random"
    recipe = from_weights(init, "loss.frozen=true", "run.steps=5", "optimiser.weight_decay=0.1")
    result = pretrain(field, recipe, tmp_path, device="cpu")
    if begins == "pretrained":
        before = weights(pretrained)
    else:
        resolved = resolve_recipe(recipe, 32, N_TILES, "cpu")
        before = starting_network(resolved.backbone, resolved.seed).state_dict()
    after = weights(result.encoder)
    assert after.keys() == before.keys()
    for key, value in after.items():
        assert torch.equal(value, before[key]), key
    losses = [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl") if "loss" in line]
    assert len(set(losses)) > 1  # the classifier does learn


def test_a_whole_encoder_changes_in_every_layer_and_in_its_statistics(field, pretrained, tmp_path):
    result = pretrain(field, from_weights(pretrained, "run.steps=3"), tmp_path, device="cpu")
    before = weights(pretrained)
    for key, value in weights(result.encoder).items():
        assert not torch.equal(value, before[key]), key


@pytest.mark.parametrize("frozen", ["false", "true"])
def test_unlabelled_tiles_teach_nothing(field, tmp_path, frozen):
    """With a third of the labels gone the run is that of the other tiles, whatever the unlabelled ones show."""
    codes = field.labels.codes.copy()
    codes[::3] = -1
    found = []
    for number, noise in enumerate((0, 255)):
        tiles = field.tiles.copy()
        tiles[::3] = noise
        labels = Labels(codes, field.labels.classes, field.labels.groups)
        source: Any = ArrayPixels(tiles, 1.0, slides=field.slides, labels=labels)
        recipe = recipe_of("supervised", "run.steps=4", "run.batch=16", f"loss.frozen={frozen}")
        result = pretrain(source, recipe, tmp_path / str(number), device="cpu")
        found.append(((tmp_path / str(number) / "metrics.jsonl").read_bytes(), weights(result.encoder)))
    (metrics, one), (others, two) = found
    assert metrics == others
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder_q.", "backbone.", "model.resnet."])
@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_files_of_other_layouts_begin_a_run(field, pretrained, tmp_path, prefix, kind):
    state = {prefix + key: value for key, value in weights(pretrained).items()}
    state[f"{prefix}fc.weight"] = torch.zeros(5, 24)  # another task's classifier
    if prefix.startswith("module.encoder"):
        state["module.queue"] = torch.zeros(4, 8)
    path = tmp_path / f"weights.{kind}"
    if kind == "pth":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        save_file(state, path)
    recipe = from_weights(path, "loss.frozen=true", "run.steps=1")
    result = pretrain(field, recipe, tmp_path / "run", device="cpu")
    before, after = weights(pretrained), weights(result.encoder)
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_weights_of_another_network_are_refused_with_what_does_not_fit(field, pretrained, tmp_path):
    state = weights(pretrained)
    del state["layer4.0.conv1.weight"]
    save_file(state, tmp_path / "torn.safetensors")
    with pytest.raises(EncoderError, match=r"1 missing \(layer4\.0\.conv1\.weight\)"):
        pretrain(field, from_weights(tmp_path / "torn.safetensors"), tmp_path / "run", device="cpu")
    with pytest.raises(RecipeError, match="neither an encoder folder nor a weights file"):
        pretrain(field, from_weights(tmp_path / "absent.pth"), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_any_method_begins_from_any_encoder(field, pretrained, tmp_path, method):
    recipe = recipe_of(method, f"backbone.init={pretrained}", "backbone.name=auto", "backbone.args=auto")
    resolved = resolve_recipe(recipe, 32, N_TILES, "cpu")
    assert resolved.backbone.name == "resnet10t"
    network = starting_network(resolved.backbone, resolved.seed).state_dict()
    prefix = "backbone." if method == "similarity" else ""
    for key, value in weights(pretrained).items():
        assert torch.equal(network[prefix + key], value), key
    recipe = override(recipe, ["run.steps=1"])
    assert pretrain(field, recipe, tmp_path, device="cpu").steps == 1


@pytest.fixture(scope="module")
def headed(field: Any, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    """A similarity encoder, which has a head of its own."""
    recipe = recipe_of("similarity", "run.steps=2")
    return pretrain(field, recipe, tmp_path_factory.mktemp("headed"), device="cpu")


def test_a_frozen_encoder_is_the_same_function_with_its_stain_normalisation_and_zoom(field, tmp_path):
    before = pretrain(
        field, recipe_of("simclr", "run.steps=2", "views.normalise=lab", "views.embed_px=22"), tmp_path / "a"
    )
    after = pretrain(field, from_weights(before.encoder, "loss.frozen=true", "run.steps=2"), tmp_path / "b")
    assert after.fingerprint == before.fingerprint


def test_a_frozen_encoder_raises_no_alarm_about_itself_and_classes_that_do_not_occur_do_not_count(tmp_path):
    grey = np.full((24, 32, 32, 3), 180, np.uint8)  # nothing to be told apart: every embedding is the same
    codes = np.arange(24) % 2
    source: Any = ArrayPixels(grey, 1.0, labels=Labels(codes, ("a", "b", "c"), np.arange(24)))
    still = [f"views.{name}=0" for name in ("stain_p", "jitter_p", "grey")]
    for frozen in ("true", "false"):
        recipe = recipe_of("supervised", *still, f"loss.frozen={frozen}", "run.steps=3", "optimiser.lr=1e-6")
        alarms = pretrain(source, recipe, tmp_path / frozen, device="cpu").alarms
        assert any("that of a constant encoder (0.693)" in alarm for alarm in alarms)
        assert any("collapsed" in alarm for alarm in alarms) == (frozen == "false")


def test_an_encoder_with_a_head_goes_on_with_its_head(field, headed, tmp_path):
    result = pretrain(field, from_weights(headed.encoder, "loss.frozen=true", "run.steps=1"), tmp_path, device="cpu")
    assert load_encoder(result.encoder, device="cpu").card.head == (16, 8)
    for file in ("model.safetensors", "head.safetensors"):
        before, after = load_file(headed.encoder / file), load_file(result.encoder / file)
        assert before.keys() == after.keys()
        assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_head_of_other_widths_is_drawn_anew_on_the_same_network(field, headed, tmp_path):
    recipe = from_weights(headed.encoder, "backbone.head=[12, 8]", "loss.frozen=true", "run.steps=1")
    result = pretrain(field, recipe, tmp_path, device="cpu")
    assert load_encoder(result.encoder, device="cpu").card.head == (12, 8)
    before, after = weights(headed.encoder), weights(result.encoder)
    assert all(torch.equal(after[key], before[key]) for key in before)
    mine, theirs = (load_file(folder / "head.safetensors") for folder in (result.encoder, headed.encoder))
    assert mine["0.weight"].shape != theirs["0.weight"].shape


def test_the_exported_encoder_opens_in_timm(field, pretrained, tmp_path):
    result = pretrain(field, from_weights(pretrained, "run.steps=2"), tmp_path, device="cpu")
    theirs = timm.create_model(f"local-dir:{result.encoder}", pretrained=True).eval()
    ours = load_encoder(result.encoder, device="cpu").network
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3, 26, 26)).astype(np.float32))
    with torch.no_grad():
        torch.testing.assert_close(theirs(x), ours(x), rtol=1e-5, atol=1e-5)
    assert theirs.num_classes == 0  # the classifier of the training stays behind
    assert not [key for key in weights(result.encoder) if "classifier" in key]
