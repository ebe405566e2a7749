"""The search for leaks between patients: what lets figures flatter themselves although whole patients are left out."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.embeddings import Embeddings, EmbeddingStore
from histokin.evaluate.splits import SplitItems, dhash, find_leaks
from histokin.pipeline.choosing import run_of
from histokin.pipeline.evaluation.case import Case
from histokin.pipeline.evaluation.sources import Sources
from histokin.pipeline.projection import sample_points
from histokin.progress import Reporter
from histokin.tiles import Tiling, open_tiles

MOST_TILES = 200_000
"""Whose pixels are read; of more, equally many a slide."""
LEAST_TISSUE = 0.25
"""Tiles of less are alike everywhere and not looked at."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What identical and nearly identical tiles share: (n,) 64-bit hashes and SHA-256 of the pixels."""

    rows: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    digests: list[bytes]


def leaks(case: Case) -> dict[str, Any]:
    """Patients, slides and tiles that stand on both sides of the figures."""
    table, columns, sources = case.table, case.columns, case.table.sources
    is_own = bool(sources.tiling) and case.reference in sources.own
    rows = np.arange(len(columns))
    how: dict[str, Any] = {}
    notes = []
    if is_own and sources.tiling:
        rows = sample_points(table.rows.slide, MOST_TILES, case.spec.seed)
        if len(rows) < len(columns):
            notes.append(f"Pixels of {len(rows)} of {len(columns)} tiles were compared, equally many a slide.")
        prints = fingerprints(sources.tiling, table.rows, rows, case.report)
        rows = prints.rows
        how = {"hashes": prints.hashes, "digests": prints.digests, "features": case.encoders[case.reference][rows]}
        how["has_tissue"] = _tissue(sources.tiling, table.rows)[rows] >= LEAST_TISSUE
    patients = columns.patient[rows].astype(str)
    items = SplitItems.of(
        item=[
            f"{slide} tile {tile}" for slide, tile in zip(columns.slide[rows], table.rows.tile_id[rows], strict=True)
        ],
        slide=columns.slide[rows],
        patient=patients,
        site=columns.site[rows],
    )
    found = find_leaks(items, np.unique(patients, return_inverse=True)[1], **how)
    lines = []
    for finding in found.findings:
        shown = "; ".join(
            " = ".join(items.item[finding.rows[finding.groups == group]][:_SHOWN])
            for group in range(min(_SHOWN, finding.n_groups))
        )
        notes.append(f"{finding.sentence} For example {shown}; all of them are in leaks.csv.")
        lines += [
            {
                "kind": finding.kind,
                "group": int(g),
                "slide": items.slide[r],
                "item": items.item[r],
                "patient": patients[r],
            }
            for r, g in zip(finding.rows, finding.groups, strict=True)
        ]
    notes += [f"Not looked for: {kind} ({reason})." for kind, reason in found.skipped.items() if kind != "pretraining"]
    if found.is_clean:
        what = "names, pixels and vectors" if how else "names alone: only a workspace has pixels"
        notes.insert(0, f"Nothing was found between patients, by {what}.")
    notes += _transductive(sources)
    return {"notes": notes, "tables": {"leaks.csv": lines} if lines else {}}


def fingerprints(tiling: Tiling, rows: Embeddings, wanted: NDArray[np.int64], report: Reporter) -> Fingerprints:
    """Hash the pixels of some embedded tiles; those that cannot be read any more are left out."""
    kept, hashes, digests = [], [], []
    with report("leaks", len(wanted), "tiles") as line:
        for number in np.unique(rows.slide[wanted]):
            record = tiling.cohort.record(rows.slides[number])
            own = wanted[rows.slide[wanted] == number]
            by_tile = {int(rows.tile_id[i]): int(i) for i in own}
            source = open_tiles(tiling.cohort, record, tiling.table(record), tiling.spec, np.sort(rows.tile_id[own]))
            for batch in source.stream(64):
                kept += [by_tile[int(tile)] for tile in batch.rows]
                hashes.append(dhash(batch.pixels))
                digests += [hashlib.sha256(tile.tobytes()).digest() for tile in batch.pixels]
                line.advance(len(batch.rows), record.slide)
    order = np.argsort(kept, kind="stable")
    joined = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    return Fingerprints(np.array(kept, np.int64)[order], joined[order], [digests[i] for i in order])


def _tissue(tiling: Tiling, rows: Embeddings) -> NDArray[np.float64]:
    """(n,) share of tissue in each embedded tile; 1 where it was not measured."""
    parts = []
    for number, slide in enumerate(rows.slides):
        share = tiling.table(tiling.cohort.record(slide)).numpy("tissue")[rows.tile_id[rows.rows_of(number)]]
        parts.append(np.where(np.isfinite(share) & (share >= 0), share, 1.0))
    return np.concatenate(parts)


def _transductive(sources: Sources) -> list[str]:
    """Encoders that were trained on these very slides."""
    if sources.work is None:
        return []
    return [
        f"{name} was trained on the tiles of this workspace (run {run}): its figures are transductive, and those of a "
        "supervised run on these slides are no result."
        for name in sources.own
        if (run := run_of(sources.work, EmbeddingStore(sources.stores[name]).fingerprint))
    ]
