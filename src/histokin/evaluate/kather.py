"""The Kather-2016 protocol: what published accuracies on its 5000 tiles measure, and what they owe to their folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from histokin.artefacts import plain
from histokin.errors import EvaluationError
from histokin.evaluate.comparison import Figure, Row, Score, compare_scores, find_figure, mean_scores
from histokin.evaluate.intervals import N_DRAWS, count_of, patient_weights, ratio
from histokin.evaluate.items import is_missing, text_codes
from histokin.evaluate.probes import LinearProbe, NeighbourProbe, Outcome, Probed, ProbeTask, Split, SVMProbe
from histokin.evaluate.probes.run import Column, Features, compare_probes
from histokin.progress import Reporter, silent
from histokin.streams import stream

RANDOM = "accuracy_random"
SOURCE_OUT = "accuracy_source_out"
WITHOUT_EMPTY = "accuracy_source_out_without_empty"
LEAK = "leak"
N_RANDOM = 10
RBF_SVM = SVMProbe(kernel="rbf", c=1.0, gamma="scale", is_balanced=False)
"""The published best machine: C 1, automatic kernel scale, standardised, one class against one."""
LINEAR_SVM = SVMProbe(kernel="linear", c=1.0, is_balanced=False, is_pairwise=True)
"""Its linear sibling."""
_WORDS = ("held_out", "split", "n_folds", "n_rows")
_FEW_SOURCES = 2
_LEAKY = "tiles of the same sources were fitted on"


@dataclass(frozen=True, slots=True)
class PublishedAccuracy:
    """An accuracy on these tiles that others printed.

    Attributes:
        what: whose features or network.
        accuracy: share of tiles that are right.
        source: where it is printed.
        folds: what is known of how the tiles were divided.
    """

    what: str
    accuracy: float
    source: str
    folds: str


_RETCCL = "collected in the README of RetCCL"
_UNKNOWN = "number of folds not known"
PUBLISHED = (
    PublishedAccuracy(
        "combined texture features, RBF SVM",
        0.8740,
        f"Kather et al. 2016, Scientific Reports 6:27988; {_RETCCL}",
        "10 tile-random folds: C 1, automatic kernel scale, standardised, one against one (the authors' code)",
    ),
    PublishedAccuracy("fine-tuned VGG-19", 0.8619, f"BMC Bioinformatics 2018, s12859-018-2184-4; {_RETCCL}", _UNKNOWN),
    PublishedAccuracy("ensemble of CNNs", 0.9283, _RETCCL, _UNKNOWN),
    PublishedAccuracy("KimiaNet, SVM", 0.9680, _RETCCL, f"{_UNKNOWN}; its repository has no SVM script"),
    PublishedAccuracy("CCL (RetCCL), SVM", 0.9840, "README of RetCCL", f"{_UNKNOWN}; said to follow KimiaNet"),
    PublishedAccuracy("DenseNet169, RBF SVM", 0.9208, "Journal of Supercomputing 2021", "tile-random"),
    PublishedAccuracy("ResNet, transferred", 0.9660, "not recorded", "tile-random"),
    PublishedAccuracy("network not recorded", 0.9875, "not recorded", "tile-random"),
)


@dataclass(frozen=True, slots=True)
class KatherProtocol:
    """Three accuracies a row that differ only in what was held out, and the leak between the first two.

    Attributes:
        figures: by row, `accuracy_random` (folds of single tiles: leaky), `accuracy_source_out`,
            `accuracy_source_out_without_empty` and `leak`, the first minus the second on the same tiles.
        columns: by the accuracies' names, all figures, classes, held-out sources and predictions behind them.
        published: accuracies that others printed, with what is known of their folds.
        protocol: everything needed to repeat it.
        warnings: sentences a reader must see beside the figures.
        reference: name of the encoder that others are compared with.
        scored: what each row's leak is computed from, for other references.
    """

    figures: tuple[Figure, ...]
    columns: Mapping[str, Probed]
    published: tuple[PublishedAccuracy, ...]
    protocol: dict[str, Any]
    warnings: tuple[str, ...]
    reference: str
    scored: tuple[Row, ...]

    def against(self, reference: str) -> tuple[Figure, ...]:
        """All figures, the others compared with another reference."""
        return _figures(self.columns, self.scored, reference, self.protocol["seed"])

    def figure(self, metric: str = "accuracy_source_out", name: str | None = None) -> Figure:
        """One metric of one row, by default of the reference.

        Raises:
            KeyError: there is none; the known ones are named.
        """
        return find_figure(self.figures, self.reference if name is None else name, metric)

    def to_json(self) -> dict[str, Any]:
        """Plain data of everything but predictions; NaN becomes None."""
        return plain(
            {
                "protocol": self.protocol,
                "warnings": self.warnings,
                "reference": self.reference,
                "figures": self.figures,
                "published": self.published,
                "columns": {name: column.to_json() for name, column in self.columns.items()},
            }
        )


def kather2016(
    encoders: Mapping[str, np.ndarray],
    labels: Column,
    sources: Column,
    *,
    tiles: Column | None = None,
    floors: Mapping[str, Features] | None = None,
    reference: str | None = None,
    probe: SVMProbe | LinearProbe | NeighbourProbe = RBF_SVM,
    empty: str = "empty",
    seed: int = 0,
    progress: Reporter = silent,
) -> KatherProtocol:
    """The same probe under the folds of the published figures and with each source picture held out.

    accuracy_random: ten stratified folds of single tiles, for parity with published figures alone. Neighbouring tiles
    of a source stand on both sides, so it is an upper bound. accuracy_source_out: every tile predicted while its
    source is held out, pooled. The third column repeats that on the tiles that are not empty, since glass is easy and
    nearly all of one source. leak is the first minus the second.

    Args:
        encoders: (N, D) features by name.
        labels: (N,) classes; rows without one are set aside.
        sources: (N,) source picture of each tile, `CRC-Prim-HE-NN`; the unit of inference of all columns.
        tiles: (N,) names of the tiles, such as their paths: random folds are drawn in their order, so that the rows'
            order is of no effect. By default in the rows' order.
        floors: features by name; a list of arrays counts as the mean of its members' figures.
        reference: the encoder others are compared with; by default the first.
        probe: by default the published RBF machine; `LINEAR_SVM` is its linear sibling.
        empty: the class that the third column leaves out.
        seed: of the random folds, bootstrap and swap test.
        progress: told each row, column by column.

    Returns:
        `KatherProtocol`.

    Raises:
        EvaluationError: one class or source only, sources are missing, or two tiles have one name.
        StoreError: a feature is not finite.
        ValueError: shapes or names do not fit.
    """
    texts = np.array(["" if is_missing(label) else str(label) for label in labels], dtype=object)
    if len(sources) != len(texts) or (tiles is not None and len(tiles) != len(texts)):
        raise ValueError(f"sources and tiles must have the {len(texts)} rows of the labels")

    def column(target: np.ndarray, groups: Column, split: Split) -> Probed:
        return compare_probes(
            encoders,
            target,
            groups,
            probe=probe,
            floors=floors,
            reference=reference,
            split=split,
            clusters=sources,
            cluster="source",
            seed=seed,
            progress=progress,
        )

    out_of_source = Split(unit="source", n_folds=max(2, len({str(source) for source in sources})))
    random = column(texts, random_parts(texts, tiles, seed=seed), Split(unit="random part", n_folds=N_RANDOM))
    by_source = column(texts, sources, out_of_source)
    has_empty = bool((texts == empty).any())
    columns = {
        RANDOM: replace(random, protocol={**random.protocol, "split": "stratified random folds of single tiles"}),
        SOURCE_OUT: by_source,
        WITHOUT_EMPTY: column(np.where(texts == empty, "", texts), sources, out_of_source) if has_empty else by_source,
    }
    scored = tuple(_leak(row, random, by_source) for row in by_source.scored)
    return KatherProtocol(
        figures=_figures(columns, scored, by_source.reference, seed),
        columns=columns,
        published=PUBLISHED,
        protocol={
            "measure": "accuracy under three kinds of folds",
            "probe": probe.word,
            "settings": plain(probe),
            "columns": {name: {word: one.protocol[word] for word in _WORDS} for name, one in columns.items()},
            "random_folds_drawn": "in the order of the rows" if tiles is None else "in the order of the tiles' names",
            "empty": empty,
            "cluster": "source",
            "n_clusters": by_source.task.n_clusters,
            "bootstrap_draws": N_DRAWS,
            "seed": seed,
        },
        warnings=_warnings(columns, empty, has_empty=has_empty),
        reference=by_source.reference,
        scored=scored,
    )


def random_parts(
    labels: np.ndarray, tiles: Column | None = None, *, n_parts: int = N_RANDOM, seed: int = 0
) -> np.ndarray:
    """Random parts of single tiles, in which no class and not the whole differs by more than one tile.

    Each class's tiles are shuffled by a stream of its name, then all are dealt out in turn.

    Args:
        labels: (N,) text, "" for rows that are in no part.
        tiles: (N,) names; by default the rows' numbers.
        n_parts: at most; fewer where there are fewer tiles.
        seed: of the streams.

    Returns:
        (N,) object: such as "part 07", or "".

    Raises:
        EvaluationError: two tiles have one name.
    """
    rows = np.flatnonzero(labels != "")
    if tiles is not None:
        names, codes = text_codes(tiles[row] for row in rows.tolist())
        if len(names) < len(rows):
            raise EvaluationError(
                f"{len(rows)} tiles have {len(names)} names between them", "evaluation", "Give each tile its own."
            )
        rows = rows[np.argsort(codes)]
    shuffled = [
        stream(seed, "kather2016", "parts", name).permutation(rows[labels[rows] == name])
        for name in sorted(set(labels[rows]))
    ]
    dealt = np.concatenate(shuffled) if shuffled else rows
    parts = np.full(len(labels), "", dtype=object)
    parts[dealt] = [f"part {place % n_parts + 1:02d}" for place in range(len(dealt))]
    return parts


def _leak(row: Row, random: Probed, by_source: Probed) -> Row:
    """How much more of a row's tiles are right under random folds, as a sum over sources."""
    members = zip(random.outcomes[row.name], by_source.outcomes[row.name], strict=True)
    return Row(row.name, row.kind, mean_scores([(_leak_score(by_source.task, *pair),) for pair in members]))


def _leak_score(task: ProbeTask, random: Outcome, by_source: Outcome) -> Score:
    gained = (random.predicted == task.truth).astype(np.float64) - (by_source.predicted == task.truth)
    of_source, sizes = np.bincount(task.clusters, weights=gained), np.bincount(task.clusters)
    return Score(LEAK, ratio(of_source, sizes), of_source / len(task))


def _figures(columns: Mapping[str, Probed], scored: Sequence[Row], reference: str, seed: int) -> tuple[Figure, ...]:
    """Row by row, column by column, the leak last."""
    found = []
    for name, column in columns.items():
        figures = column.figures if reference == column.reference else column.against(reference)
        found.append([replace(one, metric=name) for one in figures if one.metric == "accuracy"])
    found[0] = [_marked(one) for one in found[0]]
    task = columns[SOURCE_OUT].task
    weights = patient_weights(task.n_clusters, seed=seed, strata=task.strata)
    leaks = compare_scores(
        scored, reference=reference, weights=weights, cluster="source", chance={LEAK: 0.0}, seed=seed
    )
    return tuple(figure for row in zip(*found, leaks, strict=True) for figure in row)


def _marked(figure: Figure) -> Figure:
    note = f"{figure.interval.note}; {_LEAKY}" if figure.interval.note else _LEAKY
    return replace(figure, interval=replace(figure.interval, note=note))


def _warnings(columns: Mapping[str, Probed], empty: str, *, has_empty: bool) -> tuple[str, ...]:
    task = columns[SOURCE_OUT].task
    said = [
        f"{RANDOM} is leaky, an upper bound: it fits on neighbours of the tiles it predicts. For parity alone.",
        "Whether two sources are one patient's is not documented: a source left out need not be a patient left out.",
    ]
    for code, name in enumerate(task.classes):
        owners, counts = np.unique(task.groups[task.truth == code], return_counts=True)
        if len(owners) <= _FEW_SOURCES:
            where = ", ".join(f"{task.group_names[o]} ({n})" for o, n in zip(owners, counts, strict=True))
            said.append(f"{name} is in {len(owners)} of {count_of(task.n_clusters, 'source')} only: {where} tiles.")
    if not has_empty:
        said.append(f"No tile is of class {empty!r}: {WITHOUT_EMPTY} is {SOURCE_OUT} itself.")
    if task.n_unlabelled:
        said.append(f"{task.n_unlabelled} tiles without a class were set aside.")
    for name, column in list(columns.items())[: 3 if has_empty else 2]:
        # Said above, once; of the third column it would be said of the empty tiles.
        said += [f"{name}: {warning}" for warning in column.warnings if "were set aside" not in warning]
    return tuple(said)
