"""`histokin evaluate`."""

from pathlib import Path

import click

from histokin.cli.options import FOLDER, json_option, leave_out_option, show_json


@click.command()
@click.argument("work", type=FOLDER)
@click.option("--encoder", help="Whose embeddings, by name [default: the run `main`, else the only ones].")
@click.option("--label", help="Column of labels, of tiles or slides [default: label, then diagnosis].")
@leave_out_option
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
def command(work: Path, encoder: str | None, label: str | None, leave_out: str, seed: int, as_json: bool) -> None:
    """Measure retrieval on the workspace WORK under honest exclusion, beside chance and the floors."""
    from histokin.pipeline.evaluation import EvaluationSpec, evaluate
    from histokin.pipeline.searching import find_floors, find_store
    from histokin.pipeline.stages import open_tiling
    from histokin.progress import on_stderr
    from histokin.workspace import Workspace

    place = Workspace.open(work)
    tiling = open_tiling(place)
    store = find_store(place, tiling, encoder)
    spec = EvaluationSpec(label=label, leave_out=leave_out, seed=seed)  # pyright: ignore[reportArgumentType] - click checked the word
    found = evaluate(place, tiling, store, find_floors(store), spec, on_stderr())
    if as_json:
        show_json({"folder": found.folder, **found.document})
    else:
        click.echo(found.to_text())
        click.echo(f"\nWritten to {found.folder}. Next: histokin report {work}")
