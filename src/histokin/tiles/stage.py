"""The tile stage: tissue, picture and tile table for every slide; a failure becomes the slide's state."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from histokin.artefacts import Ledger, Receipt, digest_file
from histokin.cohort import Cohort, SlideRecord, TileRow
from histokin.errors import CohortError, SlideError
from histokin.progress import Reporter, silent
from histokin.slides import open_slide
from histokin.tiles.planning import ClassMap, plan_given, plan_tiles
from histokin.tiles.spec import TileSpec
from histokin.tiles.table import TileTable
from histokin.tissue import TissueSpec, mask_ledger, read_tissue, write_tissue
from histokin.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tile tables of a cohort.

    Attributes:
        cohort: with the states that tiling found.
        spec: how it was tiled.
        folder: where the tables lie.
        receipts: of the slides that have tiles, by slide id.
    """

    cohort: Cohort
    spec: TileSpec
    folder: Path
    receipts: dict[str, Receipt]

    def table(self, record: SlideRecord) -> TileTable:
        """One slide's table."""
        return TileTable.read(self.folder / f"{record.file_name}.parquet")

    @property
    def n_tiles(self) -> int:
        """Kept tiles of all usable slides."""
        return sum(r.facts["n_kept"] for r in self.receipts.values())

    @property
    def records(self) -> tuple[SlideRecord, ...]:
        """The slides that have tiles, in order."""
        return tuple(r for r in self.cohort.usable if r.slide in self.receipts)


def tile_cohort(
    work: Workspace,
    cohort: Cohort,
    spec: TileSpec,
    tissue_spec: TissueSpec | None = None,
    report: Reporter = silent,
) -> Tiling:
    """Find tissue and lay tiles on every usable slide; what is done already is skipped.

    Returns:
        The tiling; its cohort has the states found on the way (no_tissue, unreadable), and is what the workspace holds.

    Raises:
        NoUsableSlide: nothing is left to work on.
    """
    cohort.require_usable()
    stage = _Stage(work, cohort, spec, tissue_spec or TissueSpec())
    receipts, changed = {}, []
    with report("tiles", len(cohort.usable), "slides") as task:
        for record in cohort.usable:
            try:
                receipt = stage.run(record)
            except SlideError as error:
                changed.append(record.with_state("unreadable", f"{error.what}. {error.remedy}"))
            else:
                if receipt.status == "empty":
                    changed.append(record.with_state("no_tissue", receipt.reason))
                else:
                    receipts[record.slide] = receipt
            task.advance(note=record.slide)
    cohort = cohort.updated(changed)
    cohort.save(work.cohort)
    stage.ledger.write_manifest([record.file_name for record in cohort.records])
    cohort.require_usable()
    return Tiling(cohort, spec, stage.ledger.folder, receipts)


def find_tiling(work: Workspace, cohort: Cohort, spec: TileSpec) -> Tiling:
    """The tiling that the workspace holds already."""
    ledger = tile_ledger(work, spec)
    receipts = {r.slide: receipt for r in cohort.usable if (receipt := ledger.read(r.file_name)) is not None}
    return Tiling(cohort, spec, ledger.folder, receipts)


def tile_ledger(work: Workspace, spec: TileSpec) -> Ledger:
    """The ledger of all tables of one tiling."""
    return Ledger(work.tiles(spec.spec_id), "tiles", spec)


class _Stage:
    def __init__(self, work: Workspace, cohort: Cohort, spec: TileSpec, tissue_spec: TissueSpec) -> None:
        self._work, self._cohort, self._spec, self._tissue_spec = work, cohort, spec, tissue_spec
        self.ledger = tile_ledger(work, spec)
        self._given = _by_slide(cohort.tiles)

    def run(self, record: SlideRecord) -> Receipt:
        map_path = self._cohort.root / record.class_map if record.class_map else None
        inputs = {
            "record": {"content": record.content_key, "mpp": record.mpp, "patient": record.patient},
            "tissue": self._tissue_spec,
            "class_map": digest_file(map_path) if map_path and map_path.exists() else "",
            "given": self._given.get(record.slide, []),
        }
        found = self.ledger.find(record.file_name, inputs)
        if found is not None:
            return found
        if self._cohort.kind == "tiles":
            self._check_pictures(record)
            table, reason = plan_given(record, self._given[record.slide], self._spec), ""
        else:
            table, reason = self._plan(record, map_path)
        path = self.ledger.folder / f"{record.file_name}.parquet"
        table.write(path)
        n_kept = len(table.kept)
        return self.ledger.commit(
            record.file_name,
            inputs,
            path,
            status="done" if n_kept else "empty",
            reason=reason,
            n_kept=n_kept,
            n_rows=len(table),
        )

    def _check_pictures(self, record: SlideRecord) -> None:
        """A picture that cannot be decoded is found here, not in the middle of training."""
        for path in sorted({tile.path for tile in self._given[record.slide]}):
            open_slide(self._cohort.root / path).close()

    def _plan(self, record: SlideRecord, map_path: Path | None) -> tuple[TileTable, str]:
        ledger = mask_ledger(self._work.masks, self._tissue_spec)
        inputs = {"content": record.content_key, "mpp": record.mpp}
        with open_slide(self._cohort.path_of(record), record.given_mpp) as slide:
            receipt = ledger.find(record.file_name, inputs)
            if receipt is not None and (self._work.thumbnails / f"{record.file_name}.jpg").exists():
                tissue = read_tissue(self._work.masks, receipt, self._tissue_spec)
            else:
                tissue, _ = write_tissue(
                    self._work.masks, self._work.thumbnails, record, slide, spec=self._tissue_spec, inputs=inputs
                )
            class_map = read_class_map(map_path) if map_path else None
            table = plan_tiles(record, slide.info, tissue, self._spec, class_map)
        reason = tissue.reason
        if not reason and len(table.kept) == 0:
            reason = f"{tissue.area_mm2:.2f} mm² of tissue, but no tile of {self._spec} is covered by it"
        return table, reason


def _by_slide(tiles: Iterable[TileRow]) -> dict[str, list[TileRow]]:
    groups: dict[str, list[TileRow]] = {}
    for tile in tiles:
        groups.setdefault(tile.slide, []).append(tile)
    return groups


def read_class_map(path: Path) -> ClassMap:
    """Read a class map: an 8-bit PNG that covers the slide, with `classes.json` (number -> name) in its folder.

    Raises:
        CohortError: either file is missing or cannot be read.
    """
    names_path = path.parent / "classes.json"
    if not path.exists() or not names_path.exists():
        raise CohortError("the class map or its classes.json is not there", path, "Correct the class_map column.")
    values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    if values is None:
        raise CohortError("the class map cannot be decoded", path, "Give an 8-bit PNG.")
    names = {int(number): name for number, name in json.loads(names_path.read_text(encoding="utf-8")).items()}
    return ClassMap(np.asarray(values, np.uint8), names)
