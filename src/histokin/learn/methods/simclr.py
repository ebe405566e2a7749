"""SimCLR (Chen et al. 2020): two views of a tile are each other's positive, all other views negatives."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from histokin.errors import TrainingError
from histokin.learn.losses import nt_xent
from histokin.learn.methods.method import Batch, Method
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import Recipe


class SimCLR(Method):
    """Encoder and projector under NT-Xent.

    A deviation from the paper: the projector's last layer is followed by BatchNorm without affine, and the optimiser is
    AdamW; both learn faster in the short runs measured (docs/training.md).
    """

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe) -> None:
        super().__init__(encoder, dim, recipe)
        hidden, out = recipe.projector.hidden, recipe.projector.out
        self.temperature = recipe.loss.temperature
        self.projector = nn.Sequential(
            nn.Linear(dim, hidden, bias=False),  # a bias before BatchNorm has no effect
            nn.BatchNorm1d(hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, out, bias=False),
            nn.BatchNorm1d(out, affine=False),
        )

    @classmethod
    def check(cls, source: PixelSource) -> None:
        if len(source) < 2:
            raise TrainingError(f"it needs at least 2 tiles, there are {len(source)}", "simclr", "Cut more tiles.")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        first, second = self.projector(self.encoder(batch.views)).chunk(2)
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
