"""Embeddings: one HDF5 a slide, a store of them, and the stage that fills it.

Knows nothing of networks.
"""

from histokin.embeddings.embedder import ABOUT, TileEmbedder, short_id
from histokin.embeddings.file import SlideEmbeddings, read_embeddings, write_embeddings
from histokin.embeddings.foreign import Recognised, is_foreign, read_foreign, recognise
from histokin.embeddings.stage import EmbedOutcome, check_fit, embed_cohort
from histokin.embeddings.store import Embeddings, EmbeddingStore, count_vectors

__all__ = [
    "ABOUT",
    "EmbedOutcome",
    "EmbeddingStore",
    "Embeddings",
    "Recognised",
    "SlideEmbeddings",
    "TileEmbedder",
    "check_fit",
    "count_vectors",
    "embed_cohort",
    "is_foreign",
    "read_embeddings",
    "read_foreign",
    "recognise",
    "short_id",
    "write_embeddings",
]
