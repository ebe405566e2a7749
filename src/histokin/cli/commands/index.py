"""`histokin index`: build, check, show, remove, compact."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from histokin.cli.options import FOLDER, json_option, show_json

if TYPE_CHECKING:
    from histokin.pipeline.searching import Place

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def archive_options(command):  # noqa: ANN001, ANN201 - click's decorators change types
    """Which index is meant."""
    for option in (
        click.option("--labels", type=FILE, help="A CSV: slide, patient, labels [default: what the workspace knows]."),
        click.option("--index", help="Its name; of a folder of embeddings a path [default: the encoder's]."),
        click.option("--encoder", help="Whose embeddings, by name [default: the run `main`, else the only ones]."),
        click.argument("archive", type=FOLDER),
    ):
        command = option(command)
    return command


def _place(archive: Path, encoder: str | None, index: str | None, labels: Path | None) -> "Place":
    from histokin.pipeline.searching import find_place

    return find_place(archive, encoder=encoder, labels=labels, index=index)


@click.group()
def command() -> None:
    """Keep an index of an archive: a workspace, or a folder of embeddings of any tool."""


@command.command()
@archive_options
@json_option
def build(archive: Path, encoder: str | None, index: str | None, labels: Path | None, as_json: bool) -> None:
    """Make the index of ARCHIVE, or bring it up to date: new, changed and vanished slides."""
    from histokin.pipeline.indexing.build import build_index
    from histokin.progress import on_stderr

    place = _place(archive, encoder, index, labels)
    found = build_index(place.index, place.source, on_stderr())
    if as_json:
        show_json(found.to_json())
        return
    click.echo(found.text)
    click.echo(f"Next: histokin index check {archive}")


@command.command()
@archive_options
@click.option("--label", help="Column of slides that figures are about [default: diagnosis, else label].")
@click.option("--strategies", default="maxsim,mean,median_min", show_default=True, help="Of slide search, or all.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all draws.")
@json_option
def check(
    archive: Path,
    encoder: str | None,
    index: str | None,
    labels: Path | None,
    label: str | None,
    strategies: str,
    seed: int,
    as_json: bool,
) -> None:
    """Measure the index of ARCHIVE: recall, figures without the query's patient, speed, size, novelty threshold."""
    from histokin.pipeline.indexing.check import check_index
    from histokin.pipeline.stores import find_floors
    from histokin.progress import on_stderr
    from histokin.search.strategies import STRATEGIES

    names = tuple(STRATEGIES) if strategies == "all" else tuple(part.strip() for part in strategies.split(","))
    place = _place(archive, encoder, index, labels)
    floors = find_floors(place.source.store.folder) if place.work else None
    found = check_index(place.index, floors=floors, label=label, strategies=names, seed=seed, report=on_stderr())
    if as_json:
        show_json(found.to_json())
        return
    click.echo(found.text)


@command.command()
@archive_options
@click.argument("slides", nargs=-1, required=True)
@json_option
def remove(
    archive: Path, encoder: str | None, index: str | None, labels: Path | None, slides: tuple[str, ...], as_json: bool
) -> None:
    """Take SLIDES out of the index of ARCHIVE at once; `build` puts back what the embeddings still hold."""
    from histokin.search.index import delete_slides

    done = delete_slides(_place(archive, encoder, index, labels).index, slides)
    if as_json:
        show_json({"version": done.version, "removed": list(slides)})
        return
    click.echo(f"{len(slides)} slides removed, version {done.version}")


@command.command()
@archive_options
@json_option
def compact(archive: Path, encoder: str | None, index: str | None, labels: Path | None, as_json: bool) -> None:
    """Merge small segments of the index of ARCHIVE, and write those anew that have many deleted tiles."""
    from histokin.search.index import compact as merge

    done = merge(_place(archive, encoder, index, labels).index, whole=True)
    if as_json:
        show_json({"version": done.version, "merged": done.merged, "written": done.written})
        return
    click.echo(f"{done.merged} segments became {done.written}, version {done.version}")


@command.command()
@archive_options
@click.option("--verify", is_flag=True, help="Read every file and compare it with its digest.")
@json_option
def info(
    archive: Path, encoder: str | None, index: str | None, labels: Path | None, verify: bool, as_json: bool
) -> None:
    """Show what the index of ARCHIVE holds, and whether it is up to date."""
    from histokin.pipeline.indexing.describing import describe_index

    found = describe_index(_place(archive, encoder, index, labels), verify=verify)
    if as_json:
        show_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name:<12} {value}")
