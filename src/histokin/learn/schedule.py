"""Numbers that change over a run: the learning rate, and whatever else follows half a cosine."""

import math


def learning_rate(step: int, steps: int, *, peak: float, warmup: float, end: float = 0.0) -> float:
    """Linear warm-up over a share of the steps, then half a cosine down to a share of the peak.

    Args:
        step: 0 to steps - 1, taken at its middle: the first step has a rate above 0, the last one nearly the end's.
        steps: length of the run.
        peak: highest rate.
        warmup: share of the steps, in [0, 1).
        end: share of the peak that the cosine ends at, in [0, 1).
    """
    done = (step + 0.5) / steps
    if done < warmup:
        return peak * done / warmup
    return peak * (end + (1 - end) * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup))))


def cosine(step: int, steps: int, *, start: float, end: float) -> float:
    """Half a cosine from `start` at step 0 to `end` at step `steps` and after it, upwards or downwards.

    For weight decay (DINO: .04 to .4) and the momentum of a momentum encoder (BYOL: .996 to 1), in the papers' form

        value(s) = end - (end - start) (1 + cos(pi s / steps)) / 2

    Args:
        step: from 0.
        steps: length of the run; at least 1.
        start, end: the two values, any order.
    """
    share = 0.5 * (1 - math.cos(math.pi * min(step / steps, 1.0)))
    # From the nearer end: both values come out exactly, and a constant stays constant.
    return start + (end - start) * share if share < 0.5 else end - (end - start) * (1 - share)
