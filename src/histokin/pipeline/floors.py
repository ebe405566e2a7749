"""The floors as embedders: what any encoder must beat, kept as ordinary stores so that any protocol runs on them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histokin.encoders import Encoder, EncoderCard, random_encoder
from histokin.evaluate.floors import colour_statistics, hsv_histogram, uniform_lbp
from histokin.pipeline.floor_names import RANDOM_SEEDS, STATISTIC_FLOORS


@dataclass(frozen=True, slots=True)
class Floor:
    """Fixed statistics of a tile's pixels."""

    name: str
    dim: int
    of_tiles: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    mpp: None = None
    tile_px: None = None

    @property
    def fingerprint(self) -> str:
        """Its name and version: there are no weights."""
        return f"floor-{self.name}-1"

    def embed(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, px, px, 3) uint8 to (n, dim) float32."""
        return self.of_tiles(tiles)


STATISTICS: tuple[Floor, ...] = (
    Floor(STATISTIC_FLOORS[0], 6, colour_statistics),
    Floor(STATISTIC_FLOORS[1], 128, hsv_histogram),
    Floor(STATISTIC_FLOORS[2], 54, uniform_lbp),
)


def random_floor(card: EncoderCard, device: str = "auto") -> list[Encoder]:
    """The same architecture with random weights, three seeds."""
    return [random_encoder(card, seed, device=device) for seed in RANDOM_SEEDS]
