"""`histokin search`."""

from pathlib import Path

import click

from histokin.cli.options import FOLDER, json_option, show_json


@click.command()
@click.argument("work", type=FOLDER)
@click.option("--slide", required=True, help="The slide that is asked for.")
@click.option("--tile", type=int, help="One of its tiles, by number [default: the whole slide].")
@click.option("--level", type=click.Choice(["tile", "slide"]), help="What is answered [default: as asked].")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Answers.")
@click.option(
    "--strategy",
    type=click.Choice(["mean", "median_min"]),
    default="median_min",
    show_default=True,
    help="How slides are compared.",
)
@click.option(
    "--exclude",
    type=click.Choice(["patient", "slide", "self"]),
    default="patient",
    show_default=True,
    help="Whose tiles cannot be answers.",
)
@click.option("--encoder", help="Whose embeddings, by name [default: the run `main`, else the only ones].")
@json_option
def command(
    work: Path,
    slide: str,
    tile: int | None,
    level: str | None,
    k: int,
    strategy: str,
    exclude: str,
    encoder: str | None,
    as_json: bool,
) -> None:
    """Show where a tile or slide of the workspace WORK is found elsewhere, with the evidence."""
    from histokin.pipeline.searching import Query, search
    from histokin.pipeline.stages import open_tiling
    from histokin.workspace import Workspace

    place = Workspace.open(work)
    hits = search(
        place,
        open_tiling(place),
        Query(slide, tile),
        k=k,
        level=level or ("slide" if tile is None else "tile"),  # pyright: ignore[reportArgumentType] - click checked the words
        strategy=strategy,  # pyright: ignore[reportArgumentType]
        exclude=exclude,  # pyright: ignore[reportArgumentType]
        encoder=encoder,
    )
    rows = hits.to_rows()
    if as_json:
        show_json(
            {"query": {"slide": slide, "tile": tile}, "strategy": hits.strategy, "notes": hits.notes, "hits": rows}
        )
        return
    for row in rows:
        place_text = f"  tile {row['tile']:<6} at {row['x']}, {row['y']}" if row["tile"] >= 0 else ""
        click.echo(f"{row['rank']:>3}  {row['score']:.4f}  {row['slide']:<24} {row['label']:<16}{place_text}")
        for pair in row.get("evidence", [])[:2]:
            click.echo(f"        query tile {pair['query_tile']} met tile {pair['tile']} ({pair['score']:.3f})")
    for note in hits.notes:
        click.echo(f"note: {note}")
    if exclude != "patient":
        click.echo(f"note: only the query's {exclude} was left out; answers may be of the same patient")
