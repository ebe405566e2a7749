"""`TileSource`: pixels of one slide's kept tiles, streamed in plan order with a status a tile."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from histokin.cohort import Cohort, SlideRecord
from histokin.errors import SlideError, TableError
from histokin.slides import open_slide
from histokin.tiles.reading import bands, plan_read, read_band
from histokin.tiles.spec import TileSpec
from histokin.tiles.table import TileTable

OK, CORRUPT = 0, 3  # statuses of a tile, numbered as in the format's catalogue
MAX_ERRORS = 20  # after so many unreadable places the slide is given up


@dataclass(frozen=True, slots=True)
class TileBatch:
    """Tiles that were read.

    Attributes:
        rows: (n,) int64 row numbers in the tile table.
        pixels: (n, px, px, 3) uint8.
    """

    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]


class TileSource(Protocol):
    """Where the pixels of a slide's tiles come from."""

    n_corrupt: int

    def stream(self, batch: int) -> Iterator[TileBatch]:
        """Kept tiles in table order, up to `batch` at a time; tiles that cannot be decoded are left out and counted."""
        ...


class _Collector:
    """Joins small runs of tiles to batches of one size."""

    def __init__(self, batch: int) -> None:
        self._batch, self._rows, self._pixels, self._n = batch, [], [], 0

    def add(self, rows: NDArray[np.int64], pixels: NDArray[np.uint8]) -> Iterator[TileBatch]:
        self._rows.append(rows)
        self._pixels.append(pixels)
        self._n += len(rows)
        while self._n >= self._batch:
            yield self._take(self._batch)

    def rest(self) -> Iterator[TileBatch]:
        if self._n:
            yield self._take(self._n)

    def _take(self, n: int) -> TileBatch:
        rows, pixels = np.concatenate(self._rows), np.concatenate(self._pixels)
        self._rows, self._pixels, self._n = [rows[n:]], [pixels[n:]], len(rows) - n
        return TileBatch(rows[:n], pixels[:n])


class SlideTiles:
    """Tiles of a grid, read from the slide at their true mpp; with `margin_px` more of the slide on every side."""

    def __init__(
        self,
        path: Path,
        given_mpp: float | None,
        table: TileTable,
        spec: TileSpec,
        rows: NDArray[np.int64],
        margin_px: int = 0,
    ) -> None:
        self._path, self._given_mpp, self._table, self._spec, self._rows = path, given_mpp, table, spec, rows
        self._margin_px = margin_px
        self.n_corrupt = 0

    def stream(self, batch: int) -> Iterator[TileBatch]:
        """Stream the kept tiles.

        Raises:
            SlideUnreadable: more than 20 tiles could not be decoded.
        """
        rows, self.n_corrupt = self._rows, 0
        collector = _Collector(batch)
        with open_slide(self._path, self._given_mpp) as slide:
            plan = plan_read(slide.info, self._spec.mpp, self._spec.tile_px + 2 * self._margin_px)
            mpp = slide.info.mpp or (1.0, 1.0)
            # exact corners from the lattice: the table's are rounded
            step, margin = self._spec.step_px * self._spec.mpp, self._margin_px * self._spec.mpp
            x = (self._table.numpy("col")[rows] * step - margin) / mpp[0]
            y = (self._table.numpy("row")[rows] * step - margin) / mpp[1]
            for run in bands(plan, x, y):
                try:
                    yield from collector.add(rows[run], read_band(slide, plan, x[run], y[run]))
                except SlideError:
                    for i in range(run.start, run.stop):  # find the damaged tile; its neighbours are good
                        one = slice(i, i + 1)
                        try:
                            yield from collector.add(rows[one], read_band(slide, plan, x[one], y[one]))
                        except SlideError:
                            self.n_corrupt += 1
                            if self.n_corrupt > MAX_ERRORS:
                                raise
        yield from collector.rest()


class GivenTiles:
    """Ready tiles: files of their own, or squares cut out of larger pictures; resized where sizes differ.

    With `margin_px` more of the picture on every side, which only squares out of larger pictures have.
    """

    def __init__(
        self, root: Path, table: TileTable, spec: TileSpec, rows: NDArray[np.int64], margin_px: int = 0
    ) -> None:
        self._root, self._table, self._spec, self._rows, self._margin_px = root, table, spec, rows, margin_px
        self.n_corrupt = 0

    def stream(self, batch: int) -> Iterator[TileBatch]:
        """Stream the tiles; pictures that cannot be decoded are counted and left out."""
        rows, self.n_corrupt = self._rows, 0
        paths, xs, ys, sides = (self._table.numpy(name)[rows] for name in ("path", "x", "y", "w0"))
        collector = _Collector(batch)
        start = 0
        while start < len(rows):
            stop = start
            while stop < len(rows) and paths[stop] == paths[start]:
                stop += 1
            try:
                tiles = self._read_file(self._root / paths[start], xs[start:stop], ys[start:stop], sides[start:stop])
                yield from collector.add(rows[start:stop], tiles)
            except SlideError:
                self.n_corrupt += stop - start
            start = stop
        yield from collector.rest()

    def _read_file(self, path: Path, xs: np.ndarray, ys: np.ndarray, sides: np.ndarray) -> NDArray[np.uint8]:
        px = self._spec.tile_px + 2 * self._margin_px
        out = np.empty((len(xs), px, px, 3), np.uint8)
        with open_slide(path) as picture:
            for i, (x, y, side) in enumerate(zip(xs, ys, sides, strict=True)):
                if side < 0:  # the tile is the file
                    if self._margin_px:
                        raise TableError(
                            "a tile that is a file of its own has no surroundings", path, "Set views.field=1."
                        )
                    tile = picture.read(0, 0, picture.info.width, picture.info.height)
                else:
                    more = round(side * self._margin_px / self._spec.tile_px)
                    whole = int(side) + 2 * more
                    tile = picture.read(int(x) - more, int(y) - more, whole, whole)
                out[i] = tile if tile.shape[:2] == (px, px) else _resize(tile, px)
        return out


def _resize(tile: NDArray[np.uint8], px: int) -> NDArray[np.uint8]:
    shrinks = min(tile.shape[:2]) >= px
    return np.asarray(
        cv2.resize(tile, (px, px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR), np.uint8
    )


def open_tiles(
    cohort: Cohort,
    record: SlideRecord,
    table: TileTable,
    spec: TileSpec,
    rows: NDArray[np.int64] | None = None,
    *,
    margin_px: int = 0,
) -> TileSource:
    """The source of one slide's kept tiles, or of some rows of its table in the order given.

    With `margin_px`, regions of `tile_px + 2 * margin_px` with the tile in their middle; white beyond the slide's edge.
    """
    chosen = table.kept if rows is None else rows
    if cohort.kind == "tiles":
        return GivenTiles(cohort.root, table, spec, chosen, margin_px)
    return SlideTiles(cohort.path_of(record), record.given_mpp, table, spec, chosen, margin_px)


def tile_centres(table: TileTable, spec: TileSpec, mpp: float) -> NDArray[np.float64] | None:
    """Where the tiles of one slide lie: (n, 2) x, y of their centres in um from the slide's corner.

    Args:
        table: of the slide.
        spec: of the tiling.
        mpp: of the slide's level 0.

    Returns:
        None for tiles that are files of their own.
    """
    if spec.is_given:
        x, y, side = (table.numpy(name).astype(np.float64) for name in ("x", "y", "w0"))
        return None if (side < 0).any() else np.stack([x + side / 2, y + side / 2], axis=1) * mpp
    corner = np.stack([table.numpy("col"), table.numpy("row")], axis=1).astype(np.float64)
    return (corner * spec.step_px + spec.tile_px / 2) * spec.mpp
