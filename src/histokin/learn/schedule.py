"""The learning rate over a run."""

import math


def learning_rate(step: int, steps: int, *, peak: float, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then half a cosine down to 0.

    Args:
        step: 0 to steps - 1. The first step has a rate above 0, the last one nearly 0.
        steps: length of the run.
        peak: highest rate.
        warmup: share of the steps, in [0, 1).
    """
    done = (step + 0.5) / steps
    if done < warmup:
        return peak * done / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))
