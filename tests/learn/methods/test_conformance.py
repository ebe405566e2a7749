"""What every method must do: learn, resume to the same bytes, refuse tiles it cannot use."""

import numpy as np
import pytest
import torch
from learn.methods.worlds import recipe_of, two_slides
from learn.test_trainer import KilledError, contents, killing_after

from histokin.artefacts import read_lines
from histokin.embeddings.embedder import fit_to_slide
from histokin.encoders import load_encoder
from histokin.errors import TrainingError
from histokin.learn import ArrayPixels, pretrain
from histokin.learn.distributed import World
from histokin.learn.methods import METHODS
from histokin.learn.recipe import with_steps
from histokin.learn.resolve import resolve_recipe
from histokin.learn.steps import Setting, make_batch, new_state
from histokin.learn.trainer import shares_of

ALL = sorted(METHODS)


@pytest.fixture(scope="module")
def field():
    return two_slides()


@pytest.mark.parametrize("method", ALL)
def test_killed_at_any_step_and_resumed_equals_never_stopped(field, tmp_path, method):
    recipe = recipe_of(method)
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
    vectors = fit_to_slide(encoder, lambda: field.tiles).embed(field.tiles[:4])
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


def test_ccl_refuses_a_batch_without_groups(field, tmp_path):
    with pytest.raises(TrainingError, match=r"batch of 2 has no groups.*group_weight=0"):
        pretrain(field, recipe_of("ccl", "run.batch=2"), tmp_path, device="cpu")


@pytest.mark.parametrize("method", ["npid", "sgcl"])
def test_a_run_too_short_for_its_bank_says_so(field, tmp_path, method):
    short = pretrain(field, recipe_of(method, "run.steps=2"), tmp_path / "short")
    assert any("each tile was met 0.2 times" in note for note in short.notes)
    long = recipe_of(method, "run.steps=180")
    assert METHODS[method].notes(field, long, 8) == ()


def test_meetings_are_counted_by_the_batch_that_few_tiles_allow(field, tmp_path):
    result = pretrain(field, recipe_of("npid", "run.batch=128", "run.steps=3"), tmp_path, device="cpu")
    assert result.batch == 72
    assert any("each tile was met 3.0 times" in note for note in result.notes)


def test_an_odd_number_of_pairs_is_reduced_for_a_reason_of_its_own(field, tmp_path):
    result = pretrain(field, recipe_of("similarity", "run.batch=7", "run.steps=1"), tmp_path, device="cpu")
    assert result.notes[0] == "half of the pairs are near: a batch holds 6 pairs instead of 7"
    assert not [note for note in result.notes if "twice" in note]


@pytest.mark.parametrize(("method", "settings"), [*((name, []) for name in ALL), ("npid", ["loss.form=nce"])])
def test_a_loss_changes_no_state_but_running_statistics(field, method, settings):
    """A step that fails can then be done again."""
    cpu = torch.device("cpu")
    recipe = with_steps(resolve_recipe(recipe_of(method, *settings), 32, len(field), cpu), 10)
    setting = Setting(recipe, cpu, 32)
    state = new_state(setting, field)
    share = next(iter(shares_of(METHODS[method].sampler(field, recipe), [0], World())))
    batch = make_batch(share, field.read(share.rows), setting, n_views=state.method.n_views, step=0)
    before = {key: value.clone() for key, value in state.method.state_dict().items()}
    state.method.loss(batch)
    after = state.method.state_dict()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert [key for key in changed if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))] == []
    with torch.no_grad():
        state.method.after_step(batch)
    if settings:
        assert state.method.state_dict()["z"] > 0
