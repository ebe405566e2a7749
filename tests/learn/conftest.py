"""Small tiles and a small recipe that train in a fraction of a second."""

import json
from pathlib import Path

import numpy as np
import pytest

from histokin.learn import ArrayPixels, override, read_recipe

TINY = [
    "precision=fp32",
    "backbone.name=resnet10t",
    "backbone.args={channels: [8, 8, 16, 24], stem_width: 8, layers: [1, 1, 1, 1], drop_rate: 0.1}",
    "views.train_px=32",
    "projector.hidden=16",
    "projector.out=8",
    "run.batch=8",
    "run.steps=7",
    "run.monitor_every=3",
    "run.monitor_tiles=12",
    "run.checkpoint_every=2",
]


@pytest.fixture(scope="session")
def golden():
    return json.loads(Path(__file__).with_name("golden_methods.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def tiles():
    """(20, 32, 32, 3) uint8: smooth coloured noise, pink on the whole."""
    rng = np.random.default_rng(7)
    coarse = rng.normal(0, 40, (20, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    return np.clip(coarse + np.array([190, 150, 180]) + rng.normal(0, 8, (20, 32, 32, 3)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def source(tiles):
    return ArrayPixels(tiles, mpp=1.0)


@pytest.fixture(scope="session")
def tiny():
    return override(read_recipe("simclr"), TINY)
