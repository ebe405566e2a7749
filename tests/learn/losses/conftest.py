"""The reference's golden file as it was handed over, and its generator of inputs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def golden():
    return json.loads(Path(__file__).with_name("golden_methods.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def chirp():
    def chirp(n, d, s):
        i, j = np.mgrid[:n, :d]
        return torch.from_numpy(np.sin(0.37 * (i * d + j + 1.0) ** 2 + s))

    return chirp
