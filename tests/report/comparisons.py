"""Comparison documents for the tests."""

from dataclasses import replace
from typing import Any

from report.documents import jpeg

from histokin.report import (
    ComparedEntry,
    ComparedMeasure,
    ComparedRow,
    ComparedTask,
    ComparisonDocument,
    Lookup,
    Picture,
    Value,
)


def entry(name: str, **changes) -> ComparedEntry:
    given = {
        "recipe": "simclr",
        "settings": [],
        "train": ["A", "B"],
        "at_most": None,
        "mpp": None,
        "without": [],
        "against": [],
        "method": "simclr",
        "n_tiles": 1000,
        "fingerprint": f"feed{name}",
        "steps": 40,
        "views": 5120,
        "batch": 64,
        "losses": [(float(step), 5 - step / 20) for step in range(1, 41)],
        "looks": [{"step": s, "rank": 10.0 + s, "spread": 0.5, "nearest": 0.4 + s / 100} for s in (10, 20, 40)],
        "alarms": [],
        "notes": [],
        "recipe_text": "method: simclr\nseed: 0\n",
    } | changes
    return ComparedEntry(name=name, **given)


def row(name: str, value: float | None, kind: Any = "entry", metric: Any = "balanced_accuracy", **minus) -> ComparedRow:
    """`minus` names another row and gives (low, high) of the difference, or None for one without an interval."""
    differences = {
        other: Value(None, note="5 patients")
        if ends is None
        else Value((ends[0] + ends[1]) / 2, *ends, note="optimistic, 9 patients")
        for other, ends in minus.items()
    }
    values = {metric: Value(value, (value or 0) - 0.1, (value or 0) + 0.1)}
    return ComparedRow(name, kind, values, {metric: differences})


ROWS = [
    row("good", 0.8, random=(0.1, 0.3), texture=(0.05, 0.2), half=(-0.02, 0.1), bad=(0.2, 0.5)),
    row("half", 0.75, random=(0.05, 0.2), texture=(-0.05, 0.2), good=(-0.1, 0.02), bad=(0.1, 0.4)),
    row("bad", 0.4, random=(-0.2, 0.1), texture=(-0.4, -0.1), good=(-0.5, -0.2), half=(-0.4, -0.1)),
    row("random", 0.5, "floor"),
    row("texture", 0.7, "floor"),
]


def measure(rows=None, **changes) -> ComparedMeasure:
    given = {
        "name": "linear probe",
        "protocol": {
            "held_out": "patient",
            "split": "leave one out",
            "n_folds": 9,
            "n_rows": 700,
            "n_groups": 9,
            "cluster": "patient",
            "n_clusters": 9,
        },
        "warnings": ["good: 3 of 9 folds took a setting at an end of the grid."],
        "metrics": ["balanced_accuracy"],
        "chance": {"balanced_accuracy": 0.5},
    } | changes
    return ComparedMeasure(rows=ROWS if rows is None else rows, **given)


def lookups(numeric=False) -> list[Lookup]:
    def picture(seed, label, is_right=None):
        return Picture(
            jpeg(seed),
            f"slide-{seed}",
            f"P{seed}",
            "" if numeric else label,
            None,
            None if numeric else is_right,
            "0.2468" if numeric else "",
        )

    hits = [picture(1, "benign", is_right=True), picture(2, "malignant", is_right=False)]
    return [Lookup(picture(0, "benign"), [("good", hits), ("texture", hits[::-1])])]


def task(**changes) -> ComparedTask:
    given = {
        "title": "T: label, leaving the patient out",
        "subject": "T: label, leaving the patient out",
        "mpp": None,
        "kind": "classes",
        "column": "label",
        "leave_out": "patient",
        "only": [],
        "n_tiles": 718,
        "n_judged": 700,
        "twins": {"good": "random", "half": "random", "bad": "random"},
        "measures": [measure()],
        "lookups": lookups(),
        "lookup_note": "Drawn at random (seed 0).",
    } | changes
    return ComparedTask(**given)


def full(**changes) -> ComparisonDocument:
    given = {
        "title": "Three encoders",
        "command": "histokin compare T --out C",
        "budget": ["run.steps=40"],
        "seed": 7,
        "plan_text": "tasks:\n- work: T\n",
        "created_with": {"histokin": "0.1.0"},
        "entries": [entry("good"), entry("half", against=["good"]), entry("bad", recipe="byol", alarms=["collapsed"])],
        "tasks": [task()],
    } | changes
    return ComparisonDocument(**given)


def hostile(text: str) -> ComparisonDocument:
    """A document in which every text that data can bring is `text`."""
    figure = Value(0.5, 0.4, 0.6, note=text)
    rows = [
        ComparedRow(text, "entry", {text: figure}, {text: {text: figure}}),
        ComparedRow(text, "floor", {text: figure}),
    ]
    measured = ComparedMeasure(text, {text: {text: [text]}}, [text], [text], {text: 0.1}, rows)
    picture = Picture(jpeg(), text, text, text, None, is_right=True, caption=text)
    one = entry(
        text,
        recipe=text,
        settings=[text],
        train=[text],
        without=[text],
        against=[text],
        method=text,
        fingerprint=text,
        alarms=[text],
        notes=[text],
        recipe_text=text,
        at_most=10,
        n_tiles=10,
    )
    other = replace(one, at_most=20, n_tiles=20)
    alone = replace(one, train=[text, text])
    return ComparisonDocument(
        title=text,
        command=text,
        budget=[text],
        seed=0,
        plan_text=text,
        created_with={text: text},
        entries=[one, other, alone],
        tasks=[
            ComparedTask(
                text,
                text,
                None,
                "classes",
                text,
                text,
                [text],
                1,
                1,
                {text: text},
                [measured],
                [text],
                [Lookup(picture, [(text, [picture])])],
                text,
            )
        ],
    )
