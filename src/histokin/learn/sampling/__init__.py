"""Which tiles make which batch: a function of (seed, step) alone, whatever the ranks, restarts or order of calls.

Lives here: what a step draws (`Draw`), samplers by epoch, by cohort and slide, and by pairs of places. Does not live
here: pixels, views, and neighbours of every tile (`histokin.learn.neighbours`).
"""

from histokin.learn.sampling.balanced import BalancedSampler
from histokin.learn.sampling.draw import Draw, Sampler
from histokin.learn.sampling.epochs import EpochSampler, batch_rows, effective_batch, probe_rows
from histokin.learn.sampling.pair_plan import PairPlan, SlideLimits, plan_pairs
from histokin.learn.sampling.pairs import PairSampler

__all__ = [
    "BalancedSampler",
    "Draw",
    "EpochSampler",
    "PairPlan",
    "PairSampler",
    "Sampler",
    "SlideLimits",
    "batch_rows",
    "effective_batch",
    "plan_pairs",
    "probe_rows",
]
