"""What a model says about a batch of bags."""

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class MilOutput:
    """Logits of B bags with T tiles together, and what led to them; packed values stand in the order of the tiles.

    Attributes:
        logits: (B, C); what they mean is the objective's to say (`objective.predict`).
        slide_embedding: (B, E), what the model's last layer reads; the branches of a model with several stand side by
            side.
        attention: (T, K) raw scores of K branches, or None.
        weights: (T, K) their softmax within each bag, float32 or better, or None.
        tile_logits: (T, C) what the model says of a tile on its own, or None.
        tile_contrib: (T, C) signed share of each tile in the logits, detached: its sum over a bag is logit - bias. None
            where the logits are no such sum.
        losses: 0-d terms by name, weighted already, so that their sum is what to minimise; empty without a target.
    """

    logits: Tensor
    slide_embedding: Tensor
    attention: Tensor | None = None
    weights: Tensor | None = None
    tile_logits: Tensor | None = None
    tile_contrib: Tensor | None = None
    losses: dict[str, Tensor] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor:
        """The sum of the losses, 0-d.

        Raises:
            ValueError: the model was given no target.
        """
        if not self.losses:
            raise ValueError("there is no loss: the model was given no target")
        return torch.stack(list(self.losses.values())).sum()
