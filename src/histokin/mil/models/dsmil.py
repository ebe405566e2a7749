"""Dual-stream attention: DSMIL."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from histokin.errors import RecipeError
from histokin.mil.bags import PackedBags
from histokin.mil.models import pooling
from histokin.mil.models.model import MilModel, embedding
from histokin.mil.objectives import Classes, MultiLabel, Objective
from histokin.mil.output import MilOutput


class Dsmil(MilModel):
    """Dual-stream MIL (Li, Li & Eliceiri, CVPR 2021; code binli123/dsmil-wsi).

    One stream classifies tiles and takes the highest score; the other attends to what resembles that critical tile. Per
    class c, with q a small network and V the tiles themselves (or Linear + ReLU of them, `passing_v`):

        c_n = W x_n + b          m_c = argmax_n c_nc
        A_nc = softmax_n( q(x_n) . q(x_m_c) / sqrt(Q) )        B_c = sum_n A_nc V_n
        bag logit_o = sum_c W_oc . B_c + b_o                    max logit_c = max_n c_nc

        loss = 0.5 l(bag logits) + 0.5 l(max logits)

    The index m_c carries no gradient, q(x_m_c) does; the scores c_n learn from the max stream alone. `tile_logits` are
    c_n, `attention` the products before the softmax.

    Default: tiles are projected to 512 first (else `passing_v` grows with D^2), l is the objective's loss, and the
    slide's logits are those whose prediction is the mean of both streams' predictions. `faithful`: no projection, l is
    binary cross-entropy on one-hot classes, the logits are the bag stream's.

    Args:
        dim: D.
        objective: what the logits mean.
        hidden: widths of the layers that embed a tile.
        query: q: `mlp`, Linear-ReLU-Linear-Tanh, or `linear`.
        query_dim: Q.
        passing_v: a layer for V.
        loss: `objective`, or `bce` whatever the objective (only with `Classes` and `MultiLabel`).
        logits: `mean` of both streams' predictions, or the `bag` stream alone.
        dropout: after each embedding layer, and before the layer of V.
    """

    faithful: ClassVar[Mapping[str, Any]] = {"hidden": (), "loss": "bce", "logits": "bag", "dropout": 0.0}

    def __init__(
        self,
        dim: int,
        objective: Objective,
        *,
        hidden: Sequence[int] = (512,),
        query: Literal["mlp", "linear"] = "mlp",
        query_dim: int = 128,
        passing_v: bool = False,
        loss: Literal["objective", "bce"] = "objective",
        logits: Literal["mean", "bag"] = "mean",
        dropout: float = 0.25,
    ) -> None:
        super().__init__(dim, objective)
        if query not in ("mlp", "linear") or loss not in ("objective", "bce") or logits not in ("mean", "bag"):
            raise RecipeError(
                f"query='{query}', loss='{loss}', logits='{logits}' cannot be",
                "model dsmil",
                "Use query mlp or linear, loss objective or bce, logits mean or bag.",
            )
        if loss == "bce" and not isinstance(objective, Classes | MultiLabel):
            raise RecipeError("binary cross-entropy needs classes or labels", "model dsmil", "Use loss=objective.")
        self.loss, self.reads_both = loss, logits == "mean"
        width, C = [dim, *hidden][-1], objective.n_outputs
        self.embed = embedding(dim, hidden, dropout)
        self.tile_head = nn.Linear(width, C)
        layers: list[nn.Module] = [nn.Linear(width, query_dim)]
        if query == "mlp":
            layers += [nn.ReLU(), nn.Linear(query_dim, query_dim), nn.Tanh()]
        self.query = nn.Sequential(*layers)
        self.value = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU()) if passing_v else None
        self.bag_head = nn.Conv1d(C, C, width)  # every logit reads the vectors of all classes
        # The authors' start since 2024; from torch's own the result hangs on the seed (issues 54, 59, 61, 70).
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv1d):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)  # pyright: ignore[reportArgumentType] - all of them have one

    def forward(self, bags: PackedBags, target: Tensor | None = None) -> MilOutput:
        h = self.embed(self.tiles_of(bags))
        tile_logits = self.tile_head(h)
        critical = pooling.argmax(tile_logits, bags)  # (B, C)
        max_logits = tile_logits.gather(0, critical)
        queries = self.query(h)
        scores = pooling.products(queries, queries[critical], bags) / math.sqrt(queries.shape[1])
        weights = pooling.softmax(scores, bags)
        z = pooling.weighted_sum(weights, h if self.value is None else self.value(h), bags)  # (B, C, E)
        bag_logits = self.bag_head(z)[:, :, 0]
        losses = (
            {} if target is None else {"bag": self._half(bag_logits, target), "max": self._half(max_logits, target)}
        )
        return MilOutput(
            logits=self.objective.blend(bag_logits, max_logits) if self.reads_both else bag_logits,
            slide_embedding=z.flatten(1),
            attention=scores,
            weights=weights,
            tile_logits=tile_logits,
            losses=losses,
        )

    def _half(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.loss == "bce" and isinstance(self.objective, Classes):
            many = MultiLabel(self.objective.n, self.objective.weights)
            return 0.5 * many.loss(logits, F.one_hot(target, self.objective.n).to(torch.float32))
        return 0.5 * self.objective.loss(logits, target)
