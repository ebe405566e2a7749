"""Every tile once an epoch: epochs shuffled by counter, so that (seed, step) alone decides."""

from functools import lru_cache

import numpy as np

from histokin.learn.sampling.draw import Draw, note_few_tiles
from histokin.streams import stream


class EpochSampler:
    """Every tile once in each n draws, never twice in a batch, in an order shuffled for each epoch.

    Args:
        seed: of the run.
        batch: samples a step, of all ranks together.
        n: how many tiles there are.

    Attributes:
        batch: as reduced by `effective_batch`.
        note: why, if it is reduced.
    """

    def __init__(self, seed: int, batch: int, n: int) -> None:
        if n < 1 or batch < 1:
            raise ValueError(f"cannot draw {batch} of {n} tiles")
        self.batch = effective_batch(batch, n)
        self.note = note_few_tiles(self.batch, batch, n)
        self._seed, self._asked, self._n = seed, batch, n

    def draw(self, step: int) -> Draw:
        """The whole batch of a step."""
        return Draw(batch_rows(self._seed, step, self._asked, self._n))


def effective_batch(batch: int, n_tiles: int) -> int:
    """The batch size that `n_tiles` allow without a tile twice in one batch.

    Fewer tiles than the batch: all of them. Fewer than two batches: half of them, since a batch that crosses from one
    epoch into the next could not avoid repeating a tile.
    """
    if n_tiles <= batch:
        return n_tiles
    return batch if n_tiles >= 2 * batch - 1 else (n_tiles + 1) // 2


def batch_rows(seed: int, step: int, batch: int, n_tiles: int) -> np.ndarray:
    """The tiles of one step.

    Epochs follow each other without a gap: every tile comes once in each n_tiles draws, never twice in a batch.

    Args:
        seed: of the run.
        step: from 0.
        batch: of all ranks together; reduced by `effective_batch`.
        n_tiles: how many tiles there are.

    Returns:
        (B,) int64 rows.
    """
    batch = effective_batch(batch, n_tiles)
    first, last = step * batch, (step + 1) * batch
    parts = [
        _epoch(seed, epoch, batch, n_tiles)[max(first - epoch * n_tiles, 0) : last - epoch * n_tiles]
        for epoch in range(first // n_tiles, (last - 1) // n_tiles + 1)
    ]
    return np.concatenate(parts)


@lru_cache(maxsize=4)  # a pure function; a run stays within one epoch for many steps
def _epoch(seed: int, epoch: int, batch: int, n_tiles: int) -> np.ndarray:
    """(n_tiles,) int64: the order of an epoch, its beginning free of what shares a batch with it."""
    order = _shuffled(seed, epoch, n_tiles)
    n_before = epoch * n_tiles % batch  # tiles of the epoch before in the batch that crosses the border
    if n_before:
        before = np.zeros(n_tiles, bool)
        before[_shuffled(seed, epoch - 1, n_tiles)[n_tiles - n_before :]] = True
        n_first = batch - n_before
        repeated = np.flatnonzero(before[order[:n_first]])
        # Exchanged with the first that are not: with n_tiles >= 2 * batch - 1 these lie before the epoch's last batch,
        # whose tiles must stay as shuffled, for the next epoch looks at them.
        fresh = n_first + np.flatnonzero(~before[order[n_first:]])[: len(repeated)]
        order[repeated], order[fresh] = order[fresh], order[repeated]
    order.flags.writeable = False
    return order


def _shuffled(seed: int, epoch: int, n_tiles: int) -> np.ndarray:
    return stream(seed, "epoch", epoch).permutation(n_tiles)


def probe_rows(seed: int, n_tiles: int, n_probe: int) -> np.ndarray:
    """The fixed tiles that monitors look at: (min(n_probe, n_tiles),) int64, sorted."""
    chosen = stream(seed, "probe").permutation(n_tiles)[:n_probe]
    return np.sort(chosen)
