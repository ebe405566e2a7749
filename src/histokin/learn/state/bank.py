"""The memory bank: one vector a tile (Wu et al. 2018, NPID)."""

import numpy as np
import torch
from torch import Tensor, nn

from histokin.learn.state.sphere import unit_float32, unit_on_grid
from histokin.streams import stream

# Part of what the initial rows are, not of how fast they come: another value gives other rows.
_ROWS_A_DRAW = 8192


class Bank(nn.Module):
    """A unit vector for each of N tiles, its last embeddings averaged.

    Row i belongs to row i of the tile table the run was begun with: a checkpoint fits no other table. Initial rows are
    random unit vectors, the same on every rank. Over several processes every rank updates with the gathered indices and
    vectors; order does not matter, so all banks stay the same.

    Buffers: `rows` (N, D) float16 or float32, `seen` (N,) bool, whether a row was updated at all. Float16 halves the
    memory; what is computed is computed in float32 or better. An update by less than 2^-12 of an element is lost in
    float16, so momentum near 1 asks for float32.
    """

    rows: Tensor
    seen: Tensor

    def __init__(self, n: int, dim: int, seed: int, dtype: torch.dtype = torch.float16) -> None:
        """Fill the bank with random unit rows.

        Args:
            n: tiles, N >= 1.
            dim: width, D >= 1.
            seed: of the initial rows.
            dtype: float16 or float32, what is stored.

        Raises:
            ValueError: n or dim is below 1, or another dtype.
        """
        super().__init__()
        if n < 1 or dim < 1:
            raise ValueError(f"a bank needs n >= 1 and dim >= 1, got {n} and {dim}")
        if dtype not in (torch.float16, torch.float32):
            raise ValueError(f"a bank stores float16 or float32, not {dtype}")
        rows = torch.empty(n, dim, dtype=dtype)
        for draw, start in enumerate(range(0, n, _ROWS_A_DRAW)):
            part = rows[start : start + _ROWS_A_DRAW]
            normal = stream(seed, "bank", draw).standard_normal((len(part), dim), dtype=np.float32)
            part.copy_(unit_float32(torch.from_numpy(normal)))
        self.register_buffer("rows", rows)
        self.register_buffer("seen", torch.zeros(n, dtype=torch.bool))

    def take(self, index: Tensor) -> Tensor:
        """The stored vectors of some tiles.

        Args:
            index: (...) int64 in [0, N); out of range fails (on CUDA as torch's device-side assertion).

        Returns:
            (..., D) float32, a copy, without gradient. From float16 its rows are of unit length to about 1e-3.
        """
        index = index.to(self.rows.device, non_blocking=self.rows.is_cuda)
        # index_select, because indexing proper would take -1 for the last row.
        return self.rows.index_select(0, index.flatten()).float().view(*index.shape, self.rows.shape[1])

    @torch.no_grad()
    def update(self, index: Tensor, vectors: Tensor, momentum: float) -> None:
        """Move the rows of the tiles towards their new vectors: u = unit(m * u + (1 - m) * unit(v)).

        m is the weight of the old row (Wu et al. 2018; 0.5 in their code). OpenSelfSup, and SGCL with it, call the
        weight of the new vector momentum; the two agree at 0.5 only. A tile that occurs more than once in the batch is
        updated once, with the mean of its unit vectors. The result does not depend on the order of the batch, bit for
        bit. An old and a new vector that cancel leave a zero row.

        Args:
            index: (B,) int64 in [0, N), duplicates allowed, B >= 0.
            vectors: (B, D) floating, any scale (normalised here).
            momentum: in [0, 1].

        Raises:
            ValueError: shapes, types or the momentum are others.
        """
        dim = self.rows.shape[1]
        if index.ndim != 1 or index.dtype != torch.int64:
            raise ValueError(f"index must be (B,) int64, got {tuple(index.shape)} {index.dtype}")
        if vectors.shape != (len(index), dim) or not vectors.is_floating_point():
            raise ValueError(
                f"vectors must be ({len(index)}, {dim}) floating, got {tuple(vectors.shape)} {vectors.dtype}"
            )
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1], got {momentum}")
        if len(index) == 0:
            return
        device, is_cuda = self.rows.device, self.rows.is_cuda
        index, vectors = (t.to(device, non_blocking=is_cuda) for t in (index, vectors))
        means = _mean_by_index(index, unit_on_grid(vectors))
        moved = unit_float32(momentum * self.take(index).double() + (1 - momentum) * means)
        # Duplicates carry equal values, so it does not matter which of them is written last.
        self.rows[index] = moved.to(self.rows.dtype)
        self.seen[index] = True


def _mean_by_index(index: Tensor, values: Tensor) -> Tensor:
    """Each row's mean over the rows of equal index; (B, D) float64 on the grid, whose sums are exact in any order."""
    order = index.argsort(stable=True)
    # By sorting, because torch.unique would wait for a CUDA device to learn how many there are.
    is_next = torch.diff(index[order], prepend=index[order[:1]]) != 0
    group = torch.empty_like(index)
    group[order] = is_next.cumsum(0)  # (B,) in [0, B)
    sums = torch.zeros_like(values).index_add_(0, group, values)
    counts = values.new_zeros(len(values)).index_add_(0, group, values.new_ones(len(values)))
    return sums[group] / counts[group][:, None]
