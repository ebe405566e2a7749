"""Running probes: every row predicted while its group is held out, for several encoders and floors alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypedDict, Unpack

import numpy as np

from histokin.artefacts import plain
from histokin.evaluate.comparison import Figure, Kind, Row, check_rows, compare_scores, find_figure, mean_scores
from histokin.evaluate.floors import floor_distance
from histokin.evaluate.intervals import N_DRAWS, patient_weights, resampled
from histokin.evaluate.probes.folds import Split
from histokin.evaluate.probes.linear import LinearProbe
from histokin.evaluate.probes.neighbours import NeighbourProbe
from histokin.evaluate.probes.outcome import (
    Fold,
    Outcome,
    Part,
    Probe,
    ProbeTask,
    class_task,
    value_task,
)
from histokin.evaluate.probes.ridge import RidgeProbe
from histokin.evaluate.probes.scores import (
    ClassFigure,
    GroupFigure,
    chance_levels,
    class_figures,
    group_figures,
    probe_scores,
)
from histokin.evaluate.probes.svm import MOST_EXACT, N_LANDMARKS, SVMProbe
from histokin.evaluate.vectors import check_vectors, scaled
from histokin.progress import Reporter, silent

Features = np.ndarray | Sequence[np.ndarray]
Column = Sequence[Any] | np.ndarray
_ALONE = "features"


@dataclass(frozen=True, slots=True)
class Probed:
    """All figures of one probe on one task.

    Attributes:
        figures: row by row (encoders, then floors), metric by metric.
        per_class: by row and class; () for values.
        per_group: by row and held-out group.
        protocol: everything needed to repeat it.
        warnings: sentences a reader must see beside the figures.
        reference: name of the encoder that others are compared with.
        outcomes: by row name, the predictions all figures were computed from (several for a floor of several seeds).
        task: rows, truth, folds and clusters.
        scored: what each row scored, for other references.
        seed: of bootstrap and swap test.
    """

    figures: tuple[Figure, ...]
    per_class: tuple[ClassFigure, ...]
    per_group: tuple[GroupFigure, ...]
    protocol: dict[str, Any]
    warnings: tuple[str, ...]
    reference: str
    outcomes: Mapping[str, tuple[Outcome, ...]]
    task: ProbeTask
    scored: tuple[Row, ...]
    seed: int

    def against(self, reference: str) -> tuple[Figure, ...]:
        """All figures, the others compared with another reference."""
        return _figures(self.scored, self.task, reference, self.seed)

    def figure(self, metric: str, name: str | None = None) -> Figure:
        """One metric of one row, by default of the reference.

        Raises:
            KeyError: there is none; the known ones are named.
        """
        return find_figure(self.figures, self.reference if name is None else name, metric)

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything but predictions and task; NaN becomes None."""
        return plain(
            {
                "protocol": self.protocol,
                "warnings": self.warnings,
                "reference": self.reference,
                "figures": self.figures,
                "per_class": self.per_class,
                "per_group": self.per_group,
                "folds": {name: [outcome.folds for outcome in found] for name, found in self.outcomes.items()},
            }
        )

    def prediction_rows(self, name: str) -> list[dict[str, Any]]:
        """Per-row predictions of one encoder or floor for a CSV; `row` counts all rows given, `repeat` the seeds."""
        task, lines = self.task, []
        for repeat, outcome in enumerate(self.outcomes[name]):
            for i, row in enumerate(task.rows.tolist()):
                line = {
                    "name": name,
                    "repeat": repeat,
                    "row": row,
                    "group": task.group_names[task.groups[i]],
                    "cluster": int(task.clusters[i]),
                    "fold": int(task.fold[i]),
                }
                if outcome.by_class is None:
                    line |= {"truth": float(task.truth[i]), "predicted": float(outcome.predicted[i])}
                else:
                    said = (task.truth[i], outcome.predicted[i])
                    line |= dict(zip(("truth", "predicted"), (task.classes[code] for code in said), strict=True))
                    of_class = zip(task.classes, outcome.by_class[i].tolist(), strict=True)
                    what = "margin" if outcome.probabilities is None else "p"
                    line |= {f"{what} {label}": value for label, value in of_class}
                lines.append(line)
        return lines


class Settings(TypedDict, total=False):
    """What `compare_probes` takes beside features, target and groups, for one set of features."""

    split: Split | None
    clusters: Column | None
    cluster: str | None
    seed: int


def linear_probe(
    features: np.ndarray,
    labels: Column,
    groups: Column,
    *,
    probe: LinearProbe | None = None,
    **settings: Unpack[Settings],
) -> Probed:
    """Logistic regression on one set of features; see `compare_probes`."""
    return compare_probes({_ALONE: features}, labels, groups, probe=probe or LinearProbe(), **settings)


def knn_probe(
    features: np.ndarray,
    labels: Column,
    groups: Column,
    *,
    probe: NeighbourProbe | None = None,
    **settings: Unpack[Settings],
) -> Probed:
    """Weighted nearest neighbours on one set of features; see `compare_probes`."""
    return compare_probes({_ALONE: features}, labels, groups, probe=probe or NeighbourProbe(), **settings)


def svm_probe(
    features: np.ndarray,
    labels: Column,
    groups: Column,
    *,
    probe: SVMProbe | None = None,
    **settings: Unpack[Settings],
) -> Probed:
    """A support vector machine on one set of features, without NLL and ECE; see `compare_probes`."""
    return compare_probes({_ALONE: features}, labels, groups, probe=probe or SVMProbe(), **settings)


def ridge_probe(
    features: np.ndarray,
    values: Column,
    groups: Column,
    *,
    probe: RidgeProbe | None = None,
    within: Column | None = None,
    **settings: Unpack[Settings],
) -> Probed:
    """Ridge regression on one set of features; see `compare_probes`."""
    return compare_probes({_ALONE: features}, values, groups, probe=probe or RidgeProbe(), within=within, **settings)


def compare_probes(
    encoders: Mapping[str, np.ndarray],
    target: Column,
    groups: Column,
    *,
    probe: LinearProbe | RidgeProbe | NeighbourProbe | SVMProbe | None = None,
    floors: Mapping[str, Features] | None = None,
    reference: str | None = None,
    split: Split | None = None,
    within: Column | None = None,
    clusters: Column | None = None,
    cluster: str | None = None,
    seed: int = 0,
    progress: Reporter = silent,
) -> Probed:
    """The same probe, rows, folds and resampled clusters for several encoders and floors.

    Args:
        encoders: (M, D) features by name.
        target: (M,) labels (linear, knn, svm) or numbers (ridge); rows without one are set aside.
        groups: (M,) what is held out together: patient, slide, section, site (`split.unit` says which).
        probe: which one, and its settings; `LinearProbe()` by default.
        floors: features by the floors' names; a list of arrays (seeds of a random-weight encoder) counts as the mean
            of its members' figures. Under `knn` colour and texture are z-scored as `floor_distance` says.
        reference: the encoder that the other rows are compared with; by default the first.
        split: outer and inner folds; by default leave-one-group-out up to 20 groups.
        within: (M,) groups inside which ridge's ranks are compared.
        clusters: (M,) the unit of inference; by default the groups.
        cluster: its word.
        seed: of bootstrap and swap test.
        progress: told each fold.

    Returns:
        `Probed`.

    Raises:
        EvaluationError: the protocol cannot be carried out on these rows; says why and what to do.
        StoreError: a feature is not finite, or zero under cosine.
        ValueError: shapes or names do not fit.
    """
    how = LinearProbe() if probe is None else probe
    if isinstance(how, RidgeProbe):
        task = value_task(target, groups, split=split or Split(), within=within, clusters=clusters, cluster=cluster)
    else:
        if within is not None:
            raise ValueError("`within` is ridge's: classes have no ranks inside groups")
        task = class_task(target, groups, split=split or Split(), clusters=clusters, cluster=cluster)
    return _compare(encoders, floors or {}, task, how, reference, len(target), seed, progress)


def run_probe(
    features: np.ndarray,
    task: ProbeTask,
    probe: Probe,
    *,
    name: str = _ALONE,
    told: Callable[[], None] = lambda: None,
) -> Outcome:
    """Predict every row of a task while its fold is held out.

    Args:
        features: (N, D) floating, the task's rows in their order.
        task: of N rows.
        probe: fitted anew for each fold.
        name: of the features, for errors.
        told: called after each fold.

    Raises:
        StoreError: a value is not finite, or a vector zero where cosines are asked for.
    """
    if features.ndim != 2 or len(features) != len(task):
        raise ValueError(f"need ({len(task)}, D) features, got {features.shape}")
    x = np.asarray(features, dtype=np.float64)
    is_cosine = isinstance(probe, NeighbourProbe) and not probe.is_standardised
    check_vectors(name, x, np.arange(len(x)), needs_direction=is_cosine, told=task.rows)
    n_classes = len(task.classes)
    found = np.zeros((len(task), n_classes) if n_classes else len(task))
    is_probability, folds = True, []
    for fold in range(int(task.fold.max()) + 1):
        is_test = task.fold == fold
        train, test = x[~is_test], x[is_test]
        if probe.is_standardised:
            train, test = scaled(train, test)
        truth = task.truth[~is_test]
        said = probe.predict(Part(train, truth, task.groups[~is_test], n_classes, task.split.n_inner), test)
        found[is_test], is_probability = said.values, said.is_probability
        folds.append(
            Fold(
                held_out=tuple(task.group_names[code] for code in np.unique(task.groups[is_test])),
                n_train=len(train),
                n_test=len(test),
                setting=said.setting,
                is_at_edge=said.is_at_edge,
                is_unchosen=said.is_unchosen,
                is_converged=said.is_converged,
                missing=tuple(np.delete(task.classes, np.unique(truth)).tolist()) if n_classes else (),
                gamma=said.gamma,
                is_approximate=said.is_approximate,
                temperature=said.temperature,
            )
        )
        told()
    if not n_classes:
        return Outcome(found, None, tuple(folds))
    shares, margins = (found, None) if is_probability else (None, found)
    return Outcome(found.argmax(axis=1), shares, tuple(folds), margins)


def _compare(
    encoders: Mapping[str, np.ndarray],
    floors: Mapping[str, Features],
    task: ProbeTask,
    probe: LinearProbe | RidgeProbe | NeighbourProbe | SVMProbe,
    reference: str | None,
    n_all: int,
    seed: int,
    progress: Reporter,
) -> Probed:
    main = check_rows(encoders, floors, reference)
    outcomes: dict[str, tuple[Outcome, ...]] = {}
    rows: list[Row] = []
    asked: list[tuple[str, Kind, Features]] = []
    asked.extend((name, "encoder", x) for name, x in encoders.items())
    asked.extend((name, "floor", x) for name, x in floors.items())
    n_members = sum(1 if isinstance(features, np.ndarray) else len(features) for _, _, features in asked)
    with progress("evaluate", n_members * (int(task.fold.max()) + 1), "folds") as line:
        for name, kind, features in asked:
            how = probe
            if kind == "floor" and isinstance(probe, NeighbourProbe):
                how = replace(probe, is_standardised=probe.is_standardised or floor_distance(name)[1])
            members = [features] if isinstance(features, np.ndarray) else list(features)
            told = partial(line.advance, 1, name)
            outcomes[name] = tuple(
                run_probe(_rows_of(name, x, task, n_all), task, how, name=name, told=told) for x in members
            )
            rows.append(Row(name, kind, mean_scores([probe_scores(task, one) for one in outcomes[name]])))
    per_class = [one for name, o in outcomes.items() for one in class_figures(name, task, o)] if task.classes else []
    return Probed(
        figures=_figures(rows, task, main, seed),
        per_class=tuple(per_class),
        per_group=tuple(one for name, o in outcomes.items() for one in group_figures(name, task, o)),
        protocol=_protocol(task, probe, outcomes, seed),
        warnings=_warnings(task, outcomes),
        reference=main,
        outcomes=outcomes,
        task=task,
        scored=tuple(rows),
        seed=seed,
    )


def _figures(rows: Sequence[Row], task: ProbeTask, reference: str, seed: int) -> tuple[Figure, ...]:
    return compare_scores(
        rows,
        reference=reference,
        weights=patient_weights(task.n_clusters, seed=seed, strata=task.strata),
        cluster=task.cluster,
        chance=chance_levels(task),
        seed=seed,
    )


def _rows_of(name: str, features: np.ndarray, task: ProbeTask, n_all: int) -> np.ndarray:
    if len(features) != n_all:
        raise ValueError(f"{name} has {len(features)} rows for {n_all} labels")
    return np.asarray(features)[task.rows]


def _protocol(
    task: ProbeTask,
    probe: LinearProbe | RidgeProbe | NeighbourProbe | SVMProbe,
    outcomes: Mapping[str, tuple[Outcome, ...]],
    seed: int,
) -> dict[str, Any]:
    n_folds = int(task.fold.max()) + 1
    return {
        "probe": probe.word,
        "settings": plain(probe),
        "held_out": task.split.unit,
        "split": "leave one out" if n_folds == len(task.group_names) else "grouped stratified folds",
        "n_folds": n_folds,
        "n_inner": task.split.n_inner,
        "repeat": task.split.repeat,
        "n_rows": len(task),
        "n_unlabelled": task.n_unlabelled,
        "n_groups": len(task.group_names),
        "prevalence": task.prevalence,
        "cluster": task.cluster,
        "n_clusters": task.n_clusters,
        "resampled": resampled(task.strata, cluster=task.cluster),
        "bootstrap_draws": N_DRAWS,
        "seed": seed,
        "members": {name: len(found) for name, found in outcomes.items()},
    }


def _warnings(task: ProbeTask, outcomes: Mapping[str, tuple[Outcome, ...]]) -> tuple[str, ...]:
    """What a reader must be told."""
    some = next(iter(outcomes.values()))[0]
    said = [
        f"With {_listed(fold.held_out)} held out no row of {', '.join(fold.missing)} is left to fit on, so those "
        "classes cannot be predicted there."
        for fold in some.folds
        if fold.missing
    ]
    for name, found in outcomes.items():
        folds = [fold for outcome in found for fold in outcome.folds]
        for is_so, what in (
            ([fold.is_at_edge for fold in folds], "took a setting at an end of the grid"),
            ([fold.is_unchosen for fold in folds], "had a single group to fit on, so a fixed setting was taken"),
            ([not fold.is_converged for fold in folds], "did not converge"),
            (
                [fold.is_approximate for fold in folds],
                f"had more than {MOST_EXACT} rows to fit on, so the kernel was approximated by {N_LANDMARKS} of them",
            ),
        ):
            if any(is_so):
                said.append(f"{name}: {sum(is_so)} of {len(folds)} folds {what}.")
    if task.strata is not None:
        n_clusters = np.bincount(task.strata, minlength=len(task.classes))
        alone = [name for name, n in zip(task.classes, n_clusters, strict=True) if n == 1]
        if alone:
            said.append(
                f"A single {task.cluster} has {_listed(tuple(alone))}: drawn within its class it never varies, so "
                "bootstrap intervals are too narrow."
            )
    if task.n_unlabelled:
        said.append(f"{task.n_unlabelled} rows without a target were set aside.")
    return tuple(said)


def _listed(names: tuple[str, ...], most: int = 3) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
