"""Position by convolution: TransMIL's PPEG, and where on the grid a tile stands."""

import math

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

# Cells further apart than the largest filter reaches do not see each other, however far apart they are.
_REACH = 3


class Ppeg(nn.Module):
    """Pyramid position encoding (Shao et al. 2021): img + dw7(img) + dw5(img) + dw3(img), depth-wise filters with bias.

    The sum is one 7x7 filter, and computed so.

    Args:
        dim: E.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dw7, self.dw5, self.dw3 = (nn.Conv2d(dim, dim, size, groups=dim) for size in (7, 5, 3))

    def forward(self, tiles: Tensor, cells: Tensor, height: int, width: int) -> Tensor:
        """Every tile sees its neighbours on the grid.

        Args:
            tiles: (n, E).
            cells: (n,) int64, row * width + column of each tile; tiles in one cell share their mean.
            height, width: of the grid; its other cells are zero.

        Returns:
            (n, E).
        """
        grid = tiles.new_zeros(height * width, tiles.shape[1]).index_add(0, cells, tiles)
        count = tiles.new_zeros(height * width).index_add(0, cells, torch.ones_like(tiles[:, 0]))
        image = (grid / count.clamp_min(1)[:, None]).T.unflatten(1, (height, width))
        weight = self.dw7.weight + F.pad(self.dw5.weight, (1,) * 4) + F.pad(self.dw3.weight, (2,) * 4)
        bias = torch.stack([conv.bias for conv in (self.dw7, self.dw5, self.dw3) if conv.bias is not None]).sum(0)
        seen = F.conv2d(image[None], weight, bias, padding=_REACH, groups=tiles.shape[1])[0]
        return tiles + seen.flatten(1).T[cells]


def square_cells(n: int) -> tuple[Tensor, int, int]:
    """The cells of n tiles in their order, row by row in the smallest square that holds them; its height and width."""
    side = math.isqrt(n - 1) + 1
    return torch.arange(n), side, side


def grid_cells(coords: Tensor) -> tuple[Tensor, int, int]:
    """The cells of tiles by their places, and the height and width of the grid.

    A cell is as large as the commonest distance of neighbours in a row or column, give or take a rounding, so that
    pieces of tissue with grids of their own fall into one. Empty rows and columns beyond the filters' reach are left
    out: nothing sees across them.

    Args:
        coords: (n, 2) int64, x and y in level-0 pixels.
    """
    x, y = coords.unbind(1)
    distances = torch.cat([_neighbour_distances(x, y), _neighbour_distances(y, x)])
    step = 1.0
    if len(distances):
        values, counts = distances.unique(return_counts=True)
        commonest = int(values[counts == counts.max()].min())
        near = distances[(distances - commonest).abs() <= 0.02 * commonest]
        step = int(near.sum()) / len(near)  # a stride of 99.7 px alternates between 99 and 100
    columns, width = _squeezed(((x - x.min()).double() / step).round().long())
    rows, height = _squeezed(((y - y.min()).double() / step).round().long())
    return rows * width + columns, height, width


def raster_order(coords: Tensor) -> Tensor:
    """The rows of (n, 2) coords sorted by y, then x; equal places keep their order."""
    by_x = coords[:, 0].argsort(stable=True)
    return by_x[coords[by_x, 1].argsort(stable=True)]


def _neighbour_distances(along: Tensor, across: Tensor) -> Tensor:
    """Distances > 0 between tiles that follow each other in one row."""
    order = raster_order(torch.stack([along, across], 1))
    along, across = along[order], across[order]
    gaps = along.diff()
    return gaps[(across.diff() == 0) & (gaps > 0)]


def _squeezed(index: Tensor) -> tuple[Tensor, int]:
    """Rows or columns with every gap cut to what the filters can see, and how many are left."""
    values, where = index.unique(return_inverse=True)
    places = F.pad(values.diff().clamp_max(_REACH + 1).cumsum(0), (1, 0))
    return places[where], int(places[-1]) + 1
