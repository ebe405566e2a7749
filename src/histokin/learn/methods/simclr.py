"""SimCLR (Chen et al. 2020): two views of a tile are each other's positive, all other views negatives."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from histokin.learn.losses import nt_xent
from histokin.learn.methods.heads import projector
from histokin.learn.methods.method import Batch, Method, joined, need_tiles, settings_of
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import LossSpec, Recipe, need


@dataclass(frozen=True, slots=True)
class SimCLRSettings(LossSpec):
    """`temperature` of NT-Xent: .2 beat .1 and .5 at 64 pairs (docs/training.md)."""

    temperature: float = 0.2

    def __post_init__(self) -> None:
        need(self.temperature > 0, "temperature must be > 0")


class SimCLR(Method):
    """Encoder and projector under NT-Xent.

    A deviation from the paper: the projector's last layer is followed by BatchNorm without affine, and the optimiser is
    AdamW; both learn faster in the short runs measured (docs/training.md).
    """

    Settings: ClassVar = SimCLRSettings

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.temperature = settings_of(recipe, SimCLRSettings).temperature
        self.projector = projector(dim, recipe.projector)

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        need_tiles(source, 2, recipe.method)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        first, second = joined(*self.projector(self.encode(batch.views)).chunk(2))
        loss = nt_xent(first, second, temperature=self.temperature)
        positive, negative = similarities(first.detach(), second.detach())
        return {"loss": loss, "pos_sim": positive, "neg_sim": negative}

    def trivial_loss(self, n_tiles: int) -> float | None:
        return math.log(2 * n_tiles - 1)


@torch.no_grad()
def similarities(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cosine of the B positive pairs, and of all pairs of views of different tiles; 0-d float32 each."""
    with torch.autocast(first.device.type, enabled=False):
        a, b = F.normalize(first.float(), dim=1), F.normalize(second.float(), dim=1)
        B = len(a)
        positive = (a * b).sum(1).mean()
        # |sum of all|^2 holds every ordered pair once: 2B with themselves, 2B positives, the rest negatives.
        everything = (a.sum(0) + b.sum(0)).square().sum()
        return positive, (everything - 2 * B - 2 * B * positive) / (2 * B * (2 * B - 2))
