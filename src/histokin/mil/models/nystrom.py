"""Nystrom attention: self-attention over long bags at a cost linear in their tiles."""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn


class NystromAttention(nn.Module):
    """Attention of one sequence through m landmarks (Xiong et al. 2021; code lucidrains/nystrom-attention).

    With q scaled by 1/sqrt(d), q~ and k~ the means of consecutive rows of q and k, a head gives

        softmax(q k~^T) pinv( softmax(q~ k~^T) ) softmax(q~ k^T) v  +  conv(v)

    where conv is one filter a head along the sequence. The rows are counted off in runs of ceil(n / m) from the end, so
    that the first landmark may have fewer; sequences of at most m rows get exact attention.

    The published form has `is_padded` and not `per_head`: zero rows are put in front until m divides the length, short
    sequences included, they enter the softmax and the landmarks, and the start of the pseudo-inverse is scaled by a
    maximum over all heads.

    The core is computed in float32 or better: the pseudo-inverse does not survive half precision.

    Args:
        dim: E, a multiple of `heads`.
        heads: number of heads.
        landmarks: m.
        iterations: of the pseudo-inverse.
        kernel: length of the filters along the sequence, odd.
        dropout: after the output's projection.
        is_padded: with the padding of the published form.
        per_head: see `pseudo_inverse`.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 8,
        landmarks: int = 256,
        iterations: int = 6,
        kernel: int = 33,
        dropout: float = 0.1,
        is_padded: bool = False,
        per_head: bool = True,
    ) -> None:
        super().__init__()
        self.heads, self.landmarks, self.iterations = heads, landmarks, iterations
        self.is_padded, self.per_head = is_padded, per_head
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.conv = nn.Conv1d(heads, heads, kernel, padding=kernel // 2, groups=heads, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Every row attends.

        Args:
            x: (n, E).

        Returns:
            (n, E), and the exact raw scores of the first row with all of them, (n, heads), without gradient.
        """
        q, k, v = (self._parted(part) for part in self.qkv(x).chunk(3, dim=1))
        with torch.autocast(x.device.type, enabled=False):
            q = q / q.shape[2] ** 0.5
            if not self.is_padded and len(x) <= self.landmarks:
                attended = (q @ k.mT).softmax(2) @ v
            else:
                attended = self._through_landmarks(q, k, v)
            attended = attended + self._along(v)
            scores = (k.detach() @ q.detach()[:, 0, :, None])[:, :, 0].T
        return self._joined(attended), scores

    def first_row(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Only the first row attends, exactly: (n, E) to (1, E), and its raw scores as in `forward`. Costs O(n)."""
        to_q, to_k, to_v = self.qkv.weight.chunk(3)
        q, k, v = self._parted(F.linear(x[:1], to_q)), self._parted(F.linear(x, to_k)), self._parted(F.linear(x, to_v))
        with torch.autocast(x.device.type, enabled=False):
            scores = q @ k.mT / q.shape[2] ** 0.5  # (heads, 1, n)
            near = v[:, : self.conv.kernel_size[0] // 2 + 1]  # all that the filters see from the first row
            attended = scores.softmax(2) @ v + self._along(near)[:, :1]
        return self._joined(attended), scores.detach()[:, 0].T

    def _parted(self, x: Tensor) -> Tensor:
        """(n, E) to (heads, n, d), float32 or better."""
        x = x if x.dtype == torch.float64 else x.float()
        return x.unflatten(1, (self.heads, -1)).transpose(0, 1)

    def _joined(self, attended: Tensor) -> Tensor:
        return self.dropout(self.out(attended.transpose(0, 1).flatten(1).to(self.out.weight.dtype)))

    def _along(self, v: Tensor) -> Tensor:
        weight = self.conv.weight.to(v.dtype)
        along = F.conv1d(v.permute(2, 0, 1), weight, padding=self.conv.padding[0], groups=self.heads)
        return along.permute(1, 2, 0)

    def _through_landmarks(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n, m = q.shape[1], self.landmarks
        run = -(-n // m)
        if self.is_padded:
            q, k, v = (F.pad(part, (0, 0, run * m - n, 0)) for part in (q, k, v))
        few_q, few_k = _run_means(q, run), _run_means(k, run)
        first = (q @ few_k.mT).softmax(2)
        second = (few_q @ few_k.mT).softmax(2)
        third = (few_q @ k.mT).softmax(2)
        inverse = pseudo_inverse(second, iterations=self.iterations, per_head=self.per_head)
        return (first @ (inverse @ (third @ v)))[:, -n:]


def pseudo_inverse(a: Tensor, *, iterations: int, per_head: bool = True) -> Tensor:
    """The Moore-Penrose inverse of softmax matrices, iterated (Razavi et al. 2014; Xiong et al. 2021, eq. 11).

        Z_0 = A^T / (max row sum |A| max column sum |A|)
        Z <- 1/4 Z (13 I - A Z (15 I - A Z (7 I - A Z)))

    Args:
        a: (heads, m, m).
        iterations: 6 in the papers.
        per_head: a maximum for each head; the published code takes it over all, so that heads depend on one another.
    """
    rows, columns = a.abs().sum(2), a.abs().sum(1)
    scale = (rows.amax(1) * columns.amax(1))[:, None, None] if per_head else rows.amax() * columns.amax()
    z = a.mT / scale
    one = torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * one - az @ (15 * one - az @ (7 * one - az)))
    return z


def _run_means(x: Tensor, run: int) -> Tensor:
    """Means over runs of rows counted off from the end: (heads, n, d) to (heads, ceil(n / run), d)."""
    n = x.shape[1]
    missing = -n % run
    sums = F.pad(x, (0, 0, missing, 0)).unflatten(1, (-1, run)).sum(2)
    counts = torch.full((sums.shape[1], 1), float(run), dtype=x.dtype, device=x.device)
    counts[0] = run - missing
    return sums / counts
