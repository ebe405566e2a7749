"""`mil predict`: what trained classifiers tell of new slides and patients, held against the truth where it is known."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import versions
from histokin.encoders.encoder import choose_device
from histokin.mil.predicting import Predictions, predict_slides
from histokin.mil.training import MilSpec, Targets
from histokin.mil.training.figures import Judged
from histokin.mil.training.folds import told_columns
from histokin.mil.training.tables import write_columns
from histokin.pipeline.mil.asking import MilRequest
from histokin.pipeline.mil.bags import Bags
from histokin.pipeline.mil.floors import constant_floor
from histokin.pipeline.mil.judging import Rows, curves, judgements
from histokin.pipeline.mil.outcome import MilOutcome, read_outcome, refuse_run, write_outcome
from histokin.pipeline.mil.targets import labelled, without_tiles
from histokin.pipeline.mil.telling import in_order, named, prediction_of, prevalence_of, with_truth
from histokin.pipeline.mil.trained import Run, card_of, open_bags_for, read_run
from histokin.progress import Reporter, silent
from histokin.report import wording
from histokin.report.mil.document import MilDocument


def predict_archive(
    archive: Path | str,
    trained: Path | str,
    out: Path | str,
    *,
    encoder: str | None = None,
    labels: Path | str | None = None,
    device: str = "auto",
    report: Reporter = silent,
    command: str = "histokin mil predict",
) -> MilOutcome:
    """Tables of what a run's classifiers tell of every slide and patient of an archive, and a page.

    Slides that the classifiers or their folds have seen, or whose patient they have, are marked in the tables and
    take no part in figures.

    Args:
        archive: a workspace, or a folder of embeddings of any tool, by the run's encoder.
        trained: folder of the run.
        out: folder of predictions.csv, patients.csv (and .parquet), mil.json, index.html.
        encoder: of the workspace, by name; that of the run if it is there.
        labels: a CSV of slides' patients and labels; where the run's column is known, the predictions are judged.
        device: cpu, cuda, ...
        report: progress.
        command: shown on the page.

    Raises:
        EncoderMismatch: the embeddings are of another encoder; shows both sides.
        TrainingError: there is no finished run.
    """
    run, folder = read_run(Path(trained)), Path(out)
    refuse_run(folder)
    bags = open_bags_for(run, Path(archive), cache=folder / "cache", encoder=encoder, labels=labels, report=report)
    found = predict_slides(run.ensemble, bags.source, device=choose_device(device))
    patients = bags.patients(found.slides)
    is_seen = np.array(run.has_seen(found.slides, patients))
    targets, labelled_rows = labelled(bags, _request(run), found.slides, run.ensemble.outputs)
    _write_tables(found, patients, is_seen, str(run.request["spec"]["patient_score"]), folder)
    document = _document(run, bags, found, patients, is_seen, targets, labelled_rows, command)
    write_outcome(document, folder)
    return replace(read_outcome(folder), left_out=found.empty)


def _write_tables(
    found: Predictions, patients: Sequence[str], is_seen: NDArray[np.bool_], how: str, folder: Path
) -> None:
    columns = dict(found.columns)
    first = {"slide": columns.pop("slide"), "patient": np.array([named(p) for p in patients], dtype=object)}
    write_columns(folder / "predictions", {**first, **columns, "was_trained_on": is_seen})
    names = sorted({name for name in patients if named(name)})
    if not names:
        return
    own = [np.array([who == name for who in patients]) for name in names]
    joined = np.stack([joined_slides(found.members[:, rows], how, found.kind) for rows in own], axis=1)
    write_columns(
        folder / "patients",
        {
            "patient": np.array(names, dtype=object),
            "n_slides": np.array([int(rows.sum()) for rows in own]),
            **told_columns(found.kind, found.outputs, joined),
            "was_trained_on": np.array([bool(is_seen[rows].any()) for rows in own]),
        },
    )


def joined_slides(members: NDArray[np.float64], how: str, kind: str) -> NDArray[np.float64]:
    """(M, P) of one patient from (M, n, P) of its slides: their mean, or the largest, of classes made to sum to 1."""
    joined = members.max(axis=1) if how == "max" else members.mean(axis=1)
    return joined / joined.sum(axis=1, keepdims=True) if kind == "classes" else joined


def _document(
    run: Run,
    bags: Bags,
    found: Predictions,
    patients: Sequence[str],
    is_seen: NDArray[np.bool_],
    targets: Targets | None,
    rows: NDArray[np.int64],
    command: str,
) -> MilDocument:
    card, kind = card_of(run, bags), run.kind
    name = card.name
    told = [
        replace(
            prediction_of(kind, found.outputs, slide, found.members[:, at]),
            patient=named(patients[at]),
            site=str(bags.known[slide].columns.get("site", "")),
            n_tiles=int(found.n_tiles[at]),
        )
        for at, slide in enumerate(found.slides)
    ]
    judged = None
    if targets is not None:
        for place, row in enumerate(rows.tolist()):
            told[row] = with_truth(told[row], targets, place)
        new = np.flatnonzero(~is_seen[rows])
        judged = _judged(targets.take(new), [str(patients[row]) for row in rows[new].tolist()])
    spec = run.request["spec"]
    figures = _figures(name, judged, found.told[rows[~is_seen[rows]]], str(spec["patient_score"])) if judged else None
    return MilDocument(
        title=f"Predictions: {run.request['label']}",
        command=command,
        kind=kind,
        target=str(run.request["label"]),
        outputs=list(found.outputs),
        classifiers=[card],
        reference=name,
        counts=_counts(found, patients),
        prevalence=prevalence_of(judged) if judged else {},
        protocol=[
            f"Told by {len(run.ensemble.members)} models together, trained on all slides of the run {run.folder.name}.",
            "How good they are on patients that they have not seen stands on that run's page.",
        ],
        judgements=figures[0] if figures else [],
        curves=curves(judged, {name: found.told[rows[~is_seen[rows]]]}) if judged else [],
        predictions=in_order(told),
        warnings=_warnings(is_seen, judged),
        notes=_notes(found, targets, rows),
        created_with=versions(),
        digests={name: bags.source.fingerprint},
    )


def _request(run: Run) -> MilRequest:
    asked: dict[str, Any] = {key: run.request[key] for key in ("label", "target", "leave_out")}
    return MilRequest(**asked, spec=MilSpec(model=run.model))


def _judged(targets: Targets, patients: Sequence[str]) -> Judged | None:
    """The truth of new slides; None where figures cannot be had: one slide, or of classes one that does not occur."""
    if len(targets) < 2 or (targets.kind == "classes" and len(set(targets.values.tolist())) < len(targets.names)):
        return None
    folds = np.zeros(len(targets), dtype=np.int64)
    return Judged(targets.kind, targets.names, targets.values, np.array(patients, dtype=object), folds)


def _figures(name: str, judged: Judged, told: NDArray[np.float64], how: str) -> Any:
    floors = constant_floor(judged)
    protocol = {"trained on": "other patients", "patient_score": how}
    return judgements(Rows(judged, (name,), {name: told} | floors, how, protocol))


def _counts(found: Predictions, patients: Sequence[str]) -> dict[str, int]:
    known = {name for name in patients if named(name)}
    return {"slides": len(found.slides), "patients": len(known), "tiles": int(found.n_tiles.sum())}


def _warnings(is_seen: NDArray[np.bool_], judged: Judged | None) -> list[str]:
    said = []
    if is_seen.any():
        said.append(
            f"Optimistic: {int(is_seen.sum())} of {len(is_seen)} slides, or their patients, were trained on. They take "
            "no part in figures; what was told of them while held out stands in the run's own predictions.csv."
        )
    if judged is None:
        said.append("Nothing was judged: no figure says how good these predictions are on these slides.")
    return said


def _notes(found: Predictions, targets: Targets | None, rows: NDArray[np.int64]) -> list[str]:
    said = []
    if found.empty:
        said.append(without_tiles(found.empty))
    if targets is not None and len(rows) < len(found.slides):
        unknown = wording.counted(len(found.slides) - len(rows), "slide")
        said.append(f"Without a truth that the classifiers know: {unknown}.")
    return said
