"""Nuclei and red cells: small pictures of optical density, stamped into one plane.

A stamp is uint8, density times 100, square with odd side. Stamps meet by maximum: adding them would give blots where
two overlap. Planes carry a margin so that stamping needs no clipping; 20 000 stamps take 0.1 s.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from histokin.slides.generated.noise import F32, F64, U8

OD_STEPS = 100.0
MARGIN_PX = 160
N_ANGLES = 24


@dataclass(frozen=True, slots=True)
class NucleusKind:
    """How one kind of nucleus looks; lengths in um.

    Attributes:
        diameter, spread: mean and deviation of the diameter of the circle of equal area.
        eccentricity: 1 - short axis / long axis.
        density: optical density of haematoxylin.
        density_spread: deviation of the logarithm of that density from nucleus to nucleus.
        clumps: contrast of the chromatin.
        ragged: amplitude of the outline's harmonics.
        vesicular: pale centre, dark rim and nucleoli, 0 to 1.
    """

    diameter: float
    spread: float
    eccentricity: float
    density: float
    density_spread: float = 0.12
    clumps: float = 0.18
    ragged: float = 0.05
    vesicular: float = 0.0


TUMOUR_NUCLEUS = NucleusKind(9.4, 1.5, 0.24, 0.60, 0.22, 0.26, 0.06, 0.9)
LYMPHOCYTE = NucleusKind(6.3, 0.6, 0.10, 0.88, 0.14, 0.24, 0.05)
CENTROBLAST = NucleusKind(8.8, 1.1, 0.16, 0.52, 0.18, 0.22, 0.07, 0.6)
FIBROBLAST = NucleusKind(6.9, 0.8, 0.70, 0.80, 0.20, 0.14, 0.05)
EPITHELIAL = NucleusKind(7.6, 0.7, 0.42, 0.74, 0.14, 0.16, 0.05, 0.25)
ENDOTHELIAL = NucleusKind(5.6, 0.6, 0.74, 0.84, 0.15, 0.12, 0.04)
GHOST = NucleusKind(8.5, 1.4, 0.2, 0.17, 0.35, 0.3, 0.12)
DEBRIS = NucleusKind(2.4, 0.8, 0.2, 0.85, 0.3, 0.0, 0.15)


def make_stamps(rng: np.random.Generator, kind: NucleusKind, mpp: float, n: int) -> list[U8]:
    """`n` nuclei at random angles, each also mirrored: 4n stamps."""
    stamps = [_draw(rng, kind, mpp, rng.uniform(0, np.pi)) for _ in range(n)]
    return [flipped for s in stamps for flipped in (s, s[::-1], s[:, ::-1], s[::-1, ::-1])]


def make_turned_stamps(rng: np.random.Generator, kind: NucleusKind, mpp: float, per_angle: int) -> list[list[U8]]:
    """Stamps by angle of the long axis: entry i is at i * pi / N_ANGLES."""
    return [[_draw(rng, kind, mpp, i * np.pi / N_ANGLES) for _ in range(per_angle)] for i in range(N_ANGLES)]


def make_red_cells(rng: np.random.Generator, mpp: float, n: int) -> list[U8]:
    """Discs of 5 to 7 um, most with a paler centre, some seen from the side."""
    stamps = []
    for _ in range(n):
        radius, squeeze = rng.uniform(2.8, 3.7), rng.choice([1.0, 0.92, 0.8, 0.55], p=[0.4, 0.3, 0.2, 0.1])
        along, across = _axes(int(np.ceil(radius * 1.1 / mpp)) + 2, rng.uniform(0, np.pi), mpp)
        distance = np.hypot(along, across / squeeze)
        edge = np.clip((radius - distance) / max(0.8, 1.2 * mpp) + 0.5, 0, 1)
        density = rng.uniform(0.42, 0.68) * (1 - rng.uniform(0.1, 0.4) * np.exp(-((distance / (0.45 * radius)) ** 2)))
        stamps.append(_to_stamp(edge * density))
    return stamps


def _draw(rng: np.random.Generator, kind: NucleusKind, mpp: float, angle: float) -> U8:
    diameter = max(rng.normal(kind.diameter, kind.spread), 0.6 * kind.diameter)
    flat = float(np.clip(rng.normal(kind.eccentricity, 0.07), 0, 0.80))
    a = diameter / 2 / np.sqrt(1 - flat)
    b = a * (1 - flat)
    along, across = _axes(int(np.ceil(a * 1.3 / mpp)) + 2, angle, mpp)
    across = across - rng.normal(0, 0.22) * b * (along / a) ** 2  # a slight bend
    theta = np.arctan2(across / b, along / a)
    radius = 1 + sum(
        rng.normal(0, kind.ragged) / (1 + 0.7 * k) * np.cos((k + 2) * theta + rng.uniform(0, 2 * np.pi))
        for k in range(5)
    )
    depth = (1 - np.hypot(along / a, across / b) / radius) * b  # um inside the outline, roughly
    density = kind.density * np.exp(rng.normal(0, kind.density_spread))
    chromatin = cv2.GaussianBlur(rng.standard_normal(along.shape, np.float32), (0, 0), max(0.5 / mpp, 0.6))
    chromatin = chromatin / (chromatin.std() + 1e-6)
    rim = np.exp(-0.5 * (depth / max(0.8, mpp)) ** 2)
    picture = density * (1 + kind.clumps * chromatin + 0.07 * rim)
    if kind.vesicular:
        picture = picture * (1 - kind.vesicular * (0.42 - 0.62 * rim))
        for _ in range(int(rng.integers(1, 4))):
            nx, ny = rng.normal(0, 0.34 * a), rng.normal(0, 0.34 * b)
            spot = ((along - nx) ** 2 + (across - ny) ** 2) / (2 * rng.uniform(0.45, 0.8) ** 2)
            picture = picture + 0.55 * kind.vesicular * density * np.exp(-spot)
    return _to_stamp(np.clip(picture, 0.05, 1.6) * np.clip(depth / max(0.9, 1.3 * mpp) + 0.5, 0, 1))


def _axes(reach_px: int, angle: float, mpp: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Coordinates in um along and across `angle`, from a stamp's centre."""
    y, x = np.mgrid[-reach_px : reach_px + 1, -reach_px : reach_px + 1] * mpp
    return x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)


def _to_stamp(density: NDArray[np.floating]) -> U8:
    return np.clip(density * OD_STEPS + 0.5, 0, 255).astype(np.uint8)


class Plane:
    """Density of stamped things over a slide at full resolution, with a margin on all sides."""

    def __init__(self, width: int, height: int, mpp: float) -> None:
        self._pixels: U8 = np.zeros((height + 2 * MARGIN_PX, width + 2 * MARGIN_PX), np.uint8)
        self._size, self._mpp = (width, height), mpp
        self.n_stamped = 0

    def stamp(self, points: F64, stamps: list[U8], choice: NDArray[np.intp]) -> None:
        """Put `stamps[choice[i]]` at `points[i]` (x, y in um), keeping the denser where things overlap."""
        pixels = self._pixels
        corners = np.floor(points / self._mpp).astype(int) + MARGIN_PX
        for (x, y), k in zip(corners.tolist(), choice.tolist(), strict=True):
            picture = stamps[k]
            side = picture.shape[0]
            x0, y0 = x - side // 2, y - side // 2
            under = pixels[y0 : y0 + side, x0 : x0 + side]
            if under.shape == picture.shape and x0 >= 0 and y0 >= 0:
                np.maximum(under, picture, out=under)
        self.n_stamped += len(points)

    def stamp_any(self, rng: np.random.Generator, points: F64, stamps: list[U8]) -> None:
        """Stamp with pictures drawn at random."""
        self.stamp(points, stamps, rng.integers(0, len(stamps), len(points)))

    def stamp_turned(self, rng: np.random.Generator, points: F64, angles: F64 | F32, turned: list[list[U8]]) -> None:
        """Stamp with pictures whose long axis lies at `angles` (radians)."""
        if not len(points):
            return
        per_angle = len(turned[0])
        step = np.round(np.mod(angles, np.pi) / (np.pi / N_ANGLES)).astype(np.intp) % N_ANGLES
        choice = step * per_angle + rng.integers(0, per_angle, len(points))
        self.stamp(points, [picture for pictures in turned for picture in pictures], choice)

    def window(self, x: int, y: int, width: int, height: int) -> U8:
        """A view of the rectangle at (x, y); up to MARGIN_PX outside the slide is allowed."""
        return self._pixels[y + MARGIN_PX : y + MARGIN_PX + height, x + MARGIN_PX : x + MARGIN_PX + width]
