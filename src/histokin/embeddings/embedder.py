"""What makes vectors of tiles, whatever it is made of: a network, or colour statistics."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class TileEmbedder(Protocol):
    """A named function from tiles to vectors.

    Attributes:
        name: for people.
        fingerprint: identity; two embedders with one fingerprint give the same vectors.
        dim: width of the vectors.
        mpp, tile_px: what the tiles must be; None where any will do.
    """

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def mpp(self) -> float | None: ...
    @property
    def tile_px(self) -> int | None: ...

    def embed(self, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, px, px, 3) uint8 to (n, dim) float32; a tile's vector does not depend on its batch."""
        ...


def short_id(fingerprint: str) -> str:
    """The part of a fingerprint that names folders: of a SHA-256 the first 16 digits, else (the floors') all of it."""
    digest = fingerprint.removeprefix("sha256:")
    return digest[:16] if len(digest) == 64 else fingerprint
