"""A model by its name."""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any, Literal

from histokin.encoders.networks import seeded_torch
from histokin.errors import RecipeError
from histokin.mil.models.abmil import Abmil
from histokin.mil.models.acmil import Acmil
from histokin.mil.models.clam import ClamMB, ClamSB
from histokin.mil.models.dsmil import Dsmil
from histokin.mil.models.max import MaxPool
from histokin.mil.models.mean import MeanPool
from histokin.mil.models.model import MilModel
from histokin.mil.models.rnn import MilRnn
from histokin.mil.models.transmil import TransMil
from histokin.mil.objectives import Objective

MODELS: dict[str, type[MilModel]] = {
    "abmil": Abmil,
    "acmil": Acmil,
    "clam_mb": ClamMB,
    "clam_sb": ClamSB,
    "dsmil": Dsmil,
    "max": MaxPool,
    "mean": MeanPool,
    "mil_rnn": MilRnn,
    "transmil": TransMil,
}

Preset = Literal["default", "faithful"]


def build_model(
    name: str, *, dim: int, objective: Objective, preset: Preset = "default", seed: int, **options: Any
) -> MilModel:
    """A slide classifier with random weights; the same seed gives the same weights on any machine.

    Args:
        name: a key of `MODELS`.
        dim: D, width of a tile's embedding.
        objective: what the logits mean; sets how many there are.
        preset: `default`, or `faithful` to the published code, where it differs; each model's class says in what.
        seed: of the initial weights.
        options: of the model's class; they win over the preset's.

    Raises:
        RecipeError: an unknown name, preset or option, or options that do not go together.
    """
    if name not in MODELS:
        raise RecipeError("there is no such model", f"model {name}", _known(name, MODELS))
    if preset not in ("default", "faithful"):
        raise RecipeError(f"there is no preset '{preset}'", f"model {name}", "Known: default, faithful.")
    model = MODELS[name]
    takes = [key for key in inspect.signature(model).parameters if key not in ("dim", "objective")]
    for option in options:
        if option not in takes:
            raise RecipeError(f"it has no option '{option}'", f"model {name}", _known(option, takes))
    chosen = {**(model.faithful if preset == "faithful" else {}), **options}
    with seeded_torch(seed):
        return model(dim, objective, **chosen)


def _known(name: str, known: Iterable[str]) -> str:
    nearest = difflib.get_close_matches(name, known := sorted(known), n=1)
    return (f"Did you mean {nearest[0]}? " if nearest else "") + f"Known: {', '.join(known)}."
