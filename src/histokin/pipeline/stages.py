"""The single stages over one workspace: what the commands of their names call, and what `run` strings together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from histokin.artefacts import digest_file, set_aside, write_json
from histokin.cohort import Cohort, Kind, take_inventory
from histokin.cohort.sources import Origin
from histokin.errors import WorkspaceError
from histokin.progress import Reporter, silent
from histokin.slides import picture_size
from histokin.tiles import TileSpec, Tiling, find_tiling, native_spec, tile_cohort
from histokin.workspace import Workspace

if TYPE_CHECKING:
    from histokin.embeddings import EmbedOutcome, TileEmbedder
    from histokin.learn import Recipe, TrainingResult


@dataclass(frozen=True, slots=True)
class TileRequest:
    """How the user wants tiles: None means the default (256 px at 1 um; a tile set's own size)."""

    tile_px: int | None = None
    tile_mpp: float | None = None
    stride_px: int = 0
    min_tissue: float = 0.5

    def spec_for(self, cohort: Cohort) -> TileSpec:
        """The spec for a cohort; tile sets are taken as they are unless a size is asked for."""
        default = TileSpec()
        if cohort.kind == "slides":
            return TileSpec(
                self.tile_px or default.tile_px, self.tile_mpp or default.mpp, self.stride_px, self.min_tissue
            )
        first = cohort.require_usable().usable[0]
        mpp = first.mpp or 1.0
        side = max(picture_size(cohort.root / cohort.tiles[0].path)) if not cohort.tiles[0].size else 0
        spec = native_spec(cohort.tiles, side, mpp, self.tile_px)
        if self.tile_mpp is not None and self.tile_px is None:
            spec = native_spec(cohort.tiles, side, mpp, max(8, round(spec.tile_um / self.tile_mpp)))
        return spec


def tile(
    source: Path,
    out: Path,
    *,
    request: TileRequest | None = None,
    mpp: float | None = None,
    kind: Kind | None = None,
    origin: Origin | None = None,
    report: Reporter = silent,
) -> Tiling:
    """Take the inventory of `source` and tile every usable slide into the workspace `out`."""
    cohort = take_inventory(source, mpp=mpp, kind=kind, origin=origin, report=report)
    work = Workspace.create(out)
    cohort.save(work.cohort)  # before anything can be unusable: the states are what the user needs then
    spec = (request or TileRequest()).spec_for(cohort.require_usable())
    tiling = tile_cohort(work, cohort, spec, report=report)
    write_json(work.tiling, spec)
    return tiling


def open_tiling(work: Workspace) -> Tiling:
    """The tiling that was last made in a workspace.

    Raises:
        WorkspaceError: there is none.
    """
    cohort = Cohort.load(work.cohort)
    if not work.tiling.exists():
        raise WorkspaceError("the workspace has no tiles yet", work.root, "Run `histokin tile SLIDES --out WORK`.")
    spec = TileSpec(**json.loads(work.tiling.read_text(encoding="utf-8")))
    return find_tiling(work, cohort, spec)


def pretrain(
    work: Workspace,
    tiling: Tiling,
    recipe: "Recipe",
    name: str,
    report: Reporter = silent,
    *,
    device: str = "auto",
    replace: bool = False,
) -> "TrainingResult":
    """Pretrain an encoder on all tiles of the workspace, reading them from the pack cache (made here if missing).

    Where the run of this name was made from other tiles or by another recipe, it is refused; with `replace` it is kept
    under a name with its digest, and the run is made anew.

    Raises:
        TrainingError: see `learn.pretrain`.
    """
    from histokin.learn import pretrain as train
    from histokin.learn.checkpoint import CheckpointMismatch
    from histokin.pipeline.packing import pack_cohort

    folder = work.run(name)
    pixels = pack_cohort(work, tiling, report)
    try:
        try:
            return train(pixels, recipe, folder, report=report, device=device)
        except CheckpointMismatch:
            if not replace:
                raise
            aside = set_aside(folder, digest_file(folder / "recipe.yaml")[:8])
            work.log("run set aside", run=name, now=aside.name)
            return train(pixels, recipe, folder, report=report, device=device)
    finally:
        pixels.close()


def embed(
    work: Workspace, tiling: Tiling, embedders: "Sequence[TileEmbedder]", report: Reporter = silent
) -> "EmbedOutcome":
    """Embed all tiles; slides that turn out damaged get that state in the cohort."""
    from histokin.embeddings import embed_cohort

    outcome = embed_cohort(work, tiling, embedders, report)
    if outcome.failed:
        tiling.cohort.updated(outcome.failed).save(work.cohort)
    return outcome
