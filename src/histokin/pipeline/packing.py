"""Fill the tile cache that training reads from, and tell the trainer what is known of each tile."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import Receipt, digest_of
from histokin.cohort import Cohort, leave_out_units
from histokin.errors import RecipeError, SlideError, TrainingError
from histokin.learn.pixels import JoinedPixels, Labels, Places, SomePixels, digest_known, numbered
from histokin.pipeline.gathering import PURE
from histokin.progress import Reporter, silent
from histokin.streams import stream
from histokin.tiles import PackedTiles, TileTable, Tiling, open_tiles, pack_ledger, tile_centres, write_pack
from histokin.workspace import Workspace

if TYPE_CHECKING:
    from histokin.learn import PixelSource, Recipe


@dataclass(frozen=True, slots=True)
class Without:
    """What is kept out of training, so that it can be tested on.

    Attributes:
        unit: what is named.
        names: of these units.
    """

    unit: Literal["slide", "patient", "site"]
    names: frozenset[str]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "Without | None":
        """From `UNIT=NAME,NAME` texts of one unit; None from none.

        Raises:
            RecipeError: another form, or several units.
        """
        if not texts:
            return None
        pairs = [text.partition("=") for text in texts]
        units = {unit for unit, _, _ in pairs}
        unit = units.pop() if len(units) == 1 else ""
        names = frozenset(name.strip() for _, _, names in pairs for name in names.split(",") if name.strip())
        match unit:
            case "slide" | "patient" | "site":
                if names:
                    return cls(unit, names)
            case _:
                pass
        raise RecipeError(
            "what is kept out is named as slide=A,B or patient=A,B or site=A,B", " ".join(texts), "Correct it."
        )


class CohortPixels:
    """A workspace's packed tiles as the trainer wants them; see `learn.PixelSource`.

    Attributes:
        table_rows: (n,) int64 row in its slide's tile table.
        units: (n,) object, whose each tile is: the leave-out unit, as a rule the patient.
        notes: of slides that could not be read.
    """

    def __init__(self, packed: PackedTiles, tiling: Tiling, label: str, notes: tuple[str, ...] = ()) -> None:
        self._packed, self.notes = packed, notes
        self.px, self.field_px, self.mpp = packed.px, packed.field_px, packed.mpp
        self.mpps = self.cohort_mpps = (packed.mpp,)
        self.slides, self.table_rows = packed.slides, packed.table_rows
        self.cohorts = np.zeros(len(packed), np.int64)
        by_name = {record.file_name: record for record in tiling.records}
        units = leave_out_units(tiling.cohort)
        records = [by_name[name] for name in packed.names]
        first = np.searchsorted(packed.slides, np.arange(len(records) + 1))  # a slide's tiles are one slice
        centres, labels, owners = [], [], [np.empty(0, object)]
        for record, start, stop in zip(records, first[:-1], first[1:], strict=True):
            rows, table = packed.table_rows[start:stop], tiling.table(record)
            found = tile_centres(table, tiling.spec, record.mpp or 1.0)
            centres.append(None if found is None else found[rows])
            labels.append(_labels_of(table, rows, label, record.labels.get(label, "")))
            patients = table.numpy("patient")[rows]
            owners.append(np.array([units.of_tile(record.slide, patient) for patient in patients], object))
        self.units = np.concatenate(owners)
        sites = {record.slide: record.site for record in tiling.cohort.records}
        pictures = [units.picture[record.slide] for record in records]
        self._slide_names = np.array([record.slide for record in records], object)
        self._pictures = np.unique(pictures, return_inverse=True)[1]
        self._sites = np.array([sites[picture] for picture in pictures], object)
        contents = contents_of(tiling.cohort)
        self._contents = [contents[record.slide] for record in records]
        known = [each for each in centres if each is not None]
        pitch = np.full(len(packed), tiling.pitch_um)
        self.places = Places(np.concatenate(known), pitch) if len(known) == len(centres) else None
        self.labels = _coded(np.concatenate(labels), self.units) if label else None
        self.digest = digest_of([packed.digest, digest_known(self.places, self.labels)])

    @property
    def slide_names(self) -> NDArray[np.object_]:
        """(n,) object, the id of each tile's slide."""
        return self._slide_names[self.slides]

    @property
    def sites(self) -> NDArray[np.object_]:
        """(n,) object, where each tile's slide was scanned."""
        return self._sites[self.slides]

    @property
    def pictures(self) -> NDArray[np.int64]:
        """(n,) the number of each tile's picture: slides of the same content are one."""
        return self._pictures[self.slides]

    def contents(self, rows: NDArray[np.int64]) -> frozenset[str]:
        """What identifies the slides that some tiles lie on, across workspaces; see `contents_of`."""
        return frozenset().union(*(self._contents[number] for number in np.unique(self.slides[rows])))

    def __len__(self) -> int:
        return len(self._packed)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """(B,) rows to (B, field_px, field_px, 3) uint8."""
        return self._packed.read(rows)

    def close(self) -> None:
        """Close all files."""
        self._packed.close()


def _labels_of(table: TileTable, rows: NDArray[np.int64], column: str, of_slide: str) -> NDArray[np.object_]:
    """The tiles' labels; their slide's where they have none of their own."""
    values = table.labels(column)[rows] if column else np.full(len(rows), "", object)
    if column == "label":
        values = np.where(table.numpy("label_frac")[rows] > PURE, values, "")
    return values if any(values) or not of_slide else np.full(len(rows), of_slide, object)


def _coded(values: NDArray[np.object_], units: NDArray[np.object_]) -> Labels:
    classes = tuple(sorted({str(value) for value in values if value}))
    number = {name: code for code, name in enumerate(classes)}
    codes = np.array([number.get(str(value), -1) for value in values], np.int64)
    return Labels(codes, classes, np.unique(units.astype(str), return_inverse=True)[1].astype(np.int64))


def pack_cohort(
    work: Workspace, tiling: Tiling, report: Reporter = silent, *, field: float = 1.0, label: str = ""
) -> CohortPixels:
    """Pack every slide's tiles; what is packed already is skipped, what cannot be read is left out.

    Args:
        work, tiling: of the cohort.
        report: progress.
        field: side of the region packed for each tile, over the tile's side.
        label: column whose values the pixels carry along, "" for none.

    Raises:
        TrainingError: no tile could be read.
    """
    margin = round((field - 1) / 2 * tiling.spec.tile_px)
    folder = work.cache / "packs" / (tiling.spec.spec_id + (f"-{margin}px-around" if margin else ""))
    ledger = pack_ledger(folder, tiling.spec, margin)
    receipts: list[Receipt] = []
    lost: list[str] = []
    with report("cache", tiling.n_tiles, "tiles") as task:
        for record in tiling.records:
            table_receipt = tiling.receipts[record.slide]
            inputs = {"table": table_receipt.digest}
            receipt = ledger.find(record.file_name, inputs)
            if receipt is None or not (folder / f"{record.file_name}.npy").exists():
                ledger.forget(record.file_name)
                source = open_tiles(tiling.cohort, record, tiling.table(record), tiling.spec, margin_px=margin)
                try:
                    receipt = write_pack(folder, record.file_name, source, tiling.spec, inputs, margin)
                except SlideError as error:  # the embed stage reads it again and gives the slide its state
                    lost.append(f"slide {record.slide} was not trained on: {error.what}")
                    continue
            receipts.append(receipt)
            task.advance(table_receipt.facts["n_kept"])
    ledger.write_manifest([r.key for r in receipts])
    if not any(r.facts["n_tiles"] for r in receipts):
        raise TrainingError("not one tile could be read", work.root, "See the states of `histokin info`.")
    return CohortPixels(PackedTiles(folder, tiling.spec, receipts, margin), tiling, label, tuple(lost))


@dataclass(frozen=True, slots=True)
class TrainingTiles:
    """What is trained on.

    Attributes:
        source: the tiles.
        contents: of the slides that they lie on, see `contents_of`.
        notes: of slides that could not be read.
    """

    source: "PixelSource"
    contents: frozenset[str]
    notes: tuple[str, ...]


def contents_of(cohort: Cohort) -> dict[str, frozenset[str]]:
    """What identifies each slide in any workspace: the key of its content, and the files that its pixels come from.

    The same picture may be a slide here and cut into ready tiles there, under other keys.
    """
    root = cohort.root.resolve()
    found = {record.slide: {record.content_key} - {""} for record in cohort.records}
    for part in cohort.tiles or cohort.records:
        found[part.slide].add(str(root / part.path))
    return {slide: frozenset(names) for slide, names in found.items()}


@contextmanager
def training_pixels(
    places: Sequence[tuple[Workspace, Tiling]],
    recipe: "Recipe",
    report: Reporter = silent,
    *,
    without: Without | None = None,
    at_most: int | None = None,
) -> "Iterator[TrainingTiles]":
    """The tiles of one or several workspaces as one source, open for a block.

    Args:
        places: workspaces with their tilings; several are trained on together.
        recipe: says how wide a field and which label.
        report: progress.
        without: what is kept out.
        at_most: so many tiles, drawn evenly from all; None for all.

    Raises:
        TrainingError: nothing is left, a name in `without` does not occur, or tiles of different size.
    """
    from histokin.learn.distributed import main_first  # brings torch along: only where training is meant

    opened: list[CohortPixels] = []
    try:
        with main_first():
            for work, tiling in places:
                opened.append(pack_cohort(work, tiling, report, field=recipe.views.field, label=recipe.run.label))
        source: PixelSource = opened[0] if len(opened) == 1 else JoinedPixels(opened)
        rows = np.arange(len(source))
        if without is not None:
            column = {"slide": "slide_names", "patient": "units", "site": "sites"}[without.unit]
            names = np.concatenate([getattr(one, column) for one in opened])
            rows = _kept(names, numbered([one.pictures for one in opened]), without)
        if at_most is not None and at_most < len(rows):
            rows = np.sort(stream(recipe.seed, "some tiles").permutation(rows)[:at_most])
        first = np.cumsum([0, *(len(one) for one in opened)])
        parts = [rows[(rows >= a) & (rows < b)] - a for a, b in pairwise(first)]
        yield TrainingTiles(
            source if len(rows) == len(source) else SomePixels(source, rows),
            frozenset().union(*(one.contents(part) for one, part in zip(opened, parts, strict=True))),
            tuple(note for one in opened for note in one.notes),
        )
    finally:
        for one in opened:
            one.close()


def _kept(names: NDArray[np.object_], pictures: NDArray[np.int64], without: Without) -> NDArray[np.int64]:
    """Rows of what is not named, nor on a slide of the same content as what is."""
    known = set(names.tolist())
    unknown = sorted(without.names - known)
    if unknown:
        raise TrainingError(
            f"there is no {without.unit} called {', '.join(unknown[:5])}",
            "pretrain",
            f"There are: {', '.join(sorted(map(str, known))[:20])}.",
        )
    is_named = np.isin(names.astype(str), sorted(without.names))
    rows = np.flatnonzero(~is_named & ~_is_repeated(pictures, is_named, without.unit))
    if not len(rows):
        raise TrainingError(f"no tile is left without these {without.unit}s", "pretrain", "Name fewer of them.")
    return rows.astype(np.int64)


def _is_repeated(pictures: NDArray[np.int64], is_named: NDArray[np.bool_], unit: str) -> NDArray[np.bool_]:
    """Rows on slides of the same content as one that is kept out."""
    if unit == "patient":  # patients who share a picture are one unit already
        return np.zeros(len(pictures), bool)
    return np.isin(pictures, np.unique(pictures[is_named]))
