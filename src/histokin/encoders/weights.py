"""Weights files: reading them safely, and fitting their keys to a network's."""

import pickle
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

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
PARALLEL = "module."  # torch's DataParallel writes it before every key

# Packages and plain types whose objects (options, callbacks, counters) training frameworks save beside the tensors.
# They are read as empty stand-ins: none of their code is imported or run.
BYSTANDERS = (
    "__main__",
    "addict",
    "argparse",
    "collections",
    "easydict",
    "lightning",
    "lightning_fabric",
    "mmcv",
    "mmengine",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
    "torch",
    "yacs",
    *(
        f"builtins.{kind}"
        for kind in ("bool", "complex", "dict", "float", "int", "list", "object", "set", "str", "tuple")
    ),
)


class WeightsMismatch(EncoderError):
    """A weights file is of another network."""

    code = "encoder-weights-mismatch"


@dataclass(frozen=True, slots=True)
class KeyMap:
    """How the keys of a known weights file answer to its network's.

    Args:
        prefixes: what may stand before the network's names; one of them is stripped, at the beginning of a key only.
        heads: beginnings, after the prefix, of what is no part of the encoder: classifier, projector.
        beside: beginnings of what lies outside of the prefix: a momentum copy, a queue.
    """

    prefixes: tuple[str, ...]
    heads: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FittedWeights:
    """A state that fits a network, and in words what was done to make it fit."""

    state: dict[str, Tensor]
    sentence: str


def read_weights(path: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file or a torch checkpoint (read without running code from it).

    Objects of training frameworks beside the tensors (`BYSTANDERS`) are passed over.

    Raises:
        EncoderError: no such file, neither format, objects that only their own code could read, or no tensors inside.
    """
    if not path.is_file():
        raise EncoderError("there is no such weights file", path, "Check the path.")
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _load_checkpoint(path)
    except (
        SafetensorError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        LookupError,
        pickle.UnpicklingError,
    ) as error:
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
    """`torch.load` that only builds tensors and plain containers, and stand-ins for what the allow-list names."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        try:
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
        except (ValueError, RuntimeError) as error:
            raise pickle.UnpicklingError("neither safetensors nor a torch checkpoint of plain tensors") from error
        foreign = [name for name in names if not {name, name.partition(".")[0]} & set(BYSTANDERS)]
        if foreign or not names:
            raise pickle.UnpicklingError(
                f"it needs code that is not run: {', '.join(foreign[:3]) or 'unknown'}"
            ) from None
    with torch.serialization.safe_globals([_stand_in(name) for name in names]):
        return torch.load(path, map_location="cpu", weights_only=True)


class _StandIn:
    """An object that takes anything and keeps nothing, in the place of one whose code is not run."""

    def __new__(cls, *_: object, **__: object) -> Self:
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None: ...

    def __setstate__(self, _: object) -> None: ...


class _DictStandIn:
    """The same for subclasses of dict: torch fills in the items of plain and ordered ones only."""

    def __new__(cls, *_: object, **__: object) -> "OrderedDict[Any, Any]":
        return OrderedDict()


def _stand_in(name: str) -> type:
    module, _, plain_name = name.rpartition(".")
    kind = _DictStandIn if plain_name.lower().endswith("dict") else _StandIn
    # torch goes by these two attributes when it looks a name up among the allowed ones.
    return type(plain_name, (kind,), {"__module__": module, "__qualname__": plain_name})


def fit_weights(
    given: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    *,
    where: Path | str,
    keys: KeyMap | None = None,
    remedy: str = "Name the architecture (and backbone.args) that the weights were trained with.",
) -> FittedWeights:
    """Match a file's keys to a network's: all of the network's weights must be there, in their shapes.

    A common prefix is stripped. What may remain unused is what `keys` names; without `keys` it is heads (classifier,
    projector), or, where a prefix was stripped, what lies outside of it (a momentum copy, a queue). The counters of
    BatchNorm, which no result depends on, may be missing: old files have none.

    Args:
        given: the file's tensors.
        wanted: the network's state.
        where: the file, for the error.
        keys: the layout of a file that is known; None tries the usual ones.
        remedy: for the error.

    Raises:
        WeightsMismatch: keys missing, left over or of another shape; the first of each are named.
    """
    chains = _known_chains(given) if keys is None else {p + q for p in ("", PARALLEL) for q in keys.prefixes}
    heads, beside = (HEADS, ("",)) if keys is None else (keys.heads, keys.beside)
    prefix = best_prefix(given, set(wanted), chains)
    inside = {key[len(prefix) :]: value for key, value in given.items() if key.startswith(prefix)}
    outside = [key for key in given if not key.startswith(prefix)]
    counters = {key: wanted[key] for key in wanted if key.endswith("num_batches_tracked") and key not in inside}
    state = {key: inside[key] for key in wanted if key in inside} | counters
    missing = sorted(set(wanted) - set(state))
    left_over = sorted(key for key in set(inside) - set(wanted) if not key.startswith(heads))
    left_over += sorted(key for key in outside if not key.removeprefix(PARALLEL).startswith(beside))
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
        raise WeightsMismatch(f"the weights do not fit the network: {'; '.join(complaints)}", where, remedy)
    n_unused = len(given) - len(set(wanted) & set(inside))
    return FittedWeights(state, f"{len(state)} tensors taken, prefix '{prefix}' stripped, {n_unused} unused")


def _known_chains(keys: Iterable[str]) -> set[str]:
    """Every chain of up to three of the usual prefixes that some key begins with, such as module.encoder_q."""
    keys, chains = list(keys), {""}
    for _ in range(3):
        chains |= {
            before + prefix
            for before in chains
            for prefix in PREFIXES
            if any(key.startswith(before + prefix) for key in keys)
        }
    return chains


def best_prefix(keys: Collection[str], wanted: set[str], prefixes: Iterable[str]) -> str:
    """The one of the prefixes under which most of the wanted keys are found; the shortest of equals."""
    present = set(keys)
    found = {prefix: sum(prefix + key in present for key in wanted) for prefix in sorted(prefixes)}
    return min(found, key=lambda prefix: (-found[prefix], len(prefix), prefix))
