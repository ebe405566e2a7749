"""Whether tiles that lie near each other are alike: the average descriptor distance ratio of pairs inside slides."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from histokin.artefacts import plain
from histokin.errors import EvaluationError
from histokin.evaluate.comparison import Figure, Kind, Row, Score, check_rows, compare_scores, find_figure, mean_scores
from histokin.evaluate.intervals import N_DRAWS, Statistic, patient_weights
from histokin.evaluate.items import refuse_missing, text_codes
from histokin.evaluate.spatial_pairs import FAR_UM, N_PAIRS, NEAR_UM, PairLimits, SlidePairs, draw_pairs
from histokin.evaluate.vectors import check_vectors
from histokin.progress import Reporter, silent

_WHERE = "evaluation"
_FEW_PAIRS = 50

Features = np.ndarray | Sequence[np.ndarray]


@dataclass(frozen=True, slots=True)
class SlideRatio:
    """One slide's part in a ratio.

    Attributes:
        slide: its id.
        n_tiles: of it.
        limits: in use.
        n_near: pairs measured.
        n_far: pairs measured.
        near: mean descriptor distance of near pairs.
        far: of distant pairs.
        ratio: far / near; NaN where near tiles are identical.
    """

    slide: str
    n_tiles: int
    limits: PairLimits
    n_near: int
    n_far: int
    near: float
    far: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Spatial:
    """Distance ratios of encoders and floors on the same pairs.

    Attributes:
        figures: by row, `addr` (all slides' pairs pooled) and `addr_median` (median of the slides' ratios).
        slides: by row name, slide by slide; the first member of a floor of several seeds.
        dropped: slides without pairs, by id, with the reason.
        protocol: everything needed to repeat it.
        warnings: sentences a reader must see beside the figures.
        reference: name of the encoder that others are compared with.
        scored: what each row scored, for other references.
    """

    figures: tuple[Figure, ...]
    slides: Mapping[str, tuple[SlideRatio, ...]]
    dropped: Mapping[str, str]
    protocol: dict[str, Any]
    warnings: tuple[str, ...]
    reference: str
    scored: tuple[Row, ...]

    def against(self, reference: str) -> tuple[Figure, ...]:
        """All figures, the others compared with another reference."""
        how = self.protocol
        return _figures(self.scored, reference, how["n_clusters"], how["cluster"], how["seed"])

    def figure(self, metric: str = "addr", name: str | None = None) -> Figure:
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
                "slides": self.slides,
                "dropped": self.dropped,
            }
        )


def compare_spatial(
    encoders: Mapping[str, np.ndarray],
    slides: Sequence[Any] | np.ndarray,
    positions_um: np.ndarray,
    *,
    floors: Mapping[str, Features] | None = None,
    reference: str | None = None,
    near_um: float = NEAR_UM,
    far_um: float = FAR_UM,
    pitch_um: float = 0.0,
    n_pairs: int | None = N_PAIRS,
    is_unit: bool = True,
    clusters: Sequence[Any] | np.ndarray | None = None,
    cluster: str = "patient",
    seed: int = 0,
    progress: Reporter = silent,
) -> Spatial:
    """Average descriptor distance ratio (Gildenblat & Klaiman 2019): mean distance of distant pairs over that of near.

        ADDR = mean_{far pairs} ||z_i - z_j|| / mean_{near pairs} ||z_i - z_j||

    pooled over all slides, pairs never leaving a slide; 1 = no spatial structure, larger is more. It rewards stain and
    scanner gradients too: print the floors beside it and never select a model by it alone.

    Args:
        encoders: (N, D) features by name.
        slides: (N,) slide ids, also the seeds of each slide's pairs.
        positions_um: (N, 2) tile centres in um.
        floors: features by name; a list of arrays counts as the mean of its members' figures.
        reference: the encoder others are compared with; by default the first.
        near_um, far_um, pitch_um: see `pair_limits`.
        n_pairs: pairs of each kind a slide at most, equally many of both; None takes all pairs.
        is_unit: distances of unit vectors; False of the vectors as they are.
        clusters: (N,) unit of inference, such as patients; by default the slides. One value a slide.
        cluster: its word.
        seed: of pairs, bootstrap and swap test.
        progress: told each row.

    Returns:
        `Spatial`.

    Raises:
        EvaluationError: no slide has both near and distant pairs, or a slide has two clusters.
        StoreError: a feature is not finite, or zero where unit vectors are asked for.
        ValueError: shapes or names do not fit.
    """
    main = check_rows(encoders, floors, reference)
    pairs, dropped = draw_pairs(
        slides, positions_um, near_um=near_um, far_um=far_um, pitch_um=pitch_um, n_pairs=n_pairs, seed=seed
    )
    word = "slide" if clusters is None else cluster
    codes = _slide_clusters(pairs, slides if clusters is None else clusters, word)
    n_clusters = int(codes.max()) + 1
    rows: list[Row] = []
    ratios: dict[str, tuple[SlideRatio, ...]] = {}
    asked: list[tuple[str, Kind, Features]] = []
    asked.extend((name, "encoder", x) for name, x in encoders.items())
    asked.extend((name, "floor", x) for name, x in (floors or {}).items())
    with progress("evaluate", len(asked), "rows") as line:
        for name, kind, features in asked:
            members = [features] if isinstance(features, np.ndarray) else list(features)
            found = [slide_ratios(_checked(name, x, len(slides)), pairs, is_unit=is_unit, name=name) for x in members]
            rows.append(Row(name, kind, mean_scores([_scores(one, codes, n_clusters) for one in found])))
            ratios[name] = found[0]
            line.advance(1, name)
    return Spatial(
        figures=_figures(rows, main, n_clusters, word, seed),
        slides=ratios,
        dropped=dropped,
        protocol={
            "measure": "average descriptor distance ratio",
            "vectors": "unit" if is_unit else "as they are",
            "near_um": near_um,
            "far_um": far_um,
            "pitch_um": pitch_um,
            "pairs": "all" if n_pairs is None else f"at most {n_pairs} of each kind a slide, equally many",
            "n_slides": len(pairs),
            "n_dropped": len(dropped),
            "n_fallback": sum(one.limits.is_fallback for one in pairs),
            "cluster": word,
            "n_clusters": n_clusters,
            "bootstrap_draws": N_DRAWS,
            "seed": seed,
        },
        warnings=_warnings(pairs, dropped, far_um),
        reference=main,
        scored=tuple(rows),
    )


def _figures(rows: Sequence[Row], reference: str, n_clusters: int, word: str, seed: int) -> tuple[Figure, ...]:
    return compare_scores(
        rows,
        reference=reference,
        weights=patient_weights(n_clusters, seed=seed),
        cluster=word,
        chance={"addr": 1.0, "addr_median": 1.0},
        seed=seed,
    )


def slide_ratios(
    features: np.ndarray, pairs: Sequence[SlidePairs], *, is_unit: bool = True, name: str = "features"
) -> tuple[SlideRatio, ...]:
    """Mean descriptor distances of each slide's pairs.

    Args:
        features: (N, D) floating, all rows.
        pairs: of `draw_pairs`.
        is_unit: of unit vectors.
        name: of the features, for errors.

    Raises:
        StoreError: a vector is not finite, or zero where unit vectors are asked for.
    """
    found = []
    for one in pairs:
        x = _vectors(name, features, one.rows, is_unit=is_unit)
        place = {"near": np.searchsorted(one.rows, one.near), "far": np.searchsorted(one.rows, one.far)}
        near, far = (_mean_distance(x, place[kind]) for kind in ("near", "far"))
        found.append(
            SlideRatio(
                one.slide,
                len(one.rows),
                one.limits,
                len(one.near),
                len(one.far),
                near,
                far,
                far / near if near > 0 else math.nan,
            )
        )
    return tuple(found)


def _mean_distance(x: np.ndarray, pairs: np.ndarray) -> float:
    step = max(1, 2**22 // x.shape[1])
    total = 0.0
    for start in range(0, len(pairs), step):
        part = pairs[start : start + step]
        total += float(np.linalg.norm(x[part[:, 0]] - x[part[:, 1]], axis=1).sum())
    return total / len(pairs)


def _vectors(name: str, features: np.ndarray, rows: np.ndarray, *, is_unit: bool) -> np.ndarray:
    check_vectors(name, features, rows, needs_direction=is_unit)
    x = np.asarray(features[rows], dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True) if is_unit else x


def _scores(ratios: tuple[SlideRatio, ...], clusters: np.ndarray, n_clusters: int) -> tuple[Score, ...]:
    sums = np.zeros((4, n_clusters))
    for one, code in zip(ratios, clusters, strict=True):
        sums[:, code] += [one.far * one.n_far, one.n_far, one.near * one.n_near, one.n_near]

    def pooled(weights: np.ndarray) -> np.ndarray:
        far, n_far, near, n_near = (weights @ row for row in sums)
        above, below = far * n_near, near * n_far
        return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)

    return Score("addr", pooled), Score("addr_median", _weighted_median([one.ratio for one in ratios], clusters))


def _weighted_median(values: list[float], clusters: np.ndarray) -> Statistic:
    """Median of each resample, a value repeated as often as its cluster was drawn; NaN values left out."""
    known = np.flatnonzero(np.isfinite(values))
    known = known[np.argsort(np.array(values)[known], kind="stable")]
    ordered, owners = np.array(values)[known], clusters[known]

    def value(weights: np.ndarray) -> np.ndarray:
        if not len(ordered):
            return np.full(len(weights), np.nan)
        reached = np.cumsum(weights[:, owners], axis=1)
        total = reached[:, -1:]
        # Middle places (n - 1) // 2 and n // 2 of the repeated values.
        low = (reached > (total - 1) // 2).argmax(axis=1)
        high = (reached > total // 2).argmax(axis=1)
        return np.where(total[:, 0] > 0, (ordered[low] + ordered[high]) / 2, np.nan)

    return value


def _slide_clusters(pairs: Sequence[SlidePairs], clusters: Sequence[Any] | np.ndarray, word: str) -> np.ndarray:
    """(slides,) int64 codes of the cluster each slide belongs to."""
    names = []
    for one in pairs:
        refuse_missing([clusters[row] for row in one.rows], word, f"tiles of slide {one.slide}")
        own = {str(clusters[row]) for row in one.rows}
        if len(own) > 1:
            raise EvaluationError(
                f"slide {one.slide} belongs to {len(own)} {word}s", _WHERE, f"Give each slide one {word}."
            )
        names.append(own.pop())
    return text_codes(names)[1]


def _checked(name: str, features: np.ndarray, n: int) -> np.ndarray:
    if features.ndim != 2 or len(features) != n:
        raise ValueError(f"{name} has shape {features.shape} for {n} tiles")
    return features


def _warnings(pairs: Sequence[SlidePairs], dropped: Mapping[str, str], far_um: float) -> tuple[str, ...]:
    said = []
    small = [one for one in pairs if one.limits.is_fallback]
    if small:
        near = [one.limits.near_um for one in small]
        far = [one.limits.far_um for one in small]
        said.append(
            f"{len(small)} of {len(pairs)} slides are no larger than {far_um:.0f} um: their near limit is "
            f"{min(near):.0f} to {max(near):.0f} um, their far limit {min(far):.0f} to {max(far):.0f} um."
        )
    few = [one.slide for one in pairs if min(one.n_near_possible, one.n_far_possible) < _FEW_PAIRS]
    if few:
        said.append(
            f"{len(few)} slides have fewer than {_FEW_PAIRS} near or distant pairs, so their ratios say little: "
            f"{', '.join(few[:5])}."
        )
    if dropped:
        said.append(f"{len(dropped)} slides have no pairs and were left out: {', '.join(sorted(dropped)[:5])}.")
    return tuple(said)
