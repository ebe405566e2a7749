"""The golden cases of the state beside the encoder."""

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def case(golden):
    """A golden case by its id."""
    return {case["id"]: case for case in golden["cases"]}.__getitem__


@pytest.fixture(scope="session")
def chirp():
    """The reference's generator: (n, d, s) to (n, d) float64."""

    def make(n, d, s):
        i, j = np.mgrid[:n, :d]
        return torch.from_numpy(np.sin(0.37 * (i * d + j + 1.0) ** 2 + s))

    return make
