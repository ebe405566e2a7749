"""`histokin pretrain`."""

from pathlib import Path

import click

from histokin.cli.options import FOLDER, json_option, recipe_options, recipe_with, run_name, show_json


@click.command()
@click.argument("work", type=FOLDER)
@recipe_options
@click.option("--name", default="main", show_default=True, callback=run_name, help="Name of the run.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--dry-run", is_flag=True, help="Show the resolved recipe and what it would read, do nothing.")
@json_option
def command(
    work: Path,
    recipe: str,
    settings: tuple[str, ...],
    budget: str | None,
    steps: int | None,
    seed: int | None,
    name: str,
    device: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train an encoder on the tiles of the workspace WORK, without labels."""
    from histokin.pipeline.stages import open_tiling, pretrain
    from histokin.progress import on_stderr
    from histokin.workspace import Workspace

    chosen = recipe_with(recipe, settings, budget=budget, steps=steps, seed=seed)
    place = Workspace.open(work)
    tiling = open_tiling(place)
    if dry_run:
        from histokin.encoders.encoder import choose_device
        from histokin.learn import recipe_text, resolve_recipe

        resolved = resolve_recipe(chosen, tiling.spec.tile_px, choose_device(device))
        if as_json:
            show_json({"recipe": resolved, "n_tiles": tiling.n_tiles, "folder": place.run(name)})
            return
        click.echo(recipe_text(resolved))
        click.echo(f"would train on {tiling.n_tiles} tiles of {tiling.spec} and write {place.run(name)}")
        return
    result = pretrain(place, tiling, chosen, name, on_stderr(), device=device)
    if as_json:
        show_json({"run": name, "result": result})
        return
    for note in (*result.alarms, *result.notes):
        click.echo(f"note: {note}", err=True)
    click.echo(f"{result.steps} steps, {result.views} views, loss {result.loss:.3f}: {result.encoder}")
    click.echo(f"Next: histokin embed {work}")
