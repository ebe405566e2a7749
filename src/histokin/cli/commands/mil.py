"""`histokin mil`: train, predict, heatmap, compare."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from histokin.cli.options import FOLDER, json_option, run_name, show_json

if TYPE_CHECKING:
    from histokin.mil.training import MilSpec
    from histokin.pipeline.mil import MilOutcome

EXCLUSIONS = 3  # done, but of some slides nothing could be told
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MODELS = "abmil, acmil, clam_mb, clam_sb, dsmil, max, mean, mil_rnn, transmil"


def _name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    return None if value is None else run_name(ctx, param, value)


def task_options(command):  # noqa: ANN001, ANN201 - click's decorators change types
    """What is told of slides, and how it is judged."""
    for option in (
        click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ..."),
        click.option("--allow-shared-tiles", is_flag=True, help="Let slides of two parts hold the very same tile."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of training, draws and intervals."),
        click.option("--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change a setting; repeatable."),
        click.option("--seeds", "n_seeds", type=click.IntRange(1), help="Models of each inner split [default: 3]."),
        click.option("--epochs", type=click.IntRange(1), help="At most [default: 100, or the preset's]."),
        click.option(
            "--splits",
            type=click.Path(exists=True, path_type=Path),
            help="Outer folds: a CSV, or a folder of CLAM's splits_0.csv, ... [default: made].",
        ),
        click.option("--folds", "n_folds", type=click.IntRange(2), help="Of whole patients [default: 5]."),
        click.option(
            "--leave-out",
            type=click.Choice(["patient", "site"]),
            default="patient",
            show_default=True,
            help="What no two parts share: folds of patients, or one site after the other.",
        ),
        click.option("--preset", type=click.Choice(["default", "faithful"]), default="default", show_default=True),
        click.option(
            "--target",
            type=click.Choice(["classes", "multilabel", "survival", "regression"]),
            default="classes",
            show_default=True,
        ),
        click.option("--labels", type=FILE, help="A CSV: slide, patient, site, labels [default: the workspace's]."),
        click.option(
            "--label", required=True, help="Column of slides; of survival time,event; of multilabel all, with commas."
        ),
    ):
        command = option(command)
    return command


def _command() -> str:
    return shlex.join(["histokin", *sys.argv[1:]])


def _show(found: "MilOutcome", hint: str, *, as_json: bool) -> None:
    if as_json:
        show_json({"folder": found.folder, **found.document})
        return
    click.echo(found.text)
    click.echo(f"\nPage: {found.page}")
    if hint:
        click.echo(f"Next: {hint}")


@click.group()
def command() -> None:
    """Classify slides from their embeddings: an archive is a workspace, or a folder of embeddings of any tool."""


@command.command()
@click.argument("archive", type=FOLDER)
@click.option("--model", default="abmil", show_default=True, help=f"Of {MODELS}.")
@click.option("--encoder", help="Whose embeddings, by name [default: the run `main`, else the only ones].")
@click.option("--name", callback=_name, help="Of the run [default: label, model and encoder].")
@click.option("--out", type=FOLDER, help="The run's folder [default: in the workspace].")
@task_options
@json_option
def train(
    archive: Path,
    model: str,
    encoder: str | None,
    name: str | None,
    out: Path | None,
    label: str,
    target: Any,
    leave_out: Any,
    allow_shared_tiles: bool,
    labels: Path | None,
    splits: Path | None,
    device: str,
    as_json: bool,
    **asked: Any,
) -> None:
    """Train classifiers of ARCHIVE's slides, and judge them on patients that they have not seen.

    Nested cross-validation first, then an ensemble on all slides for new ones. Run again to go on, or to read what is
    done.
    """
    from histokin.pipeline.mil import MilRequest, train_classifiers
    from histokin.progress import on_stderr

    found = train_classifiers(
        archive,
        MilRequest(label, target, leave_out, _spec(model, **asked), allow_shared_tiles),
        encoder=encoder,
        labels=labels,
        splits=splits,
        name=name,
        out=out,
        device=device,
        report=on_stderr(),
        command=_command(),
    )
    _show(found, f"histokin mil predict ARCHIVE --with {found.folder} --out OUT", as_json=as_json)


@command.command()
@click.argument("archive", type=FOLDER)
@click.option("--with", "trained", type=FOLDER, required=True, help="The run, such as WORK/mil/NAME.")
@click.option("--encoder", help="Whose embeddings, by name [default: the run's encoder].")
@click.option("--labels", type=FILE, help="A CSV: slide, patient, labels; with the run's label figures are made.")
@click.option("--out", type=FOLDER, required=True, help="Where tables and page go.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@json_option
def predict(
    archive: Path,
    trained: Path,
    encoder: str | None,
    labels: Path | None,
    out: Path,
    device: str,
    as_json: bool,
) -> None:
    """Tell of each slide and patient of ARCHIVE what a run's classifiers say; CSV, Parquet and a page."""
    from histokin.pipeline.mil import predict_archive
    from histokin.progress import on_stderr

    found = predict_archive(
        archive,
        trained,
        out,
        encoder=encoder,
        labels=labels,
        device=device,
        report=on_stderr(),
        command=_command(),
    )
    _show(found, "", as_json=as_json)
    if found.left_out:
        raise SystemExit(EXCLUSIONS)


@command.command()
@click.argument("archive", type=FOLDER)
@click.option("--with", "trained", type=FOLDER, required=True, help="The run, such as WORK/mil/NAME.")
@click.option("--slide", "slides", multiple=True, required=True, help="To be mapped; repeatable.")
@click.option("--class", "of", help="Whose maps are drawn [default: the class that is said of each slide].")
@click.option("--encoder", help="Whose embeddings, by name [default: the run's encoder].")
@click.option("--labels", type=FILE, help="A CSV: slide, patient, labels.")
@click.option("--out", type=FOLDER, required=True, help="Where pictures, GeoJSON, tables and page go.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ...")
@json_option
def heatmap(
    archive: Path,
    trained: Path,
    slides: tuple[str, ...],
    of: str | None,
    encoder: str | None,
    labels: Path | None,
    out: Path,
    device: str,
    as_json: bool,
) -> None:
    """Map what a run's classifiers looked at on slides of ARCHIVE: PNG, QuPath GeoJSON, top tiles, tile values.

    Slides that the run was judged on are mapped by the models that had not seen them.
    """
    from histokin.pipeline.mil import map_slides
    from histokin.progress import on_stderr

    found = map_slides(
        archive,
        trained,
        slides,
        out,
        of=of,
        encoder=encoder,
        labels=labels,
        device=device,
        report=on_stderr(),
        command=_command(),
    )
    _show(found, "", as_json=as_json)


@command.command()
@click.argument("archives", metavar="ARCHIVE...", type=FOLDER, nargs=-1, required=True)
@click.option(
    "--models", default="mean,max,abmil,clam_sb,dsmil,transmil,mil_rnn", show_default=True, help=f"Of {MODELS}."
)
@click.option("--encoder", "encoders", multiple=True, help="Of the workspace; repeatable [default: the run `main`].")
@click.option("--name", callback=_name, help="Of the comparison [default: compare-LABEL].")
@click.option("--out", type=FOLDER, help="Its folder [default: in the workspace].")
@task_options
@json_option
def compare(
    archives: tuple[Path, ...],
    models: str,
    encoders: tuple[str, ...],
    name: str | None,
    out: Path | None,
    label: str,
    target: Any,
    leave_out: Any,
    allow_shared_tiles: bool,
    labels: Path | None,
    splits: Path | None,
    device: str,
    as_json: bool,
    **asked: Any,
) -> None:
    """Judge several models on several encoders' embeddings, on the same folds, beside the floors.

    ARCHIVES are a workspace, or folders of embeddings of the same slides.
    """
    from histokin.pipeline.mil import MilRequest, compare_classifiers
    from histokin.progress import on_stderr

    specs = [_spec(model.strip(), **asked) for model in models.split(",") if model.strip()]
    if not specs:
        raise click.UsageError("--models names none.")
    found = compare_classifiers(
        archives,
        MilRequest(label, target, leave_out, specs[0], allow_shared_tiles),
        specs,
        out,
        encoders=encoders,
        labels=labels,
        splits=splits,
        name=name,
        device=device,
        report=on_stderr(),
        command=_command(),
    )
    _show(found, "", as_json=as_json)


def _spec(model: str, *, preset: Any, changes: tuple[str, ...], **given: Any) -> "MilSpec":
    from histokin.pipeline.mil import spec_of

    return spec_of(model, preset, changes, **given)
