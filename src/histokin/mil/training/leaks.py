"""Tiles that stand in two parts: the same vector in slides of different ones."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from histokin.errors import TrainingError
from histokin.evaluate.splits import SplitTable
from histokin.mil.training.task import MilTask

_SHOWN = 3


def shared_tiles(task: MilTask) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of slides that hold a tile of the same vector, (P, 2) rows of the task, and (P,) how many such vectors.

    Of a vector that many slides hold, each is paired with the first: enough to see that two parts share it.
    """
    source = task.source
    spans = [source.hashes[source.offsets[bag] : source.offsets[bag + 1]] for bag in task.bags.tolist()]
    own = [np.unique(span) for span in spans]  # a slide's own duplicates are its own matter
    rows = np.repeat(np.arange(len(task)), [len(span) for span in own])
    hashes = np.concatenate(own)
    order = np.lexsort((rows, hashes))
    hashes, rows = hashes[order], rows[order]
    starts = np.concatenate([[True], hashes[1:] != hashes[:-1]])
    first = rows[np.flatnonzero(starts)[np.cumsum(starts) - 1]]
    again = ~starts
    if not again.any():
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64)
    pairs, counts = np.unique(np.stack([first[again], rows[again]], axis=1), axis=0, return_counts=True)
    return pairs.astype(np.int64), counts.astype(np.int64)


def refuse_shared_tiles(task: MilTask, tables: Iterable[SplitTable]) -> None:
    """Stop where slides of different parts of a fold hold the same tile.

    Patients and pictures in two parts are refused by the table itself.

    Args:
        task: its slides.
        tables: outer and inner splits.

    Raises:
        TrainingError: there are such; names some.
    """
    pairs, counts = shared_tiles(task)
    if not len(pairs):
        return
    apart = np.zeros(len(pairs), dtype=bool)
    for table in tables:
        codes = table.part_codes(task.items.item)  # (N, J), -1 where absent
        first, second = codes[pairs[:, 0]], codes[pairs[:, 1]]
        apart |= ((first >= 0) & (second >= 0) & (first != second)).any(axis=1)
    if apart.any():
        named = [
            f"{task.items.slide[a]} and {task.items.slide[b]} ({n})"
            for (a, b), n in zip(pairs[apart].tolist(), counts[apart].tolist(), strict=True)
        ]
        raise TrainingError(
            f"{len(named)} pairs of slides in different parts hold tiles of the same vector: "
            f"{', '.join(named[:_SHOWN])}{', ...' if len(named) > _SHOWN else ''}",
            "leak check",
            "Give copies of a slide one patient or picture, or allow shared tiles where empty glass explains them.",
        )
