"""Rings: glands and vessels, drawn as distances on the 2 um grid so that their edges are sharp at any resolution.

A ring has an outer outline, a wall and a lumen. Distances are in um, positive inside; what overlaps takes the larger.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from histokin.slides.generated.noise import F32, F64, Grid, scatter

_FAR = -50.0


@dataclass(slots=True)
class Rings:
    """All rings of one kind on a slide; arrays of the grid's shape.

    Attributes:
        body_um: distance inside the outer outline.
        lumen_um: distance inside the lumen.
        filling: what the lumen holds, 0 nothing, -1 debris to 1 mucin; constant inside a ring.
        goblet_um: distance inside the mucin drops of goblet cells.
        nuclei: (n, 2) x, y in um of the wall's nuclei.
        angles: (n,) direction of the ring's radius at each nucleus.
    """

    body_um: F32
    lumen_um: F32
    filling: F32
    goblet_um: F32
    nuclei: F64
    angles: F64


@dataclass(frozen=True, slots=True)
class RingStyle:
    """How rings of one kind look; lengths in um.

    Attributes:
        radius, radius_spread: mean of the radius and deviation of its logarithm.
        wall: least and greatest thickness of the wall.
        disorder: amplitude of the outline's harmonics, 0 to 1.
        lobes: how deeply the lumen's border is scalloped.
        nucleus_um: distance of nuclei along the outline.
        nucleus_depth: where in the wall the nuclei lie, 0 outside to 1 at the lumen; second value: deviation.
        filled: share of rings whose lumen holds something.
        goblets: goblet cells for each nucleus.
    """

    radius: float
    radius_spread: float
    wall: tuple[float, float]
    disorder: float
    lobes: float
    nucleus_um: float
    nucleus_depth: tuple[float, float]
    filled: float
    goblets: float


def place_rings(rng: np.random.Generator, grid: Grid, density: F32, style: RingStyle) -> Rings:
    """Scatter rings by `density` (a mm2, grid's shape) and draw them."""
    rings = Rings(
        np.full(grid.shape, _FAR, np.float32),
        np.full(grid.shape, _FAR, np.float32),
        np.zeros(grid.shape, np.float32),
        np.full(grid.shape, _FAR, np.float32),
        np.empty((0, 2)),
        np.empty(0),
    )
    centres = scatter(rng, grid, density, min_um=1.75 * style.radius, jitter=0.27)
    if not len(centres):
        return rings
    radii = style.radius * np.exp(rng.normal(0, style.radius_spread, len(centres)))
    if len(centres) > 1:  # neighbours touch at most: half-merged glands show each other's nuclei in their lumens
        nearest = np.asarray(KDTree(centres).query(centres, k=2)[0])[:, 1]
        radii = np.minimum(radii, 0.56 * nearest)
    drawn = [
        _draw(rng, grid, rings, centre=centre, radius=radius, style=style)
        for centre, radius in zip(centres, radii, strict=True)
    ]
    rings.nuclei = np.concatenate([nuclei for nuclei, _ in drawn])
    rings.angles = np.concatenate([angles for _, angles in drawn])
    return rings


def _draw(
    rng: np.random.Generator, grid: Grid, rings: Rings, *, centre: F64, radius: float, style: RingStyle
) -> tuple[F64, F64]:
    """Draw one ring into the fields; returns its nuclei and their directions."""
    amplitude = rng.normal(0, 0.03 + 0.09 * style.disorder, 6) / (1 + 0.35 * np.arange(6))
    phase = rng.uniform(0, 2 * np.pi, 6)
    squash = rng.uniform(0.52 if style.disorder > 0.5 else 0.66, 1.0)
    turn = rng.uniform(0, np.pi)
    wall = min(rng.uniform(*style.wall), 0.75 * radius * (0.5 + 0.5 * squash))
    n_lobes, lobe_phase = rng.integers(5, 12), rng.uniform(0, 2 * np.pi)
    lobe_um = min(style.lobes * rng.uniform(0.2, 1.0), 0.14 * max(radius * squash - wall, 0.0))
    filling = 0.0 if rng.random() >= style.filled else float(rng.choice([-1, 1])) * rng.uniform(0.4, 1.0)

    def outline(theta: F64 | F32) -> F64 | F32:
        shape = np.ones_like(theta)
        for k in range(6):
            shape += amplitude[k] * np.cos((k + 2) * theta + phase[k])
        return shape

    reach = radius * 1.6 + 8
    low = np.maximum(np.floor((centre - reach) / grid.um).astype(int), 0)
    high = np.minimum(np.ceil((centre + reach) / grid.um).astype(int), (grid.width, grid.height))
    if (high - low).min() > 0:
        at = np.s_[low[1] : high[1], low[0] : high[0]]
        x_all, y_all = grid.centres()
        x, y = x_all[:, low[0] : high[0]] - np.float32(centre[0]), y_all[low[1] : high[1]] - np.float32(centre[1])
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        u, v = x * cos + y * sin, (-x * sin + y * cos) / np.float32(squash)
        theta = np.arctan2(v, u)
        inside = (np.float32(radius) - np.hypot(u, v) / outline(theta)) * np.float32(0.5 + 0.5 * squash)
        lumen = inside - np.float32(wall) - np.float32(lobe_um) * np.sin(n_lobes * theta + np.float32(lobe_phase))
        is_ours = inside > rings.body_um[at]
        rings.body_um[at] = np.maximum(rings.body_um[at], inside)
        # a neighbour's lumen ends where this ring's wall begins
        rings.lumen_um[at] = np.where(is_ours, lumen, np.minimum(rings.lumen_um[at], np.maximum(-inside, _FAR)))
        rings.filling[at] = np.where(is_ours & (inside > 0), np.float32(filling), rings.filling[at])

    def in_wall(theta: F64, depth: F64) -> F64:
        """Points at an angle and a depth (um) in the wall, relative to the centre."""
        r = (radius - depth / (0.5 + 0.5 * squash)) * outline(theta)
        px, py = r * np.cos(theta), r * np.sin(theta) * squash
        return np.stack([px * np.cos(turn) - py * np.sin(turn), px * np.sin(turn) + py * np.cos(turn)], axis=1)

    girth = 2 * np.pi * radius * (0.5 + 0.5 * squash)
    n = max(3, int(girth / (style.nucleus_um * rng.uniform(0.9, 1.15))))
    theta = np.arange(n) / n * 2 * np.pi + rng.normal(0, 0.3 * 2 * np.pi / n, n)
    n_drops = int(n * style.goblets * rng.uniform(0.3, 1.3))
    drops = in_wall(rng.uniform(0, 2 * np.pi, n_drops), wall * rng.uniform(0.6, 0.8, n_drops))
    for drop in centre + drops:
        _draw_drop(grid, rings.goblet_um, drop, rng.uniform(2.6, 4.6))
    offset = in_wall(theta, wall * rng.normal(*style.nucleus_depth, n).clip(0.12, 0.8))
    return centre + offset, np.arctan2(offset[:, 1], offset[:, 0])


def _draw_drop(grid: Grid, field: F32, centre: F64, radius: float) -> None:
    """Enter the distance inside a disc into a field."""
    reach = radius + 2 * grid.um
    low = np.maximum(np.floor((centre - reach) / grid.um).astype(int), 0)
    high = np.minimum(np.ceil((centre + reach) / grid.um).astype(int), (grid.width, grid.height))
    if (high - low).min() <= 0:
        return
    x, y = grid.centres()
    x, y = x[:, low[0] : high[0]] - np.float32(centre[0]), y[low[1] : high[1]] - np.float32(centre[1])
    at = np.s_[low[1] : high[1], low[0] : high[0]]
    field[at] = np.maximum(field[at], np.float32(radius) - np.hypot(x, y))
