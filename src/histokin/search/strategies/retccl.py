"""RetCCL's ranking: "FISH without the tree", bags of tiles above a similarity, the most certain bags first.

The paper (Wang et al. 2023) published no code for it. The steps are those of the independent re-implementation
(jacobluber/PathologySearchComparison, `retccl/search.py`), written anew; deviations are named at `RetCCL`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from histokin.errors import SearchError
from histokin.search.strategies.bags import Bags, Draw, Ranked, cross_patient_quantile
from histokin.search.votes import tally

_BEST = 5


def retccl_uncertainty(
    labels: Sequence[str], cosine: np.ndarray, weights: Mapping[str, float]
) -> tuple[float, dict[str, float]]:
    """Entropy in nats of a bag's labels, and their shares.

        p_u = sum [y = u] w_y (cos + 1) / 2  /  sum w_y (cos + 1) / 2

    Args:
        labels: of the hits.
        cosine: (h,) of the hits.
        weights: of the labels, see `class_weights`.
    """
    mass: dict[str, float] = {}
    for label, value in zip(labels, np.asarray(cosine).tolist(), strict=True):
        mass[label] = mass.get(label, 0.0) + weights[label] * (value + 1) / 2
    total = math.fsum(mass.values())
    shares = {label: value / total for label, value in mass.items()} if total > 0 else {}
    return -math.fsum(p * math.log(p) for p in shares.values() if p > 0), shares


def retccl_eta(cosine: np.ndarray) -> float:
    """The mean of a bag's best five cosines, best first; 0 for an empty bag."""
    return math.fsum(cosine[:_BEST].tolist()) / len(cosine[:_BEST]) if len(cosine) else 0.0


def retccl_kept(eta: np.ndarray, n_hits: np.ndarray) -> tuple[np.ndarray, float]:
    """(n,) bool bags no worse than the mean eta over all query tiles, empty bags included, and that mean.

    An empty bag has entropy 0 and would lead the order: it is never kept.
    """
    threshold = math.fsum(eta.tolist()) / len(eta)
    return (eta >= threshold - 1e-12) & (n_hits > 0), threshold  # 1e-12: bags that are all alike must not all go


def retccl_answer(
    bags: Bags, walk: Sequence[int], *, score: Literal["best", "first"] = "best"
) -> list[tuple[int, float]]:
    """(slide, score) of the slides that bags name, each at the first that names it.

    A bag names the slide of its first hit with the commonest label of its best five; of equally common ones with the
    label met first.

    Args:
        bags: none of those walked is empty.
        walk: bags in their order.
        score: of a slide named by several bags.
    """
    found: dict[int, float] = {}
    for number in walk:
        part = bags.of(number)
        best = slice(part.start, min(part.start + _BEST, part.stop))
        winner = tally(bags.label[best], bags.value[best], rule="first_seen")[0].label
        hit = next(i for i in range(best.start, best.stop) if bags.label[i] == winner)
        slide, value = int(bags.slide[hit]), float(bags.value[hit])
        found[slide] = found.get(slide, value) if score == "first" else max(found.get(slide, value), value)
    return list(found.items())


@dataclass(frozen=True, slots=True)
class RetCCL:
    """Slides from bags of similar tiles: eta removal, most certain first, majority of the best five in each bag.

    `order` and `score` default to what the ranking means; `descending` and `first` are what the re-implementation does:
    it walks the *least* certain bags first and keeps the score of the first bag that named a slide.
    Labels are inside this ranking. The answer has at most one slide a query tile.

    Attributes:
        threshold: least cosine in a bag (published: 0.7); None: `quantile` of the archive's cross-patient pairs.
        quantile: see `threshold`.
        order: of the bags by entropy.
        score: of a slide named by several bags.
        label: column of the slide table; slides without one are in no bag.
        sum_to: of the class weights, 10 or (organs) 30.
        depth: hits looked at for each query tile.
    """

    by: ClassVar[Literal["cosine", "hamming"]] = "cosine"
    threshold: float | None = None
    quantile: float = 0.99
    order: Literal["ascending", "descending"] = "ascending"
    score: Literal["best", "first"] = "best"
    label: str = "label"
    sum_to: float = 10.0
    depth: int = 500

    def fitted(self, draw: Draw) -> "RetCCL":
        """The strategy with a number for a threshold.

        Raises:
            SearchError: the archive holds one patient only.
        """
        if self.threshold is not None:
            return self
        found = cross_patient_quantile(*draw(), self.quantile)
        if np.isnan(found):
            raise SearchError(
                "no threshold can be set from pairs of tiles of different patients, for there is one patient only",
                "strategy retccl",
                "Give the threshold as a number.",
            )
        return replace(self, threshold=found)

    def limit(self, n_bits: int) -> float:
        """See `BagStrategy.limit`."""
        del n_bits
        if self.threshold is None:
            raise ValueError("the threshold is a quantile: call `fitted` with a sample of the archive first")
        return self.threshold

    def rank(self, bags: Bags, weights: Mapping[str, float]) -> Ranked:
        """See `BagStrategy.rank`; slides come in the order of bags, so scores need not fall."""
        parts = [bags.of(number) for number in range(len(bags))]
        eta = np.array([retccl_eta(bags.value[part]) for part in parts])
        entropy = [retccl_uncertainty(bags.label[part].tolist(), bags.value[part], weights)[0] for part in parts]
        kept, _ = retccl_kept(eta, np.diff(bags.first))
        sign = 1 if self.order == "ascending" else -1
        walk = sorted(np.flatnonzero(kept).tolist(), key=lambda q: (sign * entropy[q], -eta[q], q))
        return Ranked.of(retccl_answer(bags, walk, score=self.score), kept)
