"""Bags over a `Searcher`: what each query tile finds among the mosaics of labelled slides, ranked as published."""

from collections import Counter
from dataclasses import replace

import numpy as np

from histokin.errors import SearchError
from histokin.search.barcodes import hamming, pack, rising
from histokin.search.searcher import Searcher
from histokin.search.slide_blocks import mosaic_blocks
from histokin.search.slide_hits import PairEvidence, SlideHits
from histokin.search.strategies import Asked, Bags, BagStrategy, Ranked
from histokin.search.strategies.weights import class_weights
from histokin.search.tables import Where


def rank_bags(
    searcher: Searcher,
    asked: Asked,
    k: int,
    strategy: BagStrategy,
    allowed: np.ndarray,
    where: Where,
    *,
    exact: bool,
) -> SlideHits:
    """Fill the bags of the query's tiles and rank the allowed slides from them; see `slide_search.search_slides`."""
    labels = _labels(searcher, strategy)
    counts = Counter(label for label in labels[allowed].tolist() if label)
    n_named = counts.total()
    weights = class_weights(counts, sum_to=strategy.sum_to)
    if strategy.by == "cosine":
        hits = searcher.search(asked.vectors, strategy.depth, where=where, field="mosaics", exact=exact)
        bags = Bags.of_hits(hits, labels, strategy.limit(0))
    else:
        bags = _hamming_bags(searcher, asked, strategy, labels, allowed)
    ranked = strategy.rank(bags, weights)
    notes = [f"ranked with the labels of column {strategy.label}, as published"]
    if n_named < len(allowed):
        notes.append(f"{len(allowed) - n_named} slides without a label were left out")
    n_cut = int((np.diff(bags.first) == strategy.depth).sum())
    if n_cut:
        notes.append(f"{n_cut} bags were cut at {strategy.depth} hits")
    slides, scores = ranked.slide[:k], ranked.score[:k]
    evidence = _bag_evidence(asked, bags, replace(ranked, slide=slides, score=scores))
    return SlideHits(slides, scores, evidence, len(allowed), n_named, -np.inf, is_complete=True, notes=tuple(notes))


def _labels(searcher: Searcher, strategy: BagStrategy) -> np.ndarray:
    """(S,) object labels.

    Raises:
        SearchError: there is no such column, or no slide has a label.
    """
    columns = searcher.slides.columns
    labels = columns.get(strategy.label)
    if labels is None or not any(labels):
        what = f"has no column {strategy.label!r}" if labels is None else f"names no label in column {strategy.label!r}"
        raise SearchError(
            f"the ranking of {type(strategy).__name__} needs labels of slides, but the archive {what}",
            "slide search",
            f"Name a labelled column ({', '.join(columns) or 'there is none'}), or rank by maxsim, which needs none.",
        )
    return labels


def _hamming_bags(
    searcher: Searcher, asked: Asked, strategy: BagStrategy, labels: np.ndarray, allowed: np.ndarray
) -> Bags:
    """The `depth` nearest labelled mosaic tiles of each query tile by FISH's barcodes, none beyond the limit."""
    codes = pack(rising(asked.vectors))
    limit = strategy.limit(codes.n_bits)
    rows = np.zeros((0, 6), dtype=np.int64)  # query, distance, slide, tile, x, y
    labelled = allowed[[bool(label) for label in labels[allowed]]]
    for part, held in mosaic_blocks(searcher, labelled, len(asked.vectors)):
        distance = hamming(codes, pack(rising(held.vectors)))
        query, at = np.nonzero(distance <= limit)
        slide = np.repeat(part, np.diff(held.first))[at]
        own = [query, distance[query, at], slide, held.tile[at], *held.coords[at].T]
        rows = np.concatenate([rows, np.stack(own, axis=1)])
        rows = rows[np.lexsort(rows[:, 3::-1].T)]  # query, then distance, slide, tile
        rank = np.arange(len(rows)) - np.searchsorted(rows[:, 0], rows[:, 0])
        rows = rows[rank < strategy.depth]
    first = np.searchsorted(rows[:, 0], np.arange(len(codes) + 1))
    value = rows[:, 1].astype(np.float64)
    return Bags(first, rows[:, 2], rows[:, 3], rows[:, 4:], value, labels[rows[:, 2]], codes.n_bits)


def _bag_evidence(asked: Asked, bags: Bags, ranked: Ranked) -> PairEvidence:
    """For each hit the best hit of each bag that had a say, where the slide is in it."""
    rows = np.full((len(ranked.slide), len(bags)), -1, dtype=np.int64)
    for bag in np.flatnonzero(ranked.used).tolist():
        part = bags.of(bag)
        slides, place = np.unique(bags.slide[part], return_index=True)  # the first is the best
        if len(slides):
            at = np.minimum(np.searchsorted(slides, ranked.slide), len(slides) - 1)
            rows[:, bag] = np.where(slides[at] == ranked.slide, part.start + place[at], -1)
    similarity = np.where(rows >= 0, bags.similarity()[rows] if len(bags.slide) else np.nan, np.nan)
    return PairEvidence.of(asked, rows, similarity, bags.tile, bags.place)
