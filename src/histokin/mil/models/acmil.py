"""Several branches of attention that are kept apart: ACMIL."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from histokin.errors import RecipeError
from histokin.mil.bags import PackedBags
from histokin.mil.models import pooling
from histokin.mil.models.model import Attention, MilModel, contributions
from histokin.mil.objectives import Objective
from histokin.mil.output import MilOutput


class Acmil(MilModel):
    """Attention-challenging MIL with gated attention (Zhang et al., ECCV 2024; code dazhangyu123/ACMIL, ACMIL_GA).

    ABMIL with K branches w_k, each with a head of its own, and a slide head that reads their mean:

        z_k = sum_n w_kn h_n        z = sum_n mean_k(w_kn) h_n        h_n = relu(W x_n), without bias
        loss = mean_k l(head_k(z_k)) + l(head(z)) + mean_{j < k} cos(w_j, w_k)

    While training, a random `mask_share` of the `n_masked` highest tiles of each branch is left out, so that attention
    does not settle on a few tiles. `tile_logits` and `tile_contrib` are the slide head's. `faithful`: no dropout.

    Args:
        dim: D.
        objective: what the logits mean.
        width: E.
        attention: A.
        branches: K.
        n_masked: tiles of each branch that may be left out; 0 for none.
        mask_share: of them, in [0, 1).
        dropout: after the embedding and within the attention.
    """

    faithful: ClassVar[Mapping[str, Any]] = {"dropout": 0.0}

    def __init__(
        self,
        dim: int,
        objective: Objective,
        *,
        width: int = 512,
        attention: int = 128,
        branches: int = 5,
        n_masked: int = 10,
        mask_share: float = 0.6,
        dropout: float = 0.25,
    ) -> None:
        super().__init__(dim, objective)
        if branches < 1 or n_masked < 0 or not 0 <= mask_share < 1:
            raise RecipeError(
                f"branches={branches}, n_masked={n_masked}, mask_share={mask_share} cannot be",
                "model acmil",
                "Use branches >= 1, n_masked >= 0, mask_share in [0, 1).",
            )
        self.n_masked, self.mask_share = n_masked, mask_share
        self.embed = nn.Sequential(nn.Linear(dim, width, bias=False), nn.ReLU(), nn.Dropout(dropout))
        self.attention = Attention(width, attention, branches=branches, dropout=dropout)
        self.branch_heads = nn.ModuleList(nn.Linear(width, objective.n_outputs) for _ in range(branches))
        self.head = nn.Linear(width, objective.n_outputs)

    def forward(self, bags: PackedBags, target: Tensor | None = None) -> MilOutput:
        h = self.embed(self.tiles_of(bags))
        scores = self.attention(h)
        weights = pooling.softmax(self._masked(scores, bags) if self.training else scores, bags)
        branches = pooling.weighted_sum(weights, h, bags)  # (B, K, E)
        z = branches.mean(1)
        logits = self.head(z)
        losses = self.losses_of(logits, target)
        if target is not None:
            each = [self.objective.loss(head(branches[:, k]), target) for k, head in enumerate(self.branch_heads)]
            losses |= {"branches": torch.stack(each).mean(), "likeness": likeness(weights, bags)}
        with torch.no_grad():
            alone = self.head(h)
        return MilOutput(
            logits=logits,
            slide_embedding=z,
            attention=scores,
            weights=weights,
            tile_logits=alone,
            tile_contrib=contributions(weights.mean(1, keepdim=True), h, self.head.weight[:, None]),
            losses=losses,
        )

    def _masked(self, scores: Tensor, bags: PackedBags) -> Tensor:
        parts = []
        for part in scores.split(bags.sizes):
            n = min(self.n_masked, len(part))
            top = part.detach().topk(n, dim=0).indices  # (n, K)
            drawn = torch.rand(top.shape, device=top.device).argsort(0)[: int(n * self.mask_share)]
            parts.append(part.scatter(0, top.gather(0, drawn), -torch.inf))  # never all of a bag: the share is below 1
        return torch.cat(parts)


def likeness(weights: Tensor, bags: PackedBags) -> Tensor:
    """Mean cosine of the attention of two branches, over pairs and bags; 0-d, 0 for a single branch."""
    gram = pooling.weighted_sum(weights, weights, bags)  # (B, K, K)
    norm = gram.diagonal(dim1=1, dim2=2).sqrt()
    first, second = torch.triu_indices(*gram.shape[1:], offset=1, device=gram.device)
    cosines = gram[:, first, second] / (norm[:, first] * norm[:, second])
    return cosines.sum() / max(cosines.numel(), 1)
