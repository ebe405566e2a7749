"""What a pretraining method is: what the trainer calls, and all it knows of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's views.

    views: (V * B, 3, H, W) float32, view-major: row v * B + i is view v of tile i. rows: (B,) int64 on the CPU.
    """

    views: Tensor
    rows: Tensor
    n_views: int


class Method(nn.Module, ABC):
    """A method: the encoder with whatever it needs beside it, all of it in one state_dict.

    Subclasses state how many views they take and how the loss comes about; the trainer does the rest.
    """

    n_views: ClassVar[int] = 2
    encoder: nn.Module

    @abstractmethod
    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe) -> None:
        """Build the modules beside the encoder.

        Args:
            encoder: (B, 3, H, W) to (B, dim).
            dim: width of an embedding.
            recipe: resolved.
        """
        super().__init__()
        self.encoder = encoder

    @classmethod
    @abstractmethod
    def check(cls, source: PixelSource) -> None:
        """Refuse tiles the method cannot learn from (TrainingError), before any work is done."""

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, the 0-d tensor to be minimised, and beside it detached 0-d parts worth logging."""

    @abstractmethod
    def trivial_loss(self, n_tiles: int) -> float | None:
        """The loss of an encoder that gives the same vector for everything; None if it has no fixed value."""
