"""From what `evaluate` measured to what a page shows: every row's figures, and each encoder minus every other row."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from histokin.artefacts import plain
from histokin.evaluate import Interval
from histokin.report import ComparedMeasure, ComparedRow, Value

HEADLINES = {
    "linear probe": ("balanced_accuracy", "macro_f1"),
    "ridge probe": ("spearman_within", "r2"),
    "retrieval": ("acc@1", "mmv@5"),
    "distance ratio": ("addr",),
}
"""Ways of judging, and the metrics of each that a comparison's tables show."""


class Measured(Protocol):
    """What every comparison of `evaluate` gives: probes, retrieval, distance ratios."""

    @property
    def protocol(self) -> dict[str, Any]: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...
    def against(self, reference: str) -> Sequence[Any]:
        """All figures, the others compared with `reference`."""
        ...


def side_by_side(
    name: str, found: Measured, entries: Sequence[str], metrics: Sequence[str] | None = None
) -> dict[str, Any]:
    """One way of judging: every row's figures, and each entry's differences to every other row."""
    rows: dict[str, dict[str, Any]] = {}
    for entry in entries:
        for figure in found.against(entry):
            if metrics is not None and figure.metric not in metrics:
                continue
            row = rows.setdefault(figure.name, {"name": figure.name, "kind": figure.kind, "figures": {}})
            of = row["figures"].setdefault(figure.metric, {"minus": {}})
            of |= {"value": figure.value, "interval": figure.interval, "chance": figure.chance}
            if figure.delta is not None:
                main = rows.setdefault(entry, {"name": entry, "kind": "encoder", "figures": {}})
                main["figures"].setdefault(figure.metric, {"minus": {}})["minus"][figure.name] = figure.delta
    return {
        "name": name,
        "protocol": found.protocol,
        "warnings": found.warnings,
        "rows": list(rows.values()),
    }


def shown_measure(measure: Mapping[str, Any], metrics: Sequence[str]) -> ComparedMeasure:
    """What `side_by_side` found, as plain data, in the form a page takes; of the metrics those that there are."""
    present = {metric for row in measure["rows"] for metric in row["figures"]}
    metrics = [metric for metric in metrics if metric in present]
    chance: dict[str, float | None] = {}
    rows = []
    for row in measure["rows"]:
        shown = {metric: row["figures"][metric] for metric in metrics if metric in row["figures"]}
        chance |= {metric: figure["chance"] for metric, figure in shown.items()}
        minus = {
            metric: {other: shown_value(difference) for other, difference in sorted(figure["minus"].items())}
            for metric, figure in shown.items()
        }
        kind = "floor" if row["kind"] == "floor" else "entry"
        rows.append(ComparedRow(row["name"], kind, {m: shown_value(f) for m, f in shown.items()}, minus))
    rows.sort(key=lambda row: row.kind == "floor")
    return ComparedMeasure(
        measure["name"], dict(sorted(measure["protocol"].items())), list(measure["warnings"]), metrics, chance, rows
    )


def measure_of(name: str, found: Measured, entries: Sequence[str], metrics: Sequence[str]) -> ComparedMeasure:
    """Both at once."""
    return shown_measure(plain(side_by_side(name, found, entries, metrics)), metrics)


def shown_value(found: Mapping[str, Any]) -> Value:
    """A value with its interval, from plain data."""
    interval = found["interval"]
    return Value(found["value"], interval["low"], interval["high"], interval["note"], found.get("p_holm"))


def value_with(value: float, interval: Interval) -> Value:
    """A value with its interval."""
    return shown_value(plain({"value": value, "interval": interval}))
