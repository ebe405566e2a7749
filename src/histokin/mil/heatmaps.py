"""What a classifier looked at: tile values as maps, top tiles, and whether the map tells the truth about the model.

Pure functions of arrays; `predicting.map_tiles` gives them, `report.mil` paints them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histokin.evaluate.intervals import Interval, Statistic, bootstrap_interval, patient_weights, ratio
from histokin.evaluate.items import text_codes

CLASS_BRANCHES = frozenset({"clam_mb", "dsmil"})
"""Models whose k-th attention branch belongs to the k-th class; the branches of all others are joined."""
SHARES = (0.01, 0.05, 0.10)
"""Of the tiles, deleted to test a map."""
N_TOP = 16
_CLIPPED = (1.0, 99.0)  # percentiles of the slide's own tiles

Rows = NDArray[np.int64]
Teller = Callable[[Sequence[Rows]], NDArray[np.float64]]
"""Of several sets of kept rows of one slide to the probability that is told from each."""


# ---- values of tiles


def branch_weights(weights: NDArray[np.floating], branch: int | None = None) -> NDArray[np.float64]:
    """(n,) attention that sums to 1: of one branch, or the mean of all, as heads and several branches are joined.

    Args:
        weights: (n, K), each column sums to 1.
        branch: of a class for `CLASS_BRANCHES`; None for the mean.
    """
    if weights.ndim != 2 or not len(weights):
        raise ValueError(f"need (n >= 1, K) weights, got {weights.shape}")
    found = weights.astype(np.float64)
    chosen = found.mean(axis=1) if branch is None or found.shape[1] == 1 else found[:, branch]
    return chosen / chosen.sum()


def effective_tiles(weights: NDArray[np.floating]) -> float:
    """exp(H) of attention, 1 to n: the number of tiles over which uniform attention would be as spread out.

    Args:
        weights: (n,) that sum to 1.
    """
    w = weights.astype(np.float64)
    w = w[w > 0]
    return float(np.exp(-(w * np.log(w)).sum()))


def percentiles(scores: NDArray[np.floating], reference: NDArray[np.floating] | None = None) -> NDArray[np.float64]:
    """Each score's rank in percent: mean rank of ties, as CLAM's maps have it (`percentileofscore`, kind rank).

    The highest tenth always stands above 90, on slides without disease too: this map shows an order, no amount.

    Args:
        scores: (n,) finite.
        reference: (m,) to rank among; the scores themselves if None.

    Returns:
        (n,) in (0, 100], among others than themselves in [0, 100].
    """
    from scipy.stats import rankdata

    _check_finite(scores)
    if reference is None:
        return rankdata(scores, "average") / len(scores) * 100
    _check_finite(reference)
    ordered = np.sort(reference)
    left, right = np.searchsorted(ordered, scores, "left"), np.searchsorted(ordered, scores, "right")
    # Ties of m share the mean of their ranks left+1..right; a score between two takes the place below it.
    return (left + right + (right > left)) / 2 / len(ordered) * 100


@dataclass(frozen=True, slots=True, eq=False)
class RelativeWeights:
    """Attention as a multiple of uniform attention, for a log scale on which 1 is uniform.

    Attributes:
        values: (n,) n * w, clipped to [low, high].
        low, high: the slide's own 1st and 99th percentile: one tile must not set the scale.
    """

    values: NDArray[np.float64]
    low: float
    high: float


def relative_weights(weights: NDArray[np.floating]) -> RelativeWeights:
    """Attention times the number of tiles, clipped.

    Args:
        weights: (n,) that sum to 1. Those that rounded to 0 take the lower end.
    """
    _check_finite(weights)
    times = weights.astype(np.float64) * len(weights)
    if not (times >= 0).all() or not times.any():
        raise ValueError("weights must be >= 0 and not all 0")
    low, high = (float(end) for end in np.percentile(times[times > 0], _CLIPPED))
    return RelativeWeights(times.clip(low, high), low, high)


def contribution_limit(slides: Iterable[NDArray[np.floating]], share: float = 0.9) -> float:
    """L of the scale [-L, L] that all slides of a cohort share, so that their colours mean the same.

    L is a quantile over slides of the largest absolute contribution of each: neither one odd slide nor the many tiles
    that carry nothing set it. What lies beyond takes the colour of the end.

    Args:
        slides: (n,) signed contributions of each.
        share: of the slides that keep within it.

    Returns:
        L > 0; 1 where no tile carries anything.
    """
    largest = [float(np.abs(one).max()) for one in slides if len(one)]
    if not np.isfinite(largest).all():
        raise ValueError("contributions must be finite")
    limit = float(np.quantile(largest, share)) or max(largest) if largest else 0.0
    return limit if limit > 0 else 1.0


# ---- places


def is_placed(coords: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) whether a tile has a place: (-1, -1) stands for none."""
    return ~(coords == -1).all(axis=1)


def blend_tiles(
    values: NDArray[np.floating],
    coords: NDArray[np.int64],
    size_px: float,
    *,
    shape: tuple[int, int],
    downsample: float,
) -> NDArray[np.float64]:
    """Tile values as a picture: a pixel is the mean of the tiles that hold its centre, NaN where there is none.

    A tile between the centres of pixels takes the pixel in which its own centre lies, lest it vanish. Tiles without a
    place are left out.

    Args:
        values: (n,) finite.
        coords: (n, 2) x, y, top-left, in level-0 px.
        size_px: side of a tile in level-0 px.
        shape: (H, W) of the picture.
        downsample: level-0 px of a pixel's side.
    """
    _check_finite(values)
    if coords.shape != (len(values), 2):
        raise ValueError(f"need ({len(values)}, 2) coords, got {coords.shape}")
    if not size_px > 0 or not downsample > 0:
        raise ValueError(f"size_px and downsample must be > 0, got {size_px} and {downsample}")
    placed = is_placed(coords)
    left_top = coords[placed].astype(np.float64)
    first = np.ceil(left_top / downsample - 0.5).astype(np.int64)
    last = np.ceil((left_top + size_px) / downsample - 0.5).astype(np.int64)
    middle = np.floor((left_top + size_px / 2) / downsample).astype(np.int64)
    is_small = last <= first
    first, last = np.where(is_small, middle, first), np.where(is_small, middle + 1, last)
    bounds = np.array(shape[::-1])
    (x0, y0), (x1, y1) = first.clip(0, bounds).T, last.clip(0, bounds).T
    # Each tile marks its four corners; two running sums fill it: n + H W steps however large the tiles are.
    counts = np.zeros((shape[0] + 1, shape[1] + 1), dtype=np.int64)
    sums = np.zeros(counts.shape)
    own = values[placed].astype(np.float64)
    for y, x, sign in ((y0, x0, 1), (y0, x1, -1), (y1, x0, -1), (y1, x1, 1)):
        np.add.at(counts, (y, x), sign)
        np.add.at(sums, (y, x), sign * own)
    counts, sums = (table.cumsum(0).cumsum(1)[:-1, :-1] for table in (counts, sums))
    return np.divide(sums, counts, out=np.full(shape, np.nan), where=counts > 0)


# ---- top tiles


def top_tiles(
    scores: NDArray[np.floating],
    coords: NDArray[np.int64],
    size_px: float,
    *,
    k: int = N_TOP,
    apart: float = 2.0,
    lowest: bool = False,
) -> Rows:
    """Rows of at most k tiles, best first, none nearer to a better one than so many tile widths.

    Without that, sixteen tiles would often be one place sixteen times. Equal scores: the first row. Tiles without a
    place are near to none.

    Args:
        scores: (n,) finite.
        coords: (n, 2) level-0 px.
        size_px: side of a tile in level-0 px.
        k: >= 1.
        apart: least distance of two places in tile widths.
        lowest: the least scores instead, least first.
    """
    _check_finite(scores)
    left = -scores.astype(np.float64) if lowest else scores.astype(np.float64)
    placed, reach = is_placed(coords), (apart * size_px) ** 2
    found: list[int] = []
    while len(found) < k:
        row = int(left.argmax())
        if left[row] == -np.inf:
            break
        found.append(row)
        if placed[row]:
            distance = ((coords - coords[row]).astype(np.float64) ** 2).sum(axis=1)
            left = np.where(placed & (distance < reach), -np.inf, left)
        left[row] = -np.inf
    return np.array(found, dtype=np.int64)


def top_of_slides(
    scores: Sequence[NDArray[np.floating]],
    coords: Sequence[NDArray[np.int64]],
    size_px: Sequence[float],
    *,
    k: int = N_TOP,
    most: int = 4,
    apart: float = 2.0,
    lowest: bool = False,
) -> list[tuple[int, int]]:
    """(slide, row) of the k best tiles of many slides, best first, at most so many of one slide.

    Args:
        scores: (n_i,) of each slide.
        coords: (n_i, 2) of each.
        size_px: side of a tile of each, in level-0 px.
        k: >= 1.
        most: of one slide.
        apart, lowest: as in `top_tiles`.
    """
    sign = 1 if lowest else -1
    found = [
        (sign * float(own[row]), slide, int(row))
        for slide, (own, places, size) in enumerate(zip(scores, coords, size_px, strict=True))
        for row in top_tiles(own, places, size, k=min(most, k), apart=apart, lowest=lowest)
    ]
    return [(slide, row) for _, slide, row in sorted(found)[:k]]


# ---- whether a map tells the truth


@dataclass(frozen=True, slots=True, eq=False)
class Deletion:
    """What is told of one slide after some of its tiles were taken away.

    Attributes:
        shares: (S,) of the tiles.
        n_deleted: (S,) of each, rounded up; one tile always stays.
        whole: what is told of all tiles.
        top: (S,) after the tiles with the highest scores.
        random: (R, S) after as many random ones.
    """

    shares: tuple[float, ...]
    n_deleted: tuple[int, ...]
    whole: float
    top: NDArray[np.float64]
    random: NDArray[np.float64]


def delete_tiles(
    tell: Teller,
    scores: NDArray[np.floating],
    *,
    rng: np.random.Generator,
    shares: Sequence[float] = SHARES,
    n_random: int = 10,
) -> Deletion:
    """Take away the tiles that a map calls important, and as many random ones.

    Where the first does not lower the probability more than the second, the map does not show what the model used.

    Args:
        tell: probability of the class from some of the slide's rows.
        scores: (n,) of the class, by the map; equal ones are deleted in the order of their rows.
        rng: draws the random tiles; those of a larger share hold those of a smaller.
        shares: in (0, 1).
        n_random: R >= 1 draws.
    """
    _check_finite(scores)
    if not all(0 < share < 1 for share in shares) or n_random < 1:
        raise ValueError(f"shares must be in (0, 1) and n_random >= 1, got {list(shares)} and {n_random}")
    n = len(scores)
    # 1e-9: 7 % of 100 tiles are 7, though .07 * 100 is a little more.
    n_deleted = tuple(min(int(np.ceil(share * n - 1e-9)), n - 1) for share in shares)
    orders = [np.argsort(-scores.astype(np.float64), kind="stable"), *(rng.permutation(n) for _ in range(n_random))]
    kept = [np.arange(n), *(np.sort(order[gone:]) for order in orders for gone in n_deleted)]
    told = np.asarray(tell(kept), dtype=np.float64)
    if told.shape != (len(kept),):
        raise ValueError(f"need a probability for each of {len(kept)} sets of tiles, got {told.shape}")
    after = told[1:].reshape(1 + n_random, len(n_deleted))
    return Deletion(tuple(shares), n_deleted, float(told[0]), after[0], after[1:])


@dataclass(frozen=True, slots=True)
class Fall:
    """How far the probability falls when a share of the tiles is deleted, mean over slides, with patient intervals.

    Attributes:
        share: of the tiles.
        top, random: after the highest tiles, and after random ones.
        lead: the first minus the second.
        top_interval, random_interval, lead_interval: of them.
    """

    share: float
    top: float
    top_interval: Interval
    random: float
    random_interval: Interval
    lead: float
    lead_interval: Interval


def mean_falls(deletions: Sequence[Deletion], patients: Sequence[str], *, seed: int = 0) -> tuple[Fall, ...]:
    """The falls of many slides, by share.

    Args:
        deletions: of each slide, of the same shares.
        patients: whose each is.
        seed: of the resamples.
    """
    if not deletions or len(deletions) != len(patients) or len({one.shares for one in deletions}) != 1:
        raise ValueError("need at least one slide, a patient for each, and the same shares of all")
    names, codes = text_codes(np.array(patients, dtype=object))
    weights = patient_weights(len(names), seed=seed)
    sizes = np.bincount(codes, minlength=len(names)).astype(np.float64)
    top = np.array([one.whole - one.top for one in deletions])  # (N, S)
    random = np.array([one.whole - one.random.mean(axis=0) for one in deletions])
    found = []
    for place, share in enumerate(deletions[0].shares):
        values = (top[:, place], random[:, place], top[:, place] - random[:, place])
        means: list[Statistic] = [ratio(np.bincount(codes, own, len(names)), sizes) for own in values]
        (a, b, c), (of_a, of_b, of_c) = (
            [float(own.mean()) for own in values],
            [bootstrap_interval(mean, weights) for mean in means],
        )
        found.append(Fall(share, a, of_a, b, of_b, c, of_c))
    return tuple(found)


def _check_finite(values: NDArray[np.floating]) -> None:
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise ValueError(f"need at least one finite value a tile, got {values.shape}")
