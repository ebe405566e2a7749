"""`histokin tile`."""

from pathlib import Path
from typing import Any

import click

from histokin.cli.options import (
    FOLDER,
    SOURCE,
    exit_code,
    json_option,
    show_exclusions,
    show_json,
    source_options,
    tile_options,
    tile_request,
)


@click.command()
@click.argument("slides", type=SOURCE)
@click.option("--out", type=FOLDER, required=True, help="The workspace.")
@source_options
@tile_options
@json_option
def command(
    slides: Path,
    out: Path,
    mpp: float | None,
    kind: str | None,
    tile_origin: str | None,
    as_json: bool,
    **tiles: Any,
) -> None:
    """Find the tissue of every slide and lay tiles on it."""
    from histokin.pipeline.stages import tile
    from histokin.progress import on_stderr

    tiling = tile(
        slides,
        out,
        request=tile_request(**tiles),
        mpp=mpp,
        kind=kind,  # pyright: ignore[reportArgumentType] - click checked the words
        origin=tile_origin,  # pyright: ignore[reportArgumentType]
        report=on_stderr(),
    )
    show_exclusions(tiling.cohort)
    if as_json:
        show_json(
            {
                "n_tiles": tiling.n_tiles,
                "spec": tiling.spec,
                "slides": [
                    {"slide": r.slide, "n_tiles": tiling.receipts[r.slide].facts["n_kept"]} for r in tiling.records
                ],
            }
        )
    else:
        click.echo(f"{tiling.n_tiles} tiles of {tiling.spec} on {len(tiling.records)} slides in {tiling.folder}")
        click.echo(f"Next: histokin pretrain {out}")
    raise SystemExit(exit_code(tiling.cohort))
