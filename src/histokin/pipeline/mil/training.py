"""`mil train`: nested cross-validation, the ensemble for new slides, and the page that says how good it is."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from histokin.artefacts import Ledger, digest_of, plain, sweep, write_json
from histokin.cohort import file_name_of
from histokin.encoders.encoder import choose_device
from histokin.errors import RecipeError
from histokin.evaluate.splits import SplitTable, inner_folds
from histokin.mil.training import cross_validate, fit_ensemble
from histokin.pipeline.mil.asking import MilRequest
from histokin.pipeline.mil.bags import Bags, open_bags
from histokin.pipeline.mil.document import Trained, mil_document
from histokin.pipeline.mil.outcome import REQUEST, MilOutcome, read_outcome, write_outcome
from histokin.pipeline.mil.targets import Asked, given_folds, outer_folds, task_of
from histokin.progress import Reporter, silent
from histokin.report.mil.document import MilDocument

ENSEMBLE = "ensemble"
"""Folder of the classifiers trained on all slides, which tell of new ones."""
VERSION = 1
"""Of what `mil.json` holds: another one is made anew."""


def train_classifiers(
    archive: Path | str,
    request: MilRequest,
    *,
    encoder: str | None = None,
    labels: Path | str | None = None,
    splits: Path | str | None = None,
    name: str | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    report: Reporter = silent,
    command: str = "histokin mil train",
) -> MilOutcome:
    """Train slide classifiers, judge them on patients that they have not seen, and keep an ensemble for new slides.

    Called again it goes on where it was; what is done is read.

    Args:
        archive: a workspace, or a folder of embeddings of any tool.
        request: what is to be told, and how it is trained and judged.
        encoder: of the workspace, by name.
        labels: a CSV of slides' patients and labels.
        splits: the outer folds: a CSV of our own, or a folder of CLAM's; made by `request` if None.
        name: of the run in the workspace; by default of label, model and encoder.
        out: its folder instead; a folder of embeddings needs one.
        device: cpu, cuda, ...
        report: progress.
        command: shown on the page.

    Raises:
        RecipeError: the folder holds a run of other settings.
        EvaluationError, TrainingError: the labels, patients or folds do not allow it; says why.
        StoreError: the embeddings cannot be used.
    """
    cache = Path(out) / "cache" if out else None
    bags = open_bags(Path(archive), cache=cache, encoder=encoder, labels=labels, report=report)
    asked = task_of(bags, request)
    folder = Path(out) if out else _folder(bags, request, name)
    outer = outer_folds(asked.task, request) if splits is None else given_folds(asked.task, Path(splits))
    sweep(folder)
    check_settings(folder, request)
    ledger = Ledger(folder, "slide classification", {"request": request, "version": VERSION})
    inputs = {
        "bags": bags.source.digest,
        "task": asked.task.digest(np.arange(len(asked.task))),
        "folds": digest_of([outer.item, outer.repeat, outer.fold, outer.part, outer.patient]),
        "command": command,
        "notes": asked.notes,
    }
    path = folder / "mil.json"
    if ledger.find("page", inputs) is None or not (folder / "index.html").exists():
        ledger.forget("page")
        document = _trained(bags, asked, request, outer, folder, device, command, report)
        write_outcome(document, folder)
        ledger.commit("page", inputs, path)
        ledger.write_manifest(["page"])
    return read_outcome(folder)


def check_settings(folder: Path, request: MilRequest) -> None:
    """Keep a run's folder to one request: hours of training must not be lost to a name used twice.

    Raises:
        RecipeError: it holds a run of other settings; names the first that differs.
    """
    path, asked = folder / REQUEST, plain(request)
    if not path.exists():
        write_json(path, asked)
        return
    held, new = _flat(json.loads(path.read_text(encoding="utf-8"))), _flat(asked)
    for key in {**held, **new}:
        if held.get(key) != new.get(key):
            raise RecipeError(
                f"the run here has {key} {held.get(key)}, asked is {new.get(key)}",
                folder,
                "Give the new run another --name (or --out), or delete the folder.",
            )


def _flat(request: dict[str, Any]) -> dict[str, Any]:
    return {**{key: value for key, value in request.items() if key != "spec"}, **request["spec"]}


def ensemble_on_all(asked: Asked, request: MilRequest, folder: Path, *, device: str, report: Reporter) -> None:
    """Train the classifiers that tell of new slides: on every slide, with inner splits as in each fold."""
    task = asked.task
    everyone = SplitTable.of_parts(task.items, {(0, 0): np.full(len(task), "train", dtype=object)})
    (inner,) = inner_folds(everyone, request.spec.n_inner)
    fit_ensemble(task, inner, request.spec, folder / ENSEMBLE, device=choose_device(device), report=report)


def _trained(
    bags: Bags,
    asked: Asked,
    request: MilRequest,
    outer: SplitTable,
    folder: Path,
    device: str,
    command: str,
    report: Reporter,
) -> MilDocument:
    found = cross_validate(
        asked.task,
        request.spec,
        folder,
        outer=outer,
        with_floors=False,  # they stand on the page, beside the majority and for every target
        allow_shared_tiles=request.allow_shared_tiles,
        device=choose_device(device),
        report=report,
    )
    ensemble_on_all(asked, request, folder, device=device, report=report)
    entry = Trained(request.spec.model, bags, request.spec, found)
    return mil_document(request, asked, [entry], command=command, device=choose_device(device), report=report)


def _folder(bags: Bags, request: MilRequest, name: str | None) -> Path:
    work = bags.place.work
    if work is None:
        raise RecipeError(
            "there is no workspace to write into",
            bags.place.source.store.folder,
            "Name a folder for the run with --out.",
        )
    faithful = "-faithful" if request.spec.preset == "faithful" else ""
    return work.mil(name or file_name_of(f"{request.label}-{request.spec.model}{faithful}-{bags.name}"))
