"""Max pooling: the slide is what its most telling tile is."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from histokin.errors import RecipeError
from histokin.mil.bags import PackedBags
from histokin.mil.models import pooling
from histokin.mil.models.model import MilModel, embedding
from histokin.mil.objectives import Classes, Objective, log_odds
from histokin.mil.output import MilOutput

Rule = Literal["max", "topk_mean", "clam_mil"]


class MaxPool(MilModel):
    """Each tile is classified, the highest scores speak for the slide.

    With s_n = W2 relu(W1 x_n + b1) + b2:

        max:        logit_c = max_n s_nc, each class with a tile of its own
        topk_mean:  logit_c = mean of the k largest s_nc, min(k, N) of them
        clam_mil:   the scores of one tile are the slide's logits (mahmoodlab/CLAM, `MIL_fc`, `MIL_fc_mc`): with two
                    classes the tile with the largest probability of class 1, else the one with the largest probability
                    of any class

    `slide_embedding` holds, for each class, the (mean) embedding of the tiles that speak for it. Start it from an epoch
    of mean pooling: from random weights one seed of three never left its start (200 bags of digits).
    `faithful`: clam_mil.

    Args:
        dim: D.
        objective: what the logits mean; `clam_mil` needs `Classes`.
        hidden: widths of the layers that embed a tile.
        rule: which tiles speak.
        k: of `topk_mean`.
        dropout: after each embedding layer.
    """

    faithful: ClassVar[Mapping[str, Any]] = {"rule": "clam_mil"}

    def __init__(
        self,
        dim: int,
        objective: Objective,
        *,
        hidden: Sequence[int] = (512,),
        rule: Rule = "max",
        k: int = 8,
        dropout: float = 0.25,
    ) -> None:
        super().__init__(dim, objective)
        if rule not in ("max", "topk_mean", "clam_mil") or k < 1:
            raise RecipeError(f"rule '{rule}' with k={k} is unknown", "model max", "Known: max, topk_mean, clam_mil.")
        if rule == "clam_mil" and not isinstance(objective, Classes):
            raise RecipeError("clam_mil compares probabilities of classes", "model max", "Use it with Classes.")
        self.rule, self.k = rule, k
        self.embed = embedding(dim, hidden, dropout)
        self.head = nn.Linear([dim, *hidden][-1], objective.n_outputs)

    def forward(self, bags: PackedBags, target: Tensor | None = None) -> MilOutput:
        h = self.embed(self.tiles_of(bags))
        scores = self.head(h)
        if self.rule == "topk_mean":
            logits, z = _top_mean(scores, h, bags, self.k)
        else:
            if self.rule == "max":
                rows = pooling.argmax(scores, bags)  # (B, C)
            else:
                rows = most_probable(scores, bags)[:, None].expand(-1, scores.shape[1])
            logits, z = scores.gather(0, rows), h[rows]
        return MilOutput(
            logits=logits,
            slide_embedding=z.flatten(1),
            tile_logits=scores,
            losses=self.losses_of(logits, target),
        )


def most_probable(scores: Tensor, bags: PackedBags) -> Tensor:
    """The row of each bag's most probable tile, (B,): of class 1 if there are two classes, of any if there are more."""
    odds = log_odds(scores.detach())
    of_interest = odds[:, 1] if scores.shape[1] == 2 else odds.amax(1)
    return pooling.argmax(of_interest[:, None], bags)[:, 0]


def _top_mean(scores: Tensor, h: Tensor, bags: PackedBags, k: int) -> tuple[Tensor, Tensor]:
    """Per class the mean of the k highest scores, (B, C), and of their tiles' embeddings, (B, C, E)."""
    logits, embeddings = [], []
    for part, tiles in zip(scores.split(bags.sizes), h.split(bags.sizes), strict=True):
        top = part.topk(min(k, len(part)), dim=0)
        logits.append(top.values.mean(0))
        embeddings.append(tiles[top.indices].mean(0))
    return torch.stack(logits), torch.stack(embeddings)
