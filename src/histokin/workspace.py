"""Where everything is on disk: one folder, one layout, one format version.

WORK/
  histokin.json              format version, name
  cohort.parquet             slides, patients, labels, states
  thumbnails/ID.jpg  masks/ID.png
  tiles/SPEC/ID.parquet      one table a slide; current.json names the spec in use
  runs/NAME/                 recipe.yaml, metrics.jsonl, checkpoints/, encoder/
  embeddings/SPEC/ENCODER/ID.h5
  index/NAME/                search index of one store
  evaluation/NAME/
  mil/NAME/                  slide classifiers: splits, models, predictions
  cache/                     may be deleted at any time
  report/index.html          report/report.json
  log.jsonl
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from histokin.artefacts import append_line, sweep, write_json
from histokin.errors import WorkspaceError

FORMAT = "histokin-workspace"
FORMAT_MAJOR = 1


@dataclass(frozen=True, slots=True)
class Workspace:
    """Paths of one workspace; makes no folder until something is written."""

    root: Path

    @classmethod
    def create(cls, root: Path | str) -> "Workspace":
        """Open the workspace at `root`, making it if there is none; refuses a folder that holds something else."""
        work = cls(Path(root))
        if work.marker.exists():
            return cls.open(root)
        if work.root.exists() and not work.root.is_dir():
            raise WorkspaceError("this is a file, not a folder", work.root, "Choose another --out.")
        if work.root.exists() and any(p for p in work.root.iterdir() if not p.name.startswith(".")):
            raise WorkspaceError("the folder is not empty and is no workspace", work.root, "Choose another --out.")
        write_json(
            work.marker,
            {"format": FORMAT, "format_version": f"{FORMAT_MAJOR}.0", "name": work.root.resolve().name},
        )
        return work

    @classmethod
    def open(cls, root: Path | str) -> "Workspace":
        """Open an existing workspace and clear away what killed processes left.

        Raises:
            WorkspaceError: no workspace there, or one of a newer format.
        """
        work = cls(Path(root))
        if not work.marker.exists():
            raise WorkspaceError("no workspace here", work.root, "Make one with `histokin run SLIDES --out WORK`.")
        try:
            found = json.loads(work.marker.read_text(encoding="utf-8"))
            kind, found_version = found["format"], str(found["format_version"])
        except (ValueError, TypeError, KeyError) as error:
            raise WorkspaceError("histokin.json is damaged", work.root, "Restore it, or start a new folder.") from error
        if kind != FORMAT or found_version.partition(".")[0] != str(FORMAT_MAJOR):
            raise WorkspaceError(
                f"the workspace has format {kind} {found_version}, this program knows {FORMAT} {FORMAT_MAJOR}.x",
                work.root,
                "Open it with the histokin version that wrote it.",
            )
        sweep(work.root)
        return work

    @property
    def marker(self) -> Path:
        return self.root / "histokin.json"

    @property
    def cohort(self) -> Path:
        return self.root / "cohort.parquet"

    @property
    def tiling(self) -> Path:
        return self.root / "tiles" / "current.json"

    @property
    def thumbnails(self) -> Path:
        return self.root / "thumbnails"

    @property
    def masks(self) -> Path:
        return self.root / "masks"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def report(self) -> Path:
        return self.root / "report"

    def tiles(self, spec_id: str) -> Path:
        """Folder of the tile tables of one `TileSpec`."""
        return self.root / "tiles" / spec_id

    def run(self, name: str) -> Path:
        """Folder of one pretraining run."""
        return self.root / "runs" / name

    def embeddings(self, spec_id: str, encoder_id: str) -> Path:
        """Folder of one embedding store: the tiles' spec, then the encoder's short fingerprint."""
        return self.root / "embeddings" / spec_id / encoder_id

    def index(self, name: str) -> Path:
        """Folder of one search index."""
        return self.root / "index" / name

    def evaluation(self, name: str) -> Path:
        """Folder of one evaluation."""
        return self.root / "evaluation" / name

    def mil(self, name: str) -> Path:
        """Folder of one run of slide classifiers, or of a comparison of them."""
        return self.root / "mil" / name

    def log(self, event: str, **facts: Any) -> None:
        """Note an event with the time; `log.jsonl` is the only place where clock times and rates are kept."""
        append_line(self.root / "log.jsonl", {"time": round(time.time(), 3), "event": event, **facts})
