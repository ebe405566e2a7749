"""Small archives of slides with planted kinship, for tests of slide search."""

import numpy as np

from histokin.search.exact_searcher import ExactSearcher
from histokin.search.slide_search import QueryBag
from histokin.search.tables import Made, SlideEntry

DIM = 24


def make_entries(n_slides=30, *, seed=0, tiles=(12, 30), mosaic=8, kinds=5, d=DIM, labels=True):
    """Slides of one or two kinds of tissue, three to a patient; the label is the kind of the first."""
    rng = np.random.default_rng(seed)
    centres = 1.5 * rng.normal(size=(kinds, d))
    entries = []
    for number in range(n_slides):
        n = int(rng.integers(*tiles))
        own = rng.integers(0, kinds, 2)
        vectors = centres[rng.choice(own, n)] + 0.5 * rng.normal(size=d) + 0.7 * rng.normal(size=(n, d))
        grid = np.stack([np.arange(n) % 5, np.arange(n) // 5], axis=1) * 256
        columns = {"organ": "colon" if number % 2 else "lung"}
        if labels:
            columns["label"] = f"kind {own[0]}"
        rows = np.sort(rng.choice(n, min(mosaic, n), replace=False))
        entry = SlideEntry(
            f"s{number:04d}", f"p{number // 3}", vectors, np.arange(n) + 3, grid, columns=columns, mosaic=rows
        )
        entries.append(entry)
    return entries


def make_searcher(*args, **how):
    """The entries above, in memory."""
    entries = make_entries(*args, **how)
    return ExactSearcher(Made("hand", "f" * 8, "grid", 1.0, 256, entries[0].vectors.shape[1]), entries)


def query_of(searcher, slide, n=8):
    """The first tiles of a slide, unequally weighted."""
    tiles = searcher.bag(slide)
    rows = slice(0, n)
    weights = np.arange(1, len(tiles.tile[rows]) + 1)
    return QueryBag(tiles.vectors[rows], weights, tiles.tile[rows], tiles.coords[rows])
