"""What lies between the nuclei: densities, fibres, lumens and clefts, as fields on the 2 um grid.

Everything smooth is settled here, where there are 16 times fewer cells than pixels; `render` adds what is finer.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from histokin.slides.generated.classes import (
    BACKGROUND,
    BLOOD,
    CLASSES,
    FAT,
    GLAND,
    LYMPHOID,
    MUCIN,
    NECROSIS,
    STROMA,
    TUMOUR,
    Diagnosis,
)
from histokin.slides.generated.glands import Rings, RingStyle, place_rings
from histokin.slides.generated.noise import F32, Grid, blur, ramp, smooth_noise
from histokin.slides.generated.regions import Regions
from histokin.slides.generated.stain import PatientStyle

VESSEL = RingStyle(
    radius=14.0,
    radius_spread=0.45,
    wall=(2.0, 5.5),
    disorder=0.5,
    lobes=0.4,
    nucleus_um=16.0,
    nucleus_depth=(0.4, 0.1),
    filled=0.0,
    goblets=0.0,
)
# How strongly fibres show in each class, and how grainy it is.
_FIBRE = {STROMA: 1.0, GLAND: 0.55, LYMPHOID: 0.3, TUMOUR: 0.1, BLOOD: 0.3, NECROSIS: 0.12, MUCIN: 0.0}
_GRANULE = {NECROSIS: 0.26, TUMOUR: 0.09, GLAND: 0.06, STROMA: 0.05, LYMPHOID: 0.12}


@dataclass(slots=True)
class Fields:
    """A slide between its nuclei; float32 arrays of the grid's shape.

    Attributes:
        haematoxylin, eosin: density.
        fibre, granule: strength of the strand and grain textures.
        u, v: coordinates along and across the fibres, um.
        void_um: distance into what is empty: glass, lumens, clefts; positive inside.
        fill_h, fill_e: density of what a void holds after all: mucin or debris in a lumen.
        ring_um: distance into the walls of glands and vessels.
        ring_h, ring_e: their density.
        fat, fat_wall_um: share of fat, distance measure of its cell walls.
        septum: share of fibrous bands inside tumour.
        nest: share of tumour without its septa.
        germinal: share of germinal centre inside lymphoid tissue.
        glands, vessels: the rings.
    """

    haematoxylin: F32
    eosin: F32
    fibre: F32
    granule: F32
    u: F32
    v: F32
    void_um: F32
    fill_h: F32
    fill_e: F32
    ring_um: F32
    ring_h: F32
    ring_e: F32
    fat: F32
    fat_wall_um: F32
    septum: F32
    nest: F32
    germinal: F32
    glands: Rings
    vessels: Rings


def _by_class(table: dict[int, float]) -> F32:
    return np.array([table.get(index, 0.0) for index in range(len(CLASSES))], np.float32)


def share_of(regions: Regions, index: int, sigma: float) -> F32:
    """Soft mask of a class; sigma in cells."""
    return blur((regions.classes == index).astype(np.float32), sigma)


def weave(rng: np.random.Generator, grid: Grid, regions: Regions, diagnosis: Diagnosis, style: PatientStyle) -> Fields:
    """Draw all fields of a slide. Glands that grow over a border take their ground into the class map."""
    glands = _place_glands(rng, grid, regions, diagnosis)
    is_grown = (glands.body_um > 0) & (regions.classes != BACKGROUND) & (regions.classes != FAT)
    regions.classes[is_grown] = GLAND
    tumour = share_of(regions, TUMOUR, 1.5)
    septum, cleft_um = _septa(rng, grid, diagnosis, tumour)
    stroma = share_of(regions, STROMA, 1.5)
    vessel_density = (stroma * 16 + share_of(regions, LYMPHOID, 1.5) * 14 + septum * 30) * (glands.body_um < -12)
    vessels = place_rings(rng, grid, vessel_density * (regions.outside_um < -12), VESSEL)
    tone_h, tone_e = (1 + np.float32(0.11) * smooth_noise(rng, grid, um, octaves=4) for um in (250, 180))
    haematoxylin, eosin = _ground(rng, grid, regions, style, septum)
    haematoxylin *= tone_h
    eosin *= tone_e
    germinal = _germinal_centres(rng, grid, regions, diagnosis)
    haematoxylin *= 1 - np.float32(0.25) * germinal
    u, v = _stream(rng, grid)
    lumen_um = np.maximum(glands.lumen_um, vessels.lumen_um)
    fill_h, fill_e = _fillings(rng, grid, glands, regions.outside_um, style)
    is_goblet = (glands.goblet_um > -3) & (regions.outside_um < 0)
    fill_h[is_goblet], fill_e[is_goblet] = 0.09, 0.03
    fibre = blur(_by_class(_FIBRE)[regions.classes], 1.5) + np.float32(0.8) * septum
    fibre *= np.clip(0.85 + 0.4 * smooth_noise(rng, grid, 140.0, octaves=3), 0.2, 1.5)  # some collagen is glassy
    cracks_um = _cracks(rng, grid, np.maximum(stroma, np.float32(0.6) * share_of(regions, GLAND, 1.5)))
    gap_um = blur(np.maximum(cleft_um, cracks_um), 0.9)  # a ridge narrower than a cell would break into beads
    gap_um[np.maximum(glands.body_um, vessels.body_um) > -1] = -9
    ring_h, ring_e = _walls(glands, vessels, lumen_um, style)
    return Fields(
        haematoxylin=haematoxylin,
        eosin=eosin,
        fibre=np.asarray(fibre, np.float32),
        granule=blur(_by_class(_GRANULE)[regions.classes], 3.0),
        u=u,
        v=v,
        void_um=np.max([regions.outside_um, lumen_um, glands.goblet_um, gap_um], axis=0),
        fill_h=fill_h,
        fill_e=fill_e,
        ring_um=np.maximum(glands.body_um, vessels.body_um),
        ring_h=np.asarray(ring_h * tone_h, np.float32),
        ring_e=np.asarray(ring_e * tone_e, np.float32),
        fat=share_of(regions, FAT, 0.7),
        fat_wall_um=blur(np.minimum(regions.fat_wall_um, 12), 0.8),  # a crease between cells would break into dots
        septum=septum,
        nest=tumour * (1 - septum) * ramp(glands.body_um, -1, -6),
        germinal=germinal,
        glands=glands,
        vessels=vessels,
    )


def _place_glands(rng: np.random.Generator, grid: Grid, regions: Regions, diagnosis: Diagnosis) -> Rings:
    radius = diagnosis.gland_um * float(np.exp(rng.normal(0, 0.10)))
    style = RingStyle(
        radius=radius,
        radius_spread=0.24,
        wall=(17.0, 27.0),
        disorder=diagnosis.gland_disorder,
        lobes=2.2,
        nucleus_um=6.2,
        nucleus_depth=(0.36, 0.08 + 0.06 * diagnosis.gland_disorder),
        filled=0.5,
        goblets=float(rng.uniform(0, 0.6)) * (1 - 0.8 * diagnosis.gland_disorder),
    )
    density = (regions.classes == GLAND).astype(np.float32) * np.float32(1e6 / (1.9 * radius) ** 2)
    return place_rings(rng, grid, density, style)


def _septa(rng: np.random.Generator, grid: Grid, diagnosis: Diagnosis, tumour: F32) -> tuple[F32, F32]:
    """Fibrous bands between nests along the zero lines of a noise field, and clefts where nests shrank from them."""
    nest = smooth_noise(rng, grid, diagnosis.nest_um, octaves=2, gain=0.35)
    width = np.float32(0.13) * np.exp(np.float32(0.4) * smooth_noise(rng, grid, 200.0, octaves=2))
    septum = tumour * np.exp(-((nest / width) ** 2))
    where = ramp(smooth_noise(rng, grid, 90.0, octaves=2), 0.3, 1.1) * tumour
    off = np.abs(np.abs(nest) - (width + np.float32(0.05))) * np.float32(0.55 * diagnosis.nest_um)
    return septum, where * np.float32(3.2) - np.float32(0.8) - off


def _cracks(rng: np.random.Generator, grid: Grid, loose: F32) -> F32:
    """Distance into thin cracks of fibrous tissue; they taper off instead of ending."""
    line = np.abs(smooth_noise(rng, grid, 160.0, octaves=3)) * np.float32(48)
    opening = ramp(smooth_noise(rng, grid, 300.0, octaves=2), 0.35, 1.4) * loose
    return opening * np.float32(4.0) - np.float32(1.0) - line


def _ground(
    rng: np.random.Generator, grid: Grid, regions: Regions, style: PatientStyle, septum: F32
) -> tuple[F32, F32]:
    """Haematoxylin and eosin of each class, softened at borders; septa are stroma, mucin has wisps."""
    base_h, base_e = style.haematoxylin.copy(), style.eosin.copy()
    for base in (base_h, base_e):  # between glands lies loose connective tissue
        base[GLAND] = 0.45 * base[GLAND] + 0.5 * base[STROMA]
    # Blurred among tissues only: glass has no density that could bleed into an edge.
    is_soft = np.isin(regions.classes, (BACKGROUND, FAT), invert=True).astype(np.float32)
    weight = blur(is_soft, 2.5) + np.float32(1e-4)
    h, e = (blur(base[regions.classes] * is_soft, 2.5) / weight for base in (base_h, base_e))
    h += septum * (base_h[STROMA] * np.float32(0.8) - h)
    e += septum * (base_e[STROMA] * np.float32(1.1) - e)
    mucin = share_of(regions, MUCIN, 2.0)
    if mucin.any():
        wisps = np.exp(-((smooth_noise(rng, grid, 70.0, octaves=4, gain=0.6) / np.float32(0.33)) ** 2))
        h += mucin * (np.float32(0.03) + np.float32(0.15) * wisps - h)
        e += mucin * (np.float32(0.02) + np.float32(0.07) * wisps - e)
    return h, e


def _germinal_centres(rng: np.random.Generator, grid: Grid, regions: Regions, diagnosis: Diagnosis) -> F32:
    is_lymphoid = regions.classes == LYMPHOID
    wanted = smooth_noise(rng, grid, 190.0, octaves=2, gain=0.35)
    if not is_lymphoid.any():
        return np.zeros(grid.shape, np.float32)
    depth_um = np.asarray(cv2.distanceTransform(is_lymphoid.astype(np.uint8), cv2.DIST_L2, 3), np.float32)
    depth_um *= np.float32(grid.um)
    threshold = 1.3 - 1.3 * diagnosis.germinal
    return ramp(wanted, threshold, threshold + 0.35) * ramp(blur(depth_um, 4.0), 22, 36)


def _stream(rng: np.random.Generator, grid: Grid) -> tuple[F32, F32]:
    """Coordinates along and across the fibres: a rotation bent by smooth potentials, which cannot tear."""
    x, y = grid.centres()
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    # amplitude well below wavelength: nearer to it, the strands close into rings and look like wood
    bend_u, bend_v = (np.float32(200) * smooth_noise(rng, grid, 600.0, octaves=3, gain=0.33) for _ in "uv")
    ripple = np.float32(2.6) * smooth_noise(rng, grid, 28.0, octaves=2)
    u, v = x * cos + y * sin + bend_u, y * cos - x * sin + bend_v + ripple
    return np.asarray(u, np.float32), np.asarray(v, np.float32)


def _fillings(
    rng: np.random.Generator, grid: Grid, glands: Rings, outside_um: F32, style: PatientStyle
) -> tuple[F32, F32]:
    """Density inside gland lumens: wispy mucin or crumbs of debris, thinning out towards the wall."""
    h, e = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.float32)
    cloud = smooth_noise(rng, grid, 34.0, octaves=4, gain=0.7)
    crumbs = smooth_noise(rng, grid, 9.0, octaves=2)
    is_held = (glands.lumen_um > -4) & (glands.filling != 0) & (outside_um < 0)
    if not is_held.any():
        return h, e
    cloud, crumbs, kind = cloud[is_held], crumbs[is_held], glands.filling[is_held]
    amount = np.abs(kind) * ramp(glands.lumen_um[is_held], 0.0, 9.0)
    wisps = np.exp(-((cloud / np.float32(0.45)) ** 2))
    debris = ramp(np.asarray(cloud + np.float32(0.7) * crumbs, np.float32), 0.5, 1.6)
    is_mucin = kind > 0
    h[is_held] = amount * np.where(is_mucin, 0.05 + 0.16 * wisps, 0.16 * debris)
    e[is_held] = amount * np.where(is_mucin, 0.03 + 0.06 * wisps, (0.12 + style.eosin[NECROSIS]) * debris)
    return h, e


def _walls(glands: Rings, vessels: Rings, lumen_um: F32, style: PatientStyle) -> tuple[F32, F32]:
    """Epithelium: basal cytoplasm bluer, a pale band towards the lumen, a dense line at it. Vessels: plain pink."""
    to_lumen = -lumen_um
    pale = np.exp(-(((to_lumen - 6) / np.float32(4.5)) ** 2))
    brush = np.exp(-((to_lumen / np.float32(1.8)) ** 2))
    h = style.haematoxylin[GLAND] * (np.float32(1.15) - np.float32(0.5) * pale) + np.float32(0.04)
    e = style.eosin[GLAND] * (np.float32(0.85) - np.float32(0.15) * pale + np.float32(0.5) * brush) + np.float32(0.02)
    is_vessel = vessels.body_um > glands.body_um
    h[is_vessel] = style.haematoxylin[STROMA] * np.float32(0.9)
    e[is_vessel] = style.eosin[STROMA] * np.float32(1.2)
    return h, e
