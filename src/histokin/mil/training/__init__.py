"""Training classifiers on bags: spec, loop, folds, ensembles, calibration, figures."""

from histokin.mil.training.ensembles import Ensemble, Told, fit_ensemble, read_ensemble
from histokin.mil.training.folds import CrossValidated, cross_validate
from histokin.mil.training.loop import Checkpoint, Fitted, fit_one, logits_of
from histokin.mil.training.spec import MilSpec, faithful_spec
from histokin.mil.training.targets import Targets
from histokin.mil.training.task import MilTask

__all__ = [
    "Checkpoint",
    "CrossValidated",
    "Ensemble",
    "Fitted",
    "MilSpec",
    "MilTask",
    "Targets",
    "Told",
    "cross_validate",
    "faithful_spec",
    "fit_ensemble",
    "fit_one",
    "logits_of",
    "read_ensemble",
]
