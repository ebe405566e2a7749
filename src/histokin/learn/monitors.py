"""Is the encoder learning, or has it collapsed: measures of embeddings, and the rules of the alarm."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

LOWEST_RANK_SHARE = 0.05
LOWEST_SPREAD = 0.1
# How near to the trivial value the loss counts as not having left it.
TRIVIAL_SHARE = 0.98


def feature_std(x: Tensor) -> Tensor:
    """Mean over dimensions of the standard deviation (unbiased) of unit rows; 1/sqrt(D) where they fill the sphere.

    Args:
        x: (N, D), any scale; N >= 2.
    """
    return F.normalize(x.double(), dim=1).std(0).mean()


def rankme(x: Tensor, eps: float = 1e-7) -> Tensor:
    """Effective rank: exp(-sum p log p), p = singular values over their sum + eps (Garrido et al. 2023).

    Args:
        x: (N, D) embeddings as they are, neither centred nor normalised.
        eps: the paper's constant.

    Returns:
        0-d float64 between 1 and min(N, D).
    """
    sigma = torch.linalg.svdvals(x.double())
    p = sigma / sigma.sum().clamp_min(torch.finfo(sigma.dtype).tiny) + eps
    return torch.exp(-torch.special.xlogy(p, p).sum())


def alignment(a: Tensor, b: Tensor, alpha: float = 2.0) -> Tensor:
    """mean_i |a_i - b_i|^alpha of unit rows of two views; 0 is perfect (Wang & Isola 2020)."""
    return (F.normalize(a.double(), dim=1) - F.normalize(b.double(), dim=1)).norm(dim=1).pow(alpha).mean()


def uniformity(x: Tensor, t: float = 2.0) -> Tensor:
    """Log mean_{i<j} exp(-t |x_i - x_j|^2) of unit rows; lower is more even, 0 is collapsed (Wang & Isola 2020)."""
    distances = torch.pdist(F.normalize(x.double(), dim=1))
    return (-t * distances.square()).exp().mean().log()


@dataclass(frozen=True, slots=True)
class Look:
    """What a monitor saw after a step.

    spread is feature_std * sqrt(D). nearest is the share of labelled tiles whose nearest neighbour of another group (as
    a rule, patient) has their label; None without labels.
    """

    step: int
    rank: float
    spread: float
    alignment: float
    uniformity: float
    nearest: float | None = None


def look_at(
    step: int,
    embeddings: Tensor,
    first: Tensor,
    second: Tensor,
    *,
    labels: tuple[np.ndarray, np.ndarray] | None = None,
) -> Look:
    """Measure embeddings.

    Args:
        step: how many steps were done.
        embeddings: (N, D) of undisturbed tiles.
        first, second: (M, D) of two views of the same tiles.
        labels: (N,) codes, -1 where unlabelled, and (N,) groups that do not answer for each other.
    """
    return Look(
        step=step,
        rank=float(rankme(embeddings)),
        spread=float(feature_std(embeddings)) * embeddings.shape[1] ** 0.5,
        alignment=float(alignment(first, second)),
        uniformity=float(uniformity(embeddings)),
        nearest=None if labels is None else nearest_label(embeddings, *labels),
    )


def nearest_label(x: Tensor, codes: np.ndarray, groups: np.ndarray) -> float | None:
    """Share of labelled rows whose nearest row (cosine) of another group has their label; None if none can ask.

    Args:
        x: (N, D).
        codes: (N,) labels, -1 where unlabelled: such rows neither ask nor answer.
        groups: (N,) whose rows do not answer for each other.
    """
    known = np.flatnonzero(codes >= 0)
    if len(set(groups[known].tolist())) < 2:
        return None
    unit = F.normalize(x[torch.from_numpy(known)].double(), dim=1)
    group, code = torch.from_numpy(groups[known]), torch.from_numpy(codes[known])
    similar = (unit @ unit.T).masked_fill(group[:, None] == group, -torch.inf)
    return float((code[similar.argmax(1)] == code).double().mean())


def find_alarms(
    looks: Sequence[Look], *, dim: int, n_probe: int, loss: float, trivial: float | None
) -> tuple[str, ...]:
    """What is wrong with a run, in words a person can act on; empty if nothing is.

    Args:
        looks: in order of steps.
        dim: D.
        n_probe: N, tiles looked at: no rank can exceed it.
        loss: mean over the last tenth of the steps.
        trivial: the method's loss for a constant encoder.
    """
    found = []
    if trivial is not None and loss >= TRIVIAL_SHARE * trivial:
        found.append(
            f"the loss ({loss:.3f}) is still that of a constant encoder ({trivial:.3f}): "
            "nothing was learned; train longer, or raise the learning rate"
        )
    if looks:
        last, lowest = looks[-1], LOWEST_RANK_SHARE * min(dim, n_probe)
        if last.spread < LOWEST_SPREAD:
            found.append(
                f"embeddings have collapsed: their spread is {last.spread:.3f} (below {LOWEST_SPREAD}), "
                "all tiles look alike to the encoder; lower the learning rate or use stronger views"
            )
        if last.rank < lowest:
            found.append(
                f"embeddings have collapsed to few directions: effective rank {last.rank:.1f} of {dim} "
                f"(below {lowest:.1f}); lower the learning rate or train on more varied tiles"
            )
        if len(looks) >= 4 and all(b.rank < a.rank for a, b in zip(looks[-4:-1], looks[-3:], strict=True)):
            found.append(
                f"the effective rank fell at the last three looks (from {looks[-4].rank:.1f} to {last.rank:.1f}): "
                "compare an earlier or shorter run"
            )
    return tuple(found)
