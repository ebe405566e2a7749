"""Finding the encoder that is meant: a name, random weights, the random floor."""

import dataclasses

import huggingface_hub
import numpy as np
import pytest

from histokin.encoders import HeadedEncoder, load_encoder, random_encoder
from histokin.errors import EncoderError


def test_weights_that_cannot_be_fetched_are_an_error_with_a_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EncoderError, match=r"resnet18: its published weights could not be had.*random:<name>"):
        load_encoder("resnet18", tile_px=32, mpp=1.0)


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


def test_a_folder_takes_no_other_weights(saved, tmp_path):
    with pytest.raises(EncoderError, match="a folder has its own weights"):
        load_encoder(saved[0], device="cpu", weights=tmp_path / "other.pth")


def test_a_path_that_is_not_there_is_not_taken_for_a_name():
    with pytest.raises(EncoderError, match="no such encoder folder"):
        load_encoder("runs/none/encoder", tile_px=32, mpp=1.0)


def test_the_random_floor_of_a_headed_encoder_has_a_head_of_its_own_seed(headed_card, tiles):
    first, again, other = (random_encoder(headed_card, seed, device="cpu") for seed in (1, 1, 2))
    assert isinstance(first.network, HeadedEncoder)
    assert first.embed(tiles).shape == (len(tiles), 6)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    weights = [encoder.network.head[0].weight for encoder in (first, other)]
    assert not np.allclose(*(w.detach().numpy() for w in weights))


def test_the_random_floor_normalises_stains_as_its_encoder_does(card):
    assert random_encoder(dataclasses.replace(card, normalise="lab"), 1, device="cpu").card.normalise == "lab"


def test_a_misspelt_published_encoder_is_answered_with_its_name():
    with pytest.raises(EncoderError, match=r"no network of this name.*retccl"):
        load_encoder("retcl", tile_px=32, mpp=1.0)
