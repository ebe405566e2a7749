"""`histokin search`."""

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from histokin.cli.options import FOLDER, json_option, leaving_out, show_json

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
Callback = Callable[[click.Context, click.Parameter, Any], Any]


def _numbers(n: int) -> Callback:
    """So many numbers with commas between them."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | None:  # noqa: ARG001
        if value is None:
            return None
        try:
            found = tuple(float(part) for part in value.split(","))
        except ValueError:
            found = ()
        if len(found) != n:
            raise click.BadParameter(f"give {n} numbers with commas between them, in um.")
        return found

    return read


def _conditions(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Any:  # noqa: ARG001
    parts = [text.partition("=") for text in value]
    if not all(name and values for name, _, values in parts):
        raise click.BadParameter("name a column and its values, such as organ=colon,rectum.")
    return tuple((name, tuple(values.split(","))) for name, _, values in parts)


def _marks(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Any:  # noqa: ARG001
    parts = [text.rpartition(":") for text in value]
    if not all(slide and tile.isdigit() for slide, _, tile in parts):
        raise click.BadParameter("name a tile as SLIDE:NUMBER.")
    return tuple((slide, int(tile)) for slide, _, tile in parts)


def question_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What is asked for."""
    for option in (
        click.option("--device", default="auto", show_default=True, help="That embeds what is asked from outside."),
        click.option("--weights", type=FILE, help="Of an encoder that is not known by its name."),
        click.option("--patient", default="", help="Whose a file is: what the archive has of them cannot answer."),
        click.option("--mpp", type=float, help="Level-0 pixel size in um of a file that states none."),
        click.option("--picture", type=FILE, help="A picture."),
        click.option("--outside", type=FILE, help="A slide that is not in the archive."),
        click.option("--box", "box_um", metavar="X,Y,W,H", callback=_numbers(4), help="Of the slide: a region, in um."),
        click.option("--at", "at_um", metavar="X,Y", callback=_numbers(2), help="Of the slide: the tile there, in um."),
        click.option("--tile", type=int, help="Of the slide: one tile, by number."),
        click.option("--slide", default="", help="A slide of the archive, by its id."),
    ):
        command = option(command)
    return command


def wish_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """How answers are wanted."""
    for option in (
        click.option("--exact", is_flag=True, help="Compare with everything, also what an index would not look at."),
        click.option("--label", help="Column that names the answers; retccl and fish rank by it."),
        click.option(
            "--reject", "rejects", multiple=True, metavar="SLIDE:TILE", callback=_marks, help="A hit to move away from."
        ),
        click.option(
            "--pin", "pins", multiple=True, metavar="SLIDE:TILE", callback=_marks, help="A hit to move towards."
        ),
        click.option(
            "--without",
            "drop",
            multiple=True,
            metavar="COLUMN=A[,B]",
            callback=_conditions,
            help="These do not.",
        ),
        click.option(
            "--where", "keep", multiple=True, metavar="COLUMN=A[,B]", callback=_conditions, help="Only these answer."
        ),
        leaving_out("patient", "slide", "self"),
        click.option("--strategy", default="maxsim", show_default=True, help="How slides are compared."),
        click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Answers."),
        click.option("--level", type=click.Choice(["tile", "region", "slide"]), help="Of answers [default: as asked]."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("archive", type=FOLDER)
@question_options
@wish_options
@click.option("--encoder", help="Whose embeddings, by name [default: the run `main`, else the only ones].")
@click.option("--labels", type=FILE, help="A CSV: slide, patient, labels [default: what the workspace knows].")
@click.option("--index", help="Name of the index; of a folder of embeddings its folder [default: the encoder's].")
@click.option("--explain", type=int, metavar="RANK", help="Say why this answer is where it is.")
@click.option("--out", type=FOLDER, help="Write page, JSON, CSV and a GeoJSON a slide for QuPath here.")
@json_option
def command(
    archive: Path,
    encoder: str | None,
    labels: Path | None,
    index: str | None,
    explain: int | None,
    out: Path | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Show where tissue is found elsewhere in ARCHIVE, with the evidence.

    ARCHIVE is a workspace, or a folder of HDF5 embeddings of any tool. The query's own patient does not answer.
    """
    from histokin.pipeline.searching import Question, Wish, find_place, search_archive
    from histokin.progress import on_stderr

    wish = Wish(**{name: asked.pop(name) for name in Wish.__slots__})
    outside, picture = asked.pop("outside"), asked.pop("picture")
    if outside and picture:
        raise click.UsageError("--outside and --picture are two questions: ask one at a time.")
    found = search_archive(
        find_place(archive, encoder=encoder, labels=labels, index=index),
        Question(file=outside or picture, is_slide=bool(outside), **asked),
        wish,
        command=shlex.join(["histokin", *sys.argv[1:]]),
        is_pictured=out is not None,
        report=on_stderr(),
    )
    explained = None if explain is None else found.explain(explain)
    page = found.write(out) if out else None
    if as_json:
        show_json({**found.document.to_json(), "page": page, "explained": explained})
        return
    click.echo(found.text)
    if explained is not None:
        click.echo(f"\n{explained}")
    if page is not None:
        click.echo(f"\nPage: {page}")
