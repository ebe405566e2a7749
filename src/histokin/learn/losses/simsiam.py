"""SimSiam: predict the other view's projection, without a momentum encoder."""

from torch import Tensor

from histokin.learn.losses.byol import mean_cosine
from histokin.learn.losses.rows import exactly, refuse_unequal


@exactly
def simsiam(p1: Tensor, z2: Tensor, p2: Tensor, z1: Tensor) -> Tensor:
    """Predict each view's projection from the other view.

    With unit rows (Chen & He 2021, eq. 1 to 4): loss = -( mean_i p1_i.z2_i + mean_i p2_i.z1_i ) / 2.

    Args:
        p1: (B, D) floating, predictions from view 1, any scale (normalised here, as are all).
        z2: (B, D), projections of view 2; constant: no gradient.
        p2: (B, D), predictions from view 2.
        z1: (B, D), projections of view 1; constant.

    Returns:
        0-d float32 or better, -1 (equal) to 1. A collapsed encoder gives -1: watch the embeddings' spread.

    Raises:
        ValueError: shapes differ.
    """
    refuse_unequal(p1, z2, p2, z1)
    return -(mean_cosine(p1, z2) + mean_cosine(p2, z1)) / 2
