"""What is known of the rows: patients, pictures, sites, regions, labels and places, from the workspace or a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import UNNAMED, leave_out_units
from histokin.embeddings import Embeddings
from histokin.errors import EvaluationError
from histokin.evaluate.items import region_units
from histokin.pipeline.evaluation.labels import LabelTable, Texts
from histokin.pipeline.evaluation.sources import Sources
from histokin.pipeline.gathering import tile_labels, tile_places, tile_units
from histokin.tiles import Tiling


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


def columns_of(
    sources: Sources,
    name: str,
    rows: Embeddings,
    said: LabelTable | None,
    wanted: Sequence[str],
    beside: Sequence[str],
) -> tuple[Columns, Columns]:
    """Columns of the tiles of one store, and of its slides.

    Args:
        sources: where everything lies.
        name: of the store among the sources.
        rows: its tiles.
        said: the user's table, which goes before what the workspace knows.
        wanted: label columns; those that there are are read.
        beside: further columns, which conditions speak of.

    Raises:
        EvaluationError: the workspace does not know a slide, or the table names patients of some of a slide's tiles.
    """
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


def unmatched(said: LabelTable, rows: Embeddings) -> list[str]:
    """Sentences on slides and tiles that only the table, or only the store, has.

    Raises:
        EvaluationError: they have none in common.
    """
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


def places_of(
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
