"""Slide classification as a product: train and judge, predict, map, compare; each a call that its command makes too."""

from histokin.pipeline.mil.asking import MilRequest, spec_of
from histokin.pipeline.mil.comparing import compare_classifiers
from histokin.pipeline.mil.mapping import map_slides
from histokin.pipeline.mil.outcome import MilOutcome
from histokin.pipeline.mil.predicting import predict_archive
from histokin.pipeline.mil.training import train_classifiers

__all__ = [
    "MilOutcome",
    "MilRequest",
    "compare_classifiers",
    "map_slides",
    "predict_archive",
    "spec_of",
    "train_classifiers",
]
