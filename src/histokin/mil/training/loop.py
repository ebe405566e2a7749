"""One classifier from beginning to end: a plain loop, stopped and resumed anywhere without a trace in its result.

The epoch is chosen by the loss of the validation part alone; nothing here ever sees a test slide.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histokin.artefacts import digest_of
from histokin.encoders.networks import seeded_torch
from histokin.errors import TrainingError
from histokin.mil.bags import PackedBags
from histokin.mil.models import MilModel, build_model
from histokin.mil.models.max import MaxPool
from histokin.mil.objectives import Cox, Objective
from histokin.mil.reading import BagSource, Draw, read_ahead, sampled_bags, whole_bags
from histokin.mil.training.optimisers import build_optimiser
from histokin.mil.training.spec import MAX_TILES, MilSpec
from histokin.mil.training.targets import Prepared
from histokin.mil.training.task import MilTask
from histokin.mil.training.tensors import flat_optimiser, part, read_tensors, restore_optimiser, write_tensors
from histokin.progress import Reporter, silent
from histokin.streams import seed64

CPU = torch.device("cpu")
_ALL = 2**62


@dataclass(frozen=True, slots=True)
class Epoch:
    """What an epoch came to: mean loss of the training bags, and the objective's loss of the validation part."""

    train_loss: float
    val_loss: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A trained classifier.

    Attributes:
        model: with the chosen epoch's weights, in evaluation mode.
        objective: of the training part.
        epoch: the chosen one, from 0.
        history: of all epochs trained.
        val_logits: (n, C) float32 of the validation part, (0, C) without one.
    """

    model: MilModel
    objective: Objective
    epoch: int
    history: tuple[Epoch, ...]
    val_logits: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Stage:
    """What is trained: most models all at once, MIL-RNN one part after the other.

    Attributes:
        name: of it.
        loss: of the model, bags, target and epoch: what to minimise, 0-d.
        logits: of the model and bags: (B, C) whose loss on the validation part chooses the epoch.
    """

    name: str
    loss: Callable[[Any, PackedBags, Tensor, int], Tensor]
    logits: Callable[[Any, PackedBags], Tensor]


@dataclass(slots=True)
class _State:
    """All that changes while training; which tiles, which order and which dropout follow from epoch and step."""

    model: MilModel
    optimiser: torch.optim.Optimizer
    total: Tensor  # 0-d float64 on the device: the losses of this epoch's bags
    best: dict[str, Tensor]
    epoch: int = 0
    step: int = 0
    best_epoch: int = -1
    best_loss: float = math.inf
    history: list[Epoch] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Setting:
    """All that does not."""

    task: MilTask
    train: NDArray[np.int64]
    val: NDArray[np.int64]
    spec: MilSpec
    seed: int
    device: torch.device
    prepared: Prepared
    row_of_bag: NDArray[np.int64]  # of the source's bags, row of the task; -1 where it has none
    checkpoint: "Checkpoint | None"
    stage: Stage


@dataclass(slots=True)
class Checkpoint:
    """Where a run's state is kept while it goes on.

    Attributes:
        path: the file.
        every_s: seconds between two; 0 keeps every step.
    """

    path: Path
    every_s: float = 30.0
    _last: float = field(default_factory=time.monotonic)

    def is_due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() - self._last >= self.every_s

    def kept(self) -> None:
        """The state was written."""
        self._last = time.monotonic()

    def beside(self, name: str) -> "Checkpoint":
        """That of another part of the same run."""
        return Checkpoint(self.path.with_name(f"{name}-{self.path.name}"), self.every_s)


def fit_one(
    task: MilTask,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    spec: MilSpec,
    *,
    seed: int,
    device: torch.device = CPU,
    checkpoint: Checkpoint | None = None,
    stage: Stage | None = None,
    report: Reporter = silent,
) -> Fitted:
    """Train one classifier.

    Killed anywhere and called again with the same checkpoint it goes on where it was, with the same result, bit for bit
    on a CPU.

    Args:
        task: slides and targets.
        train: (n,) int64 rows of it that are learned from.
        val: (m,) rows whose loss chooses the epoch; may be empty where `spec.patience` is None.
        spec: how.
        seed: of initial weights, order, tiles and dropout.
        device: CPU or GPU.
        checkpoint: None keeps none. The finished state is kept too.
        stage: what is trained; the whole model if None.
        report: progress, in epochs.

    Raises:
        TrainingError: the loss is no number, or the checkpoint is of another run.
        RecipeError: the model does not exist or has no such option.
    """
    _check_parts(train, val, spec)
    run = _setting(task, train, val, spec, seed, device, checkpoint, stage or _whole(spec))
    state = _fresh(run)
    if checkpoint is not None and checkpoint.path.exists():
        _resume(checkpoint.path, state, run)
    with report("train", spec.epochs, "epochs") as progress:
        progress.advance(state.epoch)
        while not _is_finished(state, spec):
            _train_epoch(state, run)
            _judge(state, run)
            _keep(state, run)
            progress.advance(1, _note(state))
    _keep(state, run, is_last=True)
    if spec.patience is not None:
        state.model.load_state_dict(state.best)
    epoch = state.epoch - 1 if spec.patience is None else state.best_epoch
    logits = _val_logits(state, run)
    return Fitted(state.model.eval(), run.prepared.objective, epoch, tuple(state.history), logits.numpy())


@torch.no_grad()
def over_bags(
    model: MilModel,
    source: BagSource,
    bags: NDArray[np.int64],
    say: Callable[[Any, PackedBags], Tensor],
    *,
    max_tiles: int,
    device: torch.device,
) -> list[Tensor]:
    """What a model says of bags, batch by batch, on the CPU; from all their tiles.

    Args:
        model: left in evaluation mode.
        source: of the bags.
        bags: (N,) numbers in it.
        say: of the model and some bags.
        max_tiles: of a batch.
        device: that the model is on.
    """
    model.eval()
    draws = whole_bags(source.lengths, bags, n_bags=max(len(bags), 1), max_tiles=max_tiles)
    return [say(model, packed).cpu() for _, packed in read_ahead(source, draws, device)]


def logits_of(
    model: MilModel,
    source: BagSource,
    bags: NDArray[np.int64],
    *,
    max_tiles: int = MAX_TILES,
    device: torch.device = CPU,
) -> Tensor:
    """(N, C) float32 logits of bags, on the CPU, from all their tiles; arguments as in `over_bags`."""
    found = over_bags(model, source, bags, _logits, max_tiles=max_tiles, device=device)
    return torch.cat(found).float() if found else torch.zeros(0, model.objective.n_outputs)


def _logits(model: MilModel, bags: PackedBags) -> Tensor:
    return model(bags).logits


def _whole(spec: MilSpec) -> Stage:
    def loss(model: MilModel, bags: PackedBags, target: Tensor, epoch: int) -> Tensor:
        if not isinstance(model, MaxPool) or epoch >= spec.mean_epochs:
            return model(bags, target).loss
        return mean_loss(model, model(bags).tile_logits, bags, target)

    return Stage("whole", loss, _logits)


def mean_loss(model: MilModel, tile_logits: Tensor, bags: PackedBags, target: Tensor) -> Tensor:
    """The loss of the mean of each bag's tile logits: all tiles learn, where of a maximum only one does."""
    return model.objective.loss(torch.stack([tiles.mean(0) for tiles in tile_logits.split(bags.sizes)]), target)


def _val_logits(state: _State, run: _Setting) -> Tensor:
    task, spec = run.task, run.spec
    found = over_bags(
        state.model, task.source, task.bags[run.val], run.stage.logits, max_tiles=spec.max_tiles, device=run.device
    )
    return torch.cat(found).float() if found else torch.zeros(0, run.prepared.objective.n_outputs)


def _setting(
    task: MilTask,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    spec: MilSpec,
    seed: int,
    device: torch.device,
    checkpoint: Checkpoint | None,
    stage: Stage,
) -> _Setting:
    row_of_bag = np.full(len(task.source), -1, dtype=np.int64)
    row_of_bag[task.bags] = np.arange(len(task))
    prepared = task.targets.prepared(train, spec)
    return _Setting(task, train, val, spec, seed, device, prepared, row_of_bag, checkpoint, stage)


def _check_parts(train: NDArray[np.int64], val: NDArray[np.int64], spec: MilSpec) -> None:
    if not len(train):
        raise ValueError("there is nothing to train on")
    if spec.patience is not None and not len(val):
        raise ValueError("an epoch can only be chosen on a validation part: pass one, or patience=None")
    if np.intersect1d(train, val).size:
        raise ValueError("slides stand in the training and in the validation part")


def _fresh(run: _Setting) -> _State:
    spec = run.spec
    model = build_model(
        spec.model,
        dim=run.task.source.dim,
        objective=run.prepared.objective,
        preset=spec.preset,
        seed=seed64(run.seed, "weights"),
        **spec.options,
    ).to(run.device)
    optimiser = build_optimiser(model, spec)
    return _State(model, optimiser, torch.zeros((), dtype=torch.float64, device=run.device), _copied(model))


def _is_finished(state: _State, spec: MilSpec) -> bool:
    if state.epoch >= spec.epochs:
        return True
    is_stale = spec.patience is not None and state.epoch - 1 - state.best_epoch >= spec.patience
    return is_stale and state.epoch >= spec.min_epochs


def _train_epoch(state: _State, run: _Setting) -> None:
    spec, draws = run.spec, _draws(state.epoch, run)
    state.model.train()
    for draw, bags in read_ahead(run.task.source, draws[state.step :], run.device):
        _train_step(state, run, draw, bags, len(draws))
        state.step += 1
        if state.step % spec.accumulate == 0 and state.step < len(draws):
            _keep(state, run)


def _train_step(state: _State, run: _Setting, draw: Draw, bags: PackedBags, n_steps: int) -> None:
    spec = run.spec
    target = run.prepared.target[run.row_of_bag[draw.bags]].to(run.device)
    with seeded_torch(seed64(run.seed, "dropout", state.epoch, state.step), run.device):
        loss = run.stage.loss(state.model, bags, target, state.epoch)
    # Of the last step of an epoch fewer batches may be left.
    n_joined = min(spec.accumulate, n_steps - state.step // spec.accumulate * spec.accumulate)
    (loss / n_joined).backward()
    state.total += loss.detach() * len(draw)
    if (state.step + 1) % spec.accumulate and state.step + 1 < n_steps:
        return
    for group in state.optimiser.param_groups:
        group["lr"] = spec.rate(state.epoch + (state.step + 0.5) / n_steps)
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)


def _draws(epoch: int, run: _Setting) -> list[Draw]:
    spec, weights = run.spec, None
    if spec.balance == "sampler" and run.task.targets.kind == "classes":
        codes = run.task.targets.values[run.train]
        weights = 1.0 / np.bincount(codes)[codes]
    return sampled_bags(
        run.task.source.lengths,
        run.task.bags[run.train],
        n_bags=spec.batch,
        max_tiles=spec.max_tiles,
        tile_cap=spec.tile_cap or _ALL,
        seed=run.seed,
        epoch=epoch,
        weights=weights,
        fewest=2 if isinstance(run.prepared.objective, Cox) else 1,
    )


def _judge(state: _State, run: _Setting) -> None:
    """Close an epoch: its losses, and whether it is the best so far."""
    train_loss, val_loss = float(state.total) / len(run.train), None
    if len(run.val):
        val_loss = float(run.prepared.objective.loss(_val_logits(state, run), run.prepared.target[run.val]))
    if not math.isfinite(train_loss) or (val_loss is not None and not math.isfinite(val_loss)):
        raise TrainingError(
            f"the loss is no number in epoch {state.epoch} (training {train_loss}, validation {val_loss})",
            f"model {run.spec.model}",
            "Lower the learning rate, and look for values out of range among the embeddings.",
        )
    if val_loss is not None and val_loss < state.best_loss:
        state.best_loss, state.best_epoch = val_loss, state.epoch
        state.best = _copied(state.model)
    state.history.append(Epoch(train_loss, val_loss))
    state.epoch, state.step = state.epoch + 1, 0
    state.total.zero_()


def _copied(model: MilModel) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _note(state: _State) -> str:
    last = state.history[-1]
    return f"loss {last.train_loss:.3f}" + ("" if last.val_loss is None else f", validation {last.val_loss:.3f}")


def _keep(state: _State, run: _Setting, *, is_last: bool = False) -> None:
    if run.checkpoint is None or not (is_last or run.checkpoint.is_due()):
        return
    about = {
        "run": _digest(run),
        "epoch": state.epoch,
        "step": state.step,
        "best_epoch": state.best_epoch,
        "best_loss": state.best_loss if state.best_epoch >= 0 else None,
        "history": state.history,
    }
    parts: dict[str, Mapping[str, Tensor]] = {
        "model/": state.model.state_dict(),
        "best/": state.best,
        "optimiser/": flat_optimiser(state.optimiser),
    }
    tensors = {prefix + name: tensor for prefix, own in parts.items() for name, tensor in own.items()}
    write_tensors(run.checkpoint.path, {**tensors, "total": state.total}, about)
    run.checkpoint.kept()


def _resume(path: Path, state: _State, run: _Setting) -> None:
    tensors, about = read_tensors(path)
    if about["run"] != _digest(run):
        raise TrainingError(
            "the checkpoint is of other slides, targets, settings or another seed",
            path,
            "Use another folder, or delete the file to train anew.",
        )
    state.model.load_state_dict(part(tensors, "model/"))
    state.best = {name: value.to(run.device) for name, value in part(tensors, "best/").items()}
    restore_optimiser(state.optimiser, part(tensors, "optimiser/"))
    state.total = tensors["total"].to(run.device)
    state.epoch, state.step, state.best_epoch = about["epoch"], about["step"], about["best_epoch"]
    state.best_loss = math.inf if about["best_loss"] is None else about["best_loss"]
    state.history = [Epoch(**epoch) for epoch in about["history"]]


def _digest(run: _Setting) -> str:
    task = run.task
    return digest_of(
        [task.source.digest, task.digest(run.train), task.digest(run.val), run.spec, run.seed, run.stage.name]
    )
