"""One class of several, or several labels at once."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from histokin.mil.objectives.objective import exact, refuse_target


@dataclass(frozen=True, slots=True)
class Classes:
    """Exactly one of n classes: softmax and cross-entropy.

    Attributes:
        n: number of classes, >= 2; a target is int64 (B,) in 0..n-1.
        weights: of the classes, N / (n n_c) to balance them; None for equal ones. The loss is
            mean_b(w_y(b) CE_b): divided by the number of bags, not by the sum of the weights (torch's way), which
            would cancel the weight of a batch of one bag.
    """

    n: int
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"need at least 2 classes, got {self.n}")
        _refuse_weights(self.weights, self.n)

    @property
    def n_outputs(self) -> int:
        return self.n

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        refuse_target(logits, target, (len(logits),), "int64 class numbers")
        each = F.cross_entropy(exact(logits), target, reduction="none")
        if self.weights is not None:
            each = each * each.new_tensor(self.weights)[target]
        return each.mean()

    def predict(self, logits: Tensor) -> Tensor:
        """(B, n) probabilities."""
        return exact(logits).softmax(1)

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        return torch.logaddexp(exact(first).log_softmax(1), exact(second).log_softmax(1)) - math.log(2)


@dataclass(frozen=True, slots=True)
class MultiLabel:
    """n labels, each true or not by itself: sigmoid and binary cross-entropy.

    Attributes:
        n: number of labels; a target is floating (B, n), 1 for true, 0 for false, NaN for unknown (left out of the
            mean).
        weights: of each label's positives, (number of negatives) / (number of positives) to balance it.
    """

    n: int
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"need at least 1 label, got {self.n}")
        _refuse_weights(self.weights, self.n)

    @property
    def n_outputs(self) -> int:
        return self.n

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        refuse_target(logits, target, (len(logits), self.n), "true/false labels")
        logits = exact(logits)
        is_known = ~target.isnan()
        truth = target.to(logits.dtype).nan_to_num(0.0)
        positives = None if self.weights is None else logits.new_tensor(self.weights)
        each = F.binary_cross_entropy_with_logits(logits, truth, pos_weight=positives, reduction="none")
        return (each * is_known).sum() / is_known.sum().clamp_min(1)

    def predict(self, logits: Tensor) -> Tensor:
        """(B, n) probabilities."""
        return exact(logits).sigmoid()

    def blend(self, first: Tensor, second: Tensor) -> Tensor:
        first, second = exact(first), exact(second)
        # logit of the mean p is log(p1 + p2) - log((1 - p1) + (1 - p2)): exact where p rounds to 0 or 1.
        yes = torch.logaddexp(F.logsigmoid(first), F.logsigmoid(second))
        return yes - torch.logaddexp(F.logsigmoid(-first), F.logsigmoid(-second))


def log_odds(logits: Tensor) -> Tensor:
    """log(p / (1 - p)) of each class, (N, C >= 2): in the order of p, also among those that round to 0 or 1."""
    logits = exact(logits)
    itself = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    others = logits[:, None].expand(-1, logits.shape[1], -1).masked_fill(itself, -torch.inf)  # (N, C, C)
    return logits - others.logsumexp(2)


def _refuse_weights(weights: tuple[float, ...] | None, n: int) -> None:
    if weights is not None and (len(weights) != n or not all(0 < weight < math.inf for weight in weights)):
        raise ValueError(f"need {n} weights > 0, got {weights}")
