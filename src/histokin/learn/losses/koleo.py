"""KoLeo: spread embeddings by pushing nearest neighbours apart."""

import torch
from torch import Tensor

from histokin.learn.losses.rows import exactly, refuse_not_positive, refuse_unequal, unit


@exactly
def koleo(x: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Minus the mean logarithm of the distance to the nearest neighbour (Sablayrolles et al. 2019; DINOv2).

    With unit rows, n(i) the row of largest cosine to i (ties: lowest row) and eps as in the DINOv2 code:

        loss = -mean_i log( |x_i - x_n(i) + eps| + eps )

    Args:
        x: (B, D) floating, one view, any scale (normalised here); B >= 2.
        eps: positive; what equal rows count as distance.

    Returns:
        0-d float32 or better; may be negative. Each row with a twin in the batch adds 15 to 18 and a gradient of the
        order 1/eps: keep equal tiles apart or clip gradients.

    Raises:
        ValueError: x is not (B >= 2, D) or eps <= 0.
    """
    refuse_unequal(x, least=2)
    refuse_not_positive(eps=eps)
    x = unit(x)
    with torch.no_grad():
        nearest = (x @ x.T).fill_diagonal_(-torch.inf).argmax(1)
    return -(torch.linalg.vector_norm(x - x[nearest] + eps, dim=1) + eps).log().mean()
