"""Slide classification: bags, models, training, prediction. Knows nothing of training encoders."""

from histokin.mil.bags import PackedBags
from histokin.mil.models import MODELS, MilModel, build_model
from histokin.mil.objectives import Classes, Cox, Hazards, MultiLabel, Objective, Regression
from histokin.mil.output import MilOutput

__all__ = [
    "MODELS",
    "Classes",
    "Cox",
    "Hazards",
    "MilModel",
    "MilOutput",
    "MultiLabel",
    "Objective",
    "PackedBags",
    "Regression",
    "build_model",
]
