"""Search: exact neighbours, slide-retrieval strategies, hits with evidence.

Takes arrays and gives arrays: what a vector came from, which encoder made it and where results go is decided above.
"""

from histokin.search.exact import Neighbours, top_k
from histokin.search.hits import Archive, Evidence, Hits
from histokin.search.slides import Strategy, median_of_minimum, nearest_slides, rank_slides

__all__ = [
    "Archive",
    "Evidence",
    "Hits",
    "Neighbours",
    "Strategy",
    "median_of_minimum",
    "nearest_slides",
    "rank_slides",
    "top_k",
]
