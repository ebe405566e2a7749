"""A run's whole state in one file: written whole, read without running code from it."""

import json
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from histokin.artefacts import canonical_json, writing
from histokin.errors import TrainingError
from histokin.learn.methods import Method
from histokin.learn.recipe import Recipe, differences

CHECKPOINT_VERSION = 2


class CheckpointMismatch(TrainingError):
    """A checkpoint belongs to another run."""

    code = "training-checkpoint-mismatch"


@dataclass(frozen=True, slots=True)
class RunInputs:
    """What a run's result depends on: its resolved recipe, the digests of its pixels and of its initial weights."""

    recipe: Recipe
    pixels: str
    init: str


@dataclass(slots=True)
class TrainState:
    """All that changes while training. Order of tiles, views, rate and dropout follow from `step` by counter."""

    method: Method
    optimiser: torch.optim.Optimizer
    step: int = 0


def save_checkpoint(path: Path, state: TrainState, inputs: RunInputs) -> None:
    """Write the state; a kill at any moment leaves the one before."""
    content = {
        "version": CHECKPOINT_VERSION,
        "step": state.step,
        "recipe": canonical_json(inputs.recipe),
        "pixels": inputs.pixels,
        "init": inputs.init,
        "method": state.method.state_dict(),
        "optimiser": state.optimiser.state_dict(),
    }
    # By the open file, not its name: torch writes the name into what it saves.
    with writing(path) as temporary, temporary.open("wb") as file:
        torch.save(_rebuilt(content, set()), file)


def _rebuilt(value: Any, storages: set[int]) -> Any:
    """The same content from objects of its own: equal states give equal bytes.

    A pickle notes which of its objects are one and the same. A state that was read back shares other texts and storages
    than one that grew, and its file would differ although nothing in it does. Tensors are copied only where they share
    memory with another or are a part of something larger: banks of many tiles are large.
    """
    if isinstance(value, torch.Tensor):
        tensor, memory = value.detach().cpu(), value.untyped_storage()
        is_own = memory.nbytes() == tensor.nbytes and memory.data_ptr() not in storages
        storages.add(memory.data_ptr())
        return tensor if is_own else tensor.clone()
    if isinstance(value, dict):
        return {_rebuilt(key, storages): _rebuilt(item, storages) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_rebuilt(item, storages) for item in value)
    return sys.intern(value) if isinstance(value, str) else value


def resume(path: Path, state: TrainState, inputs: RunInputs, device: torch.device) -> None:
    """Bring a fresh state to where the checkpoint was written.

    Raises:
        CheckpointMismatch: it is of another recipe, other pixels or other initial weights; says what differs.
        TrainingError: it cannot be read.
    """
    content = _read(path, device)
    complaints = differences(json.loads(canonical_json(inputs.recipe)), json.loads(content["recipe"]))
    for name, mine in (("pixels", inputs.pixels), ("initial weights", inputs.init)):
        theirs = content["init" if name == "initial weights" else name]
        if theirs != mine:
            complaints.append(f"{name}: {mine[:12]}, {theirs[:12]}")
    refuse_if_different(complaints, path)
    state.method.load_state_dict(content["method"])
    state.optimiser.load_state_dict(content["optimiser"])
    state.step = content["step"]


def refuse_if_different(complaints: list[str], where: Path) -> None:
    """Raise CheckpointMismatch if there is anything (`key: asked, found`) in the list."""
    if complaints:
        raise CheckpointMismatch(
            f"it is of another run (asked for, found there): {'; '.join(complaints)}",
            where,
            "Use another folder, or delete this one to train anew.",
        )


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        version = content["version"]
    except (RuntimeError, EOFError, ValueError, KeyError, TypeError, OSError, pickle.UnpicklingError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(
            f"the checkpoint cannot be read ({first_line})", path, "Delete it to train from the start."
        ) from error
    if version != CHECKPOINT_VERSION:
        raise TrainingError(
            f"the checkpoint is of version {version}, this one reads {CHECKPOINT_VERSION}",
            path,
            "Finish the run with the version that began it, or delete it to train from the start.",
        )
    return content
