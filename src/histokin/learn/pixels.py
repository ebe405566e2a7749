"""Where training pixels come from: the protocol, tiles held in memory, several sources joined, a part of one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from histokin.artefacts import digest_of
from histokin.errors import TrainingError


@dataclass(frozen=True, slots=True)
class Places:
    """Where tiles lie on their slides.

    Attributes:
        centres_um: (n, 2) float64 x, y of each tile's centre in um.
        pitch_um: (n,) float64 step between neighbouring tiles, where each tile lies; one for all of a slide.
    """

    centres_um: np.ndarray
    pitch_um: np.ndarray


@dataclass(frozen=True, slots=True)
class Labels:
    """What tiles show, for monitors and for supervised training.

    Attributes:
        codes: (n,) int64 into `classes`, -1 where unlabelled.
        classes: their names.
        groups: (n,) int64 of what must not answer for each other, as a rule the patient.
    """

    codes: np.ndarray
    classes: tuple[str, ...]
    groups: np.ndarray


def digest_known(places: Places | None, labels: Labels | None) -> str:
    """Identity of what is known of tiles beside their pixels: a run's result may depend on it."""
    columns = [] if places is None else [places.centres_um, places.pitch_um]
    columns += [] if labels is None else [labels.codes, labels.groups, np.array(labels.classes)]
    return digest_of([digest_array(column) for column in columns])


def digest_array(column: np.ndarray) -> str:
    """SHA-256 of an array: its type, shape and values."""
    digest = hashlib.sha256(f"{column.dtype} {column.shape}".encode())
    digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()


class PixelSource(Protocol):
    """Tiles by row number. Whoever implements it says nothing about slides' files.

    `read` may be called from one background thread; its result depends on `rows` alone.
    """

    @property
    def px(self) -> int:
        """Side of a tile in pixels."""
        ...

    @property
    def field_px(self) -> int:
        """Side of what `read` gives: of the tile, or of a wider region of the slide with the tile in its middle."""
        ...

    @property
    def mpp(self) -> float:
        """Micrometres a pixel; of most tiles, where sources of several are joined."""
        ...

    @property
    def cohort_mpps(self) -> tuple[float, ...]:
        """The pixel size of each cohort, by its number."""
        ...

    @property
    def mpps(self) -> tuple[float, ...]:
        """All pixel sizes there are, ascending."""
        ...

    @property
    def slides(self) -> np.ndarray:
        """(n,) int: the number of each tile's slide."""
        ...

    @property
    def cohorts(self) -> np.ndarray:
        """(n,) int: the number of each tile's cohort."""
        ...

    @property
    def places(self) -> Places | None:
        """Where the tiles lie; None for tiles that do not know."""
        ...

    @property
    def labels(self) -> Labels | None:
        """What the tiles show; None where nobody asked."""
        ...

    @property
    def digest(self) -> str:
        """Identity of all pixels and their order: a run resumed on another digest is refused."""
        ...

    def __len__(self) -> int:
        """How many tiles there are."""
        ...

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(B,) int64 rows to (B, field_px, field_px, 3) uint8 RGB."""
        ...


class ArrayPixels:
    """Tiles in memory.

    Args:
        tiles: (n, px, px, 3) uint8 RGB.
        mpp: micrometres a pixel.
        slides: (n,) int number of each tile's slide; without it each tile counts as a slide of its own.
        places, labels: what is known of them.
        px: side of the tile where `tiles` are wider regions around it.
    """

    def __init__(
        self,
        tiles: np.ndarray,
        mpp: float,
        slides: np.ndarray | None = None,
        *,
        places: Places | None = None,
        labels: Labels | None = None,
        px: int | None = None,
    ) -> None:
        if tiles.dtype != np.uint8 or tiles.ndim != 4 or tiles.shape[1] != tiles.shape[2] or tiles.shape[3] != 3:
            raise ValueError(f"need (n, px, px, 3) uint8 tiles, got {tiles.shape} {tiles.dtype}")
        self.tiles, self.mpp, self.mpps, self.cohort_mpps = tiles, mpp, (mpp,), (mpp,)
        self.slides = np.arange(len(tiles)) if slides is None else np.asarray(slides)
        if len(self.slides) != len(tiles):
            raise ValueError(f"need a slide number for each tile, got {len(self.slides)} for {len(tiles)}")
        self.cohorts = np.zeros(len(tiles), np.int64)
        self.places, self.labels = places, labels
        self.field_px = int(tiles.shape[1])
        self.px = self.field_px if px is None else px
        known = digest_known(places, labels)
        self.digest = digest_of([self.px, mpp, digest_array(tiles), digest_array(self.slides), known])

    def __len__(self) -> int:
        return len(self.tiles)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(B,) int64 rows to (B, field_px, field_px, 3) uint8 RGB."""
        return self.tiles[rows]


class JoinedPixels:
    """Several sources as one: cohorts of other organs, stains or magnification in one run.

    Tiles must have one size in pixels; where their mpp differs the encoder sees several magnifications, and `mpp` is
    that of most tiles.

    Raises:
        TrainingError: tiles of different size.
    """

    def __init__(self, sources: Sequence[PixelSource]) -> None:
        sizes = sorted({(source.px, source.field_px) for source in sources})
        if len(sizes) != 1:
            raise TrainingError(
                f"cohorts with tiles of {' and '.join(str(px) for px, _ in sizes)} px cannot be trained on together",
                "pretrain",
                "Cut the tiles of all of them with one --tile-px; their mpp may differ.",
            )
        self._sources = tuple(sources)
        (self.px, self.field_px) = sizes[0]
        self._first = np.cumsum([0, *(len(source) for source in sources)])
        self.slides = numbered([source.slides for source in sources])
        self.cohorts = numbered([source.cohorts for source in sources])
        self.cohort_mpps = tuple(mpp for source in sources for mpp in source.cohort_mpps)
        self.mpp, self.mpps = _scales(self.cohorts, self.cohort_mpps)
        self.places = _joined_places(sources)
        self.labels = _joined_labels(sources)
        self.digest = digest_of([source.digest for source in sources])

    def __len__(self) -> int:
        return int(self._first[-1])

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(B,) int64 rows to (B, field_px, field_px, 3) uint8 RGB."""
        out = np.empty((len(rows), self.field_px, self.field_px, 3), np.uint8)
        owner = np.searchsorted(self._first, rows, side="right") - 1
        for number in np.unique(owner):
            mine = np.flatnonzero(owner == number)
            out[mine] = self._sources[number].read(rows[mine] - self._first[number])
        return out


class SomePixels:
    """Some rows of a source, in the order given: training without the groups that will be tested."""

    def __init__(self, source: PixelSource, rows: np.ndarray) -> None:
        self._source, self._rows = source, np.asarray(rows, np.int64)
        self.px, self.field_px, self.cohort_mpps = source.px, source.field_px, source.cohort_mpps
        self.slides, self.cohorts = source.slides[rows], source.cohorts[rows]
        self.mpp, self.mpps = _scales(self.cohorts, self.cohort_mpps)  # a cohort may have gone as a whole
        places, labels = source.places, source.labels
        self.places = None if places is None else Places(places.centres_um[rows], places.pitch_um[rows])
        self.labels = None if labels is None else Labels(labels.codes[rows], labels.classes, labels.groups[rows])
        self.digest = digest_of([source.digest, digest_array(self._rows)])

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(B,) int64 rows to (B, field_px, field_px, 3) uint8 RGB."""
        return self._source.read(self._rows[rows])


def _scales(cohorts: np.ndarray, cohort_mpps: Sequence[float]) -> tuple[float, tuple[float, ...]]:
    """The pixel size of most tiles, and all there are."""
    counts = np.bincount(cohorts, minlength=len(cohort_mpps))
    n_tiles: dict[float, int] = {}
    for mpp, count in zip(cohort_mpps, counts.tolist(), strict=True):
        n_tiles[mpp] = n_tiles.get(mpp, 0) + count
    present = {mpp: count for mpp, count in n_tiles.items() if count} or n_tiles
    return max(present, key=lambda mpp: (present[mpp], mpp)), tuple(sorted(present))


def numbered(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers of several sources, made distinct by an offset each."""
    offsets = np.cumsum([0, *(int(column.max(initial=-1)) + 1 for column in columns)])
    return np.concatenate([column.astype(np.int64) + offset for column, offset in zip(columns, offsets, strict=False)])


def _joined_places(sources: Sequence[PixelSource]) -> Places | None:
    places = [source.places for source in sources]
    known = [place for place in places if place is not None]
    if len(known) < len(places):
        return None
    centres = np.concatenate([place.centres_um for place in known])
    return Places(centres, np.concatenate([place.pitch_um for place in known]))


def _joined_labels(sources: Sequence[PixelSource]) -> Labels | None:
    """Labels by name: a class of two cohorts is one; groups of different cohorts stay apart."""
    if all(source.labels is None for source in sources):
        return None
    nothing = [Labels(np.full(len(s), -1), (), np.zeros(len(s), np.int64)) for s in sources]
    each = [source.labels or empty for source, empty in zip(sources, nothing, strict=True)]
    classes = tuple(sorted({name for labels in each for name in labels.classes}))
    codes = []
    for labels in each:
        new = np.array([classes.index(name) for name in labels.classes] + [-1])
        codes.append(new[labels.codes])  # -1 looks up the last: unlabelled stays unlabelled
    return Labels(np.concatenate(codes), classes, numbered([labels.groups for labels in each]))
