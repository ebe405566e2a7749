"""Training laws: resumed equals uninterrupted, another run is refused, failures are told, collapse is flagged."""

import dataclasses
import json
import math
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from learn.conftest import TINY

from histokin.artefacts import read_lines
from histokin.encoders import load_encoder
from histokin.errors import RecipeError, TrainingError
from histokin.learn import ArrayPixels, override, pretrain, read_recipe
from histokin.learn.capture import replay
from histokin.learn.methods import METHODS
from histokin.learn.methods.simclr import SimCLR
from histokin.learn.methods.supervised import Supervised
from histokin.learn.pixels import Labels
from histokin.learn.recipe import with_steps
from histokin.learn.trainer import steps_within

FILES = (
    "recipe.yaml",
    "metrics.jsonl",
    "result.json",
    "checkpoints/last.pt",
    "encoder/model.safetensors",
    "encoder/config.json",
    "encoder/card.json",
)


class KilledError(Exception):
    pass


def killing_after(n_steps):
    """A reporter that raises after so many steps, as a kill would end the run."""

    @contextmanager
    def report(stage, total, unit):
        class Task:
            done = 0

            def advance(self, n=1, note=""):  # noqa: ARG002 - the signature of a Task
                self.done += 1
                if self.done == n_steps:
                    raise KilledError

        yield Task()

    return report


def contents(folder):
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def uninterrupted(source, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, pretrain(source, tiny, folder, device="cpu")


@pytest.mark.parametrize("n_steps", [1, 2, 3, 5, 6, 7])
def test_killed_and_resumed_equals_never_stopped(source, tiny, tmp_path, uninterrupted, n_steps):
    with pytest.raises(KilledError):
        pretrain(source, tiny, tmp_path, killing_after(n_steps), device="cpu")
    result = pretrain(source, tiny, tmp_path, device="cpu")
    assert contents(tmp_path) == contents(uninterrupted[0])
    assert result.fingerprint == uninterrupted[1].fingerprint


def test_killed_at_every_step_equals_never_stopped(source, tiny, tmp_path, uninterrupted):
    recipe = override(tiny, ["run.checkpoint_every=1"])
    for _ in range(7):
        with pytest.raises(KilledError):
            pretrain(source, recipe, tmp_path, killing_after(1), device="cpu")
    pretrain(source, recipe, tmp_path, device="cpu")
    weights = "encoder/model.safetensors"
    assert (tmp_path / weights).read_bytes() == (uninterrupted[0] / weights).read_bytes()
    assert (tmp_path / "metrics.jsonl").read_bytes() == (uninterrupted[0] / "metrics.jsonl").read_bytes()


def test_a_metrics_line_torn_by_a_kill_is_written_again(source, tiny, tmp_path, uninterrupted):
    with pytest.raises(KilledError):
        pretrain(source, tiny, tmp_path, killing_after(3), device="cpu")
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"loss":2.1,"st')
    pretrain(source, tiny, tmp_path, device="cpu")
    assert contents(tmp_path) == contents(uninterrupted[0])


def test_a_run_without_its_result_is_finished_from_its_last_checkpoint(source, tiny, tmp_path, uninterrupted):
    pretrain(source, tiny, tmp_path, device="cpu")
    (tmp_path / "result.json").unlink()
    (tmp_path / "encoder" / "card.json").unlink()
    pretrain(source, tiny, tmp_path, device="cpu")
    assert contents(tmp_path) == contents(uninterrupted[0])


def test_a_finished_run_is_returned_as_it_is(source, tiny, uninterrupted):
    folder, first = uninterrupted
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = pretrain(source, tiny, folder, device="cpu")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert (again.fingerprint, again.monitors, again.alarms, again.is_new) == (
        first.fingerprint,
        first.monitors,
        first.alarms,
        False,
    )


def test_another_seed_trains_another_encoder(source, tiny, tmp_path, uninterrupted):
    assert pretrain(source, override(tiny, ["seed=1"]), tmp_path, device="cpu").fingerprint != (
        uninterrupted[1].fingerprint
    )


@pytest.mark.parametrize("n_steps", [3, None])
def test_another_recipe_is_refused_with_what_differs(source, tiny, tmp_path, n_steps):
    if n_steps:
        with pytest.raises(KilledError):
            pretrain(source, tiny, tmp_path, killing_after(n_steps), device="cpu")
    else:
        pretrain(source, tiny, tmp_path, device="cpu")
    with pytest.raises(TrainingError, match=r"loss\.temperature: 0\.5, 0\.2.*Use another folder"):
        pretrain(source, override(tiny, ["loss.temperature=0.5"]), tmp_path, device="cpu")


@pytest.mark.parametrize("n_steps", [3, None])
def test_other_pixels_are_refused(tiles, source, tiny, tmp_path, n_steps):
    if n_steps:
        with pytest.raises(KilledError):
            pretrain(source, tiny, tmp_path, killing_after(n_steps), device="cpu")
    else:
        pretrain(source, tiny, tmp_path, device="cpu")
    changed = tiles.copy()
    changed[3, 4, 5, 0] ^= 1
    with pytest.raises(TrainingError, match="pixels: "):
        pretrain(ArrayPixels(changed, mpp=1.0), tiny, tmp_path, device="cpu")


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_a_torn_checkpoint_is_an_error_that_says_what_to_do(source, tiny, tmp_path, uninterrupted, keep):
    with pytest.raises(KilledError):
        pretrain(source, tiny, tmp_path, killing_after(3), device="cpu")
    path = tmp_path / "checkpoints" / "last.pt"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep == 0.5 else keep])
    with pytest.raises(TrainingError, match=r"last\.pt: the checkpoint cannot be read.*Delete it"):
        pretrain(source, tiny, tmp_path, device="cpu")
    path.unlink()
    pretrain(source, tiny, tmp_path, device="cpu")
    assert contents(tmp_path) == contents(uninterrupted[0])


def test_metrics_hold_each_step_and_each_look_and_no_clock(uninterrupted):
    lines = read_lines(uninterrupted[0] / "metrics.jsonl")
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["step"] for line in lines if "monitor" in line] == [3, 6, 7]
    assert set(steps[0]) == {"step", "loss", "lr", "terms"}
    assert set(steps[0]["terms"]) == {"pos_sim", "neg_sim"}
    assert all(math.isfinite(line["loss"]) for line in steps)


def test_the_trained_card_says_how_tiles_are_prepared(uninterrupted, tiles):
    _, result = uninterrupted
    encoder = load_encoder(result.encoder, tile_px=32, mpp=1.0, device="cpu")
    assert encoder.fingerprint == result.fingerprint
    assert (encoder.card.input_px, encoder.card.method, encoder.card.embed_dim) == (26, "simclr", 24)
    assert encoder.card.mean == (0.75, 0.60, 0.72)
    assert encoder.embed(tiles).shape == (20, 24)


def test_training_changes_the_weights_and_lowers_the_loss(source, tiny, tmp_path):
    still = [f"views.{name}=0" for name in ("stain_gain", "stain_offset", "brightness", "contrast", "grey")]
    long = [f"run.{name}=40" for name in ("steps", "monitor_every", "checkpoint_every")]
    recipe = override(tiny, [*still, *long, "views.flip=false", "views.rotate=false"])
    result = pretrain(source, recipe, tmp_path, device="cpu")
    losses = [line["loss"] for line in read_lines(tmp_path / "metrics.jsonl") if "loss" in line]
    assert result.loss < np.mean(losses[:4]) - 0.3
    assert result.alarms == ()


def test_a_budget_finds_its_steps_and_then_is_the_same_run(source, tiny, tmp_path):
    recipe = override(tiny, ["run.steps=auto", "run.budget=0.4s"])
    by_budget = pretrain(source, recipe, tmp_path / "budget", device="cpu")
    assert read_recipe(tmp_path / "budget" / "recipe.yaml").run.steps == by_budget.steps
    assert not pretrain(source, recipe, tmp_path / "budget", device="cpu").is_new
    by_steps = pretrain(source, override(recipe, [f"run.steps={by_budget.steps}"]), tmp_path / "steps", device="cpu")
    assert by_steps.fingerprint == by_budget.fingerprint
    assert contents(tmp_path / "steps") == contents(tmp_path / "budget")


def test_a_budget_run_killed_goes_on_with_the_steps_it_found(source, tiny, tmp_path):
    recipe = override(tiny, ["run.steps=auto", "run.budget=0.4s"])
    with pytest.raises(KilledError):
        pretrain(source, recipe, tmp_path, killing_after(1), device="cpu")
    found = read_recipe(tmp_path / "recipe.yaml").run.steps
    assert pretrain(source, recipe, tmp_path, device="cpu").steps == found
    with pytest.raises(TrainingError, match=r"run\.budget: 0\.5s, 0\.4s"):
        pretrain(source, override(recipe, ["run.budget=0.5s"]), tmp_path, device="cpu")


@pytest.mark.parametrize("seconds", [1.0, 30.0, 60.0, 300.0])
@pytest.mark.parametrize("a_look", [0.0, 0.5, 4.0])
def test_steps_and_their_looks_fill_the_budget_and_no_more(seconds, a_look):
    steps = steps_within(seconds, 0.1, a_look)
    every = with_steps(read_recipe("simclr"), steps).run.monitor_every
    n_looks = steps // every + (steps % every > 0)
    spent = 0.1 * steps + a_look * n_looks
    assert spent <= seconds + a_look or steps == 1
    assert spent >= 0.8 * seconds - 2 * a_look or steps == 1


def test_a_loss_that_is_not_finite_stops_with_step_rate_and_a_capture(source, tiny, tmp_path):
    recipe = override(tiny, ["optimiser.lr=1e30", "optimiser.warmup=0"])
    with pytest.raises(TrainingError, match=r"loss became nan at step \d+ with learning rate \d.*precision: fp32") as e:
        pretrain(source, recipe, tmp_path, device="cpu")
    folder = next((tmp_path / "failures").iterdir())
    step = json.loads((folder / "step.json").read_text())["step"]
    assert f"at step {step} " in str(e.value)
    assert "under another --name" in str(e.value)
    assert not (tmp_path / "result.json").exists()
    with pytest.raises(TrainingError, match=f"loss became nan at step {step} "):
        replay(folder, ArrayPixels(np.zeros((20, 32, 32, 3), np.uint8), mpp=1.0), device="cpu")


class Failing(Supervised):
    """Its loss is no number at step 3."""

    def loss(self, batch):
        terms = super().loss(batch)
        return {**terms, "loss": terms["loss"] * (torch.nan if batch.step == 3 else 1)}


def test_a_mended_step_of_supervised_training_gives_the_loss_it_would_have_had(tiles, tiny, tmp_path, monkeypatch):
    """Rows of a run are those of its labelled tiles; `replay` is given all of them."""
    labels = Labels(np.tile([-1, 0, 1, 1, 0], 4), ("a", "b"), np.arange(20))
    recipe = override(read_recipe("supervised"), [*TINY, "run.label=kind"])
    source = ArrayPixels(tiles, 1.0, labels=labels)
    pretrain(source, recipe, tmp_path / "sound", device="cpu")
    expected = read_lines(tmp_path / "sound" / "metrics.jsonl")[4]  # after a look at step 3
    monkeypatch.setitem(METHODS, "supervised", Failing)
    with pytest.raises(TrainingError, match="loss became nan at step 3"):
        pretrain(source, recipe, tmp_path / "failed", device="cpu")
    monkeypatch.setitem(METHODS, "supervised", Supervised)
    stand_in = ArrayPixels(np.zeros_like(tiles), 1.0, labels=labels)
    found = replay(tmp_path / "failed" / "failures" / "step-0000003", stand_in, device="cpu")
    assert (found.loss, found.terms) == (expected["loss"], expected["terms"])


SMALL_VIT = ["backbone.name=vit_tiny_patch16_224", "backbone.init=random"]
SMALL_VIT_ARGS = "backbone.args={img_size: 32, patch_size: 8, embed_dim: 24, depth: 1, num_heads: 2%s}"


def test_a_vision_transformer_trains_and_embeds_at_sizes_it_takes(tiles, source, tiny, tmp_path):
    recipe = override(tiny, [*SMALL_VIT, SMALL_VIT_ARGS % ", dynamic_img_size: true", "views.train_px=auto"])
    result = pretrain(source, recipe, tmp_path, device="cpu")
    encoder = load_encoder(result.encoder, device="cpu")
    assert (encoder.card.input_px, encoder.embed(tiles).shape) == (24, (20, 24))
    assert result.notes == ()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (
            (SMALL_VIT_ARGS % "", "views.train_px=24"),
            r"views\.train_px: .* 24 px .*Set it to 32 or auto.*dynamic_img_size",
        ),
        ((SMALL_VIT_ARGS % "", "views.embed_px=26"), r"views\.embed_px: vit_tiny_patch16_224 cannot take .* 26 px"),
        ((SMALL_VIT_ARGS % ", dynamic_img_size: true", "views.embed_px=26"), r"embed_px: .*Set it to auto or to 24"),
        ((SMALL_VIT_ARGS % "", "views.local.px=16", "views.local.count=2"), r"views\.local\.px: .* 16 px"),
    ],
)
def test_a_size_the_network_cannot_take_is_refused_before_any_work(source, tiny, tmp_path, settings, match):
    with pytest.raises(RecipeError, match=match):
        pretrain(source, override(tiny, [*SMALL_VIT, *settings]), tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_embeds_at_a_zoom_it_was_not_trained_at_says_so(source, tiny, tmp_path):
    result = pretrain(source, override(tiny, ["run.steps=1", "views.embed_px=16"]), tmp_path, device="cpu")
    (note,) = result.notes
    assert note.startswith("the encoder embeds at 2.00 tile pixels a pixel, it was trained at 1.00 to 1.67")


class Constant(SimCLR):
    """An encoder that has collapsed and stays so."""

    def __init__(self, encoder, dim, recipe, source):
        super().__init__(encoder, dim, recipe, source)
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.zero_()
                parameter.requires_grad_(requires_grad=False)


def test_a_collapsed_encoder_is_flagged_at_the_end(source, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "constant", Constant)
    constant = dataclasses.replace(tiny, method="constant")
    result = pretrain(source, constant, tmp_path, device="cpu")
    assert any("constant encoder (2.708)" in alarm for alarm in result.alarms)
    assert any("collapsed: their spread is 0.000" in alarm for alarm in result.alarms)
    assert pretrain(source, constant, tmp_path, device="cpu").alarms == result.alarms


def test_too_few_tiles_are_refused(tiles, tiny, tmp_path):
    with pytest.raises(TrainingError, match="needs at least 2 tiles, there are 1"):
        pretrain(ArrayPixels(tiles[:1], mpp=1.0), tiny, tmp_path)


def test_fewer_tiles_than_a_batch_reduce_the_batch_and_say_so(tiles, tiny, tmp_path):
    result = pretrain(ArrayPixels(tiles[:5], mpp=1.0), override(tiny, ["run.steps=2"]), tmp_path, device="cpu")
    assert result.batch == 5
    assert any("5 tiles" in note for note in result.notes)


def test_training_can_begin_from_an_encoder_and_from_a_file(source, tiny, tmp_path, uninterrupted):
    start = uninterrupted[0] / "encoder"
    short = override(tiny, ["run.steps=1", "optimiser.lr=1e-12", "backbone.args={}"])
    from_folder = override(short, [f"backbone.init={start}", "backbone.name=auto", "backbone.args=auto"])
    from_file = override(tiny, ["run.steps=1", "optimiser.lr=1e-12", f"backbone.init={start / 'model.safetensors'}"])
    trained = load_encoder(start, device="cpu").network.state_dict()
    for name, recipe in (("folder", from_folder), ("file", from_file)):
        result = pretrain(source, recipe, tmp_path / name, device="cpu")
        state = load_encoder(result.encoder, device="cpu").network.state_dict()
        for key, value in state.items():
            if "running" not in key and "batches" not in key:
                torch.testing.assert_close(value, trained[key], rtol=0, atol=1e-6)


def test_events_carry_rates_and_the_live_line_loss_and_monitors(source, tiny, tmp_path):
    events, notes = [], []

    @contextmanager
    def report(stage, total, unit):
        class Task:
            def advance(self, n=1, note=""):
                notes.append((stage, total, unit, n, note))

        yield Task()

    pretrain(source, tiny, tmp_path, report, device="cpu", on_event=events.append)
    assert [event["step"] for event in events] == [1, 2, 3, 4, 5, 6, 7]
    assert all(event["seconds"] > 0 and event["views_per_s"] > 0 for event in events)
    assert events[2]["monitor"]["step"] == 3
    assert notes[0][:4] == ("pretrain", 7 * 16, "views", 16)
    assert "step 7/7  loss" in notes[-1][4]
    assert "rank" in notes[-1][4]


def test_an_interrupted_run_leaves_no_thread_behind(source, tiny, tmp_path):
    with pytest.raises(KilledError):
        pretrain(source, tiny, tmp_path, killing_after(2), device="cpu")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pixels")]


def test_a_source_that_gives_other_pixels_than_it_says_is_refused(source, tiny, tmp_path):
    class Liar:
        px, field_px, mpp, digest = 32, 32, 1.0, "x"
        slides, cohorts, places, labels = source.slides, source.cohorts, None, None

        def __len__(self):
            return 20

        def read(self, rows):
            return source.read(rows)[:, :16, :16]

    with pytest.raises(ValueError, match=r"gave \(\d+, 16, 16, 3\) uint8"):
        pretrain(Liar(), tiny, tmp_path, device="cpu")


@pytest.mark.slow
def test_a_compiled_encoder_trains_like_the_plain_one_and_saves_the_same_keys(source, tiny, tmp_path):
    still = override(tiny, ["backbone.args.drop_rate=0"])  # a compiled net draws its dropout otherwise
    plain_run = pretrain(source, still, tmp_path / "plain", device="cpu")
    compiled = pretrain(source, override(still, ["run.compile=true"]), tmp_path / "compiled", device="cpu")
    assert compiled.loss == pytest.approx(plain_run.loss, rel=0.02)
    keys = [load_encoder(run.encoder, device="cpu").network.state_dict().keys() for run in (plain_run, compiled)]
    assert list(keys[0]) == list(keys[1])


class Steep(SimCLR):
    """A loss that is finite where its gradient is not."""

    def loss(self, batch):
        terms = super().loss(batch)
        zero = terms["loss"] - terms["loss"].detach()
        return {**terms, "loss": terms["loss"] + zero.abs().sqrt()}


def test_a_gradient_that_is_not_finite_stops_before_any_weight_moves(source, tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "steep", Steep)
    with pytest.raises(TrainingError, match=r"gradient's length became (nan|inf) at step 0 "):
        pretrain(source, dataclasses.replace(tiny, method="steep"), tmp_path, device="cpu")
    assert not (tmp_path / "checkpoints").exists()
