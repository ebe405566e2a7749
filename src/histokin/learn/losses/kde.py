"""KDE regulariser: spread embeddings by lowering their mean log density on the sphere."""

import math

import torch
from torch import Tensor

from histokin.learn.losses.rows import exactly, refuse_not_positive, refuse_unequal, unit


@exactly
def kde(x: Tensor, *, kappa: float = 5.0, include_self: bool = True) -> Tensor:
    """Mean log density of the rows under a von Mises-Fisher kernel; lower is more spread.

    With unit rows, n = B, or B - 1 without the row itself (the regulariser of Virchow2, Zimmermann et al. 2024):

        loss = + mean_i log( (1/n) sum_j exp(kappa x_i.x_j) )

    The sign is plus: density is minimised. A public implementation returns the negative, which pulls rows together.

    Args:
        x: (B, D) floating, one view, any scale (normalised here); B >= 2.
        kappa: concentration of the kernel, positive.
        include_self: whether a row counts in its own density: a constant, which bounds the loss below.

    Returns:
        0-d float32 or better. A collapsed encoder gives kappa, orthogonal rows log((e^kappa + B - 1) / B).

    Raises:
        ValueError: x is not (B >= 2, D) or kappa <= 0.
    """
    refuse_unequal(x, least=2)
    refuse_not_positive(kappa=kappa)
    x = unit(x)
    logits = kappa * x @ x.T
    if not include_self:
        logits = logits.masked_fill(torch.eye(len(x), dtype=torch.bool, device=x.device), -torch.inf)
    return (logits.logsumexp(1) - math.log(len(x) if include_self else len(x) - 1)).mean()
