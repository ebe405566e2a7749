"""The tile stage: tissue, picture and tile table for every slide; a failure becomes the slide's state."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from histokin.artefacts import Ledger, Receipt, digest_file
from histokin.cohort import Cohort, SlideRecord, TileRow
from histokin.cohort.inventory import state_of
from histokin.errors import CohortError, SlideError
from histokin.progress import Reporter, silent
from histokin.slides import open_slide
from histokin.tiles.planning import ClassMap, plan_given, plan_tiles
from histokin.tiles.reading import MIN_REST
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
    def pitch_um(self) -> float:
        """Step between neighbouring tiles; ready tiles are taken to lie side by side."""
        return self.spec.tile_um if self.spec.is_given else self.spec.step_px * self.spec.mpp

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
    *,
    keep_states: bool = True,
) -> Tiling:
    """Find tissue and lay tiles on every usable slide; what is done already is skipped.

    Args:
        work, cohort, spec: of what, and how.
        tissue_spec: how tissue is found.
        report: progress.
        keep_states: write the states found on the way into the workspace; not for a tiling beside the one in use,
            at whose scale a small slide may have no tile.

    Returns:
        The tiling; its cohort has the states found on the way (no_tissue, unreadable).

    Raises:
        NoUsableSlide: nothing is left to work on.
    """
    cohort.require_usable()
    stage = _Stage(work, cohort, spec, tissue_spec or TissueSpec())
    receipts, changed, done, notes = {}, [], [], [*cohort.notes, *_coarse(cohort, spec)]
    with report("tiles", len(cohort.usable), "slides") as task:
        for record in cohort.usable:
            try:
                receipt = stage.run(record)
            except SlideError as error:
                changed.append(record.with_state(state_of(error), f"{error.what}. {error.remedy}"))
            else:
                done.append(record.file_name)
                if receipt.reason and receipt.status == "done":
                    notes.append(f"{record.slide}: {receipt.reason}")
                if receipt.status == "empty":
                    changed.append(record.with_state("no_tissue", receipt.reason))
                else:
                    receipts[record.slide] = receipt
            task.advance(note=record.slide)
    cohort = replace(cohort.updated(changed), notes=tuple(dict.fromkeys(notes)))
    if keep_states:
        cohort.save(work.cohort)
    stage.ledger.write_manifest(done)
    cohort.require_usable()
    return Tiling(cohort, spec, stage.ledger.folder, receipts)


def _coarse(cohort: Cohort, spec: TileSpec) -> list[str]:
    """Enlarged tiles look like others and hold less: said once, in the cohort's notes."""
    if cohort.kind == "tiles":
        return []  # taken as they are
    n = sum(r.mpp is not None and spec.mpp / r.mpp < MIN_REST for r in cohort.usable)
    return [f"{n} slides are coarser than the tiles asked for ({spec}): their tiles are enlarged"] if n else []


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
            "class_map": [digest_file(p) for p in (map_path, _names_path(map_path)) if p.exists()] if map_path else [],
            "given": self._given.get(record.slide, []),
        }
        found = self.ledger.find(record.file_name, inputs)
        if found is not None and self._has_pictures(record):
            return found
        self.ledger.forget(record.file_name)
        if self._cohort.kind == "tiles":
            reasons = self._check_pictures(record)
            table = plan_given(record, self._given[record.slide], self._spec, reasons)
            reason = _count(reasons)
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

    def _has_pictures(self, record: SlideRecord) -> bool:
        """Whether mask and outlined thumbnail are there too; tile sets have neither."""
        mask = mask_ledger(self._work.masks, self._tissue_spec)
        files = (self._work.masks / f"{record.file_name}.png", self._work.thumbnails / f"{record.file_name}.jpg")
        is_whole = mask.read(record.file_name) is not None and all(path.exists() for path in files)
        return self._cohort.kind == "tiles" or is_whole

    def _check_pictures(self, record: SlideRecord) -> list[str]:
        """Why a given tile cannot be used, "" if it can: found here, not in the middle of training."""
        sizes: dict[str, tuple[int, int] | SlideError] = {}
        reasons = []
        for tile in self._given[record.slide]:
            if tile.path not in sizes:
                try:
                    with open_slide(self._cohort.root / tile.path) as picture:
                        sizes[tile.path] = picture.info.width, picture.info.height
                except SlideError as error:
                    sizes[tile.path] = error
            size = sizes[tile.path]
            if isinstance(size, SlideError):
                reasons.append(state_of(size))
            else:
                is_inside = tile.size == 0 or (min(tile.x, tile.y) >= 0 and _fits(tile, size))
                reasons.append("" if is_inside else "outside")
        errors = [size for size in sizes.values() if isinstance(size, SlideError)]
        if len(errors) == len(sizes):
            raise errors[0]
        return reasons

    def _plan(self, record: SlideRecord, map_path: Path | None) -> tuple[TileTable, str]:
        ledger = mask_ledger(self._work.masks, self._tissue_spec)
        inputs = {"content": record.content_key, "mpp": record.mpp}
        with open_slide(self._cohort.path_of(record), record.given_mpp) as slide:
            receipt = ledger.find(record.file_name, inputs)
            if receipt is not None and (self._work.thumbnails / f"{record.file_name}.jpg").exists():
                tissue = read_tissue(self._work.masks, receipt, self._tissue_spec)
            else:
                ledger.forget(record.file_name)
                tissue, _ = write_tissue(
                    self._work.masks, self._work.thumbnails, record, slide, spec=self._tissue_spec, inputs=inputs
                )
            info = slide.info
        class_map, reason = _class_map_or_reason(map_path)
        table = plan_tiles(record, info, tissue, self._spec, class_map)
        reason = tissue.reason or reason
        if not tissue.reason and len(table.kept) == 0:
            reason = f"{tissue.area_mm2:.2f} mm² of tissue, but no tile of {self._spec} is covered by it"
        return table, reason


def _class_map_or_reason(path: Path | None) -> tuple[ClassMap | None, str]:
    """The class map, or why the slide's tiles have no labels: one bad map does not stop the cohort."""
    if path is None:
        return None, ""
    try:
        return read_class_map(path), ""
    except CohortError as error:
        return None, f"its tiles have no labels: {error.what}. {error.remedy}"


def _fits(tile: TileRow, size: tuple[int, int]) -> bool:
    return tile.x + tile.size <= size[0] and tile.y + tile.size <= size[1]


def _count(reasons: list[str]) -> str:
    """How many of the given tiles are left out, by reason; "" if none is."""
    counts = Counter(reason for reason in reasons if reason)
    words = ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))
    return f"{counts.total()} of {len(reasons)} tiles are left out ({words})" if words else ""


def _by_slide(tiles: Iterable[TileRow]) -> dict[str, list[TileRow]]:
    groups: dict[str, list[TileRow]] = {}
    for tile in tiles:
        groups.setdefault(tile.slide, []).append(tile)
    return groups


def _names_path(class_map: Path) -> Path:
    return class_map.parent / "classes.json"


def read_class_map(path: Path) -> ClassMap:
    """Read a class map: an 8-bit PNG that covers the slide, with `classes.json` (number -> name) in its folder.

    Raises:
        CohortError: either file is missing or cannot be read.
    """
    names_path = _names_path(path)
    if not path.exists() or not names_path.exists():
        raise CohortError("the class map or its classes.json is not there", path, "Correct the class_map column.")
    values = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    if values is None:
        raise CohortError("the class map cannot be decoded", path, "Give an 8-bit PNG.")
    try:
        names = {int(number): str(name) for number, name in json.loads(names_path.read_text(encoding="utf-8")).items()}
    except (ValueError, AttributeError) as error:
        raise CohortError(
            f"this is no mapping of numbers to names ({error})", names_path, 'Write {"1": "tumour", ...}.'
        ) from error
    return ClassMap(np.asarray(values, np.uint8), names)
