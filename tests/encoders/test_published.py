"""The published checkpoints: every layout with random weights in the real names and shapes, through the real loader."""

import argparse
import functools
import re
import types

import cv2
import numpy as np
import pytest
import torch

from histokin.encoders import PUBLISHED, build_network, load_encoder
from histokin.encoders.card import weights_digest
from histokin.encoders.published import advice
from histokin.errors import EncoderError

BLOCKS = {"resnet18": ((2, 2, 2, 2), 2), "resnet50": ((3, 4, 6, 3), 3)}


def torchvision_names(architecture):
    """The state's keys of torchvision's ResNets, written down from its layout."""
    depths, n_convolutions = BLOCKS[architecture]
    norms = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    names = ["conv1.weight", *(f"bn1.{n}" for n in norms)]
    for layer, depth in enumerate(depths, 1):
        for block in range(depth):
            at = f"layer{layer}.{block}"
            for i in range(1, n_convolutions + 1):
                names += [f"{at}.conv{i}.weight", *(f"{at}.bn{i}.{n}" for n in norms)]
            if block == 0 and (layer > 1 or architecture == "resnet50"):
                names += [f"{at}.downsample.0.weight", *(f"{at}.downsample.1.{n}" for n in norms)]
    return names


@functools.cache
def source(architecture):
    """A network with random weights whose BatchNorm statistics are no start values, in eval mode."""
    network = build_network(architecture, seed=5).eval()
    for name, buffer in network.named_buffers():
        if "running" in name:
            low = -0.5 if name.endswith("mean") else 0.5
            buffer.copy_(torch.linspace(low, low + 1, len(buffer)))
    return network.to(memory_format=torch.channels_last)


@functools.cache
def digest_of_source(architecture):
    return weights_digest(source(architecture).state_dict())


def named(prefix, architecture):
    return {prefix + key: value.contiguous() for key, value in source(architecture).state_dict().items()}


def linear(name, n_in, n_out, *, bias=True):
    return {f"{name}.weight": torch.ones(n_out, n_in)} | ({f"{name}.bias": torch.ones(n_out)} if bias else {})


def retccl_training():
    """A training checkpoint of CCL: the query encoder with its heads, the key encoder, the queue."""
    heads = linear("encoder_q.fc.0", 2048, 2048) | {
        "encoder_q.instDis.weight": torch.ones(2048, 128),
        "encoder_q.groupDis.weight": torch.ones(2048, 128),
    }
    beside = {"encoder_k.conv1.weight": torch.zeros(64, 3, 7, 7), "encoder_k.instDis.weight": torch.zeros(2048, 128)}
    beside |= {"queue": torch.zeros(128, 64), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    return named("encoder_q.", "resnet50") | heads | beside


def lightning(prefix, head):
    """What Lightning wraps around a state: options as a Namespace, an optimiser's state, counters as numpy numbers."""
    return {
        "epoch": np.int64(999),
        "state_dict": named(prefix, "resnet18") | head,
        "hyper_parameters": argparse.Namespace(lr=0.1, gpus="0,1", batch=np.float32(512)),
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}],
    }


def opened_sgcl():
    """A training checkpoint of OpenSelfSup."""
    beside = linear("neck.fc0", 512, 128) | {"memory_bank.feature_bank": torch.ones(8, 128)}
    return {"meta": {"epoch": 200}, "state_dict": named("backbone.", "resnet18") | beside, "optimizer": {"state": {}}}


CIGA_HEAD = linear("fc.1", 512, 512) | linear("fc.3", 512, 128)
LAYOUTS = {
    "retccl plain": ("retccl", lambda: named("", "resnet50")),
    "retccl training": ("retccl", retccl_training),
    "retccl parallel": ("retccl", lambda: named("module.", "resnet50")),
    "ciga model.resnet.": (
        "ciga",
        lambda: lightning("model.resnet.", {f"model.resnet.{key}": value for key, value in CIGA_HEAD.items()}),
    ),
    "ciga model.": ("ciga", lambda: lightning("model.", {f"model.projector.{k}": v for k, v in CIGA_HEAD.items()})),
    "ciga native": ("ciga", lambda: {"state_dict": named("", "resnet18") | CIGA_HEAD}),
    "sgcl training": ("sgcl", opened_sgcl),
    "sgcl extracted": ("sgcl", lambda: {"state_dict": named("", "resnet18"), "author": "OpenSelfSup"}),
    "lunit resnet": ("lunit-bt", lambda: named("", "resnet50")),
    "lunit vit": ("lunit-dino-s16", lambda: named("", "vit_small_patch16_224")),
    "lunit vit 8": ("lunit-dino-s8", lambda: named("", "vit_small_patch8_224")),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_published_layout_gives_exactly_its_networks_features(tmp_path, layout):
    name, content = LAYOUTS[layout]
    entry, path = PUBLISHED[name], tmp_path / "w.pth"
    torch.save(content(), path)
    encoder = load_encoder(name, weights=path, tile_px=64, mpp=0.9, device="cpu")
    card = encoder.card
    assert card.weights_sha256 == digest_of_source(entry.architecture)
    assert (card.name, card.architecture, card.method) == (name, entry.architecture, entry.method)
    assert (card.mean, card.std, card.input_px) == (entry.mean, entry.std, entry.input_px)
    assert (card.tile_px, card.mpp, card.embed_dim) == (64, 0.9, entry.dim)
    assert card.pooling == ("cls" if "vit" in entry.architecture else "pooled")
    if layout.endswith(("parallel", "native", "extracted", "8")):
        return  # equal weights give equal features: one layout of each network is enough for the slow part
    tiles = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    enlarged = cv2.resize(tiles[0], (entry.input_px, entry.input_px), interpolation=cv2.INTER_LINEAR)
    scale, shift = (
        torch.tensor([1 / (255 * s) for s in entry.std]),
        torch.tensor([-m / s for m, s in zip(entry.mean, entry.std, strict=True)]),
    )
    pixels = (torch.from_numpy(enlarged)[None].float() * scale + shift).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = source(entry.architecture)(pixels).numpy()
    found = encoder.embed(tiles)
    assert found.shape == (1, entry.dim)
    assert found.std() > 1e-3
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", PUBLISHED)
def test_an_entry_agrees_with_its_network(name):
    entry = PUBLISHED[name]
    state = source(entry.architecture).state_dict()
    assert len(state) == entry.n_tensors
    assert source(entry.architecture).num_features == entry.dim
    assert all(text for text in (entry.file, entry.source, entry.licence, entry.trained_on, entry.method))
    assert "https://github.com/" in entry.source


@pytest.mark.parametrize(("architecture", "n"), [("resnet18", 120), ("resnet50", 318)])
def test_the_networks_have_torchvisions_names(architecture, n):
    names = torchvision_names(architecture)
    assert len(names) == n
    assert set(source(architecture).state_dict()) == set(names)


def test_the_preparations_are_those_the_authors_state():
    imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    lunit = ((0.70322989, 0.53606487, 0.66096631), (0.21716536, 0.26081574, 0.20723464))
    known = {"retccl": (256, *imagenet), "ciga": (224, (0.5,) * 3, (0.5,) * 3), "sgcl": (224, *imagenet)}
    known |= {name: (224, *lunit) for name in PUBLISHED if name.startswith("lunit-")}
    assert {name: (entry.input_px, entry.mean, entry.std) for name, entry in PUBLISHED.items()} == known


# --- refusals -------------------------------------------------------------------------------------------------------


def refused(tmp_path, name, content, match):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match=match) as caught:
        load_encoder(name, weights=tmp_path / "w.pth", tile_px=64, mpp=1.0, device="cpu")
    assert caught.value.code == "encoder-weights-mismatch"
    return str(caught.value)


def test_a_prefix_that_is_not_the_files_is_refused_with_the_keys(tmp_path):
    said = refused(tmp_path, "ciga", named("net.", "resnet18"), r"100 missing \(bn1\.bias, .*120 left over \(net\.bn1")
    assert "ciga is tenpercent_resnet18.ckpt of https://github.com/ozanciga" in said
    refused(tmp_path, "sgcl", named("model.resnet.", "resnet18"), "100 missing")


def test_another_architecture_is_refused_with_the_keys(tmp_path):
    refused(tmp_path, "retccl", named("", "resnet18"), r"missing \(layer1\.0\.bn3")
    refused(tmp_path, "lunit-dino-s16", named("", "vit_small_patch8_224"), r"of another shape \(patch_embed\.proj")


def test_a_file_with_a_part_missing_is_refused_with_the_keys(tmp_path):
    part = {key: value for key, value in named("", "resnet18").items() if not key.startswith("layer4.1.conv2")}
    refused(tmp_path, "ciga", part, r"1 missing \(layer4\.1\.conv2\.weight\)")


@pytest.mark.parametrize(("name", "extra"), [("ciga", "layer5.weight"), ("sgcl", "fc.weight"), ("ciga", "queue")])
def test_a_tensor_that_no_one_named_is_refused(tmp_path, name, extra):
    content = named("", PUBLISHED[name].architecture) | {extra: torch.ones(1)}
    refused(tmp_path, name, content, rf"1 left over \({re.escape(extra)}\)")


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save(named("", "resnet18"), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(EncoderError, match="cannot be read safely"):
        load_encoder("ciga", weights=path, tile_px=64, mpp=1.0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_without_its_file_a_published_encoder_says_where_to_get_it(name):
    entry = PUBLISHED[name]
    with pytest.raises(EncoderError) as caught:
        load_encoder(name)
    for words in (
        f"{name}: its weights are not part of histokin",
        entry.file,
        entry.source,
        entry.licence,
        "--weights",
    ):
        assert words in str(caught.value)


def test_a_published_encoder_must_know_its_tiles(tmp_path):
    with pytest.raises(EncoderError, match="needs to know its tiles"):
        load_encoder("ciga", weights=tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "mpp", "is_warned"),
    [
        ("retccl", 1.0, False),
        ("retccl", 1.04, False),
        ("retccl", 0.5, True),
        ("retccl", 1.06, True),
        ("lunit-bt", 0.25, False),
        ("lunit-bt", 1.0, True),
        ("ciga", 3.0, False),
        ("sgcl", 3.0, False),
        ("resnet18", 3.0, False),
    ],
)
def test_advice_is_given_where_the_authors_name_another_pixel_size(name, mpp, is_warned):
    assert bool(advice(name, mpp)) == is_warned


def test_advice_names_both_sides():
    assert advice("lunit-bt", 1.0).startswith("lunit-bt is meant for tiles at 0.5 or 0.25 mpp, these are at 1:")


def test_the_catalogue_cannot_be_changed():
    assert isinstance(PUBLISHED, types.MappingProxyType)
