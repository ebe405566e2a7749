"""From a spec to a slide and its truth: draws each part from its own stream of random numbers and joins them."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from histokin.slides.generated.cells import Cells, populate
from histokin.slides.generated.classes import DIAGNOSES, NEIGHBOURHOOD
from histokin.slides.generated.compose import Painter
from histokin.slides.generated.noise import U8, Grid, blur, ramp, smooth_noise
from histokin.slides.generated.regions import lay_out
from histokin.slides.generated.spec import GeneratedSlideSpec
from histokin.slides.generated.stain import draw_pen, patient_style, scanner_style
from histokin.slides.generated.textures import Fields, weave
from histokin.streams import stream

_LAYERS = (
    *("haematoxylin", "eosin", "fibre", "granule", "u", "v", "void_um", "fill_h", "fill_e"),
    *("ring_um", "ring_h", "ring_e", "fat", "fat_wall_um"),
)


@dataclass(frozen=True, slots=True)
class RenderedSlide:
    """A slide's pixels and their truth.

    Attributes:
        rgb: (H, W, 3) uint8.
        classes: (H, W) uint8, index into CLASSES; true to about 2 um.
        ink: (H, W) bool, covered by felt pen.
    """

    rgb: U8
    classes: U8
    ink: NDArray[np.bool_]

    @property
    def tissue(self) -> NDArray[np.bool_]:
        """(H, W) bool: not background. Lumens and fat are tissue."""
        return self.classes > 0


def render_slide(spec: GeneratedSlideSpec) -> RenderedSlide:
    """Draw one slide; the same spec gives the same pixels."""
    names = ("generated", "slide", spec.patient, spec.section)
    diagnosis = DIAGNOSES[spec.diagnosis]
    grid = Grid.over(spec.width, spec.height, spec.mpp)
    style = patient_style(spec.seed, spec.patient, spec.colour_leak)
    scanner = scanner_style(spec.seed, spec.scanner)
    regions = lay_out(stream(spec.seed, *names, "regions"), grid, _mix_of(spec), diagnosis)
    fields = weave(stream(spec.seed, *names, "textures"), grid, regions, diagnosis, style)
    size = (spec.width, spec.height)
    rng = stream(spec.seed, *names, "cells")
    cells = populate(
        rng, grid, size=size, mpp=spec.mpp, regions=regions, fields=fields, diagnosis=diagnosis, style=style
    )
    _shrink_tumour_cells(stream(spec.seed, *names, "shrinkage"), grid, fields, cells)
    ink, ink_colour = np.zeros(grid.shape, np.float32), np.zeros(3, np.float32)
    if spec.pen:
        ink, ink_colour = draw_pen(stream(spec.seed, *names, "pen"), grid, regions.outside_um)
    layers = {name: getattr(fields, name) for name in _LAYERS} | {
        "nuclear": blur(style.nuclear[regions.classes], 1.5),
        "is_tissue": (regions.classes > 0).astype(np.float32),
        "ink": ink,
    }
    rng = stream(spec.seed, *names, "grain")
    painter = Painter(
        rng, spec, grid, layers=layers, cells=cells, ink_colour=ink_colour, stains=style.stains, scanner=scanner
    )
    return RenderedSlide(
        rgb=painter.paint(),
        classes=_to_pixels(regions.classes, spec, grid),
        ink=_to_pixels((ink > 0.25).astype(np.uint8), spec, grid).astype(bool),
    )


def _mix_of(spec: GeneratedSlideSpec) -> dict[int, float]:
    """The patient's tissue mix, spread round the diagnosis, then the section's round the patient's."""
    mix = DIAGNOSES[spec.diagnosis].mix
    share = np.array([mix.get(index, 0.0) for index in NEIGHBOURHOOD])
    present = share > 0
    for names, weight in ((("patient", spec.patient), 18), (("section", spec.patient, spec.section), 45)):
        rng = stream(spec.seed, "generated", "mix", *names)
        share[present] = rng.dirichlet(share[present] * weight + 0.15)
    return dict(zip(NEIGHBOURHOOD, share.tolist(), strict=True))


def _to_pixels(cells: U8, spec: GeneratedSlideSpec, grid: Grid) -> U8:
    pixels = cv2.resize(cells, None, fx=grid.px, fy=grid.px, interpolation=cv2.INTER_NEAREST)
    return np.ascontiguousarray(np.asarray(pixels, np.uint8)[: spec.height, : spec.width])


def _shrink_tumour_cells(rng: np.random.Generator, grid: Grid, fields: Fields, cells: Cells) -> None:
    """Cytoplasm thins out far from its nucleus, here and there down to a gap between cells."""
    far = ramp(cells.to_tumour_um, 4.5, 9.0) * fields.nest
    fields.eosin *= 1 - np.float32(0.35) * far
    fields.haematoxylin *= 1 - np.float32(0.3) * far
    parted = ramp(smooth_noise(rng, grid, 140.0, octaves=3), 0.6, 2.2) * fields.nest
    gap_um = (np.minimum(cells.to_tumour_um, 11) - np.float32(7.6)) * parted - np.float32(0.9)
    fields.void_um = np.maximum(fields.void_um, gap_um)
