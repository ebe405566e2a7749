"""`histokin embed`."""

from pathlib import Path

import click

from histokin.cli.options import FOLDER, exit_code, json_option, show_exclusions, show_json


@click.command()
@click.argument("work", type=FOLDER)
@click.option(
    "--encoder", help="A run, an encoder folder, a published encoder or a timm name [default: main, or the only run]."
)
@click.option("--weights", type=click.Path(exists=True, path_type=Path), help="Weights file for such a name.")
@click.option("--any-field", is_flag=True, help="Let a convolutional encoder take tiles of another size at its mpp.")
@click.option("--floors/--no-floors", default=True, show_default=True, help="Embed by the floors as well.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--dry-run", is_flag=True, help="Show what would be embedded, do nothing.")
@json_option
def command(
    work: Path,
    encoder: str | None,
    weights: Path | None,
    any_field: bool,
    floors: bool,
    device: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Turn the tiles of the workspace WORK into vectors, one HDF5 file a slide."""
    from histokin.embeddings import count_vectors
    from histokin.encoders.published import advice
    from histokin.pipeline.choosing import choose_encoder
    from histokin.pipeline.run import embed_with_floors
    from histokin.pipeline.stages import embed, open_tiling
    from histokin.progress import on_stderr
    from histokin.workspace import Workspace

    place = Workspace.open(work)
    tiling = open_tiling(place)
    if weights and not encoder:
        raise click.UsageError("--weights belong to a published encoder or a timm network: name it with --encoder.")
    chosen = choose_encoder(place, tiling, encoder, weights=weights, device=device, any_field=any_field)
    if remark := advice(chosen.name, tiling.spec.mpp):
        click.echo(f"note: {remark}", err=True)
    if dry_run:
        plan = {"n_tiles": tiling.n_tiles, "dim": chosen.dim, "n_bytes": tiling.n_tiles * (chosen.dim * 2 + 24)}
        if as_json:
            show_json({"would_embed": plan, "encoder": chosen.name})
        else:
            size = f"{chosen.dim}-d, {plan['n_bytes'] / 1e6:.1f} MB"
            click.echo(f"would embed {tiling.n_tiles} tiles by {chosen.name} ({size})")
        return
    if floors:
        store, _, tiling = embed_with_floors(place, tiling, chosen, device=device, report=on_stderr())
    else:
        outcome, tiling = embed(place, tiling, [chosen], on_stderr())
        store = outcome.folders[chosen.name]
    show_exclusions(tiling.cohort)
    n_tiles = count_vectors(store)
    if as_json:
        show_json({"encoder": chosen.name, "fingerprint": chosen.fingerprint, "store": store, "n_tiles": n_tiles})
    else:
        click.echo(f"{n_tiles} tiles by {chosen.name} in {store}")
        click.echo(f"Next: histokin evaluate {work}, or histokin search {work} --slide ID")
    raise SystemExit(exit_code(tiling.cohort))
