"""BYOL (Grill et al. 2020): predict what a slowly following copy says of the other view; no negatives."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from histokin.learn.losses import byol
from histokin.learn.methods.heads import projector
from histokin.learn.methods.method import Batch, Method, joined, need_tiles, settings_of
from histokin.learn.monitors import feature_std
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import LossSpec, ProjectorSpec, Recipe, need
from histokin.learn.schedule import cosine
from histokin.learn.state import momentum_copy, update_momentum


@dataclass(frozen=True, slots=True)
class BYOLSettings(LossSpec):
    """`momentum` of the target at the start (a cosine takes it to 1); `predictor_hidden`: the predictor's width."""

    momentum: float = 0.996
    predictor_hidden: int = 512

    def __post_init__(self) -> None:
        need(0 <= self.momentum < 1, "momentum must be in [0, 1)")
        need(self.predictor_hidden >= 1, "predictor_hidden must be >= 1")


class BYOL(Method):
    """Encoder, projector and predictor against the momentum copies of the first two."""

    Settings: ClassVar = BYOLSettings

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.settings = settings_of(recipe, BYOLSettings)
        self.projector = projector(dim, recipe.projector)
        out = recipe.projector.out
        self.predictor = projector(out, ProjectorSpec(2, self.settings.predictor_hidden, out, out_norm=False))
        self.target_encoder, self.target_projector = momentum_copy(encoder), momentum_copy(self.projector)

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        need_tiles(source, 2, recipe.method)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        p1, p2 = joined(*self.predictor(self.projector(self.encode(batch.views))).chunk(2))
        with torch.no_grad():
            targets = self.target_projector(self.encode_with(self.target_encoder, batch.views))
            z1, z2 = joined(*targets.chunk(2))
        loss = byol(p1, z2, p2, z1)
        # Near 1 where unit vectors fill the sphere, near 0 where the copies have collapsed.
        return {"loss": loss, "target_spread": (feature_std(z1) * z1.shape[1] ** 0.5).float()}

    def after_step(self, batch: Batch) -> None:
        momentum = cosine(batch.step, batch.steps, start=self.settings.momentum, end=1.0)
        update_momentum(self.target_encoder, self.encoder, momentum)
        update_momentum(self.target_projector, self.projector, momentum)
