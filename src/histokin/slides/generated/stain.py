"""Colour: what a patient's staining, a scanner and a felt pen make of the same tissue.

Optical density is kept in three parts, haematoxylin, eosin and red cells; light is I0 * 10^-OD with OD linear in the
parts (Beer-Lambert), so one 3x3 matrix turns parts into channels.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from histokin.slides.generated.classes import BLOOD, CLASSES, FAT, GLAND, LYMPHOID, MUCIN, NECROSIS, STROMA, TUMOUR
from histokin.slides.generated.noise import F32, U8, Grid, blur, smooth_noise
from histokin.streams import stream

# Mean haematoxylin and eosin of each class between its nuclei, by eye after the MoNuSeg and GlaS pictures.
_BASE = {
    TUMOUR: (0.20, 0.27),
    STROMA: (0.07, 0.40),
    GLAND: (0.17, 0.30),
    LYMPHOID: (0.16, 0.14),
    FAT: (0.01, 0.02),
    NECROSIS: (0.10, 0.42),
    BLOOD: (0.02, 0.15),
    MUCIN: (0.10, 0.06),
}
_CONFOUNDED = (TUMOUR, STROMA, GLAND, LYMPHOID, NECROSIS)
_COMMON = (0.12, 0.32)  # what the confounded classes fade to when no colour leaks
_HAEMATOXYLIN, _EOSIN, _RED_CELLS = (0.65, 0.70, 0.29), (0.13, 0.955, 0.26), (0.10, 0.80, 0.62)
_DENSITY = 2.0
PEN_COLOURS = {  # densities of R, G, B: ink adds to the tissue below it
    "black": (1.7, 1.6, 1.5),
    "blue": (1.5, 0.85, 0.22),
    "green": (1.35, 0.35, 0.85),
    "red": (0.14, 1.25, 1.05),
}


@dataclass(frozen=True, slots=True)
class PatientStyle:
    """What all slides of a patient share.

    Attributes:
        haematoxylin, eosin: (9,) float32 density of each class between the nuclei.
        nuclear: (9,) float32 factor on the nuclei's density, by class.
        density: (9,) float64 factor on the number of nuclei, by class.
        nucleus_size: factor on the tumour nuclei's diameter.
        stains: (3, 3) float32, channel by part: haematoxylin, eosin, red cells.
    """

    haematoxylin: F32
    eosin: F32
    nuclear: F32
    density: F32
    nucleus_size: float
    stains: F32


@dataclass(frozen=True, slots=True)
class ScannerStyle:
    """What all slides of a scanner share: white point (3,), gamma, optics in um, sharpening amount, noise in levels."""

    white: F32
    gamma: float
    blur_um: float
    sharpening: float
    noise: float


def patient_style(seed: int, patient: int, colour_leak: float) -> PatientStyle:
    """Draw a patient's staining and the colour confound: a factor for each (patient, class, stain)."""
    rng = stream(seed, "generated", "patient", patient)
    base = np.zeros((len(CLASSES), 2))
    for index, parts in _BASE.items():
        base[index] = parts
    factor = np.exp(rng.normal(0, 0.13, base.shape))
    lift = np.maximum(rng.normal(0, 0.03, len(CLASSES)), 0)
    nuclear = np.exp(rng.normal(0, 0.15, len(CLASSES)))
    for index in _CONFOUNDED:
        kept = colour_leak * base[index] + (1 - colour_leak) * np.array(_COMMON)
        base[index] = np.maximum(kept * factor[index], 0.03)
        base[index, 0] += lift[index]
    strength = np.exp(rng.normal(0, (0.12, 0.13)))
    stains = np.stack(
        [
            _unit(np.array(_HAEMATOXYLIN) + rng.normal(0, 0.028, 3)) * strength[0],
            _unit(np.array(_EOSIN) + rng.normal(0, (0.05, 0.02, 0.05))) * strength[1],
            _unit(np.array(_RED_CELLS)) * strength[1],
        ],
        axis=1,
    )
    return PatientStyle(
        haematoxylin=base[:, 0].astype(np.float32),
        eosin=base[:, 1].astype(np.float32),
        nuclear=nuclear.astype(np.float32),
        density=np.exp(rng.normal(0, 0.15, len(CLASSES))).astype(np.float32),
        nucleus_size=float(np.exp(rng.normal(0, 0.08))),
        stains=(stains * _DENSITY).astype(np.float32),
    )


def scanner_style(seed: int, scanner: int) -> ScannerStyle:
    """Draw a scanner's colour and optics."""
    rng = stream(seed, "generated", "scanner", scanner)
    return ScannerStyle(
        white=(np.array([242.0, 240.0, 243.0]) + rng.normal(0, 3) + rng.normal(0, 1.5, 3))
        .clip(220, 252)
        .astype(np.float32),
        gamma=float(rng.uniform(0.93, 1.07)),
        blur_um=float(rng.uniform(0.22, 0.42)),
        sharpening=float(rng.uniform(0.5, 1.2)),
        noise=float(rng.uniform(0.7, 1.8)),
    )


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def draw_pen(rng: np.random.Generator, grid: Grid, outside_um: F32) -> tuple[F32, F32]:
    """A felt-pen loop round part of the tissue, or a stroke beside it.

    Returns:
        Ink (H, W) on the grid, 0 none to about 1, and its density (3,) by channel.
    """
    width, height = grid.size_um
    pen_um = float(np.clip(min(width, height) / 16, 40, 420))  # a real line is 0.5-1 mm; small slides get a finer pen
    centre = np.array([width, height]) * rng.uniform(0.3, 0.7, 2)
    turns = rng.uniform(0.8, 1.08) if rng.random() < 0.7 else rng.uniform(0.12, 0.3)
    angle = np.linspace(0, 2 * np.pi * turns, 160) + rng.uniform(0, 2 * np.pi)
    wobble = 1 + 0.08 * np.sin(2 * angle + rng.uniform(0, 6)) + 0.05 * np.sin(3 * angle + rng.uniform(0, 6))
    radius = rng.uniform(0.28, 0.42) * np.array([width, height])
    line = centre + np.stack([np.cos(angle), np.sin(angle)], axis=1) * (radius * wobble[:, None])
    mask: U8 = np.zeros(grid.shape, np.uint8)
    points = np.round(line / grid.um * 16).astype(np.int32)
    cv2.polylines(mask, [points[None]], False, 255, max(1, round(pen_um / grid.um)), cv2.LINE_AA, 4)
    ink = blur(mask.astype(np.float32) * np.float32(1 / 255), max(0.02 * pen_um / grid.um, 0.8))
    streaks = 1 + 0.13 * smooth_noise(rng, grid, pen_um / 3, octaves=4)
    streaks -= 0.12 * np.exp(-((outside_um / 30) ** 2))  # ink runs off the ledge of the coverslipped tissue
    colour = list(PEN_COLOURS)[int(rng.integers(len(PEN_COLOURS)))]
    return np.asarray(ink * streaks.clip(0.3, 1.5), np.float32), np.array(PEN_COLOURS[colour], np.float32)
