"""Colour, block by block: joins the smooth fields, the fine textures and the stamped planes into pixels.

Blocks are small enough for the processor's cache: composing whole planes of 67 MB spent more time on page faults than
on arithmetic. Each block is drawn with a halo, and every value depends on its place in the slide alone, so that blocks
leave no seams.
"""

import cv2
import numpy as np

from histokin.slides.generated.cells import Cells
from histokin.slides.generated.noise import F32, U8, Grid, periodic_grain, ramp
from histokin.slides.generated.nuclei import OD_STEPS
from histokin.slides.generated.spec import GeneratedSlideSpec
from histokin.slides.generated.stain import ScannerStyle

BLOCK = (64, 512)
_PERIOD = 1024
_SECOND_STRANDS = 0.731  # irrational enough: the two strand textures repeat together only beyond any slide
_NUCLEAR = 0.85
_UNDER_NUCLEI = 0.6  # of the cytoplasm's density still seen where a nucleus is


class Painter:
    """Composes a slide block by block.

    Args of the constructor:
        layers: by name, float32 of the grid's shape: the smooth fields of `Fields`, and `nuclear` (factor on the
            nuclei's density), `is_tissue` and `ink`.
        ink_colour: (3,) density of the ink by channel.
        stains: (3, 3) density of channel by part.
        block: rows and columns of a block in px; the pixels do not depend on it.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        spec: GeneratedSlideSpec,
        grid: Grid,
        *,
        layers: dict[str, F32],
        cells: Cells,
        ink_colour: F32,
        stains: F32,
        scanner: ScannerStyle,
        block: tuple[int, int] = BLOCK,
    ) -> None:
        self.block = block
        self.spec, self.px, self.cells, self.scanner = spec, grid.px, cells, scanner
        self.stains = np.ascontiguousarray(stains * scanner.gamma)
        self.ink_colour = ink_colour
        mpp = spec.mpp
        self.lens = _Lens(scanner.blur_um / mpp, max(0.6 / mpp, 0.8), scanner.sharpening)
        self.halo = -(-self.lens.reach // grid.px)  # cells
        self.layers = {name: np.pad(layer, self.halo + 1, mode="edge") for name, layer in layers.items()}
        for name in ("u", "v"):
            self.layers[name] *= np.float32(1 / mpp)
        strands = (periodic_grain(rng, _PERIOD, a / mpp, b / mpp, bandpass=True) for a, b in ((14, 0.9), (30, 2.0)))
        self.strands = [np.pad(texture / np.float32(1.35), (0, 2), mode="wrap") for texture in strands]
        side = 2 * self.halo * grid.px
        side = block[0] + side, block[1] + side
        self.fine, self.coarse = (
            _tileable(periodic_grain(rng, _PERIOD, sigma / mpp, sigma / mpp), side) for sigma in (0.75, 2.6)
        )
        noise = rng.standard_normal((_PERIOD, _PERIOD, 3), np.float32) * np.float32(scanner.noise)
        self.noise = _tileable(noise, block)
        self.shift = rng.integers(0, _PERIOD, (3, 2)).tolist()

    def paint(self) -> U8:
        """All blocks, (H, W, 3) uint8."""
        width, height, px = self.spec.width, self.spec.height, self.px
        rows, columns = (side // px * px for side in self.block)
        rgb = np.empty((height, width, 3), np.uint8)
        for y in range(0, height, rows):
            h = min(rows, -(-(height - y) // px) * px)
            for x in range(0, width, columns):
                w = min(columns, -(-(width - x) // px) * px)
                rgb[y : y + rows, x : x + columns] = self._block(x, y, w, h)[: height - y, : width - x]
        return rgb

    def _block(self, x: int, y: int, w: int, h: int) -> U8:
        """The pixels of one block, (h, w, 3)."""
        halo, px = self.halo * self.px, self.px
        at = np.s_[y // px : (y + h) // px + 2 * self.halo + 2, x // px : (x + w) // px + 2 * self.halo + 2]
        slabs = {name: layer[at] for name, layer in self.layers.items()}
        window = (x - halo, y - halo, w + 2 * halo, h + 2 * halo)
        if slabs["is_tissue"].any():
            density = cv2.transform(cv2.merge(self._parts(slabs, window)), self.stains)
        else:
            density = np.zeros((window[3], window[2], 3), np.float32)
        if slabs["ink"].any():
            density += self._enlarge(slabs["ink"])[..., None] * self.ink_colour
        light = cv2.exp(-density)
        light *= self.scanner.white
        light = self.lens(np.asarray(light, np.float32))[halo : halo + h, halo : halo + w]
        light = light + _cut(self.noise, (x, y, w, h), self.shift[2])
        return np.clip(light + np.float32(0.5), 0, 255).astype(np.uint8)

    def _parts(self, slabs: dict[str, F32], window: tuple[int, int, int, int]) -> tuple[F32, F32, F32]:
        """Haematoxylin, eosin and red cells of a window (x, y, w, h)."""
        up = self._enlarge
        fine, coarse = (_cut(g, window, s) for g, s in zip((self.fine, self.coarse), self.shift, strict=False))
        h, e = up(slabs["haematoxylin"]), up(slabs["eosin"])
        if slabs["fibre"].max() > 0.02:
            strength = up(slabs["fibre"])
            strands = self._strands(up(slabs["u"]), up(slabs["v"])) * strength
            e *= 1 + np.clip(np.float32(0.30) * strands, -0.85, 0.55)
            h *= 1 + np.float32(0.15) * strands
        e *= 1 + np.float32(0.11) * fine + up(slabs["granule"]) * coarse
        h *= 1 + np.float32(0.09) * fine + np.float32(0.10) * coarse
        if slabs["ring_um"].max() > -3:
            ring_um = up(slabs["ring_um"])
            wall = ramp(ring_um, -0.6, 0.6)
            h += wall * (up(slabs["ring_h"]) * (1 + np.float32(0.06) * fine + np.float32(0.12) * coarse) - h)
            e += wall * (up(slabs["ring_e"]) * (1 + np.float32(0.07) * fine + np.float32(0.08) * coarse) - e)
            e += np.float32(0.10) * np.exp(-(ring_um * ring_um))  # basement membrane
        if slabs["void_um"].max() > -1.5:
            void = ramp(up(slabs["void_um"]), -0.7, 0.7)
            held = void * (1 + np.float32(0.35) * coarse)
            h += held * up(slabs["fill_h"]) - void * h
            e += held * up(slabs["fill_e"]) - void * e
        if slabs["fat"].max() > 0.01:
            fat, wall = up(slabs["fat"]), up(slabs["fat_wall_um"]) * np.float32(1 / 2.7)
            wall = np.exp(-(wall * wall)) * fat
            h += wall * np.float32(0.09) - fat * h
            e += wall * (np.float32(0.38) + np.float32(0.1) * coarse) + fat * (np.float32(0.012) - e)
        red = self.cells.red_cells.window(*window) * np.float32(1 / OD_STEPS)
        nuclei = self.cells.nuclei.window(*window) * np.float32(_NUCLEAR / OD_STEPS) * up(slabs["nuclear"])
        covered = np.minimum(nuclei, 1)
        e *= 1 - np.float32(1 - _UNDER_NUCLEI) * covered
        h *= 1 - np.float32(1 - _UNDER_NUCLEI) * covered
        h += nuclei
        return h, e, red * (1 - covered)

    def _strands(self, u: F32, v: F32) -> F32:
        total = np.zeros_like(u)
        for texture, scale, weight in zip(self.strands, (1.0, _SECOND_STRANDS), (1.0, 0.9), strict=True):
            x, y = u * np.float32(scale / _PERIOD), v * np.float32(scale / _PERIOD)
            x, y = (x - np.floor(x)) * np.float32(_PERIOD), (y - np.floor(y)) * np.float32(_PERIOD)
            cv2.scaleAdd(cv2.remap(texture, x, y, cv2.INTER_LINEAR), weight, total, total)
        return total

    def _enlarge(self, slab: F32) -> F32:
        """Bilinear by the cell size, without the outermost cell, so that blocks agree where they meet."""
        px = self.px
        full = np.asarray(cv2.resize(slab, None, fx=px, fy=px, interpolation=cv2.INTER_LINEAR), np.float32)
        return full[px:-px, px:-px]


class _Lens:
    """Optical blur and the scanner's unsharp mask; needs `reach` pixels around."""

    def __init__(self, blur_px: float, radius_px: float, amount: float) -> None:
        self.amount = float(amount)
        self.first, self.second = _kernel(blur_px), _kernel(radius_px)
        self.reach = len(self.first) // 2 + len(self.second) // 2

    def __call__(self, light: F32) -> F32:
        seen = cv2.sepFilter2D(light, cv2.CV_32F, self.first, self.first)
        softer = cv2.sepFilter2D(seen, cv2.CV_32F, self.second, self.second)
        return np.asarray(cv2.addWeighted(seen, 1 + self.amount, softer, -self.amount, 0), np.float32)


def _kernel(sigma: float) -> F32:
    side = 2 * max(1, round(2.5 * sigma)) + 1
    return np.asarray(cv2.getGaussianKernel(side, sigma, cv2.CV_32F), np.float32)


def _tileable(texture: F32, side: tuple[int, int]) -> F32:
    """A periodic texture with enough of itself added that `_cut` needs no wrapping."""
    pad = [(0, side[0]), (0, side[1])] + [(0, 0)] * (texture.ndim - 2)
    return np.pad(texture, pad, mode="wrap")


def _cut(texture: F32, window: tuple[int, int, int, int], shift: list[int]) -> F32:
    """The part of an endlessly repeated texture that covers a rectangle (x, y, w, h)."""
    x, y, w, h = window
    x0, y0 = (x + shift[0]) % _PERIOD, (y + shift[1]) % _PERIOD
    return texture[y0 : y0 + h, x0 : x0 + w]
