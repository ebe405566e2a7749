"""Which embedding store of a workspace is meant, and which floors lie beside it."""

import json
from pathlib import Path

from histokin.embeddings import ABOUT, EmbeddingStore, short_id
from histokin.errors import StoreError
from histokin.pipeline.choosing import DEFAULT_RUN, run_fingerprint, run_names
from histokin.pipeline.floor_names import STATISTIC_FLOORS, is_floor
from histokin.tiles import Tiling
from histokin.workspace import Workspace


def find_store(work: Workspace, tiling: Tiling, encoder: str | None = None) -> Path:
    """The store of an encoder's embeddings, by its name or its folder's; no network is loaded.

    Without a name it is that of the run `main`, else the only one.

    Raises:
        StoreError: none, or several that could be meant; they are named.
    """
    folder = _stores_folder(work, tiling)
    stores = {path: EmbeddingStore(path).encoder for path in _finished_stores(folder)}
    run = encoder or DEFAULT_RUN
    if run in run_names(work):
        path = folder / short_id(run_fingerprint(work, run))
        if path in stores:
            return path
        raise StoreError(f"the tiles are not embedded by run {run}", folder, f"Run `histokin embed {work.root}`.")
    real = {path for path, name in stores.items() if not is_floor(name)}
    wanted = [p for p, name in stores.items() if encoder in (name, p.name) or (encoder is None and p in real)]
    if len(wanted) == 1:
        return wanted[0]
    known = ", ".join(sorted(stores.values())) or "none"
    raise StoreError(
        f"{len(wanted)} embedding stores could be meant (there are: {known})",
        folder,
        "Embed first, or name an --encoder.",
    )


def has_stores(work: Workspace, tiling: Tiling) -> bool:
    """Whether anything is embedded, finished or not."""
    return any(_stores_folder(work, tiling).glob("*/*.h5"))


def _stores_folder(work: Workspace, tiling: Tiling) -> Path:
    return work.root / "embeddings" / tiling.spec.spec_id


def _finished_stores(folder: Path) -> list[Path]:
    """Stores with a manifest: without one the embed stage was interrupted."""
    return sorted(path.parent for path in folder.glob("*/manifest.json"))


def find_floors(store: Path) -> dict[str, list[Path]]:
    """The floors' stores that lie beside an encoder's, by floor; `random` holds that encoder's own three twins."""
    twin = json.loads((store / ABOUT).read_text(encoding="utf-8"))["twin"]
    found: dict[str, list[Path]] = {}
    beside = {EmbeddingStore(path).encoder: path for path in _finished_stores(store.parent)}
    for other, path in sorted(beside.items()):  # by name: the seeds of `random` in their order
        if other in STATISTIC_FLOORS:
            found[other] = [path]
        elif is_floor(other) and other.startswith(f"random-{twin}-"):
            found.setdefault("random", []).append(path)
    return {floor: found[floor] for floor in (*STATISTIC_FLOORS, "random") if floor in found}
