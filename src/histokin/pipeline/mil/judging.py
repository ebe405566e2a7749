"""From out-of-fold predictions to what a page shows: figures beside floors, curves, calibration, confusion."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.evaluate.calibration import adaptive_calibration_error, brier, expected_calibration_error, reliability
from histokin.evaluate.comparison import Figure
from histokin.mil.training.figures import Judged
from histokin.pipeline.measures import measure_of
from histokin.report import Confusion, ReliabilityCurve
from histokin.report.mil.curves import class_curve
from histokin.report.mil.document import Calibration, ClassCurve, Judgement

METRICS = {
    "classes": ("macro_auc", "balanced_accuracy", "accuracy", "macro_f1", "nll", "ece"),
    "labels": ("macro_auc",),
    "survival": ("c_index",),
    "value": ("spearman", "r2", "pearson", "mae"),
}
"""By kind of target, the one that counts first."""
Told = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Predictions of the same slides by several classifiers and floors.

    Attributes:
        judged: the truth.
        entries: names of the classifiers.
        told: (N, P) by name, classifiers and floors.
        patient_score: how a patient's slides are joined.
        protocol: everything needed to repeat the figures.
        warnings: sentences a reader must see beside them.
    """

    judged: Judged
    entries: tuple[str, ...]
    told: Told
    patient_score: str
    protocol: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def against(self, reference: str) -> Sequence[Figure]:
        """All figures, the others compared with `reference` on the same resampled patients."""
        rows = {reference: self.told[reference]} | {name: one for name, one in self.told.items() if name != reference}
        found = {(one.name, one.metric): one for one in self.judged.figures(rows)}
        metrics = list(dict.fromkeys(metric for _, metric in found))
        return [
            replace(found[name, metric], kind="encoder" if name in self.entries else "floor")
            for name in self.told
            for metric in metrics
        ]

    def by_patient(self) -> tuple["Rows", tuple[str, ...]]:
        """The same with one row a patient and fold, and the patients left out since their slides differ in truth."""
        joined = {name: self.judged.by_patient(one, self.patient_score) for name, one in self.told.items()}
        judged, _, left_out = next(iter(joined.values()))
        return replace(self, judged=judged, told={name: one for name, (_, one, _) in joined.items()}), left_out


def judgements(rows: Rows) -> tuple[list[Judgement], tuple[str, ...]]:
    """By slide, and by patient where patients have several slides; and who is left out of the latter."""
    of_slides = _judgement(rows, "slide")
    if len(set(rows.judged.patients)) == len(rows.judged.patients):
        return [of_slides], ()
    patients, left_out = rows.by_patient()
    is_judged = len(patients.judged.folds) > 1
    return [of_slides, *([_judgement(patients, "patient")] if is_judged else [])], left_out


def _judgement(rows: Rows, unit: Any) -> Judgement:
    judged = rows.judged
    measure = measure_of(f"by {unit}", rows, rows.entries, METRICS[judged.kind])
    confusions: list[Confusion] = []
    if judged.kind == "classes":
        confusions = [
            Confusion(name, "the most probable class", list(judged.names), _counts(judged, rows.told[name]))
            for name in rows.entries
        ]
    return Judgement(unit, len(judged.truth), len(set(judged.patients)), measure, confusions)


def _counts(judged: Judged, told: NDArray[np.float64]) -> list[list[int]]:
    found = np.zeros((len(judged.names), len(judged.names)), dtype=np.int64)
    np.add.at(found, (judged.truth, told.argmax(axis=1)), 1)
    return found.tolist()


def curves(judged: Judged, entries: Told, *, seed: int = 0) -> list[ClassCurve]:
    """ROC and precision-recall curves of every class or label; of two classes those of the second."""
    found = []
    for name, told in entries.items():
        for place, of in enumerate(judged.names if judged.kind in ("classes", "labels") else ()):
            if judged.kind == "classes":
                known, positive = np.arange(len(judged.truth)), judged.truth == place
                if len(judged.names) == 2 and place == 0:
                    continue
            else:
                known = np.flatnonzero(~np.isnan(judged.truth[:, place]))
                positive = judged.truth[known, place] == 1
            if 0 < positive.sum() < len(positive):
                found.append(class_curve(name, of, told[known, place], positive, judged.patients[known], seed=seed))
    return found


def calibration(
    judged: Judged, name: str, raw: NDArray[np.float64], told: NDArray[np.float64], temperature: float
) -> list[Calibration]:
    """Reliability before and after the temperature, of classes."""
    if judged.kind != "classes":
        return []
    return [Calibration(name, _reliability(judged, name, raw), _reliability(judged, name, told, temperature))]


def _reliability(
    judged: Judged, name: str, told: NDArray[np.float64], temperature: float | None = None
) -> ReliabilityCurve:
    truth = np.asarray(judged.truth, dtype=np.int64)
    found = reliability(told, truth)
    bins = zip(found.confidence.tolist(), found.accuracy.tolist(), found.n.tolist(), strict=True)
    true = np.maximum(told[np.arange(len(truth)), truth], np.finfo(np.float64).eps)
    return ReliabilityCurve(
        row=name,
        bins=[(sure, right, n) for sure, right, n in bins if n],
        ece=expected_calibration_error(told, truth),
        ace=adaptive_calibration_error(told, truth),
        brier=brier(told, truth),
        nll=float(-np.log(true).mean()),
        temperature=temperature,
    )
