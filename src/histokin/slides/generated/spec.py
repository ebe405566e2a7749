"""What can be asked of one generated slide, checked when it is asked."""

from dataclasses import dataclass

from histokin.slides.generated.classes import DIAGNOSES

MIN_PX, MAX_PX = 64, 40_000


@dataclass(frozen=True, slots=True)
class GeneratedSlideSpec:
    """One slide: everything its pixels depend on.

    Slides with the same `seed` and `patient` share stain, colour confound and tissue mix; `section` tells them apart.

    Attributes:
        seed: number of the world; patients and scanners of different worlds have nothing in common.
        width, height: level-0 pixels.
        mpp: um a pixel.
        patient, section, scanner: whose it is, which of the patient's slides, what it was scanned with.
        diagnosis: a key of DIAGNOSES.
        colour_leak: how much of the true colour of tumour, stroma, gland, lymphoid tissue and necrosis is kept; the
            rest is the same for all five, times a factor of its own for each patient and class. 0: colour tells
            nothing across patients; 1: colour tells nearly everything. 0.3 was measured to leave texture far ahead.
        pen: whether somebody marked the glass with a felt pen.
        jpeg_quality: of the file, 1 to 100.
    """

    seed: int = 0
    width: int = 2048
    height: int = 2048
    mpp: float = 0.5
    patient: int = 0
    section: int = 0
    scanner: int = 0
    diagnosis: str = "carcinoma"
    colour_leak: float = 0.3
    pen: bool = False
    jpeg_quality: int = 85

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            if not MIN_PX <= getattr(self, name) <= MAX_PX:
                raise ValueError(f"{name} must be {MIN_PX} to {MAX_PX} px, got {getattr(self, name)}")
        if not 0.1 <= self.mpp <= 2.0:
            raise ValueError(f"mpp must be 0.1 to 2.0 um a pixel, got {self.mpp}")
        for name in ("patient", "section", "scanner"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.diagnosis not in DIAGNOSES:
            raise ValueError(f"diagnosis must be one of {', '.join(DIAGNOSES)}, got {self.diagnosis!r}")
        if not 0 <= self.colour_leak <= 1:
            raise ValueError(f"colour_leak must be 0 to 1, got {self.colour_leak}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality must be 1 to 100, got {self.jpeg_quality}")
