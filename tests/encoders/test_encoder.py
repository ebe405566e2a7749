"""An encoder at work."""

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from histokin.encoders import Encoder
from histokin.encoders.encoder import normalise, resize_tiles
from histokin.errors import EncoderError
from histokin.tissue.colour import TARGET, lab_statistics, normalise_lab


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


def test_the_vectors_of_these_tests_are_not_trivial(network, card, tiles):
    vectors = Encoder(network, card, device="cpu").embed(tiles)
    assert (vectors.std(axis=0) > 1e-3).sum() > 12


@pytest.fixture
def lab(network, card):
    return Encoder(network, dataclasses.replace(card, normalise="lab"), device="cpu")


def test_stain_normalisation_comes_before_everything_else(lab, network, card, tiles):
    sample = tiles[[0, 4]] // 2 + 60
    have = lab_statistics(sample)
    expected = Encoder(network, card, device="cpu").embed(normalise_lab(tiles, have, TARGET))
    np.testing.assert_array_equal(lab.for_slide(sample).embed(tiles), expected)
    assert np.abs(expected - Encoder(network, card, device="cpu").embed(tiles)).max() > 1e-3


def test_an_encoder_that_normalises_refuses_tiles_of_a_slide_it_has_not_seen(lab, tiles):
    with pytest.raises(EncoderError, match=r"has seen none of this one.*for_slide"):
        lab.embed(tiles)
    lab.for_slide(tiles[:2])
    with pytest.raises(EncoderError, match="has seen none"):
        lab.embed(tiles)


def test_fitting_to_a_slide_keeps_network_and_identity(lab, tiles):
    fitted = lab.for_slide(tiles)
    assert (fitted.fingerprint, fitted.name, fitted.dim) == (lab.fingerprint, lab.name, lab.dim)
    assert fitted.network is lab.network


def test_a_fit_needs_tiles_of_the_right_kind(lab, tiles):
    with pytest.raises(EncoderError, match="fitted to no tiles"):
        lab.for_slide(tiles[:0])
    with pytest.raises(EncoderError, match=r"takes \(n, 40, 40, 3\)"):
        lab.for_slide(tiles[:, :32])


def test_an_encoder_without_stain_normalisation_looks_at_no_slide(network, card):
    assert Encoder(network, card, device="cpu").for_slide is None
