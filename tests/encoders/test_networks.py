"""Building networks by name, and heads after them."""

import numpy as np
import pytest
import torch
from torch import nn

from histokin.encoders import HeadedEncoder, build_network, head_of, with_head
from histokin.encoders.card import weights_digest
from histokin.encoders.networks import backbone_of, default_config, embedding_dim, pooling_of, seeded_torch
from histokin.errors import EncoderError

TINY = {"channels": (8, 8, 16, 24), "stem_width": 8, "layers": (1, 1, 1, 1)}


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


def test_token_networks_name_their_pooling():
    vit = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32}
    assert pooling_of(build_network("vit_tiny_patch16_224", vit, seed=0)) == "cls"
    assert pooling_of(build_network("vit_tiny_patch16_224", {**vit, "global_pool": "avg"}, seed=0)) == "mean"
    assert pooling_of(build_network("resnet10t", TINY, seed=0)) == "pooled"


def test_a_head_is_linear_batch_norm_relu_and_a_plain_linear_last(headed, network):
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    p = {key: value.numpy().astype(float) for key, value in headed.head.state_dict().items()}
    with torch.inference_mode():
        x = network.eval()(pixels).numpy().astype(float)
        found = headed(pixels).numpy()
    hidden = x @ p["0.weight"].T + p["0.bias"]
    hidden = (hidden - p["1.running_mean"]) / np.sqrt(p["1.running_var"] + 1e-5) * p["1.weight"] + p["1.bias"]
    np.testing.assert_allclose(found, np.maximum(hidden, 0) @ p["3.weight"].T + p["3.bias"], rtol=1e-4, atol=1e-5)
    assert found.min() < 0, "no ReLU after the last layer"


def test_the_head_of_the_siamese_descriptor_has_its_layers():
    with seeded_torch(0):
        head = with_head(build_network("resnet50", seed=0), (512, 128)).head
    shapes = [(layer.in_features, layer.out_features) for layer in head if isinstance(layer, nn.Linear)]
    assert shapes == [(2048, 512), (512, 128)]
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]


def test_one_width_is_a_plain_linear(network):
    with seeded_torch(0):
        assert [type(layer).__name__ for layer in with_head(network, (5,)).head] == ["Linear"]


def test_no_widths_are_no_head(network):
    assert with_head(network, ()) is network
    assert head_of(network) == ()


def test_a_headed_network_answers_as_what_it_is(headed, network):
    assert (embedding_dim(headed), embedding_dim(network)) == (6, 24)
    assert (head_of(headed), pooling_of(headed)) == ((10, 6), "pooled")
    assert backbone_of(headed) is network
    assert default_config(headed) is default_config(network)


@pytest.mark.parametrize("widths", [(0,), (4, -1)])
def test_widths_below_one_are_refused(network, widths):
    with pytest.raises(ValueError, match="widths >= 1"):
        HeadedEncoder(network, widths)


def test_a_head_of_a_token_network_keeps_the_name_of_its_pooling():
    vit = {"embed_dim": 16, "depth": 1, "num_heads": 2, "img_size": 32}
    with seeded_torch(0):
        assert pooling_of(with_head(build_network("vit_tiny_patch16_224", vit, seed=0), (4,))) == "cls"
