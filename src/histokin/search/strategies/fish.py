"""FISH's ranking of slides (Chen et al. 2022), by the rules of its released code (mahmoodlab/SISH `eval.py`).

No code is taken. Labels are inside it (class weights, entropy, filtering by prediction): it is a label-aware classifier
and no ranking by likeness, so it is offered only with a column of labels named. Bags are filled by a scan of all
mosaics: what its tree finds is a part of that.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from histokin.search.strategies.bags import Bags, Ranked

Variant = Literal["as_coded", "as_commented"]
_BEST = 5


def fish_uncertainty(
    labels: Sequence[str], weights: Mapping[str, float], *, variant: Variant = "as_coded"
) -> tuple[float, dict[str, float], dict[str, float]]:
    """Entropy in bits of a bag, the shares of its labels, and their counts sum_rank w_label / rank.

    Args:
        labels: by rank from 1.
        weights: of the labels.
        variant: the code's comment raises counts below 1 to 1; the code computes that and throws it away.
    """
    counts: dict[str, float] = {}
    for rank, label in enumerate(labels, start=1):
        counts[label] = counts.get(label, 0.0) + weights[label] / rank
    if variant == "as_commented":
        counts = {label: max(count, 1.0) for label, count in counts.items()}
    total = math.fsum(counts.values())
    shares = {label: count / total for label, count in counts.items()}
    return -math.fsum(p * math.log2(p) for p in shares.values() if p > 0), shares, counts


def fish_lengths_kept(lengths: np.ndarray) -> tuple[np.ndarray, float, float]:
    """(n,) bool bags kept by length, and the 5th and 95th percentile that they must lie strictly between.

    With at most three distinct lengths all are kept. The published flaw stays: where the commonest length is the 95th
    percentile itself, all bags of that length go.
    """
    lengths = np.asarray(lengths)
    low, high = np.percentile(lengths, [5, 95])
    kept = np.ones(len(lengths), dtype=bool) if len(np.unique(lengths)) <= 3 else (lengths > low) & (lengths < high)
    return kept, float(low), float(high)


def fish_clean(entropy: np.ndarray, hamming: Sequence[np.ndarray]) -> tuple[list[int], float]:
    """Bags by entropy without those whose five best distances are worse than the mean over bags, and that mean.

    Args:
        entropy: (n,) of the bags.
        hamming: distances of each bag, ascending, none empty.

    Returns:
        Positions kept, the most certain first (then the earlier), and the threshold (NaN where no bag is left).
    """
    if not hamming:
        return [], float("nan")
    by_length = np.flatnonzero(fish_lengths_kept(np.array([len(bag) for bag in hamming]))[0]).tolist()
    means = {n: math.fsum(hamming[n][:_BEST].tolist()) / len(hamming[n][:_BEST]) for n in by_length}
    if not means:
        return [], float("nan")
    threshold = math.fsum(means.values()) / len(means)
    kept = [n for n, mean in means.items() if mean <= threshold + 1e-9]  # equal means must not all go by rounding
    return sorted(kept, key=lambda n: (entropy[n], n)), threshold


def fish_filter(shares: Sequence[Mapping[str, float]]) -> tuple[list[int], str]:
    """Which of the first five bags are removed because their top label is not the winner of the summed shares.

    Where a winner would remove all of them, the next label is tried; equal sums go to the label met first.

    Returns:
        Positions removed (never from the sixth on) and the winner, "" where there is no bag.
    """
    asked = shares[:_BEST]
    summed: dict[str, float] = {}
    for bag in asked:
        for label, share in bag.items():
            summed[label] = summed.get(label, 0.0) + share
    tops = [max(bag, key=bag.__getitem__) for bag in asked]  # the first of equals
    # Sums of shares are compared to 9 digits: .3 + .6 and .45 + .45 are meant to tie.
    for winner in sorted(summed, key=lambda label: -round(summed[label], 9)):
        removed = [number for number, top in enumerate(tops) if top != winner]
        if len(removed) < len(asked):
            return removed, winner
    return [], ""


def fish_order(
    entropy: Sequence[float],
    hits: Sequence[Sequence[tuple[int, float]]],
    threshold: float,
    *,
    removed: Sequence[int] = (),
    variant: Variant = "as_coded",
) -> list[tuple[int, float]]:
    """(slide, Hamming distance) by (entropy, distance, slide), each slide where it was seen first.

    A bag with entropy 0 gives all its hits, others those at or below the threshold. `as_coded` also walks the removed
    bags and drops their slides only at the end, so that a slide first seen in one is lost even where a kept bag
    holds it; `as_commented` walks kept bags only.

    Args:
        entropy: of the bags in the order in which they are walked.
        hits: (slide, distance) of each bag, best first.
        threshold: from `fish_clean`.
        removed: positions from `fish_filter`.
        variant: see above.
    """
    seen: dict[int, tuple[float, float, int]] = {}
    lost: set[int] = set()
    for number, (uncertainty, bag) in enumerate(zip(entropy, hits, strict=True)):
        if number in removed and variant == "as_commented":
            continue
        for slide, distance in bag:
            if slide not in seen and (uncertainty == 0 or distance <= threshold):
                seen[slide] = (uncertainty, distance, slide)
                if number in removed:
                    lost.add(slide)
    ordered = sorted(entry for slide, entry in seen.items() if slide not in lost)
    return [(slide, distance) for _, distance, slide in ordered]


@dataclass(frozen=True, slots=True)
class Fish:
    """FISH's steps over bags of tiles whose barcodes differ in few bits.

    Attributes:
        label: column of the slide table; slides without one are in no bag.
        max_hamming: of a hit, for codes of 1024 bits; scaled to other lengths (published: 128).
        variant: `as_coded` follows the released code to its two slips, `as_commented` what its comments say.
        sum_to: of the class weights, 10 or (organs) 30.
        depth: hits looked at for each query tile.
    """

    by: ClassVar[Literal["cosine", "hamming"]] = "hamming"
    label: str = "label"
    max_hamming: int = 128
    variant: Variant = "as_coded"
    sum_to: float = 10.0
    depth: int = 500

    def limit(self, n_bits: int) -> float:
        """See `BagStrategy.limit`."""
        return self.max_hamming * n_bits / 1024

    def rank(self, bags: Bags, weights: Mapping[str, float]) -> Ranked:
        """See `BagStrategy.rank`; the score is the share of equal bits."""
        numbers = [number for number in range(len(bags)) if bags.of(number).stop > bags.of(number).start]
        parts = [bags.of(number) for number in numbers]
        found = [fish_uncertainty(bags.label[part].tolist(), weights, variant=self.variant) for part in parts]
        entropy = np.array([entropy for entropy, _, _ in found])
        order, threshold = fish_clean(entropy, [bags.value[part] for part in parts])
        removed, _ = fish_filter([found[n][1] for n in order])
        hits = [list(zip(bags.slide[parts[n]].tolist(), bags.value[parts[n]].tolist(), strict=True)) for n in order]
        ranked = fish_order([float(entropy[n]) for n in order], hits, threshold, removed=removed, variant=self.variant)
        used = np.zeros(len(bags), dtype=bool)
        used[[numbers[n] for position, n in enumerate(order) if position not in removed]] = True
        return Ranked.of([(slide, 1 - distance / bags.n_bits) for slide, distance in ranked], used)
