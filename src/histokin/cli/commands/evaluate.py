"""`histokin evaluate`."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from histokin.cli.options import FOLDER, json_option, leaving_out, show_json


def _listed(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:  # noqa: ARG001 - click's signature
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _condition(ctx: click.Context, param: click.Parameter, value: str) -> str:  # noqa: ARG001 - click's signature
    if value and not all(value.partition("=")):
        raise click.BadParameter("name a column and its value, such as split=test.")
    return value


@click.command()
@click.argument("stores", metavar="STORE...", type=FOLDER, nargs=-1, required=True)
@click.option("--encoder", "encoders", multiple=True, help="Of the workspace; repeatable [default: the run `main`].")
@click.option("--label", help="Column of labels, of tiles or slides [default: label, then diagnosis].")
@click.option(
    "--labels",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="A CSV: slide (for tiles tile_id, or x and y), patient, site, labels [default: what the workspace knows].",
)
@click.option(
    "--splits",
    type=click.Path(exists=True, path_type=Path),
    help="A folder of CLAM's splits_0.csv, ..., or a CSV: probes are judged on these too.",
)
@click.option(
    "--protocol",
    "protocols",
    default="retrieval,slides,label-free",
    show_default=True,
    callback=_listed,
    help="Names with commas between them, or all; see docs/evaluation.md.",
)
@leaving_out("patient", "slide", "region", "site", "self")
@click.option(
    "--queries", default="", metavar="COLUMN=VALUE", callback=_condition, help="Only these ask in searches [all]."
)
@click.option(
    "--database", default="", metavar="COLUMN=VALUE", callback=_condition, help="Only these answer searches [all]."
)
@click.option(
    "--vote",
    type=click.Choice(["rank", "strict", "anytie", "smallest", "fish"]),
    default="rank",
    show_default=True,
    help="Rule of majority votes.",
)
@click.option("--k", "k", default="1,3,5", show_default=True, callback=_listed, help="Lengths of the answer lists.")
@click.option("--map", "map_method", type=click.Choice(["pca", "umap"]), default="pca", show_default=True)
@click.option("--out", type=FOLDER, help="Where results go [default: into the workspace].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of sampling, bootstrap and permutations.")
@json_option
def command(
    stores: tuple[Path, ...],
    encoders: tuple[str, ...],
    labels: Path | None,
    splits: Path | None,
    k: tuple[str, ...],
    map_method: Any,
    out: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Judge embeddings under honest exclusion, beside chance and the floors.

    STORE is a workspace, or a folder of HDF5 embeddings: ours, or of CLAM, TRIDENT, STAMP or torchmil. Several stores
    of the same slides are judged side by side.
    """
    from histokin.pipeline.evaluation import EvaluationSpec, evaluate_embeddings
    from histokin.progress import on_stderr

    if not k or not all(part.isdigit() and int(part) > 0 for part in k):
        raise click.UsageError("--k takes whole numbers with commas between them, such as 1,3,5.")
    found = evaluate_embeddings(
        stores,
        EvaluationSpec(k=tuple(sorted({int(part) for part in k})), **asked),
        out=out,
        labels=labels,
        splits=splits,
        encoders=encoders,
        map_method=map_method,
        report=on_stderr(),
        command=shlex.join(["histokin", *sys.argv[1:]]),
    )
    if as_json:
        show_json({"folder": found.folder, **found.document})
    else:
        click.echo(found.text)
        click.echo(f"\nPage: {found.page}")
