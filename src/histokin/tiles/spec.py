"""What a tile is: its size, its pixel size, the step between tiles. Micrometres are the unit of thought."""

import math
from dataclasses import dataclass

from histokin.artefacts import digest_of
from histokin.errors import RecipeError


@dataclass(frozen=True, slots=True)
class TileSpec:
    """The tiling asked for.

    Attributes:
        tile_px: side of a tile in pixels at `mpp`.
        mpp: um per pixel of the tile.
        stride_px: step between tiles in the same pixels; 0 means the tile's side (no overlap).
        min_tissue: smallest share of tissue a kept tile has.
        is_given: the tiles come from a tile folder or table, not from a grid.
    """

    tile_px: int = 256
    mpp: float = 1.0
    stride_px: int = 0
    min_tissue: float = 0.5
    is_given: bool = False

    def __post_init__(self) -> None:
        if self.tile_px < 8 or not 0 < self.mpp < math.inf or self.stride_px < 0 or not 0 <= self.min_tissue <= 1:
            raise RecipeError(
                f"a tiling of {self.tile_px} px at {self.mpp:g} um, stride {self.stride_px}, "
                f"tissue >= {self.min_tissue:g} cannot be",
                "tiles",
                "Tiles have at least 8 px, positive mpp and stride, and a tissue share between 0 and 1.",
            )

    @property
    def step_px(self) -> int:
        return self.stride_px or self.tile_px

    @property
    def tile_um(self) -> float:
        """Side of a tile."""
        return self.tile_px * self.mpp

    @property
    def spec_id(self) -> str:
        """Readable name with a digest of the whole spec: names the folder of its tables."""
        step = "given" if self.is_given else f"{self.tile_px - self.step_px}ov"
        return f"{self.mpp:g}mpp-{self.tile_px}px-{step}-{digest_of(self)[:8]}"

    def __str__(self) -> str:
        return f"{self.tile_px} px at {self.mpp:g} µm/px ({self.tile_um:g} µm)"
