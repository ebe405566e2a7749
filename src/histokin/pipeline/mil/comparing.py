"""`mil compare`: several models on several encoders' features, all judged on the same folds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from histokin.artefacts import Ledger, digest_of, sweep, write_text
from histokin.cohort import file_name_of
from histokin.encoders.encoder import choose_device
from histokin.errors import EvaluationError
from histokin.evaluate.splits import SplitTable
from histokin.mil.training import MilSpec, cross_validate
from histokin.pipeline.evaluation.stage import csv_text
from histokin.pipeline.mil.asking import MilRequest
from histokin.pipeline.mil.bags import Bags, open_bags
from histokin.pipeline.mil.document import Trained, mil_document
from histokin.pipeline.mil.outcome import MilOutcome, read_outcome, write_outcome
from histokin.pipeline.mil.targets import Asked, given_folds, outer_folds, task_of
from histokin.pipeline.mil.training import VERSION, check_settings
from histokin.progress import Reporter, silent
from histokin.report import wording
from histokin.report.mil.document import MilDocument


def compare_classifiers(
    archives: Sequence[Path | str],
    request: MilRequest,
    specs: Sequence[MilSpec],
    out: Path | str | None = None,
    *,
    encoders: Sequence[str] = (),
    labels: Path | str | None = None,
    splits: Path | str | None = None,
    name: str | None = None,
    device: str = "auto",
    report: Reporter = silent,
    command: str = "histokin mil compare",
) -> MilOutcome:
    """Judge every model on every encoder's features, on one set of folds, with paired differences and floors.

    Each is kept in a folder of its own; called again it goes on where it was.

    Args:
        archives: a workspace, which then knows patients and labels of all, and folders of embeddings of its slides;
            or such folders alone, of which the first does.
        request: what is to be told and how it is judged; its spec gives folds and seed.
        specs: of the classifiers; the first is the one that the others are held against.
        out: folder; of a workspace `mil/NAME` by default.
        encoders: of the workspace, by name; by default the run `main`, else the only one.
        labels, splits: as in `train_classifiers`.
        name: of the comparison in the workspace.
        device: cpu, cuda, ...
        report: progress.
        command: shown on the page.

    Raises:
        EvaluationError: the archives share no labelled slide, or the folds cannot be made.
        RecipeError: the folder holds a comparison of other settings.
    """
    opened = _opened([Path(one) for one in archives], encoders, labels, Path(out) if out else None, report)
    knowing = next((bags for bags in opened if bags.place.work is not None), opened[0])
    opened = [replace(bags, known=knowing.known) for bags in opened]
    shared = _shared(opened, request)
    asked = [task_of(bags, request, shared) for bags in opened]
    folder = Path(out) if out else _folder(knowing, request, name)
    outer = outer_folds(asked[0].task, request) if splits is None else given_folds(asked[0].task, Path(splits))
    ledger = Ledger(
        folder, "slide classifiers compared", {"request": request, "specs": list(specs), "version": VERSION}
    )
    sweep(folder)
    check_settings(folder, request)
    inputs = {
        "bags": [bags.source.digest for bags in opened],
        "task": [one.task.digest(np.arange(len(one.task))) for one in asked],
        "folds": digest_of([outer.item, outer.repeat, outer.fold, outer.part, outer.patient]),
        "command": command,
        "notes": asked[0].notes,
    }
    if ledger.find("page", inputs) is None or not (folder / "index.html").exists():
        ledger.forget("page")
        document = _compared(opened, asked, request, specs, outer, folder, device, command, report)
        for table, text in difference_tables(document).items():
            write_text(folder / table, text)
        write_outcome(document, folder)
        ledger.commit("page", inputs, folder / "mil.json")
        ledger.write_manifest(["page"])
    return read_outcome(folder)


def _opened(
    archives: Sequence[Path], encoders: Sequence[str], labels: Path | str | None, out: Path | None, report: Reporter
) -> list[Bags]:
    works = [archive for archive in archives if (archive / "histokin.json").exists()]
    beside = out or next(iter(works), None)
    found = []
    for archive in archives:
        for encoder in (encoders or [None]) if archive in works else [None]:
            cache = beside / "cache" if beside else None
            found.append(open_bags(archive, cache=cache, encoder=encoder, labels=labels, report=report))
    names = [bags.name for bags in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise EvaluationError(
            f"two stores are called {twice[0]}",
            "slide classification",
            "Name each once, from folders of different names.",
        )
    return found


def _shared(opened: Sequence[Bags], request: MilRequest) -> list[str]:
    """The slides that every encoder has, in one order."""
    shared = set.intersection(*(set(bags.source.slides) for bags in opened))
    if not shared:
        raise EvaluationError(
            "the archives share no slide",
            "slide classification",
            f"Compare encoders on the same slides ({request.label}).",
        )
    return sorted(shared)


def _compared(
    opened: Sequence[Bags],
    asked: Sequence[Asked],
    request: MilRequest,
    specs: Sequence[MilSpec],
    outer: SplitTable,
    folder: Path,
    device: str,
    command: str,
    report: Reporter,
) -> MilDocument:
    entries = []
    for bags, one in zip(opened, asked, strict=True):
        for spec in specs:
            name = _name(spec, bags, specs, opened)
            found = cross_validate(
                one.task,
                spec,
                folder / "entries" / file_name_of(name),
                outer=outer,
                with_floors=False,
                allow_shared_tiles=request.allow_shared_tiles,
                device=choose_device(device),
                report=report,
            )
            entries.append(Trained(name, bags, spec, found))
    n_lost = max(len(bags.source) for bags in opened) - len(asked[0].task)
    document = mil_document(request, asked[0], entries, command=command, is_looked_at=False)
    lost = f"Left out, not in every store or without {request.label}: {wording.counted(n_lost, 'slide')}."
    notes = [lost] if n_lost else []
    return replace(document, title=f"Slide classifiers compared: {request.label}", notes=[*notes, *document.notes])


def _name(spec: MilSpec, bags: Bags, specs: Sequence[MilSpec], opened: Sequence[Bags]) -> str:
    """Of a row: model, preset where both are there, encoder where there are several."""
    is_doubled = sum(other.model == spec.model for other in specs) > 1
    name = f"{spec.model} {spec.preset}" if is_doubled else spec.model
    return name if len(opened) == 1 else f"{name}, {bags.name}"


def difference_tables(document: MilDocument) -> dict[str, str]:
    """Figures and paired differences as CSV: `figures.csv` and `differences.csv`, a row a metric (and other row)."""
    figures, differences = [], []
    for judged in document.judgements:
        for row in judged.measure.rows:
            for metric, value in row.values.items():
                where = {"unit": judged.unit, "n": judged.n, "n_patients": judged.n_patients}
                where |= {"row": row.name, "kind": row.kind, "metric": metric}
                chance = judged.measure.chance.get(metric)
                figures.append({**where, "value": value.value, "low": value.low, "high": value.high, "chance": chance})
                for other, minus in row.minus.get(metric, {}).items():
                    ends = {"value": minus.value, "low": minus.low, "high": minus.high, "p_holm": minus.p}
                    differences.append({**where, "minus": other, **ends})
    return {"figures.csv": csv_text(figures), "differences.csv": csv_text(differences)}


def _folder(bags: Bags, request: MilRequest, name: str | None) -> Path:
    work = bags.place.work
    if work is None:
        raise EvaluationError(
            "there is no workspace to write into", bags.place.source.store.folder, "Name a folder with --out."
        )
    return work.mil(name or file_name_of(f"compare-{request.label}"))
