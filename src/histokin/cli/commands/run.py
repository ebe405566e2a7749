"""`histokin run`."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from histokin.cli.options import (
    FOLDER,
    SOURCE,
    exit_code,
    json_option,
    leave_out_option,
    recipe_options,
    recipe_with,
    show_exclusions,
    show_json,
    show_outcome,
    source_options,
    tile_options,
    tile_request,
)


@click.command()
@click.argument("slides", type=SOURCE)
@click.option("--out", type=FOLDER, required=True, help="The workspace; run again to go on or to update.")
@source_options
@tile_options
@recipe_options
@click.option("--encoder", help="An encoder folder or timm name instead of pretraining one.")
@click.option("--weights", type=click.Path(exists=True, path_type=Path), help="Weights file for a timm name.")
@click.option("--label", help="Column of labels to evaluate [default: label, then diagnosis].")
@leave_out_option
@click.option("--map", "map_method", type=click.Choice(["pca", "umap"]), default="pca", show_default=True)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@json_option
def command(
    slides: Path,
    out: Path,
    mpp: float | None,
    kind: Any,
    tile_origin: Any,
    recipe: str,
    settings: tuple[str, ...],
    budget: str | None,
    steps: int | None,
    seed: int | None,
    encoder: str | None,
    weights: Path | None,
    label: str | None,
    leave_out: Any,
    map_method: Any,
    device: str,
    as_json: bool,
    **tiles: Any,
) -> None:
    """Everything, from SLIDES (folder, CSV, slide, class folders) to encoder, search, figures and report."""
    from histokin.pipeline.evaluation import EvaluationSpec
    from histokin.pipeline.run import RunSpec, run
    from histokin.progress import on_stderr

    if weights and not encoder:
        raise click.UsageError("--weights belong to a timm network: name it with --encoder.")
    spec = RunSpec(
        tiles=tile_request(**tiles),
        mpp=mpp,
        kind=kind,
        origin=tile_origin,
        recipe=recipe_with(recipe, settings, budget=budget, steps=steps, seed=seed),
        encoder=encoder,
        weights=weights,
        evaluation=EvaluationSpec(label=label, leave_out=leave_out, seed=seed or 0),
        map_method=map_method,
        device=device,
    )
    outcome = run(slides, out, spec, report=on_stderr(), command=shlex.join(["histokin", *sys.argv[1:]]))
    show_exclusions(outcome.tiling.cohort)
    if as_json:
        show_json({"page": outcome.page, "encoder": outcome.encoder, "evaluation": outcome.assessment.document})
    else:
        show_outcome(outcome)
    raise SystemExit(exit_code(outcome.tiling.cohort))
