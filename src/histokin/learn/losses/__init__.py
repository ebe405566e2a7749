"""Losses: pure functions of tensors, one module each, with the paper's equation in the docstring."""

from histokin.learn.losses.nt_xent import nt_xent

__all__ = ["nt_xent"]
