"""Search from a workspace: which tiles, or slides, of other patients are most like this one."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from histokin.errors import StoreError
from histokin.pipeline.gathering import Gathered, gather, tile_labels
from histokin.pipeline.stores import find_store
from histokin.search import Archive, Hits, rank_slides, top_k
from histokin.tiles import Tiling
from histokin.workspace import Workspace

Exclude = Literal["patient", "slide", "self"]


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked: a slide, or one tile of it (`tile` is its number in the tile table)."""

    slide: str
    tile: int | None = None


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
