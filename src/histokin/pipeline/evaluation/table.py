"""One aligned table behind every protocol: the same tiles, or the same slides, row by row for encoders and floors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from histokin.embeddings import Embeddings, EmbeddingStore
from histokin.errors import EvaluationError
from histokin.pipeline.evaluation.columns import Columns, columns_of, places_of, unmatched
from histokin.pipeline.evaluation.labels import read_labels
from histokin.pipeline.evaluation.sources import Sources
from histokin.pipeline.gathering import check_current
from histokin.report import StoreCard

Level = Literal["tile", "slide"]
LEVELS: tuple[Level, ...] = ("tile", "slide")
Vectors = NDArray[np.float32]
Bags = list[Vectors]


@dataclass(frozen=True, slots=True)
class Table:
    """All vectors with all that is known of them.

    Attributes:
        tiles: columns of the n tiles of the first encoder.
        slides: columns of its slides.
        features: (n, d) by encoder, tile by tile; of an encoder alone on other tiles only its own.
        floors: members by floor, likewise.
        bags, floor_bags: the same as one matrix a slide, in the order of `slides`; also where tiles differ.
        places: (n, 2) centres of the tiles in um, or None.
        pitch_um: distance of neighbouring tiles, 0 if not known.
        cards: one an encoder.
        sources: where all this lies.
        apart: why tiles cannot be compared one by one, "" where they can.
        rows: of the first encoder.
        notes: what a reader must be told of the whole.
    """

    tiles: Columns
    slides: Columns
    features: dict[str, Vectors]
    floors: dict[str, list[Vectors]]
    bags: dict[str, Bags]
    floor_bags: dict[str, list[Bags]]
    places: NDArray[np.float64] | None
    pitch_um: float
    cards: list[StoreCard]
    sources: Sources
    apart: str
    rows: Embeddings
    notes: list[str] = field(default_factory=list)

    def columns(self, level: Level) -> Columns:
        """Of tiles or slides."""
        return self.tiles if level == "tile" else self.slides


def read_table(sources: Sources, wanted: Sequence[str], beside: Sequence[str] = ()) -> Table:
    """Load every store and join it with what is known of its tiles.

    Args:
        sources: where everything lies.
        wanted: label columns; those that there are are read.
        beside: columns that rows are chosen or left out by, of tiles or slides.

    Raises:
        EvaluationError: the stores share no slide, or the labels name none of them.
        StoreError: a store cannot be read, or is out of date.
    """
    said = read_labels(sources.labels) if sources.labels else None
    for path in (
        *(sources.stores[name] for name in sources.own),
        *(p for paths in sources.floors.values() for p in paths),
    ):
        if sources.tiling:
            check_current(sources.tiling, path)
    loaded = {name: EmbeddingStore(path) for name, path in sources.stores.items()}
    rows = {name: store.load() for name, store in loaded.items()}
    cards = [_card(name, loaded[name], found) for name, found in rows.items()]
    shared, notes = _shared(rows)
    rows = {name: _only(found, shared) for name, found in rows.items()}
    main_name, main = next(iter(rows.items()))
    rows, apart = _aligned_rows(rows, loaded)
    floors = {name: [_only(EmbeddingStore(p).load(), shared) for p in paths] for name, paths in sources.floors.items()}
    own = next((name for name in rows if name in sources.own), "")
    in_order = {n: [_floor_rows(rows[own], floor) for floor in members] for n, members in floors.items()}
    tiles, slides = columns_of(sources, main_name, main, said, wanted, beside)
    notes += unmatched(said, main) if said else []
    if slides.n_unnamed:
        notes.append(
            f"The patient of {slides.n_unnamed} of {len(slides)} slides is not known: only the slide is left out, and "
            "neighbours may share the patient. Not about new patients."
        )
    if not floors:
        notes.append(
            "There are no floors: colour, texture and random weights need the tiles' pixels. Name the workspace of "
            "these slides beside the stores (after histokin tile and histokin embed) to have them."
        )
    places, pitch = places_of(sources, main_name, main, said)
    is_same = not apart and all(floor is not None for members in in_order.values() for floor in members)
    return Table(
        tiles=tiles,
        slides=slides,
        features={name: found.features for name, found in rows.items()} if not apart else {},
        floors={n: [f.features for f in members if f is not None] for n, members in in_order.items()}
        if is_same
        else {},
        bags={name: _bags(found) for name, found in rows.items()},
        floor_bags={name: [_bags(f) for f in members] for name, members in floors.items()},
        places=places,
        pitch_um=pitch,
        cards=cards,
        sources=sources,
        apart=apart,
        rows=main,
        notes=notes,
    )


def known_columns(sources: Sources) -> list[str]:
    """Every column that could be asked for."""
    found = set(read_labels(sources.labels).columns) if sources.labels else set()
    if sources.tiling:
        of_tiles = (c for r in sources.tiling.records[:1] for c in sources.tiling.table(r).label_columns)
        found |= {*of_tiles, *sources.tiling.cohort.label_columns}
    return sorted(found)


def _card(name: str, store: EmbeddingStore, rows: Embeddings) -> StoreCard:
    return StoreCard(
        name=name,
        writer=store.writer,
        n_slides=len(rows.slides),
        n_tiles=len(rows),
        width=rows.features.shape[1],
        dtype=store.dtype,
        fingerprint=store.fingerprint,
    )


def _shared(rows: Mapping[str, Embeddings]) -> tuple[tuple[str, ...], list[str]]:
    """Slides that every store has, and who lacks which."""
    everyone = set.intersection(*(set(found.slides) for found in rows.values()))
    if not everyone:
        raise EvaluationError(
            "the stores share no slide: " + "; ".join(f"{n} has {', '.join(r.slides[:3])}" for n, r in rows.items()),
            "evaluation",
            "Slides are known by their files' names: evaluate stores of the same slides.",
        )
    notes = [
        f"{name}: {len(found.slides) - len(everyone)} of {len(found.slides)} slides are not in every store and left "
        f"out, such as {min(set(found.slides) - everyone)}."
        for name, found in rows.items()
        if len(found.slides) > len(everyone)
    ]
    return tuple(sorted(everyone)), notes


def _only(rows: Embeddings, slides: tuple[str, ...]) -> Embeddings:
    """The rows of some slides, in their order."""
    if rows.slides == slides:
        return rows
    number = {slide: i for i, slide in enumerate(rows.slides)}
    spans = [rows.rows_of(number[slide]) for slide in slides]
    kept = np.concatenate([np.arange(span.start, span.stop) for span in spans])
    counts = [span.stop - span.start for span in spans]
    return Embeddings(
        features=rows.features[kept],
        slide=np.repeat(np.arange(len(slides), dtype=np.int32), counts),
        slides=slides,
        tile_id=rows.tile_id[kept],
        coords=rows.coords[kept],
    )


def _bags(rows: Embeddings) -> Bags:
    return np.split(rows.features, rows.first[1:])


def _aligned_rows(
    rows: Mapping[str, Embeddings], stores: Mapping[str, EmbeddingStore]
) -> tuple[dict[str, Embeddings], str]:
    """Every store's rows in the order of the first one's tiles, and why that cannot be, "" where it can.

    Tiles are told by their places, or by their numbers where both stores are ours and of one tiling. Row numbers of
    other tools say nothing: a store in another order would put every label on a wrong tile.
    """
    (first, main), *others = rows.items()
    found = {first: main}
    differing, unplaced = [], []
    for name, other in others:
        same = _in_order_of(main, other, is_one_tiling=_is_one_tiling(stores[first], stores[name]))
        if same is None:
            (differing if _is_placed(main) and _is_placed(other) else unplaced).append(name)
        found[name] = other if same is None else same
    if differing:
        why = f"{first} and {' and '.join(differing)} hold different tiles of the same slides"
    elif unplaced:
        blind = [name for name in (first, *unplaced) if not _is_placed(rows[name])]
        why = f"it is not known which tile each row of {' and '.join(blind)} is: the files state no places in pixels"
    else:
        return found, ""
    return found, f"{why}. Tiles cannot be compared one by one, slides can."


def _in_order_of(main: Embeddings, other: Embeddings, *, is_one_tiling: bool) -> Embeddings | None:
    """The rows of `other` for the tiles of `main`; None where they are not the same tiles, or cannot be told to be."""
    if len(main) != len(other) or not np.array_equal(main.slide, other.slide):
        return None
    if is_one_tiling:
        return other if np.array_equal(main.tile_id, other.tile_id) else None
    if not (_is_placed(main) and _is_placed(other)):
        return None
    mine, theirs = (np.lexsort((one.coords[:, 1], one.coords[:, 0], one.slide)) for one in (main, other))
    if not np.array_equal(main.coords[mine], other.coords[theirs]):
        return None
    take = np.empty(len(mine), np.int64)
    take[mine] = theirs
    return replace(other, features=other.features[take], tile_id=other.tile_id[take], coords=other.coords[take])


def _floor_rows(own: Embeddings, floor: Embeddings) -> Embeddings | None:
    """A floor's rows in the order of its encoder's, which may have followed another tool's store."""
    return _in_order_of(own, floor, is_one_tiling=True) or _in_order_of(own, floor, is_one_tiling=False)


def _is_placed(rows: Embeddings) -> bool:
    return bool((rows.coords >= 0).all())


def _is_one_tiling(first: EmbeddingStore, other: EmbeddingStore) -> bool:
    return first.writer == other.writer == "histokin" and first.grid_id == other.grid_id
