"""Clustering-constrained attention: CLAM with one branch or one a class."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from histokin.errors import RecipeError
from histokin.mil.bags import PackedBags
from histokin.mil.models import pooling
from histokin.mil.models.model import Activation, Attention, MilModel, contributions, embedding
from histokin.mil.objectives import Classes, Objective, smooth_top1_svm
from histokin.mil.objectives.objective import exact
from histokin.mil.output import MilOutput


class ClamSB(MilModel):
    """CLAM with a single branch (Lu et al., Nature Biomedical Engineering 2021; code mahmoodlab/CLAM).

    ABMIL with one more task: C classifiers of two outputs learn to tell the most from the least attended tiles. For a
    slide of class y and k tiles at either end of the attention:

        c = y:   L_c = mean of l(inst_c(h), t) over the k highest (t = 1) and the k lowest (t = 0) tiles
        c != y:  L_c = mean of l(inst_c(h), 0) over the k highest tiles; only with `subtyping`
        loss = bag_weight CE + (1 - bag_weight) sum_c L_c, the sum divided by C with `subtyping`

    averaged over the bags of a batch. The choice of tiles carries no gradient. For objectives other than `Classes`
    there are no such classifiers, as CLAM's authors advise for several labels.

    Corrected: in a bag of N < 2k tiles each end has floor(N/2) (the published code stops for N < k, and below 2k calls
    tiles positive and negative at once); one tile alone is positive; losses need a target, inference does not.
    `subtyping` and the SVM are on: without `subtyping` nothing teaches the tumour classifier on a normal slide.
    `faithful`: the code's defaults, cross-entropy without `subtyping`, min(k, N) tiles at either end.

    Args:
        dim: D.
        objective: what the logits mean.
        hidden: widths of the layers that embed a tile.
        attention: width of the attention; 256 is CLAM's "small", 384 its "big".
        gated: gated or plain attention.
        k: tiles at either end (B of the paper).
        subtyping: whether the classes exclude one another.
        instance_loss: `svm` (smooth top-1, tau = alpha = 1) or `ce`.
        overlap: let the two ends of a small bag share tiles.
        bag_weight: share of the slide's loss.
        dropout: after the embedding layers. If it is not 0 the attention has 0.25, whatever it is.
        activation, norm: see `embedding`.
    """

    faithful: ClassVar[Mapping[str, Any]] = {"subtyping": False, "instance_loss": "ce", "overlap": True}
    branch_a_class: ClassVar[bool] = False

    def __init__(
        self,
        dim: int,
        objective: Objective,
        *,
        hidden: Sequence[int] = (512,),
        attention: int = 256,
        gated: bool = True,
        k: int = 8,
        subtyping: bool = True,
        instance_loss: Literal["svm", "ce"] = "svm",
        overlap: bool = False,
        bag_weight: float = 0.7,
        dropout: float = 0.25,
        activation: Activation = "relu",
        norm: bool = False,
    ) -> None:
        super().__init__(dim, objective)
        if k < 1 or instance_loss not in ("svm", "ce") or not 0 <= bag_weight <= 1:
            raise RecipeError(
                f"k={k}, instance_loss='{instance_loss}', bag_weight={bag_weight} cannot be",
                "model clam",
                "Use k >= 1, instance_loss svm or ce, bag_weight in [0, 1].",
            )
        self.k, self.subtyping, self.instance_loss = k, subtyping, instance_loss
        self.overlap, self.bag_weight = overlap, bag_weight
        width, C = [dim, *hidden][-1], objective.n_outputs
        self.embed = embedding(dim, hidden, dropout, activation=activation, norm=norm)
        inner = 0.25 if dropout else 0.0
        self.attention = Attention(
            width, attention, branches=C if self.branch_a_class else 1, gated=gated, dropout=inner
        )
        self.head = nn.Linear(width, C)  # of several branches: row c reads branch c
        n_instance = C if isinstance(objective, Classes) else 0
        self.instance = nn.ModuleList(nn.Linear(width, 2) for _ in range(n_instance))

    def forward(self, bags: PackedBags, target: Tensor | None = None) -> MilOutput:
        h = self.embed(self.tiles_of(bags))
        scores = self.attention(h)
        weights = pooling.softmax(scores, bags)
        z = pooling.weighted_sum(weights, h, bags)  # (B, K, E)
        logits = self._classify(z)
        with torch.no_grad():
            alone = self.head(h)
        return MilOutput(
            logits=logits,
            slide_embedding=z.flatten(1),
            attention=scores,
            weights=weights,
            tile_logits=alone,
            tile_contrib=self._contributions(weights, h),
            losses=self._losses(logits, h, scores, bags, target),
        )

    def _classify(self, z: Tensor) -> Tensor:
        return self.head(z[:, 0])

    def _contributions(self, weights: Tensor, h: Tensor) -> Tensor:
        return contributions(weights, h, self.head.weight[:, None])

    def _losses(
        self, logits: Tensor, h: Tensor, scores: Tensor, bags: PackedBags, target: Tensor | None
    ) -> dict[str, Tensor]:
        losses = self.losses_of(logits, target)
        if target is None or not self.instance:
            return losses
        parts = zip(h.split(bags.sizes), scores.detach().split(bags.sizes), target.tolist(), strict=True)
        instance = torch.stack([self.tile_loss(tiles, raw, label) for tiles, raw, label in parts]).mean()
        return {"bag": self.bag_weight * losses["bag"], "instance": (1 - self.bag_weight) * instance}

    def tile_loss(self, h: Tensor, scores: Tensor, label: int) -> Tensor:
        """The instance loss of one bag, 0-d: (N, E) embedded tiles, (N, K) raw attention, the slide's class."""
        terms = []
        for c, classifier in enumerate(self.instance):
            if c != label and not self.subtyping:
                continue
            top, bottom = self.extremes(scores[:, c % scores.shape[1]], both=c == label)
            says = classifier(h[torch.cat([top, bottom])])
            is_positive = torch.zeros(len(says), dtype=torch.int64, device=h.device)
            if c == label:
                is_positive[: len(top)] = 1
            criterion = smooth_top1_svm if self.instance_loss == "svm" else F.cross_entropy
            terms.append(criterion(exact(says), is_positive))
        return torch.stack(terms).sum() / (len(self.instance) if self.subtyping else 1)

    def extremes(self, scores: Tensor, *, both: bool) -> tuple[Tensor, Tensor]:
        """The rows of the most and, if both ends are wanted, of the least attended tiles among (N,) of one bag."""
        n = len(scores)
        k = min(self.k, n)
        if not both:
            return scores.topk(k).indices, scores.new_empty(0, dtype=torch.int64)
        if not self.overlap:
            k = min(k, n // 2)
        return scores.topk(max(k, 1)).indices, scores.topk(k, largest=False).indices


class ClamMB(ClamSB):
    """CLAM with a branch of attention for each class, and a head that reads its own branch only.

        M_c = sum_n w_cn h_n        logit_c = W_c M_c + b_c

    The instance classifier of class c reads the attention of branch c. All else as in `ClamSB`.
    """

    branch_a_class: ClassVar[bool] = True

    def _classify(self, z: Tensor) -> Tensor:
        return torch.einsum("bce,ce->bc", z, self.head.weight) + self.head.bias

    def _contributions(self, weights: Tensor, h: Tensor) -> Tensor:
        with torch.no_grad():
            return weights * F.linear(h, self.head.weight)
