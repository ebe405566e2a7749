"""Optimisers of a spec, the published code's among them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from histokin.mil.training.spec import MilSpec


def build_optimiser(module: nn.Module, spec: MilSpec) -> torch.optim.Optimizer:
    """The optimiser of a spec over all parameters; its rate is set step by step."""
    betas, decay = (spec.beta1, 0.999), spec.weight_decay
    match spec.optimiser:
        case "adamw":
            return torch.optim.AdamW(module.parameters(), lr=spec.lr, betas=betas, weight_decay=decay, fused=True)
        case "adam":
            return torch.optim.Adam(module.parameters(), lr=spec.lr, betas=betas, weight_decay=decay, fused=True)
        case "sgd":
            momentum = {"momentum": spec.beta1, "nesterov": spec.beta1 > 0}
            return torch.optim.SGD(module.parameters(), lr=spec.lr, weight_decay=decay, fused=True, **momentum)
        case "radam-lookahead":
            return LookaheadRAdam(module.parameters(), lr=spec.lr, betas=betas, weight_decay=decay)


class LookaheadRAdam(torch.optim.RAdam):
    """Rectified Adam (Liu et al. 2020) that every k steps goes part of its way (Lookahead, Zhang et al. 2019).

    With fast weights p that RAdam moves and slow weights s, p itself at the beginning, every k steps

        s = s + alpha (p - s)        p = s

    Weight decay is decoupled, as in the code that TransMIL uses.

    Args:
        params: as any torch optimiser takes.
        lr, betas, weight_decay: of RAdam.
        k: steps between two looks ahead.
        alpha: share of the way.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.0,
        k: int = 6,
        alpha: float = 0.5,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, weight_decay=weight_decay, decoupled_weight_decay=True)
        for group in self.param_groups:
            group.update(k=k, alpha=alpha)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update all parameters that have a gradient."""
        moving = [(p, group) for group in self.param_groups for p in group["params"] if p.grad is not None]
        slow = [self.state[p]["slow"] if "slow" in self.state[p] else p.clone() for p, _ in moving]
        loss = super().step(closure)
        for (p, group), s in zip(moving, slow, strict=True):
            state = self.state[p]
            state["slow"] = s
            if int(state["step"]) % group["k"] == 0:
                p.copy_(s.add_(p - s, alpha=group["alpha"]))
        return loss
