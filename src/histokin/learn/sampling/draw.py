"""What a step draws, and the protocol of what draws it."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True, slots=True)
class Draw:
    """The tiles of one step, of all ranks together or of one rank's share.

    Attributes:
        rows: (B,) int64 tiles; the anchors where there are pairs.
        partners: (B,) int64, the other tile of each pair; None where tiles come alone.
        near: (B,) bool, whether the pair lies close together; None where tiles come alone.
        first: place in the step's whole batch of the first sample here; sample i draws its views as place first + i.
    """

    rows: np.ndarray
    partners: np.ndarray | None = None
    near: np.ndarray | None = None
    first: int = 0

    def __len__(self) -> int:
        return len(self.rows)

    def share(self, rank: int, world: int) -> "Draw":
        """The consecutive part [B * rank // world : B * (rank + 1) // world] of all columns.

        Raises:
            ValueError: there is no such rank.
        """
        if not 0 <= rank < world:
            raise ValueError(f"there is no rank {rank} of {world}")
        B = len(self)
        part = slice(B * rank // world, B * (rank + 1) // world)
        return Draw(
            self.rows[part],
            None if self.partners is None else self.partners[part],
            None if self.near is None else self.near[part],
            self.first + part.start,
        )


class Sampler(Protocol):
    """Draws the batch of every step.

    `draw` is a pure function of the sampler's arguments and the step: one that drew other steps before, in any order,
    gives the same as a fresh one. It is called from one thread at a time.
    """

    @property
    def batch(self) -> int:
        """Samples a step, of all ranks together, after whatever reduction the tiles make necessary."""
        ...

    @property
    def note(self) -> str:
        """Why that is less than asked for, in a sentence; empty where it is not."""
        ...

    def draw(self, step: int) -> Draw:
        """The whole batch of a step, counted from 0."""
        ...


def note_few_tiles(batch: int, asked: int, n_tiles: int) -> str:
    """The note of samplers that draw no tile twice in a batch."""
    if batch == asked:
        return ""
    return f"there are {n_tiles} tiles: a batch holds {batch} of them instead of {asked}, so that none is in it twice"
