"""Where which tissue lies: the outline, and regions of one class each, on the 2 um grid.

The outline and the class map made here are the ground truth, before anything is drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from histokin.slides.generated.classes import (
    BACKGROUND,
    BLOOD,
    FAT,
    GLAND,
    LYMPHOID,
    MUCIN,
    NECROSIS,
    NEIGHBOURHOOD,
    STROMA,
    TUMOUR,
    Diagnosis,
)
from histokin.slides.generated.noise import F32, F64, U8, Grid, jittered_lattice, nearest_two, signed_um, smooth_noise

_FAT_CELL_UM = 62.0
_INVADED = (STROMA, FAT, MUCIN, GLAND)


@dataclass(slots=True)
class Regions:
    """The plan of a slide; arrays of the grid's shape.

    Attributes:
        classes: index into CLASSES.
        outside_um: distance to the tissue's outline, positive on the glass; good near the outline.
        fat_wall_um: difference of the distances to the two nearest fat cells' centres: 0 on the wall between them.
    """

    classes: U8
    outside_um: F32
    fat_wall_um: F32


def lay_out(rng: np.random.Generator, grid: Grid, mix: Mapping[int, float], diagnosis: Diagnosis) -> Regions:
    """Draw the outline, fill it with regions in the proportions of `mix`, and let neighbours reach into one another."""
    inside = _outline(rng, grid)
    inside_um = signed_um(inside, grid)
    inside_um += np.float32(2.5) * smooth_noise(rng, grid, 22.0, octaves=2)
    is_tissue = inside_um > 0
    classes = _fill(rng, grid, is_tissue, mix, diagnosis)
    # A rim of connective tissue along part of the outline; elsewhere glands and nests are cut open by the edge.
    rim = (inside_um < 26 + 14 * smooth_noise(rng, grid, 60.0, octaves=2)) & (smooth_noise(rng, grid, 500.0) > 0)
    classes[rim & (classes != FAT)] = STROMA
    classes = np.asarray(cv2.medianBlur(classes, 5), np.uint8)
    classes[~is_tissue] = BACKGROUND
    regions = Regions(classes, -inside_um, np.full(grid.shape, 99.0, np.float32))
    _round_off_fat(rng, grid, regions)
    return regions


def _outline(rng: np.random.Generator, grid: Grid) -> F32:
    """A smooth field, positive inside one to three pieces of tissue side by side, some with a straight cut."""
    x, y = grid.centres()
    width, height = grid.size_um
    n_pieces = int(rng.choice([1, 2, 3], p=[0.5, 0.37, 0.13]))
    is_wide = width >= height
    field = np.full(grid.shape, -9, np.float32)
    for piece in range(n_pieces):
        along = (piece + 0.5) / n_pieces
        cx, cy = (along, 0.5 + rng.uniform(-0.05, 0.05)) if is_wide else (0.5 + rng.uniform(-0.05, 0.05), along)
        half = rng.uniform(0.39, 0.46) / n_pieces, rng.uniform(0.36, 0.45)
        half_x, half_y = half if is_wide else half[::-1]
        turn = rng.uniform(-0.35, 0.35) / n_pieces
        dx, dy = x / width - cx, y / height - cy
        u, v = dx * np.cos(turn) + dy * np.sin(turn), -dx * np.sin(turn) + dy * np.cos(turn)
        # exponent 2: ellipse; above: blocks as they come out of an embedding cassette
        power = rng.uniform(1.9, 2.9)
        body = 1 - ((np.abs(u) / half_x) ** power + (np.abs(v) / half_y) ** power) ** (1 / power)
        if rng.random() < 0.5:
            angle = rng.uniform(0, 2 * np.pi)
            cut = rng.uniform(0.55, 0.8) - (u / half_x * np.cos(angle) + v / half_y * np.sin(angle))
            body = np.minimum(body, cut)
        field = np.maximum(field, body.astype(np.float32))
    return field + np.float32(0.055) * smooth_noise(rng, grid, min(width, height) / 4.5, octaves=4)


def _fill(
    rng: np.random.Generator, grid: Grid, is_tissue: NDArray[np.bool_], mix: Mapping[int, float], diagnosis: Diagnosis
) -> U8:
    """Give each cell of the tissue a class: warped Voronoi regions whose neighbours share an irregular border."""
    cell_um = float(np.clip(max(grid.size_um) / 7, 120, 260))
    seeds = jittered_lattice(rng, grid, cell_um, 0.34)
    warp_x, warp_y = (smooth_noise(rng, grid, cell_um * 0.9, octaves=4) * np.float32(0.2 * cell_um) for _ in "xy")
    x, y = grid.centres()
    distances, at = nearest_two(seeds, (x + warp_x)[is_tissue], (y + warp_y)[is_tissue])
    area = np.bincount(at[:, 0], minlength=len(seeds)).astype(np.float64)
    class_of = _classes_of_seeds(rng, grid, seeds, area, mix)
    first, second = class_of[at[:, 0]], class_of[at[:, 1]]
    # Antisymmetric in the two classes, so that both sides of a border agree where it runs.
    side = np.where(first < second, 1.0, -1.0) * (distances[:, 1] - distances[:, 0]) / 2
    wobble = smooth_noise(rng, grid, 75.0, octaves=3, gain=0.6)[is_tissue]
    is_first = side + _reach_table(diagnosis)[first, second] * wobble > 0
    classes = np.zeros(grid.shape, np.uint8)
    classes[is_tissue] = np.where(is_first, np.minimum(first, second), np.maximum(first, second))
    return classes


def _classes_of_seeds(rng: np.random.Generator, grid: Grid, seeds: F64, area: F64, mix: Mapping[int, float]) -> U8:
    """Order the seeds by a smooth field plus noise, and cut the order where the mix's shares of the area end."""
    smooth = smooth_noise(rng, grid, max(grid.size_um) / 2.8, octaves=2)[grid.cells_at(seeds)]
    order = np.argsort(smooth + rng.normal(0, 0.55, len(seeds)), kind="stable")
    # Area inside the tissue: counted over the whole frame, some classes would end on the glass.
    ordered = area[order]
    passed = (np.cumsum(ordered) - rng.random() * ordered) / max(area.sum(), 1)
    shares = np.array([mix.get(index, 0.0) for index in NEIGHBOURHOOD])
    cuts = np.cumsum(shares) / shares.sum()
    class_of = np.empty(len(seeds), np.uint8)
    class_of[order] = np.array(NEIGHBOURHOOD, np.uint8)[np.searchsorted(cuts, passed).clip(0, len(cuts) - 1)]
    return class_of


def _reach_table(diagnosis: Diagnosis) -> F64:
    """How far two classes reach into one another, um, (9, 9) symmetric."""
    reach = np.full((9, 9), 7.0)
    for other in _INVADED:
        reach[TUMOUR, other] = reach[other, TUMOUR] = diagnosis.infiltration_um
    for a, b, um in ((LYMPHOID, STROMA, 20), (LYMPHOID, GLAND, 16), (NECROSIS, TUMOUR, 16), (BLOOD, STROMA, 22)):
        reach[a, b] = reach[b, a] = um
    return reach


def _round_off_fat(rng: np.random.Generator, grid: Grid, regions: Regions) -> None:
    """Make fat of whole cells: its borders follow their round outlines, also at the tissue's edge."""
    was_fat = regions.classes == FAT
    if not was_fat.any():
        return
    reach = int(2.2 * _FAT_CELL_UM / grid.um) | 1  # a cell with its seed in the fat lies wholly inside
    near = cv2.dilate(was_fat.astype(np.uint8), np.ones((reach, reach), np.uint8)) > 0
    cells = jittered_lattice(rng, grid, _FAT_CELL_UM, 0.33)
    wobble_x, wobble_y = (smooth_noise(rng, grid, 40.0, octaves=2) * np.float32(4.5) for _ in "xy")
    x, y = grid.centres()
    distances, at = nearest_two(cells, (x + wobble_x)[near], (y + wobble_y)[near])
    is_fat_cell = was_fat[grid.cells_at(cells)]
    is_fat = np.zeros(grid.shape, bool)
    is_fat[near] = is_fat_cell[at[:, 0]]
    regions.fat_wall_um[near] = (distances[:, 1] - distances[:, 0]).astype(np.float32)
    leftover = was_fat & ~is_fat
    regions.classes[leftover] = np.where(regions.outside_um[leftover] < 0, STROMA, BACKGROUND)
    regions.classes[is_fat] = FAT
    regions.outside_um[is_fat] = np.minimum(regions.outside_um[is_fat], -3.0)
