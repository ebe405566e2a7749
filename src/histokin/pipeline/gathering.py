"""Join the stores of one cohort with its tables: the same tiles, row by row, for the encoder and every floor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import Ledger
from histokin.cohort import UNNAMED, leave_out_units
from histokin.embeddings import Embeddings, EmbeddingStore
from histokin.errors import EvaluationError, StoreError
from histokin.evaluate import Items
from histokin.tiles import TileTable, Tiling, tile_centres

PURE = 0.8  # a tile has a class where more than so much of it does; mixed tiles ask nothing


@dataclass(frozen=True, slots=True)
class Gathered:
    """All vectors of a cohort, aligned.

    Attributes:
        encoder: name of the encoder under evaluation.
        main: its embeddings.
        floors: (n, d) by floor; several for a floor of several seeds.
        patient, picture, site: (n,) object, what is left out with each tile by patient, slide and site. Slides of the
            same content count as one slide of one site; `slide` is what the user calls them.
    """

    encoder: str
    main: Embeddings
    floors: dict[str, list[NDArray[np.float32]]]
    patient: NDArray[np.object_]
    picture: NDArray[np.object_]
    site: NDArray[np.object_]

    @property
    def n_unnamed(self) -> int:
        """Tiles whose patient is not known: their slide stands in for it."""
        return sum(unit.startswith(UNNAMED) for unit in self.patient)

    @property
    def slide(self) -> NDArray[np.object_]:
        """(n,) slide id of each tile."""
        return np.array(self.main.slides, object)[self.main.slide]

    @property
    def units(self) -> dict[str, NDArray[np.object_]]:
        """What is left out together, by the word for it."""
        return {"patient": self.patient, "slide": self.picture, "site": self.site}

    def bags(self, features: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Split rows into one bag a slide."""
        return np.split(features, self.main.first[1:])


def gather(tiling: Tiling, store: Path, floors: Mapping[str, Sequence[Path]]) -> Gathered:
    """Load the stores and check that they hold the same tiles.

    Raises:
        EvaluationError: they do not.
        StoreError: a store cannot be read, or was made from other tiles than the tables now hold.
    """
    opened = EmbeddingStore(store)
    for path in (store, *(path for paths in floors.values() for path in paths)):
        check_current(tiling, path)
    main = opened.load()
    return Gathered(
        encoder=opened.encoder,
        main=main,
        floors={name: [_aligned(path, main) for path in paths] for name, paths in floors.items()},
        **tile_units(tiling, main),
    )


def tile_units(tiling: Tiling, rows: Embeddings) -> dict[str, NDArray[np.object_]]:
    """What is left out with each embedded tile: (n,) `patient`, `picture` and `site`, see `Gathered`."""
    units = leave_out_units(tiling.cohort)
    sites = {record.slide: record.site for record in tiling.cohort.records}
    of_tile = np.concatenate([table.numpy("patient")[ids] for table, ids in _tables(tiling, rows)])
    slide = np.array(rows.slides, object)[rows.slide]
    picture = np.array([units.picture[s] for s in slide], object)
    return {
        "patient": np.array([units.of_tile(s, p) for s, p in zip(slide, of_tile, strict=True)], object),
        "picture": picture,
        "site": np.array([sites[s] for s in picture], object),
    }


def check_current(tiling: Tiling, path: Path) -> None:
    """Refuse a store that is unfinished, or was made before slides, labels or tables changed.

    Raises:
        StoreError: names the first slide that is missing or out of date.
    """
    store = EmbeddingStore(path)
    ledger = Ledger(path, "embeddings", {"encoder": store.encoder, "fingerprint": store.fingerprint})
    for record in tiling.records:
        if ledger.find(record.file_name, {"table": tiling.receipts[record.slide].digest}) is None:
            raise StoreError(
                f"slide {record.slide} is missing, or its tiles changed since it was embedded",
                path,
                "Run `histokin embed` again.",
            )
    if len(store) != len(tiling.records):
        raise StoreError(
            f"it holds {len(store)} slides, the cohort has {len(tiling.records)} with tiles",
            path,
            "Run `histokin embed` again.",
        )


def _aligned(path: Path, main: Embeddings) -> NDArray[np.float32]:
    other = EmbeddingStore(path).load()
    if other.slides != main.slides or not np.array_equal(other.tile_id, main.tile_id):
        raise EvaluationError(
            "this store holds other tiles than the encoder's", path, "Run `histokin embed` again for both."
        )
    return other.features


def tile_labels(tiling: Tiling, rows: Embeddings, column: str) -> NDArray[np.object_]:
    """The tiles' labels, (n,) text; "" where a tile is not mostly (80 %) of one class."""
    return np.concatenate([pure_labels(table, column)[ids] for table, ids in _tables(tiling, rows)])


def pure_labels(table: TileTable, column: str) -> NDArray[np.object_]:
    """One column of labels of a slide's tiles; "" where a tile is not mostly of one class."""
    values = table.labels(column)
    return np.where(table.numpy("label_frac") > PURE, values, "") if column == "label" else values


def tile_places(tiling: Tiling, rows: Embeddings) -> NDArray[np.float64] | None:
    """(n, 2) centres of the embedded tiles on their slides in um; None if some do not know."""
    parts = []
    for (table, ids), slide in zip(_tables(tiling, rows), rows.slides, strict=True):
        found = tile_centres(table, tiling.spec, tiling.cohort.by_slide[slide].mpp or 1.0)
        if found is None:
            return None
        parts.append(found[ids])
    return np.concatenate(parts)


def _tables(tiling: Tiling, rows: Embeddings) -> Iterator[tuple[TileTable, NDArray[np.int64]]]:
    """Each slide's tile table and which of its rows are embedded."""
    records = tiling.cohort.by_slide
    for number, slide in enumerate(rows.slides):
        yield tiling.table(records[slide]), rows.tile_id[rows.rows_of(number)]


def tile_items(gathered: Gathered, labels: NDArray[np.object_]) -> Items:
    """The tiles as items of an evaluation."""
    return Items.of(labels, gathered.patient, gathered.picture, gathered.site)


def slide_items(tiling: Tiling, gathered: Gathered, column: str) -> Items:
    """The slides as items of an evaluation."""
    by_slide = tiling.cohort.by_slide
    records = [by_slide[slide] for slide in gathered.main.slides]
    return Items.of(
        [r.labels.get(column, "") for r in records],
        gathered.patient[gathered.main.first],
        gathered.picture[gathered.main.first],
        gathered.site[gathered.main.first],
    )
