"""SGCL (Lin et al. 2023): a tile told from all others, alike to what lies around it, its quadrants told apart.

Where the authors' released code differs from its own idea (docs/methods.md) the clean form is used; `as_released` takes
the spatial loss as they wrote it.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from histokin.errors import RecipeError, TrainingError
from histokin.learn.distributed import gathered_ids
from histokin.learn.losses import (
    ClusterLists,
    SetRule,
    SgclSets,
    cluster_lists,
    draw_pool,
    draw_ranks,
    hard_candidates,
    npid_sampled_ce,
    select_exact,
    select_scalable,
    sgcl_inner,
    sgcl_ramp,
    sgcl_spatial,
)
from histokin.learn.methods.heads import projector
from histokin.learn.methods.method import Batch, Method, joined, need_places, need_tiles, settings_of
from histokin.learn.methods.npid import draw_negatives, note_few_meetings
from histokin.learn.neighbours import Neighbours, neighbours_within
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import AUTO, Auto, LossSpec, Recipe, need, settled
from histokin.learn.state import Bank, ClusterState
from histokin.streams import seed64, stream

QUADRANTS = 4
ROUNDING = 1e-6  # far more than places can be off, far less than a step
MOST_STEPS_UNFITTED = 2000  # a run shorter than an epoch must have clusters too
FEW_NEIGHBOURS = 4  # of 24 inside tissue at radius 3; with fewer the spatial term says little
# The authors' sizes; small cohorts get less (`SGCL.resolve`).
NEGATIVES, NEIGHBOURS, CLUSTERS, POOL, HARD = 65_536, 4096, 1000, 65_536, 4096


@dataclass(frozen=True, slots=True)
class SGCLSettings(LossSpec):
    """Of the three terms; every key is explained in recipes/sgcl.yaml."""

    temperature: float = 0.2
    spatial_temperature: float = 0.07
    negatives: int | Auto = AUTO
    mask_own: bool = True
    momentum: float = 0.5
    spatial_weight: float = 1.0
    inner_weight: float = 1.0
    ramp: float = 0.1
    radius: float = 3.0
    auxiliary: int = 1
    neighbours: int | Auto = AUTO
    clusters: int | Auto = AUTO
    clusterings: int = 3
    refit: int | Auto = AUTO
    semantic_cap: int = 64
    hard_share: float = 0.2
    pool: int | Auto = AUTO
    hard: int | Auto = AUTO
    exact: bool = False
    as_released: bool = False

    def __post_init__(self) -> None:
        need(self.temperature > 0 and self.spatial_temperature > 0, "temperatures must be > 0")
        need(0 <= self.momentum < 1, "momentum must be in [0, 1)")
        need(self.spatial_weight >= 0 and self.inner_weight >= 0, "weights must be >= 0")
        need(0 < self.ramp <= 1, "ramp is a share of the run, in (0, 1]")
        need(self.radius > 1, "radius must be > 1 tile pitch")
        need(self.auxiliary >= 0, "auxiliary must be >= 0")
        need(self.clusterings >= 1 and self.semantic_cap >= 1, "clusterings and semantic_cap must be >= 1")
        need(0 < self.hard_share <= 1, "hard_share must be in (0, 1]")
        for name in ("negatives", "neighbours", "clusters", "refit", "pool", "hard"):
            need(getattr(self, name) == AUTO or getattr(self, name) >= 1, f"{name} must be >= 1 or auto")


class SGCL(Method):
    """One encoder and projector, and banks of what they last said: of tiles, of their quadrants, of embeddings.

    Memory: a row of each bank a tile, the neighbours' lists, and batch x (neighbours + pool) numbers a step.
    """

    Settings: ClassVar = SGCLSettings
    n_views: ClassVar[int] = 1
    indptr: Tensor
    indices: Tensor

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.settings, self.seed = settings_of(recipe, SGCLSettings), recipe.seed
        s, n, out = self.settings, len(source), recipe.projector.out
        self.projector = projector(dim, recipe.projector)
        self.bank = Bank(n, out, seed64(self.seed, "bank"))
        if s.inner_weight:
            seeds = [seed64(self.seed, "quadrant bank", c) for c in range(QUADRANTS)]
            self.quadrant_banks = [Bank(n, out, seed) for seed in seeds]
            self._saved_with_the_rest = nn.ModuleList(self.quadrant_banks)
        if s.spatial_weight:
            self.backbone_bank = Bank(n, dim, seed64(self.seed, "backbone bank"))
            self.clusters = ClusterState(s.clusterings, settled(s.clusters, "loss.clusters"), n, out)
            around = slide_neighbours(source, recipe)
            # Facts about the tiles, not state: they are not saved.
            self.register_buffer("indptr", torch.from_numpy(around.indptr), persistent=False)
            self.register_buffer("indices", torch.from_numpy(around.indices), persistent=False)
        self._lists: ClusterLists | None = None

    @classmethod
    def resolve(cls, recipe: Recipe, n_tiles: int) -> LossSpec:
        s = settings_of(recipe, SGCLSettings)
        pool = min(POOL, n_tiles) if s.pool == AUTO else s.pool
        among = n_tiles if s.exact else min(pool, n_tiles)
        filled = {
            "negatives": min(NEGATIVES, n_tiles),
            "neighbours": min(NEIGHBOURS, max(1, n_tiles // 8)),
            "clusters": max(2, min(CLUSTERS, n_tiles // 16)),
            "refit": max(1, min(MOST_STEPS_UNFITTED, n_tiles // recipe.run.batch)),
            "pool": pool,
            "hard": min(HARD, max(1, hard_candidates(s.hard_share, among) // 2)),
        }
        found = replace(s, **{key: value for key, value in filled.items() if getattr(s, key) == AUTO})
        clusters = settled(found.clusters, "loss.clusters")
        if s.spatial_weight and (clusters > n_tiles or clusters**s.clusterings >= 2**63):
            raise RecipeError(
                f"{s.clusterings} clusterings of {n_tiles} tiles cannot have {clusters} clusters each",
                "recipe key loss.clusters",
                "Take at most as many clusters as there are tiles, or auto, and few clusterings.",
            )
        return found

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        s = settings_of(recipe, SGCLSettings)
        need_tiles(source, 32, recipe.method)
        if s.spatial_weight:
            need_places(source, recipe.method)
        if s.inner_weight and not recipe.views.local.quadrants:
            raise TrainingError(
                "its inner term needs a view of each quadrant",
                recipe.method,
                "Set views.local.quadrants=true and views.local.count=4, or loss.inner_weight=0.",
            )

    @classmethod
    def notes(cls, source: PixelSource, recipe: Recipe, batch: int) -> tuple[str, ...]:
        said = note_few_meetings(source, recipe, batch, fewer="a larger --stride; --max-tiles thins the neighbours")
        if not settings_of(recipe, SGCLSettings).spatial_weight:
            return said
        mean = len(slide_neighbours(source, recipe).indices) / len(source)
        if mean >= FEW_NEIGHBOURS:
            return said
        thin = f"a tile has {mean:.1f} spatial neighbours on average (24 inside tissue at radius 3)"
        return (*said, f"{thin}: the spatial term has little to learn from; thin out by --stride, not by --max-tiles")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        embeddings = self.encode(batch.views)
        q, backbone = joined(self.projector(embeddings), embeddings.detach())
        index = gathered_ids(batch.rows)
        count = settled(s.negatives, "loss.negatives")
        negatives = draw_negatives(self.seed, batch.step, len(self.bank.rows), count).to(q.device)
        own = npid_sampled_ce(q, self.bank.rows, index, negatives, temperature=s.temperature, exclude_own=s.mask_own)
        loss, terms = own.loss, {"self": own.loss.detach(), "pos_sim": own.pos_sim, "neg_sim": own.neg_sim}
        self.fresh = [(self.bank, index, q.detach())]
        if s.spatial_weight:
            sets = self._sets(q.detach(), backbone, index, batch.step)
            positives, hard = self._seen(sets.positives), self._seen(sets.hard)
            found = sgcl_spatial(
                q,
                self.bank.rows,
                positives,
                hard,
                temperature=s.spatial_temperature,
                as_released=s.as_released,
            )
            loss = loss + s.spatial_weight * sgcl_ramp(batch.done, s.ramp) * found.loss
            terms |= {
                "spatial": found.loss.detach(),
                "positive_share": found.positive_share,
                "positives": (positives >= 0).sum(1).float().mean(),
                "propagated": (sets.propagated >= 0).sum(1).float().mean(),
            }
            self.fresh.append((self.backbone_bank, index, backbone))
        if s.inner_weight:
            inner = self._inner(batch, index, negatives)
            loss = loss + s.inner_weight * inner
            terms["inner"] = inner.detach()
        return {"loss": loss, **terms}

    def _inner(self, batch: Batch, index: Tensor, negatives: Tensor) -> Tensor:
        if batch.local is None:
            raise TypeError("the inner term needs quadrant views")
        quadrants = joined(*self.projector(self.encode(batch.local)).chunk(QUADRANTS))
        banks = self.quadrant_banks
        rows = [bank.rows for bank in banks]
        self.fresh += [(bank, index, q.detach()) for bank, q in zip(banks, quadrants, strict=True)]
        # Each quadrant meets as many rows as a whole tile does: a quarter of the step's, in all four banks.
        shared = negatives[: max(1, len(negatives) // QUADRANTS)]
        s = self.settings
        return sgcl_inner(
            torch.cat(quadrants), rows, index, shared, temperature=s.temperature, exclude_own=s.mask_own
        ).loss

    @torch.no_grad()
    def _sets(self, q: Tensor, backbone: Tensor, index: Tensor, step: int) -> SgclSets:
        s, n = self.settings, len(self.bank.rows)
        rule = SetRule(
            aux=s.auxiliary,
            nei_k=settled(s.neighbours, "loss.neighbours"),
            hard_fraction=s.hard_share,
            semantic_cap=s.semantic_cap,
        )
        rng = stream(self.seed, "sgcl sets", step)
        pool = np.arange(n) if s.exact else draw_pool(rng, n_tiles=n, size=settled(s.pool, "loss.pool"))
        hard, top = settled(s.hard, "loss.hard"), hard_candidates(s.hard_share, len(pool))
        ranks = torch.from_numpy(draw_ranks(rng, n_ranks=hard, top=top)).to(q.device)
        given = q, backbone, self.bank.rows, self.backbone_bank.rows, index, self.indptr, self.indices
        if s.exact:
            return select_exact(*given, self._labels(), ranks=ranks, rule=rule)
        if self._lists is None:
            self._lists = cluster_lists(self._labels())
        where = torch.from_numpy(pool).to(q.device)
        return select_scalable(*given, self._lists, pool=where, ranks=ranks, rule=rule, phase=float(rng.random()))

    def _seen(self, rows: Tensor) -> Tensor:
        """Sets without rows that no step has written yet: these are random, and say nothing of their tile."""
        return rows.masked_fill(~self.bank.seen[rows.clamp_min(0)], -1)

    def _labels(self) -> Tensor:
        """Clusters of all tiles; before the first fit each tile is a cluster of its own: nothing propagates."""
        labels = self.clusters.labels
        return labels if self.clusters.is_fitted else torch.arange(labels.shape[1], device=labels.device)[None]

    @torch.no_grad()
    def after_step(self, batch: Batch) -> None:
        s = self.settings
        for bank, index, vectors in self.fresh:
            bank.update(index, vectors, s.momentum)
        if s.spatial_weight and (batch.step + 1) % settled(s.refit, "loss.refit") == 0:
            seeds = [seed64(self.seed, "clusters", batch.step, number) for number in range(s.clusterings)]
            self.clusters.fit(self.bank.rows, seeds)
            self._lists = None


def slide_neighbours(source: PixelSource, recipe: Recipe) -> Neighbours:
    """The tiles around each tile, by the recipe's radius.

    In steps of each slide's own grid: cohorts of several scales have several. The radius itself is outside.
    """
    places = need_places(source, recipe.method)
    steps = places.centres_um / places.pitch_um[:, None]
    return neighbours_within(source.slides, steps, settings_of(recipe, SGCLSettings).radius * (1 - ROUNDING))
