"""Which cells lie where: densities of nuclei and red cells by tissue, and their directions."""

from dataclasses import dataclass

import cv2
import numpy as np

from histokin.slides.generated.classes import BLOOD, GLAND, LYMPHOID, MUCIN, NECROSIS, STROMA, TUMOUR, Diagnosis
from histokin.slides.generated.noise import F32, F64, Grid, blur, ramp, scatter, smooth_noise
from histokin.slides.generated.nuclei import (
    CENTROBLAST,
    DEBRIS,
    ENDOTHELIAL,
    EPITHELIAL,
    FIBROBLAST,
    GHOST,
    LYMPHOCYTE,
    TUMOUR_NUCLEUS,
    NucleusKind,
    Plane,
    make_red_cells,
    make_stamps,
    make_turned_stamps,
)
from histokin.slides.generated.regions import Regions
from histokin.slides.generated.stain import PatientStyle
from histokin.slides.generated.textures import Fields


@dataclass(slots=True)
class Cells:
    """Stamped planes, and how far it is to the next tumour nucleus (um, grid's shape)."""

    nuclei: Plane
    red_cells: Plane
    to_tumour_um: F32


@dataclass(slots=True)
class _Scene:
    """What every population needs to know."""

    rng: np.random.Generator
    grid: Grid
    mpp: float
    fields: Fields
    plane: Plane
    is_free: F32  # 1 where a nucleus may lie: in solid tissue, outside walls

    def spread(self, density: F32, kind: NucleusKind, n_stamps: int, *, min_um: float) -> F64:
        points = scatter(self.rng, self.grid, density * self.is_free, min_um=min_um)
        if len(points):
            self.plane.stamp_any(self.rng, points, make_stamps(self.rng, kind, self.mpp, n_stamps))
        return points


def populate(
    rng: np.random.Generator,
    grid: Grid,
    *,
    size: tuple[int, int],
    mpp: float,
    regions: Regions,
    fields: Fields,
    diagnosis: Diagnosis,
    style: PatientStyle,
) -> Cells:
    """Stamp all nuclei and red cells of a slide of `size` (width, height) px."""
    plane = Plane(*size, mpp)
    is_free = ((fields.void_um < -2.5) & (fields.ring_um < -2.0)).astype(np.float32)
    scene = _Scene(rng, grid, mpp, fields, plane, is_free)
    share = {index: (regions.classes == index).astype(np.float32) for index in range(1, 9)}
    uneven = np.exp(np.float32(0.35) * smooth_noise(rng, grid, 120.0, octaves=2))
    tumour = _add_tumour(scene, share, uneven, style)
    inflamed = _add_lymphocytes(scene, share, uneven, diagnosis, style)
    _add_fibroblasts(scene, share, uneven, inflamed, style)
    _add_necrosis(scene, share, style)
    _add_fat_nuclei(scene)
    _add_walls(scene)
    return Cells(plane, _add_red_cells(scene, size, share), _distance_to(grid, tumour))


def _add_tumour(scene: _Scene, share: dict[int, F32], uneven: F32, style: PatientStyle) -> F64:
    size = style.nucleus_size
    kind = NucleusKind(
        diameter=TUMOUR_NUCLEUS.diameter * size,
        spread=TUMOUR_NUCLEUS.spread * size,
        eccentricity=TUMOUR_NUCLEUS.eccentricity,
        density=TUMOUR_NUCLEUS.density,
        density_spread=TUMOUR_NUCLEUS.density_spread,
        clumps=TUMOUR_NUCLEUS.clumps,
        ragged=TUMOUR_NUCLEUS.ragged,
        vesicular=TUMOUR_NUCLEUS.vesicular,
    )
    nests = share[TUMOUR] * (scene.fields.septum < 0.35)
    density = nests * np.minimum(uneven, 1.6) * np.float32(5600 / size**2) * style.density[TUMOUR]
    density += share[MUCIN] * np.float32(150)
    return scene.spread(density, kind, 48, min_um=8.6 * size)


def _add_lymphocytes(
    scene: _Scene, share: dict[int, F32], uneven: F32, diagnosis: Diagnosis, style: PatientStyle
) -> F32:
    """Lymphoid tissue with its germinal centres, and inflamed patches elsewhere; returns the patches."""
    rng, grid, germinal = scene.rng, scene.grid, scene.fields.germinal
    lymphoid = blur(share[LYMPHOID], 4.0) ** 1.5  # cells stray over the border
    loose = np.exp(np.float32(0.45) * smooth_noise(rng, grid, 55.0, octaves=2))
    patch = smooth_noise(rng, grid, 200.0, octaves=3)
    inflamed = ramp(patch, *np.quantile(patch, [1 - diagnosis.inflamed, 1 - 0.4 * diagnosis.inflamed]))
    inflamed *= share[STROMA] + share[GLAND] + np.float32(0.4) * share[TUMOUR]
    density = lymphoid * (1 - np.float32(0.88) * germinal) * np.minimum(loose, 1.35) * np.float32(15500)
    density *= style.density[LYMPHOID]
    density += inflamed * uneven * np.float32(2300) + share[GLAND] * np.float32(350) + share[STROMA] * np.float32(70)
    scene.spread(density, LYMPHOCYTE, 48, min_um=5.7)
    scene.spread(lymphoid * germinal * np.float32(6800), CENTROBLAST, 32, min_um=8.0)
    return inflamed


def _add_fibroblasts(scene: _Scene, share: dict[int, F32], uneven: F32, inflamed: F32, style: PatientStyle) -> None:
    """Spindle nuclei along the fibres."""
    rng, fields = scene.rng, scene.fields
    density = share[STROMA] * (1 + inflamed) * np.float32(1400) * style.density[STROMA]
    density += share[GLAND] * np.float32(1300) + fields.septum * np.float32(1500) + share[LYMPHOID] * np.float32(400)
    points = scatter(rng, scene.grid, density * scene.is_free * uneven, min_um=7.5)
    across_x = np.asarray(cv2.Sobel(fields.v, cv2.CV_32F, 1, 0), np.float32)
    across_y = np.asarray(cv2.Sobel(fields.v, cv2.CV_32F, 0, 1), np.float32)
    at = scene.grid.cells_at(points)
    angles = np.arctan2(-across_x[at], across_y[at]) + rng.normal(0, 0.2, len(points))
    scene.plane.stamp_turned(rng, points, angles, make_turned_stamps(rng, FIBROBLAST, scene.mpp, 5))


def _add_necrosis(scene: _Scene, share: dict[int, F32], style: PatientStyle) -> None:
    if not share[NECROSIS].any():
        return
    patchy = np.exp(np.float32(0.6) * smooth_noise(scene.rng, scene.grid, 60.0, octaves=2))
    dead = blur(share[NECROSIS], 3.0) * np.minimum(patchy, 2.5) * style.density[NECROSIS]
    scene.spread(dead * np.float32(1000), GHOST, 20, min_um=9.0)
    scene.spread(dead * np.float32(2300), DEBRIS, 24, min_um=4.0)


def _add_fat_nuclei(scene: _Scene) -> None:
    """Flat nuclei in the walls of fat cells, lying along them."""
    fields, grid, rng = scene.fields, scene.grid, scene.rng
    density = ((fields.fat > 0.8) & (fields.fat_wall_um < 2.5)).astype(np.float32) * np.float32(1500)
    points = scatter(rng, grid, density, min_um=10.0)
    if not len(points):
        return
    wall = blur(fields.fat_wall_um, 1.5)
    at = grid.cells_at(points)
    # across a wall the measure has its sharpest bend: the second derivatives tell the wall's direction
    xx, yy, xy = (np.asarray(cv2.Sobel(wall, cv2.CV_32F, *order), np.float32)[at] for order in ((2, 0), (0, 2), (1, 1)))
    angles = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    scene.plane.stamp_turned(rng, points, angles, make_turned_stamps(rng, ENDOTHELIAL, scene.mpp, 3))


def _add_walls(scene: _Scene) -> None:
    """Epithelial nuclei point at the lumen, those of vessels lie round it."""
    rng, fields, grid = scene.rng, scene.fields, scene.grid
    for rings, kind, turn in ((fields.glands, EPITHELIAL, 0.0), (fields.vessels, ENDOTHELIAL, np.pi / 2)):
        if not len(rings.nuclei):
            continue
        width, height = grid.size_um
        points, angles = rings.nuclei, rings.angles + turn + rng.normal(0, 0.14, len(rings.angles))
        inside = (points > 0).all(axis=1) & (points[:, 0] < width) & (points[:, 1] < height)
        inside &= (fields.void_um[grid.cells_at(points)] < -2.0) & (fields.fat[grid.cells_at(points)] < 0.5)
        stamps = make_turned_stamps(rng, kind, scene.mpp, 5)
        scene.plane.stamp_turned(rng, points[inside], angles[inside], stamps)


def _add_red_cells(scene: _Scene, size: tuple[int, int], share: dict[int, F32]) -> Plane:
    """Pools of blood, spilling a little over their border, and the contents of most vessels."""
    rng, grid, fields = scene.rng, scene.grid, scene.fields
    plane = Plane(*size, scene.mpp)
    pool = blur(share[BLOOD], 4.0) ** 2
    thin = np.exp(np.float32(0.4) * smooth_noise(rng, grid, 45.0, octaves=3))
    full = (fields.vessels.lumen_um > 1.5) * ramp(smooth_noise(rng, grid, 120.0, octaves=2), -0.3, 0.3)
    solid = (fields.void_um < -1.0).astype(np.float32) * (fields.ring_um < -3.0)
    density = pool * solid * np.minimum(thin, 1.3) * np.float32(38000) + full * np.float32(22000)
    points = scatter(rng, grid, np.asarray(density * (fields.fat < 0.3), np.float32), min_um=4.7, jitter=0.45)
    if len(points):
        plane.stamp_any(rng, points, make_red_cells(rng, scene.mpp, 48))
    return plane


def _distance_to(grid: Grid, points: F64) -> F32:
    if not len(points):
        return np.full(grid.shape, 99.0, np.float32)
    mask = np.ones(grid.shape, np.uint8)
    mask[grid.cells_at(points)] = 0
    return np.asarray(cv2.distanceTransform(mask, cv2.DIST_L2, 5), np.float32) * np.float32(grid.um)
