"""What is asked for, and the tiles that it asks with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import SlideRecord
from histokin.errors import NoResolution, SearchError
from histokin.pipeline.indexing.archive import PICTURE
from histokin.pipeline.searching.archive import Archive, Place
from histokin.pipeline.searching.embedder import embedder_of
from histokin.pipeline.searching.outside import Cut, cut_picture, cut_places, embed_cut, embed_slide_outside
from histokin.progress import Reporter, silent
from histokin.search.region import Box, condense, plan_region
from histokin.search.slide_search import QueryBag
from histokin.search.stored import StoredSlide
from histokin.search.tables import SlideEntry, SlideTiles
from histokin.slides import content_key, open_slide
from histokin.tiles import Tiling
from histokin.tiles.grid import CoverageMap
from histokin.tissue import TissueSpec, mask_ledger, read_tissue
from histokin.workspace import Workspace

Kind = Literal["tile", "region", "picture", "slide"]


@dataclass(frozen=True, slots=True)
class Question:
    """What a person asks for: a tile, a box or the whole of a slide of the archive, or a file from outside.

    Attributes:
        slide: id of a slide of the archive, "" for a file.
        tile: one of its tiles, by number.
        at_um: a place on it, (x, y) in um from its corner: the tile there is meant.
        box_um: a box on it, (x, y, width, height) in um.
        file: a picture, or with `is_slide` a slide that is not in the archive.
        is_slide: see `file`.
        mpp: level-0 pixel size of the file, where it states none.
        patient: whose the file is, so that what the archive has of them is left out.
        weights: of an encoder whose weights are not known by its name.
        device: that embeds what is asked from outside.
    """

    slide: str = ""
    tile: int | None = None
    at_um: tuple[float, float] | None = None
    box_um: tuple[float, float, float, float] | None = None
    file: Path | None = None
    is_slide: bool = False
    mpp: float | None = None
    patient: str = ""
    weights: Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if bool(self.slide) == (self.file is not None):
            raise SearchError("ask with a slide of the archive or with a file", "search", "Name one of them.")
        if self.slide and (self.patient or self.mpp is not None or self.weights is not None):
            raise SearchError(
                "patient, mpp and weights are of a file; the archive knows its own slides",
                "search",
                "Leave them out, or ask with the file.",
            )
        places = [value for value in (self.tile, self.at_um, self.box_um) if value is not None]
        if len(places) > 1 or (places and self.file is not None):
            raise SearchError(
                "a tile, a place and a box are three ways to name one thing on a slide of the archive",
                "search",
                "Give one of them; cut the region out of a file before asking with it.",
            )


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as tiles.

    Attributes:
        question: as it was asked.
        kind: tile, region, picture or slide.
        name: for people.
        bag: the tiles that ask.
        n_tiles: that it is made of, before a few were chosen to stand for all.
        patient: whose it is, "" if unknown.
        picture: id that the slide's content counts as in the archive, "" from outside.
        box: its place in level-0 px; None for a whole slide.
        side: (width, height) of a tile in level-0 px; None where that is not known.
        file: the slide's or picture's file; None where there is none, as for other tools' embeddings.
        given_mpp: of that file.
        pixels: by row of the bag, the tiles that were cut for the question; empty where the archive has them.
        notes: what a reader must know.
    """

    question: Question
    kind: Kind
    name: str
    bag: QueryBag
    n_tiles: int
    patient: str = ""
    picture: str = ""
    box: Box | None = None
    side: tuple[float, float] | None = None
    file: Path | None = None
    given_mpp: float | None = None
    pixels: Sequence[NDArray[np.uint8]] = ()
    notes: tuple[str, ...] = ()


def resolve(question: Question, place: Place, archive: Archive, report: Reporter = silent) -> Asked:
    """Find or make the tiles that a question asks with.

    Raises:
        SearchError: no such slide or tile, no tissue there, or a file where nothing can be embedded.
        EncoderError, EncoderMismatch: what made the archive's vectors cannot be loaded.
        SlideError: the file cannot be used.
    """
    if question.file is None:
        return _inside(question, place, archive)
    if question.is_slide:
        return _slide_outside(question, question.file, place, report)
    return _picture(question, question.file, place)


def _inside(question: Question, place: Place, archive: Archive) -> Asked:
    slides = archive.searcher.slides
    number = slides.number(question.slide)
    tiles = archive.searcher.bag(number)
    record = place.tiling.cohort.by_slide.get(question.slide) if place.tiling else None
    is_file = place.tiling is not None and record is not None and place.tiling.cohort.kind == "slides"
    make = partial(
        Asked,
        question,
        patient=str(slides.patient[number]),
        picture=str(slides.columns.get(PICTURE, slides.slide)[number]),
        side=tile_side(place.tiling, question.slide),
        file=place.tiling.cohort.path_of(record) if is_file else None,  # pyright: ignore[reportOptionalMemberAccess,reportArgumentType]
        given_mpp=record.given_mpp if record else None,
    )
    if question.box_um is not None:
        return _region(question, question.box_um, place, tiles, make)
    if question.tile is None and question.at_um is None:
        bag = QueryBag.of(tiles, place.source.mosaic)
        return make(kind="slide", name=question.slide, bag=bag, n_tiles=len(tiles))
    side = tile_side(place.tiling, question.slide)
    row = _row_at(question, question.at_um, tiles, side, place) if question.at_um else _row_of(question, tiles)
    bag = QueryBag(tiles.vectors[[row]], np.ones(1), tiles.tile[[row]], tiles.coords[[row]])
    x, y = tiles.coords[row].tolist()
    box = Box(x, y, *side) if side is not None and x >= 0 else None
    return make(kind="tile", name=f"tile {tiles.tile[row]} of {question.slide}", bag=bag, n_tiles=1, box=box)


def _row_of(question: Question, tiles: SlideTiles) -> int:
    found = np.flatnonzero(tiles.tile == question.tile)
    if not len(found):
        raise SearchError(
            f"slide {question.slide} has no embedded tile {question.tile}",
            "search",
            f"Its tiles are numbered {tiles.tile.min()} to {tiles.tile.max()}.",
        )
    return int(found[0])


def _row_at(
    question: Question, at_um: tuple[float, float], tiles: SlideTiles, side: tuple[float, float] | None, place: Place
) -> int:
    """The tile whose middle is nearest to a place, among those that hold it."""
    if side is None or (tiles.coords < 0).all():
        raise SearchError("its tiles have no positions", question.slide, "Name the tile by its number.")
    offset = np.array(at_um) / _mpp_of(place, question.slide) - tiles.coords
    inside = np.flatnonzero(((offset >= 0) & (offset < side)).all(axis=1) & (tiles.coords >= 0).all(axis=1))
    if not len(inside):
        raise SearchError(
            f"there is no embedded tile at {at_um[0]:g}, {at_um[1]:g} um",
            question.slide,
            "Look where its tissue is, or ask with a box.",
        )
    away = np.abs(offset[inside] - np.asarray(side) / 2).max(axis=1)
    return int(inside[np.lexsort((tiles.tile[inside], away))[0]])


def _region(
    question: Question,
    box_um: tuple[float, float, float, float],
    place: Place,
    tiles: SlideTiles,
    make: Callable[..., Asked],
) -> Asked:
    side, tiling = tile_side(place.tiling, question.slide), place.tiling
    if side is None or tiling is None:
        raise SearchError(
            "for a box the size of tiles on the slide must be known",
            question.slide,
            "Ask with a tile or the whole slide, or embed the slides with histokin.",
        )
    box = Box.of_um(*box_um, _mpp_of(place, question.slide))
    record = tiling.cohort.by_slide[question.slide]
    if box.x >= record.width or box.y >= record.height or box.x + box.w <= 0 or box.y + box.h <= 0:
        width, height = (side * _mpp_of(place, question.slide) for side in (record.width, record.height))
        raise SearchError(
            "the box lies outside the slide", question.slide, f"It is {width:.0f} x {height:.0f} um large."
        )
    tissue = tiling.table(record).numpy("tissue")[tiles.tile]
    plan = plan_region(box, tiles.tile, tiles.coords, side, tissue=tissue, slide_size=(record.width, record.height))
    name = f"{box_um[2]:g} x {box_um[3]:g} um of {question.slide}"
    if plan.cut is None:
        rows = np.searchsorted(tiles.tile, plan.tile)
        chosen, weights = condense(tiles.vectors[rows], plan.weight, plan.tile)
        bag = QueryBag(tiles.vectors[rows[chosen]], weights, plan.tile[chosen], tiles.coords[rows[chosen]])
        return make(kind="region", name=name, bag=bag, n_tiles=len(rows), box=box)
    if tiling.cohort.kind != "slides":
        raise SearchError(
            "the box holds no whole tile, and ready tiles cannot be cut anew", question.slide, "Draw it larger."
        )
    with open_slide(tiling.cohort.path_of(record), record.given_mpp) as slide:
        cut = cut_places(slide, tiling.spec, np.array([[plan.cut.x, plan.cut.y]]))
    if _tissue_share(place, record, plan.cut) < tiling.spec.min_tissue:
        raise SearchError("there is no tissue to ask with in the box", question.slide, "Draw it on tissue.")
    note = "The box holds no whole tile: one was cut at its centre."
    bag = _embedded(question, place, cut)
    return make(kind="region", name=name, bag=bag, n_tiles=1, box=box, pixels=list(cut.pixels), notes=(note,))


def _tissue_share(place: Place, record: SlideRecord, box: Box) -> float:
    """Share of a box that the slide's mask calls tissue; 1 where there is no mask."""
    if place.work is None:
        return 1.0
    spec = TissueSpec()
    receipt = mask_ledger(place.work.masks, spec).read(record.file_name)
    if receipt is None or not receipt.file:
        return 1.0
    mask = read_tissue(place.work.masks, receipt, spec).mask
    scale = np.array([mask.shape[1] / record.width, mask.shape[0] / record.height])
    first, last = np.array([box.x, box.y]) * scale, np.array([box.x + box.w, box.y + box.h]) * scale
    corners = (np.array([value]) for value in (*first, *last))
    return float(CoverageMap(mask).share(*corners)[0])


def _picture(question: Question, path: Path, place: Place) -> Asked:
    spec = _for_outside(place)[1].spec
    with open_slide(path, question.mpp) as picture:
        cut = cut_picture(picture, spec)
        size = picture.info.width, picture.info.height
    whole = _embedded(question, place, cut)
    chosen, weights = condense(whole.vectors, whole.weights, whole.tile)
    return Asked(
        question,
        kind="picture",
        name=path.name,
        bag=QueryBag(whole.vectors[chosen], weights, whole.tile[chosen], whole.coords[chosen]),
        n_tiles=len(whole),
        patient=_patient(question, place),
        box=Box(0, 0, *size),
        side=cut.side,
        file=path,
        given_mpp=question.mpp,
        pixels=[cut.pixels[row] for row in chosen],
        notes=("The picture is smaller than a tile: its mirror image continues it.",) if (cut.xy < -1).any() else (),
    )


def _slide_outside(question: Question, path: Path, place: Place, report: Reporter) -> Asked:
    work, tiling = _for_outside(place)
    embedder = embedder_of(work, tiling, place.source.store, weights=question.weights, device=question.device)
    store, own = embed_slide_outside(work, tiling.spec, embedder, path, mpp=question.mpp, report=report)
    found = next(iter(store.slides()))
    # As the archive would keep it, so that it asks as it would from within.
    twin = _slide_of_content(path, question, place)
    entry = SlideEntry(path.name, question.patient, found.features, found.tile_id, found.coords)
    kept = StoredSlide.of(entry, place.source.made)
    tiles = SlideTiles(kept.vectors.astype(np.float32), kept.tile, kept.coords, kept.label)
    return Asked(
        question,
        kind="slide",
        name=path.name,
        bag=QueryBag.of(tiles, place.source.mosaic),
        n_tiles=len(tiles),
        patient=place.source.known[twin].patient if twin else _patient(question, place),
        picture=place.source.known[twin].columns[PICTURE] if twin else "",
        side=tile_side(own, own.cohort.usable[0].slide),
        file=path,
        given_mpp=question.mpp,
        notes=(f"The archive holds this slide as {twin}, whose patient is left out.",) if twin else (),
    )


def _patient(question: Question, place: Place) -> str:
    """Whose a file is, as the archive calls them."""
    return place.source.counts_as.get(question.patient, question.patient)


def _slide_of_content(path: Path, question: Question, place: Place) -> str:
    """The archive's slide of the same content as a file, "" if there is none."""
    if place.tiling is None:
        return ""
    with open_slide(path, question.mpp) as slide:
        key = content_key(path, slide.info)
    held = (record.slide for record in place.tiling.cohort.usable if record.content_key == key)
    return next((slide for slide in held if slide in place.source.known), "")


def _embedded(question: Question, place: Place, cut: Cut) -> QueryBag:
    """Tiles that were cut, as a query in which all count alike."""
    work, tiling = _for_outside(place)
    embedder = embedder_of(work, tiling, place.source.store, weights=question.weights, device=question.device)
    vectors = embed_cut(embedder, cut)
    n = len(vectors)
    return QueryBag(vectors, np.full(n, 1 / n), np.arange(n), np.rint(cut.xy).astype(np.int64))


def _for_outside(place: Place) -> tuple[Workspace, Tiling]:
    if place.work is None or place.tiling is None:
        raise SearchError(
            "how another tool cut and embedded its tiles is not known, so nothing new can be embedded like them",
            place.source.store.folder,
            "Ask with a slide of the archive, or embed it with histokin.",
        )
    return place.work, place.tiling


def tile_side(tiling: Tiling | None, slide: str) -> tuple[float, float] | None:
    """(width, height) of a tile in level-0 px of a slide; None where it is not known, or tiles have no place."""
    record = tiling.cohort.by_slide.get(slide) if tiling else None
    if tiling is None or record is None or not record.mpp:
        return None
    if tiling.spec.is_given:
        side = float(tiling.table(record).numpy("w0")[0])
        return (side, side) if side > 0 else None
    side = tiling.spec.tile_um / record.mpp
    return side, side


def _mpp_of(place: Place, slide: str) -> float:
    """Level-0 pixel size of a slide of the archive."""
    record = place.tiling.cohort.by_slide.get(slide) if place.tiling else None
    if record is None or not record.mpp:
        raise NoResolution("its pixel size is not known", slide, "Name a tile by its number.")
    return record.mpp
