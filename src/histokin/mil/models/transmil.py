"""Self-attention between tiles: TransMIL."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from histokin.errors import RecipeError
from histokin.mil.bags import PackedBags
from histokin.mil.models import pooling
from histokin.mil.models.model import MilModel
from histokin.mil.models.nystrom import NystromAttention
from histokin.mil.models.ppeg import Ppeg, grid_cells, raster_order, square_cells
from histokin.mil.objectives import Objective
from histokin.mil.output import MilOutput


class TransMil(MilModel):
    """Two layers of Nystrom attention with a class token (Shao et al., NeurIPS 2021; code szc19990412/TransMIL).

        s = [class token, relu(W x_n + b)]
        s <- s + Attn(LN(s));   tiles of s <- PPEG(tiles of s);   s <- s + Attn(LN(s))
        logits = W_c LN(s)_class + b_c

    Default: the tiles stand in raster order of their coords (in the order given where there are none), so that the
    order of a file does not matter; none is repeated; PPEG works on the true grid, or on the smallest square without
    coords; bags of fewer than `landmarks` tiles get exact attention, and no padding takes part (`NystromAttention`).
    Tiles at the very same place keep the order given.

    `faithful`: the order given whatever the coords, the first tiles again until the square is full, zero rows in the
    softmax. As published its logits depend on the order of tiles.

    Bags are computed one by one. `attention` holds the exact raw scores of the class token with every tile in the last
    layer, a column a head, whether or not the layer's output came through landmarks; `weights` is their softmax over
    tiles alone.

    Args:
        dim: D.
        objective: what the logits mean.
        width: E; a multiple of `heads`.
        heads: of the attention.
        landmarks: of the attention; E / 2 in the authors' code.
        layout: `grid` (default) or `repeated` (faithful).
        exact_last: compute the class token's attention exactly in the last layer, at a cost linear in the tiles;
            nothing else of that layer is read.
        dropout: after the attention's output projection.
    """

    faithful: ClassVar[Mapping[str, Any]] = {"layout": "repeated"}

    def __init__(
        self,
        dim: int,
        objective: Objective,
        *,
        width: int = 512,
        heads: int = 8,
        landmarks: int = 256,
        layout: Literal["grid", "repeated"] = "grid",
        exact_last: bool = False,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(dim, objective)
        if layout not in ("grid", "repeated") or width % heads:
            raise RecipeError(
                f"layout '{layout}' with width {width} and {heads} heads cannot be",
                "model transmil",
                "Use layout grid or repeated, and a width that the heads divide.",
            )
        self.is_repeated, self.exact_last = layout == "repeated", exact_last
        self.embed = nn.Sequential(nn.Linear(dim, width), nn.ReLU())
        self.class_token = nn.Parameter(torch.randn(1, width))
        attention = partial(
            NystromAttention,
            width,
            heads=heads,
            landmarks=landmarks,
            dropout=dropout,
            is_padded=self.is_repeated,
            per_head=not self.is_repeated,
        )
        self.norm1, self.attention1 = nn.LayerNorm(width), attention()
        self.ppeg = Ppeg(width)
        self.norm2, self.attention2 = nn.LayerNorm(width), attention()
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, objective.n_outputs)

    def forward(self, bags: PackedBags, target: Tensor | None = None) -> MilOutput:
        h = self.embed(self.tiles_of(bags))
        places = [None] * len(bags) if bags.coords is None else bags.coords.split(bags.sizes)
        tokens, scores = zip(
            *(self._read(tiles, place) for tiles, place in zip(h.split(bags.sizes), places, strict=True)), strict=True
        )
        z = self.norm(torch.cat(tokens))
        logits, attention = self.head(z), torch.cat(scores)
        return MilOutput(
            logits=logits,
            slide_embedding=z,
            attention=attention,
            weights=pooling.softmax(attention, bags),
            losses=self.losses_of(logits, target),
        )

    def _read(self, h: Tensor, coords: Tensor | None) -> tuple[Tensor, Tensor]:
        """One bag: (n, E) tiles to the class token (1, E) and its raw scores with each tile (n, heads)."""
        n = len(h)
        order = torch.arange(n, device=h.device)
        if self.is_repeated:
            cells, height, width = square_cells(n)
            cells = torch.arange(height * width)
            order = cells.to(h.device) % n  # the first tiles again
        elif coords is None or (coords < 0).all(1).any():  # (-1, -1): a tile without a place
            cells, height, width = square_cells(n)
        else:
            order = raster_order(coords)
            cells, height, width = grid_cells(coords[order])
        s = torch.cat([self.class_token, h[order]])  # in the token's dtype, also where autocast halved h's
        s = s + self.attention1(self.norm1(s))[0]
        s = torch.cat([s[:1], self.ppeg(s[1:], cells.to(h.device), height, width)])
        attend = self.attention2.first_row if self.exact_last else self.attention2
        update, scores = attend(self.norm2(s))
        ranked = scores.new_empty(n, scores.shape[1])
        ranked[order[:n]] = scores[1 : n + 1]
        return s[:1] + update[:1], ranked
