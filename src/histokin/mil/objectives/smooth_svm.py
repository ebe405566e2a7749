"""The smooth top-1 support vector machine, CLAM's loss of tiles."""

import math

import torch
from torch import Tensor

from histokin.mil.objectives.objective import exact, refuse_target


def smooth_top1_svm(scores: Tensor, target: Tensor, *, tau: float = 1.0, alpha: float = 1.0) -> Tensor:
    """A multi-class hinge whose maximum is softened by a temperature (Berrada, Zisserman & Kumar 2018, eq. 6, k = 1).

    With D_j = alpha [j != y]:

        smooth:  loss = tau log sum_j exp((s_j + D_j - s_y) / tau)
        hard:    loss = max_j (s_j + D_j) - s_y

    As in the authors' code a row takes the hard form where its two largest scores lie tau log(1000) = 6.907755 tau or
    more apart: from there on a row that is right has loss and gradient exactly 0.

    Args:
        scores: (N, C) floating.
        target: (N,) int64.
        tau: positive.
        alpha: the margin, >= 0.

    Returns:
        0-d, the mean over rows.
    """
    refuse_target(scores, target, (len(scores),), "int64 class numbers")
    if not tau > 0 or not alpha >= 0:
        raise ValueError(f"need tau > 0 and alpha >= 0, got {tau}, {alpha}")
    scores = exact(scores)
    margin = torch.full_like(scores, alpha).scatter_(1, target[:, None], 0.0)
    over = scores + margin - scores.gather(1, target[:, None])  # (N, C), 0 at the target
    top = scores.detach().topk(2, dim=1).values
    is_hard = top[:, 0] - top[:, 1] >= tau * math.log(1000)
    return torch.where(is_hard, over.amax(1), tau * (over / tau).logsumexp(1)).mean()
