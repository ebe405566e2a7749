"""Heads between encoder and loss."""

import itertools

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from histokin.learn.recipe import ProjectorSpec


def projector(dim: int, spec: ProjectorSpec) -> nn.Sequential:
    """Linear layers with BatchNorm and ReLU between them, as the recipe's `projector` section says.

    Args:
        dim: width of what comes in.
        spec: see `ProjectorSpec`.
    """
    widths = [dim, *[spec.hidden] * (spec.layers - 1)]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers.append(nn.Linear(before, after, bias=not spec.norm))  # a bias before BatchNorm has no effect
        layers += [nn.BatchNorm1d(after)] if spec.norm else []
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(widths[-1], spec.out, bias=not spec.out_norm))
    layers += [nn.BatchNorm1d(spec.out, affine=False)] if spec.out_norm else []
    return nn.Sequential(*layers)


class NormedLinear(nn.Module):
    """Cosines with learned directions: unit(x) @ unit columns of W (the heads of CLD and RetCCL).

    Args:
        dim: width of x.
        out: number of directions.
    """

    def __init__(self, dim: int, out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, out))
        nn.init.xavier_normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(B, dim) to (B, out), each in [-1, 1]."""
        return F.normalize(x, dim=1) @ F.normalize(self.weight, dim=0)


class PrototypeHead(nn.Module):
    """DINO's head: a GELU MLP, a bottleneck on the unit sphere, weight-normalised prototypes (Caron et al. 2021).

    The prototypes' lengths are fixed at 1 (the paper's norm_last_layer).

    Args:
        dim: width of an embedding.
        hidden, bottleneck: widths of the MLP and of what the prototypes see.
        prototypes: K.
    """

    def __init__(self, dim: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.empty(prototypes, bottleneck))
        nn.init.kaiming_uniform_(self.prototypes, a=5**0.5)

    def forward(self, x: Tensor, *, is_frozen: bool = False) -> Tensor:
        """(B, dim) to (B, K) logits; no gradient reaches frozen prototypes."""
        prototypes = self.prototypes.detach() if is_frozen else self.prototypes
        return F.normalize(self.mlp(x), dim=1) @ F.normalize(prototypes, dim=1).T
