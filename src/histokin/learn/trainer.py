"""The trainer: a recipe and pixels in, a run folder out. It knows nothing of any method.

    folder/recipe.yaml          as resolved, with the number of steps; written before the first counted step
    folder/metrics.jsonl        loss, rate and terms of each step, monitors; no clocks
    folder/checkpoints/last.pt  the whole state
    folder/encoder/             the trained encoder (timm's layout and card.json)
    folder/result.json          written last: its presence with equal inputs means there is nothing to do

Killed at any step and started again with the same arguments, a run on the CPU ends in the same bytes, as long as torch
uses the same number of threads: sums are split by thread. Its default, one a core, is left alone. On a machine that
others use too, waiting threads that spin take the time of those that work: at load 4 to 5 on two cores a step took
863 ms (fp32, median of 36), and 168 ms with OMP_WAIT_POLICY=PASSIVE, which must be set before torch is imported.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from histokin.artefacts import append_line, canonical_json, digest_of, plain, read_lines, sweep, write_json, write_text
from histokin.encoders.card import EncoderCard, fingerprint
from histokin.encoders.encoder import choose_device
from histokin.encoders.folder import save_encoder
from histokin.encoders.networks import embedding_dim, pooling_of
from histokin.errors import RecipeError
from histokin.learn.checkpoint import RunInputs, TrainState, refuse_if_different, resume, save_checkpoint
from histokin.learn.duration import parse_duration
from histokin.learn.methods import METHODS
from histokin.learn.monitors import Look, find_alarms
from histokin.learn.pixels import PixelSource
from histokin.learn.reading import read_recipe, recipe_from, recipe_text
from histokin.learn.recipe import AUTO, Recipe, differences, fill_autos, settled, with_steps
from histokin.learn.resolve import init_digest, resolve_recipe
from histokin.learn.sampling import batch_rows, effective_batch, probe_rows
from histokin.learn.steps import LOOK_BATCH, LossNotFinite, StepResult, new_state, read_ahead, take_look, train_step
from histokin.progress import Reporter, silent

RECIPE, METRICS, RESULT, ENCODER = "recipe.yaml", "metrics.jsonl", "result.json", "encoder"
CHECKPOINT = Path("checkpoints") / "last.pt"
# Measuring the machine's speed: at most this share of the budget and this many steps.
MEASURING_SHARE, MEASURING_STEPS = 0.05, 12

OnEvent = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run came to.

    loss is the mean over the last tenth of the steps; monitors are those of the last look; alarms are sentences, empty
    for a sound run; notes say what was done otherwise than asked; is_new is False when the folder already held it.
    """

    folder: Path
    fingerprint: str
    steps: int
    views: int
    batch: int
    loss: float
    monitors: dict[str, float]
    alarms: tuple[str, ...]
    notes: tuple[str, ...] = ()
    is_new: bool = True

    @property
    def encoder(self) -> Path:
        """The trained encoder's folder, for `load_encoder`."""
        return self.folder / ENCODER


def pretrain(
    source: PixelSource,
    recipe: Recipe,
    folder: Path,
    report: Reporter = silent,
    *,
    device: str = "auto",
    on_event: OnEvent | None = None,
) -> TrainingResult:
    """Train an encoder on tiles without labels.

    Args:
        source: the tiles.
        recipe: what to do; what it leaves `auto` is filled by machine and tile size, or by what this folder's run
            found at its start.
        folder: of the run; an unfinished run in it goes on, a finished one is returned.
        report: progress for people.
        device: torch's name of a device, or `auto`.
        on_event: called with a mapping after each step and look; the only place where clock times go.

    Raises:
        RecipeError: unknown method, or initial weights that do not fit.
        TrainingError: the folder holds another run, tiles the method cannot use, a loss that is not finite.
    """
    started = time.monotonic()
    target = choose_device(device)
    _check_method(recipe, source)
    inputs = _settle(source, recipe, folder, target)
    finished = _finished(folder, inputs)
    if finished is not None:
        return finished
    sweep(folder)
    if inputs.recipe.run.steps == AUTO:
        steps = _steps_in_budget(source, inputs.recipe, target, started)
        inputs = dataclasses.replace(inputs, recipe=with_steps(inputs.recipe, steps))
    write_text(folder / RECIPE, recipe_text(inputs.recipe))
    state = new_state(inputs.recipe, target)
    if (folder / CHECKPOINT).exists():
        resume(folder / CHECKPOINT, state, inputs, target)
    _truncate_metrics(folder / METRICS, state.step)
    tell = _Teller(report, on_event, _last_look(folder / METRICS))
    _run(source, inputs, state, folder=folder, device=target, tell=tell)
    return _finish(source, inputs, state, folder)


def _check_method(recipe: Recipe, source: PixelSource) -> None:
    if recipe.method not in METHODS:
        raise RecipeError(
            f"there is no method '{recipe.method}'", "recipe key method", f"Known: {', '.join(sorted(METHODS))}."
        )
    METHODS[recipe.method].check(source)


def _settle(source: PixelSource, recipe: Recipe, folder: Path, device: torch.device) -> RunInputs:
    """The run's inputs; a run already begun in the folder must be the same one."""
    path = folder / RECIPE
    begun = read_recipe(path) if path.exists() else None
    asked = fill_autos(recipe, begun) if begun else recipe
    # Through plain values and back: tuples and lists of free arguments become alike.
    resolved = recipe_from(plain(resolve_recipe(asked, source.px, device)), where=path)
    if begun:
        refuse_if_different(differences(resolved, begun), path)
    return RunInputs(resolved, source.digest, init_digest(resolved.backbone.init))


def _finished(folder: Path, inputs: RunInputs) -> TrainingResult | None:
    path = folder / RESULT
    if not path.exists():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    theirs, mine = content.pop("inputs"), _input_digests(inputs)
    refuse_if_different(
        [f"{key}: {mine[key][:12]}, {theirs[key][:12]}" for key in mine if mine[key] != theirs[key]], path
    )
    sentences = {key: tuple(content.pop(key)) for key in ("alarms", "notes")}
    return TrainingResult(folder=folder, is_new=False, **sentences, **content)


def _input_digests(inputs: RunInputs) -> dict[str, str]:
    return {"recipe": digest_of(inputs.recipe), "pixels": inputs.pixels, "init": inputs.init}


def _steps_in_budget(source: PixelSource, recipe: Recipe, device: torch.device, started: float) -> int:
    """How many steps the budget allows, by a few uncounted steps on a state that is thrown away."""
    budget = parse_duration(recipe.run.budget)
    trial = with_steps(recipe, 1000)
    state = new_state(trial, device)
    n = len(source)
    until = time.monotonic() + MEASURING_SHARE * budget
    batches = (batch_rows(trial.seed, step, trial.run.batch, n) for step in range(MEASURING_STEPS + 1))
    taken: list[float] = []
    with closing(read_ahead(source, batches)) as pixels:
        before = time.monotonic()
        for rows, tiles in pixels:
            train_step(state, rows, tiles, trial, device)
            before, spent = time.monotonic(), time.monotonic() - before
            taken.append(spent)
            if time.monotonic() > until and len(taken) >= 3:
                break
    probe = probe_rows(trial.seed, n, trial.run.monitor_tiles)
    take_look(state, source, probe[:LOOK_BATCH], trial, device)  # warms up the kernels of another batch size
    before = time.monotonic()
    take_look(state, source, probe, trial, device)
    a_look = time.monotonic() - before
    # The first steps also warm up kernels and caches, and a neighbour on the machine may hold one up.
    a_step = float(np.median(taken[len(taken) // 3 :]))
    return steps_within(budget - (time.monotonic() - started), a_step, a_look)


def steps_within(seconds: float, a_step: float, a_look: float) -> int:
    """How many steps fit, with their looks (`with_steps`: an eighth of the run apart, at least 50 steps) and the last.

    Args:
        seconds: what is left of the budget.
        a_step, a_look: seconds each takes.
    """
    long = (seconds - 9 * a_look) / a_step
    short = (seconds - a_look) / (a_step + a_look / 50)
    return max(1, int(long if long >= 400 else min(short, 400)))


def _truncate_metrics(path: Path, step: int) -> None:
    """Keep what was written up to the checkpoint's step; what came after it will come again."""
    lines = read_lines(path)
    kept = [line for line in lines if line["step"] <= step]
    if path.exists():
        write_text(path, "".join(canonical_json(line) + "\n" for line in kept))


def _run(
    source: PixelSource, inputs: RunInputs, state: TrainState, *, folder: Path, device: torch.device, tell: "_Teller"
) -> None:
    """The loop, from the state's step to the recipe's last."""
    recipe, n = inputs.recipe, len(source)
    steps = settled(recipe.run.steps, "run.steps")
    look_every = settled(recipe.run.monitor_every, "run.monitor_every")
    save_every = settled(recipe.run.checkpoint_every, "run.checkpoint_every")
    if state.step >= steps:
        return
    probe = probe_rows(recipe.seed, n, recipe.run.monitor_tiles)
    batches = (batch_rows(recipe.seed, step, recipe.run.batch, n) for step in range(state.step, steps))
    n_views = effective_batch(recipe.run.batch, n) * state.method.n_views
    # The reader is closed before the line is: an interrupted run leaves no thread behind.
    with tell.over((steps - state.step) * n_views), closing(read_ahead(source, batches)) as pixels:
        for rows, tiles in pixels:
            try:
                result = train_step(state, rows, tiles, recipe, device)
            except LossNotFinite as error:
                raise _captured(error, state.step, rows, recipe, folder) from error
            is_last = state.step == steps
            append_line(folder / METRICS, {"step": state.step, **plain(result)})
            look = take_look(state, source, probe, recipe, device) if is_last or state.step % look_every == 0 else None
            if look:
                append_line(folder / METRICS, {"step": state.step, "monitor": look})
            if is_last or state.step % save_every == 0:
                save_checkpoint(folder / CHECKPOINT, state, inputs)
            tell.step(state.step, steps, n_views, result, look)


class _Teller:
    """Tells people (live line) and the caller (events) of each step; clock times go here and nowhere else."""

    def __init__(self, report: Reporter, on_event: OnEvent | None, seen: Look | None) -> None:
        self.report, self.on_event, self.seen = report, on_event, seen

    @contextmanager
    def over(self, n_views: int) -> Iterator[None]:
        """The line, open for so many views."""
        with self.report("pretrain", n_views, "views") as self.task:
            self.before = time.monotonic()
            yield

    def step(self, step: int, steps: int, n_views: int, result: StepResult, look: Look | None) -> None:
        self.seen = look or self.seen
        self.before, seconds = time.monotonic(), time.monotonic() - self.before
        if self.on_event is not None:
            self.on_event(
                {
                    "step": step,
                    "steps": steps,
                    **plain(result),
                    "monitor": plain(look),
                    "seconds": seconds,
                    "views_per_s": n_views / max(seconds, 1e-9),
                }
            )
        looked = f"  rank {self.seen.rank:.1f}  spread {self.seen.spread:.2f}" if self.seen else ""
        self.task.advance(n_views, f"step {step}/{steps}  loss {result.loss:.3f}{looked}")


def _captured(error: LossNotFinite, step: int, rows: np.ndarray, recipe: Recipe, folder: Path) -> LossNotFinite:
    """Write down what is needed to meet the failure again, and name the file in the error."""
    path = folder / "failures" / f"step-{step:07d}.json"
    write_json(path, {"step": step, "rows": rows, "recipe": recipe, "what": error.what})
    return LossNotFinite(
        error.what,
        path,
        f"{error.remedy} This file holds the step's rows and recipe; the same command goes on from the last checkpoint "
        "and meets the step again.",
    )


def _last_look(metrics: Path) -> Look | None:
    looks = _looks(read_lines(metrics))
    return looks[-1] if looks else None


def _looks(lines: list[dict[str, Any]]) -> list[Look]:
    return [Look(**line["monitor"]) for line in lines if "monitor" in line]


def _finish(source: PixelSource, inputs: RunInputs, state: TrainState, folder: Path) -> TrainingResult:
    """Write encoder and result, from the state and from metrics.jsonl alone."""
    recipe, n = inputs.recipe, len(source)
    lines = read_lines(folder / METRICS)
    losses = [line["loss"] for line in lines if "loss" in line]
    looks = _looks(lines)
    loss = float(np.mean(losses[-max(1, len(losses) // 10) :], dtype=np.float64))
    digests = _input_digests(inputs)
    card = save_encoder(folder / ENCODER, state.method.encoder, _card(source, recipe, state, digest_of(digests)))
    batch = effective_batch(recipe.run.batch, n)
    result = TrainingResult(
        folder=folder,
        fingerprint=fingerprint(card),
        steps=state.step,
        views=state.step * batch * state.method.n_views,
        batch=batch,
        loss=loss,
        monitors={key: value for key, value in plain(looks[-1]).items() if key != "step"} if looks else {},
        alarms=find_alarms(
            looks,
            dim=card.embed_dim,
            n_probe=min(n, recipe.run.monitor_tiles),
            loss=loss,
            trivial=state.method.trivial_loss(batch),
        ),
        notes=() if batch == recipe.run.batch else (_reduced(batch, recipe.run.batch, n),),
    )
    content = {key: value for key, value in plain(result).items() if key not in {"folder", "is_new"}}
    write_json(folder / RESULT, {**content, "inputs": digests})
    return result


def _reduced(batch: int, asked: int, n_tiles: int) -> str:
    return f"there are {n_tiles} tiles: a batch holds {batch} of them instead of {asked}, so that none is in it twice"


def _card(source: PixelSource, recipe: Recipe, state: TrainState, run: str) -> EncoderCard:
    encoder = state.method.encoder
    return EncoderCard(
        name=f"{recipe.method}-{run[:8]}",
        architecture=recipe.backbone.name,
        model_args=settled(recipe.backbone.args, "backbone.args"),
        weights_sha256="",  # filled in by save_encoder
        mean=settled(recipe.views.mean, "views.mean"),
        std=settled(recipe.views.std, "views.std"),
        mpp=source.mpp,
        tile_px=source.px,
        input_px=settled(recipe.views.embed_px, "views.embed_px"),
        embed_dim=embedding_dim(encoder),
        pooling=pooling_of(encoder),
        method=recipe.method,
        run=run,
    )
