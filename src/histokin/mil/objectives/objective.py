"""What every objective offers."""

from typing import Protocol

import torch
from torch import Tensor


class Objective(Protocol):
    """What the logits of a slide mean: how far they are from the truth, and what is told to a user.

    Objectives are frozen values. All compute in float32 or better.
    """

    @property
    def n_outputs(self) -> int:
        """C, how many logits a slide gets."""
        ...

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """0-d, the mean over the bags of a batch; (B, C) logits and a target as the objective describes it."""
        ...

    def predict(self, logits: Tensor) -> Tensor:
        """What a user is told: probabilities, a survival curve, a value in its own unit."""
        ...

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        """Logits whose prediction is the mean of the predictions of two (B, C) logits."""
        ...


def exact(x: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64."""
    return x if x.dtype == torch.float64 else x.float()


def refuse_target(logits: Tensor, target: Tensor, shape: tuple[int, ...], kind: str) -> None:
    """Raise ValueError unless the target has this shape, naming what it should be."""
    if target.shape != shape or logits.ndim != 2 or len(logits) != len(target):
        raise ValueError(f"need {kind} of shape {shape} for {tuple(logits.shape)} logits, got {tuple(target.shape)}")
