"""How far the tiles of one slide reach: their convex hull, the pair farthest apart, some pair that lies close."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, KDTree, QhullError

_CHUNK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """The outline of some points.

    Attributes:
        rim: (h,) int64 of the points, h >= 1: from any place, the farthest point is as far away as one of these.
        ends: the two points farthest apart.
        length: their distance.
    """

    rim: np.ndarray
    ends: tuple[int, int]
    length: float


def measure_extent(points: np.ndarray) -> Extent:
    """The outline and the largest distance of m >= 1 points, in O(m log m).

    Args:
        points: (m, 2) float64, finite; lines and repeated points are allowed.
    """
    rim = _rim(points)
    corners = points[rim]
    best, ends = -1.0, (0, 0)
    for first in range(0, len(rim), _CHUNK):  # hulls have few corners; a circle of points must not need h x h memory
        squares = squared_distance(corners[first : first + _CHUNK, None], corners)
        at = int(squares.argmax())
        if squares.flat[at] > best:
            best = float(squares.flat[at])
            ends = (int(rim[first + at // len(rim)]), int(rim[at % len(rim)]))
    return Extent(rim, ends, float(np.sqrt(best)))


def find_close_pair(points: np.ndarray, limit: float) -> tuple[int, int] | None:
    """Two points with 0 < distance < limit; None if there are none."""
    order = _by_column(points)
    squares = squared_distance(points[order[1:]], points[order[:-1]])
    is_apart = squares > 0
    if not is_apart.any():
        return None
    at = int(np.where(is_apart, squares, np.inf).argmin())
    if squares[at] < limit**2:  # on a grid, two tiles one above the other
        return int(order[at]), int(order[at + 1])
    distinct = order[np.concatenate([[True], is_apart])]
    distances, partners = (np.asarray(found)[:, 1] for found in KDTree(points[distinct]).query(points[distinct], k=2))
    first = int(distances.argmin())
    pair = int(distinct[first]), int(distinct[partners[first]])
    return pair if squared_distance(points[pair[0]], points[pair[1]]) < limit**2 else None


def squared_distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(..., 2) and (..., 2) float64 to (...): the one formula by which all limits are judged."""
    dx, dy = first[..., 0] - second[..., 0], first[..., 1] - second[..., 1]
    return dx * dx + dy * dy


def _by_column(points: np.ndarray) -> np.ndarray:
    return np.lexsort((points[:, 1], points[:, 0]))


def _rim(points: np.ndarray) -> np.ndarray:
    """Corners of the convex hull; of points on a line its two ends."""
    order = _by_column(points)
    x = points[order, 0]
    is_new = np.concatenate([[True], x[1:] != x[:-1]])
    # The lowest and highest of each column: of a grid's tiles that leaves few, and none of the hull is lost.
    candidates = np.unique(np.concatenate([order[is_new], order[np.roll(is_new, -1)]]))
    corners = points[candidates] - points[candidates[0]]
    axis = int(np.ptp(corners, axis=0).argmax())
    line = candidates[[corners[:, axis].argmin(), corners[:, axis].argmax()]]
    if len(candidates) < 3:
        return candidates
    try:
        return candidates[np.sort(ConvexHull(corners).vertices)].astype(np.int64)
    except QhullError:  # all on a line, as far as float64 can tell
        return np.unique(line)
