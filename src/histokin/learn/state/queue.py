"""The queue of past keys that serve as negatives (He et al. 2020, MoCo)."""

import torch
from torch import Tensor, nn


class Queue(nn.Module):
    """The last Q keys and the tiles they came from.

    Key number c, counted from 0 since the start, lies in slot c mod Q, whatever the sizes of the batches. Only filled
    slots are given out: there are no random rows to begin with. Over several processes every rank pushes the gathered
    keys in rank order; then all queues stay the same, and the same as that of one process.

    Buffers: `rows` (Q, D) float32, `ids` (Q,) int64 with -1 where empty, `ptr` the slot written next, `filled` the
    number of filled slots, both 0-d int64. The two counters are mirrored in Python integers, so that a CUDA device is
    not waited for; who writes into the buffers other than by `push` or `load_state_dict` (a broadcast, say) calls
    `read_counters` afterwards.
    """

    rows: Tensor
    ids: Tensor
    ptr: Tensor
    filled: Tensor

    def __init__(self, size: int, dim: int) -> None:
        """Make an empty queue of `size` slots for vectors of width `dim`.

        Raises:
            ValueError: size or dim is below 1.
        """
        super().__init__()
        if size < 1 or dim < 1:
            raise ValueError(f"a queue needs size >= 1 and dim >= 1, got {size} and {dim}")
        self.register_buffer("rows", torch.zeros(size, dim))
        self.register_buffer("ids", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("ptr", torch.tensor(0))
        self.register_buffer("filled", torch.tensor(0))
        self._next, self._filled = 0, 0
        self.register_load_state_dict_post_hook(_after_loading)

    @property
    def size(self) -> int:
        """Q, how many keys it holds when full."""
        return len(self.rows)

    @property
    def is_full(self) -> bool:
        """Whether Q keys or more were pushed."""
        return self._filled == self.size

    def read_counters(self) -> None:
        """Take the Python mirror of `ptr` and `filled` from the buffers, after they were written from outside.

        Raises:
            ValueError: no queue of this size can be in that state.
        """
        ptr, filled = int(self.ptr), int(self.filled)
        if not 0 <= ptr < self.size or not 0 <= filled <= self.size or (filled < self.size and ptr != filled):
            raise ValueError(f"ptr {ptr} and filled {filled} cannot be those of a queue of {self.size} slots")
        self._next, self._filled = ptr, filled

    @torch.no_grad()
    def push(self, keys: Tensor, ids: Tensor) -> None:
        """Put keys in, in their order, over the oldest ones; more than Q of them leave the last Q.

        Args:
            keys: (b, D) floating, unit rows, b >= 0; stored as float32.
            ids: (b,) int64, the tile of each; -1 for a key without one.

        Raises:
            ValueError: shapes or types are others.
        """
        if keys.ndim != 2 or keys.shape[1] != self.rows.shape[1] or not keys.is_floating_point():
            raise ValueError(f"keys must be (b, {self.rows.shape[1]}) floating, got {tuple(keys.shape)} {keys.dtype}")
        if ids.shape != keys.shape[:1] or ids.dtype != torch.int64:
            raise ValueError(f"ids must be ({len(keys)},) int64, got {tuple(ids.shape)} {ids.dtype}")
        kept = min(len(keys), self.size)
        start = (self._next + len(keys) - kept) % self.size
        until_end = min(kept, self.size - start)
        for buffer, values in ((self.rows, keys), (self.ids, ids)):
            last = values[len(values) - kept :]
            # Towards a CUDA device the host need not wait; in the other direction it would read unfinished copies.
            buffer[start : start + until_end].copy_(last[:until_end], non_blocking=buffer.is_cuda)
            buffer[: kept - until_end].copy_(last[until_end:], non_blocking=buffer.is_cuda)
        self._next = (start + kept) % self.size
        self._filled = min(self.size, self._filled + len(keys))
        self.ptr.fill_(self._next)
        self.filled.fill_(self._filled)

    def filled_rows(self) -> Tensor:
        """(filled, D) float32, the keys by slot; a copy, so that `push` may come before `backward`."""
        return self.rows[: self._filled].clone()

    def own(self, ids: Tensor) -> Tensor:
        """Which keys are older views of the anchors' own tiles, and therefore no negatives of them.

        Args:
            ids: (B,) int64; negative ones match nothing.

        Returns:
            (B, filled) bool on the queue's device.
        """
        ids = ids.to(self.ids.device, non_blocking=self.ids.is_cuda)
        return (ids[:, None] == self.ids[None, : self._filled]) & (ids >= 0)[:, None]


def _after_loading(queue: nn.Module, _keys: object) -> None:
    if isinstance(queue, Queue):
        queue.read_counters()
