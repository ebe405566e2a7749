"""What a run left for others to use: its classifiers, what they were asked, and which slides they have seen."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from histokin.embeddings import short_id
from histokin.errors import TrainingError
from histokin.evaluate.splits import SplitTable, splits_from_csv
from histokin.mil.training import Ensemble, read_ensemble
from histokin.pipeline.mil.bags import Bags, open_bags
from histokin.pipeline.mil.outcome import REQUEST
from histokin.pipeline.mil.training import ENSEMBLE
from histokin.pipeline.stages import open_tiling
from histokin.progress import Reporter, silent
from histokin.report.mil.document import Classifier, Kind
from histokin.workspace import Workspace


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A finished run of `mil train`.

    Attributes:
        folder: of it.
        ensemble: trained on all its slides.
        request: what was asked, as plain data.
        splits: who was held out when.
        limit: end of the scale of contributions that its page has; None where it has none.
    """

    folder: Path
    ensemble: Ensemble
    request: dict[str, Any]
    splits: SplitTable
    limit: float | None

    @property
    def model(self) -> str:
        """Name of the model."""
        return str(self.request["spec"]["model"])

    @property
    def kind(self) -> Kind:
        """Of the targets."""
        known: dict[str, Kind] = {name: name for name in get_args(Kind)}
        return known[self.ensemble.kind]

    def fold_of(self, slide: str) -> Ensemble | None:
        """The classifiers that were trained while this slide was held out; None for a new slide."""
        rows = [row for row, item in enumerate(self.splits.item) if item == slide and self.splits.part[row] == "test"]
        if not rows:
            return None
        return read_ensemble(self.folder / f"fold-{self.splits.repeat[rows[0]]}-{self.splits.fold[rows[0]]}")

    def has_seen(self, slides: Iterable[str], patients: Iterable[str]) -> list[bool]:
        """Of each slide whether it, or its patient, was trained on."""
        seen_slides, seen_patients = set(self.splits.slide.tolist()), set(self.splits.patient.tolist())
        return [slide in seen_slides or who in seen_patients for slide, who in zip(slides, patients, strict=True)]


def read_run(folder: Path) -> Run:
    """A run from its folder.

    Raises:
        TrainingError: it is none, or not finished.
    """
    try:
        request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
        splits = splits_from_csv((folder / "splits.csv").read_text(encoding="utf-8"))
        finished = json.loads((folder / "mil.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(
            "there is no finished run of `histokin mil train` here", folder, "Name its folder, such as WORK/mil/NAME."
        ) from error
    return Run(folder, read_ensemble(folder / ENSEMBLE), request, splits, finished["contribution_limit"])


def card_of(run: Run, bags: Bags) -> Classifier:
    """The run's classifiers on a page of their predictions."""
    spec = run.request["spec"]
    return Classifier(
        name=run.model,
        model=run.model,
        preset=str(spec["preset"]),
        encoder=bags.name,
        fingerprint=bags.source.fingerprint,
        n_folds=1,
        n_inner=int(spec["n_inner"]),
        n_seeds=int(spec["n_seeds"]),
        temperatures=[run.ensemble.temperature] if run.kind == "classes" else [],
        settings=spec,
        notes=list(run.ensemble.notes),
    )


def open_bags_for(
    run: Run,
    archive: Path,
    *,
    cache: Path,
    encoder: str | None = None,
    labels: Path | str | None = None,
    report: Reporter = silent,
) -> Bags:
    """The bags of an archive as a run's classifiers read them: of a workspace with several encoders those of theirs.

    Raises:
        EncoderMismatch: there are none of their encoder; shows both sides.
    """
    bags = open_bags(archive, cache=cache, encoder=encoder or _own_encoder(run, archive), labels=labels, report=report)
    run.ensemble.check_fit(bags.source)
    return bags


def _own_encoder(run: Run, archive: Path) -> str | None:
    """The name of the store of the run's encoder in a workspace, None where there is none."""
    if not (archive / "histokin.json").exists():
        return None
    work = Workspace.open(archive)
    name = short_id(run.ensemble.fingerprint)
    return name if (work.embeddings(open_tiling(work).spec.spec_id, name) / "manifest.json").exists() else None
