"""Weights of labels and of ranks in published rankings."""

from collections.abc import Mapping

import numpy as np


def class_weights(slides_per_class: Mapping[str, int], *, sum_to: float = 10.0) -> dict[str, float]:
    """w_c = sum_to (1 / n_c) / sum_c' (1 / n_c'): rare labels count more (FISH and RetCCL; 30 for organ search)."""
    total = sum(1 / n for n in slides_per_class.values())
    return {label: sum_to / n / total for label, n in slides_per_class.items()}


def hshr_rank_weights(k: int) -> np.ndarray:
    """(k,) 1 - ln(i + 1) / ln(k + 1), i from 0: what the i-th neighbour of a centre adds to the incidence (HSHR)."""
    return 1 - np.log(np.arange(1, k + 1)) / np.log(k + 1)
