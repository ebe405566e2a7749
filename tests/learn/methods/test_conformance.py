"""What every method must do: learn, resume to the same bytes, refuse tiles it cannot use."""

import numpy as np
import pytest

from histokin.artefacts import read_lines
from histokin.encoders import load_encoder
from histokin.errors import TrainingError
from histokin.learn import ArrayPixels, override, pretrain, read_recipe
from histokin.learn.methods import METHODS
from histokin.learn.pixels import Labels, Places
from tests.learn.conftest import TINY
from tests.learn.test_trainer import KilledError, contents, killing_after

# Small state, so that a handful of steps wraps the queue, refits clusters and fills banks.
SMALL = {
    "mocov2": ["loss.queue=20"],
    "ccl": ["loss.queue=20", "loss.refit=2", "loss.clusters=4"],
    "npid": ["loss.negatives=16"],
    "sgcl": ["loss.refit=2", "loss.negatives=16", "loss.ramp=0.5", "views.local.px=16"],
    "similarity": ["backbone.head=[16, 8]", "loss.near_um=64", "loss.far_um=150"],
    "dino": ["loss.hidden=16", "loss.bottleneck=8", "loss.prototypes=12", "views.local.px=16"],
    "supervised": ["run.label=kind"],
}
ALL = sorted(METHODS)


@pytest.fixture(scope="module")
def field():
    """Two slides of 6 x 6 tiles of 32 um; two kinds of tissue, in halves, that differ in grain."""
    rng = np.random.default_rng(3)
    x, y = np.meshgrid(np.arange(6), np.arange(6), indexing="ij")
    cell = np.tile(np.stack([x, y], -1).reshape(-1, 2), (2, 1))
    slides = np.repeat([0, 1], 36)
    kind = (cell[:, 0] >= 3).astype(int)
    fine = rng.normal(0, 35, (72, 32, 32, 3))
    coarse = rng.normal(0, 35, (72, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    tiles = np.where(kind[:, None, None, None] == 0, fine, coarse) + np.array([190, 140, 180])
    return ArrayPixels(
        np.clip(tiles, 0, 255).astype(np.uint8),
        mpp=1.0,
        slides=slides,
        places=Places((cell + 0.5) * 32.0, 32.0),
        labels=Labels(kind, ("coarse", "fine"), slides),
    )


def recipe_of(method, *settings):
    general = [s for s in TINY if not (method == "dino" and s.startswith("projector"))]
    return override(read_recipe(method), [*general, *SMALL.get(method, []), *settings])


@pytest.mark.parametrize("method", ALL)
def test_killed_at_any_step_and_resumed_equals_never_stopped(field, tmp_path, method):
    recipe = recipe_of(method, "run.checkpoint_every=1")
    whole = pretrain(field, recipe, tmp_path / "whole", device="cpu")
    for _ in range(7):
        with pytest.raises(KilledError):
            pretrain(field, recipe, tmp_path / "killed", killing_after(1), device="cpu")
    resumed = pretrain(field, recipe, tmp_path / "killed", device="cpu")
    assert resumed.fingerprint == whole.fingerprint
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.parametrize("method", ALL)
def test_the_encoder_learns_and_embeds(field, tmp_path, method):
    recipe = recipe_of(method, "run.steps=24", "run.monitor_every=12", "run.checkpoint_every=24")
    result = pretrain(field, recipe, tmp_path, device="cpu")
    lines = read_lines(tmp_path / "metrics.jsonl")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert all(np.isfinite(losses))
    encoder = load_encoder(result.encoder, device="cpu")
    assert encoder.card.method == method
    vectors = encoder.for_slide(field.tiles).embed(field.tiles[:4])
    assert vectors.shape == (4, 8 if method == "similarity" else 24)
    assert len(np.unique(vectors.round(4), axis=0)) == 4
    assert 0 <= result.monitors["nearest"] <= 1


@pytest.mark.parametrize("method", ["sgcl", "similarity"])
def test_methods_of_places_refuse_tiles_without(tiles, tmp_path, method):
    with pytest.raises(TrainingError, match=r"where each tile lies on its slide.*simclr"):
        pretrain(ArrayPixels(np.tile(tiles, (2, 1, 1, 1)), mpp=1.0), recipe_of(method), tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


def test_supervised_training_refuses_tiles_without_labels(source, tmp_path):
    with pytest.raises(TrainingError, match=r"not one tile has a label 'kind'.*run\.label"):
        pretrain(source, recipe_of("supervised"), tmp_path, device="cpu")
