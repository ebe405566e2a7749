"""VICReg (Bardes et al. 2022): views agree, every dimension varies, no two vary together."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from histokin.learn.losses import vicreg
from histokin.learn.methods.heads import projector
from histokin.learn.methods.method import Batch, Method, joined, need_tiles, settings_of
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import LossSpec, Recipe, need


@dataclass(frozen=True, slots=True)
class VICRegSettings(LossSpec):
    """Weights of the three terms."""

    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def __post_init__(self) -> None:
        for name in ("invariance", "variance", "covariance"):
            need(getattr(self, name) >= 0, f"{name} must be >= 0")


class VICReg(Method):
    """Encoder and projector under invariance, variance and covariance."""

    Settings: ClassVar = VICRegSettings

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.settings = settings_of(recipe, VICRegSettings)
        self.projector = projector(dim, recipe.projector)

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        need_tiles(source, 2, recipe.method)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        first, second = joined(*self.projector(self.encode(batch.views)).chunk(2))
        s = self.settings
        found = vicreg(first, second, invariance=s.invariance, variance=s.variance, covariance=s.covariance)
        return {
            "loss": found.loss,
            "invariance": found.invariance,
            "variance": found.variance,
            "covariance": found.covariance,
        }
