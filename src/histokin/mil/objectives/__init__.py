"""Objectives: what the logits of a slide mean, their loss and what is told to a user. Knows no models."""

from histokin.mil.objectives.classes import Classes, MultiLabel, log_odds
from histokin.mil.objectives.objective import Objective
from histokin.mil.objectives.regression import Regression
from histokin.mil.objectives.smooth_svm import smooth_top1_svm
from histokin.mil.objectives.survival import Cox, Hazards, harrell_c, hazard_edges

__all__ = [
    "Classes",
    "Cox",
    "Hazards",
    "MultiLabel",
    "Objective",
    "Regression",
    "harrell_c",
    "hazard_edges",
    "log_odds",
    "smooth_top1_svm",
]
