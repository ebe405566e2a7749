"""`histokin pretrain`."""

import os
from contextlib import nullcontext
from pathlib import Path

import click

from histokin.cli.options import FOLDER, json_option, recipe_options, recipe_with, run_name, show_json


@click.command()
@click.argument("work", type=FOLDER)
@recipe_options
@click.option("--name", default="main", show_default=True, callback=run_name, help="Name of the run.")
@click.option("--also", type=FOLDER, multiple=True, help="Train on this workspace's tiles as well; repeatable.")
@click.option("--without", multiple=True, metavar="UNIT=A,B", help="Slides, patients or sites kept out of training.")
@click.option("--max-tiles", type=click.IntRange(8), help="Train on so many tiles, drawn evenly from all.")
@click.option("--tensorboard", type=FOLDER, help="Also write curves for TensorBoard here.")
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
    also: tuple[Path, ...],
    without: tuple[str, ...],
    max_tiles: int | None,
    tensorboard: Path | None,
    device: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train an encoder on the tiles of the workspace WORK, without labels (but for the recipe supervised).

    Under torchrun the processes share each batch; the result is that of one process.
    """
    from histokin.learn.distributed import World, start
    from histokin.learn.tensorboard import on_tensorboard
    from histokin.pipeline.choosing import DEFAULT_RUN
    from histokin.pipeline.packing import Without
    from histokin.pipeline.stages import open_tiling, pretrain
    from histokin.progress import on_stderr
    from histokin.workspace import Workspace

    chosen = recipe_with(recipe, settings, budget=budget, steps=steps, seed=seed)
    place = Workspace.open(work)
    tiling = open_tiling(place)
    if dry_run:
        from histokin.encoders.encoder import choose_device
        from histokin.learn import recipe_text, resolve_recipe

        tilings = [tiling, *(open_tiling(Workspace.open(other)) for other in also)]
        n_tiles = sum(each.n_tiles for each in tilings)
        n_tiles = min(n_tiles, max_tiles or n_tiles)
        resolved = resolve_recipe(chosen, tiling.spec.tile_px, n_tiles, choose_device(device))
        if as_json:
            show_json({"recipe": resolved, "n_tiles": n_tiles, "folder": place.run(name)})
            return
        click.echo(recipe_text(resolved))
        some = " at most" if without else ""
        click.echo(f"would train on{some} {n_tiles} tiles of {tiling.spec} and write {place.run(name)}")
        return
    world = World(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))  # as torchrun sets them
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if world.size > 1 and device == "auto":
        device = _own_device(local_rank)
    watched = on_tensorboard(tensorboard) if tensorboard and world.is_main else nullcontext()
    with start(world, local_rank=local_rank, backend="gloo" if device == "cpu" else "auto"), watched as on_event:
        result = pretrain(
            place,
            tiling,
            chosen,
            name,
            on_stderr(),
            device=device,
            also=also,
            without=Without.parse(without),
            at_most=max_tiles,
            on_event=on_event,
        )
    if not world.is_main:
        return
    if as_json:
        show_json({"run": name, "result": result})
        return
    for note in (*result.alarms, *result.notes):
        click.echo(f"note: {note}", err=True)
    click.echo(f"{result.steps} steps, {result.views} views, loss {result.loss:.3f}: {result.encoder}")
    click.echo(f"Next: histokin embed {work}" + ("" if name == DEFAULT_RUN else f" --encoder {name}"))


def _own_device(local_rank: int) -> str:
    import torch

    return f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"
