"""Search from a workspace: which tiles, or slides, of other patients are most like this one."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from histokin.embeddings import ABOUT, EmbeddingStore, short_id
from histokin.errors import StoreError
from histokin.pipeline.choosing import DEFAULT_RUN, run_fingerprint, run_names
from histokin.pipeline.floor_names import STATISTIC_FLOORS, is_floor
from histokin.pipeline.gathering import Gathered, gather, tile_labels
from histokin.search import Archive, Hits, rank_slides, top_k
from histokin.tiles import Tiling
from histokin.workspace import Workspace

Exclude = Literal["patient", "slide", "self"]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: a slide, or one tile of it (`tile` is its number in the tile table)."""

    slide: str
    tile: int | None = None


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


def search(
    work: Workspace,
    tiling: Tiling,
    query: Query,
    *,
    k: int = 10,
    level: Literal["tile", "slide"] = "tile",
    strategy: Literal["mean", "median_min"] = "median_min",
    exclude: Exclude = "patient",
    encoder: str | None = None,
) -> Hits:
    """Rank tiles or slides by likeness to the query.

    A query slide searched for tiles stands for its mean embedding.

    Args:
        work, tiling: the workspace and its tiles.
        query: a slide or one of its tiles.
        k: answers wanted.
        level: tiles or slides are answered; slides with the tile pairs as evidence.
        strategy: of slide search.
        exclude: whose tiles cannot be answers; "self" leaves only the query itself out.
        encoder: whose embeddings.

    Raises:
        CohortError: unknown slide. StoreError: no embeddings, unknown tile.
    """
    gathered = gather(tiling, find_store(work, tiling, encoder), {})
    number = _slide_number(tiling, gathered, query.slide)
    if level == "slide":
        return _search_slides(tiling, gathered, number, k=k, strategy=strategy, exclude=exclude)
    return _search_tiles(tiling, gathered, number, query.tile, k=k, exclude=exclude)


def _slide_number(tiling: Tiling, gathered: Gathered, slide: str) -> int:
    tiling.cohort.record(slide)  # an unknown id is answered with the nearest
    if slide not in gathered.main.slides:
        raise StoreError(f"slide {slide} has no embeddings", slide, "See its state with `histokin info`.")
    return gathered.main.slides.index(slide)


def _search_tiles(
    tiling: Tiling, gathered: Gathered, number: int, tile: int | None, *, k: int, exclude: Exclude
) -> Hits:
    rows = np.arange(len(gathered.main))[gathered.main.rows_of(number)]
    features = gathered.main.features
    if tile is None:
        unit = features[rows] / np.linalg.norm(features[rows], axis=1, keepdims=True)
        query, own = unit.mean(axis=0, keepdims=True), -1
    else:
        found = rows[gathered.main.tile_id[rows] == tile]
        if not len(found):
            raise StoreError(
                f"slide {gathered.main.slides[number]} has no embedded tile {tile}",
                "search",
                f"Its tiles are numbered {gathered.main.tile_id[rows].min()} to {gathered.main.tile_id[rows].max()}.",
            )
        own = int(found[0])
        query = features[own : own + 1]
    groups = _groups(gathered, exclude)
    answers = top_k(
        query,
        features,
        k,
        query_groups=None if groups is None else groups[rows[:1]],
        database_groups=groups,
        query_ids=np.array([own]),
    )
    labels = tile_labels(tiling, gathered.main, "label")
    archive = Archive.of_tiles(gathered.slide, gathered.patient, gathered.main.tile_id, gathered.main.coords, labels)
    return Hits.of(answers, archive, "cosine")


def _search_slides(
    tiling: Tiling,
    gathered: Gathered,
    number: int,
    *,
    k: int,
    strategy: Literal["mean", "median_min"],
    exclude: Exclude,
) -> Hits:
    bags = gathered.bags(gathered.main.features)
    slides = np.array(gathered.main.slides, object)
    first, by_slide = gathered.main.first, tiling.cohort.by_slide
    labels = np.array([" ".join(by_slide[s].labels.values()) for s in gathered.main.slides], object)
    groups = _groups(gathered, exclude)
    return rank_slides(
        [bags[number]],
        bags,
        Archive.of_slides(slides, gathered.patient[first], labels),
        k,
        strategy=strategy,
        query_groups=None if groups is None else groups[first[number : number + 1]],
        database_groups=None if groups is None else groups[first],
        query_ids=np.array([number]),
    )


def _groups(gathered: Gathered, exclude: Exclude) -> np.ndarray | None:
    if exclude == "self":
        return None
    return np.unique(gathered.units[exclude].astype(str), return_inverse=True)[1]
