"""Documents of slide classifiers for the tests, on generated tissue: trained, compared, predicting, other targets."""

from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import simplejpeg
from report.documents import jpeg

from histokin.evaluate.calibration import brier, expected_calibration_error, reliability
from histokin.mil.heatmaps import (
    blend_tiles,
    contribution_limit,
    delete_tiles,
    effective_tiles,
    mean_falls,
    percentiles,
    relative_weights,
    top_of_slides,
)
from histokin.report import ComparedMeasure, ComparedRow, Confusion, PartLine, ReliabilityCurve, Value
from histokin.report.mil.curves import class_curve
from histokin.report.mil.document import (
    Calibration,
    Classifier,
    ContactSheet,
    Faithfulness,
    Heatmap,
    Judgement,
    MilDocument,
    Prediction,
    SheetTile,
    SingleModels,
    SlideMaps,
)
from histokin.report.mil.painting import ValueScale, heatmap, paint
from histokin.slides.generated import CLASSES, GeneratedSlideSpec, render_slide

DIAGNOSES = ("benign", "carcinoma", "inflammation")
TISSUE_OF = {"benign": "gland", "carcinoma": "tumour", "inflammation": "lymphoid"}
MPP, WIDTH, HEIGHT, TILE = 1.0, 448, 352, 32
N = 60
FLOORS = {"mean + logistic": 0.81, "bag size": 0.41, "min-max + logistic": 0.74}


@cache
def picture(number):
    spec = GeneratedSlideSpec(
        seed=11, width=WIDTH, height=HEIGHT, mpp=MPP, patient=number, diagnosis=DIAGNOSES[number % 3]
    )
    return render_slide(spec)


def encoded(rgb, px=None):
    if px:
        rgb = cv2.resize(rgb, (px, px), interpolation=cv2.INTER_CUBIC)
    return simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality=85, colorspace="RGB")


@cache
def tiles(number):
    """Coords (n, 2) of the tiles with tissue, and (n,) share of the tissue that the diagnosis is known by."""
    truth = picture(number)
    at = [(x, y) for y in range(0, HEIGHT - TILE + 1, TILE) for x in range(0, WIDTH - TILE + 1, TILE)]
    kept = [(x, y) for x, y in at if truth.tissue[y : y + TILE, x : x + TILE].mean() > 0.5]
    wanted = CLASSES.index(TISSUE_OF[DIAGNOSES[number % 3]])
    share = [(truth.classes[y : y + TILE, x : x + TILE] == wanted).mean() for x, y in kept]
    return np.array(kept, dtype=np.int64), np.array(share)


@cache
def looked(number):
    """Attention (n,) and signed contribution (n,) of a classifier that knows its tissue rather well."""
    coords, share = tiles(number)
    rng = np.random.default_rng(number)
    raw = 5 * share + rng.normal(size=len(coords))
    weights = np.exp(raw) / np.exp(raw).sum()
    return weights, weights * (6 * share - 1.2 + 0.5 * rng.normal(size=len(coords)))


def value(at, half=0.05, note=""):
    return Value(float(at), float(at - half), float(min(at + half, 1.0)), note)


def told_of(seed, skill):
    """(N, 3) probabilities and (N,) truth."""
    rng = np.random.default_rng(seed)
    truth = np.arange(N) % 3
    logits = rng.normal(size=(N, 3)) + skill * np.eye(3)[truth]
    e = np.exp(logits)
    return e / e.sum(axis=1, keepdims=True), truth


def rows(skills, metrics):
    found = []
    names = [*skills, *FLOORS]
    base = skills | FLOORS
    for name in names:
        at = {metric: a + b * base[name] for metric, (a, b) in metrics.items()}
        minus = {
            metric: {
                other: value(at[metric] - metrics[metric][0] - metrics[metric][1] * base[other], 0.06)
                for other in names
                if other != name
            }
            for metric in metrics
        }
        kind = "entry" if name in skills else "floor"
        values = {metric: value(at[metric], 0.05, "optimistic, 30 patients") for metric in metrics}
        found.append(ComparedRow(name, kind, values, minus if kind == "entry" else {}))
    return found


METRICS = {"macro_auc": (0.1, 0.9), "balanced_accuracy": (0.0, 0.95), "macro_f1": (-0.02, 0.95), "nll": (2.0, -1.6)}
CHANCE = {"macro_auc": 0.5, "balanced_accuracy": 1 / 3, "macro_f1": 0.31, "nll": None}


def measure(skills, **changes):
    given = {
        "name": "held-out slides",
        "protocol": {"held_out": "patient", "n_folds": 5, "n_rows": N, "n_groups": N, "n_clusters": N},
        "warnings": [],
        "metrics": list(METRICS),
        "chance": dict(CHANCE),
        "rows": rows(skills, METRICS),
    } | changes
    return ComparedMeasure(**given)


def judgements(skills):
    told, truth = told_of(1, 2.2)
    counts = [[int(((truth == a) & (told.argmax(axis=1) == b)).sum()) for b in range(3)] for a in range(3)]
    confusions = [Confusion(name, "most probable class", list(DIAGNOSES), counts) for name in skills]
    by_patient = measure(skills, name="held-out patients", protocol={})
    return [
        Judgement("slide", N, N, measure(skills), confusions),
        Judgement("patient", N, N, by_patient),
    ]


def curves(skills):
    found = []
    patients = np.array([f"P{number:02d}" for number in range(N)], dtype=object)
    for at, name in enumerate(skills):
        told, truth = told_of(1 + at, 2.2 - 0.5 * at)
        found += [
            class_curve(name, of, told[:, code], truth == code, patients, n_draws=100)
            for code, of in enumerate(DIAGNOSES)
        ]
    return found


def calibrations(skills):
    told, truth = told_of(1, 2.2)
    found = []
    for when, power in (("before", 2.5), ("after", 1.0)):
        p = told**power / (told**power).sum(axis=1, keepdims=True)
        table = reliability(p, truth, 8)
        held = [(float(c), float(a), int(n)) for c, a, n in zip(table.confidence, table.accuracy, table.n, strict=True)]
        bins = [one for one in held if one[2]]
        found.append(
            ReliabilityCurve(when, bins, expected_calibration_error(p, truth), None, brier(p, truth), None, None, None)
        )
    return [Calibration(next(iter(skills)), *found)]


def predictions():
    told, truth = told_of(1, 2.2)
    return [
        Prediction(
            f"S{number:02d}",
            dict(zip(DIAGNOSES, p.tolist(), strict=True)),
            DIAGNOSES[code],
            DIAGNOSES[p.argmax()],
            bool(p.argmax() == code),
            f"P{number:02d}",
            "AB"[number % 2],
            f"{number % 5}",
            200 + 13 * number,
            0.02 + 0.001 * number,
        )
        for number, (p, code) in enumerate(zip(told, truth, strict=True))
    ]


@cache
def slide_maps(number):
    coords, _ = tiles(number)
    weights, contribution = looked(number)
    limit = contribution_limit([looked(other)[1] for other in range(3)])
    size = {"shape": (HEIGHT // 4, WIDTH // 4), "downsample": 4.0}
    times = relative_weights(weights)
    maps = [
        heatmap(blend_tiles(percentiles(weights), coords, TILE, **size), ValueScale.percentile()),
        heatmap(blend_tiles(times.values, coords, TILE, **size), ValueScale.relative(times.low, times.high)),
        heatmap(blend_tiles(contribution, coords, TILE, **size), ValueScale.contribution(limit)),
    ]
    prediction = replace(predictions()[number], n_tiles=len(coords))
    thumbnail = encoded(picture(number).rgb)
    return SlideMaps(
        prediction,
        thumbnail,
        prediction.truth,
        maps,
        WIDTH,
        HEIGHT,
        MPP,
        effective_tiles(weights),
        n_unplaced=2 * (number == 1),
    )


def sheet(number):
    of = DIAGNOSES[number]
    scores = [looked(other)[1] * (1 if other == number else -0.2) for other in range(3)]
    coords = [tiles(other)[0] for other in range(3)]
    halves = []
    for lowest in (False, True):
        chosen = top_of_slides(scores, coords, [TILE] * 3, k=8, most=5, lowest=lowest)
        halves.append(
            [
                SheetTile(
                    encoded(picture(slide).rgb[y : y + TILE, x : x + TILE], 96),
                    f"S{slide:02d}",
                    float(scores[slide][row]),
                    int(x),
                    int(y),
                    f"P{slide:02d}",
                    DIAGNOSES[slide],
                )
                for slide, row in chosen
                for x, y in [coords[slide][row]]
            ]
        )
    return ContactSheet(of, "contribution to the logit", *halves)


def spanned(at, interval):
    return Value(at, interval.low, interval.high, interval.note)


def faithfulness(row="abmil"):
    rng = np.random.default_rng(5)
    found = []
    for slide in range(24):
        evidence = np.maximum(rng.normal(size=150), 0) ** 2 * rng.uniform(0.02, 0.06)
        scores = evidence + 0.02 * rng.normal(size=150)
        tell = lambda kept, evidence=evidence: np.array([1 - np.exp(-evidence[rows].sum() / 2) for rows in kept])  # noqa: E731
        found.append(delete_tiles(tell, scores, rng=np.random.default_rng(slide)))
    falls = mean_falls(found, [f"P{slide:02d}" for slide in range(24)])
    points = [
        (
            one.share,
            spanned(one.top, one.top_interval),
            spanned(one.random, one.random_interval),
            spanned(one.lead, one.lead_interval),
        )
        for one in falls
    ]
    return Faithfulness(row, "contribution", 24, 24, points)


def classifier(name, model="abmil", encoder="simclr-resnet18", **changes) -> Classifier:
    given: dict[str, Any] = {
        "fingerprint": "ab12cd34",
        "n_folds": 5,
        "n_inner": 3,
        "n_seeds": 3,
        "single": [SingleModels("macro_auc", 0.871, 0.012, 9), SingleModels("balanced_accuracy", 0.743, 0.021, 9)],
        "epochs": [12, 18, 33, 21, 17],
        "temperatures": [1.31, 1.12, 1.45, 1.2, 1.28],
        "settings": {"lr": 0.0002, "options": {"hidden": [512], "attention": 256}, "epochs": 100},
    } | changes
    return Classifier(name, model, encoder=encoder, **given)


@cache
def trained() -> MilDocument:
    skills = {"abmil": 0.91}
    return MilDocument(
        title="Diagnosis from slides",
        command="histokin mil train work --target diagnosis --model abmil",
        kind="classes",
        target="diagnosis",
        outputs=list(DIAGNOSES),
        classifiers=[classifier("abmil")],
        reference="abmil",
        counts={"slides": N, "patients": N, "tiles": 34_840},
        prevalence={"benign": 0.4, "carcinoma": 0.35, "inflammation": 0.25},
        protocol=[
            "Five folds of whole patients, alike in diagnosis; each is told by models that saw none of its patients.",
            "Epoch, temperature and threshold come from three inner splits of the training part.",
        ],
        judgements=judgements(skills),
        per_class=[
            PartLine("abmil", of, "recall", value(0.9 - 0.08 * at, 0.1), 20, 20, 1 / 3)
            for at, of in enumerate(DIAGNOSES)
        ],
        curves=curves(skills),
        calibrations=calibrations(skills),
        predictions=predictions(),
        gallery=[slide_maps(number) for number in range(3)],
        sheets=[sheet(number) for number in range(3)],
        faithfulness=[faithfulness()],
        gallery_note="The surest right slide of each class, drawn before anything was looked at.",
        warnings=["Fold 0-2: not calibrated, the inner splits want a temperature of 20 or beyond."],
        notes=["Two slides have no tiles and were not told of."],
        created_with={"histokin": "0.1.0"},
        digests={"bags": "ef56", "splits": "0a1b"},
    )


SKILLS = {"abmil, ours": 0.91, "clam_sb, ours": 0.9, "mean, ours": 0.84, "abmil, imagenet": 0.78, "mean, imagenet": 0.7}


@cache
def compared() -> MilDocument:
    parts = {name: tuple(name.split(", ")) for name in SKILLS}
    return replace(
        trained(),
        title="Five classifiers of diagnosis",
        classifiers=[classifier(name, *parts[name]) for name in SKILLS],
        reference="abmil, ours",
        judgements=judgements(SKILLS),
        per_class=[],
        curves=curves(dict(list(SKILLS.items())[:3])),
        calibrations=[],
        faithfulness=[faithfulness("abmil, ours")],
    )


@cache
def predicted() -> MilDocument:
    """New slides, of which no truth is known."""
    unknown = [
        replace(one, truth="", is_right=None, patient="", site="", fold="", spread=None) for one in predictions()[:12]
    ]
    return MilDocument(
        "Twelve new slides",
        "",
        "classes",
        "diagnosis",
        list(DIAGNOSES),
        [Classifier("abmil", "abmil")],
        "abmil",
        {"slides": 12},
        predictions=unknown,
        gallery=[replace(slide_maps(2), prediction=unknown[2], mpp=None, effective=None)],
    )


def _other(kind, target, outputs, metric, chance, told, **changes) -> MilDocument:
    values = {metric: value(0.71)}
    found = ComparedMeasure(
        "held-out slides", {}, [], [metric], {metric: chance}, [ComparedRow("mean", "entry", values)]
    )
    given = {"judgements": [Judgement("slide", 40, 40, found)], "predictions": told} | changes
    return MilDocument(
        f"{target} of slides",
        "",
        kind,
        target,
        outputs,
        [classifier("mean", "mean", temperatures=[])],
        "mean",
        {"slides": 40, "patients": 40},
        **given,
    )


@cache
def other_targets() -> list[MilDocument]:
    risks = [Prediction(f"S{i}", {"risk": 0.3 * i}, f"{10 * i} months, event", patient=f"P{i}") for i in range(4)]
    values = [Prediction(f"S{i}", {"value": 2.0 + i}, f"{2 + i / 2:g}", error=i / 2) for i in range(4)]
    labels = [
        Prediction(f"S{i}", {"EGFR": 0.2 * i, "KRAS": 0.5}, "KRAS", "EGFR" if i > 2 else "KRAS", i <= 2)
        for i in range(4)
    ]
    return [
        _other("survival", "months", ["risk"], "c_index", 0.5, risks),
        _other("value", "age", ["value"], "mae", None, values),
        _other(
            "labels", "mutations", ["EGFR", "KRAS"], "macro_auc", 0.5, labels, prevalence={"EGFR": 0.3, "KRAS": 0.6}
        ),
    ]


def all_kinds() -> list[MilDocument]:
    return [trained(), compared(), predicted(), *other_targets()]


def hostile(text: str) -> MilDocument:
    """A document in which every text that data can bring is `text`."""
    figure = Value(0.5, 0.4, 0.6, text)
    entry = ComparedRow(text, "entry", {text: figure}, {text: {f"{text} floor": figure}})
    floor = ComparedRow(f"{text} floor", "floor", {text: figure})
    found = ComparedMeasure(text, {text: text}, [text], [text], {text: 0.5}, [entry, floor])
    prediction = Prediction(text, {text: 0.7}, text, text, is_right=True, patient=text, site=text, fold=text, n_tiles=3)
    field = np.array([[0.0, np.nan], [50.0, 100.0]])
    image = paint(field, ValueScale.percentile())
    maps = [Heatmap("percentile", image, 0, 100), Heatmap("contribution", image, -1, 1)]
    bins = ReliabilityCurve(text, [(0.5, 0.5, 3)], 0.1, None, 0.2, None)
    patients = np.array([text, f"{text}2"], dtype=object)
    return MilDocument(
        text,
        text,
        "classes",
        text,
        [text],
        [
            Classifier(text, text, text, text, text, settings={text: {text: text}}, notes=[text]),
            Classifier(f"{text}2", f"{text}2", encoder=f"{text}2"),
        ],
        text,
        {text: 2},
        {text: 1.0},
        [text],
        [Judgement("slide", 2, 2, found, [Confusion(text, text, [text], [[1]])])],
        [PartLine(text, text, "recall", figure, 2, 2, 0.5)],
        [class_curve(text, text, np.array([0.2, 0.7]), np.array([False, True]), patients)],
        [Calibration(text, bins, bins)],
        [prediction],
        [SlideMaps(prediction, jpeg(), text, maps, 100, 80, 0.5, 2.0, 1)],
        [ContactSheet(text, text, [SheetTile(jpeg(), text, 0.5, 1, 2, text, text)], [SheetTile(jpeg(1), text, -0.5)])],
        [Faithfulness(text, text, 2, 2, [(0.05, figure, figure, figure)])],
        text,
        [text],
        [text],
        {text: text},
        {text: text},
    )
