"""Pretraining methods by name; each is a module over an encoder, a class and a file of its own."""

from histokin.learn.methods.method import Batch, Method
from histokin.learn.methods.simclr import SimCLR

METHODS: dict[str, type[Method]] = {"simclr": SimCLR}

__all__ = ["METHODS", "Batch", "Method", "SimCLR"]
