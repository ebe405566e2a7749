"""`histokin info`."""

from pathlib import Path

import click

from histokin.cli.options import SOURCE, cohort_rows, exit_code, json_option, show_json, source_options


@click.command()
@click.argument("slides", type=SOURCE)
@source_options
@json_option
def command(slides: Path, mpp: float | None, kind: str | None, tile_origin: str | None, as_json: bool) -> None:
    """List the slides under SLIDES (folder, CSV, slide or workspace): size, mpp, state and its reason."""
    from histokin.cohort import Cohort, take_inventory
    from histokin.errors import NoUsableSlide
    from histokin.progress import on_stderr
    from histokin.workspace import Workspace

    work = Workspace(slides)
    if work.marker.exists():
        cohort = Cohort.load(work.cohort)
    else:
        cohort = take_inventory(slides, mpp=mpp, kind=kind, origin=tile_origin, report=on_stderr())  # pyright: ignore[reportArgumentType] - click checked the words
    if as_json:
        show_json({"kind": cohort.kind, "notes": cohort.notes, "states": cohort.states, "slides": cohort_rows(cohort)})
    else:
        _show(cohort_rows(cohort))
        for note in cohort.notes:
            click.echo(f"note: {note}")
        states = ", ".join(f"{n} {state}" for state, n in cohort.states.items())
        click.echo(f"{len(cohort)} slides: {states}; {cohort.n_patients or 'unknown'} patients")
    try:
        cohort.require_usable()
    except NoUsableSlide as error:
        click.echo(f"histokin: {error}", err=True)
        raise SystemExit(1) from error
    raise SystemExit(exit_code(cohort))


def _show(rows: list[dict[str, object]]) -> None:
    width = max((len(str(row["slide"])) for row in rows), default=5)
    for row in rows:
        mpp = f"{row['mpp']:.4g}" if row["mpp"] else "-"
        size = f"{row['width']} x {row['height']}" if row["width"] else "-"
        line = f"{row['slide']!s:<{width}}  {row['state']!s:<11}  {size:<15}  mpp {mpp:<7}  {row['vendor']}"
        click.echo(line + (f"  {row['reason']}" if row["reason"] else ""))
