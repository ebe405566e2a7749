"""The momentum encoder: a copy of a module that follows it slowly (He et al. 2020; Grill et al. 2020, BYOL)."""

import copy as copying
from typing import TypeVar

import torch
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


def momentum_copy(module: _Module) -> _Module:
    """A copy with weights of its own that takes no gradient; its mode (train or eval) is that of the module."""
    return copying.deepcopy(module).requires_grad_(requires_grad=False)


@torch.no_grad()
def update_momentum(copy: nn.Module, module: nn.Module, momentum: float) -> None:
    """Move the copy's parameters towards the module's: p = m * p + (1 - m) * q, in float32.

    MoCo calls it before the keys are computed, BYOL and DINO after the optimiser's step. Parameters that equal the
    module's stay exactly as they are. Buffers are left alone: in train mode the copy gathers running statistics of its
    own, as in MoCo and BYOL.

    Args:
        copy: made by `momentum_copy`; changed in place.
        module: the one followed.
        momentum: m, the weight of the copy's own value, in [0, 1].

    Raises:
        ValueError: the two differ in the names or shapes of their parameters, the copy is below float32 (where steps of
            (1 - m) round to nothing), or the momentum is outside [0, 1].
    """
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}")
    followers, leaders = _paired(dict(copy.named_parameters()), dict(module.named_parameters()))
    low = [p.dtype for p in followers if p.dtype not in (torch.float32, torch.float64)]
    if low:
        raise ValueError(f"a momentum copy needs float32 parameters, this one has {low[0]}: use copy.float()")
    if followers:
        leaders = [leader.to(follower.dtype) for follower, leader in zip(followers, leaders, strict=True)]
        # One launch for all of them, as torch.optim does.
        torch._foreach_lerp_(followers, leaders, 1 - momentum)  # pyright: ignore[reportPrivateImportUsage]


def _paired(own: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    mine, others = ({name: tuple(t.shape) for name, t in tensors.items()} for tensors in (own, theirs))
    if mine != others:
        differing = sorted(name for name in mine.keys() | others.keys() if mine.get(name) != others.get(name))
        first = differing[0]
        raise ValueError(
            f"copy and module differ in {len(differing)} of their parameters, first {first!r}: "
            f"{mine.get(first, 'absent')} and {others.get(first, 'absent')}"
        )
    return list(own.values()), [theirs[name] for name in own]
