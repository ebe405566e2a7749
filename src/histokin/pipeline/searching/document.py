"""The document of a search: who answered, with labels, evidence and pictures, and what could not answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from histokin.artefacts import versions
from histokin.cohort import UNNAMED
from histokin.pipeline.indexing.archive import PICTURE, SOURCE
from histokin.pipeline.indexing.check import Checked
from histokin.pipeline.pictures import pictures_by_id, slide_thumbnail, tile_jpeg
from histokin.pipeline.searching.answering import Answered, Found, Met, Wish
from histokin.pipeline.searching.archive import Archive, Place
from histokin.pipeline.searching.cutouts import IMAGE_PX, PAIR_PX, context_of, cut_out, cutout, file_of
from histokin.pipeline.searching.questions import Asked, tile_side
from histokin.report import SlideCard
from histokin.report.search.document import (
    Agreement,
    Answer,
    Cutout,
    LeftOut,
    NoveltyTest,
    Pair,
    Query,
    SearchDocument,
    Searched,
)
from histokin.search.region import Box
from histokin.search.tables import EVERYTHING, TILE_LABEL, Where, allowed_labels

PAIRS = 4
"""Pairs pictured an answer; the others count in the heat on the query."""
SLIDE_PX = 480
"""Longer side of a slide's picture, on which places are marked."""


@dataclass(frozen=True, slots=True)
class _Pictures:
    """What was drawn.

    Attributes:
        places: by slide ("" the query's own file), pictures by box and size.
        tiles: by slide and tile number, of tiles that have no place, or lie in no file of their own.
        query: by row of the query's bag.
    """

    places: Mapping[str, dict[tuple[Box, int], bytes]]
    tiles: Mapping[tuple[str, int], bytes]
    query: Mapping[int, bytes]


def search_document(
    asked: Asked,
    answered: Answered,
    place: Place,
    archive: Archive,
    wish: Wish,
    command: str,
    *,
    is_pictured: bool = True,
) -> SearchDocument:
    """Everything that page, GeoJSON, JSON and terminal say of a search.

    Args:
        asked, answered, place, archive, wish: the search.
        command: that repeats it.
        is_pictured: False leaves all pictures out.
    """
    writer = _Writer(asked, answered, place, archive, wish, is_pictured=is_pictured)
    checked = Checked.of(archive.version)
    answers = writer.answers(checked)
    columns = writer.label_columns()
    by_patient = [Agreement.of(answers, column) for column in columns]
    return SearchDocument(
        title=f"{asked.name} elsewhere",
        command=command,
        query=writer.query(),
        searched=writer.searched(checked),
        level=answered.level,
        answers=answers,
        slides=writer.cards(),
        by_patient=[found for found in by_patient if found.counts],
        test=writer.test(checked),
        warnings=writer.warnings(checked),
        notes=[*asked.notes, *answered.notes, *archive.notes],
        created_with=versions(),
    )


class _Writer:
    """One search on its way into a document."""

    def __init__(
        self, asked: Asked, answered: Answered, place: Place, archive: Archive, wish: Wish, *, is_pictured: bool
    ) -> None:
        self.asked, self.answered, self.place, self.archive, self.wish = asked, answered, place, archive, wish
        self.table = archive.searcher.slides
        self.is_pictured = is_pictured and place.tiling is not None
        self.pictures = self._draw() if self.is_pictured else _Pictures({}, {}, {})

    # ---- who answered

    def answers(self, checked: Checked) -> list[Answer]:
        """The answers by rank."""
        found = []
        for rank, one in enumerate(self.answered.found, 1):
            slide = self._slide(one)
            box = Box(*one.box) if one.box else None
            evidence = [self._pair(one, met, number < PAIRS) for number, met in enumerate(one.evidence)]
            if not evidence and one.tile >= 0:
                evidence = self._single(one)
            found.append(
                Answer(
                    rank=rank,
                    score=one.score,
                    slide=slide,
                    patient=self._patient(one.slide),
                    labels=self._labels(one),
                    box=box,
                    percentile=checked.percentile(one.score) if self.answered.level == "tile" else None,
                    p=checked.p_value(self._calibrated_as(), one.score),
                    image=self._image(slide, one, box),
                    context=self._at(slide, context_of(box), IMAGE_PX) if box else None,
                    evidence=[pair for pair in evidence if pair is not None],
                    tile=one.tile if one.tile >= 0 else None,
                )
            )
        return found

    def _pair(self, one: Found, met: Met, pictured: bool) -> Pair | None:
        query, answer = self._query_box(met.row), self._box_at(self._slide(one), met.place)
        if query is None or answer is None:
            return None
        left, right = Cutout(query), Cutout(answer)
        if pictured and self.is_pictured:
            left = Cutout(query, self.pictures.query.get(met.row))
            right = self._at(self._slide(one), answer, PAIR_PX) or right
        return Pair(left, right, met.score, met.share)

    def _single(self, one: Found) -> list[Pair | None]:
        """A tile's evidence is itself, where one tile asked."""
        query, answer = self._query_box(0), Box(*one.box) if one.box else None
        if len(self.asked.bag) != 1 or query is None or answer is None:
            return []
        right = self._at(self._slide(one), answer, PAIR_PX) or Cutout(answer)
        return [Pair(Cutout(query, self.pictures.query.get(0)), right, one.score, 1.0)]

    def label_columns(self) -> list[str]:
        """The wished column first, then the others that label slides."""
        others = [name for name in self.table.columns if name not in (SOURCE, PICTURE)]
        tiles = [TILE_LABEL] if any(one.label for one in self.answered.found) else []
        first = [self.wish.label] if self.wish.label else []
        return list(dict.fromkeys([*first, *tiles, *sorted(others, key=lambda name: (name == "site", name))]))

    def _labels(self, one: Found) -> dict[str, str]:
        return self._labels_of(one.slide) | ({TILE_LABEL: one.label} if one.label else {})

    def _labels_of(self, number: int) -> dict[str, str]:
        """What is known of a slide."""
        known = {name: str(column[number]) for name, column in self.table.columns.items()}
        return {name: text for name, text in known.items() if text and name not in (SOURCE, PICTURE)}

    # ---- what was asked

    def query(self) -> Query:
        """What was asked."""
        asked, slide = self.asked, self.asked.question.slide
        image, context = None, None
        if self.is_pictured:
            if asked.box is not None:
                image = self._own(asked.box, IMAGE_PX)
                context = Cutout(context_of(asked.box), self._own(context_of(asked.box), IMAGE_PX))
                context = context if context.image and asked.kind != "picture" else None
            elif asked.kind == "tile":
                image = self.pictures.query.get(0)
            else:
                image = self._thumbnail(slide) if slide else self._own(self._whole(), SLIDE_PX)
        record = self._record(slide)
        return Query(
            kind=asked.kind,
            name=asked.name,
            n_tiles=asked.n_tiles,
            n_asked=len(asked.bag),
            slide=slide,
            patient=_named(asked.patient),
            box=asked.box,
            mpp=asked.question.mpp or (record.mpp if record else None),
            labels=self._labels_of(self.table.number(slide)) if slide else {},
            image=image,
            context=context,
        )

    # ---- what could answer

    def searched(self, checked: Checked) -> Searched:
        """What could answer, and what was left out."""
        where, table = self.answered.where, self.table
        allowed = table.allowed(where)
        made, version = self.archive.searcher.made, self.archive.version
        sites = table.columns.get("site")
        patients = {_named(str(p)) for p in table.patient[allowed]} - {""}
        is_exact = self.wish.exact or version is None or version.manifest.nprobe["tiles"] >= len(version.list_sizes())
        return Searched(
            n_tiles=self._n_tiles(where) - self.answered.n_own,
            n_slides=int(allowed.sum()),
            n_patients=len(patients),
            n_sites=len({s for s in sites[allowed] if s}) if sites is not None else 0,
            encoder=made.encoder,
            fingerprint=made.fingerprint,
            mpp=made.mpp,
            tile_px=made.tile_px,
            how="exact" if is_exact else "index",
            strategy=self.answered.strategy,
            nprobe=None if is_exact or version is None else version.manifest.nprobe["tiles"],
            recall=None if is_exact else checked.recall,
            keep={name: list(values) for name, values in where.keep},
            left_out=self._left_out(where),
            version=f"version {version.manifest.number}" if version else "",
        )

    def _left_out(self, where: Where) -> list[LeftOut]:
        found = []
        for name, values in where.leave_out:
            only_this = Where.of(leave_out={name: values})
            out = ~self.table.allowed(only_this)
            own = {"patient": self.asked.patient, PICTURE: self.asked.picture, "slide": self.asked.question.slide}
            is_slide = name == PICTURE or (name == "patient" and not any(map(_named, values)))
            word = "slide" if is_slide else name
            shown = ", ".join(value.removeprefix(UNNAMED) for value in values)
            whose = ", whose the query is" if own.get(name) in values else ""
            n_tiles = len(self.archive.searcher) - self._n_tiles(only_this)
            found.append(LeftOut(f"{word} {shown}{whose}", int(out.sum()), n_tiles))
        if self.answered.n_own:
            found.append(LeftOut("the query itself", 0, self.answered.n_own))
        return found

    def _n_tiles(self, where: Where) -> int:
        """Tiles that a filter allows."""
        if self.archive.version is not None:
            return int(self.archive.version.list_sizes(where).sum())
        numbers, headers = np.flatnonzero(self.table.allowed(where)), self.archive.source.headers
        if where.of_tiles() == EVERYTHING:
            return sum(headers[name][1].shape[0] for name in self.table.slide[numbers].tolist())
        return sum(int(allowed_labels(self.archive.searcher.bag(n).label, where).sum()) for n in numbers.tolist())

    # ---- whether it can be believed

    def test(self, checked: Checked) -> NoveltyTest | None:
        """Whether the archive holds anything like the query."""
        kind = self._calibrated_as()
        calibration = checked.no_match(kind) if kind else None
        if calibration is None:
            return None
        best = max((one.score for one in self.answered.found), default=None)
        if best is None:
            return None  # nothing answered, of which nothing can be said
        verdict = calibration.judge(best)
        return NoveltyTest(
            calibration.alpha, verdict.n_patients, best, verdict.threshold, verdict.p_value, verdict.basis
        )

    def _calibrated_as(self) -> str:
        """The kind of search whose calibration speaks of these scores, "" if none does."""
        asked, answered = self.asked.kind, self.answered
        if self.wish.pins or self.wish.rejects:
            return ""
        if answered.level == "tile":
            return "tile" if len(self.asked.bag) == 1 else ""
        return "slide" if answered.level == "slide" and asked == "slide" and answered.strategy == "maxsim" else ""

    def warnings(self, checked: Checked) -> list[str]:
        """What makes the answers doubtful."""
        said = []
        if self.wish.leave_out != "patient" and self.asked.patient:
            own = "Only the query's slide" if self.wish.leave_out == "slide" else "Only the query itself"
            out = own if self.asked.question.slide else "Nothing"
            said.append(f"{out} was left out: answers may be of the same patient.")
        if not self.asked.patient and not self.asked.question.slide:
            said.append("Whose the query is was not said: where its patient is in the archive, it answers itself.")
        if self.asked.patient and not self.asked.question.slide and self.asked.patient not in self.table.patient:
            said.append(
                f"The archive knows no patient {self.asked.patient.removeprefix(UNNAMED)}: nobody was left out."
            )
        if not self.answered.found:
            said.append("Nothing could answer: look at what the filters leave.")
        if self.archive.version is not None and checked.is_missing:
            said.append("This index was never checked: run `histokin index check`.")
        elif checked.is_stale(self.table.patient):
            said.append("More than a tenth of the patients changed since the index was checked: check it again.")
        slide = self.asked.question.slide
        calibration = checked.no_match(self._calibrated_as())
        if calibration is not None and slide:
            known = self._labels_of(self.table.number(slide))
            said += [f"{text[0].upper()}{text[1:]}." for text in calibration.strangers(known)]
        return said

    # ---- pictures

    def cards(self) -> dict[str, SlideCard]:
        """The slides of answers and query, with a picture on which places can be marked."""
        names = {self._slide(one) for one in self.answered.found} | {self.asked.question.slide} - {""}
        found = {}
        for name in sorted(names - {""}):
            record = self._record(name)
            number = self.table.number(name)
            found[name] = SlideCard(
                slide=name,
                patient=self._patient(number),
                state=record.state if record else "ok",
                labels=self._labels_of(number),
                mpp=record.mpp if record else None,
                width=record.width if record else 0,
                height=record.height if record else 0,
                thumbnail=self._thumbnail(name),
            )
        return found

    def _draw(self) -> _Pictures:
        """Everything that is shown, each file opened once."""
        tiling = self.place.tiling
        assert tiling is not None
        boxes: dict[str, list[tuple[Box, int]]] = {}
        tiles: set[tuple[str, int]] = set()
        for one in self.answered.found:
            slide = self._slide(one)
            own = boxes.setdefault(slide, [])
            if one.box:
                own += [(Box(*one.box), IMAGE_PX), (Box(*one.box), PAIR_PX), (context_of(Box(*one.box)), IMAGE_PX)]
            elif one.tile >= 0:
                tiles.add((slide, one.tile))
            for met in one.evidence[:PAIRS]:
                box = self._box_at(slide, met.place)
                if box is not None:
                    own.append((box, PAIR_PX))
        places = {}
        for slide, wanted in boxes.items():
            file = file_of(tiling, slide)
            places[slide] = cut_out(*file, wanted) if file else {}
        return _Pictures(places, pictures_by_id(tiling, sorted(tiles), IMAGE_PX), self._draw_query(places))

    def _draw_query(self, places: dict[str, dict[tuple[Box, int], bytes]]) -> dict[int, bytes]:
        """Pictures of the query's tiles by row; those of its box go to `places` under ""."""
        asked, tiling = self.asked, self.place.tiling
        rows = sorted({met.row for one in self.answered.found for met in one.evidence[:PAIRS]} | {0})
        own = {row: box for row in rows if (box := self._query_box(row)) is not None}
        file = (asked.file, asked.given_mpp) if asked.file else None
        if file is None and asked.question.slide and tiling is not None:
            file = file_of(tiling, asked.question.slide)
        if file is not None:
            whole = [(asked.box, IMAGE_PX), (context_of(asked.box), IMAGE_PX)] if asked.box else []
            if asked.kind == "slide" and not asked.question.slide:
                whole = [(self._whole(), SLIDE_PX)]
            places[""] = cut_out(*file, [*whole, *((box, PAIR_PX) for box in own.values())])
        if asked.pixels:
            return {row: tile_jpeg(asked.pixels[row], PAIR_PX) for row in rows}
        if file is not None:
            return {row: image for row, box in own.items() if (image := places[""].get((box, PAIR_PX)))}
        if not asked.question.slide or tiling is None:
            return {}
        found = pictures_by_id(tiling, [(asked.question.slide, int(asked.bag.tile[row])) for row in rows], PAIR_PX)
        return {row: found[key] for row in rows if (key := (asked.question.slide, int(asked.bag.tile[row]))) in found}

    def _image(self, slide: str, one: Found, box: Box | None) -> bytes | None:
        if box is not None:
            return self.pictures.places.get(slide, {}).get((box, IMAGE_PX))
        if one.tile >= 0:
            return self.pictures.tiles.get((slide, one.tile))
        return self._thumbnail(slide)

    def _at(self, slide: str, box: Box, px: int) -> Cutout | None:
        found = cutout(box, self.pictures.places.get(slide, {}), px)
        return found if found.image else None

    def _own(self, box: Box, px: int) -> bytes | None:
        return self.pictures.places.get("", {}).get((box, px))

    def _whole(self) -> Box:
        """All of a slide from outside."""
        from histokin.slides import open_slide

        assert self.asked.file is not None
        with open_slide(self.asked.file, self.asked.given_mpp) as slide:
            return Box(0, 0, slide.info.width, slide.info.height)

    def _thumbnail(self, slide: str) -> bytes | None:
        record = self._record(slide)
        if not self.is_pictured or record is None or self.place.work is None or self.place.tiling is None:
            return None
        return slide_thumbnail(self.place.work, self.place.tiling, record, SLIDE_PX)

    def _query_box(self, row: int) -> Box | None:
        x, y = self.asked.bag.coords[row].tolist()
        if self.asked.side is None or (self.asked.question.slide and x < 0):
            return None
        return Box(x, y, *self.asked.side)

    def _box_at(self, slide: str, place: Sequence[int]) -> Box | None:
        side = tile_side(self.place.tiling, slide)
        return Box(place[0], place[1], *side) if side and place[0] >= 0 else None

    def _slide(self, one: Found) -> str:
        return str(self.table.slide[one.slide])

    def _patient(self, number: int) -> str:
        return _named(str(self.table.patient[number]))

    def _record(self, slide: str):  # noqa: ANN202
        return self.place.tiling.cohort.by_slide.get(slide) if self.place.tiling and slide else None


def _named(patient: str) -> str:
    """A patient's name, "" where a slide stands for one that is not known."""
    return "" if patient.startswith(UNNAMED) else patient
