"""Join the stores of one cohort with its tables: the same tiles, row by row, for the encoder and every floor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histokin.cohort import UNNAMED, patient_of
from histokin.embeddings import Embeddings, EmbeddingStore
from histokin.errors import EvaluationError
from histokin.evaluate import Items
from histokin.tiles import Tiling

PURE = 0.8  # a tile has a class where more than so much of it does; mixed tiles ask nothing


@dataclass(frozen=True, slots=True)
class Gathered:
    """All vectors of a cohort, aligned.

    Attributes:
        encoder: name of the encoder under evaluation.
        main: its embeddings.
        floors: (n, d) by floor; several for a floor of several seeds.
        patient, site: (n,) object, of each tile.
        digest: identity of all stores.
    """

    encoder: str
    main: Embeddings
    floors: dict[str, list[NDArray[np.float32]]]
    patient: NDArray[np.object_]
    site: NDArray[np.object_]

    @property
    def n_unnamed(self) -> int:
        """Tiles whose patient is not known: their slide stands in for it."""
        return sum(unit.startswith(UNNAMED) for unit in self.patient)

    @property
    def slide(self) -> NDArray[np.object_]:
        """(n,) slide id of each tile."""
        return np.array(self.main.slides, object)[self.main.slide]

    def bags(self, features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Split rows into one bag a slide."""
        stops = np.flatnonzero(np.diff(self.main.slide)) + 1
        return np.split(features, stops)


def gather(tiling: Tiling, store: Path, floors: Mapping[str, Sequence[Path]]) -> Gathered:
    """Load the stores and check that they hold the same tiles.

    Raises:
        EvaluationError: they do not.
        StoreError: a store cannot be read.
    """
    opened = EmbeddingStore(store)
    main = opened.load()
    groups = patient_of(tiling.cohort)
    sites = {record.slide: record.site for record in tiling.cohort.records}
    of_tile = tile_column(tiling, main, "patient")
    slide = np.array(main.slides, object)[main.slide]
    # The table's patient is the tile's own (tile sets); where it is empty the slide's unit stands in.
    patient = np.array([p or groups[s] for p, s in zip(of_tile, slide, strict=True)], object)
    if any(record.twin_of for record in tiling.cohort.records):
        patient = np.array([groups[s] for s in slide], object)
    return Gathered(
        encoder=opened.encoder,
        main=main,
        floors={name: [_aligned(path, main) for path in paths] for name, paths in floors.items()},
        patient=patient,
        site=np.array([sites[s] for s in slide], object),
    )


def _aligned(path: Path, main: Embeddings) -> NDArray[np.float32]:
    other = EmbeddingStore(path).load()
    if other.slides != main.slides or not np.array_equal(other.tile_id, main.tile_id):
        raise EvaluationError(
            "this store holds other tiles than the encoder's", path, "Run `histokin embed` again for both."
        )
    return other.features


def tile_column(tiling: Tiling, rows: Embeddings, name: str) -> NDArray[np.object_]:
    """A text column of the tile tables for every embedded tile."""
    parts = []
    for number, slide in enumerate(rows.slides):
        table = tiling.table(tiling.cohort.record(slide))
        values = table.numpy("patient") if name == "patient" else table.labels(name)
        parts.append(values[rows.tile_id[rows.slide == number]])
    return np.concatenate(parts)


def tile_labels(tiling: Tiling, rows: Embeddings, column: str) -> NDArray[np.object_]:
    """The tiles' labels; "" where a tile is not mostly (80 %) of one class."""
    labels = []
    for number, slide in enumerate(rows.slides):
        table = tiling.table(tiling.cohort.record(slide))
        ids = rows.tile_id[rows.slide == number]
        values = table.labels(column)[ids]
        if column == "label":
            values = np.where(table.numpy("label_frac")[ids] > PURE, values, "")
        labels.append(values)
    return np.concatenate(labels)


def tile_items(gathered: Gathered, labels: NDArray[np.object_]) -> Items:
    """The tiles as items of an evaluation."""
    return Items.of(labels, gathered.patient, gathered.slide, gathered.site)


def slide_items(tiling: Tiling, gathered: Gathered, column: str) -> Items:
    """The slides as items of an evaluation."""
    records = [tiling.cohort.record(slide) for slide in gathered.main.slides]
    first = [np.flatnonzero(gathered.main.slide == i)[0] for i in range(len(records))]
    return Items.of(
        [r.labels.get(column, "") for r in records],
        gathered.patient[first],
        [r.slide for r in records],
        [r.site for r in records],
    )
