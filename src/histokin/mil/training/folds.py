"""Cross-validation of slide classifiers: outer folds judge, inner folds choose, neither knows the other's labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from histokin.artefacts import Ledger, digest_file, write_json, write_text
from histokin.evaluate.calibration import brier, expected_calibration_error
from histokin.evaluate.comparison import Figure
from histokin.evaluate.splits import SplitTable, inner_folds, splits_csv, stratified_folds
from histokin.mil.training.ensembles import Ensemble, Told, fit_ensemble
from histokin.mil.training.figures import ENSEMBLE, Judged, Spread
from histokin.mil.training.floors import floor_features, floor_predictions
from histokin.mil.training.leaks import refuse_shared_tiles
from histokin.mil.training.loop import CPU
from histokin.mil.training.spec import MilSpec
from histokin.mil.training.tables import write_columns
from histokin.mil.training.task import MilTask
from histokin.mil.training.tensors import read_tensors, write_tensors
from histokin.progress import Reporter, silent


@dataclass(frozen=True, slots=True, eq=False)
class CrossValidated:
    """What was told of slides while they were held out.

    Attributes:
        task: slides and targets.
        outer: the folds.
        ensembles: by (repeat, fold), trained on everything outside it.
        rows: (N,) int64 rows of the task that were judged, fold by fold.
        places: (N,) int64 of each its fold in `outer.folds`.
        members: (M, N, P) what each single model told, calibrated.
        told: (N, P) their mean: the ensemble's word.
        raw: (N, P) the same without temperature.
        slides, patients: figures of the ensemble, and of floors, by slide and by patient.
        spread: of single models, by slide.
        calibration: expected calibration error and Brier score of the slides, before and after temperature; {} where no
            classes are told.
        left_out: patients whose slides differ in truth, who have no figure of their own.
        warnings: sentences a reader must see beside the figures.
    """

    task: MilTask
    outer: SplitTable
    ensembles: Mapping[tuple[int, int], Ensemble]
    rows: NDArray[np.int64]
    places: NDArray[np.int64]
    members: NDArray[np.float64]
    told: NDArray[np.float64]
    raw: NDArray[np.float64]
    slides: tuple[Figure, ...]
    patients: tuple[Figure, ...]
    spread: tuple[Spread, ...]
    calibration: Mapping[str, float]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]


def cross_validate(
    task: MilTask,
    spec: MilSpec,
    folder: Path,
    *,
    outer: SplitTable | None = None,
    with_floors: bool = True,
    allow_shared_tiles: bool = False,
    device: torch.device = CPU,
    every_s: float = 30.0,
    report: Reporter = silent,
) -> CrossValidated:
    """Judge a classifier on slides whose patients it has not seen.

    Epoch, temperature and threshold come from inner splits of each training part. Every model of every fold is filed as
    it is done: a killed run goes on where it was.

    Args:
        task: slides and targets.
        spec: of the classifiers.
        folder: of this run: models, splits, predictions, figures.
        outer: folds given from elsewhere, such as by site; stratified ones of whole patients if None.
        with_floors: judge what is had without a network beside it (classes only).
        allow_shared_tiles: let slides of different parts hold the same tile vectors, where empty glass explains them.
        device: CPU or GPU.
        every_s: seconds between two checkpoints.
        report: progress.

    Raises:
        EvaluationError: the folds cannot be made.
        TrainingError: a leak, or training cannot go on.
    """
    outer = stratified_folds(task.items, spec.n_folds) if outer is None else outer
    inner = inner_folds(outer, spec.n_inner)
    if not allow_shared_tiles:
        refuse_shared_tiles(task, [outer, *inner])
    _keep_splits(folder, outer, inner)
    codes = outer.part_codes(task.items.item)
    ensembles: dict[tuple[int, int], Ensemble] = {}
    rows, places, told = [], [], []
    for place, ((repeat, fold), table) in enumerate(zip(outer.folds, inner, strict=True)):
        name = f"{repeat}-{fold}"
        own = folder / f"fold-{name}"
        ensemble = fit_ensemble(task, table, spec, own, name=name, device=device, every_s=every_s, report=report)
        tested = np.flatnonzero(codes[:, place] == 2)
        rows.append(tested)
        places.append(np.full(len(tested), place))
        told.append(_told(task, ensemble, tested, spec, device))
        ensembles[repeat, fold] = ensemble
    found = _judge(task, spec, outer, ensembles, np.concatenate(rows), np.concatenate(places), told, with_floors)
    _write(found, spec, folder)
    return found


def _told(task: MilTask, ensemble: Ensemble, tested: NDArray[np.int64], spec: MilSpec, device: torch.device) -> Told:
    """What an ensemble tells of its test slides, kept beside it."""
    ledger = Ledger(ensemble.folder, "told", {"max_tiles": spec.max_tiles})
    path = ensemble.folder / "test.safetensors"
    inputs = {
        "members": [digest_file(ensemble.folder / file) for file in ensemble.members],
        "temperature": ensemble.temperature,
        "bags": task.source.digest,
        "slides": task.items.slide[tested],
    }
    if ledger.find("test", inputs) is None:
        ledger.forget("test")
        found = ensemble.tell(task.source, task.bags[tested], max_tiles=spec.max_tiles, device=device)
        tensors = {"logits": torch.from_numpy(found.logits), "values": torch.from_numpy(found.values)}
        write_tensors(path, tensors, {"slides": task.items.slide[tested]})
        ledger.commit("test", inputs, path)
    tensors = read_tensors(path)[0]
    return Told(tensors["logits"].numpy(), tensors["values"].numpy())


def _judge(
    task: MilTask,
    spec: MilSpec,
    outer: SplitTable,
    ensembles: Mapping[tuple[int, int], Ensemble],
    rows: NDArray[np.int64],
    places: NDArray[np.int64],
    told: Sequence[Told],
    with_floors: bool,
) -> CrossValidated:
    members = np.concatenate([found.values for found in told], axis=1)
    joined, raw = members.mean(axis=0), members.mean(axis=0)
    targets = task.targets
    judged = Judged(targets.kind, targets.names, targets.values[rows], task.items.group[rows], places)
    shown = {ENSEMBLE: joined}
    calibration: dict[str, float] = {}
    if targets.kind == "classes":
        raw = _softmax(np.concatenate([found.logits for found in told], axis=1).astype(np.float64)).mean(axis=0)
        truth = np.asarray(judged.truth, dtype=np.int64)
        for when, p in (("before", raw), ("after", joined)):
            calibration[f"ece_{when}"] = expected_calibration_error(p, truth)
            calibration[f"brier_{when}"] = brier(p, truth)
        if with_floors:
            shown |= floor_predictions(floor_features(task), task, outer, n_inner=spec.n_inner)
    by_patient = {name: judged.by_patient(p, spec.patient_score) for name, p in shown.items()}
    patients, _, left_out = by_patient[ENSEMBLE]
    warnings = [*outer.warnings]
    warnings += [f"fold {repeat}-{fold}: {note}" for (repeat, fold), one in ensembles.items() for note in one.notes]
    if left_out:
        warnings.append(f"{len(left_out)} patients have slides of several truths and no figure of their own")
    for unit, one in (("slide", judged), ("patient", patients)):
        if one.missing:
            warnings.append(f"no judged {unit} is {', '.join(one.missing)}: there are no figures by {unit}")
    return CrossValidated(
        task=task,
        outer=outer,
        ensembles=ensembles,
        rows=rows,
        places=places,
        members=members,
        told=joined,
        raw=raw,
        slides=() if judged.missing else judged.figures(shown),
        patients=()
        if patients.missing or not len(patients.folds)
        else patients.figures({name: p for name, (_, p, _) in by_patient.items()}),
        spread=() if judged.missing else judged.spread(members),
        calibration=calibration,
        left_out=left_out,
        warnings=tuple(warnings),
    )


def prediction_columns(found: CrossValidated) -> dict[str, NDArray[Any]]:
    """One row a slide and fold: whose, the truth, what was told, and how far single models differ (`spread`).

    `told_<name>` are calibrated probabilities of classes or labels, the risk, or the value; `predicted` is the most
    probable class.
    """
    task, rows = found.task, found.rows
    folds = np.array(found.outer.folds)[found.places]
    columns: dict[str, NDArray[Any]] = {
        "slide": task.items.slide[rows],
        "patient": task.items.patient[rows],
        "site": task.items.site[rows],
        "repeat": folds[:, 0],
        "fold": folds[:, 1],
        "n_tiles": task.source.lengths[task.bags[rows]],
        **_truth_columns(task, rows),
    }
    return columns | told_columns(task.targets.kind, task.targets.outputs, found.members)


def told_columns(kind: str, outputs: Sequence[str], members: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Columns of (M, N, P) predictions: their mean, the decision, and the standard deviation over the M models."""
    told = members.mean(axis=0)
    columns: dict[str, NDArray[Any]] = {f"told_{name}": told[:, place] for place, name in enumerate(outputs)}
    if kind == "classes":
        columns["predicted"] = np.array(outputs, dtype=object)[told.argmax(axis=1)]
    for place, name in enumerate(outputs):
        columns[f"spread_{name}"] = members[:, :, place].std(axis=0)
    return columns


def _truth_columns(task: MilTask, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    values, names = task.targets.values[rows], task.targets.names
    if task.targets.kind == "classes":
        return {"truth": np.array(names, dtype=object)[values]}
    if values.ndim == 1:
        return {"truth": values}
    return {f"truth_{name}": values[:, place] for place, name in enumerate(names)}


def _patient_columns(found: CrossValidated, spec: MilSpec) -> dict[str, NDArray[Any]]:
    task, rows = found.task, found.rows
    judged = Judged(
        task.targets.kind, task.targets.names, task.targets.values[rows], task.items.group[rows], found.places
    )
    patients, told, _ = judged.by_patient(found.told, spec.patient_score)
    folds = np.array(found.outer.folds)[patients.folds]
    columns: dict[str, NDArray[Any]] = {"patient": patients.patients, "repeat": folds[:, 0], "fold": folds[:, 1]}
    if patients.kind == "classes":
        columns["truth"] = np.array(patients.names, dtype=object)[patients.truth]
        columns["predicted"] = np.array(patients.names, dtype=object)[told.argmax(axis=1)]
    return columns | {f"told_{name}": told[:, place] for place, name in enumerate(task.targets.outputs)}


def _keep_splits(folder: Path, outer: SplitTable, inner: Sequence[SplitTable]) -> None:
    write_text(folder / "splits.csv", splits_csv(outer))
    for (repeat, fold), table in zip(outer.folds, inner, strict=True):
        write_text(folder / f"fold-{repeat}-{fold}" / "inner-splits.csv", splits_csv(table))


def _write(found: CrossValidated, spec: MilSpec, folder: Path) -> None:
    write_columns(folder / "predictions", prediction_columns(found))
    write_columns(folder / "patients", _patient_columns(found, spec))
    source = found.task.source
    write_json(
        folder / "result.json",
        {
            "format": "slide-classification",
            "format_version": "1.0",
            "spec": spec,
            "split": {"kind": found.outer.kind, "unit": found.outer.unit, "folds": found.outer.folds},
            "target": {"kind": found.task.targets.kind, "outputs": found.task.targets.outputs},
            "embeddings": {"encoder": source.encoder, "fingerprint": source.fingerprint, "bags": source.digest},
            "n_slides": len(found.rows),
            "n_patients": len(set(found.task.items.group[found.rows])),
            "slides": found.slides,
            "patients": found.patients,
            "single_models": found.spread,
            "calibration": found.calibration,
            "chosen": [
                {
                    "repeat": repeat,
                    "fold": fold,
                    "temperature": one.temperature,
                    "threshold": one.threshold,
                    "epochs": [one.member(number).epoch for number in range(len(one.members))],
                }
                for (repeat, fold), one in found.ensembles.items()
            ],
            "warnings": found.warnings,
        },
    )


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
