"""Weights files: reading them safely, and fitting their keys to a network's."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from histokin.errors import EncoderError

# Layouts seen in published pathology checkpoints. Stripped as prefixes only: replacing the text
# anywhere would damage keys that hold it inside.
PREFIXES = ("module.", "encoder_q.", "encoder.", "model.resnet.", "model.", "resnet.", "backbone.", "network.")
WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher")
HEADS = ("fc.", "head.", "classifier.", "instDis", "groupDis", "projector.", "predictor.")


class WeightsMismatch(EncoderError):
    """A weights file is of another network."""

    code = "encoder-weights-mismatch"


@dataclass(frozen=True, slots=True)
class FittedWeights:
    """A state that fits a network, and in words what was done to make it fit."""

    state: dict[str, Tensor]
    sentence: str


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file or a torch checkpoint (read without running code from it).

    Raises:
        EncoderError: no such file, neither format, or no tensors inside.
    """
    if not path.is_file():
        raise EncoderError("there is no such weights file", path, "Check the path.")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _load_checkpoint(path)
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise EncoderError(
            f"the weights file cannot be read safely ({first_line})",
            path,
            "Convert it where you trust it: safetensors.torch.save_file(state_dict, 'weights.safetensors').",
        ) from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if isinstance(content, Mapping):
        state = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if state:
            return state
    raise EncoderError("there are no named tensors in the file", path, "Save the network's state_dict().")


def _load_checkpoint(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)


def fit_weights(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, where: Path | str) -> FittedWeights:
    """Match a file's keys to a network's: all of the network's weights must be there, in their shapes.

    A common prefix is stripped; beside the network only heads (classifier, projector) may remain unused, or, where a
    prefix was stripped, what lies outside of it (a momentum copy, a queue).

    Raises:
        WeightsMismatch: keys missing, left over or of another shape; the first of each are named.
    """
    prefix = best_prefix(list(given), set(wanted))
    inside = {key[len(prefix) :]: value for key, value in given.items() if key.startswith(prefix)}
    # Counters that old checkpoints lack and that BatchNorm with a momentum never reads.
    counters = {key: wanted[key] for key in wanted if key.endswith("num_batches_tracked") and key not in inside}
    state = {key: inside[key] for key in wanted if key in inside} | counters
    missing = sorted(set(wanted) - set(state))
    left_over = sorted(key for key in set(inside) - set(wanted) if not key.startswith(HEADS))
    misshapen = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in sorted(state)
        if state[key].shape != wanted[key].shape
    ]
    complaints = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for what, keys in (("missing", missing), ("left over", left_over), ("of another shape", misshapen))
        if keys
    ]
    if complaints:
        raise WeightsMismatch(
            f"the weights do not fit the network: {'; '.join(complaints)}",
            where,
            "Name the architecture (and backbone.args) that the weights were trained with.",
        )
    n_unused = len(given) - len(set(wanted) & set(inside))
    return FittedWeights(state, f"{len(state)} tensors taken, prefix '{prefix}' stripped, {n_unused} unused")


def best_prefix(keys: list[str], wanted: set[str]) -> str:
    """The chain of known prefixes under which most of the wanted keys are found; the shortest of equals."""
    candidates = {""}
    for _ in range(3):  # such as module.encoder_q.
        candidates |= {
            before + prefix
            for before in candidates
            for prefix in PREFIXES
            if any(key.startswith(before + prefix) for key in keys)
        }
    present = set(keys)
    found = {prefix: sum(prefix + key in present for key in wanted) for prefix in sorted(candidates)}
    return min(found, key=lambda prefix: (-found[prefix], len(prefix), prefix))
