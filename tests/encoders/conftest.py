"""One tiny encoder, with and without a head, for the tests of this room."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from histokin.encoders import EncoderCard, build_network, save_encoder, with_head
from histokin.encoders.networks import seeded_torch

TINY = {"channels": (8, 8, 16, 24), "stem_width": 8, "layers": (1, 1, 1, 1)}


def stir(network):
    """Give BatchNorm statistics that differ from its start, so that a forgotten buffer shows.

    Means about zero: above the maps' values they leave nothing past the ReLUs, and all vectors are zero.
    """
    for name, buffer in network.named_buffers():
        if "running" in name:
            low = -0.5 if name.endswith("mean") else 0.5
            buffer.copy_(torch.linspace(low, low + 1, len(buffer)))
    return network


@pytest.fixture(scope="session")
def tiles():
    return np.random.default_rng(0).integers(0, 256, (11, 40, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def built():
    return stir(build_network("resnet10t", TINY, seed=3))


@pytest.fixture
def network(built):
    """One of its own for each test: an encoder that takes it moves it to channels_last in place."""
    return copy.deepcopy(built)


@pytest.fixture(scope="session")
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
def headed(network):
    with seeded_torch(1):
        return stir(with_head(network, (10, 6))).eval()


@pytest.fixture(scope="session")
def headed_card(card):
    return dataclasses.replace(card, head=(10, 6), embed_dim=6)


@pytest.fixture
def saved(tmp_path, network, card):
    return tmp_path / "encoder", save_encoder(tmp_path / "encoder", network, card)
