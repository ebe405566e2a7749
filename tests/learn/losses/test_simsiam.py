"""SimSiam against a loop written from the formula."""

import numpy as np
import pytest
import torch

from histokin.learn.losses import byol, simsiam


@pytest.mark.parametrize("B", [1, 2, 7])
@pytest.mark.parametrize("D", [1, 5])
def test_equals_the_loop_of_the_formula_and_byol_in_other_units(B, D):
    p1, z2, p2, z1 = arrays = np.random.default_rng(B * 10 + D).normal(size=(4, B, D))
    total = 0.0
    for p, z in ((p1, z2), (p2, z1)):
        for i in range(B):
            total -= (p[i] @ z[i]) / np.sqrt(p[i] @ p[i]) / np.sqrt(z[i] @ z[i]) / 2
    loss = simsiam(*torch.from_numpy(arrays))
    assert loss.item() == pytest.approx(total / B, rel=1e-9, abs=1e-12)
    assert byol(*torch.from_numpy(arrays)).item() == pytest.approx(4 + 4 * loss.item(), rel=1e-9, abs=1e-12)


def test_a_collapsed_encoder_gives_minus_one():
    assert simsiam(*[torch.ones(5, 3)] * 4).item() == pytest.approx(-1)


def test_views_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="four equal"):
        simsiam(torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 3), torch.ones(2, 4))
