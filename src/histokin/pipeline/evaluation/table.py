"""One aligned table behind every protocol: the same tiles, or the same slides, row by row for encoders and floors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import UNNAMED
from histokin.embeddings import Embeddings, EmbeddingStore
from histokin.errors import EvaluationError
from histokin.pipeline.evaluation.labels import LabelTable, Texts, read_labels
from histokin.pipeline.evaluation.sources import Sources
from histokin.pipeline.gathering import check_current, tile_labels, tile_places, tile_units
from histokin.report import StoreCard
from histokin.tiles import Tiling

Level = Literal["tile", "slide"]
LEVELS: tuple[Level, ...] = ("tile", "slide")
Vectors = NDArray[np.float32]
Bags = list[Vectors]


@dataclass(frozen=True, slots=True)
class Columns:
    """What is known of the rows of one level.

    Attributes:
        slide: the slide each is, or lies on, as the user calls it.
        patient, picture, site: what is left out with each; slides of one content count as one picture.
        labels: by column, texts; "" where unlabelled.
    """

    slide: Texts
    patient: Texts
    picture: Texts
    site: Texts
    labels: dict[str, Texts]

    def __len__(self) -> int:
        return len(self.slide)

    def units(self, leave_out: str) -> Texts:
        """What is left out together."""
        return {"patient": self.patient, "slide": self.picture, "site": self.site}[leave_out]

    @property
    def n_unnamed(self) -> int:
        """Rows whose patient is not known: their slide stands in."""
        return sum(str(unit).startswith(UNNAMED) for unit in self.patient)


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


def read_table(sources: Sources, wanted: Sequence[str]) -> Table:
    """Load every store and join it with what is known of its tiles.

    Args:
        sources: where everything lies.
        wanted: label columns; those that there are are read.

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
    apart = _apart(rows)
    floors = {name: [_only(EmbeddingStore(p).load(), shared) for p in paths] for name, paths in sources.floors.items()}
    own = next((name for name in rows if name in sources.own), "")
    tiles, slides = _columns(sources, main_name, main, said, wanted)
    notes += _unmatched(said, main) if said else []
    if slides.n_unnamed:
        notes.append(
            f"The patient of {slides.n_unnamed} of {len(slides)} slides is not known: only the slide is left out, and "
            "neighbours may share the patient. Not about new patients."
        )
    if not floors:
        notes.append(
            "There are no floors: colour, texture and random weights need the tiles' pixels. Name the workspace of "
            "these slides beside the stores (after `histokin tile` and `histokin embed`) to have them."
        )
    places, pitch = _places(sources, main_name, main, said)
    is_same = not apart and (not floors or _same_tiles(main, rows[own]))
    return Table(
        tiles=tiles,
        slides=slides,
        features={name: found.features for name, found in rows.items()} if not apart else {},
        floors={name: [f.features for f in members] for name, members in floors.items()} if is_same else {},
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


# ---- stores


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
        f"{len(found.slides) - len(everyone)} slides of {name} are in no other store and are left out."
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


def _same_tiles(first: Embeddings, other: Embeddings) -> bool:
    """Whether two stores hold the same tiles: by place where both know it, else by number."""
    if len(first) != len(other) or not np.array_equal(first.slide, other.slide):
        return False
    if (first.coords >= 0).all() and (other.coords >= 0).all():
        return np.array_equal(first.coords, other.coords)
    return np.array_equal(first.tile_id, other.tile_id)


def _apart(rows: Mapping[str, Embeddings]) -> str:
    (first, main), *others = rows.items()
    differing = [name for name, found in others if not _same_tiles(main, found)]
    if not differing:
        return ""
    return (
        f"{first} and {' and '.join(differing)} hold different tiles of the same slides: tiles cannot be compared one "
        "by one, slides can. Embed the same tiles with each encoder to compare tiles."
    )


# ---- what is known of the rows


def _columns(
    sources: Sources, name: str, rows: Embeddings, said: LabelTable | None, wanted: Sequence[str]
) -> tuple[Columns, Columns]:
    slide = np.array(rows.slides, object)[rows.slide]
    of_slides, of_tiles = _cohort_units(sources, name, rows)
    for unit, has in (("patient", said and said.has_patient), ("site", said and said.has_site)):
        if said and has:
            given = np.array(said.of_slides(unit, rows.slides), object)
            given = given if unit == "site" else _named_patients(given, rows.slides)
            of_slides[unit] = given
            own = said.of_tiles(unit, slide, rows.tile_id, rows.coords)
            of_tiles[unit] = np.where(own.astype(bool), own, given[rows.slide])
    tiles = Columns(slide, labels=_tile_labels(sources, name, rows, slide, said, wanted), **of_tiles)
    slides = Columns(np.array(rows.slides, object), labels=_slide_labels(sources, rows, said, wanted), **of_slides)
    return tiles, slides


def _named_patients(patients: Texts, slides: Sequence[str]) -> Texts:
    return np.array([p or UNNAMED + s for p, s in zip(patients, slides, strict=True)], object)


def _cohort_units(sources: Sources, name: str, rows: Embeddings) -> tuple[dict[str, Texts], dict[str, Texts]]:
    """Patient, picture and site of slides and of tiles, as far as the workspace knows them."""
    slides = np.array(rows.slides, object)
    if sources.tiling is None:
        nobody = _named_patients(np.full(len(slides), "", object), rows.slides)
        units = {"patient": nobody, "picture": slides, "site": np.full(len(slides), "", object)}
        return units, {word: column[rows.slide] for word, column in units.items()}
    if name in sources.own:
        units = tile_units(sources.tiling, rows)
        return {word: column[rows.first] for word, column in units.items()}, units
    return _foreign_units(sources.tiling, rows)


def _foreign_units(tiling: Tiling, rows: Embeddings) -> tuple[dict[str, Texts], dict[str, Texts]]:
    """The cohort's units for another tool's tiles: those of their slides."""
    from histokin.cohort import leave_out_units

    units = leave_out_units(tiling.cohort)
    known = tiling.cohort.by_slide
    missing = [slide for slide in rows.slides if slide not in known]
    if missing:
        raise EvaluationError(
            f"the workspace does not know {len(missing)} slides, such as {missing[0]}",
            "evaluation",
            "Slides are known by their files' names; give a table with --labels instead of the workspace.",
        )
    picture = [units.picture[slide] for slide in rows.slides]
    found = {
        "patient": np.array([units.of_slide[slide] for slide in rows.slides], object),
        "picture": np.array(picture, object),
        "site": np.array([known[slide].site for slide in picture], object),
    }
    return found, {word: column[rows.slide] for word, column in found.items()}


def _tile_labels(
    sources: Sources, name: str, rows: Embeddings, slide: Texts, said: LabelTable | None, wanted: Sequence[str]
) -> dict[str, Texts]:
    found: dict[str, Texts] = {}
    for column in wanted:
        if said and said.by != "slide" and column in said.columns:
            found[column] = said.of_tiles(column, slide, rows.tile_id, rows.coords)
        elif sources.tiling and name in sources.own:
            texts = tile_labels(sources.tiling, rows, column)
            if any(texts):
                found[column] = texts
    return found


def _slide_labels(
    sources: Sources, rows: Embeddings, said: LabelTable | None, wanted: Sequence[str]
) -> dict[str, Texts]:
    records = sources.tiling.cohort.by_slide if sources.tiling else {}
    found: dict[str, Texts] = {}
    for column in wanted:
        if said and column in said.columns:
            texts = said.of_slides(column, rows.slides)
        else:
            texts = [records[s].labels.get(column, "") if s in records else "" for s in rows.slides]
        if any(texts):
            found[column] = np.array(texts, object)
    return found


def _unmatched(said: LabelTable, rows: Embeddings) -> list[str]:
    held, named = set(rows.slides), said.slides
    if not held & named:
        raise EvaluationError(
            f"none of its slides is embedded: it names {', '.join(sorted(named)[:3])}, the stores hold "
            f"{', '.join(sorted(held)[:3])}",
            said.path,
            "Call the slides as their files are called.",
        )
    notes = []
    if named - held:
        notes.append(f"{len(named - held)} slides of {said.path.name} are not embedded, such as {min(named - held)}.")
    if held - named:
        notes.append(f"{len(held - named)} embedded slides are not in {said.path.name}, such as {min(held - named)}.")
    if said.by != "slide":
        slide = np.array(rows.slides, object)[rows.slide].tolist()
        numbers = rows.tile_id[:, None].tolist() if said.by == "tile_id" else rows.coords.tolist()
        keys = {(s, number[0], number[1] if len(number) > 1 else -1) for s, number in zip(slide, numbers, strict=True)}
        n_found = len(keys & said.rows.keys())
        if not n_found:
            word = "tile_id" if said.by == "tile_id" else "x, y (top-left corner, level-0 px)"
            raise EvaluationError(
                f"none of its {len(said.rows)} rows is an embedded tile, told by slide and {word}",
                said.path,
                "Compare its numbers with `coords` (or the rows' order) in the store's files.",
            )
        if n_found < len(said.rows):
            notes.append(f"{len(said.rows) - n_found} rows of {said.path.name} are no embedded tile.")
    return notes


def _places(
    sources: Sources, name: str, rows: Embeddings, said: LabelTable | None
) -> tuple[NDArray[np.float64] | None, float]:
    """Where tiles lie in um and how far neighbours are apart; None where places or the slides' mpp are not known."""
    if sources.tiling and name in sources.own:
        return tile_places(sources.tiling, rows), sources.tiling.pitch_um
    if (rows.coords < 0).any():
        return None, 0.0
    if sources.tiling:
        known = sources.tiling.cohort.by_slide
        mpp = np.array([known[slide].mpp or np.nan for slide in rows.slides])
    elif said:
        texts = said.of_slides("mpp", rows.slides)
        mpp = np.array([_positive(text) for text in texts])
    else:
        return None, 0.0
    if not np.isfinite(mpp).all():
        return None, 0.0
    found = rows.coords.astype(np.float64) * mpp[rows.slide][:, None]  # corners: distances are those of centres
    first, second = neighbours(rows.slide, found)
    pitch = np.median(np.linalg.norm(found[first] - found[second], axis=1)) if len(first) else 0.0
    return found, float(pitch)


def neighbours(slide: NDArray[np.int32], places: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each tile and the nearest other tile of its slide; slides of one tile have none.

    Args:
        slide: (n,) number of each tile's slide.
        places: (n, 2).

    Returns:
        (m,) rows, and (m,) the rows nearest to them.
    """
    from scipy.spatial import KDTree

    first, second = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for number in np.unique(slide):
        own = np.flatnonzero(slide == number)
        if len(own) > 1:
            nearest = np.asarray(KDTree(places[own]).query(places[own], k=2)[1])
            first.append(own)
            second.append(own[nearest[:, 1]])
    return np.concatenate(first), np.concatenate(second)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return np.nan
    return number if number > 0 else np.nan
