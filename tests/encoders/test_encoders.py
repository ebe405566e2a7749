"""Networks, weights files, cards, folders, and an encoder at work."""

import dataclasses
import hashlib
import json

import cv2
import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from histokin.encoders import (
    Encoder,
    EncoderCard,
    build_network,
    fingerprint,
    load_encoder,
    random_encoder,
    read_card,
    save_encoder,
)
from histokin.encoders.card import weights_digest
from histokin.encoders.encoder import normalise, resize_tiles
from histokin.encoders.networks import pooling_of, seeded_torch
from histokin.encoders.weights import fit_weights, read_weights
from histokin.errors import EncoderError

TINY = {"channels": (8, 8, 16, 24), "stem_width": 8, "layers": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def tiles():
    return np.random.default_rng(0).integers(0, 256, (11, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    network = build_network("resnet10t", TINY, seed=3)
    # Statistics that differ from BatchNorm's start, so that a forgotten buffer shows.
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.copy_(torch.linspace(0.5, 1.5, len(buffer)))
    return network


@pytest.fixture(scope="module")
def card():
    return EncoderCard(
        name="tiny",
        architecture="resnet10t",
        model_args=TINY,
        weights_sha256="",
        mean=(0.7, 0.6, 0.7),
        std=(0.2, 0.2, 0.2),
        mpp=1.0,
        tile_px=40,
        input_px=32,
        embed_dim=24,
        pooling="pooled",
        method="test",
    )


@pytest.fixture
def saved(tmp_path, network, card):
    return tmp_path / "encoder", save_encoder(tmp_path / "encoder", network, card)


def test_the_same_seed_gives_the_same_network_and_another_another():
    first, again, other = (weights_digest(build_network("resnet10t", TINY, seed=s).state_dict()) for s in (1, 1, 2))
    assert first == again != other


def test_building_a_network_leaves_torchs_global_generator_alone():
    before = torch.get_rng_state()
    build_network("resnet10t", TINY, seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_seeded_block_draws_by_its_seed_alone():
    draws = []
    for _ in range(2):
        with seeded_torch(5):
            draws.append(torch.rand(3))
        torch.rand(1)
    assert torch.equal(*draws)


def test_unknown_network_is_answered_with_near_names():
    with pytest.raises(EncoderError, match=r"no network of this name.*resnet18"):
        build_network("resnet18x", seed=0)


def test_unknown_tag_is_answered_with_the_known_ones():
    with pytest.raises(EncoderError, match=r"no weights 'nosuch' for resnet18.*a1_in1k"):
        build_network("resnet18.nosuch", seed=0, pretrained=True)


def test_arguments_a_network_does_not_take_are_refused():
    with pytest.raises(EncoderError, match="does not take these arguments"):
        build_network("resnet10t", {"n_legs": 4}, seed=0)


def test_weights_that_cannot_be_fetched_are_an_error_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"resnet18: its published weights could not be had.*random:<name>"):
        load_encoder("resnet18", tile_px=32, mpp=1.0)


@pytest.mark.parametrize("prefix", ["", "module.", "encoder_q.", "model.resnet.", "backbone.", "module.encoder_q."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_published_layouts_of_weights_files_load_exactly(tmp_path, network, tiles, prefix, suffix):
    state = {prefix + key: value.contiguous() for key, value in network.state_dict().items()}
    state[prefix + "fc.weight"] = torch.zeros(2, 24)
    if prefix:
        state["queue"] = torch.zeros(4, 24)  # beside the network: unused
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state, "epoch": 7}, path)
    else:
        save_file(state, path)
    loaded = build_network("resnet10t", TINY, seed=99, weights=path)
    assert weights_digest(loaded.state_dict()) == weights_digest(network.state_dict())


def test_a_key_that_holds_a_prefix_inside_its_name_is_not_damaged():
    wanted = {"a.model.b": torch.ones(1), "c": torch.ones(1)}
    fitted = fit_weights({f"model.{k}": v * 2 for k, v in wanted.items()}, wanted, where="x")
    assert {k: float(v) for k, v in fitted.state.items()} == {"a.model.b": 2.0, "c": 2.0}


def test_weights_of_another_network_are_refused_with_the_keys_named(tmp_path, network):
    path = tmp_path / "w.safetensors"
    save_file(network.state_dict(), path)
    with pytest.raises(EncoderError, match=r"missing \(.*layer1\.0.*of another shape|missing \(") as caught:
        build_network("resnet18", seed=0, weights=path)
    assert "encoder-weights-mismatch" in str(caught.value)
    wider = {**TINY, "channels": (8, 8, 16, 32)}
    with pytest.raises(EncoderError, match=r"of another shape \(layer4.*\(24,\) instead of \(32,\)"):
        build_network("resnet10t", wider, seed=0, weights=path)


def test_left_over_weights_are_refused(network):
    wanted = network.state_dict()
    with pytest.raises(EncoderError, match=r"1 left over \(layer9\.weight\)"):
        fit_weights({**wanted, "layer9.weight": torch.ones(1)}, wanted, where="x")


def test_a_pickle_that_runs_code_is_not_run(tmp_path):
    path = tmp_path / "evil.pth"

    class Evil:
        def __reduce__(self):
            return (path.with_suffix(".ran").touch, ())

    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(EncoderError, match="cannot be read safely"):
        read_weights(path)
    assert not path.with_suffix(".ran").exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04torn"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_damaged_weights_files_are_errors(tmp_path, content, suffix):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match="cannot be read safely"):
        read_weights(path)


def test_weights_digest_is_that_of_its_definition_and_blind_to_memory_format():
    weight = torch.arange(2 * 3 * 2 * 2, dtype=torch.float32).view(2, 3, 2, 2)
    text = b"w\x1ftorch.float32\x1f(2, 3, 2, 2)\x1f"
    expected = hashlib.sha256(text + np.arange(24, dtype="<f4").tobytes()).hexdigest()
    assert weights_digest({"w": weight}) == expected
    assert weights_digest({"w": weight.contiguous(memory_format=torch.channels_last)}) == expected
    assert weights_digest({"w": weight.to(torch.bfloat16)}) != expected


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("architecture", "resnet18"),
        ("model_args", {"layers": (1, 1, 1, 2)}),
        ("weights_sha256", "x"),
        ("mean", (0.1, 0.2, 0.3)),
        ("std", (0.1, 0.2, 0.3)),
        ("mpp", 0.5),
        ("tile_px", 41),
        ("input_px", 33),
        ("pooling", "cls"),
        ("embed_dim", 25),
    ],
)
def test_fingerprint_changes_with_everything_that_changes_vectors(card, field, value):
    assert fingerprint(dataclasses.replace(card, **{field: value})) != fingerprint(card)


def test_fingerprint_does_not_change_with_provenance(card):
    renamed = dataclasses.replace(card, name="other", method="other", run="other")
    assert fingerprint(renamed) == fingerprint(card)


def test_a_saved_encoder_gives_the_same_vectors_when_loaded(saved, network, tiles):
    folder, card = saved
    loaded = load_encoder(folder, device="cpu")
    assert loaded.card == dataclasses.replace(card, model_args=loaded.card.model_args)
    assert loaded.fingerprint == fingerprint(card)
    np.testing.assert_array_equal(loaded.embed(tiles), Encoder(network, card, device="cpu").embed(tiles))


def test_a_saved_encoder_opens_in_timm(saved, network):
    folder, _ = saved
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model(x), network.eval()(x))
    config = timm.data.resolve_model_data_config(model)
    assert (config["mean"], config["input_size"]) == ([0.7, 0.6, 0.7], [3, 32, 32])


def test_equal_encoders_are_saved_as_equal_bytes(tmp_path, network, card):
    folders = [tmp_path / "a", tmp_path / "b"]
    save_encoder(folders[0], network, card)
    save_encoder(folders[1], network.to(memory_format=torch.channels_last), card)
    for name in ("card.json", "config.json", "model.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_folder_without_card_is_unfinished(saved):
    folder, _ = saved
    (folder / "card.json").unlink()
    with pytest.raises(EncoderError, match=r"no card\.json"):
        load_encoder(folder)


def test_weights_that_are_not_the_cards_are_refused(saved):
    folder, _ = saved
    other = build_network("resnet10t", TINY, seed=4)
    save_file(other.state_dict(), folder / "model.safetensors")
    with pytest.raises(EncoderError, match="not those the card speaks of"):
        load_encoder(folder)


@pytest.mark.parametrize("damage", ["{", '{"format_version": "1.0"}', "[]"])
def test_a_damaged_card_is_an_error(saved, damage):
    folder, _ = saved
    (folder / "card.json").write_text(damage)
    with pytest.raises(EncoderError, match="card cannot be read"):
        read_card(folder)


def test_a_card_of_a_later_format_is_refused(saved):
    folder, _ = saved
    content = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps({**content, "format_version": "2.0"}))
    with pytest.raises(EncoderError, match=r"format 2\.0"):
        read_card(folder)


@pytest.mark.parametrize(("tile_px", "mpp"), [(41, None), (None, 0.5)])
def test_tiles_an_encoder_is_not_for_are_refused_with_both_sides(saved, tile_px, mpp):
    with pytest.raises(EncoderError, match=r"for tiles of 40 px at 1 mpp, these are of"):
        load_encoder(saved[0], tile_px=tile_px, mpp=mpp)


def test_tiles_of_another_shape_are_refused_when_embedding(network, card):
    with pytest.raises(EncoderError, match=r"takes \(n, 40, 40, 3\) uint8 tiles, got \(2, 32, 32, 3\)"):
        Encoder(network, card, device="cpu").embed(np.zeros((2, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("batch", [1, 2, 5, 11, 64])
def test_a_vector_does_not_depend_on_the_batch_it_is_in(network, card, tiles, batch):
    whole = Encoder(network, card, device="cpu").embed(tiles)
    parts = Encoder(network, card, device="cpu", batch=batch).embed(tiles)
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-5 * np.abs(whole).max())


def test_embedding_follows_its_definition(network, card, tiles):
    area = np.stack([cv2.resize(tile, (32, 32), interpolation=cv2.INTER_AREA) for tile in tiles])
    x = (area / 255 - np.array(card.mean)) / np.array(card.std)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(x).permute(0, 3, 1, 2).float().contiguous()).numpy()
    found = Encoder(network, card, device="cpu").embed(tiles)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_no_tiles_give_no_vectors(network, card):
    assert Encoder(network, card, device="cpu").embed(np.empty((0, 40, 40, 3), np.uint8)).shape == (0, 24)


def test_enlarging_interpolates():
    tile = np.zeros((1, 2, 2, 3), np.uint8)
    tile[0, :, 1] = 200
    assert len(np.unique(resize_tiles(tile, 8))) > 2


def test_normalise_gives_the_network_channels_last(tiles):
    assert normalise(torch.from_numpy(tiles), (0.5,) * 3, (0.5,) * 3).is_contiguous(memory_format=torch.channels_last)


def test_the_random_floor_differs_only_in_its_weights(saved, tiles):
    trained = load_encoder(saved[0], device="cpu")
    floor = random_encoder(trained.card, 1, device="cpu")
    assert floor.card.input_px == trained.card.input_px
    assert floor.card.method == "random"
    assert floor.fingerprint not in {trained.fingerprint, random_encoder(trained.card, 2, device="cpu").fingerprint}
    assert floor.embed(tiles).shape == trained.embed(tiles).shape


def test_a_network_by_name_can_have_random_weights(tiles):
    encoder = load_encoder("random:resnet10t", tile_px=40, mpp=0.5, device="cpu", seed=2)
    assert (encoder.name, encoder.dim, encoder.card.input_px) == ("resnet10t-random-2", 512, 40)
    assert encoder.embed(tiles[:2]).shape == (2, 512)


def test_a_network_by_name_must_know_its_tiles():
    with pytest.raises(EncoderError, match="needs to know its tiles"):
        load_encoder("random:resnet10t")


def test_a_path_that_is_not_there_is_not_taken_for_a_name():
    with pytest.raises(EncoderError, match="no such encoder folder"):
        load_encoder("runs/none/encoder", tile_px=32, mpp=1.0)


def test_token_networks_name_their_pooling():
    vit = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32}
    assert pooling_of(build_network("vit_tiny_patch16_224", vit, seed=0)) == "cls"
    assert pooling_of(build_network("vit_tiny_patch16_224", {**vit, "global_pool": "avg"}, seed=0)) == "mean"
    assert pooling_of(build_network("resnet10t", TINY, seed=0)) == "pooled"
