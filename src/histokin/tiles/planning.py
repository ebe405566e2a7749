"""From a slide and its tissue to its `TileTable`; from given tiles to theirs. Pure: no file is touched."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import SlideRecord, TileRow
from histokin.slides import SlideInfo
from histokin.tiles.grid import cover, majority_class, plan_grid
from histokin.tiles.spec import TileSpec
from histokin.tiles.table import TileTable, build_table
from histokin.tissue import TissueMask

_ROUNDING = 1e-9  # what is left of sums and differences over an integral image


@dataclass(frozen=True, slots=True)
class ClassMap:
    """What is where on a slide: (H, W) uint8 class numbers stretched over it, and their names; 0 is background."""

    values: NDArray[np.uint8]
    names: dict[int, str]


def plan_tiles(
    record: SlideRecord, info: SlideInfo, tissue: TissueMask, spec: TileSpec, class_map: ClassMap | None = None
) -> TileTable:
    """Lay the grid and keep the tiles with enough tissue.

    Tiles without any tissue get no row; those with too little stay with `keep` false and the reason.

    Raises:
        ValueError: the slide has no mpp.
    """
    if info.mpp is None:
        raise ValueError("a slide without mpp cannot be tiled")
    size = (info.width, info.height)
    grid = plan_grid(*size, info.mpp, spec)
    share = cover(grid, tissue.mask, size)
    rows = np.flatnonzero(share > _ROUNDING)
    keep = share[rows] >= spec.min_tissue - _ROUNDING
    columns = {
        "x": np.floor(grid.x[rows] + 0.5).astype(np.int64),
        "y": np.floor(grid.y[rows] + 0.5).astype(np.int64),
        "w0": np.full(len(rows), round(grid.side[0])),
        "h0": np.full(len(rows), round(grid.side[1])),
        "row": grid.row[rows],
        "col": grid.col[rows],
        "tissue": share[rows].astype(np.float32),
        "keep": keep,
        "reason": np.where(keep, "", "background"),
        "slide": [record.slide] * len(rows),
        "patient": [record.patient] * len(rows),
    }
    if class_map is not None:
        label, fraction = majority_class(grid, class_map.values, class_map.names, size)
        columns["label"], columns["label_frac"] = label[rows], fraction[rows]
    return build_table(columns, _meta(record, spec))


def plan_given(record: SlideRecord, tiles: Sequence[TileRow], spec: TileSpec, reasons: Sequence[str] = ()) -> TileTable:
    """The table of a slide of a tile set: every tile is kept, except those with a reason why not."""
    names = sorted({name for tile in tiles for name in tile.labels})
    reasons = reasons or [""] * len(tiles)
    columns = {
        "keep": np.array([not reason for reason in reasons], bool),
        "reason": reasons,
        "slide": [record.slide] * len(tiles),
        "path": [tile.path for tile in tiles],
        "x": np.array([tile.x for tile in tiles], np.int64),
        "y": np.array([tile.y for tile in tiles], np.int64),
        "w0": np.array([tile.size or -1 for tile in tiles], np.int32),
        "h0": np.array([tile.size or -1 for tile in tiles], np.int32),
        "patient": [tile.patient for tile in tiles],
        "region": [tile.region for tile in tiles],
        "split": [tile.split for tile in tiles],
        "label": [tile.labels.get("label", "") for tile in tiles],
        **{f"label:{name}": [tile.labels.get(name, "") for tile in tiles] for name in names if name != "label"},
    }
    return build_table(columns, _meta(record, spec))


def _meta(record: SlideRecord, spec: TileSpec) -> dict[str, object]:
    return {
        "slide": record.slide,
        "width": record.width,
        "height": record.height,
        "mpp": record.mpp,
        "mpp_source": record.mpp_source,
        "content_key": record.content_key,
        "spec_id": spec.spec_id,
    }


def native_spec(tiles: Sequence[TileRow], picture_px: int, mpp: float, tile_px: int | None) -> TileSpec:
    """The spec of a tile set: the tiles as they are, at their commonest size, unless another size is asked for."""
    sizes = [tile.size for tile in tiles if tile.size] or [picture_px]
    own = int(np.bincount(sizes).argmax())
    px = tile_px or own
    return TileSpec(tile_px=px, mpp=mpp * own / px, min_tissue=0.0, is_given=True)
