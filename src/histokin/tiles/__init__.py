"""Tiles: the plan of where to look on a slide, the table of it, the pixels, and the cache of pixels.

Knows nothing of networks.
"""

from histokin.tiles.pack import PackedTiles, pack_ledger, write_pack
from histokin.tiles.planning import ClassMap, native_spec, plan_given, plan_tiles
from histokin.tiles.source import TileBatch, TileSource, open_tiles, tile_centres
from histokin.tiles.spec import TileSpec
from histokin.tiles.stage import Tiling, find_tiling, tile_cohort
from histokin.tiles.table import TileTable

__all__ = [
    "ClassMap",
    "PackedTiles",
    "TileBatch",
    "TileSource",
    "TileSpec",
    "TileTable",
    "Tiling",
    "find_tiling",
    "native_spec",
    "open_tiles",
    "pack_ledger",
    "plan_given",
    "plan_tiles",
    "tile_centres",
    "tile_cohort",
    "write_pack",
]
