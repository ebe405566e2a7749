"""What a pretraining method is: what the trainer calls, and all it knows of it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from histokin.errors import TrainingError
from histokin.learn.distributed import gathered
from histokin.learn.methods.parts import in_parts
from histokin.learn.pixels import PixelSource, Places
from histokin.learn.recipe import LossSpec, Recipe
from histokin.learn.sampling import BalancedSampler, EpochSampler, Sampler


@dataclass(frozen=True, slots=True)
class Batch:
    """One step's views: this process's share of the batch, b of B samples.

    Attributes:
        views: (V * b, 3, H, W) float32, view-major: row v * b + i is view v of sample i. Where a sample is a pair of
            tiles, the first b rows are of its anchors, the next of its partners.
        local: (L * b, 3, h, w) float32 small views, likewise; None without any.
        rows: (b,) int64 of the samples' tiles.
        near: (b,) bool whether the pair is a near one; None where samples are no pairs.
        step, steps: which step, from 0, of how many.
    """

    views: Tensor
    local: Tensor | None
    rows: Tensor
    near: Tensor | None
    step: int
    steps: int

    @property
    def done(self) -> float:
        """Share of the run that lies behind, in [0, 1)."""
        return self.step / self.steps


class Method(nn.Module, ABC):
    """A method: the encoder with whatever it needs beside it, all of it in one state_dict.

    Subclasses state their settings, how many views they take and how the loss comes about; the trainer does the rest.

    Attributes:
        Settings: the class of the recipe's `loss` section.
        n_views: whole views of each tile.
        encoder: what is trained.
        is_frozen: the encoder stays as it came: its embeddings cannot collapse by training.
        parts: in how many parts `encode` takes its views; set by the trainer.
    """

    Settings: ClassVar[type[LossSpec]]
    n_views: ClassVar[int] = 2
    encoder: nn.Module
    is_frozen: bool = False
    parts: int = 1

    @abstractmethod
    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        """Build the modules beside the encoder.

        Args:
            encoder: (B, 3, H, W) to (B, dim).
            dim: width of an embedding.
            recipe: resolved; `recipe.loss` is of the method's own `Settings`.
            source: the tiles: how many there are and where they lie. No pixels are read here.
        """
        super().__init__()
        self.encoder = encoder

    @classmethod
    def resolve(cls, recipe: Recipe, n_tiles: int) -> LossSpec:  # noqa: ARG003 - for methods that have an auto
        """The recipe's `loss` section with every `auto` filled; most methods have none."""
        return recipe.loss

    @classmethod
    @abstractmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        """Refuse tiles the method cannot learn from (TrainingError), before any work is done."""

    @classmethod
    def usable(cls, source: PixelSource) -> np.ndarray | None:  # noqa: ARG003 - for those that cannot use all
        """(n,) rows of the tiles the method can learn from; None for all."""
        return None

    @classmethod
    def sampler(cls, source: PixelSource, recipe: Recipe) -> Sampler:
        """Which tiles make which batch."""
        if recipe.sampling.order == "balanced":
            return BalancedSampler(recipe.seed, recipe.run.batch, source.slides, source.cohorts)
        return EpochSampler(recipe.seed, recipe.run.batch, len(source))

    @classmethod
    def notes(cls, source: PixelSource, recipe: Recipe, batch: int) -> tuple[str, ...]:  # noqa: ARG003 - for those with something to say
        """What was done otherwise than asked, in sentences for the user; `batch` as the sampler has it."""
        return ()

    @abstractmethod
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, the 0-d tensor to be minimised, and beside it detached 0-d parts worth logging.

        In several processes every one computes the loss of the whole batch, from features gathered by `joined`; the
        gradients' mean over processes is then the gradient of a single process.
        """

    def after_step(self, batch: Batch) -> None:
        """Bring queues, banks and momentum copies up to date; called when the weights were updated."""

    def trivial_loss(self, n_tiles: int) -> float | None:  # noqa: ARG002 - for those whose loss has one
        """The loss of an encoder that gives the same vector for everything; None if it has no fixed value."""
        return None

    def exported(self) -> nn.Module:
        """The encoder that embeds tiles once training is done."""
        return self.encoder

    def encode(self, views: Tensor) -> Tensor:
        """(n, 3, H, W) views to (n, dim) embeddings, with gradient."""
        return in_parts(self.encoder, views, self.parts)

    @torch.no_grad()
    def encode_with(self, module: nn.Module, views: Tensor) -> Tensor:
        """The same by another module (a momentum copy), without gradient."""
        n = -(-len(views) // self.parts)
        return torch.cat([module(part) for part in views.split(n)])


def joined(*features: Tensor) -> tuple[Tensor, ...]:
    """Each (b, D) as (B, D), the shares of all processes in their order; gradients flow back to every process."""
    return tuple(gathered(each) for each in features)


S = TypeVar("S", bound=LossSpec)


def settings_of(recipe: Recipe, kind: type[S]) -> S:
    """The recipe's `loss` section, known to be of a method's own class."""
    if not isinstance(recipe.loss, kind):
        raise TypeError(f"method {recipe.method} needs {kind.__name__}, got {type(recipe.loss).__name__}")
    return recipe.loss


def need_tiles(source: PixelSource, at_least: int, method: str) -> None:
    """Refuse fewer tiles than a method can learn from."""
    if len(source) < at_least:
        raise TrainingError(
            f"it needs at least {at_least} tiles, there are {len(source)}", method, "Cut more tiles, or smaller ones."
        )


def need_places(source: PixelSource, method: str) -> Places:
    """The tiles' places, refused where they have none."""
    if source.places is None:
        raise TrainingError(
            "it needs to know where each tile lies on its slide, and these tiles have no coordinates",
            method,
            "Tile whole slides, give the tile table x and y, or take a method without places (simclr, mocov2, byol).",
        )
    return source.places
