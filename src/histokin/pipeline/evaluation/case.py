"""What one protocol is given: rows of one level with their labels, and every encoder's and floor's vectors of them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.errors import EvaluationError
from histokin.evaluate import Items
from histokin.evaluate.items import sample_queries
from histokin.pipeline.evaluation.columns import Columns
from histokin.pipeline.evaluation.labels import Texts
from histokin.pipeline.evaluation.spec import EvaluationSpec
from histokin.pipeline.evaluation.table import Bags, Level, Table, Vectors
from histokin.progress import Reporter

MAX_CLASSES = 50
FEW_NUMBERS = 10
"""Whole numbers of at most so many values are grades, hence classes."""


@dataclass(frozen=True, slots=True)
class Case:
    """One level of the table, one column of it, and how it is to be asked.

    Attributes:
        table: all there is.
        level: tile or slide; a slide's vector is the mean of its tiles' (networks: of their unit vectors).
        column: what is predicted or must be shared; "" where nothing is.
        texts: (n,) it, "" where unlabelled.
        spec: what is asked.
        report: progress.
    """

    table: Table
    level: Level
    column: str
    texts: Texts
    spec: EvaluationSpec
    report: Reporter

    @property
    def columns(self) -> Columns:
        return self.table.columns(self.level)

    @property
    def names(self) -> list[str]:
        """What tells the rows apart, whatever their order: the slide, and of tiles their number on it."""
        slides = self.columns.slide
        if self.level == "slide":
            return [str(slide) for slide in slides]
        return [f"{slide}/{tile}" for slide, tile in zip(slides, self.table.rows.tile_id.tolist(), strict=True)]

    @property
    def reference(self) -> str:
        """The first encoder named."""
        return next(iter(self.table.bags))

    @property
    def encoders(self) -> dict[str, Vectors]:
        """(n, d) by encoder."""
        if self.level == "tile":
            return self.table.features
        return {name: slide_means(bags) for name, bags in self.table.bags.items()}

    @property
    def floors(self) -> dict[str, Any]:
        """(n, d) by floor; a list of them for a floor of several members."""
        if self.level == "tile":
            return {name: _alone(members) for name, members in self.table.floors.items()}
        return {
            name: _alone([slide_means(bags, is_unit=name.startswith("random")) for bags in members])
            for name, members in self.table.floor_bags.items()
        }

    @property
    def bags(self) -> dict[str, Bags]:
        return self.table.bags

    @property
    def floor_bags(self) -> dict[str, Any]:
        return {name: _alone(members) for name, members in self.table.floor_bags.items()}

    @property
    def items(self) -> Items:
        """The rows as items of a retrieval."""
        found = self.columns
        return Items.of(self.texts, found.patient, found.picture, found.site, found.region)

    @property
    def sides(self) -> dict[str, Any]:
        """(n,) which rows ask and which answer in a search; None lets all."""
        sides = {"queries": self.spec.queries, "database": self.spec.database}
        return {side: self.columns.meets(condition) if condition else None for side, condition in sides.items()}

    @property
    def cluster(self) -> str:
        """What intervals resample: patients; the next unit down where one is all there is, or none is known."""
        if self.spec.leave_out == "site":
            return "site"
        is_known = self.columns.n_unnamed < len(self.columns) and len(set(self.columns.patient)) > 1
        return "patient" if is_known else "slide"

    @property
    def clusters(self) -> Texts:
        return self.columns.units(self.cluster)

    @property
    def groups(self) -> Texts:
        """What is held out together.

        Raises:
            EvaluationError: nothing is, under `self`.
        """
        if self.spec.leave_out == "self":
            raise EvaluationError(
                "nothing can be fitted with single rows left out", "evaluation", "Leave out the patient, slide or site."
            )
        return self.columns.units(self.spec.leave_out)

    @property
    def has_classes(self) -> bool:
        return bool(any(self.texts)) and numbers_of(self.texts) is None

    def without_labels(self) -> "Case":
        """The same for protocols that ask for none: every row counts."""
        return replace(self, column="", texts=np.full(len(self.columns), "", object))

    def at_most(self, n: int) -> "Case":
        """The same with at most `n` labelled rows, drawn equally per patient as far as each has them."""
        labelled = np.flatnonzero(self.texts.astype(bool))
        if len(labelled) <= n:
            return self
        kept = labelled[sample_queries(self.columns.patient[labelled], n, self.spec.seed)]
        texts = np.full(len(self.texts), "", object)
        texts[kept] = self.texts[kept]
        return replace(self, texts=texts)

    def comparing(self) -> dict[str, Any]:
        """What every comparison of encoders and floors is told."""
        return {
            "floors": self.floors,
            "seed": self.spec.seed,
            "progress": self.report,
            "clusters": self.clusters,
            "cluster": self.cluster,
        }


def slide_means(bags: Bags, *, is_unit: bool = True) -> Vectors:
    """(n_slides, d) mean of each bag; of unit vectors, as search by `mean` has it."""
    return np.stack([(_unit(bag) if is_unit else bag.astype(np.float64)).mean(axis=0) for bag in bags]).astype(
        np.float32
    )


def numbers_of(texts: Texts) -> NDArray[np.float64] | None:
    """(n,) the column as numbers, NaN where unlabelled; None where it holds classes.

    Numbers are columns of nothing else, unless they are whole and few: those are grades.
    """
    try:
        found = np.array([float(text) if text else np.nan for text in texts])
    except ValueError:
        return None
    distinct = np.unique(found[np.isfinite(found)])
    is_few = len(distinct) <= FEW_NUMBERS and bool((distinct % 1 == 0).all())
    return None if is_few else found


def check_classes(texts: Texts, column: str) -> None:
    """Refuse what cannot be told apart.

    Raises:
        EvaluationError: one class, or too many.
    """
    classes = sorted({str(text) for text in texts if text})
    if len(classes) < 2:
        raise EvaluationError(
            f"{column} has one value only ({classes[0]})" if classes else f"nothing has a label {column}",
            "evaluation",
            "Name another column with --label.",
        )
    if len(classes) > MAX_CLASSES:
        raise EvaluationError(
            f"{column} has {len(classes)} values, more than the {MAX_CLASSES} that count as classes",
            "evaluation",
            "Name a column of classes with --label.",
        )


def prevalence_of(texts: Texts) -> dict[str, float]:
    """Share of each class among the labelled rows."""
    names, counts = np.unique(np.array([str(t) for t in texts if t]), return_counts=True)
    return {str(name): float(count / counts.sum()) for name, count in zip(names, counts, strict=True)}


def counts_of(case: Case, **more: int) -> dict[str, int]:
    """Labelled rows, what they belong to, and more."""
    has = case.texts.astype(bool) if case.column else np.ones(len(case.columns), bool)
    found = {
        f"{case.level}s": int(has.sum()),
        **case.columns.patients(has),
        "slides": len(set(case.columns.slide[has])),
    }
    return {**found, **more}


def _unit(bag: Vectors) -> NDArray[np.float64]:
    x = bag.astype(np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _alone(members: list[Any]) -> Any:
    return members[0] if len(members) == 1 else members


def encoders_and_floors(case: Case) -> Mapping[str, Vectors]:
    """(n, d) by row of a table; of a floor of several members the first."""
    first = {name: found if isinstance(found, np.ndarray) else found[0] for name, found in case.floors.items()}
    return {**case.encoders, **first}
