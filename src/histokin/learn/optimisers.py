"""Optimisers: which parameters get which treatment, LARS, and what is done to rates and gradients around a step."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from histokin.learn.recipe import OptimiserSpec

# Rates with a scaling are stated for this many tiles a batch (Goyal et al. 2017).
REFERENCE_BATCH = 256


def build_optimiser(module: nn.Module, spec: OptimiserSpec) -> torch.optim.Optimizer:
    """The optimiser of a recipe over all that learns in a module.

    Two groups: matrices and kernels (`decays` True), and vectors, that is biases and the scales of norms, without
    weight decay (`decays` False). `set_rates` keeps them apart by that key.

    Args:
        module: its parameters with `requires_grad` are trained; a frozen or momentum network is left out by that.
        spec: `lr` and `weight_decay` are the values of the first step until `set_rates` is called.

    Raises:
        ValueError: nothing in the module learns.
    """
    learning = [p for p in module.parameters() if p.requires_grad]
    if not learning:
        raise ValueError("no parameter of the module requires a gradient")
    groups: list[dict[str, Any]] = [
        {"params": [p for p in learning if p.ndim > 1], "weight_decay": spec.weight_decay, "decays": True},
        {"params": [p for p in learning if p.ndim <= 1], "weight_decay": 0.0, "decays": False},
    ]
    match spec.name:
        case "adamw":
            return torch.optim.AdamW(groups, lr=spec.lr, betas=(spec.beta1, spec.beta2), fused=True)
        case "sgd":
            return torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum)
        case "lars":
            return LARS(groups, lr=spec.lr, momentum=spec.momentum, eta=spec.eta)


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (You et al. 2017), in the form used by SimCLR and Barlow Twins.

    For each parameter p with gradient g, its velocity v starting at 0:

        d = g + weight_decay p
        q = eta |p| / |d|, or 1 where either norm is 0
        v = momentum v + q d
        p = p - lr v

    Parameters of at most one dimension have d = g and q = 1: a bias near 0 would otherwise hardly move.

    Args:
        params: parameters, or groups of them, as any torch optimiser takes.
        lr: learning rate; linear scaling from .2 to 4.8 at 256 tiles in the papers.
        momentum: in [0, 1).
        weight_decay: L2, added to the gradient.
        eta: trust coefficient.
    """

    def __init__(
        self, params: Any, lr: float, *, momentum: float = 0.9, weight_decay: float = 0.0, eta: float = 1e-3
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "eta": eta})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore[reportIncompatibleMethodOverride] - torch declares overloads
        """Update all parameters that have a gradient; the gradients are left as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group)
        return loss

    def _update(self, p: Tensor, d: Tensor, group: dict[str, Any]) -> None:
        if p.ndim > 1:
            d = d.add(p, alpha=group["weight_decay"])
            p_norm, d_norm = torch.linalg.vector_norm(p), torch.linalg.vector_norm(d)
            # Chosen by `where`, not by `if`: reading a norm would make the GPU wait once for each parameter.
            q = torch.where((p_norm > 0) & (d_norm > 0), group["eta"] * p_norm / d_norm, 1.0)
            d = d.mul_(q)
        state = self.state[p]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(p)
        velocity = state["velocity"].mul_(group["momentum"]).add_(d)
        p.add_(velocity, alpha=-group["lr"])


def scaled_lr(spec: OptimiserSpec, batch: int) -> float:
    """The recipe's peak rate at so many tiles a batch, over all processes together.

    `linear` by B / 256 for SGD and LARS (Goyal et al. 2017), `sqrt` by its square root for Adam and for contrastive
    losses at small batches (Chen et al. 2020, appendix B.1).
    """
    ratio = batch / REFERENCE_BATCH
    match spec.scaling:
        case "none":
            return spec.lr
        case "sqrt":
            return spec.lr * math.sqrt(ratio)
        case "linear":
            return spec.lr * ratio


def set_rates(optimiser: torch.optim.Optimizer, *, lr: float, weight_decay: float) -> None:
    """Set the rates of the coming step; the weight decay only of groups that have one (`build_optimiser`)."""
    for group in optimiser.param_groups:
        group["lr"] = lr
        group["weight_decay"] = weight_decay if group["decays"] else 0.0


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> float:
    """Scale all gradients together so that their joint L2 norm is at most `largest`.

    Over several processes: after `average_gradients`, so that all find the same norm.

    Args:
        parameters: those without a gradient do not count.
        largest: above 0; `inf` only measures.

    Returns:
        The norm before. If it is not finite the gradients are useless, and so is the step.

    Raises:
        ValueError: `largest` is not above 0.
    """
    if not largest > 0:
        raise ValueError(f"largest must be > 0, got {largest}")
    return nn.utils.clip_grad_norm_(parameters, largest).item()
