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
from collections.abc import Callable, Iterable, Iterator
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
from histokin.learn.capture import captured
from histokin.learn.checkpoint import RunInputs, TrainState, refuse_if_different, resume, save_checkpoint
from histokin.learn.distributed import World, any_rank, broadcast_object, wait_for_all
from histokin.learn.duration import parse_duration
from histokin.learn.methods import METHODS
from histokin.learn.monitors import Look, find_alarms
from histokin.learn.pixels import PixelSource
from histokin.learn.reading import read_recipe, recipe_from, recipe_text
from histokin.learn.recipe import AUTO, Recipe, ViewSpec, differences, fill_autos, settled, with_steps
from histokin.learn.resolve import init_digest, resolve_recipe
from histokin.learn.sampling import Sampler, probe_rows
from histokin.learn.stains import NormalisedPixels, StainTemplates, fit_stains, fit_templates
from histokin.learn.steps import (
    LOOK_BATCH,
    LossNotFinite,
    Setting,
    Share,
    StepResult,
    new_state,
    read_ahead,
    take_look,
    train_step,
    try_sizes,
    used,
)
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
        RecipeError: unknown method, initial weights that do not fit, pictures of a size that the network cannot take.
        TrainingError: the folder holds another run, tiles the method cannot use, a loss that is not finite.
    """
    target, world = choose_device(device), World.current()
    METHODS[recipe.method].check(source, recipe)
    inputs = _settle(source, recipe, folder, target)
    finished = _finished(folder, inputs)
    if finished is not None:
        return finished
    try_sizes(inputs.recipe, target)
    tiles, templates = prepared(source, inputs.recipe)
    draws = METHODS[recipe.method].sampler(tiles, inputs.recipe)
    _check_shares(draws.batch, world)
    if inputs.recipe.run.steps == AUTO:
        steps = _steps_in_budget(tiles, draws, Setting(inputs.recipe, target, source.px, templates))
        inputs = dataclasses.replace(inputs, recipe=with_steps(inputs.recipe, steps))
    setting = Setting(inputs.recipe, target, source.px, templates)
    state = new_state(setting, tiles)
    if world.is_main:
        sweep(folder)
        write_text(folder / RECIPE, recipe_text(inputs.recipe))
    wait_for_all()
    if (folder / CHECKPOINT).exists():
        resume(folder / CHECKPOINT, state, inputs, target)
    if world.is_main:
        _truncate_metrics(folder / METRICS, state.step)
    run = _Run(tiles, draws, setting, inputs, folder)
    _train(run, state, _Teller(report if world.is_main else silent, on_event, _last_look(folder / METRICS)))
    if world.is_main:
        _finish(run, state)
    wait_for_all()
    return dataclasses.replace(_required(_finished(folder, inputs)), is_new=True)


def prepared(source: PixelSource, recipe: Recipe) -> tuple[PixelSource, StainTemplates | None]:
    """The pixels as the recipe wants them, and the stainings that views are drawn from, if it wants that."""
    tiles, views = used(source, recipe), recipe.views
    if views.normalise == "none" and views.stain == "hed":
        return tiles, None
    stains = fit_stains(tiles)
    templates = fit_templates(stains) if views.stain == "lab" else None
    return (NormalisedPixels(tiles, stains) if views.normalise == "lab" else tiles), templates


def _check_shares(batch: int, world: World) -> None:
    if batch % world.size:
        raise RecipeError(
            f"a batch of {batch} cannot be divided among {world.size} processes",
            "recipe key run.batch",
            f"Take a multiple of {world.size}; with few tiles a batch is made smaller than asked.",
        )


def _settle(source: PixelSource, recipe: Recipe, folder: Path, device: torch.device) -> RunInputs:
    """The run's inputs; a run already begun in the folder must be the same one."""
    path = folder / RECIPE
    begun = read_recipe(path) if path.exists() else None
    asked = fill_autos(recipe, begun) if begun and begun.method == recipe.method else recipe
    # Through plain values and back: tuples and lists of free arguments become alike.
    resolved = recipe_from(plain(resolve_recipe(asked, source.px, len(source), device)), where=path)
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


def _required(result: TrainingResult | None) -> TrainingResult:
    if result is None:
        raise RuntimeError("the run ended without its result: another process removed it")
    return result


def _input_digests(inputs: RunInputs) -> dict[str, str]:
    return {"recipe": digest_of(inputs.recipe), "pixels": inputs.pixels, "init": inputs.init}


def shares_of(draws: Sampler, steps: Iterable[int], world: World) -> Iterator[Share]:
    """This process's part of each step's draw."""
    for step in steps:
        yield Share(draws.draw(step).share(world.rank, world.size), draws.batch)


def _steps_in_budget(source: PixelSource, draws: Sampler, setting: Setting) -> int:
    """How many steps the budget allows, by a few uncounted steps on a state that is thrown away.

    The budget is of training. What comes before it (tiles read once, stains, neighbours) grows with the cohort, and
    could leave nothing of it.
    """
    budget = parse_duration(setting.recipe.run.budget)
    trial = dataclasses.replace(setting, recipe=with_steps(setting.recipe, 1000))
    state, world = new_state(trial, source), World.current()
    started = time.monotonic()
    until = started + MEASURING_SHARE * budget
    taken: list[float] = []
    with closing(read_ahead(source, shares_of(draws, range(MEASURING_STEPS + 1), world))) as pixels:
        before = time.monotonic()
        for share, tiles in pixels:
            train_step(state, share, tiles, trial)
            before, spent = time.monotonic(), time.monotonic() - before
            taken.append(spent)
            if any_rank(time.monotonic() > until) and len(taken) >= 3:
                break
    probe = probe_rows(trial.recipe.seed, len(source), trial.recipe.run.monitor_tiles)
    take_look(state, source, probe[:LOOK_BATCH], trial)  # warms up the kernels of another batch size
    before = time.monotonic()
    take_look(state, source, probe, trial)
    a_look = time.monotonic() - before
    # The first steps also warm up kernels and caches, and a neighbour on the machine may hold one up.
    a_step = float(np.median(taken[len(taken) // 3 :]))
    return broadcast_object(steps_within(budget - (time.monotonic() - started), a_step, a_look))


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


@dataclass(frozen=True, slots=True)
class _Run:
    """What a run works on and where it writes."""

    source: PixelSource
    draws: Sampler
    setting: Setting
    inputs: RunInputs
    folder: Path


def _train(run: _Run, state: TrainState, tell: "_Teller") -> None:
    """The loop, from the state's step to the recipe's last."""
    spec, folder, world = run.inputs.recipe.run, run.folder, World.current()
    steps = settled(spec.steps, "run.steps")
    look_every = settled(spec.monitor_every, "run.monitor_every")
    save_every = settled(spec.checkpoint_every, "run.checkpoint_every")
    if state.step >= steps:
        return
    probe = probe_rows(run.inputs.recipe.seed, len(run.source), spec.monitor_tiles)
    shares = shares_of(run.draws, range(state.step, steps), world)
    n_views = views_a_step(run.draws, state, run.inputs.recipe)
    # The reader is closed before the line is: an interrupted run leaves no thread behind.
    with tell.over((steps - state.step) * n_views), closing(read_ahead(run.source, shares)) as pixels:
        for share, tiles in pixels:
            try:
                result = train_step(state, share, tiles, run.setting)
            except LossNotFinite as error:
                raise captured(
                    error, state, share, tiles, inputs=run.inputs, setting=run.setting, folder=folder
                ) from error
            is_last = state.step == steps
            if world.is_main:
                append_line(folder / METRICS, {"step": state.step, **plain(result)})
            look = None
            if world.is_main and (is_last or state.step % look_every == 0):
                look = take_look(state, run.source, probe, run.setting)
                append_line(folder / METRICS, {"step": state.step, "monitor": look})
            if world.is_main and (is_last or state.step % save_every == 0):
                save_checkpoint(folder / CHECKPOINT, state, run.inputs)
            tell.step(state.step, steps, n_views, result, look)


def views_a_step(draws: Sampler, state: TrainState, recipe: Recipe) -> int:
    """Whole and small views that all processes make for one step."""
    tiles = 1 if draws.draw(0).partners is None else 2
    return draws.batch * tiles * (state.method.n_views + recipe.views.local.count)


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


def _last_look(metrics: Path) -> Look | None:
    looks = _looks(read_lines(metrics))
    return looks[-1] if looks else None


def _looks(lines: list[dict[str, Any]]) -> list[Look]:
    return [Look(**line["monitor"]) for line in lines if "monitor" in line]


def _finish(run: _Run, state: TrainState) -> None:
    """Write encoder and result, from the state and from metrics.jsonl alone."""
    recipe, folder, n = run.inputs.recipe, run.folder, len(run.source)
    lines = read_lines(folder / METRICS)
    losses = [line["loss"] for line in lines if "loss" in line]
    looks = _looks(lines)
    loss = float(np.mean(losses[-max(1, len(losses) // 10) :], dtype=np.float64))
    digests = _input_digests(run.inputs)
    card = _card(run.source, recipe, state, digest_of(digests))
    card = save_encoder(folder / ENCODER, state.method.exported(), card)
    batch = run.draws.batch
    reduced = (run.draws.note,) if run.draws.note else ()
    result = TrainingResult(
        folder=folder,
        fingerprint=fingerprint(card),
        steps=state.step,
        views=state.step * views_a_step(run.draws, state, recipe),
        batch=batch,
        loss=loss,
        monitors={key: value for key, value in plain(looks[-1]).items() if key != "step"} if looks else {},
        alarms=find_alarms(
            () if state.method.is_frozen else looks,
            dim=card.embed_dim,
            n_probe=min(n, recipe.run.monitor_tiles),
            loss=loss,
            trivial=state.method.trivial_loss(batch),
        ),
        notes=(*reduced, *_note_zoom(card, recipe.views), *METHODS[recipe.method].notes(run.source, recipe, batch)),
    )
    content = {key: value for key, value in plain(result).items() if key not in {"folder", "is_new"}}
    write_json(folder / RESULT, {**content, "inputs": digests})


def _note_zoom(card: EncoderCard, views: ViewSpec) -> tuple[str, ...]:
    """Said of an encoder that embeds at a scale it was not trained at; a twentieth beside it is rounding."""
    zoom = card.tile_px / card.input_px
    if views.zoom_min / 1.05 <= zoom <= views.zoom_max * 1.05:
        return ()
    trained = f"it was trained at {views.zoom_min:.2f} to {views.zoom_max:.2f}"
    return (f"the encoder embeds at {zoom:.2f} tile pixels a pixel, {trained}: set views.embed_px or the views' zoom",)


def _card(source: PixelSource, recipe: Recipe, state: TrainState, run: str) -> EncoderCard:
    encoder = state.method.exported()
    return EncoderCard(
        name=f"{recipe.method}-{run[:8]}",
        architecture=recipe.backbone.name,
        model_args=settled(recipe.backbone.args, "backbone.args"),
        weights_sha256="",  # filled in by save_encoder
        mean=settled(recipe.views.mean, "views.mean"),
        std=settled(recipe.views.std, "views.std"),
        mpp=source.mpp,
        trained_mpps=source.mpps if len(source.mpps) > 1 else (),
        tile_px=source.px,
        input_px=settled(recipe.views.embed_px, "views.embed_px"),
        embed_dim=embedding_dim(encoder),
        pooling=pooling_of(encoder),
        method=recipe.method,
        run=run,
        head=recipe.backbone.head,
        normalise=settled(recipe.views.normalise, "views.normalise"),
    )
