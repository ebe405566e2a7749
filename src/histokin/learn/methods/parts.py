"""A large batch through the encoder in parts: memory of one part, the loss of the whole batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def in_parts(encoder: nn.Module, views: Tensor, parts: int) -> Tensor:
    """Encode views part by part; activations are computed again in the backward pass.

    What gradient accumulation cannot do for losses that compare the tiles of a batch: here all of them are in one loss
    (Gao et al. 2021 cache gradients to the same end). BatchNorm sees one part at a time.

    Args:
        encoder: (n, 3, H, W) to (n, D).
        views: (n, 3, H, W).
        parts: 1 encodes them at once.

    Returns:
        (n, D).
    """
    if parts == 1:
        return encoder(views)
    n = -(-len(views) // parts)
    return torch.cat([checkpoint(_Part(encoder), part, use_reentrant=False) for part in views.split(n)])


class _Part:
    """Encodes one part; the second time without counting it again in BatchNorm's running statistics."""

    def __init__(self, encoder: nn.Module) -> None:
        self.encoder, self.is_again = encoder, False

    def __call__(self, part: Tensor) -> Tensor:
        if self.is_again:
            with _statistics_kept(self.encoder):
                return self.encoder(part)
        self.is_again = True
        return self.encoder(part)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm)]
    before = [(m.momentum, m.num_batches_tracked) for m in norms]
    for norm in norms:
        # Means and variances move by 0 of the way; without a counter there is none to count on.
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, counter) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, counter
