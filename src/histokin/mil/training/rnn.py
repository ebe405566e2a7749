"""MIL-RNN in its two stages: a head that ranks tiles, then a network that reads the highest ranked.

The second stage learns from rankings by heads that have not seen the slide: on slides that it was trained on, a head is
surer than it will ever be again, and the sequences would look different from those of new slides.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histokin.evaluate.probes.folds import grouped_folds
from histokin.mil.bags import PackedBags
from histokin.mil.models.rnn import MilRnn, most_suspicious
from histokin.mil.reading import BagSource
from histokin.mil.training.loop import CPU, Checkpoint, Fitted, Stage, fit_one, mean_loss, over_bags
from histokin.mil.training.spec import MilSpec
from histokin.mil.training.task import MilTask
from histokin.progress import Reporter, silent
from histokin.streams import seed64

N_RANKERS = 3
"""Folds of the training part, each ranked by a head that learned from the others."""


def fit_two_stages(
    task: MilTask,
    train: NDArray[np.int64],
    val: NDArray[np.int64],
    spec: MilSpec,
    *,
    seed: int,
    device: torch.device = CPU,
    checkpoint: Checkpoint | None = None,
    report: Reporter = silent,
) -> Fitted:
    """Train a `MilRnn`; arguments as in `fit_one`.

    Returns:
        The model with the head of the whole training part, and the second stage's epoch and history.
    """
    first = replace(spec, optimiser="adam", lr=1e-4, weight_decay=1e-4) if spec.preset == "faithful" else spec

    def head(name: str, rows: NDArray[np.int64]) -> MilRnn:
        own = None if checkpoint is None else checkpoint.beside(name)
        fitted = fit_one(
            task,
            rows,
            val,
            first,
            seed=seed64(seed, name),
            device=device,
            checkpoint=own,
            stage=_tiles(spec),
            report=report,
        )
        return _as_rnn(fitted)

    fold_of = _fold_of(task, train)
    ranked: dict[int, Tensor] = {}
    for fold in range(int(fold_of.max()) + 1):
        ranker = head(f"ranker {fold}", train[fold_of != fold])
        ranked |= _sequences(ranker, task, train[fold_of == fold], spec, device)
    whole = head("head", train)
    ranked |= _sequences(whole, task, val, spec, device)
    sequences = _task_of(task, ranked)
    place = {row: number for number, row in enumerate(ranked)}
    fitted = fit_one(
        sequences,
        np.array([place[row] for row in train.tolist()]),
        np.array([place[row] for row in val.tolist()], dtype=np.int64),
        spec,
        seed=seed,
        device=device,
        checkpoint=checkpoint,
        stage=SEQUENCES,
        report=report,
    )
    _as_rnn(fitted).tile_head.load_state_dict(whole.tile_head.state_dict())
    return fitted


def _top_logits(model: MilRnn, bags: PackedBags) -> Tensor:
    """The logits of each bag's most suspicious tile."""
    tile_logits = model.tile_head(model.tiles_of(bags))
    return tile_logits[most_suspicious(model.suspicion(tile_logits), bags, 1)[0][:, 0]]


def _as_given(bags: PackedBags) -> Tensor:
    """(T,) falling within each bag: what stands first is the most suspicious."""
    return -torch.cat([torch.arange(n, dtype=torch.float32) for n in bags.sizes]).to(bags.x.device)


def _tiles(spec: MilSpec) -> Stage:
    def loss(model: MilRnn, bags: PackedBags, target: Tensor, epoch: int) -> Tensor:
        if epoch >= spec.mean_epochs:
            return model.tile_loss(bags, target)
        return mean_loss(model, model.tile_head(model.tiles_of(bags)), bags, target)

    return Stage("tiles", loss, _top_logits)


SEQUENCES = Stage(
    "sequences",
    lambda model, bags, target, _: model(bags, target, suspicion=_as_given(bags)).loss,
    lambda model, bags: model(bags, suspicion=_as_given(bags)).logits,
)


def _fold_of(task: MilTask, train: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) folds of the training slides, whole groups each; two halves of the slides where they are one group."""
    groups = np.unique(task.items.group[train].astype(str), return_inverse=True)[1]
    strata = np.unique(task.items.label[train].astype(str), return_inverse=True)[1]
    if groups.max() == 0:
        groups = np.arange(len(train))
    return grouped_folds(groups, N_RANKERS, strata)


def _sequences(
    model: MilRnn, task: MilTask, rows: NDArray[np.int64], spec: MilSpec, device: torch.device
) -> dict[int, Tensor]:
    """By row of the task the most suspicious tiles (s, D) of its bag, in order."""

    def tops(rnn: MilRnn, bags: PackedBags) -> Tensor:
        x = rnn.tiles_of(bags)
        order, counts = most_suspicious(rnn.suspicion(rnn.tile_head(x)), bags, rnn.steps)
        found.extend(tiles[:n].cpu() for tiles, n in zip(x[order], counts.tolist(), strict=True))
        return counts

    found: list[Tensor] = []
    over_bags(model, task.source, task.bags[rows], tops, max_tiles=spec.max_tiles, device=device)
    return dict(zip(rows.tolist(), found, strict=True))


def _task_of(task: MilTask, ranked: dict[int, Tensor]) -> MilTask:
    """The same slides with their sequences as bags."""
    rows = np.array(list(ranked), dtype=np.int64)
    source = BagSource.of_arrays([tiles.numpy() for tiles in ranked.values()], task.items.slide[rows].tolist())
    return MilTask(source, task.items.take(rows), task.targets.take(rows), np.arange(len(rows)))


def _as_rnn(fitted: Fitted) -> MilRnn:
    if not isinstance(fitted.model, MilRnn):
        raise TypeError(f"two stages are of MIL-RNN, got {type(fitted.model).__name__}")
    return fitted.model
