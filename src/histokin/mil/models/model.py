"""What every slide classifier offers, and the layers that several of them share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from histokin.errors import RecipeError
from histokin.mil.bags import PackedBags
from histokin.mil.objectives import Objective
from histokin.mil.output import MilOutput

Activation = Literal["relu", "gelu"]


class MilModel(nn.Module, ABC):
    """A classifier of bags.

    Laws that every model keeps (tests/mil/test_models_laws.py): the order of tiles (but for the published TransMIL),
    padding and the other bags of the batch change nothing; one tile is enough; inference needs no target.

    Args:
        dim: D, width of a tile's embedding.
        objective: what the logits mean.
    """

    faithful: ClassVar[Mapping[str, Any]] = {}
    """Options with which the model is the published code's, where they differ from the defaults."""

    def __init__(self, dim: int, objective: Objective) -> None:
        super().__init__()
        self.dim, self.objective = dim, objective

    @abstractmethod
    def forward(self, bags: PackedBags, target: Tensor | None = None) -> MilOutput:
        """Classify bags.

        Args:
            bags: of D-wide tiles in any floating dtype.
            target: as the objective describes it; without it there are no losses.
        """

    def forward_padded(
        self, x: Tensor, mask: Tensor, coords: Tensor | None = None, target: Tensor | None = None
    ) -> MilOutput:
        """The same for (B, N, D) tiles with a bool mask (B, N) of the real ones; the output is packed."""
        return self(PackedBags.from_padded(x, mask, coords), target)

    def tiles_of(self, bags: PackedBags) -> Tensor:
        """(T, D) tiles in the model's dtype.

        Raises:
            ValueError: the tiles have another width than the model was built for.
        """
        if bags.x.shape[1] != self.dim:
            raise ValueError(f"the model reads tiles of width {self.dim}, these have {bags.x.shape[1]}")
        return bags.x.to(next(self.parameters()).dtype)

    def losses_of(self, logits: Tensor, target: Tensor | None) -> dict[str, Tensor]:
        """The objective's loss of the bags, if there is a target."""
        return {} if target is None else {"bag": self.objective.loss(logits, target)}


def embedding(
    dim: int, widths: Sequence[int], dropout: float, *, activation: Activation = "relu", norm: bool = False
) -> nn.Sequential:
    """Linear layers, each with an activation and dropout after it, that embed tiles: (T, dim) to (T, widths[-1]).

    Args:
        dim: width of a tile.
        widths: of the layers; none leaves the tiles as they are.
        dropout: after each activation.
        activation: with ReLU, as published, h >= 0: only the head's weights can say that a tile speaks against a class.
        norm: LayerNorm before each activation.
    """
    known = {"relu": nn.ReLU, "gelu": nn.GELU}
    if activation not in known:
        raise RecipeError(f"there is no activation '{activation}'", "a slide classifier", "Known: gelu, relu.")
    layers: list[nn.Module] = []
    for width in widths:
        layers.append(nn.Linear(dim, width))
        layers += [nn.LayerNorm(width)] if norm else []
        layers += [known[activation](), nn.Dropout(dropout)]
        dim = width
    return nn.Sequential(*layers)


class Attention(nn.Module):
    """Raw attention of tiles, (T, E) to (T, K) (Ilse, Tomczak & Welling 2018, eq. 8 and 9).

        plain:  a_n = w^T tanh(V h_n + b_V) + b_w
        gated:  a_n = w^T ( tanh(V h_n + b_V) * sigmoid(U h_n + b_U) ) + b_w

    Args:
        dim: E.
        hidden: A, width of V and U.
        branches: K rows of w.
        gated: with U or without.
        dropout: after tanh and after sigmoid.
    """

    def __init__(self, dim: int, hidden: int, *, branches: int = 1, gated: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.V = nn.Linear(dim, hidden)
        self.U = nn.Linear(dim, hidden) if gated else None
        self.w = nn.Linear(hidden, branches)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor) -> Tensor:
        a = self.dropout(self.V(h).tanh())
        if self.U is not None:
            a = a * self.dropout(self.U(h).sigmoid())
        return self.w(a)


def contributions(weights: Tensor, h: Tensor, heads: Tensor) -> Tensor:
    """What each tile adds to the logits of a model that is linear in its weighted tiles; no gradient.

    Args:
        weights: (T, K).
        h: (T, E).
        heads: (C, K, E), the head's weights for each branch.

    Returns:
        (T, C): sum_k w_nk (heads_ck . h_n).
    """
    with torch.no_grad():
        parts = [weights[:, k, None] * (h @ heads[:, k].T) for k in range(weights.shape[1])]
        return torch.stack(parts).sum(0)
