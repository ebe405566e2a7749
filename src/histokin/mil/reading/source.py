"""`BagSource`: the bags of many slides, from a pack or from arrays, read a batch at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from histokin.artefacts import digest_of
from histokin.errors import TrainingError
from histokin.mil.bags import PackedBags
from histokin.mil.reading.draws import Draw
from histokin.streams import stream


@dataclass(frozen=True, slots=True)
class BagSource:
    """Bags of T tiles in all, one a slide.

    The rows of a slide lie in a random order, that a block of them is a sample of its tiles; `read` gives them in the
    order of the slide's file.

    Attributes:
        slides: (B,) ids.
        offsets: (B + 1,) int64, where each bag begins; none is empty.
        features: (T, D) float16 or float32, memory-mapped or not.
        order: (T,) int64 row of each in its slide's file.
        coords: (T, 2) int64 level-0 px, -1 where unknown.
        hashes: (T,) uint64 of the vectors: equal where two tiles are the same.
        scale: (D,) float32 that the features are to be multiplied by, or None.
        encoder: name of what made the features; "" for plain arrays.
        fingerprint: of it.
        digest: identity of everything above.
        empty: slides that have no tiles and thus no bag.
    """

    slides: tuple[str, ...]
    offsets: NDArray[np.int64]
    features: NDArray[Any]
    order: NDArray[np.int64]
    coords: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    scale: NDArray[np.float32] | None = None
    encoder: str = ""
    fingerprint: str = ""
    digest: str = ""
    empty: tuple[str, ...] = ()

    @classmethod
    def of_arrays(
        cls,
        bags: Sequence[NDArray[Any]],
        slides: Sequence[str] | None = None,
        coords: Sequence[NDArray[np.int64]] | None = None,
        *,
        seed: int = 0,
    ) -> "BagSource":
        """Bags held in memory as float32.

        Args:
            bags: B arrays (n_i, D).
            slides: their ids; their numbers as text if None.
            coords: (n_i, 2) of each.
            seed: of the order of the rows.

        Raises:
            TrainingError: a bag is empty or holds NaN or infinity; it is named.
            ValueError: there are none, or lengths or widths differ.
        """
        names = tuple(str(number) for number in range(len(bags))) if slides is None else tuple(slides)
        if not bags or len(names) != len(bags) or len({bag.shape[1:] for bag in bags}) != 1:
            raise ValueError("need bags (n_i, D) of one width, and an id for each")
        for name, bag in zip(names, bags, strict=True):
            if not len(bag):
                raise TrainingError(f"the bag of slide {name} is empty", "bags", "Leave the slide out.")
            if not np.isfinite(bag).all():
                raise TrainingError(f"the bag of slide {name} holds NaN or infinity", "bags", "Make it again.")
        moved = [shuffled(name, len(bag), seed) for name, bag in zip(names, bags, strict=True)]
        features = np.concatenate([bag[rows] for bag, rows in zip(bags, moved, strict=True)]).astype(np.float32)
        places = [np.full((len(bag), 2), -1, np.int64) for bag in bags] if coords is None else coords
        hashes = row_hashes(features)
        offsets = np.concatenate([[0], np.cumsum([len(bag) for bag in bags])]).astype(np.int64)
        return cls(
            slides=names,
            offsets=offsets,
            features=features,
            order=np.concatenate(moved),
            coords=np.concatenate([place[rows] for place, rows in zip(places, moved, strict=True)]).astype(np.int64),
            hashes=hashes,
            digest=digest_of([names, offsets, blake2b(hashes.tobytes(), digest_size=16).hexdigest(), seed]),
        )

    def __len__(self) -> int:
        return len(self.slides)

    @property
    def dim(self) -> int:
        """D."""
        return self.features.shape[1]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(B,) tiles of each bag."""
        return np.diff(self.offsets)

    def numbers(self, slides: Sequence[str]) -> NDArray[np.int64]:
        """The bags of some slides.

        Raises:
            TrainingError: a slide has no bag; says whether it has no tiles or is unknown.
        """
        place = {slide: number for number, slide in enumerate(self.slides)}
        missing = [slide for slide in slides if slide not in place]
        if missing:
            first = missing[0]
            why = "it has no tiles" if first in self.empty else "it is not among the embeddings"
            raise TrainingError(
                f"{len(missing)} of {len(slides)} slides have no bag; slide {first}: {why}",
                self.encoder or "bags",
                "Leave such slides out, or embed them.",
            )
        return np.array([place[slide] for slide in slides], dtype=np.int64)

    def read(self, draw: Draw) -> PackedBags:
        """The drawn tiles of each bag, as stored, in the order of the slide's file; `scale` is not applied yet.

        Returns:
            `PackedBags` on the CPU: x (T, D) float16 or float32, coords (T, 2) int64.
        """
        x = np.empty((int(draw.lengths.sum()), self.dim), dtype=self.features.dtype)
        coords = np.empty((len(x), 2), dtype=np.int64)
        at = 0
        for bag, start, n in zip(draw.bags.tolist(), draw.starts.tolist(), draw.lengths.tolist(), strict=True):
            blocks, own = self._blocks(bag, start, n), slice(at, at + n)
            # Read as it lies on the disk, then put into the file's order: the reverse would touch pages at random.
            in_file = np.argsort(np.concatenate([self.order[block] for block in blocks]))
            for column, out in ((self.features, x), (self.coords, coords)):
                np.take(np.concatenate([column[block] for block in blocks]), in_file, 0, out[own], mode="clip")
            at += n
        return PackedBags(torch.from_numpy(x), torch.from_numpy(draw.lengths), torch.from_numpy(coords))

    def tile_rows(self, bag: int) -> NDArray[np.int64]:
        """(n,) the rows of a slide's file that its tiles have, in the order in which `read` gives them."""
        return np.sort(self.order[self.offsets[bag] : self.offsets[bag + 1]])

    def _blocks(self, bag: int, start: int, n: int) -> list[slice]:
        """Where n rows of a bag from `start` on lie, going round at its end."""
        first, last = int(self.offsets[bag]), int(self.offsets[bag + 1])
        end = first + start + n
        if end <= last:
            return [slice(first + start, end)]
        return [slice(first + start, last), slice(first, end - (last - first))]


def shuffled(slide: str, n: int, seed: int) -> NDArray[np.int64]:
    """(n,) the file's rows in the order in which they are packed: of the slide and the seed alone."""
    return stream(seed, "rows", slide).permutation(n)


def row_hashes(rows: NDArray[Any]) -> NDArray[np.uint64]:
    """(n,) 64-bit BLAKE2 of each row's bytes."""
    texts = (blake2b(row, digest_size=8).digest() for row in np.ascontiguousarray(rows))
    return np.frombuffer(b"".join(texts), dtype="<u8").astype(np.uint64)
