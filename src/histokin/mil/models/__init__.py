"""Slide classifiers by name; each is a module over packed bags, a class and a file of its own."""

from histokin.mil.models.building import MODELS, Preset, build_model
from histokin.mil.models.model import MilModel
from histokin.mil.models.rnn import MilRnn

__all__ = ["MODELS", "MilModel", "MilRnn", "Preset", "build_model"]
