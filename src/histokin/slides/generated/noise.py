"""Smooth random fields and random point patterns: the material of all shapes; knows nothing of tissue.

Fields live on a `Grid` of cells of about 2 um, which is fine enough for every shape and 16 times fewer cells than there
are pixels at 0.5 um. Positions are in um from the slide's top-left corner.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
F64 = NDArray[np.float64]

CELL_UM = 2.0


@dataclass(frozen=True, slots=True)
class Grid:
    """A raster of square cells of `px` x `px` slide pixels over a slide; the last cells may stick out."""

    height: int
    width: int
    px: int
    um: float

    @classmethod
    def over(cls, width_px: int, height_px: int, mpp: float) -> "Grid":
        """The grid with cells of about CELL_UM that covers a slide."""
        px = max(1, round(CELL_UM / mpp))
        return cls(height=-(-height_px // px), width=-(-width_px // px), px=px, um=px * mpp)

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def size_um(self) -> tuple[float, float]:
        """(width, height) in um."""
        return self.width * self.um, self.height * self.um

    def centres(self) -> tuple[F32, F32]:
        """Columns' x (1, W) and rows' y (H, 1) of the cells' centres in um."""
        x = (np.arange(self.width, dtype=np.float32) + 0.5) * np.float32(self.um)
        y = (np.arange(self.height, dtype=np.float32) + 0.5) * np.float32(self.um)
        return x[None, :], y[:, None]

    def cells_at(self, points: F64) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row and column of the cells that hold points (n, 2) given as x, y in um; outside is clamped to the rim."""
        cells = np.floor(points / self.um).astype(np.intp)
        return cells[:, 1].clip(0, self.height - 1), cells[:, 0].clip(0, self.width - 1)


def smooth_noise(rng: np.random.Generator, grid: Grid, scale_um: float, *, octaves: int = 3, gain: float = 0.5) -> F32:
    """Fractal noise without a period, zero mean and unit deviation over the grid.

    Each octave is a lattice of normal numbers, spaced scale / 2^octave, enlarged smoothly.
    """
    total = np.zeros(grid.shape, np.float32)
    for octave in range(octaves):
        layer = _enlarged_lattice(rng, grid.height, grid.width, max(scale_um / grid.um / 2**octave, 1.5))
        cv2.scaleAdd(layer, gain**octave, total, total)
    mean, deviation = cv2.meanStdDev(total)
    total -= np.float32(mean[0, 0])
    total *= np.float32(1 / (deviation[0, 0] + 1e-6))
    return total


def _enlarged_lattice(rng: np.random.Generator, height: int, width: int, step: float) -> F32:
    """Normal numbers `step` cells apart, smooth between, at a random phase.

    Enlarged bicubically at first, then by 4 at a time and cropped in between, so that the cost hardly depends on the
    step. One affine warp would be shorter, but OpenCV rounds its coordinates to 1/32 lattice cell, and wide fields get
    stairs.
    """
    if step > 6:
        coarse = _enlarged_lattice(rng, height // 4 + 5, width // 4 + 5, step / 4)
        # linear, then a box: OpenCV's bicubic does not keep straight slopes straight, which gives ripples of 4 cells
        full, lead = cv2.blur(cv2.resize(coarse, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR), (5, 5)), 8
    else:
        shape = int(height / step) + 6, int(width / step) + 6
        size = round(shape[1] * step), round(shape[0] * step)
        full = cv2.resize(rng.standard_normal(shape, np.float32), size, interpolation=cv2.INTER_CUBIC)
        lead = round(2 * step)
    y, x = rng.integers(lead, lead + max(int(min(step, 4)), 1), 2)
    return np.ascontiguousarray(np.asarray(full, np.float32)[y : y + height, x : x + width])


def blur(field: F32, sigma: float) -> F32:
    """Gaussian blur; sigma in cells."""
    return np.asarray(cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def signed_um(field: F32, grid: Grid) -> F32:
    """Turn a smooth field into a distance in um from its zero line, good near that line: f / |grad f|."""
    dx, dy = cv2.Sobel(field, cv2.CV_32F, 1, 0, scale=0.125), cv2.Sobel(field, cv2.CV_32F, 0, 1, scale=0.125)
    slope = blur(np.asarray(cv2.magnitude(dx, dy), np.float32), 2.0)
    return np.asarray(field / (slope + 1e-5), np.float32) * np.float32(grid.um)


def ramp(field: F32, low: float, high: float) -> F32:
    """0 below low, 1 above high, straight between."""
    return np.clip((field - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)


def periodic_grain(rng: np.random.Generator, n: int, along: float, across: float, *, bandpass: bool = False) -> F32:
    """Gaussian-filtered white noise (n, n) that repeats seamlessly; unit deviation.

    Args:
        rng: source of the noise.
        n: period in pixels.
        along: sigma along x in pixels.
        across: sigma along y in pixels.
        bandpass: also remove what is slower than 5 `across` along y, which turns grain into strands.
    """
    fx = np.fft.rfftfreq(n).astype(np.float32)[None, :]
    fy = np.fft.fftfreq(n).astype(np.float32)[:, None]
    gain = np.exp(-2 * np.pi**2 * ((fx * along) ** 2 + (fy * across) ** 2))
    if bandpass:
        gain = gain * (1 - np.exp(-2 * np.pi**2 * (fy * across * 5) ** 2))
    spectrum = np.fft.rfft2(rng.standard_normal((n, n), np.float32)) * gain
    texture = np.fft.irfft2(spectrum, s=(n, n)).astype(np.float32)
    return texture / texture.std()


def jittered_lattice(rng: np.random.Generator, grid: Grid, step_um: float, jitter: float) -> F64:
    """Hexagonal points over a grid and a margin of two steps, each moved by up to `jitter` steps; (n, 2) x, y in um."""
    width, height = grid.size_um
    rows, columns = np.mgrid[-2 : int(height / step_um) + 4, -2 : int(width / step_um) + 4].astype(np.float64)
    x = columns + 0.5 * (rows % 2) + rng.uniform(-jitter, jitter, rows.shape)
    y = rows + rng.uniform(-jitter, jitter, rows.shape)
    return np.stack([x, y], axis=-1).reshape(-1, 2) * step_um


def nearest_two(
    points: F64, x: NDArray[np.floating], y: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Distances (n, 2) in um to the two nearest points and these points' numbers (n, 2), for n places."""
    distances, at = KDTree(points).query(np.stack([x, y], axis=-1), k=2)
    return np.asarray(distances), np.asarray(at)


def scatter(rng: np.random.Generator, grid: Grid, density: F32, *, min_um: float, jitter: float = 0.42) -> F64:
    """Points that keep their distance, thinned to a local density: a jittered lattice, O(n), no dart throwing.

    Args:
        rng: source of positions and thinning.
        grid: the raster of `density`.
        density: points a mm2, (H, W).
        min_um: the lattice is never finer than this.
        jitter: as in `jittered_lattice`.

    Returns:
        (n, 2) x, y in um, inside the slide.
    """
    peak = float(density.max())
    if peak <= 0:
        return np.empty((0, 2))
    step = max(min_um, 1000 / np.sqrt(peak))
    points = jittered_lattice(rng, grid, step, jitter)
    chance = rng.random(len(points))
    width, height = grid.size_um
    inside = (points > 0).all(axis=1) & (points[:, 0] < width) & (points[:, 1] < height)
    points, chance = points[inside], chance[inside]
    return points[chance < density[grid.cells_at(points)] * (step * step / 1e6)]
