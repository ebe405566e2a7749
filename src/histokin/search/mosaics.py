"""Mosaics: the few tiles that stand for a slide, chosen as published engines do or by medoids."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from histokin.errors import SearchError
from histokin.search.clusters import k_means, nearest, plane_k_means, spherical_k_means, unit_on_grid
from histokin.search.exact import row_norms
from histokin.streams import stream

MosaicMethod = Literal["medoids", "greedy", "yottixel", "fish", "retccl"]
_RATES = {"yottixel": 0.05, "fish": 0.05, "retccl": 0.2}
_PAIRED = 1024  # tiles whose pairs tell what a usual similarity within the slide is
_STEP = 256  # tiles that are compared with the kept ones at a time


@dataclass(frozen=True, slots=True)
class MosaicSpec:
    """How a slide's mosaic is chosen.

        medoids   spherical k-means on the embeddings, of each group the tile nearest to its centre: the default
        greedy    tiles in a seeded order, without those too similar to one that was kept (the idea of SPLICE and SDM)
        yottixel  9 groups, of each max(1, 5 %) tiles spread over the slide (Kalra et al. 2020)
        fish      9 groups, of each 5 %, and every tile of a group too small for one (Chen et al. 2022, released code)
        retccl    9 groups, of each max(1, 20 %) (the independent re-implementation; the paper published no code)

    The released codes of Yottixel and FISH group by colour (mean RGB at 5x; three 256-bin histograms), that of RetCCL
    by embeddings: give `features` to `choose_mosaic` for the former. Two things are not followed: FISH stores the
    truncated centre of a spatial group, which need not lie on any tile; here it is the nearest tile, as in the other
    two. And which tiles the published seeds of scikit-learn would draw is not repeated.

    Attributes:
        method: see above.
        n_tiles: medoids, greedy: at most so many; 64 of 512 dimensions take 64 kB a slide.
        n_groups: of the published methods.
        rate: of the published methods; None is the published one.
        similarity: greedy: a tile as similar as this to a kept one is dropped; None is the 90th percentile of pairs
            within the slide.
        seed: of all draws.
    """

    method: MosaicMethod = "medoids"
    n_tiles: int = 64
    n_groups: int = 9
    rate: float | None = None
    similarity: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(MosaicMethod):
            raise ValueError(f"method must be one of {', '.join(get_args(MosaicMethod))}, got {self.method!r}")
        if self.n_tiles < 1 or self.n_groups < 1:
            raise ValueError(f"n_tiles and n_groups must be at least 1, got {self.n_tiles} and {self.n_groups}")
        if self.rate is not None and not 0 < self.rate <= 1:
            raise ValueError(f"rate must lie in (0, 1], got {self.rate}")


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The tiles chosen, in the order of tile ids.

    Attributes:
        rows: (m,) int64 positions in the vectors given.
        tile: (m,) int64 tile ids.
        weights: (m,) float64, the share of the slide's tiles that each stands for; they sum to 1.
    """

    rows: np.ndarray
    tile: np.ndarray
    weights: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def choose_mosaic(
    vectors: np.ndarray,
    tile: np.ndarray,
    spec: MosaicSpec | None = None,
    *,
    coords: np.ndarray | None = None,
    features: np.ndarray | None = None,
) -> Mosaic:
    """Choose the tiles that stand for a slide.

    The choice depends on the tiles, their ids and the spec alone: not on the order of rows, threads or blocks. Groups
    are found on a bounded draw of tiles, so that the cost grows with one pass over the slide.

    Args:
        vectors: (n, d) floating embeddings, any scale; n may be 0.
        tile: (n,) int64 ids, each once.
        spec: None is the default: at most 64 medoids.
        coords: (n, 2) int64 level-0 px; needed by the three published methods.
        features: (n, f) floating that the published methods group by; None is the unit embeddings.

    Raises:
        SearchError: a published method without coordinates.
        StoreError: a vector is zero or not finite.
        ValueError: shapes do not fit, or a tile id occurs twice.
    """
    spec = spec or MosaicSpec()
    tile = np.asarray(tile, dtype=np.int64)
    if vectors.ndim != 2 or tile.shape != (len(vectors),) or len(np.unique(tile)) != len(tile):
        raise ValueError(f"need (n, d) vectors and n different tile ids, got {vectors.shape} and {tile.shape}")
    norms = row_norms(vectors, "cosine", "mosaic")
    if not len(vectors):
        empty = np.zeros(0, dtype=np.int64)
        return Mosaic(empty, empty, np.zeros(0))
    order = tile.argsort()
    if spec.method in ("medoids", "greedy"):
        choose = _medoids if spec.method == "medoids" else _greedy
        rows, weights = choose(vectors[order], spec)
    else:
        grouped = features if features is not None else vectors / norms[:, None].astype(np.float32)
        if len(grouped) != len(vectors):
            raise ValueError(f"{len(grouped)} features for {len(vectors)} tiles")
        rows, weights = _spread(grouped[order], _places(coords, spec)[order], spec)
    return Mosaic(order[rows], tile[order[rows]], weights)


def _medoids(vectors: np.ndarray, spec: MosaicSpec) -> tuple[np.ndarray, np.ndarray]:
    """(m,) rows nearest to the centres of at most `n_tiles` groups, ascending, and (m,) shares of the groups."""
    if len(vectors) <= spec.n_tiles:
        return np.arange(len(vectors)), np.full(len(vectors), 1 / len(vectors))
    found = spherical_k_means(vectors, spec.n_tiles, rng=stream(spec.seed, "medoids"))
    order = np.lexsort((np.arange(len(vectors)), -found.closeness, found.labels))
    groups, first, sizes = np.unique(found.labels[order], return_index=True, return_counts=True)
    rows = order[first[: len(groups)]]
    ascending = rows.argsort()
    return rows[ascending], sizes[ascending] / len(vectors)


def allocation(sizes: np.ndarray, rate: float, *, small: Literal["one", "all"] = "one") -> np.ndarray:
    """How many tiles a group gives: the truncated share, and of a group too small for one either one or all.

    Args:
        sizes: (G,) tiles of each group.
        rate: share of a group.
        small: `one` in Yottixel and RetCCL; `all` in the code of FISH, where an unsuccessful division leaves the
            whole group.
    """
    sizes = np.asarray(sizes, dtype=np.int64)
    n_each = np.floor(sizes * rate + 1e-9).astype(np.int64)
    return np.where(n_each > 0, n_each, np.minimum(sizes, 1) if small == "one" else sizes)


def nearest_free_members(places: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """For each centre in turn the nearest place not taken yet; of equally near ones the first.

    Args:
        places: (n, 2) numbers.
        centres: (c <= n, 2) numbers.

    Returns:
        (c,) int64 rows of `places`.
    """
    places, free = np.asarray(places, dtype=np.float64), np.zeros(len(places))
    picked = np.empty(len(centres), dtype=np.int64)
    for number, (x, y) in enumerate(np.asarray(centres, dtype=np.float64).tolist()):
        picked[number] = ((places[:, 0] - x) ** 2 + (places[:, 1] - y) ** 2 + free).argmin()
        free[picked[number]] = np.inf
    return picked


def _greedy(vectors: np.ndarray, spec: MosaicSpec) -> tuple[np.ndarray, np.ndarray]:
    """Rows that no earlier kept row resembles, in a seeded order, and the share of tiles nearest to each.

    A seeded order and not that of the tiles: where `n_tiles` ends the walk, what was kept is spread over the slide.
    """
    rng = stream(spec.seed, "greedy")
    limit = spec.similarity if spec.similarity is not None else _usual_similarity(vectors, rng)
    walk = rng.permutation(len(vectors))
    kept: list[int] = []
    units = np.zeros((0, vectors.shape[1]))
    for start in range(0, len(walk), _STEP):
        rows = walk[start : start + _STEP]
        step = unit_on_grid(vectors[rows])
        unlike = (step @ units.T).max(axis=1, initial=-np.inf) < limit
        rows, step = rows[unlike], step[unlike]
        is_free = np.ones(len(rows), dtype=bool)
        for number in range(len(rows)):
            if is_free[number] and len(kept) < spec.n_tiles:
                kept.append(int(rows[number]))
                is_free &= step @ step[number] < limit
        units = unit_on_grid(vectors[kept])
        if len(kept) == spec.n_tiles:
            break
    rows = np.sort(kept)
    shares = np.bincount(nearest(vectors, unit_on_grid(vectors[rows])).labels, minlength=len(rows)) / len(vectors)
    return rows, shares


def _usual_similarity(vectors: np.ndarray, rng: np.random.Generator) -> float:
    """The 90th percentile of the similarity of two tiles of the slide."""
    drawn = np.sort(rng.choice(len(vectors), min(_PAIRED, len(vectors)), replace=False))
    units = unit_on_grid(vectors[drawn])
    above = np.triu_indices(len(units), 1)
    return float(np.quantile((units @ units.T)[above], 0.9)) if len(units) > 1 else 1.0


def _spread(features: np.ndarray, places: np.ndarray, spec: MosaicSpec) -> tuple[np.ndarray, np.ndarray]:
    """Groups by features, of each some tiles spread over the slide; (m,) rows ascending and their shares."""
    found = k_means(features, spec.n_groups, rng=stream(spec.seed, "groups"), n_init=10)
    sizes = np.bincount(found.labels, minlength=len(found.centres))
    rate = _RATES[spec.method] if spec.rate is None else spec.rate
    n_each = allocation(sizes, rate, small="all" if spec.method == "fish" else "one")
    rows, weights = [], []
    for group, n in enumerate(n_each.tolist()):
        members = np.flatnonzero(found.labels == group)
        if n == len(members):
            picked = np.arange(n)
        else:
            centres = plane_k_means(places[members], n, rng=stream(spec.seed, "places", group))
            picked = nearest_free_members(places[members], centres)
        rows.append(members[picked])
        weights.append(np.full(len(picked), len(members) / max(len(picked), 1) / len(features)))
    chosen = np.concatenate(rows)
    return np.sort(chosen), np.concatenate(weights)[chosen.argsort()]


def _places(coords: np.ndarray | None, spec: MosaicSpec) -> np.ndarray:
    if coords is None or (np.asarray(coords) < 0).any():
        raise SearchError(
            f"the mosaic {spec.method} spreads tiles over the slide, but tiles have no coordinates",
            "the tiles",
            "Choose the mosaic medoids or greedy, or give tiles with coordinates.",
        )
    return np.asarray(coords, dtype=np.int64)
