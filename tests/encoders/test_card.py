"""The card, its fingerprint and the digest of weights."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from histokin.artefacts import digest_of, plain
from histokin.encoders import fingerprint
from histokin.encoders.card import weights_digest
from histokin.tissue.colour import TARGET


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


def test_the_fingerprint_of_a_plain_encoder_stays_what_stores_hold(card):
    card = dataclasses.replace(card, weights_sha256="ab" * 32)
    assert fingerprint(card) == "f84821812f46befce11c7d062507303f3eb79705ae9cff6e98f91f6f83be2c3a"


def test_a_head_and_stain_normalisation_each_change_the_fingerprint(card):
    headed = dataclasses.replace(card, head=(10, 24))
    other = dataclasses.replace(card, head=(11, 24))
    lab = dataclasses.replace(card, normalise="lab")
    both = dataclasses.replace(headed, normalise="lab")
    assert len({fingerprint(c) for c in (card, headed, other, lab, both)}) == 5


def test_the_fingerprint_of_stain_normalisation_holds_its_target(card, monkeypatch):
    lab = dataclasses.replace(card, normalise="lab")
    before = fingerprint(lab)
    monkeypatch.setattr("histokin.encoders.card.TARGET", dataclasses.replace(TARGET, mean=TARGET.mean + 1))
    assert fingerprint(lab) != before


def test_the_fingerprint_is_of_one_kind_for_lists_and_tuples(card):
    headed = dataclasses.replace(card, head=(10, 24))
    assert digest_of(plain(headed)) == digest_of(headed)
    assert fingerprint(dataclasses.replace(headed, head=[10, 24])) == fingerprint(headed)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": (10, 23)}, "end in embed_dim 24"),
        ({"head": (0, 24)}, "widths >= 1"),
        ({"normalise": "macenko"}, "normalise must be none or lab"),
        ({"tile_px": 0}, "must be >= 1"),
        ({"mpp": 0.0}, "mpp must be > 0"),
        ({"std": (0.2, 0.0, 0.2)}, "positive stds"),
    ],
)
def test_a_card_that_cannot_be_is_refused(card, fields, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(card, **fields)
