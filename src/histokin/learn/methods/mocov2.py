"""MoCo v2 (Chen et al. 2020, after He et al. 2020): a view against a queue of past keys of a momentum encoder."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from histokin.learn.distributed import gathered_ids
from histokin.learn.losses import info_nce_queue
from histokin.learn.methods.heads import projector
from histokin.learn.methods.method import Batch, Method, joined, need_tiles, settings_of
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import AUTO, Auto, LossSpec, Recipe, need, settled
from histokin.learn.state import Queue, momentum_copy, update_momentum

LARGEST_QUEUE = 65_536


@dataclass(frozen=True, slots=True)
class MoCoSettings(LossSpec):
    """Of InfoNCE with a queue.

    `queue`: keys kept; auto is the paper's 65 536, at most a quarter of the tiles, so that a tile does not meet its own
    older keys as negatives too often. `momentum` of the key encoder. `mask_own`: leave a tile's own keys out.
    """

    temperature: float = 0.2
    queue: int | Auto = AUTO
    momentum: float = 0.999
    mask_own: bool = True

    def __post_init__(self) -> None:
        need(self.temperature > 0, "temperature must be > 0")
        need(self.queue == AUTO or self.queue >= 1, "queue must be >= 1 or auto")
        need(0 <= self.momentum < 1, "momentum must be in [0, 1)")


def queue_size(n_tiles: int, batch: int) -> int:
    """The queue that so many tiles allow: a quarter of them, at least a batch, at most the paper's."""
    return max(min(LARGEST_QUEUE, n_tiles // 4), min(batch, n_tiles))


class MoCoV2(Method):
    """A query encoder trained by gradient, a key encoder that follows it, a queue of keys.

    The key encoder follows after each step, which equals the authors' order (before the next keys): nothing happens
    between. BatchNorm of the key encoder keeps statistics of its own.
    """

    Settings: ClassVar = MoCoSettings

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.settings = settings_of(recipe, MoCoSettings)
        self.projector = projector(dim, recipe.projector)
        self.momentum_encoder, self.momentum_projector = momentum_copy(encoder), momentum_copy(self.projector)
        self.queue = Queue(settled(self.settings.queue, "loss.queue"), recipe.projector.out)

    @classmethod
    def resolve(cls, recipe: Recipe, n_tiles: int) -> LossSpec:
        settings = settings_of(recipe, MoCoSettings)
        if settings.queue != AUTO:
            return settings
        return replace(settings, queue=queue_size(n_tiles, recipe.run.batch))

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        need_tiles(source, 8, recipe.method)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        first, second = batch.views.chunk(2)
        (q,) = joined(self.projector(self.encode(first)))
        with torch.no_grad():
            k = F.normalize(self.momentum_projector(self.encode_with(self.momentum_encoder, second)).float(), dim=1)
            (k,) = joined(k)
        ids = gathered_ids(batch.rows)
        own = self.queue.own(ids) if self.settings.mask_own else None
        found = info_nce_queue(q, k, self.queue.filled_rows(), temperature=self.settings.temperature, own=own)
        self.fresh = k, ids
        return {"loss": found.loss, "pos_sim": found.pos_sim, "neg_sim": found.neg_sim}

    def after_step(self, batch: Batch) -> None:  # noqa: ARG002 - the keys were kept by `loss`
        update_momentum(self.momentum_encoder, self.encoder, self.settings.momentum)
        update_momentum(self.momentum_projector, self.projector, self.settings.momentum)
        self.queue.push(*self.fresh)

    def trivial_loss(self, n_tiles: int) -> float | None:  # noqa: ARG002 - the queue decides
        return math.log(1 + len(self.queue.rows))
