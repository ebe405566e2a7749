"""What the losses share: exact arithmetic, rows on the unit sphere, one positive against its rivals, refusals."""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple, ParamSpec, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


class Contrast(NamedTuple):
    """What a loss of one positive against many negatives gives; all 0-d, the similarities detached.

    Attributes:
        loss: to minimise.
        pos_sim: mean cosine of anchors and their positives.
        neg_sim: mean cosine of anchors and their negatives; NaN where there is none.
    """

    loss: Tensor
    pos_sim: Tensor
    neg_sim: Tensor


def exactly(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function with autocast off on the device of its first tensor.

    Casting the inputs alone is not enough: autocast would run the products in half precision again.
    """

    @functools.wraps(function)
    def without_autocast(*args: P.args, **kwargs: P.kwargs) -> R:
        for value in itertools.chain(args, kwargs.values()):
            if isinstance(value, Tensor):
                with torch.autocast(value.device.type, enabled=False):
                    return function(*args, **kwargs)
        raise TypeError(f"{function.__name__} needs tensors")

    return without_autocast


def exact_dtype(*tensors: Tensor) -> torch.dtype:
    """Float32, or float64 where one of the tensors is."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def exact(x: Tensor) -> Tensor:
    """The tensor in float32, or as it is in float64."""
    return x.to(exact_dtype(x))


def unit(x: Tensor, dtype: torch.dtype | None = None, *, eps: float = 1e-12) -> Tensor:
    """Rows over max(their L2 norm, eps), in float32 or better.

    A row no longer than eps has no direction: it becomes zero and takes no gradient (the quotient's would be 1/eps).

    Args:
        x: (..., D) floating.
        dtype: to compute in; that of exact_dtype(x) by default.
        eps: shortest row that has a direction.
    """
    x = x.to(dtype or exact_dtype(x))
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x.where(norm > eps, 0.0) / norm.clamp_min(eps)


def log_sum_exp(logits: Tensor) -> Tensor:
    """Logsumexp over dim 1; rows without a finite entry give -inf and a zero gradient, where torch gives NaN.

    Args:
        logits: (B, M), M >= 0, -inf for entries left out.
    """
    nothing = logits.isneginf().all(1)
    return logits.masked_fill(nothing[:, None], 0.0).logsumexp(1).masked_fill(nothing, -torch.inf)


def softmax_loss(positive: Tensor, rivals: Tensor) -> Tensor:
    """-log(e^p / (e^p + e^r)) = log(1 + e^(r - p)), which keeps its relative precision when small.

    Args:
        positive: (B,) logits of the positive, finite.
        rivals: (B,) logsumexp of the negatives' logits, -inf for none.
    """
    return F.softplus(rivals - positive, threshold=40.0)


def bank_similarity(v: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """Cosines of unit vectors and some rows of a bank; only the rows named are read and widened.

    Args:
        v: (B, D) unit rows, of the dtype to compute in.
        bank: (N, D), any scale and floating dtype; constant.
        rows: (M,) shared by all anchors, or (B, M) of each anchor.

    Returns:
        (B, M).
    """
    chosen = unit(bank.detach()[rows], v.dtype)
    return v @ chosen.T if rows.ndim == 1 else torch.einsum("bd,bmd->bm", v, chosen)


def refuse_unequal(*tensors: Tensor, least: int = 1) -> None:
    """Raise ValueError unless all are (B, D) of one shape with B >= least and D >= 1."""
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if len(set(shapes)) != 1 or len(shapes[0]) != 2 or shapes[0][0] < least or shapes[0][1] < 1:
        amount = "one" if len(shapes) == 1 else {2: "two equal", 4: "four equal"}[len(shapes)]
        raise ValueError(f"need {amount} (B >= {least}, D) views, got {', '.join(map(str, shapes))}")


def refuse_not_positive(**settings: float) -> None:
    """Raise ValueError naming the first setting that is not above zero; NaN is not."""
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} must be > 0, got {value}")


def refuse_bank(v: Tensor, bank: Tensor) -> None:
    """Raise ValueError unless v is (B >= 1, D) and bank (N >= 1, D)."""
    if v.ndim != 2 or bank.ndim != 2 or v.shape[1] != bank.shape[1] or not len(v) or not len(bank):
        raise ValueError(f"need (B >= 1, D) vectors and an (N >= 1, D) bank, got {tuple(v.shape)}, {tuple(bank.shape)}")


def refuse_rows(name: str, rows: Tensor, n: int, *shapes: tuple[int | None, ...], lowest: int = 0) -> None:
    """Raise ValueError unless rows are integers of one of the shapes, from lowest to n - 1.

    Args:
        name: of the argument.
        rows: ids of rows of an (n, D) tensor; their values are looked at on the CPU only (see holds).
        n: how many rows there are.
        shapes: allowed ones, None for any length.
        lowest: -1 where -1 stands for "none".
    """
    fits = any(
        len(shape) == rows.ndim and all(want in (None, got) for want, got in zip(shape, rows.shape, strict=True))
        for shape in shapes
    )
    if not fits or rows.dtype not in (torch.int64, torch.int32):
        allowed = " or ".join(str(shape).replace("None", "M") for shape in shapes)
        raise ValueError(f"{name} must be integers of shape {allowed}, got {rows.dtype} {tuple(rows.shape)}")
    if not holds((rows >= lowest) & (rows < n)):
        raise ValueError(f"{name} must lie in {lowest}..{n - 1}, got {int(rows.min())}..{int(rows.max())}")


def holds(claim: Tensor) -> bool:
    """Whether a claim is true of every element; taken on trust off the CPU, where asking waits for the device."""
    return claim.device.type != "cpu" or bool(claim.all())
