"""Protocols that fit something on frozen vectors: probes and few-shot classification, whole patients held out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from histokin.artefacts import plain
from histokin.errors import EvaluationError
from histokin.evaluate import (
    LinearProbe,
    NeighbourProbe,
    Probed,
    RidgeProbe,
    Split,
    SVMProbe,
    certainty,
    compare_probes,
    confusion_counts,
    few_shot,
    kather2016,
    probe_splits,
)
from histokin.evaluate.probes import FewShot
from histokin.pipeline.evaluation.case import Case, encoders_and_floors, numbers_of
from histokin.pipeline.evaluation.given_splits import clam_files, read_splits
from histokin.pipeline.measures import measure_of, shown_value, value_with
from histokin.report import (
    ComparedMeasure,
    ComparedRow,
    Confusion,
    PartLine,
    Quantity,
    ReliabilityCurve,
    ShotCurve,
    Value,
)

KATHER_CLASSES = {"tumor", "stroma", "complex", "lympho", "debris", "mucosa", "adipose", "empty"}
MOST_FITTED = 5_000
"""Labelled rows that probes are given; of more, equally many a patient. Their cost grows with the square and beyond."""
CLASS_METRICS = ("balanced_accuracy", "macro_f1", "macro_auc", "accuracy", "nll", "ece")
VALUE_METRICS = ("spearman_within", "r2", "spearman")


def linear(case: Case) -> dict[str, Any]:
    """Logistic regression, with its calibration."""
    found = _probed(case, LinearProbe())
    chapter = _chapter(case, "linear probe", found)
    if case.level == "slide":
        chapter["tables"] |= clam_files(case.columns.slide[found.task.rows].tolist(), found.task.fold)
    chapter["reliability"] = [curve for name in case.encoders for curve in _reliability(found, name)]
    return chapter


def knn(case: Case) -> dict[str, Any]:
    """Weighted nearest neighbours at three k."""
    chapters = {k: _probed(case, NeighbourProbe(k=k)) for k in (20, 10, 5)}
    chapter = _chapter(case, "20 nearest", chapters[20])
    for k in (10, 5):
        other = _chapter(case, f"{k} nearest", chapters[k])
        chapter["measures"] += other["measures"]
        chapter["tables"] |= other["tables"]
    return chapter


def given_splits(case: Case) -> dict[str, Any]:
    """A linear probe on the splits that the user brought."""
    path = case.table.sources.splits
    if path is None:
        raise EvaluationError("no splits are given", "evaluation", "Name CLAM's folder of splits with --splits.")
    table = read_splits(path, case.table.slides)
    found = probe_splits(
        case.encoders, case.texts, table, items=case.columns.slide, floors=case.floors, progress=case.report
    )
    metrics = _ordered(list(dict.fromkeys(figure.metric for figure in found.figures)), CLASS_METRICS)
    spreads = [
        Quantity(
            f"{metric}, sd over {len(next(iter(found.scores)).values)} splits",
            "how much the luck of splitting matters; no interval",
            {one.name: one.sd for one in found.scores if one.metric == metric},
        )
        for metric in metrics
    ]
    rows = [_located(case, row) for name in case.encoders for row in found.prediction_rows(name)]
    return {
        "measures": [measure_of("linear probe, given splits", found, list(case.encoders), metrics)],
        "quantities": spreads,
        "tables": {f"predictions-given-splits-{case.level}.csv": rows},
    }


def svm(case: Case) -> dict[str, Any]:
    """A linear and an RBF support vector machine."""
    found = _chapter(case, "linear SVM", _probed(case, SVMProbe(kernel="linear")))
    other = _chapter(case, "RBF SVM", _probed(case, SVMProbe(kernel="rbf")))
    joined = {"measures": found["measures"] + other["measures"], "tables": {**found["tables"], **other["tables"]}}
    return {**found, **joined}


def ridge(case: Case) -> dict[str, Any]:
    """Ridge regression of numbers; ranks are compared inside slides where tiles are asked."""
    values = numbers_of(case.texts)
    within = case.columns.slide if case.level == "tile" else None
    found = compare_probes(
        case.encoders,
        np.full(len(case.texts), np.nan) if values is None else values,
        case.groups,
        probe=RidgeProbe(),
        within=within,
        split=Split(unit=case.spec.leave_out),
        **case.comparing(),
    )
    return _chapter(case, "ridge probe", found)


def few_shots(case: Case) -> dict[str, Any]:
    """SimpleShot over drawn handfuls, patients apart."""
    found = few_shot(
        encoders_and_floors(case),
        case.texts,
        case.columns.patient,
        ids=case.names,
        seed=case.spec.seed,
        progress=case.report,
    )
    metric = "balanced_accuracy"
    own = [figure for figure in found.figures if figure.metric == metric]
    curves = []
    for name in dict.fromkeys(figure.name for figure in own):
        points = [(f.shots, f.median, f.low, f.high) for f in own if f.name == name]
        curves.append(ShotCurve(name, "entry" if name in case.encoders else "floor", points))
    return {
        "measures": [_shot_measure(found, set(case.encoders))],
        "shots": curves,
        "shots_chance": own[0].chance,
        "notes": [
            *(
                []
                if case.spec.leave_out == "patient"
                else ["Support and queries never share a patient, as always here."]
            ),
            "Curves show the median and 5 to 95 % of episodes, which is no interval; the table has that of patients.",
        ],
    }


def kather(case: Case) -> dict[str, Any]:
    """The published protocol of Kather-2016, beside two honest ones."""
    strange = {str(text) for text in case.texts if text} - KATHER_CLASSES
    if strange:
        raise EvaluationError(
            f"{case.column} has classes that are not of Kather-2016, such as {min(strange)}",
            "evaluation",
            f"Its tiles are of {', '.join(sorted(KATHER_CLASSES))}; for other data take the protocols svm and linear.",
        )
    found = kather2016(
        case.encoders,
        case.texts,
        case.columns.picture,
        tiles=case.names,
        floors=case.floors,
        seed=case.spec.seed,
        progress=case.report,
    )
    metrics = _ordered(list(dict.fromkeys(figure.metric for figure in found.figures)), ("accuracy_source_out",))
    published = [
        f"Published: {line.what}, {line.accuracy:.2%} ({line.folds}; {line.source})." for line in found.published
    ]
    return {"measures": [measure_of("kather2016", found, list(case.encoders), metrics)], "notes": published}


def _probed(case: Case, probe: LinearProbe | NeighbourProbe | SVMProbe) -> Probed:
    return compare_probes(
        case.encoders,
        case.texts,
        case.groups,
        probe=probe,
        split=Split(unit=case.spec.leave_out),
        **case.comparing(),
    )


def _chapter(case: Case, name: str, found: Probed) -> dict[str, Any]:
    metrics = _ordered(list(dict.fromkeys(figure.metric for figure in found.figures)), CLASS_METRICS + VALUE_METRICS)
    chapter: dict[str, Any] = {
        "measures": [measure_of(name, found, list(case.encoders), metrics)],
        "per_class": _per_class(found),
        "per_group": _per_group(found),
        "notes": _shared_patients(case),
    }
    file = f"predictions-{name.replace(' ', '-').lower()}-{case.level}.csv"
    chapter["tables"] = {file: [_located(case, row) for one in case.encoders for row in found.prediction_rows(one)]}
    if found.task.classes:
        classes = list(found.task.classes)
        chapter["confusions"] = [
            Confusion(row, name, classes, confusion_counts(found, row).tolist()) for row in case.encoders
        ]
    return chapter


def _located(case: Case, row: dict[str, Any]) -> dict[str, Any]:
    """A prediction with the slide (and tile) it is about in place of a row's number."""
    number = row.pop("row")
    where: dict[str, Any] = {"slide": case.columns.slide[number], "patient": case.columns.patient[number]}
    if case.level == "tile":
        where["tile_id"] = int(case.table.rows.tile_id[number])
    return {"encoder": row.pop("name"), **where, **row}


def _shared_patients(case: Case) -> list[str]:
    """What must be said where less than the patient is held out."""
    unit, columns = case.spec.leave_out, case.columns
    if unit not in ("slide", "region") or len(set(columns.units(unit))) == len(set(columns.patient)):
        return []
    return [f"Only {unit}s are held out: the patient may be among those fitted on. Not about new patients."]


def _ordered(metrics: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those that are best known first."""
    return [m for m in wanted if m in metrics] + [m for m in metrics if m not in wanted]


def _per_class(found: Probed) -> list[PartLine]:
    lines = []
    for one in found.per_class:
        place = {"row": one.name, "part": one.label, "n": one.n_rows, "n_patients": one.n_clusters}
        lines.append(PartLine(metric="recall", value=value_with(one.recall, one.interval), **place))
        rest = {"precision": one.precision, "f1": one.f1, "auc": one.auc}
        lines += [PartLine(metric=metric, value=_number(value), **place) for metric, value in rest.items()]
    return lines


def _per_group(found: Probed) -> list[PartLine]:
    return [
        PartLine(row=one.name, part=one.group, metric=metric, value=_number(value), n=one.n_rows)
        for one in found.per_group
        for metric, value in one.values.items()
    ]


def _number(value: float) -> Value:
    return Value(plain(value))


def _reliability(found: Probed, name: str) -> list[ReliabilityCurve]:
    known = certainty(found, name)
    if known is None:
        return []
    bins = zip(known.bins.confidence.tolist(), known.bins.accuracy.tolist(), known.bins.n.tolist(), strict=True)
    return [
        ReliabilityCurve(
            row=name,
            bins=[(sure, right, n) for sure, right, n in bins if n],
            ece=known.ece,
            ace=known.ace,
            brier=known.brier,
            nll=known.nll,
            tempered_ece=known.ece_tempered,
            temperature=known.temperature,
        )
    ]


def _shot_measure(found: FewShot, encoders: set[str]) -> ComparedMeasure:
    """The patients' intervals at one number of shots; only the reference is held against the others."""
    rows: dict[str, ComparedRow] = {}
    chance: dict[str, float | None] = {}
    metrics = list(dict.fromkeys(figure.metric for figure in found.intervals))
    for figure in found.intervals:
        row = rows.setdefault(
            figure.name, ComparedRow(figure.name, "entry" if figure.name in encoders else "floor", {}, {})
        )
        row.values[figure.metric] = value_with(figure.value, figure.interval)
        chance[figure.metric] = figure.chance
        if figure.delta is not None:
            main = rows[found.reference]
            main.minus.setdefault(figure.metric, {})[figure.name] = shown_value(plain(figure.delta))
    ordered = sorted(rows.values(), key=lambda row: row.kind == "floor")
    name = f"few-shot, {found.interval_shots} a class"
    return ComparedMeasure(name, plain(found.protocol), list(found.warnings), metrics, chance, ordered)
