"""Few-shot classification: what a handful of labelled tiles a class teach, over many drawn handfuls."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histokin.artefacts import plain
from histokin.errors import EvaluationError
from histokin.evaluate.comparison import Figure, Row, Score, check_rows, compare_scores
from histokin.evaluate.intervals import (
    N_DRAWS,
    class_strata,
    mean_of_classes,
    patient_weights,
    ratio,
    resampled,
)
from histokin.evaluate.probes.episodes import LabelledRows, asked, draw_episodes, is_made, labelled_rows
from histokin.evaluate.probes.folds import Split
from histokin.evaluate.probes.outcome import ProbeTask, class_task
from histokin.evaluate.vectors import check_vectors
from histokin.progress import Reporter, silent

SHOTS = (1, 2, 4, 8, 16, 32)
N_EPISODES = 1000
INTERVAL_SHOTS = 16
"""Where the patients' interval is taken, if so many shots could be made."""
METRICS = ("balanced_accuracy", "accuracy")
_ALONE = "features"
_WHERE = "evaluation"
_TINY = 1e-12  # a shorter vector is zero


@dataclass(frozen=True, slots=True)
class ShotFigure:
    """One metric of one encoder at one number of shots, over the episodes.

    Episodes share their queries, so the spread tells how much the choice of support matters and is no interval: more
    patients would not narrow it. `FewShot.intervals` holds those.

    Attributes:
        name: the encoder's.
        shots: support tiles a class.
        metric: balanced_accuracy (mean recall) or accuracy, over all tiles of an episode's query patients.
        median: over episodes.
        low: 5 % of episodes lie below.
        high: 95 % of them do.
        n_episodes: that could be made.
        n_query_patients: of an episode, median.
        n_query_tiles: of an episode, median (a sample of them stands for all, see `few_shot`).
        chance: 1 / C; for accuracy the share of the commonest class among all rows.
    """

    name: str
    shots: int
    metric: str
    median: float
    low: float
    high: float
    n_episodes: int
    n_query_patients: float
    n_query_tiles: float
    chance: float


@dataclass(frozen=True, slots=True)
class ShotDifference:
    """The reference minus another encoder, episode by episode on the same support and queries.

    The 5 and 95 % are of episodes, not of patients: an interval over episodes without 0 does not say that the
    difference would hold on other patients. `Figure.delta` of `FewShot.intervals` speaks of that.

    Attributes:
        name: the other encoder's.
        reference: the reference's.
        shots: support tiles a class.
        metric: as in `ShotFigure`.
        median: of the difference over episodes.
        low: 5 % of episodes lie below.
        high: 95 % of them do.
        n_episodes: that could be made.
    """

    name: str
    reference: str
    shots: int
    metric: str
    median: float
    low: float
    high: float
    n_episodes: int


@dataclass(frozen=True, slots=True)
class FewShot:
    """Few-shot figures of one task.

    Attributes:
        figures: encoder by encoder, shots by shots, metric by metric.
        differences: of each encoder but the reference, in the same order.
        intervals: at `interval_shots`, metric by metric: each patient's mean over the episodes that asked it, pooled
            over patients, with a patient bootstrap (the supports stay as drawn), and the reference's lead.
        interval_shots: 16, or the most shots that could be made.
        reference: the encoder that others are compared with.
        protocol: everything needed to repeat it.
        warnings: sentences a reader must see beside the figures.
    """

    figures: tuple[ShotFigure, ...]
    differences: tuple[ShotDifference, ...]
    intervals: tuple[Figure, ...]
    interval_shots: int
    reference: str
    protocol: dict[str, Any]
    warnings: tuple[str, ...]

    def figure(self, shots: int, metric: str = METRICS[0], name: str | None = None) -> ShotFigure:
        """One figure, by default of the reference.

        Raises:
            KeyError: there is none; the known ones are named.
        """
        wanted = self.reference if name is None else name
        for found in self.figures:
            if (found.name, found.shots, found.metric) == (wanted, shots, metric):
                return found
        known = sorted({(f.name, f.shots, f.metric) for f in self.figures})
        raise KeyError(f"no figure {metric} of {wanted} at {shots} shots; there are {known}")

    def to_json(self) -> dict[str, Any]:
        """Plain data; NaN becomes None."""
        return plain(self)


def simple_shot(support: np.ndarray, support_truth: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The class whose mean is nearest (Wang et al. 2019, SimpleShot, CL2N).

    With m the mean of the support and u(x) = (x - m) / ||x - m||, class c has the prototype p_c = mean of u over its
    support (not normalised again), and a query gets argmin_c ||u(q) - p_c||; equal distances take the lower code. A
    vector that equals m stays zero.

    Args:
        support: (n, D) floating.
        support_truth: (n,) integer codes.
        query: (Q, D) floating.

    Returns:
        (Q,) codes found in `support_truth`.

    Raises:
        ValueError: shapes do not fit or the support is empty.
    """
    if support.ndim != 2 or query.ndim != 2 or support.shape[1] != query.shape[1]:
        raise ValueError(f"need (n, D) and (Q, D), got {support.shape} and {query.shape}")
    if not len(support) or support_truth.shape != (len(support),):
        raise ValueError(f"need a code for each of at least one row, got {support_truth.shape} for {len(support)}")
    mean = support.astype(np.float64).mean(axis=0)
    z = _unit(support - mean)
    codes = np.unique(support_truth)
    prototypes = np.stack([z[support_truth == code].mean(axis=0) for code in codes])
    return codes[_nearest(_unit(query - mean) @ prototypes.T, prototypes)]


def few_shot(
    features: np.ndarray | Mapping[str, np.ndarray],
    labels: Sequence[Any] | np.ndarray,
    patients: Sequence[Any] | np.ndarray,
    *,
    ids: Sequence[Any] | np.ndarray | None = None,
    shots: Sequence[int] = SHOTS,
    n_episodes: int = N_EPISODES,
    max_queries: int = 4000,
    reference: str | None = None,
    seed: int = 0,
    progress: Reporter = silent,
) -> FewShot:
    """SimpleShot over drawn supports; what is asked never shares a patient with the support.

    An episode first sets patients aside so that every class keeps one to be asked about: class by class, the one of
    fewest patients first, a patient drawn among those that leave each class another (none if one set aside already
    has the class). From the others a class's support is drawn from distinct patients first: a tile of each in random
    order, then a second of each, and so on; a patient may serve several classes. Fewer shots are the first of more.
    All patients outside the support are asked, all their tiles. An episode that cannot be made so (a class has too
    few tiles in the patients that are left) is left out and counted.

    Where there are more than `max_queries` labelled rows, those asked are drawn once for all episodes, of each
    patient's rows of a class the same share and at least one, and weigh as many as they stand for.

    Args:
        features: (M, D) floating, or several encoders' by name: all get the same episodes.
        labels: (M,) text or numbers; None, "" and NaN are unlabelled and set aside.
        patients: (M,).
        ids: (M,) what tells the rows of a patient apart, such as slide and tile, so that the draws do not depend on
            the order of rows; without it a patient's rows are known by the order they come in.
        shots: support tiles a class.
        n_episodes: drawn.
        max_queries: rows asked at most, but for one of each class of each patient.
        reference: the encoder that the others are compared with; by default the first.
        seed: of the draws and the bootstrap.
        progress: told each encoder.

    Returns:
        `FewShot`.

    Raises:
        EvaluationError: a class has a single patient, or no episode could be made; or labels or ids are missing.
        StoreError: a feature is not finite.
        ValueError: shapes, names or settings do not fit.
    """
    encoders = {_ALONE: features} if isinstance(features, np.ndarray) else dict(features)
    main = _checked(encoders, len(labels), shots, min(n_episodes, max_queries), reference)
    task = class_task(labels, patients, split=Split(unit="patient"))
    labelled = labelled_rows(task, ids, max_queries, seed)
    for name, x in encoders.items():
        check_vectors(name, x, labelled.rows)
    ladder = tuple(sorted(set(shots)))
    episodes = draw_episodes(
        labelled.truth, labelled.patients, task.classes, wanted=ladder[-1], n_episodes=n_episodes, seed=seed
    )
    made = [s for s in ladder if is_made(episodes, s).any()]
    if not made:
        raise EvaluationError(
            f"no episode left every class tiles to learn from ({ladder[0]} at least) and a patient to ask",
            _WHERE,
            "Leave out the classes with the fewest patients or tiles, add patients, or ask for fewer shots.",
        )
    at = INTERVAL_SHOTS if INTERVAL_SHOTS in made else made[-1]
    answers: dict[str, _Answers] = {}
    with progress("few-shot", len(encoders), "encoders") as line:
        for name, x in encoders.items():
            answers[name] = _answers(x, labelled, episodes, ladder, at)
            line.advance(1, name)
    n_asked = asked(labelled, episodes, ladder)
    chance = {"balanced_accuracy": 1 / len(task.classes), "accuracy": max(task.prevalence.values())}
    return FewShot(
        figures=tuple(
            f for name, found in answers.items() for f in _figures(name, found.values, ladder, n_asked, chance)
        ),
        differences=tuple(
            ShotDifference(name, main, s, metric, *_spread(delta))
            for name, found in answers.items()
            if name != main
            for s, metric, delta in _each(answers[main].values - found.values, ladder)
        ),
        intervals=_intervals(answers, main, chance, seed),
        interval_shots=at,
        reference=main,
        protocol={
            "probe": "few-shot",
            "rule": "SimpleShot",
            "held_out": "patient",
            "shots": ladder,
            "n_episodes": n_episodes,
            "n_rows": len(task),
            "n_unlabelled": task.n_unlabelled,
            "n_asked": len(labelled.queries),
            "max_queries": max_queries,
            "n_patients": task.n_clusters,
            "prevalence": task.prevalence,
            "interval_shots": at,
            "cluster": "patient",
            "resampled": resampled(class_strata(answers[main].sizes)),
            "bootstrap_draws": N_DRAWS,
            "seed": seed,
        },
        warnings=_warnings(task, episodes, ladder, at),
    )


@dataclass(frozen=True, slots=True)
class _Answers:
    """What one encoder made of all episodes.

    Attributes:
        values: (E, S, metrics) float64, NaN where an episode could not be made.
        hits: (P, C) float64 right answers of each patient and class, mean over the episodes of the interval's shots
            that asked the patient; patients who were never asked are left out.
        sizes: (P, C) float64 rows of them.
    """

    values: np.ndarray
    hits: np.ndarray
    sizes: np.ndarray


def _answers(x: np.ndarray, labelled: LabelledRows, episodes: np.ndarray, shots: Sequence[int], at: int) -> _Answers:
    """Ask all queries of all episodes; at no time more than the (Q, D) queries and one episode are held."""
    query = x[labelled.rows[labelled.queries]].astype(np.float64)
    shift = query.mean(axis=0)  # of no effect but on rounding: what follows subtracts squares
    query -= shift
    squares = (query**2).sum(axis=1)
    truth, patients = labelled.truth[labelled.queries], labelled.patients[labelled.queries]
    n_classes, n_patients = episodes.shape[1], int(labelled.patients.max()) + 1
    values = np.full((len(episodes), len(shots), len(METRICS)), np.nan)
    n_right, n_asked = np.zeros(len(query)), np.zeros(n_patients)
    for e, support in enumerate(episodes):
        made = [s for s in shots if (support[:, s - 1] >= 0).all()]  # the first of `shots`
        if not made:
            continue
        z = x[labelled.rows[support[:, : made[-1]]]].astype(np.float64) - shift  # (C, shots, D)
        means, prototypes = zip(*(_prototypes(z[:, :s]) for s in made), strict=True)
        products = query @ np.concatenate([*prototypes, np.stack(means)]).T  # all shots in one pass over the queries
        for i, (s, mean, own) in enumerate(zip(made, means, prototypes, strict=True)):
            norm = np.sqrt(np.maximum(squares - 2 * products[:, i - len(made)] + mean @ mean, _TINY**2))
            cosine = (products[:, i * n_classes : (i + 1) * n_classes] - own @ mean) / norm[:, None]
            is_right = _nearest(cosine, own) == truth
            is_asked = np.ones(n_patients, dtype=bool)
            is_asked[labelled.patients[support[:, :s]]] = False
            weights = labelled.weights * is_asked[patients]
            right = np.bincount(truth, weights * is_right, n_classes)
            total = np.bincount(truth, weights, n_classes)
            values[e, i] = (right / total).mean(), right.sum() / total.sum()
            if s == at:
                n_right += is_right & is_asked[patients]
                n_asked += is_asked
    shares = labelled.weights * n_right / np.maximum(n_asked, 1)[patients]
    hits, sizes = np.zeros((n_patients, n_classes)), np.zeros((n_patients, n_classes))
    np.add.at(hits, (patients, truth), shares)
    np.add.at(sizes, (patients, truth), labelled.weights)
    return _Answers(values, hits[n_asked > 0], sizes[n_asked > 0])


def _prototypes(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(D,) mean and (C, D) prototypes of a (C, shots, D) support."""
    mean = z.mean(axis=(0, 1))
    return mean, _unit(z - mean).mean(axis=1)


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), _TINY)


def _nearest(cosine: np.ndarray, prototypes: np.ndarray) -> np.ndarray:
    """(Q,) prototype at the least distance from unit vectors, of their (Q, C) products with the prototypes."""
    return ((prototypes**2).sum(axis=1) - 2 * cosine).argmin(axis=1)


def _each(values: np.ndarray, shots: Sequence[int]) -> Iterator[tuple[int, str, np.ndarray]]:
    """Shots, metric and (E,) values."""
    for i, s in enumerate(shots):
        for m, metric in enumerate(METRICS):
            yield s, metric, values[:, i, m]


def _spread(values: np.ndarray) -> tuple[float, float, float, int]:
    """Median, 5 and 95 % (type 7) and number of the episodes that could be made."""
    made = values[np.isfinite(values)]
    if not len(made):
        return np.nan, np.nan, np.nan, 0
    median, low, high = np.quantile(made, [0.5, 0.05, 0.95]).tolist()
    return median, low, high, len(made)


def _figures(
    name: str,
    values: np.ndarray,
    shots: Sequence[int],
    n_asked: list[tuple[float, float]],
    chance: Mapping[str, float],
) -> list[ShotFigure]:
    sizes = dict(zip(shots, n_asked, strict=True))
    return [
        ShotFigure(name, s, metric, *_spread(own), *sizes[s], chance[metric]) for s, metric, own in _each(values, shots)
    ]


def _intervals(
    answers: Mapping[str, _Answers], main: str, chance: Mapping[str, float], seed: int
) -> tuple[Figure, ...]:
    rows = [Row(name, "encoder", _scores(found.hits, found.sizes)) for name, found in answers.items()]
    sizes = answers[main].sizes
    weights = patient_weights(len(sizes), seed=seed, strata=class_strata(sizes))
    return compare_scores(rows, reference=main, weights=weights, cluster="patient", chance=chance, seed=seed)


def _scores(hits: np.ndarray, sizes: np.ndarray) -> tuple[Score, ...]:
    balanced, accuracy = METRICS
    of_class, of_patient = sizes.sum(axis=0), sizes.sum(axis=1)
    return (
        Score(balanced, mean_of_classes(hits, sizes), (hits / of_class).sum(axis=1) / len(of_class)),
        Score(accuracy, ratio(hits.sum(axis=1), of_patient), hits.sum(axis=1) / of_patient.sum(), of_patient),
    )


def _warnings(task: ProbeTask, episodes: np.ndarray, shots: Sequence[int], at: int) -> tuple[str, ...]:
    said = []
    is_split = is_made(episodes, 1)
    if not is_split.all():
        said.append(
            f"In {(~is_split).sum()} of {len(episodes)} episodes no patients could be set aside for every class, so "
            "they were left out."
        )
    for s in shots:
        is_short = (episodes[is_split, :, s - 1] < 0).sum(axis=0)
        if is_short.any():
            names = ", ".join(name for name, n in zip(task.classes, is_short, strict=True) if n)
            n_lost = int((~is_made(episodes[is_split], s)).sum())
            said.append(
                f"At {s} shots {n_lost} of {len(episodes)} episodes were left out for want of tiles of {names}."
            )
    if at != INTERVAL_SHOTS:
        said.append(f"The patients' interval is at {at} shots in place of {INTERVAL_SHOTS}.")
    if task.n_unlabelled:
        said.append(f"{task.n_unlabelled} rows without a label were set aside.")
    return tuple(said)


def _checked(
    encoders: Mapping[str, np.ndarray], n_rows: int, shots: Sequence[int], least: int, reference: str | None
) -> str:
    """The reference's name, once the settings have been found to fit."""
    main = check_rows(encoders, None, reference)
    if not shots or min(shots) < 1 or least < 1:
        raise ValueError(f"need shots, episodes and queries >= 1, got shots {tuple(shots)}")
    for name, x in encoders.items():
        if x.ndim != 2 or len(x) != n_rows:
            raise ValueError(f"{name} needs ({n_rows}, D) features, got {x.shape}")
    return main
