"""Encoders' folders: what is written, what is read, what is refused."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from histokin.encoders import Encoder, EncoderCard, build_network, fingerprint, load_encoder, read_card, save_encoder
from histokin.encoders.card import weights_digest
from histokin.errors import EncoderError

TINY = {"channels": (8, 8, 16, 24), "stem_width": 8, "layers": (1, 1, 1, 1)}


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


# --- heads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved_headed(tmp_path, headed, headed_card):
    return tmp_path / "headed", save_encoder(tmp_path / "headed", headed, headed_card)


def test_a_saved_headed_encoder_gives_the_same_vectors_when_loaded(saved_headed, headed, tiles):
    folder, card = saved_headed
    before = torch.get_rng_state()
    loaded = load_encoder(folder, device="cpu")
    assert torch.equal(before, torch.get_rng_state())
    assert (loaded.dim, loaded.card.head, loaded.fingerprint) == (6, (10, 6), fingerprint(card))
    np.testing.assert_array_equal(loaded.embed(tiles), Encoder(headed, card, device="cpu").embed(tiles))


def test_a_saved_headed_encoder_opens_in_timm_without_its_head(saved_headed, network):
    model = timm.create_model(f"local-dir:{saved_headed[0]}", pretrained=True).eval()
    assert json.loads((saved_headed[0] / "config.json").read_text())["num_features"] == model.num_features == 24
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(model(x), network.eval()(x))


def test_the_digest_covers_the_head(saved_headed, headed):
    folder, card = saved_headed
    assert card.weights_sha256 == weights_digest(headed.state_dict())
    state = load_file(folder / "head.safetensors")
    assert sorted(state) == sorted(headed.head.state_dict())
    save_file({**state, "3.bias": state["3.bias"] + 1}, folder / "head.safetensors")
    with pytest.raises(EncoderError, match="not those the card speaks of"):
        load_encoder(folder)


def test_a_head_without_its_file_or_of_another_shape_is_refused(saved_headed):
    folder, _ = saved_headed
    state = load_file(folder / "head.safetensors")
    save_file({**state, "3.bias": torch.zeros(7)}, folder / "head.safetensors")
    with pytest.raises(EncoderError, match=r"head\.safetensors: .*3\.bias \(7,\) instead of \(6,\)"):
        load_encoder(folder)
    (folder / "head.safetensors").unlink()
    with pytest.raises(EncoderError, match=r"head\.safetensors: there is no such weights file"):
        load_encoder(folder)


def test_a_folder_saved_anew_without_head_holds_none(saved_headed, network, card):
    folder, _ = saved_headed
    save_encoder(folder, network, card)
    assert not (folder / "head.safetensors").exists()
    assert load_encoder(folder, device="cpu").dim == 24


def test_card_and_network_must_agree_on_the_head(tmp_path, network, headed, card, headed_card):
    for one, other in ((network, headed_card), (headed, card)):
        with pytest.raises(ValueError, match="the network's head is"):
            save_encoder(tmp_path / "x", one, other)


def test_a_card_from_before_heads_and_stain_normalisation_reads_as_without(saved):
    folder, card = saved
    content = json.loads((folder / "card.json").read_text())
    older = {key: value for key, value in content.items() if key not in ("head", "normalise")}
    (folder / "card.json").write_text(json.dumps(older))
    assert fingerprint(read_card(folder)) == fingerprint(card) == content["fingerprint"]


# --- another field --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tile_px", "input_px"), [(79, 63), (20, 16), (159, 127), (1, 1)])
def test_another_field_is_seen_at_the_same_zoom(saved, network, tile_px, input_px):
    encoder = load_encoder(saved[0], tile_px=tile_px, mpp=1.0, any_field=True, device="cpu")
    assert (encoder.card.tile_px, encoder.card.input_px, encoder.card.mpp) == (tile_px, input_px, 1.0)
    assert encoder.fingerprint != fingerprint(saved[1])


def test_another_fields_vectors_are_the_networks_own(saved, network, card):
    tiles = np.random.default_rng(1).integers(0, 256, (3, 79, 79, 3), dtype=np.uint8)
    area = np.stack([cv2.resize(tile, (63, 63), interpolation=cv2.INTER_AREA) for tile in tiles])
    x = (area / 255 - np.array(card.mean)) / np.array(card.std)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(x).permute(0, 3, 1, 2).float().contiguous()).numpy()
    found = load_encoder(saved[0], tile_px=79, mpp=1.0, any_field=True, device="cpu").embed(tiles)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mpp", [0.98, 1.004, 1.02])
@pytest.mark.parametrize("tile_px", [40, 79])
def test_a_pixel_size_within_two_percent_is_taken_from_the_tiles(saved, mpp, tile_px):
    assert load_encoder(saved[0], tile_px=tile_px, mpp=mpp, any_field=True, device="cpu").card.mpp == mpp


@pytest.mark.parametrize("mpp", [0.979, 1.021, 0.5])
def test_another_scale_stays_refused(saved, mpp):
    with pytest.raises(EncoderError, match=r"another scale is not\. Cut tiles with --tile-px 40 --tile-mpp 1\."):
        load_encoder(saved[0], tile_px=79, mpp=mpp, any_field=True)


def test_the_encoders_own_tiles_change_nothing(saved):
    encoder = load_encoder(saved[0], tile_px=40, mpp=1.0005, any_field=True, device="cpu")
    assert encoder.fingerprint == fingerprint(saved[1])
    assert load_encoder(saved[0], any_field=True, device="cpu").fingerprint == fingerprint(saved[1])


def test_the_refusal_of_another_field_names_the_way_out_where_there_is_one(saved):
    with pytest.raises(EncoderError, match=r"--any-field \(any_field=True\)"):
        load_encoder(saved[0], tile_px=79, mpp=1.0)
    with pytest.raises(EncoderError, match=r"--tile-mpp 1\. \[encoder\]$"):
        load_encoder(saved[0], tile_px=79, mpp=0.5)


def test_a_network_of_one_size_refuses_another_field(tmp_path):
    vit = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32}
    card = EncoderCard(
        name="vit",
        architecture="vit_tiny_patch16_224",
        model_args=vit,
        weights_sha256="",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        mpp=1.0,
        tile_px=32,
        input_px=32,
        embed_dim=16,
        pooling="cls",
        method="test",
    )
    save_encoder(tmp_path, build_network("vit_tiny_patch16_224", vit, seed=0), card)
    with pytest.raises(EncoderError, match=r"vit_tiny_patch16_224 takes one size only\. Cut tiles"):
        load_encoder(tmp_path, tile_px=64, mpp=1.0, any_field=True)


def test_head_and_stain_normalisation_go_with_the_encoder_to_another_field(tmp_path, headed, headed_card):
    save_encoder(tmp_path, headed, dataclasses.replace(headed_card, normalise="lab"))
    encoder = load_encoder(tmp_path, tile_px=80, mpp=1.0, any_field=True, device="cpu")
    assert (encoder.card.head, encoder.card.normalise, encoder.card.input_px) == ((10, 6), "lab", 64)
    tiles = np.random.default_rng(1).integers(0, 256, (2, 80, 80, 3), dtype=np.uint8)
    assert encoder.for_slide(tiles).embed(tiles).shape == (2, 6)
