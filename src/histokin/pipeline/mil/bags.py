"""An archive's slides as bags, and what is known of each: what all commands of slide classification begin with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import digest_of
from histokin.errors import EvaluationError
from histokin.mil.reading import BagSource, pack_stores
from histokin.pipeline.gathering import check_current
from histokin.pipeline.indexing.archive import PICTURE, SOURCE, Known
from histokin.pipeline.searching import Place, find_place
from histokin.progress import Reporter, silent

_NO_LABELS = (PICTURE, SOURCE)


@dataclass(frozen=True, slots=True)
class Bags:
    """The bags of one encoder's embeddings.

    Attributes:
        place: where the archive's parts lie.
        source: the bags.
        known: of each slide its patient and columns.
    """

    place: Place
    source: BagSource
    known: dict[str, Known]

    @property
    def name(self) -> str:
        """Of the encoder; other tools' files often name none, then the folder does."""
        encoder, folder = self.source.encoder, self.place.source.store.folder.resolve()
        if not encoder.startswith("unnamed "):
            return encoder
        return folder.parent.name if folder.name in ("h5_files", "features") else folder.name

    @property
    def columns(self) -> list[str]:
        """Columns that could be asked for."""
        return sorted({name for known in self.known.values() for name in known.columns} - set(_NO_LABELS))

    def texts(self, column: str) -> dict[str, str]:
        """One column by slide, "" where nothing is said.

        Raises:
            EvaluationError: no slide has it; the columns that there are are named.
        """
        if column not in self.columns:
            raise EvaluationError(
                f"no slide has a column {column!r}",
                self.place.source.store.folder,
                f"There are: {', '.join(self.columns) or 'none; give a table with --labels'}.",
            )
        held = [slide for slide in self.source.slides if slide in self.known]
        return {slide: self.known[slide].columns.get(column, "") for slide in held}

    def patients(self, slides: Sequence[str]) -> list[str]:
        """Whose each slide is; one of an unknown patient stands for one."""
        return [self.known[slide].patient for slide in slides]

    def column(self, name: str, slides: Sequence[str]) -> NDArray[np.object_]:
        """(n,) texts of some slides, "" where nothing is said."""
        return np.array([self.known[slide].columns.get(name, "") for slide in slides], dtype=object)


def open_bags(
    archive: Path,
    *,
    cache: Path | None = None,
    encoder: str | None = None,
    labels: Path | str | None = None,
    report: Reporter = silent,
) -> Bags:
    """The bags of a workspace, or of a folder of embeddings of any tool, packed where they are not yet.

    Args:
        archive: workspace or folder.
        cache: folder of packs; a workspace has its own.
        encoder: of the workspace, by name.
        labels: a CSV of slides' patients and labels.
        report: progress.

    Raises:
        EvaluationError: a folder of embeddings without a cache.
        StoreError: there are no embeddings, or they are out of date.
        SearchError: a slide holds tiles of several patients, or the table names none of the slides.
    """
    place = find_place(archive, encoder=encoder, labels=Path(labels) if labels else None)
    store = place.source.store
    if place.tiling is not None:
        check_current(place.tiling, store.folder)
    folder = cache if place.work is None else place.work.cache
    if folder is None:
        raise EvaluationError(
            "there is no workspace to write into", archive, "Name a folder for the results with --out."
        )
    name = digest_of([store.encoder, store.fingerprint, store.grid_id, store.folder.resolve().name])[:16]
    source = pack_stores(folder / "bags" / name, [store], report=report)
    return Bags(place, source, place.source.known)
