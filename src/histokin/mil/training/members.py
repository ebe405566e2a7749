"""One trained classifier of an ensemble as a file: weights, and all that is needed to build the network for them."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from histokin.errors import TrainingError
from histokin.mil.models import MilModel, build_model
from histokin.mil.objectives import Classes, Cox, Hazards, MultiLabel, Objective, Regression
from histokin.mil.training.loop import Fitted
from histokin.mil.training.spec import MilSpec
from histokin.mil.training.tensors import part, read_tensors, write_tensors

FORMAT_VERSION = "1.0"
_OBJECTIVES: Mapping[str, type[Any]] = {
    found.__name__: found for found in (Classes, MultiLabel, Cox, Hazards, Regression)
}
_VAL = "val_logits"


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """A trained classifier.

    Attributes:
        model: in evaluation mode, on the CPU.
        epoch: that was chosen, from 0.
        curve: by epoch, training and validation loss.
        val_logits: (n, C) of its validation part.
    """

    model: MilModel
    epoch: int
    curve: tuple[dict[str, Any], ...]
    val_logits: Tensor

    @property
    def objective(self) -> Objective:
        """What its logits mean."""
        return self.model.objective


def write_member(path: Path, fitted: Fitted, spec: MilSpec) -> None:
    """Write a trained classifier; the same training gives the same bytes."""
    model, objective = fitted.model, fitted.objective
    about = {
        "format": "slide-classifier",
        "format_version": FORMAT_VERSION,
        "model": spec.model,
        "options": spec.options,
        "preset": spec.preset,
        "dim": model.dim,
        "objective": {"kind": type(objective).__name__, "arguments": objective},
        "epoch": fitted.epoch,
        "curve": fitted.history,
    }
    weights = {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    write_tensors(path, {**weights, _VAL: torch.from_numpy(fitted.val_logits)}, about)


def read_member(path: Path) -> Member:
    """Read a trained classifier.

    Raises:
        TrainingError: the file is missing, damaged or of another version.
    """
    tensors, about = read_tensors(path)
    if about.get("format") != "slide-classifier" or about.get("format_version") != FORMAT_VERSION:
        raise TrainingError(
            f"this is no slide classifier of format {FORMAT_VERSION}", path, "Train it anew with this version."
        )
    model = build_model(
        about["model"],
        dim=about["dim"],
        objective=_objective(about["objective"]),
        preset=about["preset"],
        seed=0,
        **about["options"],
    )
    model.load_state_dict(part(tensors, "model/"))
    return Member(model.eval(), about["epoch"], tuple(about["curve"]), tensors[_VAL])


def _objective(about: Mapping[str, Any]) -> Objective:
    known = _OBJECTIVES[about["kind"]]
    given = {field.name: about["arguments"][field.name] for field in dataclasses.fields(known)}
    return known(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})
