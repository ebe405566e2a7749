"""One classifier: what it learns, when it stops, and that stopping it anywhere leaves no trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mil.mil_worlds import planted, task_of

from histokin.errors import TrainingError
from histokin.mil.bags import PackedBags
from histokin.mil.reading import Draw, read_bags
from histokin.mil.training import Checkpoint, Fitted, MilSpec, MilTask, Targets, fit_one
from histokin.mil.training import loop as training_loop
from histokin.mil.training.rnn import fit_two_stages

SMALL = MilSpec(
    options={"hidden": (8,), "attention": 4},
    lr=1e-2,
    epochs=6,
    patience=3,
    min_epochs=2,
    batch=4,
    tile_cap=6,
    balance="none",
)
RNN = replace(SMALL, model="mil_rnn", options={"hidden": (8,), "state": 6, "steps": 4}, epochs=2)
TRAIN, VAL = np.arange(16), np.arange(16, 28)


@pytest.fixture(scope="module")
def task() -> MilTask:
    bags, truth, _ = planted(28, n_tiles=8)
    return task_of(bags, truth)


def same(first: Fitted, second: Fitted) -> bool:
    weights = first.model.state_dict(), second.model.state_dict()
    return (
        all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
        and (first.epoch, first.history) == (second.epoch, second.history)
        and np.array_equal(first.val_logits, second.val_logits)
    )


class Killed(Exception):
    """Stands for a kill."""


@contextmanager
def killing_after(monkeypatch: pytest.MonkeyPatch, n_writes: int) -> Iterator[None]:
    """Raise right after the n-th checkpoint was written."""
    written = 0
    keep = training_loop.write_tensors

    def write(path: Path, tensors: dict, about: dict) -> None:
        nonlocal written
        keep(path, tensors, about)
        written += 1
        if written == n_writes:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(training_loop, "write_tensors", write)
        yield


@pytest.mark.parametrize(
    ("optimiser", "n_writes"), [("adamw", 1), ("adamw", 9), ("adam", 3), ("sgd", 12), ("radam-lookahead", 13)]
)
def test_a_run_killed_at_any_step_and_resumed_ends_in_the_same_bits(
    task: MilTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimiser: str, n_writes: int
) -> None:
    spec = replace(SMALL, optimiser=optimiser, epochs=4, accumulate=2 if n_writes == 3 else 1)
    whole = fit_one(task, TRAIN, VAL, spec, seed=5)
    checkpoint = Checkpoint(tmp_path / "run.safetensors", every_s=0)
    with killing_after(monkeypatch, n_writes), pytest.raises(Killed):
        fit_one(task, TRAIN, VAL, spec, seed=5, checkpoint=checkpoint)
    assert same(fit_one(task, TRAIN, VAL, spec, seed=5, checkpoint=checkpoint), whole)


@pytest.mark.parametrize("n_writes", [2, 21])
def test_two_stages_killed_and_resumed_end_in_the_same_bits(
    task: MilTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_writes: int
) -> None:
    whole = fit_two_stages(task, TRAIN, VAL, RNN, seed=5)
    checkpoint = Checkpoint(tmp_path / "run.safetensors", every_s=0)
    with killing_after(monkeypatch, n_writes), pytest.raises(Killed):
        fit_two_stages(task, TRAIN, VAL, RNN, seed=5, checkpoint=checkpoint)
    assert same(fit_two_stages(task, TRAIN, VAL, RNN, seed=5, checkpoint=checkpoint), whole)


def test_the_global_generator_neither_matters_nor_is_touched(task: MilTask) -> None:
    torch.default_generator.manual_seed(1)
    first = fit_one(task, TRAIN, VAL, replace(SMALL, epochs=2), seed=0)
    state = torch.get_rng_state()
    second = fit_one(task, TRAIN, VAL, replace(SMALL, epochs=2), seed=0)
    assert same(first, second)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(first, fit_one(task, TRAIN, VAL, replace(SMALL, epochs=2), seed=1))


def test_a_checkpoint_of_another_run_is_refused(task: MilTask, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "run.safetensors", every_s=0)
    fit_one(task, TRAIN, VAL, replace(SMALL, epochs=1), seed=0, checkpoint=checkpoint)
    for other in (
        {"spec": replace(SMALL, epochs=1, lr=2e-2), "seed": 0},
        {"spec": replace(SMALL, epochs=1), "seed": 1},
    ):
        with pytest.raises(TrainingError, match="of other slides, targets, settings or another seed"):
            fit_one(task, TRAIN, VAL, checkpoint=checkpoint, **other)
    with pytest.raises(TrainingError, match="of other slides"):
        fit_one(task, TRAIN[1:], VAL, replace(SMALL, epochs=1), seed=0, checkpoint=checkpoint)
    checkpoint.path.write_bytes(b"torn")
    with pytest.raises(TrainingError, match="cannot be read"):
        fit_one(task, TRAIN, VAL, replace(SMALL, epochs=1), seed=0, checkpoint=checkpoint)


def test_training_stops_when_validation_has_not_improved_and_keeps_the_best_weights(task: MilTask) -> None:
    spec = replace(SMALL, epochs=40, patience=4, min_epochs=1, lr=5e-2, end_lr=None)
    found = fit_one(task, TRAIN, VAL, spec, seed=0)
    losses = [epoch.val_loss for epoch in found.history]
    assert len(losses) < 40
    assert found.epoch == int(np.argmin(losses))
    assert len(losses) - 1 - found.epoch == 4
    # What is handed on are the weights of that epoch, not the last: training just so long gives them again.
    shorter = fit_one(task, TRAIN, VAL[:0], replace(spec, patience=None, epochs=found.epoch + 1), seed=0)
    assert all(torch.equal(t, found.model.state_dict()[n]) for n, t in shorter.model.state_dict().items())


def test_nothing_stops_before_the_least_number_of_epochs(task: MilTask) -> None:
    spec = replace(SMALL, epochs=20, patience=1, lr=5e-2, end_lr=None)
    early, late = (len(fit_one(task, TRAIN, VAL, replace(spec, min_epochs=n), seed=0).history) for n in (1, 15))
    assert early < 15 <= late


def test_a_fixed_number_of_epochs_keeps_the_last_weights_and_needs_no_validation(task: MilTask) -> None:
    spec = replace(SMALL, epochs=4, patience=None)
    found = fit_one(task, TRAIN, VAL[:0], spec, seed=0)
    assert (found.epoch, len(found.history), found.val_logits.shape) == (3, 4, (0, 2))
    with_val = fit_one(task, TRAIN, VAL, spec, seed=0)
    assert all(torch.equal(t, with_val.model.state_dict()[n]) for n, t in found.model.state_dict().items())
    with pytest.raises(ValueError, match="chosen on a validation part"):
        fit_one(task, TRAIN, VAL[:0], SMALL, seed=0)
    with pytest.raises(ValueError, match="in the training and in the validation part"):
        fit_one(task, TRAIN, TRAIN[:2], SMALL, seed=0)


def test_the_validation_loss_is_the_cross_entropy_of_all_its_tiles(task: MilTask) -> None:
    found = fit_one(task, TRAIN, VAL, SMALL, seed=0)
    logits, truth = found.val_logits.astype(np.float64), task.targets.values[VAL]
    by_hand = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(VAL)), truth])
    assert found.history[found.epoch].val_loss == pytest.approx(by_hand, rel=1e-6)
    alone = [found.model(_bag(task, row)).logits.detach().numpy()[0] for row in VAL]
    assert np.allclose(np.array(alone), found.val_logits, atol=1e-5)


def test_one_epoch_without_dropout_is_the_plain_loop_written_out(task: MilTask) -> None:
    spec = replace(
        SMALL, options={"hidden": (8,), "attention": 4, "dropout": 0.0}, epochs=1, patience=None, batch=1,
        tile_cap=None, optimiser="sgd", beta1=0.0, weight_decay=0.01, warmup=0, end_lr=None, lr=0.05,
    )  # fmt: skip
    found = fit_one(task, TRAIN, VAL[:0], spec, seed=3)
    run = training_loop._setting(task, TRAIN, VAL[:0], spec, 3, training_loop.CPU, None, training_loop._whole(spec))
    model, losses = training_loop._fresh(run).model, []
    for draw in training_loop._draws(0, run):
        row = int(np.flatnonzero(task.bags == draw.bags[0])[0])
        loss = torch.nn.functional.cross_entropy(
            model(_bag(task, row)).logits, torch.tensor([int(task.targets.values[row])])
        )
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(0.05 * ((0 if p.grad is None else p.grad) + 0.01 * p))
        losses.append(loss.item())
    assert found.history[0].train_loss == pytest.approx(np.mean(losses), rel=1e-6)
    for name, tensor in model.state_dict().items():
        assert torch.allclose(found.model.state_dict()[name], tensor, atol=1e-6)


def test_class_weights_come_from_the_training_part_and_balance_it() -> None:
    bags, truth, _ = planted(40)
    truth = np.array([0] * 30 + [1] * 10)
    task = task_of(bags, truth)
    train = np.concatenate([np.arange(18), np.arange(30, 36)])
    objective = task.targets.prepared(train, replace(SMALL, balance="weights")).objective
    assert objective.weights == pytest.approx((24 / (2 * 18), 24 / (2 * 6)))
    assert task.targets.prepared(train, replace(SMALL, balance="sampler")).objective.weights is None


@pytest.fixture(scope="module")
def easy() -> tuple[MilTask, np.ndarray]:
    """Forty slides, thirty of them to train on, in every second of which all tiles are shifted."""
    bags, truth, _ = planted(40, n_tiles=4, n_planted=8, shift=2.0)
    return task_of(bags, truth), truth


EASY = replace(SMALL, options={"hidden": (8,), "attention": 4, "dropout": 0.0}, epochs=15, patience=None, lr=2e-2)


def told_after_training(task: MilTask, targets: Targets, spec: MilSpec) -> tuple[Fitted, torch.Tensor]:
    """A model of the first thirty slides, and its logits of the last ten."""
    own = MilTask(task.source, task.items, targets, task.bags)
    found = fit_one(own, np.arange(30), np.zeros(0, dtype=np.int64), spec, seed=0)
    return found, training_loop.logits_of(found.model, task.source, task.bags[30:])


@pytest.mark.parametrize("survival", ["cox", "hazards"])
def test_survival_ranks_planted_slides_as_riskier(easy: tuple[MilTask, np.ndarray], survival: str) -> None:
    task, truth = easy
    rng = np.random.default_rng(0)
    time = rng.exponential(np.where(truth == 1, 1.0, 20.0)) + 0.01
    targets = Targets.of_survival(time.tolist(), (rng.random(40) < 0.8).tolist())
    spec = replace(EASY, survival=survival, batch=29)  # a last batch of one slide has no Cox loss: it joins the other
    found, logits = told_after_training(task, targets, replace(spec, epochs=40))
    risk = found.objective.risk(logits).numpy()
    assert (risk[truth[30:] == 1][:, None] > risk[truth[30:] == 0][None, :]).mean() > 0.9


def test_a_value_is_told_in_its_own_unit(easy: tuple[MilTask, np.ndarray]) -> None:
    task, truth = easy
    value = 1000 + 50.0 * truth
    found, logits = told_after_training(task, Targets.of_values(value.tolist()), EASY)
    assert np.abs(found.objective.predict(logits).numpy() - value[30:]).mean() < 12


def test_several_labels_train_with_unknown_ones_left_out(easy: tuple[MilTask, np.ndarray]) -> None:
    task, truth = easy
    table = np.stack([truth, 1 - truth], axis=1).astype(float)
    table[::3, 1] = np.nan
    found, logits = told_after_training(task, Targets.of_labels(table, ["some", "none"]), EASY)
    p = found.objective.predict(logits).numpy()
    assert ((p > 0.5) == np.stack([truth, 1 - truth], axis=1)[30:]).mean() > 0.85


def test_a_loss_that_is_no_number_stops_with_a_remedy(task: MilTask) -> None:
    spec = replace(SMALL, optimiser="sgd", lr=1e30, warmup=0, end_lr=None)
    with pytest.raises(TrainingError, match=r"no number in epoch \d.*Lower the learning rate"):
        fit_one(task, TRAIN, VAL, spec, seed=0)


def _bag(task: MilTask, row: int) -> PackedBags:
    bag = int(task.bags[row])
    draw = Draw(np.array([bag]), np.array([0]), task.source.lengths[[bag]])
    return read_bags(task.source, draw, training_loop.CPU)
