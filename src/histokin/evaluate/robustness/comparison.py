"""The robustness index of several encoders and floors: the same tiles, neighbours and resampled patients for all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from histokin.artefacts import plain
from histokin.evaluate.assess import Ranked
from histokin.evaluate.comparison import Figure, Kind, Row, check_rows, compare_scores, find_figure, mean_scores
from histokin.evaluate.floors import floor_distance
from histokin.evaluate.intervals import N_DRAWS, patient_weights
from histokin.evaluate.protocol import MAX_QUERIES
from histokin.evaluate.robustness.index import (
    METRIC,
    Column,
    chosen_k,
    placed_task,
    possible_ks,
    shares_of,
)
from histokin.evaluate.vectors import nearest_allowed
from histokin.progress import Reporter, silent

Features = np.ndarray | Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class RobustnessComparison:
    """Robustness indices of encoders and floors on the same queries.

    Attributes:
        figures: by row, `robustness_index`; its chance is the null value of `robustness_index`.
        shares: by row, of all neighbours counted, SO, OS, SS and OO; of several members their mean.
        protocol: everything needed to repeat it.
        warnings: sentences a reader must see beside the figures.
        reference: name of the encoder that others are compared with.
        scored: what each row scored, for other references.
    """

    figures: tuple[Figure, ...]
    shares: Mapping[str, dict[str, float]]
    protocol: dict[str, Any]
    warnings: tuple[str, ...]
    reference: str
    scored: tuple[Row, ...]

    def against(self, reference: str) -> tuple[Figure, ...]:
        """All figures, the others compared with another reference."""
        return _figures(self.scored, reference, self.protocol)

    def figure(self, metric: str = METRIC, name: str | None = None) -> Figure:
        """One metric of one row, by default of the reference.

        Raises:
            KeyError: there is none.
        """
        return find_figure(self.figures, self.reference if name is None else name, metric)

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""
        return plain(
            {
                "protocol": self.protocol,
                "warnings": self.warnings,
                "reference": self.reference,
                "figures": self.figures,
                "shares": self.shares,
            }
        )


def compare_robustness(
    encoders: Mapping[str, np.ndarray],
    classes: Column,
    centres: Column,
    patients: Column,
    slides: Column,
    *,
    floors: Mapping[str, Features] | None = None,
    reference: str | None = None,
    k: int | None = None,
    leave_out: Literal["patient", "slide"] = "patient",
    max_queries: int = MAX_QUERIES,
    seed: int = 0,
    progress: Reporter = silent,
) -> RobustnessComparison:
    """The `robustness_index` of every row at one k, with paired differences.

    Args:
        encoders: (N, D) features by name, ranked by cosine.
        classes, centres, patients, slides, leave_out, max_queries: as in `robustness_index`.
        floors: features by the floors' names, ranked as `floor_distance` says; a list of arrays counts as the mean of
            its members' figures.
        reference: the encoder others are compared with; by default the first.
        k: neighbours; by default the median over rows, floors among them, of what each would choose (`choose_k`):
            PathoROB's rule, which takes the middle between two. Then k depends on who is compared: give it where
            figures of several comparisons are to be held against each other.
        seed: of query sampling and bootstrap.
        progress: told each row.

    Returns:
        `RobustnessComparison`.

    Raises:
        EvaluationError: as `robustness_index` and `choose_k`.
        StoreError: a vector is zero or not finite; names encoder and row.
        ValueError: shapes or names do not fit, or k < 1.
    """
    main = check_rows(encoders, floors, reference)
    asked = placed_task(classes, centres, patients, slides, leave_out=leave_out, max_queries=max_queries, seed=seed)
    tried = possible_ks(asked.task) if k is None else [k]
    ranked: list[Ranked] = []
    rows: list[tuple[str, Kind, Features]] = []
    rows.extend((name, "encoder", x) for name, x in encoders.items())
    rows.extend((name, "floor", x) for name, x in (floors or {}).items())
    with progress("evaluate", len(rows), "rows") as line:
        for name, kind, features in rows:
            metric, is_scaled = floor_distance(name) if kind == "floor" else ("cosine", False)
            members = [features] if isinstance(features, np.ndarray) else list(features)
            found = tuple(
                nearest_allowed(
                    name, _checked(name, x, len(slides)), asked.task, tried[-1], metric, is_scaled=is_scaled
                )
                for x in members
            )
            ranked.append(Ranked(name, kind, metric + (", z-scored" if is_scaled else ""), found))
            line.advance(1, name)
    wanted: dict[str, int] = {}
    at = k
    if at is None:
        wanted = {row.name: chosen_k([one.ids for one in row.found], asked.task, tried).k for row in ranked}
        at = int(np.median(list(wanted.values())))  # whole: all of the grid are odd
    kinds = {row.name: [asked.kinds(one.ids[:, :at]) for one in row.found] for row in ranked}
    scored = tuple(
        Row(row.name, row.kind, mean_scores([(asked.score(one),) for one in kinds[row.name]])) for row in ranked
    )
    task = asked.task
    protocol = {
        "measure": "robustness index",
        "k": at,
        "k_chosen": "median over rows of the k of the best balanced accuracy" if k is None else "given",
        "k_by_row": wanted,
        "leave_out": leave_out,
        "null": asked.null(at),
        "association": asked.association,
        "classes": list(task.classes),
        "n_labelled": len(task.rows),
        "n_unlabelled": task.n_unlabelled,
        "n_queries": len(task.queries),
        "n_patients": asked.n_patients,
        "max_queries": max_queries,
        "distances": {row.name: row.distance for row in ranked},
        "members": {row.name: len(row.found) for row in ranked},
        "cluster": task.cluster,
        "n_clusters": task.n_clusters,
        "bootstrap_draws": N_DRAWS,
        "seed": seed,
    }
    return RobustnessComparison(
        figures=_figures(scored, main, protocol),
        shares={name: _mean_shares([shares_of(one) for one in members]) for name, members in kinds.items()},
        protocol=protocol,
        warnings=asked.warnings(at),
        reference=main,
        scored=scored,
    )


def _figures(rows: Sequence[Row], reference: str, protocol: Mapping[str, Any]) -> tuple[Figure, ...]:
    return compare_scores(
        rows,
        reference=reference,
        weights=patient_weights(protocol["n_clusters"], seed=protocol["seed"]),
        cluster=protocol["cluster"],
        chance={METRIC: protocol["null"]},
        seed=protocol["seed"],
    )


def _mean_shares(members: Sequence[dict[str, float]]) -> dict[str, float]:
    return {kind: float(np.mean([one[kind] for one in members])) for kind in members[0]}


def _checked(name: str, features: np.ndarray, n: int) -> np.ndarray:
    if features.ndim != 2 or len(features) != n:
        raise ValueError(f"{name} has shape {features.shape} for {n} tiles")
    return features
