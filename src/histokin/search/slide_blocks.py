"""The mosaics of an archive in pieces of bounded size."""

from collections.abc import Iterator

import numpy as np

from histokin.search.searcher import Searcher
from histokin.search.tables import Mosaics

BLOCK = 2**23
"""Values of one block of vectors as float32, or of its products with the query (32 MiB)."""
_SAMPLED = 256  # slides from whose mosaics a number of the archive is taken


def mosaic_blocks(searcher: Searcher, slides: np.ndarray, n_query: int) -> Iterator[tuple[np.ndarray, Mosaics]]:
    """Runs of slides whose mosaics, and products with the query, are of bounded size."""
    a_slide = -(-max(1, searcher.n_mosaic) // max(1, len(searcher.slides))) * max(searcher.made.dim, n_query)
    step = max(1, BLOCK // a_slide)
    for start in range(0, len(slides), step):
        part = slides[start : start + step]
        yield part, searcher.mosaics(part)


def archive_sample(searcher: Searcher) -> tuple[np.ndarray, np.ndarray]:
    """(n, d) mosaic vectors of at most 256 slides, evenly spaced by slide id, and (n,) object owners.

    Owners are patients; a slide of an unknown patient counts as a patient of its own.
    """
    slides = searcher.slides
    numbers = np.unique(np.linspace(0, len(slides) - 1, min(_SAMPLED, len(slides))).astype(np.int64))
    held = searcher.mosaics(numbers)
    owners = [f"patient {slides.patient[n]}" if slides.patient[n] else f"slide {slides.slide[n]}" for n in numbers]
    return held.vectors, np.repeat(np.array(owners, dtype=object), np.diff(held.first))
