"""Random numbers by counter: what is drawn for sample i of step s depends on (seed, purpose, s, i) alone."""

import numpy as np

from histokin.streams import seed64

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, the increment of splitmix64


def draw_uniforms(seed: int, purpose: str, step: int, *, samples: np.ndarray, n_views: int, n_draws: int) -> np.ndarray:
    """Uniform numbers for the views of a batch, each a hash of its own coordinates.

    Chained splitmix64 finalisers (Steele et al. 2014) over seed, step, sample, view and draw: no state, so that a
    sub-batch, another rank or a restart draws the same.

    Args:
        seed: of the run.
        purpose: keeps streams of different use apart.
        step: from 0.
        samples: (B,) int64 places in the global batch.
        n_views: V, views of each sample.
        n_draws: P, numbers a view.

    Returns:
        (V, B, P) float64 in [0, 1).
    """
    key = np.array([seed64(seed, purpose)], np.uint64)
    key = _mix(key + _times_golden(np.array([step])))  # (1,)
    key = _mix(key ^ _mix(_times_golden(samples)))  # (B,)
    key = _mix(key + _times_golden(np.arange(n_views))[:, None])  # (V, B)
    bits = _mix(key[:, :, None] + _times_golden(np.arange(n_draws)))  # (V, B, P)
    return (bits >> np.uint64(11)) * 2.0**-53


def _times_golden(counter: np.ndarray) -> np.ndarray:
    return (counter.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
