"""The network behind a store, for what is asked from outside it."""

from pathlib import Path

from histokin.embeddings import EmbeddingStore, TileEmbedder
from histokin.errors import EncoderMismatch
from histokin.pipeline.choosing import choose_encoder, run_of
from histokin.pipeline.floor_names import STATISTIC_FLOORS
from histokin.tiles import Tiling
from histokin.workspace import Workspace


def embedder_of(
    work: Workspace, tiling: Tiling, store: EmbeddingStore, *, weights: Path | None = None, device: str = "auto"
) -> TileEmbedder:
    """What made a store's vectors, ready to make more of them.

    Args:
        work, tiling: the workspace and its tiles.
        store: whose maker is wanted.
        weights: the file of an encoder whose weights are not known by its name.
        device: torch's name of a device.

    Raises:
        EncoderError: it cannot be loaded.
        EncoderMismatch: what has its name now makes other vectors.
    """
    found: TileEmbedder
    if store.encoder in STATISTIC_FLOORS:
        from histokin.pipeline.floors import STATISTICS  # beside the random networks, hence torch

        found = next(floor for floor in STATISTICS if floor.name == store.encoder)
    else:
        name = run_of(work, store.fingerprint) or store.encoder
        found = choose_encoder(work, tiling, name, weights=weights, device=device)
    if found.fingerprint != store.fingerprint:
        raise EncoderMismatch(
            f"store: {store.encoder} {store.fingerprint[:20]}, loaded by that name: {found.fingerprint[:20]}",
            store.folder,
            "Give the file that made it with --weights, or embed the archive again.",
        )
    return found
