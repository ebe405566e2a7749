"""Similarity learning (Gildenblat & Klaiman 2019): tiles near each other on a slide are alike, distant ones are not."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor, nn

from histokin.learn.distributed import gathered_ids
from histokin.learn.losses import pair_contrastive
from histokin.learn.methods.method import Batch, Method, joined, need_places, need_tiles, settings_of
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import LossSpec, Recipe, need
from histokin.learn.sampling import PairPlan, PairSampler, Sampler, plan_pairs


@dataclass(frozen=True, slots=True)
class SimilaritySettings(LossSpec):
    """Of siamese pairs.

    `near_um`, `far_um`: pairs closer than the first are alike, farther than the second are not. A slide whose tissue is
    smaller than `far_um` has limits in proportion to its size (said in the run's notes). `cross_slide`: such slides may
    give far pairs with other slides; these teach stain. `margin` and `power` of the contrastive loss; the paper's form
    is not known, both are offered. `normalise`: compare unit vectors.
    """

    near_um: float = 2000.0
    far_um: float = 10_000.0
    cross_slide: bool = False
    margin: float = math.sqrt(2)
    power: Literal[1, 2] = 2
    normalise: bool = True

    def __post_init__(self) -> None:
        need(0 < self.near_um < self.far_um, "need 0 < near_um < far_um")
        need(self.margin > 0, "margin must be > 0")


class Similarity(Method):
    """The encoder, its head included, under a contrastive loss on pairs of tiles of one slide.

    A sample is a pair: a batch of B holds 2 B tiles, half of the pairs near, half far.
    """

    Settings: ClassVar = SimilaritySettings
    n_views: ClassVar[int] = 1

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.settings = settings_of(recipe, SimilaritySettings)

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        need_tiles(source, 8, recipe.method)
        need_places(source, recipe.method)

    @classmethod
    def sampler(cls, source: PixelSource, recipe: Recipe) -> Sampler:
        return PairSampler(recipe.seed, recipe.run.batch, pair_plan(source, recipe))

    @classmethod
    def notes(cls, source: PixelSource, recipe: Recipe, batch: int) -> tuple[str, ...]:  # noqa: ARG003 - any number
        return (pair_plan(source, recipe).summary,)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if batch.near is None:
            raise TypeError("similarity learning needs pairs: its sampler must have drawn the batch")
        anchors, partners = joined(*self.encode(batch.views).chunk(2))
        near = gathered_ids(batch.near.long()).bool()
        s = self.settings
        found = pair_contrastive(anchors, partners, near, margin=s.margin, power=s.power, normalise=s.normalise)
        return {
            "loss": found.loss,
            "near_distance": found.near_distance,
            "far_distance": found.far_distance,
            "beyond_margin": found.beyond_margin,
        }


def pair_plan(source: PixelSource, recipe: Recipe) -> PairPlan:
    """Which slides give pairs, within which limits.

    Raises:
        TrainingError: tiles without places, or not one slide is large enough.
    """
    places, s = need_places(source, recipe.method), settings_of(recipe, SimilaritySettings)
    return plan_pairs(
        source.slides,
        places.centres_um,
        places.pitch_um,
        near_um=s.near_um,
        far_um=s.far_um,
        cross_slide=s.cross_slide,
    )
