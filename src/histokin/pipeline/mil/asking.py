"""What is asked of slide classifiers: which target, judged how, trained how."""

import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from histokin.errors import RecipeError
from histokin.mil import MODELS
from histokin.mil.models.building import Preset
from histokin.mil.training import MilSpec, faithful_spec

Target = Literal["classes", "multilabel", "survival", "regression"]
LeaveOut = Literal["patient", "site"]
TARGETS: tuple[Target, ...] = get_args(Target)
_OPTIONS = "options."


@dataclass(frozen=True, slots=True)
class MilRequest:
    """What is to be told of slides, and how it is judged.

    Attributes:
        label: column of slides; of multilabel the columns with commas between them, of survival the columns of time
            and event.
        target: classes (one of several), multilabel (each column true or false), survival or regression.
        leave_out: what no part of a split shares with another: folds of whole patients, or one site after the other.
        spec: of the classifiers.
        allow_shared_tiles: let slides of different parts hold tiles of the same vector, where empty glass explains it.
    """

    label: str
    target: Target = "classes"
    leave_out: LeaveOut = "patient"
    spec: MilSpec = field(default_factory=MilSpec)
    allow_shared_tiles: bool = False

    def __post_init__(self) -> None:
        if self.target not in TARGETS or self.leave_out not in get_args(LeaveOut):
            raise RecipeError(
                f"target {self.target} leaving out the {self.leave_out} cannot be asked for",
                "slide classification",
                f"Targets are {', '.join(TARGETS)}; left out are {', '.join(get_args(LeaveOut))}.",
            )
        n_columns = len(self.columns)
        wanted = {"survival": 2, "multilabel": max(n_columns, 1)}.get(self.target, 1)
        if n_columns != wanted:
            raise RecipeError(
                f"{n_columns} columns are named for {self.target}",
                "slide classification",
                "Name one column; of survival time,event; of multilabel all of them with commas between.",
            )

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the label."""
        return tuple(part.strip() for part in self.label.split(",") if part.strip())


def spec_of(model: str, preset: Preset = "default", settings: Sequence[str] = (), **given: Any) -> MilSpec:
    """How a model is trained: the defaults or the published settings, then what is set.

    Args:
        model: a name of `MODELS`.
        preset: faithful takes the optimiser and schedule of the published code as well as its network.
        settings: KEY=VALUE of `MilSpec`, values as YAML; `options.KEY=VALUE` of the model's class.
        given: fields that go before the preset's; None leaves them.

    Raises:
        RecipeError: an unknown model, key or preset; names the nearest known.
    """
    if model not in MODELS:
        raise RecipeError("there is no such model", f"model {model}", _nearest(model, MODELS))
    if preset not in get_args(Preset):
        raise RecipeError(f"there is no preset '{preset}'", f"model {model}", _nearest(preset, get_args(Preset)))
    changes = {name: value for name, value in given.items() if value is not None}
    options: dict[str, Any] = {}
    for setting in settings:
        key, value = _assigned(setting)
        if key.startswith(_OPTIONS):
            options[key.removeprefix(_OPTIONS)] = value
        else:
            changes[key] = _checked(key, value)
    changes |= {"options": options} if options else {}
    return faithful_spec(model, **changes) if preset == "faithful" else replace(MilSpec(model=model), **changes)


def _assigned(setting: str) -> tuple[str, Any]:
    """Key and value; lists become tuples, and 1e-3, which YAML takes for a text, a number."""
    import yaml

    key, is_assignment, text = setting.partition("=")
    if not is_assignment or not key.strip():
        raise RecipeError("a setting is key=value", f"--set {setting}", "Write lr=0.001.")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{text!r} is no value", f"--set {setting}", "Write it as YAML would.") from error
    if isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    return key.strip(), tuple(value) if isinstance(value, list) else value


def _checked(key: str, value: Any) -> Any:
    """A value of the kind that the field of `MilSpec` takes; "none" is None where that may be."""
    hints = get_type_hints(MilSpec)
    if key not in hints or key in ("model", "preset", "options"):
        known = [*(hints.keys() - {"model", "preset", "options"}), f"{_OPTIONS}KEY"]
        raise RecipeError(f"there is no key '{key}'", f"--set {key}", _nearest(key, known))
    hint = hints[key]
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise RecipeError(f"it cannot be {value!r}", f"--set {key}", f"Known: {', '.join(get_args(hint))}.")
        return value
    kinds = get_args(hint) or (hint,)
    if value == "none" and NoneType in kinds:
        return None
    if float in kinds and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = " or ".join("none" if kind is NoneType else kind.__name__ for kind in kinds)
        raise RecipeError(f"{value!r} is no {wanted}", f"--set {key}", "Correct the value.")
    return value


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return (f"Did you mean {near[0]}? " if near else "") + f"Known: {', '.join(names)}."
