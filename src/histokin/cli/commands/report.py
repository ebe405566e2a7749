"""`histokin report`."""

from pathlib import Path

import click

from histokin.cli.options import FOLDER, json_option, leave_out_option, show_json


@click.command()
@click.argument("work", type=FOLDER)
@click.option("--encoder", help="Whose embeddings, by name [default: the run `main`, else the only ones].")
@click.option("--label", help="Column of labels [default: label, then diagnosis].")
@click.option("--map", "map_method", type=click.Choice(["pca", "umap"]), default="pca", show_default=True)
@click.option("--title", help="Of the page [default: the workspace's name].")
@leave_out_option
@click.option("--seed", type=int, default=0, show_default=True, help="Of sampling, bootstrap and examples.")
@json_option
def command(
    work: Path,
    encoder: str | None,
    label: str | None,
    map_method: str,
    title: str | None,
    leave_out: str,
    seed: int,
    as_json: bool,
) -> None:
    """Write the report page of the workspace WORK from what it holds."""
    from histokin.pipeline.reporting import report_workspace
    from histokin.progress import on_stderr
    from histokin.workspace import Workspace

    page = report_workspace(
        Workspace.open(work),
        encoder=encoder,
        label=label,
        map_method=map_method,  # pyright: ignore[reportArgumentType] - click checked the word
        title=title,
        leave_out=leave_out,  # pyright: ignore[reportArgumentType]
        seed=seed,
        report=on_stderr(),
    )
    if as_json:
        show_json({"page": page, "json": page.with_name("report.json")})
    else:
        click.echo(f"Report: {page}")
