"""Recipes: shipped text, defaults, refusals that help, overrides, and what auto becomes."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch

from histokin.encoders import EncoderCard, build_network, save_encoder
from histokin.errors import RecipeError
from histokin.learn import Recipe, override, parse_duration, parse_recipe, read_recipe, recipe_text, resolve_recipe
from histokin.learn.methods import METHODS
from histokin.learn.methods.simclr import SimCLRSettings
from histokin.learn.reading import known_keys, shipped_recipes
from histokin.learn.recipe import AUTO, differences, fill_autos, settled, with_steps
from histokin.learn.resolve import default_train_px

CPU = torch.device("cpu")
METHODS_PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_shipped_recipe_is_the_defaults_with_every_key_commented():
    assert read_recipe("simclr") == Recipe("simclr", SimCLRSettings())
    text = shipped_recipes()["simclr"]
    for key in known_keys(SimCLRSettings):
        assert f"{key.rpartition('.')[2]}:" in text


@pytest.mark.parametrize("method", sorted(METHODS))
def test_each_method_has_a_recipe_that_shows_its_own_keys(method):
    text = shipped_recipes()[method]
    assert read_recipe(method).method == method
    for field in dataclasses.fields(METHODS[method].Settings):
        assert f"\n  {field.name}: " in text


def test_keys_left_out_are_those_of_the_methods_shipped_recipe():
    mine = parse_recipe("{method: dino, loss: {prototypes: 64}}", where="mine.yaml")
    assert mine.loss.prototypes == 64
    assert mine == override(read_recipe("dino"), ["loss.prototypes=64"])
    assert mine.views.local.count == 4


def test_a_method_is_chosen_by_its_recipe_and_not_by_an_override():
    with pytest.raises(RecipeError, match=r"recipe of its own.*--recipe dino"):
        override(read_recipe("simclr"), ["method=dino"])


def test_an_unknown_method_is_answered_with_the_known():
    with pytest.raises(RecipeError, match=r"no method 'dyno'. Known: barlow, byol"):
        parse_recipe("method: dyno", where="mine.yaml")


def test_a_queue_is_no_larger_than_a_quarter_of_the_tiles():
    queue = resolve_recipe(read_recipe("mocov2"), 80, 1000, CPU).loss.queue
    assert (queue, resolve_recipe(read_recipe("mocov2"), 80, 10**6, CPU).loss.queue) == (250, 65_536)


def test_a_recipe_survives_being_written_and_read():
    recipe = override(
        read_recipe("simclr"), ["seed=4", "optimiser.lr=1e-5", "backbone.args={a: [1, 2]}", "views.mean=[.1, .2, .3]"]
    )
    assert parse_recipe(recipe_text(recipe), where="x") == recipe


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("sed: 3", r"no key 'sed'\. The nearest known key is 'seed'"),
        ("loss: {temprature: 0.1}", r"no key 'loss\.temprature'\. The nearest known key is 'loss\.temperature'"),
        ("temperature: 0.1", r"no key 'temperature'\. The nearest known key is 'loss\.temperature'"),
        ("optimizer: {lr: 1}", r"no key 'optimizer'"),
        ("zzzqqq: 1", r"Known keys: method, loss\.temperature, seed"),
        ("loss: {temperature: -1}", r"loss: temperature must be > 0"),
        ("loss: {temperature: warm}", r"loss\.temperature: Input should be a valid number.*got 'warm'"),
        ("run: {steps: never}", r"run\.steps: .*got 'never'"),
        ("run: {budget: soon}", r"'soon' is no duration; write 90s, 5m or 1h30m"),
        ("run: {batch: 1}", r"batch must be >= 2"),
        ("views: {zoom_min: 3}", r"zoom_min <= zoom_max"),
        ("views: {grey: 2}", r"grey is a probability"),
        ("views: {std: [0.2, 0, 0.2]}", r"std must be > 0 in each channel"),
        ("views: {embed_zoom: 0}", r"embed_zoom must be > 0 or auto"),
        ("backbone: {head: [8, 0]}", r"head must be widths >= 1"),
        ("{method: ccl, loss: {groups: 1}}", r"groups must be >= 2 or auto"),
        ("precision: fp8", r"precision: .*got 'fp8'"),
        ("- a", r"a recipe is a mapping"),
        ("a: [", r"no YAML"),
    ],
)
def test_refusals_name_the_key_and_a_way_out(text, match):
    with pytest.raises(RecipeError, match=match):
        parse_recipe(text, where="mine.yaml")


def test_numbers_that_yaml_takes_for_text_are_numbers():
    assert parse_recipe("optimiser: {lr: 4e-3}", where="x").optimiser.lr == 0.004


def test_overrides_change_what_they_name():
    recipe = override(
        read_recipe("simclr"), ["loss.temperature=0.5", "run.steps=10", "backbone.args={}", "backbone.args.x=1"]
    )
    assert (recipe.loss.temperature, recipe.run.steps, recipe.backbone.args) == (0.5, 10, {"x": 1})


@pytest.mark.parametrize("assignment", ["loss.temprature=1", "los.temperature=1", "loss.temperature.x=1"])
def test_overrides_of_unknown_keys_are_refused(assignment):
    with pytest.raises(RecipeError, match=r"--set los.*no key.*nearest known key is 'loss\.temperature'"):
        override(read_recipe("simclr"), [assignment])


def test_an_override_without_a_value_is_refused():
    with pytest.raises(RecipeError, match="key=value"):
        override(read_recipe("simclr"), ["seed"])


def test_unknown_recipes_are_answered_with_the_shipped():
    with pytest.raises(RecipeError, match="shipped: barlow, byol, ccl, dino, mocov2, npid, sgcl, simclr, similarity"):
        read_recipe("simclear")


@pytest.mark.parametrize(
    ("px", "cpu", "gpu"), [(80, 48, 48), (128, 80, 80), (224, 96, 128), (256, 96, 160), (512, 96, 224), (32, 32, 32)]
)
def test_views_are_sized_by_tile_and_machine(px, cpu, gpu):
    assert (default_train_px(px, "cpu"), default_train_px(px, "cuda")) == (cpu, gpu)


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("resnet18", "{}", (96, 205, 40)),
        ("vit_tiny_patch16_224", "{dynamic_img_size: true}", (96, 208, 32)),
        ("vit_tiny_patch16_224", "{dynamic_img_size: true, dynamic_img_pad: true}", (96, 205, 40)),
        ("vit_tiny_patch16_224", "{}", (224, 224, 224)),
        ("vit_tiny_patch16_224", "{img_size: 96, patch_size: 8}", (96, 96, 96)),
        ("hiera_tiny_224", "{}", (224, 224, 224)),
    ],
)
def test_sizes_left_auto_are_those_the_network_takes(name, args, expected):
    recipe = override(read_recipe("dino"), [f"backbone.name={name}", f"backbone.args={args}"])
    views = resolve_recipe(recipe, 256, 1000, CPU).views
    assert (views.train_px, views.embed_px, views.local.px) == expected
    given = override(recipe, ["views.train_px=70", "views.embed_px=128", "views.local.px=50"])
    views = resolve_recipe(given, 256, 1000, CPU).views
    assert (views.train_px, views.embed_px, views.local.px, views.embed_zoom) == (70, 128, 50, 2.0)


def zooms(recipe, px, device):
    """Smallest of its crops, of the encoder, largest of its crops."""
    views = resolve_recipe(recipe, px, 10**6, torch.device(device)).views
    return views.zoom_min, px / views.embed_px, views.zoom_max


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_shipped_recipe_embeds_at_a_zoom_it_trains_at(name):
    recipe = override(read_recipe(name), ["precision=fp32"])
    for px in (64, 80, 128, 224, 256, 512):
        for device in ("cpu", "cuda"):
            assert sorted(zooms(recipe, px, device)) == list(zooms(recipe, px, device)), (px, device)


def test_the_papers_settings_embed_at_a_zoom_they_train_at():
    blocks = re.findall(r"^```yaml\n(.*?)^```", METHODS_PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) == len(METHODS) - 1
    for block in blocks:
        recipe = override(parse_recipe(block, where=METHODS_PAGE), ["precision=fp32"])
        for px in (224, 256):
            found = zooms(recipe, px, "cpu")
            assert sorted(found) == list(found), (recipe.method, px)


@pytest.mark.parametrize(
    ("method", "settings", "match"),
    [
        ("ccl", ["loss.clusters=300"], r"250 keys of the queue cannot be put into 300 clusters"),
        ("ccl", ["loss.queue=40", "loss.clusters=41"], r"40 keys .* 41 clusters.*or auto"),
        ("sgcl", ["loss.clusters=1001"], r"3 clusterings of 1000 tiles cannot have 1001 clusters each"),
        ("sgcl", ["loss.clusters=1000", "loss.clusterings=7"], r"7 clusterings .* few clusterings"),
    ],
)
def test_clusters_that_cannot_be_are_refused_before_training(method, settings, match):
    with pytest.raises(RecipeError, match=match):
        resolve_recipe(override(read_recipe(method), settings), 80, 1000, CPU)


def test_everything_auto_is_filled_once_the_steps_are_known():
    recipe = with_steps(resolve_recipe(read_recipe("simclr"), 80, 1000, CPU), 1000)
    assert "auto" not in recipe_text(recipe)
    assert (recipe.backbone.name, recipe.views.train_px, recipe.views.embed_px) == ("resnet10t", 48, 64)
    assert (recipe.run.checkpoint_every, recipe.run.monitor_every) == (50, 125)


def test_the_backbone_is_larger_on_a_gpu():
    recipe = override(read_recipe("simclr"), ["precision=bf16"])
    assert resolve_recipe(recipe, 256, 1000, torch.device("cuda")).backbone.name == "resnet50"


def test_a_named_backbone_gets_no_arguments_of_the_small_one():
    assert (
        resolve_recipe(override(read_recipe("simclr"), ["backbone.name=resnet18"]), 80, 1000, CPU).backbone.args == {}
    )


def test_initial_weights_bring_their_network_and_normalisation(tmp_path):
    args = {"channels": [8, 8, 16, 24], "stem_width": 8, "layers": [1, 1, 1, 1]}
    network = build_network("resnet10t", args, seed=0)
    assert resolve_recipe(read_recipe("simclr"), 32, 1000, CPU).views.normalise == "none"
    card = EncoderCard(
        name="a",
        architecture="resnet10t",
        model_args=args,
        weights_sha256="",
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        mpp=1.0,
        tile_px=64,
        input_px=47,
        embed_dim=24,
        pooling="pooled",
        method="x",
        normalise="lab",
    )
    save_encoder(tmp_path, network, card)
    asked = override(read_recipe("simclr"), [f"backbone.init={tmp_path}"])
    recipe = resolve_recipe(asked, 64, 1000, CPU)
    assert (recipe.backbone.args, recipe.views.mean, recipe.views.std) == (args, card.mean, card.std)
    assert (recipe.views.normalise, recipe.views.embed_px, recipe.views.embed_zoom) == ("lab", 47, 64 / 47)
    assert resolve_recipe(asked, 128, 1000, CPU).views.embed_px == 94  # the zoom is brought along, not the size
    own = resolve_recipe(override(asked, ["views.normalise=none", "views.embed_zoom=1"]), 64, 1000, CPU).views
    assert (own.normalise, own.embed_px) == ("none", 64)


def test_initial_weights_that_do_not_exist_are_refused():
    with pytest.raises(RecipeError, match="neither an encoder folder nor a weights file"):
        resolve_recipe(override(read_recipe("simclr"), ["backbone.init=runs/none"]), 32, 1000, CPU)


def test_an_unresolved_key_is_not_used():
    with pytest.raises(ValueError, match=r"run\.steps is still auto"):
        settled(read_recipe("simclr").run.steps, "run.steps")


def test_differences_name_keys_and_both_sides():
    other = override(read_recipe("simclr"), ["loss.temperature=0.5", "seed=1"])
    assert differences(read_recipe("simclr"), other) == ["loss.temperature: 0.2, 0.5", "seed: 0, 1"]


def test_autos_are_filled_from_what_a_run_found_and_nothing_else():
    found = with_steps(resolve_recipe(read_recipe("simclr"), 80, 1000, CPU), 123)
    asked = override(read_recipe("simclr"), ["loss.temperature=0.5"])
    filled = fill_autos(asked, found)
    assert filled.run.steps == 123
    assert differences(filled, found) == ["loss.temperature: 0.5, 0.2"]
    assert asked.run.steps == AUTO


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("5m", 300), ("1h", 3600), ("1h30m", 5400), ("0.5m", 30), ("45", 45), (12, 12)]
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "m", "5x", "-3s", "5m3h", "nan"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)
