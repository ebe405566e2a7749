"""A step that failed, written down so that it can be met again without the slides."""

import io
import json
from pathlib import Path

import numpy as np

from histokin.artefacts import write_bytes, write_json
from histokin.encoders.encoder import choose_device
from histokin.learn.checkpoint import RunInputs, TrainState, resume, save_checkpoint
from histokin.learn.distributed import World
from histokin.learn.pixels import PixelSource
from histokin.learn.reading import recipe_from
from histokin.learn.sampling import Draw
from histokin.learn.stains import StainTemplates
from histokin.learn.steps import LossNotFinite, Setting, Share, StepResult, new_state, train_step, used

STATE, STEP, TILES = "state.pt", "step.json", "tiles.npz"


def captured(
    error: LossNotFinite,
    state: TrainState,
    share: Share,
    tiles: np.ndarray,
    *,
    inputs: RunInputs,
    setting: Setting,
    folder: Path,
) -> LossNotFinite:
    """Write state, samples and pixels of the failed step below `folder`, and name the place in the error."""
    rank = World.current().rank
    path = folder / "failures" / (f"step-{state.step:07d}" + (f"-process-{rank}" if rank else ""))
    save_checkpoint(path / STATE, state, inputs)
    buffer = io.BytesIO()
    columns = {"rows": share.draw.rows, "partners": share.draw.partners, "near": share.draw.near}
    np.savez_compressed(buffer, tiles=tiles, **{key: value for key, value in columns.items() if value is not None})
    write_bytes(path / TILES, buffer.getvalue())
    write_json(
        path / STEP,
        {
            "step": state.step,
            "what": error.what,
            "first": share.draw.first,
            "batch": share.batch,
            "px": setting.px,
            "templates": setting.templates,
            "recipe": inputs.recipe,
            "pixels": inputs.pixels,
            "init": inputs.init,
        },
    )
    return LossNotFinite(
        error.what,
        path,
        f"{error.remedy} As it is, the run would meet the same step. This folder holds its state, samples and pixels: "
        "histokin.learn.replay does it once more.",
    )


def replay(folder: Path, source: PixelSource, *, device: str = "auto") -> StepResult:
    """Do a captured step once more, from its state and pixels.

    Args:
        folder: of the failure.
        source: the run's tiles, or any that are as many and lie where they do: no pixels are read.
        device: torch's name of a device, or `auto`.

    Raises:
        LossNotFinite: it fails again, as it should.
    """
    said = json.loads((folder / STEP).read_text(encoding="utf-8"))
    recipe = recipe_from(said["recipe"], where=folder / STEP)
    setting = Setting(recipe, choose_device(device), said["px"], _templates(said["templates"]))
    state = new_state(setting, used(source, recipe))
    resume(folder / STATE, state, RunInputs(recipe, said["pixels"], said["init"]), setting.device)
    with np.load(folder / TILES) as arrays:
        held = dict(arrays)
    draw = Draw(held["rows"], held.get("partners"), held.get("near"), said["first"])
    return train_step(state, Share(draw, said["batch"]), held["tiles"], setting)


def _templates(said: dict[str, list[float]] | None) -> StainTemplates | None:
    return None if said is None else StainTemplates(**{key: np.array(value) for key, value in said.items()})
