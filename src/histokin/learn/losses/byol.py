"""BYOL: predict the momentum encoder's projection of the other view."""

from torch import Tensor

from histokin.learn.losses.rows import exact_dtype, exactly, refuse_unequal, unit


@exactly
def byol(p1: Tensor, z2: Tensor, p2: Tensor, z1: Tensor) -> Tensor:
    """Predict each view's target from the other view.

    With unit rows (Grill et al. 2020, eq. 2): loss = mean_i(2 - 2 p1_i.z2_i) + mean_i(2 - 2 p2_i.z1_i).

    Args:
        p1: (B, D) floating, predictions from view 1, any scale (normalised here, as are all).
        z2: (B, D), projections of view 2 by the momentum encoder; constant: no gradient.
        p2: (B, D), predictions from view 2.
        z1: (B, D), projections of view 1 by the momentum encoder; constant.

    Returns:
        0-d float32 or better, 0 (equal) to 8 (opposite). A collapsed encoder gives 0: watch the embeddings' spread.

    Raises:
        ValueError: shapes differ.
    """
    refuse_unequal(p1, z2, p2, z1)
    return 4 - 2 * (mean_cosine(p1, z2) + mean_cosine(p2, z1))


def mean_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean cosine of rows; the target is constant."""
    dtype = exact_dtype(prediction, target)
    return (unit(prediction, dtype) * unit(target.detach(), dtype)).sum(1).mean()
