"""The momentum encoder: a copy of a module that follows it slowly (He et al. 2020; Grill et al. 2020, BYOL)."""

import copy as copying
import math
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def momentum_copy(module: _Module) -> _Module:
    """A copy with weights of its own that takes no gradient; its mode (train or eval) is that of the module."""
    return copying.deepcopy(module).requires_grad_(requires_grad=False)


@torch.no_grad()
def update_momentum(
    copy: nn.Module, module: nn.Module, momentum: float, *, buffers: Literal["copy", "own"] = "copy"
) -> None:
    """Move the copy's parameters towards the module's: p = m * p + (1 - m) * q, in float32.

    MoCo calls it before the keys are computed, BYOL and DINO after the optimiser's step. Parameters that equal the
    module's stay exactly as they are.

    Args:
        copy: made by `momentum_copy`; changed in place.
        module: the one followed.
        momentum: m, the weight of the copy's own value, in [0, 1].
        buffers: `copy` takes over the module's buffers as they are (they are never averaged: counters are integers, and
            averaged running variances belong to neither network). `own` leaves the copy's alone, for key encoders that
            gather running statistics of their own in train mode, as in MoCo and BYOL.

    Raises:
        ValueError: the two differ in the names or shapes of what they hold, the copy is below float32 (where steps of
            (1 - m) round to nothing), or the momentum is outside [0, 1].
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}")
    if buffers not in ("copy", "own"):
        raise ValueError(f"buffers must be 'copy' or 'own', got {buffers!r}")
    followers, leaders = _paired("parameters", dict(copy.named_parameters()), dict(module.named_parameters()))
    low = [p.dtype for p in followers if p.dtype not in (torch.float32, torch.float64)]
    if low:
        raise ValueError(f"a momentum copy needs float32 parameters, this one has {low[0]}: use copy.float()")
    if followers:
        leaders = [leader.to(follower.dtype) for follower, leader in zip(followers, leaders, strict=True)]
        # One launch for all of them, as torch.optim does.
        torch._foreach_lerp_(followers, leaders, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]
    if buffers == "copy":
        followers, leaders = _paired("buffers", dict(copy.named_buffers()), dict(module.named_buffers()))
        if followers:
            torch._foreach_copy_(followers, leaders)  # pyright: ignore[reportPrivateImportUsage]


def _paired(what: str, own: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    mine, others = ({name: tuple(t.shape) for name, t in tensors.items()} for tensors in (own, theirs))
    if mine != others:
        differing = sorted(name for name in mine.keys() | others.keys() if mine.get(name) != others.get(name))
        first = differing[0]
        raise ValueError(
            f"copy and module differ in {len(differing)} of their {what}, first {first!r}: "
            f"{mine.get(first, 'absent')} and {others.get(first, 'absent')}"
        )
    return list(own.values()), [theirs[name] for name in own]


def ema_momentum(step: int, steps: int, start: float, end: float = 1.0) -> float:
    """The momentum of a step, from `start` to `end` along half a cosine (Grill et al. 2020, BYOL).

        m(s) = end - (end - start) * (cos(pi * s / steps) + 1) / 2

    Args:
        step: s, 0 to steps.
        steps: length of the run, >= 1.
        start, end: momentum at step 0 and at step `steps`; equal ones keep it constant.

    Raises:
        ValueError: the step is outside [0, steps], or steps is below 1.
    """
    if steps < 1 or not 0 <= step <= steps:
        raise ValueError(f"need 0 <= step <= steps and steps >= 1, got step {step} of {steps}")
    return end - (end - start) * (math.cos(math.pi * step / steps) + 1) / 2
