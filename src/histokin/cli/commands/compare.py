"""`histokin compare`."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from histokin.cli.options import FOLDER, json_option, show_json


def _listed(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:  # noqa: ARG001 - click's signature
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _refuse_beside_a_plan(ctx: click.Context) -> None:
    """A plan says everything: what else was asked for would be ignored without a word."""
    mine = {"plan_file", "out", "as_json", "works"}
    given = [
        parameter.opts[0]
        for parameter in ctx.command.params
        if parameter.name not in mine and ctx.get_parameter_source(parameter.name or "") is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"The plan says it all: write {', '.join(given)} into it.")


@click.command()
@click.argument("works", type=FOLDER, nargs=-1)
@click.option("--out", type=FOLDER, required=True, help="The comparison's own folder; run again to go on.")
@click.option("--plan", "plan_file", type=click.Path(dir_okay=False, path_type=Path), help="A YAML file instead.")
@click.option("--recipes", default="simclr,mocov2,npid,byol,barlow,vicreg,dino", show_default=True, callback=_listed)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key of every recipe; repeatable.")
@click.option("--budget", help="Training time of each entry, such as 5m [default: each recipe's].")
@click.option("--steps", type=click.IntRange(1), help="Or its length in steps.")
@click.option("--label", default="", help="Column of classes to judge by [default: label, then diagnosis].")
@click.option("--value", default="", help="Column of numbers to judge by, instead.")
@click.option("--cluster", default="", help="What intervals resample: patient, slide, site, a column.")
@click.option("--spatial", is_flag=True, help="Also measure how distance in tissue shows in distance of embeddings.")
@click.option(
    "--leave-out",
    type=click.Choice(["patient", "slide", "site"]),
    default="patient",
    show_default=True,
    help="Whose tiles are judged while none of theirs was fitted on or answers.",
)
@click.option("--train", type=FOLDER, multiple=True, help="Workspaces to learn from [default: WORKS]; repeatable.")
@click.option("--tile-mpps", default="", callback=_listed, help="Also vary the tiles' pixel size: 0.5,1,2.")
@click.option("--tile-counts", default="", callback=_listed, help="Also vary how many tiles are learned from.")
@click.option("--each-cohort", is_flag=True, help="Also train on each workspace alone.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of training, sampling and intervals.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@json_option
def command(
    works: tuple[Path, ...],
    out: Path,
    plan_file: Path | None,
    recipes: tuple[str, ...],
    settings: tuple[str, ...],
    budget: str | None,
    steps: int | None,
    train: tuple[Path, ...],
    tile_mpps: tuple[str, ...],
    tile_counts: tuple[str, ...],
    each_cohort: bool,
    seed: int,
    device: str,
    as_json: bool,
    **task: Any,
) -> None:
    """Train several encoders with one budget, judge them on the workspaces WORKS, side by side with the floors."""
    from histokin.pipeline.comparison.plan import read_plan, simple_plan
    from histokin.pipeline.comparison.running import compare
    from histokin.progress import on_stderr

    if bool(works) == bool(plan_file):
        raise click.UsageError("Name workspaces, or a --plan.")
    if budget and steps:
        raise click.UsageError("Give --budget or --steps, not both.")
    if plan_file:
        _refuse_beside_a_plan(click.get_current_context())
    length = {"run.budget": budget and json.dumps(budget), "run.steps": "auto" if budget else steps}
    try:
        mpps, counts = tuple(map(float, tile_mpps)), tuple(map(int, tile_counts))
    except ValueError as error:
        raise click.UsageError("--tile-mpps and --tile-counts are numbers with commas between them.") from error
    plan = (
        read_plan(plan_file)
        if plan_file
        else simple_plan(
            tuple(map(str, works)),
            recipes,
            task=task,
            settings=(*(f"{key}={value}" for key, value in length.items() if value is not None), *settings),
            train=tuple(map(str, train)),
            mpps=mpps,
            counts=counts,
            each_cohort=each_cohort,
            device=device,
            seed=seed,
        )
    )
    found = compare(plan, out, on_stderr(), command=shlex.join(["histokin", *sys.argv[1:]]))
    if as_json:
        show_json(found.document)
    else:
        click.echo(found.text)
        click.echo(f"\nPage: {found.page}")
