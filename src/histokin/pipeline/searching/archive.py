"""The archive that answers: an index where one is kept, else the store itself."""

from dataclasses import dataclass
from pathlib import Path

from histokin.cohort import file_name_of
from histokin.embeddings import EmbeddingStore
from histokin.errors import SearchError
from histokin.pipeline.evaluation.labels import read_labels
from histokin.pipeline.indexing.archive import SOURCE, ArchiveSource
from histokin.pipeline.indexing.build import is_index, made_from
from histokin.pipeline.stages import open_tiling
from histokin.pipeline.stores import find_store
from histokin.search.exact_searcher import ExactSearcher
from histokin.search.index import Index, Version
from histokin.search.searcher import Searcher
from histokin.tiles import Tiling
from histokin.workspace import Workspace

FEW_TILES = 200_000
"""An archive up to this size is searched from its store as quickly as it is read: no index need be built."""


@dataclass(frozen=True, slots=True)
class Archive:
    """What can be asked.

    Attributes:
        source: the store and what is known of its slides.
        searcher: a version of its index, which stays as it is, or the store's vectors.
        index: the index's folder; None where the store itself is searched.
        notes: what a reader must know of it.
    """

    source: ArchiveSource
    searcher: Searcher
    index: Path | None
    notes: tuple[str, ...] = ()

    @property
    def version(self) -> Version | None:
        """The index's version."""
        return self.searcher if isinstance(self.searcher, Version) else None


@dataclass(frozen=True, slots=True)
class Place:
    """Where an archive's parts lie.

    Attributes:
        source: the store and what is known of its slides.
        work, tiling: the workspace; None for a folder of another tool's embeddings.
        index: the folder of its index, made or not.
        is_named: whether the user named it.
    """

    source: ArchiveSource
    work: Workspace | None
    tiling: Tiling | None
    index: Path
    is_named: bool = False


def find_place(
    path: Path, *, encoder: str | None = None, labels: Path | None = None, index: str | Path | None = None
) -> Place:
    """Sort out what a path on the command line means.

    Args:
        path: a workspace, or a folder of embeddings of any tool.
        encoder: of the workspace, by name; by default the run `main`, else the only one.
        labels: a CSV of slides' patients and labels.
        index: name of an index of the workspace (by default the encoder's), or for other embeddings its folder.

    Raises:
        SearchError: an index of a folder of embeddings has no folder.
        StoreError, WorkspaceError: nothing to search there.
    """
    table = read_labels(labels) if labels else None
    if (path / "histokin.json").exists() or not any(path.glob("*.h5")):
        work = Workspace.open(path)
        tiling = open_tiling(work)
        store = EmbeddingStore(find_store(work, tiling, encoder))
        name = index or file_name_of(store.encoder)
        folder = name if isinstance(name, Path) else work.index(name)
        return Place(ArchiveSource(store, tiling, table), work, tiling, folder, index is not None)
    folder = Path(index) if index else path / "index"
    return Place(ArchiveSource(EmbeddingStore(path), None, table), None, None, folder, index is not None)


def open_archive(place: Place, *, exact: bool = False) -> Archive:
    """Open the index; without one, or where `exact` is asked for, the store.

    Raises:
        SearchError: the store is too large to be searched without an index.
    """
    source = place.source
    if is_index(place.index):
        version = Index(place.index).pinned()
        version.made.check(source.made, place.index)
        _check_patients(source, version, place.index)
        return Archive(source, version, place.index, lags(source, version))
    if place.is_named:
        raise SearchError("there is no such index", place.index, "Build it with `histokin index build --index`.")
    if source.n_tiles > FEW_TILES and not exact:
        raise SearchError(
            f"there is no index, and {source.n_tiles} tiles are many to be read for one question",
            place.index,
            "Build it with `histokin index build`, or ask with --exact.",
        )
    return Archive(source, ExactSearcher(source.made, source.entries()), None)


def _check_patients(source: ArchiveSource, version: Version, where: Path) -> None:
    """An index that knows other patients than the user names now would leave out the wrong slides.

    Raises:
        SearchError: names the first slide.
    """
    known = source.known
    for slide, patient in zip(version.slides.slide.tolist(), version.slides.patient.tolist(), strict=True):
        if slide in known and known[slide].patient != patient:
            raise SearchError(
                f"slide {slide} is of patient {known[slide].patient} now, in the index of {patient}",
                where,
                "Run `histokin index build` with the same --labels: else the wrong slides are left out.",
            )


def lags(source: ArchiveSource, version: Version) -> tuple[str, ...]:
    """Whether the index holds what the store holds."""
    held = dict(zip(version.slides.slide.tolist(), made_from(version), strict=True))
    known = {slide: what.columns[SOURCE] for slide, what in source.known.items()}
    n_new = sum(slide not in held for slide in known)
    n_changed = sum(held.get(slide, source_) != source_ for slide, source_ in known.items())
    n_gone = sum(slide not in known for slide in held)
    parts = [f"{n} {what}" for n, what in ((n_new, "new"), (n_changed, "changed"), (n_gone, "deleted")) if n]
    if not parts:
        return ()
    return (f"The index does not know of {', '.join(parts)} slides: run `histokin index build`.",)
