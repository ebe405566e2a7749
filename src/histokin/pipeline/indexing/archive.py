"""What an archive is made of: an embedding store, and what is known of its slides."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import digest_of
from histokin.cohort import UNNAMED, TileRow, leave_out_units
from histokin.embeddings import EmbeddingStore, SlideEmbeddings
from histokin.embeddings.file import SlideHeader
from histokin.errors import SearchError
from histokin.pipeline.evaluation.labels import Key, LabelTable
from histokin.pipeline.gathering import pure_labels
from histokin.search.mosaics import MosaicSpec, choose_mosaic
from histokin.search.tables import TILE_LABEL, Made, SlideEntry
from histokin.tiles import Tiling

SOURCE, PICTURE = "made from", "content of"
"""Columns of an archive's slides that are no labels: the digest of what a slide's rows were made from, and the id that
its content counts as. Tables of labels have single words."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one slide besides its vectors.

    Attributes:
        patient: what is left out with it; a slide whose patient is not known stands for one.
        columns: site, labels and the columns of this module.
    """

    patient: str
    columns: dict[str, str]


@dataclass(frozen=True)
class ArchiveSource:
    """A store with its slides' patients and labels.

    Attributes:
        store: the embeddings.
        tiling: the workspace's tiles; None for embeddings of other tools.
        labels: the user's table, if one is given; it goes before the cohort's.
        mosaic: which tiles stand for a slide.
    """

    store: EmbeddingStore
    tiling: Tiling | None = None
    labels: LabelTable | None = None
    mosaic: MosaicSpec = field(default_factory=MosaicSpec)

    @cached_property
    def headers(self) -> dict[str, tuple[Path, SlideHeader]]:
        """File and header of every slide that has tiles."""
        return self.store.headers()

    @cached_property
    def known(self) -> dict[str, Known]:
        """What is known of each slide, by its id."""
        said = self._said_by_table() if self.labels else {}
        from_cohort = self._said_by_cohort()
        digests = self.store.digests()
        found: dict[str, Known] = {}
        for slide in self.headers:
            patient, columns = from_cohort.get(slide, (UNNAMED + slide, {PICTURE: slide}))
            own_patient, own = said.get(slide, ("", {}))
            found[slide] = Known(own_patient or patient, columns | own)
            if TILE_LABEL in found[slide].columns:
                raise SearchError(
                    f"a column of slides is called {TILE_LABEL}, which filters call the labels of tiles",
                    self.labels.path if self.labels else self.store.folder,
                    "Name the column otherwise.",
                )
        for slide, known in _one_patient_a_picture(found).items():
            made_from = digest_of([digests[self.headers[slide][0]], known, self.mosaic, self._table_digest(slide)])
            found[slide] = Known(known.patient, known.columns | {SOURCE: made_from})
        return found

    @cached_property
    def counts_as(self) -> dict[str, str]:
        """What a patient named by the user is called in the archive: patients who share a picture count as one."""
        named: dict[str, str] = {}
        cohort = {record.slide: record.patient for record in self.tiling.cohort.usable} if self.tiling else {}
        said = self._said_by_table() if self.labels else {}
        for slide, known in self.known.items():
            for patient in (cohort.get(slide, ""), said.get(slide, ("", {}))[0]):
                named[patient or known.patient] = known.patient
        return named

    @property
    def made(self) -> Made:
        """What the vectors were made by."""
        if not self.headers:
            raise SearchError("not one slide has tiles", self.store.folder, "See the states of `histokin info`.")
        _, header = next(iter(self.headers.values()))
        spec = self.tiling.spec if self.tiling else None
        return Made(
            encoder=self.store.encoder,
            fingerprint=self.store.fingerprint,
            grid_id=self.store.grid_id,
            mpp=spec.mpp if spec else float(header.attrs.get("mpp", 0)),
            tile_px=spec.tile_px if spec else int(header.attrs.get("tile_size_px", 0)),
            dim=header.shape[1],
        )

    @property
    def n_tiles(self) -> int:
        """Vectors in the store."""
        return sum(header.shape[0] for _, header in self.headers.values())

    def entries(self, wanted: Iterable[str] | None = None) -> Iterator[SlideEntry]:
        """The slides of the archive, or those wanted, read one at a time in order of id."""
        for slide in sorted(self.headers if wanted is None else wanted):
            yield self._entry(slide)

    def sample(self, n: int) -> NDArray[np.float32]:
        """About n vectors, as many of each slide: a slide of many tiles does not count for more."""
        each = -(-n // len(self.headers))
        parts = []
        for slide in sorted(self.headers):
            path, header = self.headers[slide]
            rows = np.unique(np.linspace(0, header.shape[0] - 1, min(each, header.shape[0])).astype(np.int64))
            parts.append(np.asarray(self.store.read(path).features[rows], np.float32))
        return np.concatenate(parts)

    def _entry(self, slide: str) -> SlideEntry:
        path, _ = self.headers[slide]
        found = self.store.read(path)
        known = self.known[slide]
        return SlideEntry(
            slide=slide,
            patient=known.patient,
            vectors=found.features,
            tile=found.tile_id,
            coords=found.coords,
            label=self._tile_labels(slide, found),
            columns=known.columns,
            mosaic=choose_mosaic(found.features, found.tile_id, self.mosaic, coords=found.coords).rows,
        )

    def _tile_labels(self, slide: str, found: SlideEmbeddings) -> NDArray[np.object_] | None:
        if self.labels is not None and self.labels.by != "slide" and self.labels.columns:
            column = self.labels.columns[0]
            return self.labels.of_tiles(column, np.full(len(found.tile_id), slide, object), found.tile_id, found.coords)
        if self.tiling is None:
            return None
        table = self.tiling.table(self.tiling.cohort.by_slide[slide])
        if not table.label_columns:
            return None
        return pure_labels(table, table.label_columns[0])[found.tile_id]

    def _table_digest(self, slide: str) -> str:
        """Tile labels may change while the vectors stay."""
        if self.labels is not None and self.labels.by != "slide":
            return digest_of(sorted(self._table_rows.get(slide, [])))
        return self.tiling.receipts[slide].digest if self.tiling and slide in self.tiling.receipts else ""

    @cached_property
    def _table_rows(self) -> dict[str, list[tuple[Key, list[tuple[str, str]]]]]:
        """What the user's table says of the tiles of each slide."""
        found: dict[str, list[tuple[Key, list[tuple[str, str]]]]] = {}
        for key, row in self.labels.rows.items() if self.labels else ():
            found.setdefault(key[0], []).append((key, sorted(row.items())))
        return found

    def _said_by_table(self) -> dict[str, tuple[str, dict[str, str]]]:
        """Patient and columns of each slide in the user's table; of a table of tiles what a slide's tiles share."""
        labels = self.labels
        if labels is None:
            return {}
        slides = list(self.headers)
        if not labels.slides.intersection(slides):
            raise SearchError(
                f"it names none of the {len(slides)} slides",
                labels.path,
                f"Name them as the archive does: {slides[0]}.",
            )
        names = [name for name in (*labels.columns, "site") if name != TILE_LABEL or labels.by == "slide"]
        columns = {name: labels.of_slides(name, slides) for name in names}
        patients = [
            _only_patient(slide, named, labels.path)
            for slide, named in zip(slides, labels.units_of("patient", slides), strict=True)
        ]
        return {
            slide: (patients[i], {name: values[i] for name, values in columns.items() if values[i]})
            for i, slide in enumerate(slides)
        }

    def _said_by_cohort(self) -> dict[str, tuple[str, dict[str, str]]]:
        if self.tiling is None:
            return {}
        cohort = self.tiling.cohort
        units = leave_out_units(cohort)
        of_tiles = _patients_of_tiles(cohort.tiles)
        found: dict[str, tuple[str, dict[str, str]]] = {}
        for record in cohort.usable:
            patients = {units.of_tile(record.slide, patient) for patient in of_tiles.get(record.slide, {""})}
            columns = {"site": record.site} if record.site else {}
            found[record.slide] = (
                _only_patient(record.slide, patients, cohort.root),
                {**columns, **record.labels, PICTURE: units.picture[record.slide]},
            )
        return found


def _only_patient(slide: str, patients: set[str], where: Path) -> str:
    """The patient that a slide's tiles are of, "" where none is named."""
    if len(patients) > 1:
        raise SearchError(
            f"slide {slide} holds tiles of {len(patients)} patients ({', '.join(sorted(patients)[:3])})",
            where,
            "Name a slide of its own for each patient: a slide is left out with its patient.",
        )
    return next(iter(patients), "")


def _one_patient_a_picture(known: Mapping[str, Known]) -> dict[str, Known]:
    """Patients of the user's table who own slides of one content under different ids count as one."""
    counts_as: dict[str, str] = {}

    def root(name: str) -> str:
        while name in counts_as:
            name = counts_as[name]
        return name

    owner: dict[str, str] = {}
    for what in known.values():
        own, other = root(what.patient), root(owner.setdefault(what.columns[PICTURE], what.patient))
        if own != other:
            counts_as[max(own, other)] = min(own, other)
    return {slide: replace(what, patient=root(what.patient)) for slide, what in known.items()}


def _patients_of_tiles(tiles: Iterable[TileRow]) -> Mapping[str, set[str]]:
    """Patients that ready tiles name, by slide; "" where one names none."""
    found: dict[str, set[str]] = {}
    for tile in tiles:
        found.setdefault(tile.slide, set()).add(tile.patient)
    return found
