"""Supervised fine-tuning: a linear classifier on the encoder, frozen or trained with it.

The counterpart of RetCCL's `resnet_lincls.py`; also the ceiling that methods without labels are held against.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from histokin.errors import TrainingError
from histokin.learn.distributed import gathered_ids
from histokin.learn.methods.method import Batch, Method, joined, settings_of
from histokin.learn.pixels import Labels, PixelSource
from histokin.learn.recipe import LossSpec, Recipe, need


@dataclass(frozen=True, slots=True)
class SupervisedSettings(LossSpec):
    """`frozen`: only the classifier learns. `smoothing` of the labels. `balanced`: classes weigh the same."""

    frozen: bool = False
    smoothing: float = 0.0
    balanced: bool = True

    def __post_init__(self) -> None:
        need(0 <= self.smoothing < 1, "smoothing must be in [0, 1)")


class Supervised(Method):
    """Cross entropy over the labelled tiles; `run.label` names the label, unlabelled tiles teach nothing."""

    Settings: ClassVar = SupervisedSettings
    n_views: ClassVar[int] = 1
    codes: Tensor
    weights: Tensor

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.settings = settings_of(recipe, SupervisedSettings)
        labels = need_labels(source, recipe)
        self.classifier = nn.Linear(dim, len(labels.classes))
        self.is_frozen = self.settings.frozen
        if self.is_frozen:
            encoder.requires_grad_(requires_grad=False)
        counts = torch.bincount(torch.from_numpy(labels.codes[labels.codes >= 0]), minlength=len(labels.classes))
        weights = (
            counts.sum() / (len(counts) * counts.clamp_min(1)) if self.settings.balanced else torch.ones(len(counts))
        )
        # Facts about the tiles, not state: they are not saved.
        self.register_buffer("codes", torch.from_numpy(labels.codes), persistent=False)
        self.register_buffer("weights", weights.float() * (counts > 0), persistent=False)

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        labels = need_labels(source, recipe)
        if len(set(labels.codes[labels.codes >= 0].tolist())) < 2:
            raise TrainingError("the label has only one value", "supervised", "Name another with run.label.")

    @classmethod
    def usable(cls, source: PixelSource) -> np.ndarray | None:
        return None if source.labels is None else np.flatnonzero(source.labels.codes >= 0)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        if self.is_frozen:
            self.encoder.eval()  # BatchNorm keeps the statistics it came with
        (logits,) = joined(self.classifier(self.encode(batch.views)))
        target = self.codes[gathered_ids(batch.rows)]
        with torch.autocast(logits.device.type, enabled=False):
            known = target >= 0
            loss = F.cross_entropy(
                logits.float(),
                target,
                self.weights,
                ignore_index=-1,
                label_smoothing=self.settings.smoothing,
                reduction="sum",
            ) / self.weights[target.clamp_min(0)].mul(known).sum().clamp_min(1e-9)
        correct = ((logits.argmax(1) == target) & known).sum() / known.sum().clamp_min(1)
        return {"loss": loss, "accuracy": correct.detach()}

    def trivial_loss(self, n_tiles: int) -> float | None:  # noqa: ARG002 - the classes decide
        return math.log(int((self.weights > 0).sum())) if self.settings.balanced else None


def need_labels(source: PixelSource, recipe: Recipe) -> Labels:
    """The tiles' labels, refused where there are none."""
    if source.labels is None or not (source.labels.codes >= 0).any():
        raise TrainingError(
            f"not one tile has a label {recipe.run.label!r}" if recipe.run.label else "it needs labels",
            recipe.method,
            "Name a label column of the tiles with --set run.label=NAME.",
        )
    return source.labels
