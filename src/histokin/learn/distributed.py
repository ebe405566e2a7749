"""One run in several processes: who is who, what they tell each other, and BatchNorm over all of them.

The rule that makes W processes equal one (docs/training.md): each has B / W tiles of the batch, its loss is the mean
over its own anchors against features `gathered` from all, and `average_gradients` takes the mean over the processes.
Every function here does nothing in a single process. Those that exchange something must be called by all processes,
in the same order; that holds for their backward passes too.
"""

import datetime as dt
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

T = TypeVar("T")
Backend = Literal["auto", "gloo", "nccl"]

# Small things (row numbers, flags, objects) travel by the CPU, gradients and features from GPU to GPU.
_BOTH = "cpu:gloo,cuda:nccl"
LARGEST_BUCKET = 2**24  # numbers that travel as one vector; a larger tensor, such as a bank, travels by itself


@dataclass(frozen=True, slots=True)
class World:
    """This process among those of the run."""

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"need 0 <= rank < size, got rank {self.rank}, size {self.size}")

    @classmethod
    def current(cls) -> "World":
        """As torch.distributed has it; 0 of 1 where no group was started."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def own(self, n: int) -> slice:
        """This process's rows of a batch of n: equal parts in the order of ranks.

        Raises:
            ValueError: n cannot be divided by the number of processes; unequal parts would weigh tiles unequally.
        """
        if n % self.size:
            raise ValueError(f"{n} rows cannot be divided among {self.size} processes in equal parts")
        share = n // self.size
        return slice(self.rank * share, (self.rank + 1) * share)


@contextmanager
def start(
    world: World, *, local_rank: int = 0, backend: Backend = "auto", init: str = "env://", limit_s: float = 1800
) -> Iterator[World]:
    """Join the other processes for a block, and leave them at its end however it ends.

    Args:
        world: torchrun's RANK and WORLD_SIZE; of size 1 nothing is started.
        local_rank: torchrun's LOCAL_RANK: the CUDA device of this process, which becomes the current one.
        backend: `nccl` for CUDA, `gloo` for the CPU; `auto` is `nccl` where there is CUDA.
        init: how the processes find each other: torch's URL; `env://` reads MASTER_ADDR and MASTER_PORT.
        limit_s: an exchange that takes longer is an error: another process has failed.
    """
    if world.size == 1:
        yield world
        return
    if backend == "auto":
        backend = "nccl" if torch.cuda.is_available() else "gloo"
    if backend == "nccl":
        torch.cuda.set_device(local_rank)
    dist.init_process_group(
        _BOTH if backend == "nccl" else backend,
        init_method=init,
        timeout=dt.timedelta(seconds=limit_s),
        rank=world.rank,
        world_size=world.size,
    )
    try:
        yield World.current()
    finally:
        if dist.is_initialized():  # what ran inside may have left it already
            dist.destroy_process_group()


def gathered(x: Tensor, world: World | None = None) -> Tensor:
    """The rows of all processes, with gradient to each process's own.

    The backward pass sums over processes what each found for these rows: the loss of one process depends on the rows of
    all others. Then each process takes its own part.

    Args:
        x: (n, ...) floating, n equal in all processes.
        world: as `World.current()` if None.

    Returns:
        (W * n, ...) in the order of ranks; x itself in a single process.
    """
    world = world or World.current()
    return x if world.size == 1 else _Gather.apply(x, world)


def gathered_ids(ids: Tensor, world: World | None = None) -> Tensor:
    """Whole numbers of all processes: (n,) integer, n equal in all, to (W * n,) in the order of ranks."""
    if ids.is_floating_point():
        raise TypeError(f"ids must be whole numbers, got {ids.dtype}; gathered() is for features")
    world = world or World.current()
    return ids if world.size == 1 else _all_rows(ids, world)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over the processes; the same bits in all of them.

    With a loss that is a mean over equal shares this is the gradient of the whole batch. A parameter that has a
    gradient in some processes only counts as 0 in the others; one that has none anywhere keeps none.

    Args:
        parameters: in the same order in all processes. All of them travel as one vector a dtype.
    """
    world = World.current()
    if world.size == 1:
        return
    learning = [p for p in parameters if p.requires_grad]
    has_one = torch.tensor([p.grad is not None for p in learning], dtype=torch.int32)
    dist.all_reduce(has_one, op=dist.ReduceOp.MAX)
    for p, is_wanted in zip(learning, has_one.tolist(), strict=True):
        if is_wanted and p.grad is None:
            p.grad = torch.zeros_like(p)
    for bucket in _buckets(p.grad for p in learning if p.grad is not None):
        flat = _flat(bucket)
        dist.all_reduce(flat)
        _spread(flat.div_(world.size), bucket)


def broadcast_state(module: nn.Module) -> None:
    """Give every process rank 0's parameters and buffers."""
    if World.current().size == 1:
        return
    for bucket in _buckets(t.detach() for t in (*module.parameters(), *module.buffers())):
        flat = _flat(bucket)
        dist.broadcast(flat, src=0)
        _spread(flat, bucket)


def broadcast_object(value: T) -> T:
    """Rank 0's value in every process. It travels as a pickle between the processes of this run."""
    if World.current().size == 1:
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=0, device=torch.device("cpu"))
    return holder[0]


def any_rank(flag: bool) -> bool:
    """Whether it is true in at least one process: how all of them stop at a failure that one has met."""
    if World.current().size == 1:
        return flag
    shared = torch.tensor([flag], dtype=torch.int32)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item())


def wait_for_all() -> None:
    """Return when every process has come here."""
    any_rank(False)  # unlike a barrier it needs no device to be named under NCCL


@contextmanager
def main_first() -> Iterator[None]:
    """A block that the main process runs alone before the others run it: they find done what it has done."""
    world = World.current()
    if not world.is_main:
        wait_for_all()
    yield
    if world.is_main:
        wait_for_all()


def synchronise_batch_norm(module: nn.Module) -> nn.Module:
    """Let every BatchNorm of a module take its statistics over the batches of all processes.

    Parameters, buffers and the keys of the state_dict stay as they are. Frozen norms, which are modules of other
    kinds, and GroupNorm or LayerNorm need no exchange and are left alone.

    Args:
        module: changed in place.

    Returns:
        The module, or its replacement if it is a BatchNorm itself.

    Raises:
        ValueError: it holds a kind of BatchNorm that is not known here.
    """
    done: dict[nn.Module, GatheredBatchNorm] = {}
    # By every path: one norm in two places stays one.
    for path, norm in list(module.named_modules(remove_duplicate=False)):
        if isinstance(norm, _BatchNorm) and not isinstance(norm, GatheredBatchNorm):
            done[norm] = done.get(norm) or GatheredBatchNorm.of(norm)
            if path:
                module.set_submodule(path, done[norm])
    return done.get(module, module)


class GatheredBatchNorm(_BatchNorm):
    """BatchNorm whose training statistics are those of the batches of all processes together.

    Count, mean and sum of squared deviations of each process are joined in float64 (Chan et al. 1979): no cancellation
    at large means. As in torch, the batch is normalised by the biased variance and the running variance takes the
    unbiased one. In eval mode, and in a single process, it computes what it stands for, without any exchange.

    timm's BatchNormAct2d has two modules after the norm, `drop` and `act`; they are kept under these names.
    """

    @classmethod
    def of(cls, norm: nn.Module) -> "GatheredBatchNorm":
        """In place of a BatchNorm, with the very same parameters and buffers."""
        from timm.layers.norm_act import BatchNormAct2d  # seconds, which joining the others need not wait for

        kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, BatchNormAct2d)
        if type(norm) not in kinds or not isinstance(norm, _BatchNorm):
            known = ", ".join(kind.__name__ for kind in kinds)
            raise ValueError(f"{type(norm).__name__} cannot be synchronised over processes; known: {known}")
        with torch.device("meta"):  # nothing of it stays: parameters and buffers are taken over below
            new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        for name, parameter in norm.named_parameters(recurse=False):
            new.register_parameter(name, parameter)
        for name, buffer in norm.named_buffers(recurse=False):
            new.register_buffer(name, buffer)
        for name, child in norm.named_children():
            new.add_module(name, child)
        new.training = norm.training
        return new

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 - torch's name
        if input.ndim < 2:
            raise ValueError(f"need (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """(N, C, ...) floating to the same shape and dtype."""
        joins = self.training and World.current().size > 1
        x: Tensor = self._over_all(input) if joins else super().forward(input)  # pyright: ignore[reportArgumentType, reportCallIssue, reportAssignmentType] - the decorator is untyped
        for child in self.children():  # drop, then act
            x = child(x)
        return x

    @torch.compiler.disable  # an exchange cannot be compiled; what lies between two of them can
    def _over_all(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        y, mean, var, count = _Normalise.apply(x, self.weight, self.bias, self.eps, World.current())
        if self.track_running_stats:
            self._remember(mean, var * (count / (count - 1)))
        return y

    @torch.no_grad()
    def _remember(self, mean: Tensor, unbiased: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.mul_(1 - share).add_(mean, alpha=share)
        self.running_var.mul_(1 - share).add_(unbiased, alpha=share)


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) * weight + bias by channel, mean and var over all processes.

    Written out instead of composed, so that x alone is kept for the backward pass, in its own dtype.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        count, mean, var = _moments(x, world)
        ctx.mark_non_differentiable(mean, var, count)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt(), count)
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps), mean, var, count

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator's names
        """With h the normalised x and sums over all processes (Ioffe & Szegedy 2015, section 3).

        dx = weight / sigma (dy - sum(dy) / n - h sum(dy h) / n). The gradients of weight and bias are this process's
        own sums, as those of all other parameters are before `average_gradients`.
        """
        x, weight, mean, inverse, count = ctx.saved_tensors
        wide, shape = mean.dtype, (1, -1, *[1] * (x.ndim - 2))
        dims = [d for d in range(x.ndim) if d != 1]
        h = (x.to(wide) - mean.view(shape)).mul_(inverse.view(shape))
        d = dy.to(wide)
        own = torch.stack([d.sum(dims), (d * h).sum(dims)])  # (2, C): the gradients of bias and weight
        dx = None
        if ctx.needs_input_grad[0]:
            total = own.clone()
            dist.all_reduce(total)
            total /= count
            scale = inverse if weight is None else inverse * weight
            dx = (d - total[0].view(shape)).sub_(h.mul_(total[1].view(shape))).mul_(scale.view(shape)).to(x.dtype)
        dbias, dweight = (None, None) if weight is None else own.to(weight.dtype).unbind()
        return dx, dweight, dbias, None, None


def _moments(x: Tensor, world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Values a channel, mean and biased variance over all processes.

    Returns:
        0-d, (C,), (C,) in float32, or float64 for such x.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    dims = [d for d in range(x.ndim) if d != 1]
    var, mean = torch.var_mean(x.to(wide), dims, correction=0)
    count = torch.full_like(mean, x.numel() // x.shape[1])
    counts, means, vars_ = _all_rows(torch.stack([count, mean, var])[None].double(), world).unbind(1)  # (W, C) each
    total = counts.sum(0)
    joint = (counts * means).sum(0) / total
    joint_var = (counts * (vars_ + (means - joint).square())).sum(0) / total
    return total[0].to(wide), joint.to(wide), joint_var.to(wide)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, world: World) -> Tensor:
        ctx.world = world
        return _all_rows(x, world)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - the decorator's names
        total = gradient.to(torch.promote_types(gradient.dtype, torch.float32), copy=True).contiguous()
        dist.all_reduce(total)
        return total[ctx.world.own(len(total))].to(gradient.dtype), None


def _all_rows(x: Tensor, world: World) -> Tensor:
    everything = x.new_empty((world.size * len(x), *x.shape[1:]))
    dist.all_gather_into_tensor(everything, x.detach().contiguous())
    return everything


def _buckets(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Tensors that can travel as one vector, in an order that is the same in all processes."""
    open_buckets: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    closed: list[list[Tensor]] = []
    for tensor in tensors:
        kind = tensor.dtype, tensor.device
        bucket = open_buckets.setdefault(kind, [])
        if bucket and sum(other.numel() for other in bucket) + tensor.numel() > LARGEST_BUCKET:
            closed.append(open_buckets.pop(kind))
            bucket = open_buckets.setdefault(kind, [])
        bucket.append(tensor)
    return [*closed, *open_buckets.values()]


def _flat(bucket: list[Tensor]) -> Tensor:
    return bucket[0].reshape(-1) if len(bucket) == 1 else torch.cat([tensor.reshape(-1) for tensor in bucket])


def _spread(flat: Tensor, bucket: list[Tensor]) -> None:
    for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
        tensor.copy_(part.view(tensor.shape))
