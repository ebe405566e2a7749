"""DINO (Caron et al. 2021): small views must say of a tile what a slowly following teacher says of whole ones."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from histokin.learn.losses import dino, koleo, updated_center
from histokin.learn.methods.heads import PrototypeHead
from histokin.learn.methods.method import Batch, Method, joined, need_tiles, settings_of
from histokin.learn.pixels import PixelSource
from histokin.learn.recipe import LossSpec, Recipe, need
from histokin.learn.schedule import cosine
from histokin.learn.state import momentum_copy, update_momentum


@dataclass(frozen=True, slots=True)
class DINOSettings(LossSpec):
    """Of self-distillation.

    `teacher_temperature` rises linearly to `teacher_temperature_end` over the share `temperature_warmup` of the run.
    `momentum` of the teacher at the start (a cosine takes it to 1); `center`: weight of the old centre.
    `freeze_last`: share of the run during which the prototypes stand still. `koleo`: weight of the spreading term.
    The head has its own widths: `hidden`, `bottleneck`, `prototypes`; the recipe's projector is not used.
    """

    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    teacher_temperature_end: float = 0.04
    temperature_warmup: float = 0.3
    momentum: float = 0.996
    center: float = 0.9
    freeze_last: float = 0.01
    koleo: float = 0.0
    hidden: int = 512
    bottleneck: int = 256
    prototypes: int = 4096

    def __post_init__(self) -> None:
        for name in ("student_temperature", "teacher_temperature", "teacher_temperature_end"):
            need(getattr(self, name) > 0, f"{name} must be > 0")
        for name in ("momentum", "center"):
            need(0 <= getattr(self, name) < 1, f"{name} must be in [0, 1)")
        for name in ("temperature_warmup", "freeze_last"):
            need(0 <= getattr(self, name) <= 1, f"{name} is a share of the run, in [0, 1]")
        need(self.koleo >= 0, "koleo must be >= 0")
        need(min(self.hidden, self.bottleneck, self.prototypes) >= 2, "hidden, bottleneck and prototypes must be >= 2")


class DINO(Method):
    """Student and teacher of one shape; the teacher sees the two whole views, the student all; the teacher is kept."""

    Settings: ClassVar = DINOSettings
    center: Tensor

    def __init__(self, encoder: nn.Module, dim: int, recipe: Recipe, source: PixelSource) -> None:
        super().__init__(encoder, dim, recipe, source)
        self.settings = s = settings_of(recipe, DINOSettings)
        self.head = PrototypeHead(dim, s.hidden, s.bottleneck, s.prototypes)
        self.teacher_encoder, self.teacher_head = momentum_copy(encoder), momentum_copy(self.head)
        self.register_buffer("center", torch.zeros(s.prototypes))

    @classmethod
    def check(cls, source: PixelSource, recipe: Recipe) -> None:
        need_tiles(source, 2, recipe.method)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        s = self.settings
        whole = self.encode(batch.views)
        embeddings = whole if batch.local is None else torch.cat([whole, self.encode(batch.local)])
        b = len(batch.rows)
        logits = self.head(embeddings, is_frozen=batch.done < s.freeze_last)
        student = torch.stack(joined(*logits.split(b)))  # (V, B, K)
        with torch.no_grad():
            said = self.teacher_head(self.encode_with(self.teacher_encoder, batch.views))
            teacher = torch.stack(joined(*said.split(b)))  # (2, B, K)
        found = dino(
            student,
            teacher,
            center=self.center,
            student_temperature=s.student_temperature,
            teacher_temperature=self._teacher_temperature(batch.done),
        )
        loss, terms = found.loss, {"teacher_entropy": found.entropy, "divergence": found.kl}
        if s.koleo:
            spread = torch.stack([koleo(view) for view in joined(*whole.chunk(2))]).mean()
            loss = loss + s.koleo * spread
            terms["koleo"] = spread.detach()
        self.fresh = teacher
        return {"loss": loss, **terms}

    def _teacher_temperature(self, done: float) -> float:
        s = self.settings
        share = min(1.0, done / s.temperature_warmup) if s.temperature_warmup else 1.0
        return s.teacher_temperature + share * (s.teacher_temperature_end - s.teacher_temperature)

    def after_step(self, batch: Batch) -> None:
        self.center.copy_(updated_center(self.center, self.fresh, momentum=self.settings.center))
        momentum = cosine(batch.step, batch.steps, start=self.settings.momentum, end=1.0)
        update_momentum(self.teacher_encoder, self.encoder, momentum)
        update_momentum(self.teacher_head, self.head, momentum)

    def trivial_loss(self, n_tiles: int) -> float | None:  # noqa: ARG002 - the prototypes decide
        return math.log(self.settings.prototypes)

    def exported(self) -> nn.Module:
        return self.teacher_encoder
