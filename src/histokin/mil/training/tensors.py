"""Named tensors with what is to be said of them, in one safetensors file: equal content gives equal bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from histokin.artefacts import canonical_json, writing
from histokin.errors import TrainingError

_KEY = "histokin"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write whole or not at all.

    Args:
        path: the file.
        tensors: on any device.
        about: plain data.
    """
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with writing(path) as temporary:
        # One key of metadata: several would stand in an order of their own in each file.
        save_file(own, temporary, {_KEY: canonical_json(about)})


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and what is said of them.

    Raises:
        TrainingError: the file is missing, damaged, or not ours.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})[_KEY])
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError, LookupError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrainingError(f"the file cannot be read ({first_line})", path, "Delete it to train anew.") from error


def flat_optimiser(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state as named tensors; rates and other settings follow from the spec."""
    state = optimiser.state_dict()["state"]
    return {
        f"{number}/{name}": value
        for number, own in state.items()
        for name, value in own.items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Bring a fresh optimiser to a state of `flat_optimiser`."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, _, name = key.partition("/")
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
