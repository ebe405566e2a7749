"""Generated slides: pictures of tissue that never was, with known truth, as files every slide reader opens.

For tests, demonstrations and benchmarks. They show whether software works; they prove nothing about disease.
"""

from histokin.slides.generated.classes import CLASSES, DIAGNOSES, Diagnosis
from histokin.slides.generated.cohort import GeneratedCohortSpec, generate_cohort, plan_cohort
from histokin.slides.generated.pyramid import Rows, write_pyramid
from histokin.slides.generated.render import RenderedSlide, render_slide
from histokin.slides.generated.spec import GeneratedSlideSpec

__all__ = [
    "CLASSES",
    "DIAGNOSES",
    "Diagnosis",
    "GeneratedCohortSpec",
    "GeneratedSlideSpec",
    "RenderedSlide",
    "Rows",
    "generate_cohort",
    "plan_cohort",
    "render_slide",
    "write_pyramid",
]
