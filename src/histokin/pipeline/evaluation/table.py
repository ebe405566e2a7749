"""One aligned table behind every protocol: the same tiles, or the same slides, row by row for encoders and floors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import UNNAMED
from histokin.embeddings import Embeddings, EmbeddingStore
from histokin.errors import EvaluationError
from histokin.evaluate.items import region_units
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
        region: the part of the slide that each tile was cut out of, "" where unknown; read only if it is left out.
        beside: by column, further texts that rows are chosen by.
    """

    slide: Texts
    patient: Texts
    picture: Texts
    site: Texts
    labels: dict[str, Texts]
    region: Texts
    beside: dict[str, Texts]

    def __len__(self) -> int:
        return len(self.slide)

    def units(self, leave_out: str) -> Texts:
        """What is left out together."""
        if leave_out == "region":
            return region_units(self.picture, self.region)
        return {"patient": self.patient, "slide": self.picture, "site": self.site}[leave_out]

    def meets(self, condition: str) -> NDArray[np.bool_]:
        """(n,) whether each row has the value that COLUMN=VALUE names."""
        column, _, value = condition.partition("=")
        return np.array([text == value for text in self.beside[column]], dtype=bool)

    @property
    def n_unnamed(self) -> int:
        """Rows whose patient is not known: their slide stands in."""
        return sum(str(unit).startswith(UNNAMED) for unit in self.patient)

    def patients(self, rows: NDArray[Any] | slice = slice(None)) -> dict[str, int]:
        """Patients who are named among some rows, and slides that stand in for unknown ones."""
        units = {str(unit) for unit in self.patient[rows]}
        unknown = sum(unit.startswith(UNNAMED) for unit in units)
        return {"patients": len(units) - unknown} | ({"slides of unknown patients": unknown} if unknown else {})


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
    tiles, slides = _columns(sources, main_name, main, said, wanted, beside)
    notes += _unmatched(said, main) if said else []
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
    places, pitch = _places(sources, main_name, main, said)
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


# ---- what is known of the rows


def _columns(
    sources: Sources,
    name: str,
    rows: Embeddings,
    said: LabelTable | None,
    wanted: Sequence[str],
    beside: Sequence[str],
) -> tuple[Columns, Columns]:
    slide = np.array(rows.slides, object)[rows.slide]
    of_slides, of_tiles = _cohort_units(sources, name, rows)
    for unit, has in (("patient", said and said.has_patient), ("site", said and said.has_site)):
        if said and has:
            of_slides[unit], of_tiles[unit] = _given_units(said, unit, rows)
    if said and said.has_patient:
        _join_pictures(of_slides, of_tiles)
    names = np.array(rows.slides, object)
    units = {unit: (of_tiles[unit], of_slides[unit]) for unit in ("patient", "site")} | {"slide": (slide, names)}
    found = {column: units.get(column) or _texts_beside(sources, name, rows, said, column) for column in beside}
    blank = np.full(len(rows), "", object)
    tiles = Columns(
        slide,
        labels=_tile_labels(sources, name, rows, slide, said, wanted),
        region=found["region"][0] if "region" in found else blank,
        beside={column: texts for column, (texts, _) in found.items()},
        **of_tiles,
    )
    slides = Columns(
        names,
        labels=_slide_labels(sources, rows, said, wanted),
        region=blank[: len(names)],
        beside={column: texts for column, (_, texts) in found.items()},
        **of_slides,
    )
    return tiles, slides


def _given_units(said: LabelTable, unit: str, rows: Embeddings) -> tuple[Texts, Texts]:
    """The patients (sites) of slides and of tiles as the user's table has them.

    A slide whose rows name one is of that one, also where cells are empty: else its tiles would pass as strangers to
    each other. Where they name several (a tissue microarray) every tile must say its own.

    Raises:
        EvaluationError: it does not.
    """
    slide = np.array(rows.slides, object)[rows.slide]
    named = said.units_of(unit, rows.slides)
    alone = np.array([next(iter(names)) if len(names) == 1 else "" for names in named], object)
    alone = alone if unit == "site" else _named_patients(alone, rows.slides)
    own = said.of_tiles(unit, slide, rows.tile_id, rows.coords)
    is_shared = np.array([len(names) > 1 for names in named])[rows.slide]
    if (missing := is_shared & (own == "")).any():
        raise EvaluationError(
            f"{int(missing.sum())} tiles of {slide[missing][0]} name no {unit}, while others of that slide name "
            "different ones",
            said.path,
            f"Fill the {unit} of every tile of the slide.",
        )
    of_tiles = np.where(is_shared, own, alone[rows.slide])
    return of_tiles[rows.first], of_tiles


def _join_pictures(of_slides: dict[str, Texts], of_tiles: dict[str, Texts]) -> None:
    """Patients of the user's table who own slides of one picture under different names count as one."""
    counts_as: dict[str, str] = {}

    def root(name: str) -> str:
        while name in counts_as:
            name = counts_as[name]
        return name

    owners: dict[str, set[str]] = {}
    for picture, patient in zip(of_tiles["picture"], of_tiles["patient"], strict=True):
        owners.setdefault(picture, set()).add(patient)
    slides_of: dict[str, int] = {}
    for picture in of_slides["picture"]:
        slides_of[picture] = slides_of.get(picture, 0) + 1
    for picture, names in owners.items():
        if slides_of.get(picture, 0) > 1:
            first, *others = sorted({root(name) for name in names})
            counts_as.update(dict.fromkeys(others, first))
    for columns in (of_slides, of_tiles):
        columns["patient"] = np.array([root(name) for name in columns["patient"]], object)


def _texts_beside(
    sources: Sources, name: str, rows: Embeddings, said: LabelTable | None, column: str
) -> tuple[Texts, Texts]:
    """A column for tiles and for slides, "" where unknown: the user's, else the tiles' own, else the slides'.

    What a slide has its tiles have; of its tiles a slide has what all of them share.
    """
    slide = np.array(rows.slides, object)[rows.slide]
    if said and column in said.columns:
        of_slides = np.array(said.of_slides(column, rows.slides), object)
        return said.of_tiles(column, slide, rows.tile_id, rows.coords), of_slides
    if sources.tiling and name in sources.own:
        of_tiles = tile_labels(sources.tiling, rows, column)
        if any(of_tiles):
            shared = [set(of_tiles[rows.rows_of(number)].tolist()) for number in range(len(rows.slides))]
            return of_tiles, np.array([next(iter(texts)) if len(texts) == 1 else "" for texts in shared], object)
    records = sources.tiling.cohort.by_slide if sources.tiling else {}
    texts = [records[s].labels.get(column, "") if s in records else "" for s in rows.slides]
    of_slides = np.array(texts, object)
    return of_slides[rows.slide], of_slides


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
        notes.append(f"{said.path.name}: {len(named - held)} of its slides not embedded, such as {min(named - held)}.")
    if held - named:
        notes.append(f"{said.path.name}: {len(held - named)} embedded slides not in it, such as {min(held - named)}.")
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
