"""The single stages over one workspace: what the commands of their names call, and what `run` strings together."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace as replace_fields
from pathlib import Path
from typing import TYPE_CHECKING

from histokin.artefacts import digest_file, set_aside, write_json
from histokin.cohort import Cohort, Kind, TileRow, take_inventory
from histokin.cohort.sources import Origin
from histokin.errors import CohortError, RecipeError, SlideError, WorkspaceError
from histokin.progress import Reporter, silent
from histokin.slides import picture_size
from histokin.tiles import TileSpec, Tiling, find_tiling, native_spec, tile_cohort
from histokin.workspace import Workspace

if TYPE_CHECKING:
    from histokin.embeddings import EmbedOutcome, TileEmbedder
    from histokin.learn import Recipe, TrainingResult
    from histokin.learn.trainer import OnEvent
    from histokin.pipeline.packing import TrainingTiles, Without


@dataclass(frozen=True, slots=True)
class TileRequest:
    """How the user wants tiles: None means the default (256 px at 1 um; a tile set's own size)."""

    tile_px: int | None = None
    tile_mpp: float | None = None
    stride_px: int = 0
    min_tissue: float = 0.5

    def spec_for(self, cohort: Cohort) -> TileSpec:
        """The spec for a cohort; tile sets are taken as they are unless a size is asked for."""
        if cohort.kind == "tiles":
            return self._spec_for_given(cohort)
        default = TileSpec()
        px = default.tile_px if self.tile_px is None else self.tile_px
        return TileSpec(px, default.mpp if self.tile_mpp is None else self.tile_mpp, self.stride_px, self.min_tissue)

    def _spec_for_given(self, cohort: Cohort) -> TileSpec:
        usable = {record.slide: record for record in cohort.require_usable().usable}
        tiles = [tile for tile in cohort.tiles if tile.slide in usable]
        mpps = sorted({usable[tile.slide].mpp or 0.0 for tile in tiles})
        sizes = sorted({tile.size for tile in tiles})
        if mpps[-1] > 1.01 * mpps[0] or sizes[-1] > 1.01 * sizes[0]:
            raise CohortError(
                f"tiles of different true size ({sizes[0]} to {sizes[-1]} px at {mpps[0]:g} to {mpps[-1]:g} mpp)",
                cohort.root,
                "Make a cohort of each kind: one encoder cannot be judged on several scales at once.",
            )
        if self.stride_px or (self.tile_px is not None and self.tile_mpp is not None):
            raise RecipeError(
                "ready tiles have their own place and field", cohort.root, "Give --tile-px or --tile-mpp, no --stride."
            )
        spec = native_spec(tiles, 0 if sizes[0] else _first_side(cohort, tiles), mpps[0], self.tile_px)
        if self.tile_mpp is None:
            return spec
        return native_spec(tiles, spec.tile_px, mpps[0], round(spec.tile_um / max(self.tile_mpp, 1e-9)))


def _first_side(cohort: Cohort, tiles: Sequence[TileRow]) -> int:
    """Side of the first tile file that can be read: the size of tiles that are files of their own."""
    for row in tiles:
        try:
            return max(picture_size(cohort.root / row.path))
        except (SlideError, OSError):
            continue
    raise CohortError("not one tile file can be read", cohort.root, "See `histokin info`.")


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
    request = request or TileRequest()
    TileSpec(256 if request.tile_px is None else request.tile_px, 1.0 if request.tile_mpp is None else request.tile_mpp,
             request.stride_px, request.min_tissue)  # a wrong wish is refused before anything is changed  # fmt: skip
    cohort = take_inventory(source, mpp=mpp, kind=kind, origin=origin, report=report)
    work = Workspace.create(out)
    cohort.save(work.cohort)  # before anything can be unusable: the states are what the user needs then
    spec = request.spec_for(cohort.require_usable())
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
    also: Sequence[Path | str] = (),
    without: "Without | None" = None,
    at_most: int | None = None,
    on_event: "OnEvent | None" = None,
) -> "TrainingResult":
    """Pretrain an encoder on the tiles of the workspace, reading them from the pack cache (made here if missing).

    Where the run of this name was made from other tiles or by another recipe, it is refused. With `replace` a finished
    one is kept under a name with its digest, and the run is made anew; the result's notes say so.

    Args:
        work, tiling: where the run is written, and the tiles.
        recipe: what to do.
        name: of the run.
        report: progress.
        device: torch's name of a device, or `auto`.
        replace: see above.
        also: further workspaces whose tiles are trained on together with these.
        without: slides, patients or sites that are kept out.
        at_most: train on so many tiles, drawn evenly from all.
        on_event: told of each step, see `learn.pretrain`.

    Raises:
        TrainingError: see `learn.pretrain` and `packing.training_pixels`.
    """
    from histokin.pipeline.packing import training_pixels

    places = [(work, tiling), *((other, open_tiling(other)) for other in map(Workspace.open, also))]
    with training_pixels(places, recipe, report, without=without, at_most=at_most) as tiles:
        return train(tiles, recipe, work.run(name), report, device=device, replace=replace, on_event=on_event)


def train(
    tiles: "TrainingTiles",
    recipe: "Recipe",
    folder: Path,
    report: Reporter = silent,
    *,
    device: str = "auto",
    replace: bool = False,
    on_event: "OnEvent | None" = None,
) -> "TrainingResult":
    """`learn.pretrain`, which with `replace` sets a finished run of another recipe or other tiles aside."""
    from histokin.learn import pretrain as run
    from histokin.learn.checkpoint import CheckpointMismatch

    notes = list(tiles.notes)
    try:
        result = run(tiles.source, recipe, folder, report=report, device=device, on_event=on_event)
    except CheckpointMismatch:
        finished = folder / "result.json"
        if not replace or not finished.exists():
            raise  # an unfinished run of another recipe is hours that one wrong flag must not cost
        aside = set_aside(folder, digest_file(finished)[:8])
        result = run(tiles.source, recipe, folder, report=report, device=device, on_event=on_event)
        kept = f"kept as {aside.name}, trained anew"
        notes.append(f"run {folder.name} was made by another recipe or from other tiles: {kept}")
    return replace_fields(result, notes=(*notes, *result.notes))


def with_mpp(work: Workspace, tiling: Tiling, mpp: float | None, report: Reporter = silent) -> Tiling:
    """The workspace's slides tiled at another pixel size, with as many pixels a tile; ready tiles keep their field.

    The tiling that the workspace's commands use stays what it was.
    """
    if mpp is None or abs(mpp / tiling.spec.mpp - 1) < 1e-6:
        return tiling
    spec = tiling.spec
    if spec.is_given:
        px = max(8, round(spec.tile_um / mpp))
        other = replace_fields(spec, tile_px=px, mpp=spec.tile_um / px)
    else:
        other = replace_fields(spec, mpp=mpp)
    return tile_cohort(work, tiling.cohort, other, report=report, keep_states=False)


def embed(
    work: Workspace, tiling: Tiling, embedders: "Sequence[TileEmbedder]", report: Reporter = silent
) -> "tuple[EmbedOutcome, Tiling]":
    """Embed all tiles.

    Returns:
        What was embedded, and the tiling with a cohort in which slides that turned out damaged have that state, and
        whose notes count the tiles that could not be decoded. The workspace holds this cohort.

    Raises:
        NoUsableSlide: all slides turned out damaged.
    """
    from histokin.embeddings import embed_cohort

    outcome = embed_cohort(work, tiling, embedders, report)
    lost = [f"{slide}: {n} tiles could not be decoded and are left out" for slide, n in outcome.n_corrupt.items()]
    notes = tuple(dict.fromkeys([*tiling.cohort.notes, *lost]))
    cohort = replace_fields(tiling.cohort.updated(outcome.failed), notes=notes)
    if outcome.failed or notes != tiling.cohort.notes:
        cohort.save(work.cohort)
    return outcome, find_tiling(work, cohort.require_usable(), tiling.spec)
