"""What makes vectors of tiles, whatever it is made of: a network, or colour statistics."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

ABOUT = "encoder.json"
SAMPLE_TILES = 16  # of a slide, from which its colours are known before it is embedded


class TileEmbedder(Protocol):
    """A named function from tiles to vectors.

    One whose vectors depend on the slide (stain normalisation) has `for_slide` as well: see `fit_to_slide`.

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


def about(embedder: TileEmbedder) -> dict[str, str]:
    """What is written into a store's folder: name, fingerprint, and what the embedder shares with its random twins."""
    twin = getattr(embedder, "twin", "")
    return {"encoder": embedder.name, "fingerprint": embedder.fingerprint, "twin": twin}


def fit_to_slide(embedder: TileEmbedder, sample: Callable[[], NDArray[np.uint8]]) -> TileEmbedder:
    """The embedder for one slide: what its `for_slide` makes of a sample of the slide's tiles, else itself.

    Args:
        embedder: `for_slide`, where it has one that is not None, takes (n, px, px, 3) uint8 and returns an embedder of
            the same name, fingerprint and width.
        sample: reads the sample; not called for an embedder that needs none.
    """
    for_slide = getattr(embedder, "for_slide", None)
    return embedder if for_slide is None else for_slide(sample())


def sample_rows(rows: NDArray[np.int64], n: int = SAMPLE_TILES) -> NDArray[np.int64]:
    """Up to n of the rows in even strides, the same whatever is read before or after: middles of n equal parts."""
    n = min(n, len(rows))
    return rows[(2 * np.arange(n) + 1) * len(rows) // (2 * max(n, 1))]


def short_id(fingerprint: str) -> str:
    """The part of a fingerprint that names folders: of a SHA-256 the first 16 digits, else (the floors') all of it."""
    digest = fingerprint.removeprefix("sha256:")
    return digest[:16] if len(digest) == 64 else fingerprint
