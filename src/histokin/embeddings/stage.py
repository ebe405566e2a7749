"""The embed stage: stream every slide's tiles once through one or several embedders, one file a slide and embedder.

It lives below the networks because the floors (colour, texture) are embedders too and need none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from histokin.artefacts import Ledger, write_json
from histokin.cohort import SlideRecord
from histokin.embeddings.embedder import ABOUT, TileEmbedder, about, fit_to_slide, sample_rows, short_id
from histokin.embeddings.file import write_embeddings
from histokin.errors import EncoderMismatch, SlideError, SlideUnreadable
from histokin.progress import Reporter, silent
from histokin.tiles import TileTable, Tiling, open_tiles
from histokin.workspace import Workspace

BATCH = 64  # tiles in memory at once; a slide of any size takes no more


@dataclass(frozen=True, slots=True)
class EmbedOutcome:
    """What the stage did.

    Attributes:
        folders: the store of each embedder, by name.
        n_tiles: vectors in each store.
        n_corrupt: tiles that could not be decoded and are left out, by slide (those that have any).
        failed: slides that could not be read to the end, with the reason.
    """

    folders: dict[str, Path]
    n_tiles: int
    n_corrupt: dict[str, int]
    failed: tuple[SlideRecord, ...]


def check_fit(embedder: TileEmbedder, tiling: Tiling) -> None:
    """Refuse tiles that an encoder was not made for.

    Raises:
        EncoderMismatch: says both sides.
    """
    spec = tiling.spec
    is_px_wrong = embedder.tile_px is not None and embedder.tile_px != spec.tile_px
    is_mpp_wrong = embedder.mpp is not None and abs(embedder.mpp / spec.mpp - 1) > 0.01
    if is_px_wrong or is_mpp_wrong:
        raise EncoderMismatch(
            f"encoder: tiles of {embedder.tile_px} px at {embedder.mpp:g} mpp, these: {spec}",
            embedder.name,
            "Tile with the encoder's --tile-px and --tile-mpp.",
        )


def embed_cohort(
    work: Workspace, tiling: Tiling, embedders: Sequence[TileEmbedder], report: Reporter = silent
) -> EmbedOutcome:
    """Embed every slide that has tiles; what is done already is skipped.

    A slide that turns out to be damaged becomes `failed`, the rest goes on.

    Raises:
        EncoderMismatch: an encoder was made for other tiles.
    """
    for embedder in embedders:
        check_fit(embedder, tiling)
    ledgers = {e.name: _ledger(work, tiling, e) for e in embedders}
    for embedder in embedders:
        write_json(ledgers[embedder.name].folder / ABOUT, about(embedder))
    failed: list[SlideRecord] = []
    with report("embed", tiling.n_tiles, "tiles") as task:
        for record in tiling.records:
            inputs = {"table": tiling.receipts[record.slide].digest}
            todo = [e for e in embedders if ledgers[e.name].find(record.file_name, inputs) is None]
            try:
                if todo:
                    _embed_slide(tiling, record, todo, ledgers, inputs)
            except SlideError as error:
                failed.append(record.with_state("damaged", f"{error.what}. {error.remedy}"))
            task.advance(tiling.receipts[record.slide].facts["n_kept"], note=record.slide)
    lost = {record.slide for record in failed}
    names = [record.file_name for record in tiling.records if record.slide not in lost]
    manifests = [ledger.write_manifest(names) for ledger in ledgers.values()]
    entries = manifests[0]["entries"] if manifests else []
    n_tiles = sum(entry["facts"]["n_tiles"] for entry in entries)
    n_corrupt = {entry["key"]: entry["facts"]["n_corrupt"] for entry in entries if entry["facts"]["n_corrupt"]}
    folders = {name: ledger.folder for name, ledger in ledgers.items()}
    return EmbedOutcome(folders, n_tiles, n_corrupt, tuple(failed))


def _ledger(work: Workspace, tiling: Tiling, embedder: TileEmbedder) -> Ledger:
    folder = work.embeddings(tiling.spec.spec_id, short_id(embedder.fingerprint))
    return Ledger(folder, "embeddings", {"encoder": embedder.name, "fingerprint": embedder.fingerprint})


def _embed_slide(
    tiling: Tiling,
    record: SlideRecord,
    embedders: Sequence[TileEmbedder],
    ledgers: dict[str, Ledger],
    inputs: object,
) -> None:
    table = tiling.table(record)
    source = open_tiles(tiling.cohort, record, table, tiling.spec)
    rows: list[np.ndarray] = []
    features: dict[str, list[np.ndarray]] = {e.name: [] for e in embedders}
    fitted = _fitted(tiling, record, table, embedders)
    for batch in source.stream(BATCH):
        rows.append(batch.rows)
        for embedder in fitted:
            features[embedder.name].append(embedder.embed(batch.pixels))
    joined = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    if source.n_corrupt and not len(joined):
        raise SlideUnreadable(
            f"none of its {source.n_corrupt} tiles can be decoded", tiling.cohort.path_of(record), "Replace the file."
        )
    for embedder in embedders:
        ledgers[embedder.name].forget(record.file_name)
        own = features[embedder.name]
        path = ledgers[embedder.name].folder / f"{record.file_name}.h5"
        write_embeddings(
            path,
            np.concatenate(own) if own else np.zeros((0, embedder.dim), np.float32),
            joined,
            table,
            tiling.spec,
            encoder=embedder.name,
            fingerprint=embedder.fingerprint,
        )
        ledgers[embedder.name].commit(
            record.file_name,
            inputs,
            path,
            status="done" if len(joined) else "empty",
            n_tiles=len(joined),
            n_corrupt=source.n_corrupt,
        )


def _fitted(
    tiling: Tiling, record: SlideRecord, table: TileTable, embedders: Sequence[TileEmbedder]
) -> list[TileEmbedder]:
    """The embedders for this slide; its sample is read once, and only if one of them wants it.

    Raises:
        SlideUnreadable: not one tile of the sample can be decoded.
    """
    rows = sample_rows(table.kept)

    @cache
    def sample() -> np.ndarray:
        found = [batch.pixels for batch in open_tiles(tiling.cohort, record, table, tiling.spec, rows).stream(BATCH)]
        if not found:
            raise SlideUnreadable(
                f"none of {len(rows)} tiles spread over it can be decoded",
                tiling.cohort.path_of(record),
                "Replace the file.",
            )
        return np.concatenate(found)

    return [fit_to_slide(embedder, sample) for embedder in embedders] if len(rows) else list(embedders)
