"""`run`: all stages in their order, from a folder of slides to the report."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from histokin.cohort import Kind
from histokin.cohort.sources import Origin
from histokin.embeddings import TileEmbedder
from histokin.pipeline.choosing import DEFAULT_RUN
from histokin.pipeline.evaluation import Assessment, EvaluationSpec, evaluate_workspace
from histokin.pipeline.projection import MapMethod
from histokin.pipeline.stages import TileRequest, embed, pretrain, tile
from histokin.progress import Reporter, silent
from histokin.tiles import Tiling
from histokin.workspace import Workspace

if TYPE_CHECKING:
    from histokin.encoders import Encoder
    from histokin.learn import Recipe


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything `run` can be asked for.

    Attributes:
        tiles: the tiling.
        mpp, kind, origin: how the slides are read, see `take_inventory`.
        recipe: of pretraining; None takes the shipped `simclr`.
        encoder: a folder or timm name to use instead of pretraining one.
        weights: weights file for a timm name.
        evaluation: of the embeddings.
        map_method: of the report's map.
        device: torch's name of a device.
        title: of the report; "" takes the input's name.
    """

    tiles: TileRequest = field(default_factory=TileRequest)
    mpp: float | None = None
    kind: Kind | None = None
    origin: Origin | None = None
    recipe: "Recipe | None" = None
    encoder: str | None = None
    weights: Path | None = None
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    map_method: MapMethod = "pca"
    device: str = "auto"
    title: str = ""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What `run` made.

    Attributes:
        work: the workspace.
        tiling: with every slide's final state in its cohort.
        encoder: name of the encoder.
        store: its embeddings.
        assessment: the figures.
        page: the report.
        notes: what the user should know of the training.
    """

    work: Workspace
    tiling: Tiling
    encoder: str
    store: Path
    assessment: Assessment
    page: Path
    notes: tuple[str, ...] = ()


def run(
    slides: Path | str, out: Path | str, spec: RunSpec | None = None, *, report: Reporter = silent, command: str = ""
) -> RunOutcome:
    """From a folder of slides (or tiles) to encoder, embeddings, figures and report; resumes where it was stopped.

    Args:
        slides: folder, CSV or slide.
        out: the workspace.
        spec: what is asked.
        report: progress.
        command: shown in the report.

    Raises:
        HistokinError: says what, where and what to do. A slide that cannot be used is a state, not an error.
    """
    spec = spec or RunSpec()
    tiling = tile(
        Path(slides), Path(out), request=spec.tiles, mpp=spec.mpp, kind=spec.kind, origin=spec.origin, report=report
    )
    work = Workspace.open(out)
    clock = _Clock(work)
    clock.log("tile", slides=len(tiling.cohort), tiles=tiling.n_tiles)
    encoder, notes = _encoder(work, tiling, spec, report)
    clock.log("encoder", name=encoder.name)
    store, floors, tiling = embed_with_floors(work, tiling, encoder, device=spec.device, report=report)
    clock.log("embed")
    assessment = evaluate_workspace(work, tiling, store, floors, spec.evaluation, report)
    clock.log("evaluate")
    from histokin.pipeline import reporting

    page = reporting.write(
        work,
        tiling,
        store=store,
        run=None if spec.encoder else work.run(DEFAULT_RUN),
        assessment=assessment,
        title=spec.title or _title_of(Path(slides).resolve()),
        command=command or f"histokin.run({str(slides)!r}, {str(out)!r})",
        map_method=spec.map_method,
        seed=spec.evaluation.seed,
    )
    return RunOutcome(work, tiling, encoder.name, store, assessment, page, notes)


class _Clock:
    """Seconds spent by stage, into the workspace's log: the only place where times are kept."""

    def __init__(self, work: Workspace) -> None:
        self._work, self._before = work, time.monotonic()

    def log(self, stage: str, **facts: object) -> None:
        before, self._before = self._before, time.monotonic()
        self._work.log(stage, seconds=round(self._before - before, 3), **facts)


def _title_of(source: Path) -> str:
    """A table is called after its folder, a folder or slide after itself."""
    return source.parent.name if source.suffix.lower() in (".csv", ".tsv") else source.name


def _encoder(work: Workspace, tiling: Tiling, spec: RunSpec, report: Reporter) -> "tuple[Encoder, tuple[str, ...]]":
    from histokin.encoders import load_encoder
    from histokin.learn import read_recipe

    target: Path | str
    notes: tuple[str, ...] = ()
    if spec.encoder:
        target = spec.encoder
    else:
        recipe = spec.recipe or read_recipe("simclr")
        result = pretrain(work, tiling, recipe, DEFAULT_RUN, report, device=spec.device, replace=True)
        target, notes = result.encoder, (*result.alarms, *result.notes)
    encoder = load_encoder(
        target, tile_px=tiling.spec.tile_px, mpp=tiling.spec.mpp, device=spec.device, weights=spec.weights
    )
    return encoder, notes


def embed_with_floors(
    work: Workspace, tiling: Tiling, encoder: "Encoder", *, device: str = "auto", report: Reporter = silent
) -> tuple[Path, Mapping[str, Sequence[Path]], Tiling]:
    """Embed by an encoder and all floors in one reading of the slides.

    Returns:
        The encoder's store, the floors' stores by name, and the tiling with the states found on the way.
    """
    from histokin.pipeline.floors import STATISTICS, random_floor

    by_floor: dict[str, list[TileEmbedder]] = {floor.name: [floor] for floor in STATISTICS}
    by_floor["random"] = list(random_floor(encoder.card, device))
    embedders: list[TileEmbedder] = [encoder, *(e for group in by_floor.values() for e in group)]
    outcome, tiling = embed(work, tiling, embedders, report)
    floors = {name: [outcome.folders[e.name] for e in group] for name, group in by_floor.items()}
    return outcome.folders[encoder.name], floors, tiling
