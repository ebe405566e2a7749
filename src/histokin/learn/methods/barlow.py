"""Barlow Twins (Zbontar et al. 2021): each dimension agrees over two views and says what no other says."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from histokin.learn.losses import barlow_twins
from histokin.learn.methods.heads import projector
from histokin.learn.methods.method import Batch, Method, joined, need_tiles, settings_of
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import LossSpec, Recipe, need


@dataclass(frozen=True, slots=True)
class BarlowSettings(LossSpec):
    """`off_diagonal`: weight of the redundancy term."""

    off_diagonal: float = 0.0051

    def __post_init__(self) -> None:
        need(self.off_diagonal >= 0, "off_diagonal must be >= 0")


class BarlowTwins(Method):
    """Encoder and projector; the batch's cross-correlation is pulled to the identity."""

    Settings: ClassVar = BarlowSettings

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.off_diagonal = settings_of(recipe, BarlowSettings).off_diagonal
        self.projector = projector(dim, recipe.projector)
        self.width = recipe.projector.out

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        need_tiles(source, 2, recipe.method)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        first, second = joined(*self.projector(self.encode(batch.views)).chunk(2))
        found = barlow_twins(first, second, off_diagonal=self.off_diagonal)
        return {"loss": found.loss, "on_diagonal": found.on_diagonal, "off_diagonal": found.off_diagonal}

    def trivial_loss(self, n_tiles: int) -> float | None:  # noqa: ARG002 - the width decides
        return float(self.width)  # all correlations 0, as of constant features
