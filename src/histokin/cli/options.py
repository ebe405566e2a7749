"""Options that several commands share, and how results are shown."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from histokin.cohort import Cohort
    from histokin.learn import Recipe
    from histokin.pipeline.run import RunOutcome
    from histokin.pipeline.stages import TileRequest

F = TypeVar("F", bound=Callable[..., Any])

SOURCE = click.Path(path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


def source_options(command: F) -> F:
    """How slides are read: --mpp, --kind, --tile-origin."""
    for option in (
        click.option("--mpp", type=float, help="Level-0 pixel size in um, for slides that state none."),
        click.option("--kind", type=click.Choice(["slides", "tiles"]), help="What SLIDES holds, if it cannot be told."),
        click.option(
            "--tile-origin",
            type=click.Choice(["top-left", "centre"]),
            help="What x, y of a tile table mean, if they are not whole pixels.",
        ),
    ):
        command = option(command)
    return command


def tile_options(command: F) -> F:
    """How tiles are laid: --tile-px, --tile-mpp, --stride, --min-tissue."""
    for option in (
        click.option(
            "--min-tissue", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Least share of tissue."
        ),
        click.option(
            "--stride", type=click.IntRange(0), default=0, help="Step between tiles in px [default: the tile's side]."
        ),
        click.option("--tile-mpp", type=click.FloatRange(0.01, 100), help="Pixel size of tiles in um [default: 1.0]."),
        click.option("--tile-px", type=click.IntRange(8, 8192), help="Side of tiles in px [default: 256]."),
    ):
        command = option(command)
    return command


def leave_out_option(command: F) -> F:
    """--leave-out."""
    return leaving_out("patient", "slide", "site", "self")(command)


def leaving_out(*units: str) -> Callable[[F], F]:
    """--leave-out, of some units."""
    return click.option(
        "--leave-out",
        type=click.Choice(units),
        default="patient",
        show_default=True,
        help="Whose tiles cannot answer a query.",
    )


def json_option(command: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")(command)


def tile_request(tile_px: int | None, tile_mpp: float | None, stride: int, min_tissue: float) -> "TileRequest":
    """The tiling that the options ask for."""
    from histokin.pipeline.stages import TileRequest

    return TileRequest(tile_px, tile_mpp, stride, min_tissue)


def show_json(document: dict[str, Any]) -> None:
    """Print one JSON object."""
    from histokin.artefacts import plain

    click.echo(json.dumps(plain(document), indent=1, ensure_ascii=False))


def cohort_rows(cohort: "Cohort") -> list[dict[str, Any]]:
    """What `info` says of each slide."""
    return [
        {
            "slide": r.slide,
            "patient": r.patient,
            "state": r.state,
            "reason": r.reason,
            "path": r.path,
            "width": r.width,
            "height": r.height,
            "mpp": r.mpp,
            "mpp_source": r.mpp_source,
            "levels": r.n_levels,
            "vendor": r.vendor,
            "labels": r.labels,
        }
        for r in cohort.records
    ]


def show_exclusions(cohort: "Cohort") -> None:
    """Say on stderr what to know of the cohort, and name the slides that could not be used; at most 20 of each."""
    for note in cohort.notes[:20]:
        click.echo(f"note: {note}", err=True)
    left_out = [r for r in cohort.records if not r.is_usable]
    for record in left_out[:20]:
        click.echo(f"left out: {record.slide} [{record.state}] {record.reason}", err=True)
    if len(left_out) > 20:
        click.echo(f"left out: {len(left_out) - 20} more, see `histokin info`", err=True)


def exit_code(cohort: "Cohort") -> int:
    """0 if every slide was used, 3 if some were not."""
    return 0 if len(cohort.usable) == len(cohort) else 3


def run_name(ctx: click.Context, param: click.Parameter, value: str) -> str:  # noqa: ARG001 - click's signature
    """A run's name is one folder name."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", value):
        raise click.BadParameter("use letters, digits and _ . + - only")
    return value


def recipe_options(command: F) -> F:
    """What is trained and how long: --recipe, --set, --budget, --steps, --seed."""
    for option in (
        click.option("--seed", type=int, help="Of training [default: the recipe's]."),
        click.option("--steps", type=click.IntRange(1), help="Length in steps: repeatable byte for byte."),
        click.option("--budget", help="Length in time, such as 90s, 5m or 2h [default: the recipe's]."),
        click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a recipe key; repeatable."),
        click.option("--recipe", default="simclr", show_default=True, help="A shipped recipe or a YAML file."),
    ):
        command = option(command)
    return command


def recipe_with(
    recipe: str, settings: tuple[str, ...], *, budget: str | None, steps: int | None, seed: int | None
) -> "Recipe":
    """The recipe that the options ask for."""
    from histokin.learn import override, read_recipe

    if budget and steps:
        raise click.UsageError("Give --budget or --steps, not both.")
    # A length in time replaces a recipe's own length in steps.
    flags = {"run.budget": budget and json.dumps(budget), "run.steps": "auto" if budget else steps, "seed": seed}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    return override(read_recipe(recipe), [*settings, *given])


def show_outcome(outcome: "RunOutcome") -> None:
    """What a whole run came to: the figures, then where everything lies."""
    for note in outcome.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(outcome.assessment.text)
    work = outcome.work.root
    slide = outcome.tiling.records[0].slide
    click.echo(f"\nReport: {outcome.page}")
    click.echo(f"Next: open it, or histokin search {work} --slide {slide}")
