"""Which encoder a command means: a run of the workspace, a folder, a published encoder, or a timm network."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from histokin.errors import EncoderError
from histokin.tiles import Tiling
from histokin.workspace import Workspace

if TYPE_CHECKING:
    from histokin.encoders import Encoder

DEFAULT_RUN = "main"


def run_names(work: Workspace) -> list[str]:
    """The finished runs of a workspace."""
    return sorted(path.parent.parent.name for path in (work.root / "runs").glob("*/encoder/card.json"))


def run_of(work: Workspace, fingerprint: str) -> str | None:
    """The run whose encoder has this fingerprint, None if it was not trained here."""
    return next((name for name in run_names(work) if run_fingerprint(work, name) == fingerprint), None)


def run_fingerprint(work: Workspace, name: str) -> str:
    """The fingerprint of a finished run's encoder; no network is loaded."""
    return json.loads((work.run(name) / "encoder" / "card.json").read_text(encoding="utf-8"))["fingerprint"]


def choose_encoder(
    work: Workspace,
    tiling: Tiling,
    name: str | None = None,
    *,
    weights: Path | None = None,
    device: str = "auto",
    any_field: bool = False,
) -> "Encoder":
    """Load the encoder that is meant.

    Args:
        work: the workspace.
        tiling: its tiles; the encoder must be for such tiles.
        name: a run's name, an encoder folder, a published encoder or a timm name; None takes the run `main`, or the
            only one.
        weights: a weights file for a published encoder or a timm name.
        device: torch's name of a device.
        any_field: see `load_encoder`.

    Raises:
        EncoderError: none is meant, or it is for other tiles.
    """
    from histokin.encoders import load_encoder

    runs = run_names(work)
    if name is None:
        if not runs:
            raise EncoderError(
                "the workspace has no finished run", work.root, "Run `histokin pretrain WORK`, or name an --encoder."
            )
        if DEFAULT_RUN not in runs and len(runs) > 1:
            raise EncoderError(f"there are several runs: {', '.join(runs)}", work.root, "Choose one with --encoder.")
        name = DEFAULT_RUN if DEFAULT_RUN in runs else runs[0]
    target: Path | str = work.run(name) / "encoder" if name in runs else name
    return load_encoder(
        target,
        tile_px=tiling.spec.tile_px,
        mpp=tiling.spec.mpp,
        device=device,
        weights=weights,
        any_field=any_field,
    )
