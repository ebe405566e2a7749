"""Mean pooling."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from histokin.mil.bags import PackedBags
from histokin.mil.models import pooling
from histokin.mil.models.model import MilModel, contributions, embedding
from histokin.mil.objectives import Objective
from histokin.mil.output import MilOutput


class MeanPool(MilModel):
    """The mean tile, classified by one linear layer: the first row of every table.

        logits = W mean_n(h_n) + b,   h_n = x_n, or relu(W1 x_n + b1) where `hidden` is given

    `tile_logits` are those of a bag of one tile alone, `tile_contrib` is W h_n / N. On strong encoders hard to beat.

    Args:
        dim: D.
        objective: what the logits mean.
        hidden: widths of the layers that embed a tile; none by default.
        dropout: after each of them.
    """

    def __init__(self, dim: int, objective: Objective, *, hidden: Sequence[int] = (), dropout: float = 0.25) -> None:
        super().__init__(dim, objective)
        self.embed = embedding(dim, hidden, dropout)
        self.head = nn.Linear([dim, *hidden][-1], objective.n_outputs)

    def forward(self, bags: PackedBags, target: Tensor | None = None) -> MilOutput:
        h = self.embed(self.tiles_of(bags))
        weights = pooling.mean_weights(bags, h.dtype)
        z = pooling.weighted_sum(weights, h, bags)[:, 0]
        logits = self.head(z)
        with torch.no_grad():
            alone = self.head(h)
        return MilOutput(
            logits=logits,
            slide_embedding=z,
            weights=weights,
            tile_logits=alone,
            tile_contrib=contributions(weights, h, self.head.weight[:, None]),
            losses=self.losses_of(logits, target),
        )
