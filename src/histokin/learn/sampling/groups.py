"""Rows gathered by label, such as tiles by slide: compressed rows, nothing a row when they already lie in order."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Rows by label.

    Attributes:
        labels: (G,) int64, those that occur, ascending.
        starts: (G + 1,) int64; group g holds the places starts[g] to starts[g + 1].
        sizes: (G,) int64, all positive.
        order: (n,) int64, the row at each place, ascending within a group; None where place and row are the same.
    """

    labels: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    order: np.ndarray | None

    def rows_of(self, group: int) -> np.ndarray:
        """(m,) int64 rows of one group, ascending."""
        first, last = int(self.starts[group]), int(self.starts[group + 1])
        return np.arange(first, last) if self.order is None else self.order[first:last]

    def select(self, values: np.ndarray, group: int) -> np.ndarray:
        """One group's rows of a column; a view of it where rows lie in order."""
        first, last = int(self.starts[group]), int(self.starts[group + 1])
        return values[first:last] if self.order is None else values[self.order[first:last]]

    def pick(self, groups: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """A row of each group named: int64 of the common shape of `groups` and `uniforms` (in [0, 1))."""
        places = self.starts[groups] + floor_of(uniforms, self.sizes[groups])
        return places if self.order is None else self.order[places]


def group_rows(labels: np.ndarray) -> Groups:
    """Gather rows of equal label.

    Args:
        labels: (n,) int, in any order.
    """
    if labels.ndim != 1:
        raise ValueError(f"need one label a row, got {labels.shape}")
    is_sorted = bool((labels[1:] >= labels[:-1]).all())
    order = None if is_sorted else np.argsort(labels, kind="stable")
    ordered = labels if order is None else labels[order]
    begins = np.flatnonzero(np.concatenate([[len(labels) > 0], ordered[1:] != ordered[:-1]])[: len(labels)])
    starts = np.append(begins, len(labels)).astype(np.int64)
    return Groups(ordered[begins].astype(np.int64), starts, np.diff(starts), order)


def floor_of(uniforms: np.ndarray, n: np.ndarray | int) -> np.ndarray:
    """Whole numbers 0 to n - 1 from uniforms of 53 bits in [0, 1): int64.

    The largest, 1 - 2^-53, times n rounds to below n for every n below 2^53.
    """
    return (uniforms * n).astype(np.int64)


def spread_ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The ranges starts[i] to starts[i] + counts[i], one after another: (sum of counts,) int64."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))
