"""CCL (RetCCL, Wang et al. 2023): MoCo with a clustering-guided weighted InfoNCE and a group InfoNCE.

The authors published no training code, and their definition of the weights could not be read: the weighting is this
project's reading (docs/methods.md), the group loss that of CLD (Wang et al. 2021), whose heads their network carries.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from histokin.errors import RecipeError, TrainingError
from histokin.learn.distributed import gathered_ids
from histokin.learn.losses import cluster_weights, group_info_nce, hardness_weights, weighted_info_nce
from histokin.learn.methods.heads import NormedLinear
from histokin.learn.methods.method import Batch, Method, joined, need_tiles, settings_of
from histokin.learn.methods.mocov2 import queue_size
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import AUTO, Auto, LossSpec, Recipe, need, settled
from histokin.learn.state import Queue, assign, momentum_copy, spherical_kmeans, update_momentum
from histokin.streams import seed64


@dataclass(frozen=True, slots=True)
class CCLSettings(LossSpec):
    """Of the two losses.

    `weighting` of a negative: `cluster` 1 - `beta` where it shares the anchor's cluster, `mask` 0 there, `hard` in
    proportion to exp(beta * s), `uniform` always 1 (MoCo v2: the ablation). Clusters of the queue's keys are found anew
    every `refit` steps, once the queue is full; auto takes one for 256 keys, at least 16. `group_weight` (the authors'
    lambda), `group_temperature`, `groups` (of the batch; auto: a quarter of it) and `iterations` are those of the group
    loss; a weight of 0 switches it off.
    """

    temperature: float = 0.2
    queue: int | Auto = AUTO
    momentum: float = 0.999
    mask_own: bool = True
    weighting: Literal["cluster", "mask", "hard", "uniform"] = "cluster"
    beta: float = 0.75
    clusters: int | Auto = AUTO
    refit: int = 500
    group_weight: float = 0.25
    group_temperature: float = 0.4
    groups: int | Auto = AUTO
    iterations: int = 5

    def __post_init__(self) -> None:
        need(self.temperature > 0 and self.group_temperature > 0, "temperatures must be > 0")
        need(0 <= self.momentum < 1, "momentum must be in [0, 1)")
        need(0 <= self.beta <= 1, "beta must be in [0, 1]")
        need(self.group_weight >= 0, "group_weight must be >= 0")
        need(self.refit >= 1 and self.iterations >= 1, "refit and iterations must be >= 1")
        for name, least in (("queue", 1), ("clusters", 1), ("groups", 2)):
            need(getattr(self, name) == AUTO or getattr(self, name) >= least, f"{name} must be >= {least} or auto")


class CCL(Method):
    """Three views: two are queries, one gives the key; two heads tell tiles and groups of tiles apart."""

    Settings: ClassVar = CCLSettings
    n_views: ClassVar[int] = 3
    centroids: Tensor
    has_clusters: Tensor

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.settings, self.seed = settings_of(recipe, CCLSettings), recipe.seed
        hidden, out = recipe.projector.hidden, recipe.projector.out
        self.trunk = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(inplace=True))
        self.instance_head, self.group_head = NormedLinear(hidden, out), NormedLinear(hidden, out)
        self.momentum_encoder, self.momentum_trunk = momentum_copy(encoder), momentum_copy(self.trunk)
        self.momentum_head = momentum_copy(self.instance_head)
        self.queue = Queue(settled(self.settings.queue, "loss.queue"), out)
        self.register_buffer("centroids", torch.zeros(settled(self.settings.clusters, "loss.clusters"), out))
        self.register_buffer("has_clusters", torch.zeros((), dtype=torch.bool))

    @classmethod
    def resolve(cls, recipe: Recipe, n_tiles: int) -> LossSpec:
        s = settings_of(recipe, CCLSettings)
        queue = queue_size(n_tiles, recipe.run.batch) if s.queue == AUTO else s.queue
        clusters = min(queue, max(16, queue // 256)) if s.clusters == AUTO else s.clusters
        groups = max(2, recipe.run.batch // 4) if s.groups == AUTO else s.groups
        if clusters > queue:
            raise RecipeError(
                f"{queue} keys of the queue cannot be put into {clusters} clusters",
                "recipe key loss.clusters",
                "Take at most as many clusters as loss.queue holds keys, or auto.",
            )
        return replace(s, queue=queue, clusters=clusters, groups=groups)

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        need_tiles(source, 8, recipe.method)
        if recipe.run.batch < 4 and settings_of(recipe, CCLSettings).group_weight:
            raise TrainingError(
                f"a batch of {recipe.run.batch} has no groups to tell apart",
                recipe.method,
                "Set run.batch to 4 or more, or loss.group_weight=0.",
            )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        first, key_view, second = batch.views.chunk(3)
        s = self.settings
        hidden = self.trunk(self.encode(torch.cat([first, second])))
        q1, q2 = joined(*self.instance_head(hidden).chunk(2))
        with torch.no_grad():
            keys = self.momentum_head(self.momentum_trunk(self.encode_with(self.momentum_encoder, key_view)))
            (k,) = joined(F.normalize(keys.float(), dim=1))
        ids = gathered_ids(batch.rows)
        rows, own = self.queue.filled_rows(), self.queue.own(ids) if s.mask_own else None
        shared = self._weights(k, rows)
        found = []
        for q in (q1, q2):
            weights = hardness_weights(q, rows, sharpness=s.beta / s.temperature) if shared is None else shared
            found.append(weighted_info_nce(q, k, rows, weights, temperature=s.temperature, own=own))
        loss = (found[0].loss + found[1].loss) / 2
        terms = {"pos_sim": found[0].pos_sim}
        if s.group_weight:
            g1, g2 = joined(*self.group_head(hidden).chunk(2))
            groups = group_info_nce(
                g1,
                g2,
                clusters=min(settled(s.groups, "loss.groups"), max(2, len(g1) // 2)),
                iterations=s.iterations,
                temperature=s.group_temperature,
            )
            loss = loss + s.group_weight * groups.loss
            used = torch.tensor(float(len(groups.first_labels.unique())))
            terms |= {"group": groups.loss.detach(), "groups_used": used}
        self.fresh = k, ids
        return {"loss": loss, **terms}

    @torch.no_grad()
    def _weights(self, k: Tensor, rows: Tensor) -> Tensor | None:
        """(B, Q) weight of each negative for each anchor, by the key's cluster; None where it is another by query."""
        s = self.settings
        is_blind = not len(rows) or (s.weighting in {"cluster", "mask"} and not self.has_clusters)
        if s.weighting == "uniform" or is_blind:
            return torch.ones(len(k), len(rows), device=k.device)
        if s.weighting == "hard":
            return None
        beta = 1.0 if s.weighting == "mask" else s.beta
        return cluster_weights(assign(k, self.centroids), assign(rows, self.centroids), beta=beta)

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        s = self.settings
        for copy, module in (
            (self.momentum_encoder, self.encoder),
            (self.momentum_trunk, self.trunk),
            (self.momentum_head, self.instance_head),
        ):
            update_momentum(copy, module, s.momentum)
        self.queue.push(*self.fresh)
        is_due = (batch.step + 1) % s.refit == 0 or not self.has_clusters
        if s.weighting in {"cluster", "mask"} and self.queue.is_full and is_due:
            found = spherical_kmeans(
                self.queue.rows,
                len(self.centroids),
                iterations=10,
                init="permutation",
                seed=seed64(self.seed, "clusters", batch.step),
            )
            self.centroids.copy_(found.centroids)
            self.has_clusters.fill_(value=True)
