"""The page of trained classifiers: what was done, how good it is, what was said of each slide and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from histokin.artefacts import plain, versions
from histokin.cohort import UNNAMED
from histokin.mil.training import CrossValidated, Ensemble, MilSpec
from histokin.mil.training.figures import Judged
from histokin.mil.training.loop import CPU
from histokin.pipeline.mil.asking import MilRequest
from histokin.pipeline.mil.bags import Bags
from histokin.pipeline.mil.floors import MAJORITY, floors_of
from histokin.pipeline.mil.judging import Rows, calibration, curves, judgements
from histokin.pipeline.mil.looking import (
    Looked,
    contact_sheets,
    faithfulness,
    limit_of,
    look,
    slide_maps,
)
from histokin.pipeline.mil.targets import Asked
from histokin.pipeline.mil.telling import predictions_of, prevalence_of
from histokin.progress import Reporter, silent
from histokin.report.mil.document import Classifier, MilDocument, Prediction, SingleModels, SlideMaps
from histokin.streams import stream

MOST_LOOKED = 200
"""Slides whose tiles are ranked against each other; of more they are drawn."""
N_GALLERY, N_WRONG, N_A_CLASS = 8, 3, 2
_FEW = 40


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """One kind of classifier after cross-validation.

    Attributes:
        name: of its row.
        bags: of its encoder.
        spec: of its training.
        found: out-of-fold predictions.
    """

    name: str
    bags: Bags
    spec: MilSpec
    found: CrossValidated


def mil_document(
    request: MilRequest,
    asked: Asked,
    entries: Sequence[Trained],
    *,
    command: str,
    is_looked_at: bool = True,
    device: torch.device = CPU,
    report: Reporter = silent,
) -> MilDocument:
    """Everything that the page and the terminal's text say.

    Args:
        request: what was asked.
        asked: the task, the same for all entries but for their bags.
        entries: classifiers judged on the same folds; the first is the reference.
        command: shown, so that it can be repeated.
        is_looked_at: False leaves the maps out.
        device: that looks.
        report: progress, in slides looked at.
    """
    first = entries[0]
    found = first.found
    rows = _rows(request, entries)
    judged, left_out = judgements(rows)
    looked, ensembles = _looked(first, device, report) if is_looked_at else ([], [])
    told = predictions_of(found)
    task = asked.task
    return MilDocument(
        title=f"Slide classification: {request.label}",
        command=command,
        kind=task.targets.kind,
        target=request.label,
        outputs=list(task.targets.outputs),
        classifiers=[_classifier(one) for one in entries],
        reference=first.name,
        counts={
            "slides": len(task),
            **_patients(task.items.patient),
            "tiles": int(task.source.lengths[task.bags].sum()),
        },
        prevalence=prevalence_of(rows.judged),
        protocol=_protocol(request, found, first.spec),
        judgements=judged,
        curves=curves(rows.judged, {one.name: one.found.told for one in entries}, seed=request.spec.seed),
        calibrations=[curve for one in entries for curve in _calibration(one, rows.judged)],
        predictions=told,
        gallery=_gallery(first, looked, told, request.spec.seed),
        sheets=contact_sheets(first.bags, looked, _numbers(found), {one.slide: one.truth for one in told}),
        faithfulness=faithfulness(
            first.name,
            looked,
            ensembles,
            first.bags.source,
            first.bags.patients([one.maps.slide for one in looked]),
            seed=request.spec.seed,
            device=device,
        ),
        gallery_note=_gallery_note(first, looked, is_looked_at=is_looked_at),
        warnings=_warnings(rows, entries, left_out),
        notes=list(asked.notes),
        created_with=versions(),
        digests={one.name: one.bags.source.fingerprint for one in entries},
    )


def _rows(request: MilRequest, entries: Sequence[Trained]) -> Rows:
    found = entries[0].found
    targets = found.task.targets
    judged = Judged(
        targets.kind, targets.names, targets.values[found.rows], found.task.items.group[found.rows], found.places
    )
    told = {one.name: one.found.told for one in entries}
    of_encoder = {one.bags.name: one.found.task for one in entries}
    for encoder, task in of_encoder.items():
        for name, values in floors_of(task, found.outer, judged, n_inner=request.spec.n_inner).items():
            is_shared = len(of_encoder) == 1 or name in (MAJORITY, "site")
            told[name if is_shared else f"{name}, {encoder}"] = values
    protocol = {
        "leave_out": request.leave_out,
        "folds": len(found.outer.folds),
        "split": found.outer.kind,
        "patient_score": request.spec.patient_score,
    }
    return Rows(
        judged, tuple(one.name for one in entries), told, request.spec.patient_score, protocol, found.outer.warnings
    )


def _patients(patients: NDArray[np.object_]) -> dict[str, int]:
    """Patients who are named, and slides that stand in for unknown ones."""
    units = {str(unit) for unit in patients}
    unknown = sum(unit.startswith(UNNAMED) for unit in units)
    return {"patients": len(units) - unknown} | ({"slides of unknown patients": unknown} if unknown else {})


def _classifier(one: Trained) -> Classifier:
    found, spec = one.found, one.spec
    ensembles = list(found.ensembles.values())
    return Classifier(
        name=one.name,
        model=spec.model,
        preset=spec.preset,
        encoder=one.bags.name,
        fingerprint=one.bags.source.fingerprint,
        n_folds=len(ensembles),
        n_inner=spec.n_inner,
        n_seeds=spec.n_seeds,
        single=[
            SingleModels(single.metric, single.mean, float(single.sd) if np.isfinite(single.sd) else None, single.n)
            for single in found.spread
        ],
        epochs=[e.member(number).epoch for e in ensembles for number in range(len(e.members))],
        temperatures=[e.temperature for e in ensembles] if found.task.targets.kind == "classes" else [],
        settings=plain(spec),
        notes=list(dict.fromkeys(note for ensemble in ensembles for note in ensemble.notes)),
    )


def _calibration(one: Trained, judged: Judged) -> list[Any]:
    mean = float(np.mean([ensemble.temperature for ensemble in one.found.ensembles.values()]))
    return calibration(judged, one.name, one.found.raw, one.found.told, mean)


def _protocol(request: MilRequest, found: CrossValidated, spec: MilSpec) -> list[str]:
    n_members = found.members.shape[0]
    chosen = "temperature and threshold" if spec.patience is None else "number of epochs, temperature and threshold"
    return [
        f"Every slide is told by models that saw no slide of its {request.leave_out}: {found.outer.kind}.",
        f"{chosen.capitalize()} were chosen on inner splits of the training part, by patient: never on a test part.",
        f"What is told is the mean of {n_members} models a fold ({spec.n_inner} inner splits, {spec.n_seeds} seeds).",
        "Intervals are 95 %, over resampled patients; they hold for these models and folds, not for training anew.",
    ]


def _warnings(rows: Rows, entries: Sequence[Trained], left_out: Sequence[str]) -> list[str]:
    found = entries[0].found
    n = len(set(rows.judged.patients))
    said = [*found.outer.warnings]
    if n < _FEW:
        said.append(f"Optimistic: intervals over {n} patients are too narrow below about {_FEW}.")
    if left_out:
        said.append(f"{len(left_out)} patients have slides of several truths and no figure of their own.")
    return list(dict.fromkeys(said))


# ---- what was looked at


def _numbers(found: CrossValidated) -> dict[str, int | None]:
    """Outputs by name; a risk or value has no number, all logits add to it."""
    targets = found.task.targets
    if targets.kind in ("classes", "labels"):
        return {name: number for number, name in enumerate(targets.outputs)}
    return {targets.outputs[0]: None}


def _looked(one: Trained, device: torch.device, report: Reporter) -> tuple[list[Looked], list[Ensemble]]:
    """Slides with what the models that had not seen them looked at, for what was said."""
    found, spec = one.found, one.spec
    seen: Mapping[str, int] = {
        str(found.task.items.slide[row]): at for at, row in reversed(list(enumerate(found.rows)))
    }
    slides = sorted(seen)
    if len(slides) > MOST_LOOKED:
        slides = sorted(stream(spec.seed, "looked at").choice(slides, MOST_LOOKED, replace=False).tolist())
    is_class = found.task.targets.kind in ("classes", "labels")
    looked, ensembles = [], []
    with report("look", len(slides), "slides") as progress:
        for slide in slides:
            at = seen[slide]
            ensemble = found.ensembles[found.outer.folds[found.places[at]]]
            output = int(found.told[at].argmax()) if is_class else None
            looked.append(look(ensemble, spec.model, one.bags.source, slide, output, device=device))
            ensembles.append(ensemble)
            progress.advance(1, slide)
    return looked, ensembles


def _gallery(one: Trained, looked: Sequence[Looked], told: Sequence[Prediction], seed: int) -> list[SlideMaps]:
    """The slides told worst, then slides drawn class by class."""
    by_slide = {look.maps.slide: look for look in looked}
    first: dict[str, Prediction] = {}
    for prediction in told:
        first.setdefault(prediction.slide, prediction)
    known = [prediction for slide, prediction in first.items() if slide in by_slide]
    wrong = [prediction for prediction in known if prediction.is_right is False][:N_WRONG]
    rest = [prediction for prediction in known if prediction not in wrong]
    drawn = [rest[place] for place in stream(seed, "gallery").permutation(len(rest)).tolist()]
    if one.found.task.targets.kind == "classes":
        truths = sorted({prediction.truth for prediction in rest})
        drawn = [p for truth in truths for p in [p for p in drawn if p.truth == truth][:N_A_CLASS]]
    limit = limit_of(looked)
    outputs = one.found.task.targets.outputs
    found = []
    for prediction in [*wrong, *drawn][:N_GALLERY]:
        own = by_slide[prediction.slide]
        of = outputs[0] if own.output is None else outputs[own.output]
        maps = slide_maps(one.bags, own, of, limit, prediction)
        found += [maps] if maps is not None else []
    return found


def _gallery_note(one: Trained, looked: Sequence[Looked], *, is_looked_at: bool) -> str:
    if not is_looked_at:
        return ""
    if one.bags.place.tiling is None:
        return "There are no maps: only a workspace has the slides' pixels. `histokin mil heatmap` writes tile values."
    text = (
        f"Shown are at most {N_WRONG} slides told wrong, then slides drawn by the seed, {N_A_CLASS} of a class; each "
        "is mapped by the models that had not seen it, for what they said."
    )
    if len(looked) == MOST_LOOKED:
        text += f" Tiles were ranked over {MOST_LOOKED} slides drawn by the seed."
    return text
