"""What an evaluation hands on: figures that are never without protocol, interval, chance, prevalence and n."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from histokin.artefacts import plain
from histokin.evaluate.comparison import Score, differences, place_of
from histokin.evaluate.intervals import Difference, Interval, patient_weights
from histokin.evaluate.items import Items, Task
from histokin.evaluate.retrieval import Retrieved


@dataclass(frozen=True, slots=True)
class Result:
    """One metric of one encoder or floor.

    Attributes:
        name: the encoder's or floor's name.
        kind: encoder or floor.
        level: tile or slide.
        strategy: how slides were ranked, "" for tiles.
        distance: cosine, or euclidean (after z-scoring where stated).
        metric: such as acc@1, mmv@5, p@5, map@5, macro_f1@1.
        vote: the vote rule, "" where nothing is voted.
        leave_out: what was left out of the candidates together with the query.
        value: mean over queries (macro_f1: over classes).
        interval: of `value`.
        macro_classes: mean of class means.
        macro_classes_interval: of it.
        macro_patients: mean of patient means; NaN for macro_f1.
        n_queries: asked.
        n_patients: they belong to.
        n_unanswerable: queries whose class no candidate had; they count as misses.
        prevalence: share of each class among the queries.
        chance: expected of a random order of the allowed candidates.
        null: mean over 200 exchanges of whole patients' labels; None where patients carry several labels.
        delta: the reference encoder minus this row; None for the reference itself.
    """

    name: str
    kind: Literal["encoder", "floor"]
    level: Literal["tile", "slide"]
    strategy: str
    distance: str
    metric: str
    vote: str
    leave_out: str
    value: float
    interval: Interval
    macro_classes: float
    macro_classes_interval: Interval
    macro_patients: float
    n_queries: int
    n_patients: int
    n_unanswerable: int
    prevalence: dict[str, float]
    chance: float
    null: float | None
    delta: Difference | None

    @property
    def row(self) -> str:
        """Name and strategy, as tables show them."""
        return f"{self.name} ({self.strategy})" if self.strategy else self.name


@dataclass(frozen=True, slots=True)
class ClassResult:
    """One metric of one encoder or floor over the queries of one class."""

    name: str
    strategy: str
    metric: str
    label: str
    value: float
    interval: Interval
    n_queries: int
    n_patients: int
    chance: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All results of one protocol.

    Attributes:
        results: row by row, metric by metric.
        per_class: the headline metrics by class.
        protocol: everything needed to repeat it.
        warnings: sentences a reader must see beside the figures.
        reference: name of the main encoder.
        scores: by name and strategy, what each row scored, metric by metric.
        frames: by row name, the frames it was computed from (several for a floor of several seeds).
        items: all items, also unlabelled ones.
        task: rows, groups and queries.
    """

    results: tuple[Result, ...]
    per_class: tuple[ClassResult, ...]
    protocol: dict[str, Any]
    warnings: tuple[str, ...]
    reference: str
    scores: Mapping[tuple[str, str], tuple[Score, ...]]
    frames: Mapping[str, tuple[Retrieved, ...]]
    items: Items
    task: Task

    def result(self, name: str, metric: str, strategy: str | None = None) -> Result:
        """The result of one row and metric.

        Raises:
            KeyError: there is none; the known ones are named.
        """
        for found in self.results:
            if found.name == name and found.metric == metric and strategy in (None, found.strategy):
                return found
        known = sorted({(r.row, r.metric) for r in self.results})
        raise KeyError(f"no result {name} {metric} {strategy or ''}; there are {known}")

    def against(self, reference: str) -> tuple[Result, ...]:
        """All results, the others compared with `reference`, strategy by strategy; Holm over the rows of a metric."""
        weights = patient_weights(self.task.n_clusters, seed=self.protocol["seed"])
        deltas: dict[tuple[str, str, str], Difference | None] = {}
        for strategy in dict.fromkeys(strategy for _, strategy in self.scores):
            names = [name for name, how in self.scores if how == strategy]
            for same in zip(*(self.scores[name, strategy] for name in names), strict=True):
                found = differences(
                    same, place_of(reference, names), weights, cluster=self.task.cluster, seed=self.protocol["seed"]
                )
                deltas |= {(name, strategy, same[0].metric): delta for name, delta in zip(names, found, strict=True)}
        return tuple(replace(one, delta=deltas[one.name, one.strategy, one.metric]) for one in self.results)

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything but scores, frames and items; NaN becomes None."""
        return plain(
            {
                "protocol": self.protocol,
                "warnings": self.warnings,
                "reference": self.reference,
                "results": self.results,
                "per_class": self.per_class,
            }
        )

    def to_table(self) -> str:
        """The results as text for a terminal, one line a row and metric."""
        header = ["row", "metric", "value", "95 % interval", "chance", "null", "macro classes", "macro patients"]
        header += ["delta to it", "p (Holm)", "note"]
        lines = [header]
        for r in self.results:
            delta = r.delta
            lines.append(
                [
                    r.row + (" *" if r.kind == "floor" else ""),
                    r.metric,
                    _number(r.value),
                    str(r.interval),
                    _number(r.chance),
                    _number(r.null),
                    _number(r.macro_classes),
                    _number(r.macro_patients),
                    f"{delta.value:+.3f} {delta.interval}" if delta else "",
                    _number(delta.p_holm) if delta else "",
                    r.interval.note if math.isfinite(r.interval.low) else "",
                ]
            )
        widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
        body = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        return "\n".join([*self._heading(), *body, "* floor", *self.warnings])

    def _heading(self) -> list[str]:
        some = self.results[0]
        shares = ", ".join(f"{name} {share:.3f}" for name, share in some.prevalence.items())
        return [
            f"{some.level} retrieval, leave out {some.leave_out}, vote {self.protocol['vote']}",
            f"{some.n_queries} queries of {some.n_patients} patients, {some.n_unanswerable} unanswerable",
            f"prevalence: {shares}",
        ]

    def query_rows(self, name: str) -> list[dict[str, Any]]:
        """Per-query rows of one encoder or floor for a CSV: item, label, and ids, labels and scores of the answers.

        A floor of several seeds gives rows for each, told apart by `repeat`. `item` and `ids` count all items.
        """
        rows = []
        for repeat, frame in enumerate(self.frames[name]):
            for i, query in enumerate(self.task.rows[frame.query].tolist()):
                found = frame.ids[i][frame.ids[i] >= 0]
                answers = self.task.rows[found].tolist()
                rows.append(
                    {
                        "row": name,
                        "repeat": repeat,
                        "item": query,
                        "slide": self.items.slide[query],
                        "patient": self.items.patient[query],
                        "label": self.items.label[query],
                        "n_allowed": int(frame.n_allowed[i]),
                        "n_relevant": int(frame.n_relevant[i]),
                        "ids": " ".join(map(str, answers)),
                        "labels": "|".join(str(self.items.label[answer]) for answer in answers),
                        "scores": " ".join(f"{score:.6f}" for score in frame.scores[i][: len(answers)]),
                    }
                )
        return rows

    def joined(self, other: "Evaluation") -> "Evaluation":
        """Both evaluations' rows under this one's protocol (slide strategies of one task)."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values["results"] = self.results + other.results
        values["per_class"] = self.per_class + other.per_class
        values["scores"] = {**self.scores, **other.scores}
        values["frames"] = {**self.frames, **other.frames}
        values["warnings"] = tuple(dict.fromkeys(self.warnings + other.warnings))
        return Evaluation(**values)


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.3f}"
