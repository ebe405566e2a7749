"""What was told of slides, in the words of a page: decision, truth, whether it is right, how sure."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import UNNAMED
from histokin.mil.training import CrossValidated, Targets
from histokin.mil.training.figures import Judged
from histokin.report.mil.document import Prediction


def predictions_of(found: CrossValidated) -> list[Prediction]:
    """One a slide and fold, the most surprising first."""
    task = found.task
    told = []
    for at, row in enumerate(found.rows.tolist()):
        repeat, fold = found.outer.folds[found.places[at]]
        one = prediction_of(task.targets.kind, task.targets.outputs, task.items.slide[row], found.members[:, at])
        one = replace(
            one,
            patient=named(task.items.patient[row]),
            site=str(task.items.site[row]),
            fold=f"{repeat}-{fold}" if repeat else str(fold),
            n_tiles=int(task.source.lengths[task.bags[row]]),
        )
        told.append(with_truth(one, task.targets, row))
    return in_order(told)


def in_order(told: Sequence[Prediction]) -> list[Prediction]:
    """The most surprising first, of equals by slide."""
    return sorted(told, key=lambda one: (-one.surprise, one.slide))


def named(patient: object) -> str:
    """A patient's name, "" of one that is not known."""
    return "" if str(patient).startswith(UNNAMED) else str(patient)


def prediction_of(kind: str, outputs: Sequence[str], slide: object, members: NDArray[np.float64]) -> Prediction:
    """What (M, P) models tell of one slide."""
    told = members.mean(axis=0)
    said, spread = "", None
    if kind == "classes":
        best = int(told.argmax())
        said, spread = outputs[best], members[:, best]
    elif kind == "labels":
        said = _listed(outputs, told >= 0.5)
    else:
        said, spread = f"{told[0]:.4g}" if kind == "value" else "", members[:, 0]
    sd = float(spread.std()) if spread is not None and len(spread) > 1 else None
    return Prediction(slide=str(slide), told=dict(zip(outputs, told.tolist(), strict=True)), said=said, spread=sd)


def with_truth(one: Prediction, targets: Targets, row: int) -> Prediction:
    """A prediction with the truth of its slide."""
    value = targets.values[row]
    match targets.kind:
        case "classes":
            truth = targets.names[int(value)]
            return replace(one, truth=truth, is_right=truth == one.said)
        case "labels":
            truth = _listed(targets.names, value == 1)
            return replace(one, truth=truth, is_right=None if np.isnan(value).any() else truth == one.said)
        case "survival":
            return replace(one, truth=f"{'event' if value[1] else 'censored'} at {value[0]:g}")
        case "value":
            return replace(one, truth=f"{float(value):.4g}", error=abs(one.told["value"] - float(value)))


def prevalence_of(judged: Judged) -> dict[str, float]:
    """Share of each class, of each label among the slides where it is known, of survival that of events."""
    if judged.kind == "classes":
        counts = np.bincount(judged.truth, minlength=len(judged.names))
        return {name: float(n / counts.sum()) for name, n in zip(judged.names, counts.tolist(), strict=True)}
    if judged.kind == "labels":
        return {name: float(np.nanmean(judged.truth[:, place])) for place, name in enumerate(judged.names)}
    return {"event": float(judged.truth[:, 1].mean())} if judged.kind == "survival" else {}


def _listed(names: Sequence[str], is_true: NDArray[np.bool_]) -> str:
    return ", ".join(name for name, yes in zip(names, is_true.tolist(), strict=True) if yes) or "none"
