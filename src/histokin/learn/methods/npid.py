"""NPID (Wu et al. 2018): each tile is a class of its own, told apart by a bank with one vector a tile."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from histokin.learn.distributed import gathered_ids
from histokin.learn.losses import Contrast, estimate_z, npid_nce, npid_proximal, npid_sampled_ce, npid_softmax
from histokin.learn.methods.heads import projector
from histokin.learn.methods.method import Batch, Method, joined, need_tiles, settings_of
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import AUTO, Auto, LossSpec, Recipe, need, settled
from histokin.learn.state import Bank
from histokin.streams import seed64, stream

MOST_NEGATIVES = 4096
FEW_MEETINGS = 20  # with each tile; at 4 a run on GlaS and her2st was far worse than at 50 of fewer tiles


@dataclass(frozen=True, slots=True)
class NPIDSettings(LossSpec):
    """Of non-parametric instance discrimination.

    `form`: `sampled` is cross entropy against sampled rows of the bank (OpenSelfSup's reading, which SGCL builds on),
    `softmax` against all rows (exact, up to some 1e5 tiles), `nce` the paper's noise-contrastive estimate. `negatives`:
    rows sampled, one set a step for the whole batch; auto is the paper's 4096, at most the tiles there are. `mask_own`:
    leave a tile's own row out of them (sampled form; the authors' code does not). `momentum` is the weight of the
    bank's old row. `proximal`: weight of the paper's pull to the stored row.
    """

    form: Literal["sampled", "softmax", "nce"] = "sampled"
    temperature: float = 0.07
    negatives: int | Auto = AUTO
    mask_own: bool = True
    momentum: float = 0.5
    proximal: float = 0.0

    def __post_init__(self) -> None:
        need(self.temperature > 0, "temperature must be > 0")
        need(self.negatives == AUTO or self.negatives >= 1, "negatives must be >= 1 or auto")
        need(0 <= self.momentum < 1, "momentum must be in [0, 1)")
        need(self.proximal >= 0, "proximal must be >= 0")


class NPID(Method):
    """Encoder and projector against the bank; one view a tile."""

    Settings: ClassVar = NPIDSettings
    n_views: ClassVar[int] = 1
    z: Tensor

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.settings, self.seed = settings_of(recipe, NPIDSettings), recipe.seed
        self.projector = projector(dim, recipe.projector)
        self.bank = Bank(len(source), recipe.projector.out, seed64(recipe.seed, "bank"), dtype=torch.float32)
        self.register_buffer("z", torch.zeros(()))  # the NCE's constant, estimated from the first batch

    @classmethod
    def resolve(cls, recipe: Recipe, n_tiles: int) -> LossSpec:
        settings = settings_of(recipe, NPIDSettings)
        if settings.negatives != AUTO:
            return settings
        return replace(settings, negatives=min(MOST_NEGATIVES, n_tiles))

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        need_tiles(source, 8, recipe.method)

    @classmethod
    def notes(cls, source: PixelSource, recipe: Recipe, batch: int) -> tuple[str, ...]:
        return note_few_meetings(source, recipe, batch, fewer="--max-tiles, or a larger --stride")

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        (v,) = joined(self.projector(self.encode(batch.views)))
        index = gathered_ids(batch.rows)
        found = self._discriminate(v, index, batch.step)
        loss, terms = found.loss, {"pos_sim": found.pos_sim, "neg_sim": found.neg_sim}
        if self.settings.proximal:
            proximal = npid_proximal(v, self.bank.rows, index)
            loss = loss + self.settings.proximal * proximal
            terms["proximal"] = proximal.detach()
        self.fresh = index, F.normalize(v.detach().float(), dim=1)
        return {"loss": loss, **terms}

    def _discriminate(self, v: Tensor, index: Tensor, step: int) -> Contrast:
        t, bank = self.settings.temperature, self.bank.rows
        if self.settings.form == "softmax":
            return npid_softmax(v, bank, index, temperature=t)
        negatives = draw_negatives(self.seed, step, len(bank), settled(self.settings.negatives, "loss.negatives"))
        negatives = negatives.to(v.device)
        if self.settings.form == "sampled":
            return npid_sampled_ce(v, bank, index, negatives, temperature=t, exclude_own=self.settings.mask_own)
        is_known = bool(self.z.any())
        self.fresh_z = self.z if is_known else estimate_z(v.detach(), bank, index, negatives, temperature=t).to(self.z)
        return npid_nce(v, bank, index, negatives, temperature=t, Z=self.fresh_z)

    def after_step(self, batch: Batch) -> None:  # noqa: ARG002 - the vectors were kept by `loss`
        self.bank.update(*self.fresh, self.settings.momentum)
        if self.settings.form == "nce":
            self.z.copy_(self.fresh_z)


def draw_negatives(seed: int, step: int, n: int, count: int) -> Tensor:
    """(count,) int64 rows of a bank for one step, with replacement; the same in every process."""
    return torch.from_numpy(stream(seed, "negatives", step).integers(0, n, count))


def note_few_meetings(source: PixelSource, recipe: Recipe, batch: int, *, fewer: str) -> tuple[str, ...]:
    """Said of a run too short for its bank: a row that is old says nothing of what its tile would be now.

    Args:
        source: the tiles.
        recipe: with its steps.
        batch: samples a step, as the sampler has it.
        fewer: how to train on fewer tiles.
    """
    meetings = settled(recipe.run.steps, "run.steps") * batch / len(source)
    if meetings >= FEW_MEETINGS:
        return ()
    said = f"each tile was met {meetings:.1f} times on average, so that its bank is old: {recipe.method} wants tens"
    return (f"{said} of times; train longer, or on fewer tiles ({fewer})",)
