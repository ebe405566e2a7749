"""Evaluation documents for the tests: a rich one, one encoder alone, and hostile texts."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from report.documents import jpeg

from histokin.report import (
    Chapter,
    ComparedMeasure,
    ComparedRow,
    Confusion,
    EvaluationDocument,
    Lookup,
    MapSection,
    PartLine,
    Picture,
    Quantity,
    ReliabilityCurve,
    ShotCurve,
    StoreCard,
    Value,
)

ENCODERS = ["UNI", "ResNet-50 (ImageNet)", "my simclr, 40k steps"]
FLOORS = ["random ViT-L", "colour", "histogram", "texture"]
CLASSES = ["tumour", "stroma, complex", "lympho", "débris & <mucus>", "adipose", "", "正常粘膜", "empty / background"]
SHARES = [0.31, 0.22, 0.15, 0.12, 0.1, 0.05, 0.03, 0.02]
TWINS = {"UNI": "random ViT-L"}
SKILL = dict(zip([*ENCODERS, *FLOORS], [0.86, 0.74, 0.71, 0.42, 0.48, 0.55, 0.6], strict=True))


def value(at: float, half: float = 0.05, note: str = "") -> Value:
    return Value(round(at, 6), round(at - half, 6), round(min(at + half, max(at, 0.999)), 6), note)


def rows(metrics: dict[str, tuple[float, float]], half: float = 0.05) -> list[ComparedRow]:
    """Every encoder and floor, each metric `offset + slope * skill`, encoders minus every other row."""
    found = []
    figures = {name: {m: a + b * skill for m, (a, b) in metrics.items()} for name, skill in SKILL.items()}
    for name in SKILL:
        minus = {}
        if name in ENCODERS:
            minus = {
                metric: {
                    other: replace(value(figures[name][metric] - figures[other][metric], half * 1.2), p=0.0123)
                    for other in SKILL
                    if other != name
                }
                for metric in metrics
            }
        kind = "entry" if name in ENCODERS else "floor"
        found.append(ComparedRow(name, kind, {m: value(v, half) for m, v in figures[name].items()}, minus))
    return found


def measure(name: str, metrics: dict[str, tuple[float, float]], **changes: Any) -> ComparedMeasure:
    given = {
        "protocol": {"held_out": "patient", "n_folds": 5, "n_rows": 812, "n_groups": 40, "grid": {"C": [0.01, 1.0]}},
        "warnings": [],
        "metrics": list(metrics),
        "chance": dict.fromkeys(metrics, 0.125),
        "rows": rows(metrics),
    } | changes
    return ComparedMeasure(name=name, **given)


def parts(names: list[str], metric: str, *, floors: bool = True, patients: bool = True) -> list[PartLine]:
    lines = []
    for row in [*ENCODERS, *(FLOORS if floors else [])]:
        for index, part in enumerate(names):
            at = min(0.99, max(0.01, SKILL[row] + 0.12 * math.sin(2.1 * index) - 0.02 * index))
            found = Value(None, note="2 patients") if index == 6 else value(at, 0.08)
            lines.append(PartLine(row, part, metric, found, 240 - 30 * index % 230, 12 if patients else None, 0.125))
    return lines


def confusion(row: str, classes: list[str], *, has_none: bool, seed: int = 0) -> Confusion:
    rng = np.random.default_rng(seed)
    counts = []
    for index in range(len(classes)):
        line = rng.poisson(4, len(classes) + has_none)
        line[index] += int(300 * SKILL[row] / (1 + index))
        counts.append([int(n) for n in line])
    return Confusion(row, "majority of the 5 nearest", classes, counts)


def reliability(row: str, shift: float) -> ReliabilityCurve:
    bins = [(0.15 + 0.1 * i, min(1.0, max(0.0, 0.1 + 0.1 * i - shift * i / 9)), 10 + 7 * i * i) for i in range(9)]
    return ReliabilityCurve(row, bins, 0.083, 0.081, 0.412, 0.913, 0.031 if shift else None, 1.7 if shift else None)


def shots(row: str, kind: Any) -> ShotCurve:
    points = []
    for step in range(6):
        middle = SKILL[row] - 0.4 * (SKILL[row] - 0.125) * 0.6**step
        points.append((2**step, middle, middle - 0.12 * 0.7**step, middle + 0.1 * 0.7**step))
    return ShotCurve(row, kind, points)


def lookups() -> list[Lookup]:
    def picture(seed, label, is_right=None):
        return Picture(jpeg(seed), f"slide-{seed}", f"P{seed}", label, None, is_right)

    hits = [picture(i, CLASSES[i % 2], is_right=i % 2 == 0) for i in range(1, 6)]
    return [Lookup(picture(0, "tumour"), [("UNI", hits), (ENCODERS[1], hits[::-1]), ("texture", [])])]


def embedding_map(seed: int, classes: list[str], n: int = 150) -> MapSection:
    rng = np.random.default_rng(seed)
    at = rng.integers(0, len(classes), n)
    centres = rng.normal(size=(2, len(classes)), scale=2.5)
    x, y = (centres[:, at] + rng.normal(size=(2, n))).tolist()
    names = [classes[i] for i in at]
    return MapSection(
        "PCA", x, y, names, [f"s{i % 9}" for i in range(n)], [f"P{i % 5}" for i in range(n)], None, "31 %"
    )


def probe_chapter(**changes: Any) -> Chapter:
    given = {
        "protocol": "probe",
        "title": "Tiles: linear probe of label",
        "question": "Can a straight cut through the embedding name the tissue of patients it has not seen?",
        "caution": "A linear probe cannot show what a non-linear classifier would reach.",
        "level": "tile",
        "column": "label",
        "counts": {"queries": 812, "patients": 40, "classes": 8},
        "prevalence": dict(zip(CLASSES, SHARES, strict=True)),
        "measures": [
            measure(
                "linear probe",
                {
                    "balanced_accuracy": (0.0, 1.0),
                    "macro_f1": (-0.03, 1.0),
                    "macro_auc": (0.4, 0.6),
                    "nll": (2.0, -1.7),
                },
                warnings=["UNI: 3 of 5 folds took a setting at an end of the grid."],
                chance={"balanced_accuracy": 0.125, "macro_f1": 0.06, "macro_auc": 0.5, "nll": None},
            ),
            measure(
                "kNN", {"balanced_accuracy": (-0.05, 1.0)}, rows=rows({"balanced_accuracy": (-0.05, 1), "p@5": (0, 1)})
            ),
        ],
        "per_class": parts(CLASSES, "recall") + parts(CLASSES, "precision", floors=False),
        "per_group": parts([f"patient-{i:02}" for i in range(20)], "accuracy", floors=False, patients=False),
        "confusions": [confusion(name, CLASSES, has_none=True, seed=i) for i, name in enumerate(ENCODERS)],
        "reliability": [reliability("UNI", 0.0), reliability(ENCODERS[1], 0.2), reliability(ENCODERS[2], 0.35)],
        "controls": ["Shuffled labels fall to chance: 0.124 [0.101, 0.149], expected 0.125."],
        "notes": ["2 classes occur in fewer than 5 patients; their recalls rest on few."],
        "twins": TWINS,
    } | changes
    return Chapter(**given)


def chapters() -> list[Chapter]:
    retrieval = Chapter(
        "retrieval",
        "Tiles: retrieval by label",
        "Are the nearest tiles of other patients of the same tissue?",
        "Acc@k depends on how many tiles may answer: it does not compare across cohorts.",
        "tile",
        "label",
        {"queries": 1, "patients": 1, "classes": 2},
        {"tumour": 0.7, "stroma, complex": 0.3},
        [
            measure(
                "retrieval",
                {"acc@1": (0.1, 1.0), "mmv@5": (0.12, 1.0)},
                chance={"acc@1": 0.58, "mmv@5": None},
                protocol={"leave_out": "patient", "n_queries": 1, "cluster": "patient", "n_clusters": 1},
            )
        ],
        confusions=[confusion("UNI", ["tumour", "stroma, complex"], has_none=False)],
        lookups=lookups(),
        lookup_note="Drawn at random (seed 7).",
        twins=TWINS,
    )
    few = Chapter(
        "few-shot",
        "Tiles: few-shot classification of label",
        "How good is it with a handful of labelled tiles?",
        "",
        "tile",
        "label",
        {"queries": 812, "patients": 40},
        dict(zip(CLASSES, SHARES, strict=True)),
        shots=[shots(name, "entry") for name in ENCODERS] + [shots(name, "floor") for name in FLOORS],
        shots_chance=0.125,
    )
    ridge = Chapter(
        "ridge",
        "Slides: ridge regression of age",
        "Does the embedding know a number of the patient?",
        "A correlation over sites may be the scanner's.",
        "slide",
        "age",
        {"queries": 40, "patients": 40},
        measures=[
            measure(
                "ridge probe",
                {"spearman": (-0.5, 1.0), "r2": (-1.2, 1.5)},
                chance={"spearman": 0.0, "r2": 0.0},
                rows=rows({"spearman": (-0.5, 1.0), "r2": (-1.2, 1.5)}, half=0.3),
                protocol={"held_out": "patient", "n_folds": 5, "n_rows": 40, "n_groups": 40, "alpha": [0.1, 1.0]},
            )
        ],
        twins=TWINS,
    )
    free = Chapter(
        "label-free",
        "Tiles: quality without labels",
        "Is the space used, or has it collapsed?",
        "A high rank does not make an embedding useful.",
        "tile",
        "",
        {"tiles": 8264, "slides": 40},
        quantities=[
            Quantity(
                "RankMe", "dimensions in use", {"UNI": 412.7, ENCODERS[1]: 188.25, ENCODERS[2]: None, "colour": 4.2}
            ),
            Quantity("uniformity", "lower is more even", {name: -3.1 + s for name, s in SKILL.items()}),
        ],
    )
    leaks = Chapter("leaks", "Tiles: leaks", "", "", "tile", "", {"tiles": 9}, notes=["Nothing was found."])
    empty = Chapter("sites", "Slides: retrieval by site", "Does the site shine through?", "", "slide", "site", {})
    return [probe_chapter(), retrieval, few, ridge, free, leaks, empty]


def full(**changes: Any) -> EvaluationDocument:
    given = {
        "title": "Colorectal tissue",
        "command": "histokin evaluate UNI RESNET MINE --label label --out E",
        "seed": 7,
        "leave_out": "patient",
        "reference": "UNI",
        "stores": [
            StoreCard(name, "TRIDENT", 40, 8264, 1024, "float16", f"feed{i}") for i, name in enumerate(ENCODERS)
        ],
        "counts": {"slides": 40, "patients": 40, "tiles": 8264},
        "floors": FLOORS,
        "chapters": chapters(),
        "refusals": [("robustness", "There is one site. Name a column with two or more: --site COLUMN.")],
        "maps": [(name, embedding_map(i, CLASSES)) for i, name in enumerate(ENCODERS)],
        "notes": ["UNI was trained on slides of TCGA, as these are: transductive."],
        "created_with": {"histokin": "0.1.0", "numpy": "2.0"},
        "more": {"max_queries": 20000, "splits": {"k": 5}},
    } | changes
    return EvaluationDocument(**given)


def alone() -> EvaluationDocument:
    """One encoder without floors, patients or labels beyond one chapter."""
    given = {"acc@1": value(0.7), "mmv@5": Value(None, note="n/a (3 patients)")}
    chapter = Chapter(
        "retrieval",
        "Tiles: retrieval by label",
        "Are the nearest tiles of other slides of the same tissue?",
        "One cohort.",
        "tile",
        "label",
        {"queries": 50},
        {"a": 0.5, "b": 0.5},
        [
            ComparedMeasure(
                "retrieval", {}, [], list(given), {"acc@1": 0.5, "mmv@5": None}, [ComparedRow("mine", "entry", given)]
            )
        ],
    )
    return EvaluationDocument(
        "Mine",
        "",
        0,
        "slide",
        "mine",
        [StoreCard("mine", "CLAM", 3, 50, 512, "float32", "")],
        {"slides": 3, "tiles": 50},
        [],
        [chapter],
        notes=["Patients are not known: the slide is left out. There are no floors: the tiles' pixels were not given."],
    )


def hostile(text: str) -> EvaluationDocument:
    """A document in which every text that data can bring is `text`."""
    figure = Value(0.5, 0.4, 0.6, note=text)
    found = [
        ComparedRow(text, "entry", {text: figure, "r2": figure}, {text: {text: figure}}),
        ComparedRow(f"{text}2", "entry", {text: figure}, {text: {text: figure}}),
        ComparedRow(text, "floor", {text: figure}),
    ]
    line = PartLine(text, text, text, figure, 1, 1, 0.5)
    picture = Picture(jpeg(), text, text, text, None, is_right=True, caption=text)
    chapter = Chapter(
        text,
        text,
        text,
        text,
        "tile",
        text,
        {text: 2},
        {text: 1.0},
        [ComparedMeasure(text, {text: {text: [text]}}, [text], [text, "absent"], {text: 0.1}, found)],
        [line],
        [line],
        [Confusion(text, text, [text, "b"], [[1, 2, 3], [4, 5, 6]])],
        [ReliabilityCurve(text, [(0.5, 0.5, 3)], 0.1, None, None, None)],
        [ShotCurve(text, "entry", [(1, 0.5, 0.4, 0.6), (2, 0.6, 0.5, 0.7)])],
        0.5,
        [Quantity(text, text, {text: 1.0})],
        [text],
        [text],
        [Lookup(picture, [(text, [picture])])],
        text,
        {text: text},
    )
    return EvaluationDocument(
        text,
        text,
        0,
        text,
        text,
        [StoreCard(text, text, 1, 1, 1, text, text)],
        {text: 2},
        [text],
        [chapter, Chapter(text, text, text, text, "slide", text, {})],
        [(text, text)],
        [(text, MapSection("PCA", [0.0, 1.0], [0.0, 1.0], [text, ""], [text, text], [text, text], None, text))],
        [text],
        {text: text},
        {text: {text: text}},
    )
