"""docs/adding-a-method.md: its file, entry and recipe, taken from the page, make a method that trains."""

import importlib.util
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from learn.methods.worlds import TINY, two_slides

from histokin.artefacts import read_lines
from histokin.encoders import load_encoder
from histokin.errors import RecipeError
from histokin.learn import override, pretrain, read_recipe
from histokin.learn.methods import METHODS
from histokin.learn.resolve import resolve_recipe
from histokin.learn.sampling import Draw
from histokin.learn.steps import Setting, Share, make_batch, new_state

PAGE = Path(__file__).parents[3] / "docs" / "adding-a-method.md"


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.fixture
def recipe_file(tmp_path, monkeypatch):
    """The page's method is known and its recipe lies in a file."""
    file, entry = blocks("python")
    (path := tmp_path / "simsiam.py").write_text(file)
    spec = importlib.util.spec_from_file_location("page_simsiam", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "page_simsiam", module)
    spec.loader.exec_module(module)
    before = dict(METHODS)
    exec(entry, {"METHODS": METHODS, "SimSiam": module.SimSiam})
    (recipe,) = blocks("yaml")
    (tmp_path / "simsiam.yaml").write_text(recipe)
    yield tmp_path / "simsiam.yaml"
    METHODS.clear()
    METHODS.update(before)


def test_the_method_of_the_page_trains_and_its_encoder_opens(recipe_file, tmp_path):
    fast = ["run.steps=5", "run.batch=32", "optimiser.warmup=0", "optimiser.scaling=none", "optimiser.lr=0.5"]
    recipe = override(read_recipe(recipe_file), [*TINY, *fast])
    result = pretrain(two_slides(), recipe, tmp_path / "run", device="cpu")
    steps = [line for line in read_lines(tmp_path / "run" / "metrics.jsonl") if "loss" in line]
    assert [-1 <= line["loss"] <= 1 for line in steps] == [True] * 5
    assert steps[-1]["loss"] < steps[0]["loss"] - 0.1
    assert all(0 < line["terms"]["spread"] < 1.1 for line in steps)
    assert load_encoder(result.encoder, device="cpu").card.method == "simsiam"
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["method"]
    assert kept["predictor.3.weight"].shape == (8, 64)


def test_its_loss_is_minus_the_mean_cosine_of_predictions_and_the_other_projections(recipe_file):
    source = two_slides()
    cpu = torch.device("cpu")
    recipe = resolve_recipe(override(read_recipe(recipe_file), TINY), 32, len(source), cpu)
    setting = Setting(recipe, cpu, 32)
    method = new_state(setting, source).method
    share = Share(Draw(np.arange(8)), 8)
    batch = make_batch(share, source.read(share.rows), setting, n_views=2, step=0)
    found = method.loss(batch)["loss"]
    z = method.projector(method.encoder(batch.views))
    p = method.predictor(z)
    cosines = [torch.cosine_similarity(p[i], z[(i + 8) % 16], dim=0).item() for i in range(16)]
    assert found.item() == pytest.approx(-np.mean(cosines), abs=1e-5)
    found.backward()
    assert all(one.grad is not None for one in method.parameters())


def test_keys_of_the_page_are_refused_where_they_are_wrong(recipe_file):
    with pytest.raises(RecipeError, match=r"no key 'loss\.predictor_width'.*'loss\.predictor_hidden'"):
        override(read_recipe(recipe_file), ["loss.predictor_width=3"])
    with pytest.raises(RecipeError, match="predictor_hidden must be >= 1"):
        override(read_recipe(recipe_file), ["loss.predictor_hidden=0"])
