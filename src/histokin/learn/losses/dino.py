"""DINO: match the teacher's class probabilities across views."""

from typing import NamedTuple

import torch
from torch import Tensor

from histokin.learn.losses.rows import exact, exact_dtype, exactly, refuse_not_positive


class DinoLoss(NamedTuple):
    """Loss and detached parts, all 0-d: loss = entropy + kl.

    Attributes:
        loss: to minimise.
        entropy: mean entropy of the teacher's probabilities; log K (uniform) and 0 (one-hot, the same one for all)
            are the two collapses.
        kl: mean divergence of the student from the teacher; 0: nothing is left to learn.
    """

    loss: Tensor
    entropy: Tensor
    kl: Tensor


@exactly
def dino(
    student: Tensor, teacher: Tensor, *, center: Tensor, student_temperature: float, teacher_temperature: float
) -> DinoLoss:
    """Make the student say of each view what the teacher says of another view of the tile.

    With P = softmax((teacher - center) / teacher_temperature), constant, and the mean over all pairs of a teacher's
    view i and a student's view v != i (Caron et al. 2021, eq. 1 to 3):

        loss = mean_{i, v} mean_b( -sum_k P_ibk log softmax(student_v / student_temperature)_bk )

    Args:
        student: (V, B, K) floating, raw logits of all views, the teacher's first and in its order; V >= 2.
        teacher: (G, B, K), raw logits of the G <= V global views (2 in the paper); constant: no gradient.
        center: (K,) or (1, K), subtracted from the teacher; see updated_center.
        student_temperature: positive; 0.1 in the paper.
        teacher_temperature: positive; 0.04 to 0.07 in the paper.

    Returns:
        Loss, 0-d float32 or better, and its parts. Equal logits give log K.

    Raises:
        ValueError: shapes do not fit or a temperature <= 0.
    """
    V, G = len(student), len(teacher)
    if student.ndim != 3 or teacher.ndim != 3 or student.shape[1:] != teacher.shape[1:] or not 1 <= G <= V or V < 2:
        raise ValueError(
            f"need (V >= 2, B, K) student and (G <= V, B, K) teacher logits, "
            f"got {tuple(student.shape)}, {tuple(teacher.shape)}"
        )
    B, K = student.shape[1:]
    if not B or not K:
        raise ValueError(f"need at least one tile and one class, got B = {B}, K = {K}")
    _refuse_center(center, K)
    refuse_not_positive(student_temperature=student_temperature, teacher_temperature=teacher_temperature)
    dtype = exact_dtype(student, teacher, center)
    said = (teacher.detach().to(dtype) - center.detach().to(dtype).reshape(K)) / teacher_temperature
    P = said.softmax(2)  # (G, B, K)
    log_student = (student.to(dtype) / student_temperature).log_softmax(2)  # (V, B, K)
    crossed = -(P.flatten(1) @ log_student.flatten(1).T) / B  # (G, V)
    same = torch.eye(G, V, dtype=torch.bool, device=crossed.device)
    loss = crossed.masked_fill(same, 0.0).sum() / (G * (V - 1))
    entropy = -(P * said.log_softmax(2)).sum(2).mean()
    return DinoLoss(loss, entropy, loss.detach() - entropy)


@torch.no_grad()
@exactly
def updated_center(center: Tensor, teacher: Tensor, *, momentum: float) -> Tensor:
    """The center for the next step: momentum * center + (1 - momentum) * mean of the teacher's logits.

    Args:
        center: (K,) or (1, K).
        teacher: (G, B, K) raw logits of the step just done, of all ranks.
        momentum: weight of the old center, 0 to 1; 0.9 in the paper.

    Returns:
        Shape of center, float32 or better.

    Raises:
        ValueError: shapes do not fit or momentum outside 0..1.
    """
    if teacher.ndim != 3 or not teacher.numel():
        raise ValueError(f"teacher must be (G, B, K), got {tuple(teacher.shape)}")
    _refuse_center(center, teacher.shape[2])
    if not 0 <= momentum <= 1:
        raise ValueError(f"momentum must lie in 0..1, got {momentum}")
    return momentum * exact(center) + (1 - momentum) * exact(teacher).mean((0, 1))


def _refuse_center(center: Tensor, K: int) -> None:
    if center.shape not in ((K,), (1, K)):
        raise ValueError(f"center must be ({K},) or (1, {K}), got {tuple(center.shape)}")
