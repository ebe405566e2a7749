"""What is to be told of slides: classes, labels, survival or a number, and the objective that a training part gives."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from histokin.errors import TrainingError
from histokin.mil.objectives import Classes, Cox, Hazards, MultiLabel, Objective, Regression, hazard_edges
from histokin.mil.training.spec import MilSpec

Kind = Literal["classes", "labels", "survival", "value"]
_QUARTERS = 4  # slides of like values are spread over the folds


@dataclass(frozen=True, slots=True)
class Targets:
    """The truth of N slides.

    Attributes:
        kind: classes (one of several), labels (each true or false), survival or value.
        values: (N,) int64 codes of classes; (N, L) float64 of labels, NaN where unknown; (N, 2) float64 time and event;
            (N,) float64.
        names: of the classes or labels; ("time", "event"); ("value",).
    """

    kind: Kind
    values: NDArray[Any]
    names: tuple[str, ...]

    @classmethod
    def of_classes(cls, labels: Sequence[str], names: Sequence[str] | None = None) -> "Targets":
        """Classes by name.

        Args:
            labels: (N,) texts.
            names: all classes in order; those that occur, sorted, if None.

        Raises:
            TrainingError: fewer than two classes, or a label that is none of the names.
        """
        known = tuple(sorted(set(labels))) if names is None else tuple(names)
        if len(known) < 2:
            raise TrainingError(
                f"there is only the class {', '.join(known)}", "labels", "A classifier needs slides of two classes."
            )
        unknown = sorted(set(labels) - set(known))
        if unknown:
            raise TrainingError(
                f"unknown labels: {', '.join(unknown[:5])}", "labels", f"The classes are {', '.join(known)}."
            )
        code = {name: number for number, name in enumerate(known)}
        return cls("classes", np.array([code[label] for label in labels], dtype=np.int64), known)

    @classmethod
    def of_labels(cls, values: NDArray[Any], names: Sequence[str]) -> "Targets":
        """(N, L) labels, 1 true, 0 false, NaN unknown."""
        table = np.asarray(values, dtype=np.float64)
        if table.ndim != 2 or table.shape[1] != len(names) or not np.isin(table[~np.isnan(table)], (0, 1)).all():
            raise ValueError(f"need (N, {len(names)}) labels of 0, 1 and NaN, got {table.shape}")
        return cls("labels", table, tuple(names))

    @classmethod
    def of_survival(cls, time: Sequence[float], event: Sequence[bool]) -> "Targets":
        """Times > 0, and whether each ended in the event (else it is censored)."""
        values = np.stack([np.asarray(time, dtype=np.float64), np.asarray(event, dtype=np.float64)], axis=1)
        if not (np.isfinite(values).all() and (values[:, 0] > 0).all() and np.isin(values[:, 1], (0, 1)).all()):
            raise TrainingError("a time is not > 0, or an event not 0 or 1", "labels", "Correct the column.")
        return cls("survival", values, ("time", "event"))

    @classmethod
    def of_values(cls, values: Sequence[float]) -> "Targets":
        """A finite number each."""
        numbers = np.asarray(values, dtype=np.float64)
        if not np.isfinite(numbers).all():
            raise TrainingError("a value is no number", "labels", "Correct the column, or leave the slide out.")
        return cls("value", numbers, ("value",))

    def __len__(self) -> int:
        return len(self.values)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what is predicted: a probability for each class or label, a risk, or a value."""
        return (
            self.names if self.kind in ("classes", "labels") else ("risk",) if self.kind == "survival" else ("value",)
        )

    @property
    def strata(self) -> NDArray[np.object_]:
        """(N,) texts by which folds are made alike: class, set of labels, event, or quarter of the values."""
        match self.kind:
            case "classes":
                texts = [self.names[code] for code in self.values]
            case "labels":
                texts = ["".join("?" if np.isnan(v) else str(int(v)) for v in row) for row in self.values]
            case "survival":
                texts = ["event" if event else "censored" for event in self.values[:, 1]]
            case "value":
                edges = np.quantile(self.values, np.arange(1, _QUARTERS) / _QUARTERS)
                texts = [f"quarter {place + 1}" for place in np.searchsorted(edges, self.values, side="right")]
        return np.array(texts, dtype=object)

    def take(self, rows: NDArray[np.int64]) -> "Targets":
        """Those of some slides."""
        return Targets(self.kind, self.values[rows], self.names)

    def prepared(self, train: NDArray[np.int64], spec: MilSpec) -> "Prepared":
        """The objective of a training part, and every slide's target as it takes it.

        Weights, mean and spread, and the bins of times come from the training part alone.

        Args:
            train: (n,) rows of it.
            spec: balance and survival.

        Raises:
            TrainingError: too few events for the bins.
        """
        values, known = self.values, self.values[train]
        is_weighted = spec.balance == "weights"
        match self.kind:
            case "classes":
                counts = np.bincount(known, minlength=len(self.names))
                weights = tuple((len(known) / (len(counts) * np.maximum(counts, 1))).tolist())
                objective: Objective = Classes(len(self.names), weights if is_weighted else None)
                return Prepared(objective, torch.from_numpy(values))
            case "labels":
                yes, no = (known == 1).sum(axis=0), (known == 0).sum(axis=0)
                weights = tuple((np.maximum(no, 1) / np.maximum(yes, 1)).tolist())
                objective = MultiLabel(len(self.names), weights if is_weighted else None)
                return Prepared(objective, torch.from_numpy(values).float())
            case "survival" if spec.survival == "cox":
                return Prepared(Cox(), torch.from_numpy(values))
            case "survival":
                edges = hazard_edges(known[:, 0], known[:, 1], spec.n_bins)
                bins = np.searchsorted(edges, values[:, 0], side="right")
                target = np.stack([bins, values[:, 1]], axis=1)
                return Prepared(Hazards(spec.n_bins, spec.alpha), torch.from_numpy(target))
            case "value":
                mean, sd = float(known.mean()), float(known.std())
                return Prepared(Regression(mean, sd if sd > 0 else 1.0), torch.from_numpy(values))


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """An objective and the (N, ...) targets of all slides as it takes them."""

    objective: Objective
    target: Tensor


def predicted(objective: Objective, logits: Tensor, temperature: float = 1.0) -> NDArray[np.float64]:
    """(N, P) float64, what is told of N slides: probabilities, a risk to rank by, or a value.

    Args:
        objective: any.
        logits: (N, C).
        temperature: that the logits of classes are divided by.
    """
    logits = logits.double()
    if isinstance(objective, Classes):
        found = objective.predict(logits / temperature)
    elif isinstance(objective, Cox | Hazards):
        found = objective.risk(logits)
    else:
        found = objective.predict(logits)
    return found.reshape(len(logits), -1).numpy()
