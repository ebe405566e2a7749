"""Attention pooling: ABMIL."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from histokin.mil.bags import PackedBags
from histokin.mil.models import pooling
from histokin.mil.models.model import Activation, Attention, MilModel, contributions, embedding
from histokin.mil.objectives import Objective
from histokin.mil.output import MilOutput


class Abmil(MilModel):
    """Attention-based MIL (Ilse, Tomczak & Welling, ICML 2018; code AMLab-Amsterdam/AttentionDeepMIL).

    With h_n = relu(W x_n + b), raw attention a_n (see `Attention`) and w = softmax over the tiles of a bag:

        z = sum_n w_n h_n        logits = W_c z + b_c

    Branches are concatenated into the head, as in the authors' code. `tile_logits` are those of a bag of one tile
    alone, `tile_contrib` is w_n (W_c h_n).

    Deviations: C logits with the objective's loss in place of one sigmoid output; dropout; A = 256. `faithful`: A = 128
    and no dropout.

    Args:
        dim: D.
        objective: what the logits mean.
        hidden: widths of the layers that embed a tile; the last is E.
        attention: A.
        gated: gated or plain attention.
        branches: K.
        dropout: after each embedding layer and within the attention.
        activation, norm: see `embedding`.
    """

    faithful: ClassVar[Mapping[str, Any]] = {"attention": 128, "dropout": 0.0}

    def __init__(
        self,
        dim: int,
        objective: Objective,
        *,
        hidden: Sequence[int] = (512,),
        attention: int = 256,
        gated: bool = True,
        branches: int = 1,
        dropout: float = 0.25,
        activation: Activation = "relu",
        norm: bool = False,
    ) -> None:
        super().__init__(dim, objective)
        self.embed = embedding(dim, hidden, dropout, activation=activation, norm=norm)
        width = [dim, *hidden][-1]
        self.attention = Attention(width, attention, branches=branches, gated=gated, dropout=dropout)
        self.head = nn.Linear(branches * width, objective.n_outputs)

    def forward(self, bags: PackedBags, target: Tensor | None = None) -> MilOutput:
        h = self.embed(self.tiles_of(bags))
        scores = self.attention(h)
        weights = pooling.softmax(scores, bags)
        z = pooling.weighted_sum(weights, h, bags).flatten(1)
        logits = self.head(z)
        heads = self.head.weight.unflatten(1, (weights.shape[1], -1))  # (C, K, E)
        with torch.no_grad():
            alone = h @ heads.sum(1).T + self.head.bias
        return MilOutput(
            logits=logits,
            slide_embedding=z,
            attention=scores,
            weights=weights,
            tile_logits=alone,
            tile_contrib=contributions(weights, h, heads),
            losses=self.losses_of(logits, target),
        )
