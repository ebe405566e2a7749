"""Ways to rank slides: published engines and late interaction, one small module each.

A strategy is a frozen dataclass: one that scores the query and a single slide (`PairStrategy`; `BoundedStrategy` where
tile search finds its candidates), or one that ranks slides from what all query tiles found (`BagStrategy`).
`search.slide_search` runs them over a `Searcher`.

Steps are written anew from their descriptions, no code of others is taken. Yottixel's README names US patents 10628736
and 20200176102 and allows research only: who uses its preset for more should ask.
"""

from typing import Final, Protocol, runtime_checkable

from histokin.search.strategies.asked import Asked, BoundedStrategy, PairStrategy
from histokin.search.strategies.bags import Bags, BagStrategy, Draw, Ranked, cross_patient_quantile
from histokin.search.strategies.fish import Fish
from histokin.search.strategies.maxsim import MaxSim, MaxSimBoth
from histokin.search.strategies.mean import Mean
from histokin.search.strategies.median_min import BinaryMedianMin, MedianMin, RotatedMedianMin
from histokin.search.strategies.retccl import RetCCL

Ready = PairStrategy | BagStrategy
"""A strategy that can be asked."""


@runtime_checkable
class Unfitted(Protocol):
    """A strategy that takes a number from the archive first: a threshold, or what its codes are centred on."""

    def fitted(self, draw: Draw) -> Ready:
        """The strategy for one archive."""
        ...


AnyStrategy = Ready | Unfitted

STRATEGIES: Final[dict[str, AnyStrategy]] = {
    "maxsim": MaxSim(),
    "maxsim_sym": MaxSimBoth(),
    "mean": Mean(),
    "median_min": MedianMin(),
    "median_min/binary": BinaryMedianMin(),
    "median_min/rotated": RotatedMedianMin(),
    "yottixel": BinaryMedianMin(),
    "retccl": RetCCL(),
    "fish": Fish(),
}
"""Presets by name; build the dataclass for other settings."""

__all__ = [
    "STRATEGIES",
    "AnyStrategy",
    "Asked",
    "BagStrategy",
    "Bags",
    "BinaryMedianMin",
    "BoundedStrategy",
    "Fish",
    "MaxSim",
    "MaxSimBoth",
    "Mean",
    "MedianMin",
    "PairStrategy",
    "Ranked",
    "Ready",
    "RetCCL",
    "RotatedMedianMin",
    "Unfitted",
    "cross_patient_quantile",
]
