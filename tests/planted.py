"""A leak for tests to find."""

from dataclasses import fields, replace

import numpy as np

from histokin.evaluate import Items
from histokin.streams import stream


def with_planted_copies(
    features: np.ndarray, items: Items, *, noise: float = 0.01, seed: int = 0
) -> tuple[np.ndarray, Items]:
    """Each item's near-duplicate, of the same patient and slide, added at the end: a leak for tests to find.

    Args:
        features: (N, d).
        items: of N.
        noise: sd of what is added, as a share of the features' own sd.
        seed: of the noise.

    Returns:
        (2N, d) float64 features and 2N items.
    """
    x = np.asarray(features, dtype=np.float64)
    copies = x + noise * x.std() * stream(seed, "planted").standard_normal(x.shape)
    columns = {field.name: np.concatenate([getattr(items, field.name)] * 2) for field in fields(items)}
    return np.concatenate([x, copies]), replace(items, **columns)
