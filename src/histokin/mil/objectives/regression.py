"""A number for each slide."""

import math
from dataclasses import dataclass

import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from histokin.mil.objectives.objective import exact, refuse_target


@dataclass(frozen=True, slots=True)
class Regression:
    """One number: Huber's loss (threshold 1) on the target standardised by the training fold.

    Attributes:
        mean, sd: of the training fold's targets, in the target's unit. A target is floating (B,).
    """

    mean: float = 0.0
    sd: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.mean) or not 0 < self.sd < math.inf:
            raise ValueError(f"need a finite mean and sd > 0, got {self.mean}, {self.sd}")

    @property
    def n_outputs(self) -> int:
        return 1

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        refuse_target(logits, target, (len(logits),), "numbers")
        logits = exact(logits)
        return F.huber_loss(logits[:, 0], (target.to(logits.dtype) - self.mean) / self.sd, delta=1.0)

    def predict(self, logits: Tensor) -> Tensor:
        """(B,) in the target's unit."""
        return exact(logits)[:, 0] * self.sd + self.mean

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        return (exact(first) + exact(second)) / 2
