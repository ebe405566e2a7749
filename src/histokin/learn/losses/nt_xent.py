"""NT-Xent, the loss of SimCLR."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from histokin.learn.losses.rows import exactly, refuse_not_positive, refuse_unequal, unit


@exactly
def nt_xent(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """Pull the two views of each tile together, push every other view away.

    With z the 2B projections on the unit sphere, p(i) the other view of row i and
    s_ij = z_i . z_j / temperature (Chen et al. 2020, SimCLR, eq. 1):

        loss = mean_i( logsumexp_{j != i} s_ij - s_i,p(i) )

    Args:
        first: (B, D) floating, view 1, any scale (normalised here); B >= 2.
        second: (B, D) floating, view 2 of the same tiles in the same order.
        temperature: positive; 0.1 to 0.5 in the papers.

    Returns:
        0-d float32 (float64 for float64 views). A collapsed encoder gives log(2B - 1).

    Raises:
        ValueError: shapes differ, B < 2 or temperature <= 0.
    """
    refuse_unequal(first, second, least=2)
    refuse_not_positive(temperature=temperature)
    z = unit(torch.cat([first, second]))  # (2B, D)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)  # (2B, 2B)
    other_view = torch.arange(len(z), device=z.device).roll(len(first))
    return F.cross_entropy(logits, other_view)
