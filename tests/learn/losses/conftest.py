"""The reference's generator of inputs."""

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session")
def chirp():
    def chirp(n, d, s):
        i, j = np.mgrid[:n, :d]
        return torch.from_numpy(np.sin(0.37 * (i * d + j + 1.0) ** 2 + s))

    return chirp
