"""What the user names: workspaces and folders of embeddings, sorted into encoders and the floors beside them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from histokin.artefacts import digest_file, digest_of
from histokin.embeddings import ABOUT, EmbeddingStore
from histokin.errors import EvaluationError
from histokin.pipeline.stages import open_tiling
from histokin.pipeline.stores import find_floors, find_store
from histokin.tiles import Tiling
from histokin.workspace import Workspace

RANDOM = "random"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where everything lies.

    Attributes:
        work, tiling: the workspace that knows patients, labels and places; None where only embeddings are given.
        stores: by encoder, in the order given.
        own: those of them that are stores of the workspace, made from its tiles as they are now.
        floors: by floor, the stores of its members.
        twins: by encoder, the floor of random weights of its architecture.
        labels: the user's table, if one is given.
        splits: the user's splits, if they are given.
    """

    work: Workspace | None
    tiling: Tiling | None
    stores: dict[str, Path]
    own: frozenset[str]
    floors: dict[str, list[Path]]
    twins: dict[str, str]
    labels: Path | None
    splits: Path | None = None

    def digests(self) -> dict[str, object]:
        """What figures depend on besides what is asked."""
        inputs: dict[str, object] = {name: digest_of(_contents(path)) for name, path in self.stores.items()}
        inputs |= {f"floor {name}": [digest_of(_contents(p)) for p in paths] for name, paths in self.floors.items()}
        inputs["order"] = list(self.stores)
        if self.labels:
            inputs["labels"] = digest_file(self.labels)
        if self.splits:
            files = sorted(self.splits.glob("*.csv")) if self.splits.is_dir() else [self.splits]
            inputs["splits"] = digest_of([f"{path.name} {digest_file(path)}" for path in files])
        if self.tiling:
            inputs["tables"] = digest_of([self.tiling.receipts[r.slide].digest for r in self.tiling.records])
            inputs["cohort"] = self.tiling.cohort.digest
        return inputs


def find_sources(
    paths: Sequence[Path],
    encoders: Sequence[str] = (),
    labels: Path | None = None,
    splits: Path | None = None,
) -> Sources:
    """Sort the paths on a command line.

    Args:
        paths: workspaces (one at most) and folders of embeddings, of ours or of other tools.
        encoders: names of the workspace's encoders; by default the run `main`, else the only one.
        labels: a CSV, see `labels.read_labels`.
        splits: see `given_splits.read_splits`.

    Raises:
        EvaluationError: two workspaces, or a path that is neither.
        StoreError: no embeddings there, or several that could be meant.
    """
    work, tiling = _workspace(paths)
    stores: dict[str, Path] = {}
    own: set[str] = set()
    for path in paths:
        if work is not None and path.resolve() == work.root.resolve():
            found = [find_store(work, open_tiling(work), name) for name in encoders or [None]]
        else:
            found = [path]
        for store in found:
            if store.resolve() in {known.resolve() for known in stores.values()}:
                raise EvaluationError("this store is named twice", store, "Name each encoder once.")
            name = _named(EmbeddingStore(store), stores)
            stores[name] = store
            if work is not None and work.root.resolve() in store.resolve().parents:
                own.add(name)
    floors, twins = _floors({name: stores[name] for name in stores if name in own})
    return Sources(work, tiling, stores, frozenset(own), floors, twins, labels, splits)


def _workspace(paths: Sequence[Path]) -> tuple[Workspace | None, Tiling | None]:
    """The workspace among the paths, or the one that a store among them belongs to."""
    roots: dict[Path, Path] = {}
    for path in paths:
        if (path / "histokin.json").exists():
            roots[path.resolve()] = path
        elif (path / ABOUT).exists() and len(path.resolve().parents) > 2:
            above = path.resolve().parents[2]  # WORK/embeddings/SPEC/ENCODER
            if (above / "histokin.json").exists():
                roots.setdefault(above, path / "../../..")
        elif not path.is_dir():
            raise EvaluationError("there is no such folder", path, "Name a workspace or a folder of embeddings.")
    if len(roots) > 1:
        raise EvaluationError(
            f"{len(roots)} workspaces are named, {' and '.join(map(str, roots))}",
            "evaluation",
            "Evaluate one at a time, or compare encoders on several with `histokin compare`.",
        )
    for root in roots.values():
        work = Workspace.open(root)
        return work, open_tiling(work)
    return None, None


def _named(store: EmbeddingStore, taken: dict[str, Path]) -> str:
    """The encoder's name; where the files name none, or two have one name, that of the folder."""
    folder = store.folder.resolve()
    folder_name = folder.parent.name if folder.name in ("h5_files", "features") else folder.name
    name = folder_name if store.encoder.startswith("unnamed ") else store.encoder
    if name in taken:
        name = f"{name} ({folder_name})"
    if name in taken:
        raise EvaluationError(
            f"two stores are called {name}", store.folder, "Name each store once, from folders of different names."
        )
    return name


def _floors(stores: dict[str, Path]) -> tuple[dict[str, list[Path]], dict[str, str]]:
    """Floors of a workspace's stores, and which random weights are whose: encoders of one architecture share theirs."""
    architectures = {name: _architecture(path) for name, path in stores.items()}
    kinds = list(dict.fromkeys(architectures.values()))
    words = {kind: RANDOM if len(kinds) == 1 else f"{RANDOM} {number}" for number, kind in enumerate(kinds, 1)}
    floors: dict[str, list[Path]] = {}
    twins: dict[str, str] = {}
    for name, path in stores.items():
        for floor, members in find_floors(path).items():
            word = words[architectures[name]] if floor == RANDOM else floor
            floors.setdefault(word, members)
            if floor == RANDOM:
                twins[name] = word
    return floors, twins


def _architecture(store: Path) -> str:
    return str(json.loads((store / ABOUT).read_text(encoding="utf-8"))["twin"])


def _contents(store: Path) -> list[str]:
    """What a store holds: its manifest's digest, or the digests of another tool's files."""
    manifest = store / "manifest.json"
    paths = [manifest] if manifest.exists() else sorted(store.glob("*.h5"))
    return [f"{path.name} {digest_file(path)}" for path in paths]
