"""Carrying out protocols: one chapter each, kept as a file of its own, then the page, tables and text of all."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from histokin.artefacts import Ledger, Receipt, plain, write_json, write_text
from histokin.cohort import file_name_of
from histokin.embeddings import EmbeddingStore
from histokin.errors import EvaluationError, StoreError
from histokin.pipeline.evaluation.case import FEW_NUMBERS, MAX_CLASSES, Case, numbers_of
from histokin.pipeline.evaluation.chapters import read_chapter
from histokin.pipeline.evaluation.labels import Texts
from histokin.pipeline.evaluation.page import page_document
from histokin.pipeline.evaluation.protocols import PROTOCOLS, Protocol
from histokin.pipeline.evaluation.sources import Sources, find_sources
from histokin.pipeline.evaluation.spec import CHOSEN_COLUMNS, QUICK, EvaluationSpec
from histokin.pipeline.evaluation.table import LEVELS, Level, Table, known_columns, read_table
from histokin.pipeline.projection import MapMethod, check_map
from histokin.progress import Reporter, silent
from histokin.report import Chapter, EvaluationDocument, evaluation_tables, evaluation_text, write_evaluation
from histokin.tiles import Tiling
from histokin.workspace import Workspace

ALL, GIVEN = "all", "given-splits"
VERSION = 2
"""Of what a chapter's file holds: another one is made anew."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What the stage wrote.

    Attributes:
        folder: where everything lies: evaluation.json, index.html, tables, chapters/.
        document: the content of evaluation.json.
        page: index.html.
        text: the tables for a terminal.
    """

    folder: Path
    document: dict[str, Any]
    page: Path
    text: str


def evaluate_embeddings(
    stores: Sequence[Path | str],
    spec: EvaluationSpec | None = None,
    *,
    out: Path | str | None = None,
    labels: Path | str | None = None,
    splits: Path | str | None = None,
    encoders: Sequence[str] = (),
    map_method: MapMethod = "pca",
    report: Reporter = silent,
    command: str = "histokin evaluate",
) -> Assessment:
    """Judge embeddings of one set of slides by every protocol that is asked for and that the labels allow.

    Args:
        stores: a workspace, and folders of embeddings of the same slides: ours, CLAM's, TRIDENT's, STAMP's, torchmil's.
        spec: what is asked.
        out: where results go; by default into the workspace.
        labels: a CSV with a column `slide` (for tiles `tile_id`, or `x` and `y`), `patient`, `site` and labels; without
            one, what the workspace knows.
        splits: a folder of CLAM's `splits_0.csv`, ..., or a CSV of our own: probes are judged on these too.
        encoders: of the workspace; by default the run `main`, else the only one.
        map_method: of the embedding maps.
        report: progress.
        command: shown on the page.

    Returns:
        `Assessment`; what could not be measured is in the document's `refusals`, with the reason.

    Raises:
        EvaluationError: an unknown protocol or label, or stores that share no slide; says what there is.
        StoreError: a store cannot be read.
    """
    spec = spec or EvaluationSpec()
    sources = find_sources(
        [Path(s) for s in stores],
        encoders,
        Path(labels) if labels else None,
        Path(splits) if splits else None,
    )
    if sources.splits:
        spec = replace(spec, protocols=tuple(dict.fromkeys((*spec.protocols, GIVEN))))
    if out is None and sources.work is None:
        raise EvaluationError(
            "there is no workspace to write into", "evaluation", "Name a folder for the results with --out."
        )
    folder = Path(out) if out is not None else default_folder(sources, spec)
    return _carried_out(sources, folder, spec, report, command, map_method)


def evaluate_workspace(
    work: Workspace,
    tiling: Tiling,
    store: Path,
    floors: Mapping[str, Sequence[Path]],
    spec: EvaluationSpec,
    report: Reporter = silent,
) -> Assessment:
    """Evaluate one store of a workspace: what `histokin run` and `histokin report` do."""
    name = EmbeddingStore(store).encoder
    twins = {name: "random"} if "random" in floors else {}
    members = {floor: list(paths) for floor, paths in floors.items()}
    sources = Sources(work, tiling, {name: store}, frozenset([name]), members, twins, None)
    return _carried_out(sources, default_folder(sources, spec), spec, report, f"histokin evaluate {work.root}", "pca")


def default_folder(sources: Sources, spec: EvaluationSpec) -> Path:
    """The workspace's folder for one question put to some stores."""
    if sources.work is None:
        raise ValueError("only a workspace has a default folder")
    label = file_name_of(spec.label or "auto")
    names = "+".join(path.name for path in sources.stores.values())
    seed = f"-seed{spec.seed}" if spec.seed else ""
    more = "" if spec.protocols == QUICK else "-" + "+".join(spec.protocols)[:60]
    sides = {"queries": spec.queries, "database": spec.database}
    more += "".join(f"-{side}-{file_name_of(text.replace('=', '-'))}"[:40] for side, text in sides.items() if text)
    return sources.work.evaluation(f"{label}-leave-{spec.leave_out}-{names[:100]}{seed}{more}")


def chosen_protocols(names: Sequence[str]) -> list[Protocol]:
    """The protocols that are asked for, in the order of the registry.

    Raises:
        EvaluationError: none is named, or one of them is unknown.
    """
    if not names:
        raise EvaluationError("no protocol is named", "evaluation", f"There are {', '.join(PROTOCOLS)} and {ALL}.")
    unknown = [name for name in names if name != ALL and name not in PROTOCOLS]
    if unknown:
        raise EvaluationError(
            f"there is no protocol {', '.join(unknown)}", "evaluation", f"There are {', '.join(PROTOCOLS)} and {ALL}."
        )
    return [one for one in PROTOCOLS.values() if one.name in names or (ALL in names and one.is_in_all)]


def _carried_out(
    sources: Sources, folder: Path, spec: EvaluationSpec, report: Reporter, command: str, map_method: MapMethod
) -> Assessment:
    protocols = chosen_protocols(spec.protocols)
    asked = plain(replace(spec, protocols=()))
    ledger = Ledger(folder, "evaluation", {**asked, "version": VERSION})
    inputs = sources.digests()
    page_inputs = {**inputs, "protocols": [one.name for one in protocols], "command": command, "map": map_method}
    path = folder / "evaluation.json"
    if ledger.find("evaluation", page_inputs) is None or not (folder / "index.html").exists():
        check_map(map_method)
        ledger.forget("evaluation")
        _forget_outdated(ledger, inputs)
        table = read_table(sources, spec.columns, spec.beside)
        _check_label(table, sources, spec)
        _check_beside(table, sources, spec)
        chapters, refusals = _chapters(table, protocols, spec, ledger, inputs, report)
        document = page_document(table, chapters, refusals, spec, command, map_method)
        _write(folder, document)
        ledger.commit("evaluation", page_inputs, path)
    ledger.write_manifest(["evaluation", *(_key(one, level) for one in protocols for level in one.levels)])
    return Assessment(
        folder,
        json.loads(path.read_text(encoding="utf-8")),
        folder / "index.html",
        (folder / "evaluation.txt").read_text(encoding="utf-8").rstrip("\n"),
    )


def _forget_outdated(ledger: Ledger, inputs: dict[str, object]) -> None:
    """Remove chapters and tables of another question, which beside a new page would pass for its own."""
    current = ledger.inputs_digest(inputs)
    for protocol in PROTOCOLS.values():
        for level in protocol.levels:
            receipt = ledger.read(_key(protocol, level))
            if receipt is None or receipt.inputs == current:
                continue
            ledger.forget(receipt.key)
            for name in [receipt.file] * bool(receipt.file) + list(receipt.facts.get("tables", ())):
                (ledger.folder / name).unlink(missing_ok=True)


def _write(folder: Path, document: EvaluationDocument) -> None:
    """The page, its tables and its text; evaluation.json last, since it is what says that all is there."""
    write_evaluation(document, folder)
    for name, text in evaluation_tables(document).items():
        write_text(folder / name, text)
    write_text(folder / "evaluation.txt", evaluation_text(document) + "\n")
    bare = replace(document, maps=[], chapters=[replace(chapter, lookups=[]) for chapter in document.chapters])
    write_json(folder / "evaluation.json", bare)


def _key(protocol: Protocol, level: Level) -> str:
    return f"{protocol.name}-{level}"


def _chapters(
    table: Table,
    protocols: Sequence[Protocol],
    spec: EvaluationSpec,
    ledger: Ledger,
    inputs: dict[str, object],
    report: Reporter,
) -> tuple[list[Chapter], list[tuple[str, str]]]:
    """Every protocol on every level that has its kind of label; finished ones are read from their files."""
    cases = {level: case_of(table, level, spec, report) for level in LEVELS}
    chapters: list[Chapter] = []
    refusals: list[tuple[str, str]] = []
    if not any(case.column for case in cases.values()):
        refusals.append(("labels", no_label_sentence(table.sources)))
    unsuited: dict[str, list[str]] = {}
    for protocol in protocols:
        suited: list[Level] = [level for level in protocol.levels if protocol.suits(cases[level])]
        if not suited and any(case.column for case in cases.values()):
            asked = next((cases[level] for level in protocol.levels if cases[level].column), None)
            unsuited.setdefault(_unsuited(protocol, asked or cases[protocol.levels[0]]), []).append(protocol.name)
        for level in suited:
            key = _key(protocol, level)
            receipt = ledger.find(key, inputs)
            if receipt is None or not all((ledger.folder / name).exists() for name in receipt.facts.get("tables", ())):
                ledger.forget(key)
                receipt = _one_chapter(protocol, cases[level], key, ledger, inputs)
            if receipt.status == "done":
                chapters.append(read_chapter(ledger.folder / receipt.file))
            else:
                refusals.append((protocol.name, receipt.reason))
    return chapters, [*refusals, *((", ".join(names), reason) for reason, names in unsuited.items())]


def _one_chapter(protocol: Protocol, case: Case, key: str, ledger: Ledger, inputs: dict[str, object]) -> Receipt:
    """Carry out a protocol; where it cannot be, the receipt says why."""
    if case.level == "tile" and case.table.apart:
        return ledger.commit(key, inputs, None, status="skipped", reason=case.table.apart)
    try:
        chapter, tables = protocol.chapter(case if protocol.is_labelled else case.without_labels())
    except (EvaluationError, StoreError) as error:
        return ledger.commit(key, inputs, None, status="skipped", reason=f"{error.what}. {error.remedy}")
    for name, rows in tables.items():
        write_text(ledger.folder / name, csv_text(rows))
    path = ledger.folder / "chapters" / f"{key}.json"
    write_json(path, chapter)
    return ledger.commit(key, inputs, path, tables=sorted(tables))


def _unsuited(protocol: Protocol, case: Case) -> str:
    """Why a protocol has nothing to do."""
    if not case.column:
        return f"no {case.level} carries a label; a table with a row a {case.level} gives it one (--labels)."
    if protocol.needs == "numbers":
        few = f"; whole numbers of at most {FEW_NUMBERS} values are grades, hence classes"
        return f"it takes numbers, and the column {case.column} holds classes{few}."
    return f"it takes classes, and the column {case.column} holds numbers."


def case_of(table: Table, level: Level, spec: EvaluationSpec, report: Reporter = silent) -> Case:
    """One level of a table with the first of the asked columns that can be used there."""
    labels = table.columns(level).labels
    usable = [column for column in spec.columns if column in labels and _is_usable(labels[column])]
    column = next(iter(usable), "")
    texts = labels[column] if column else np.full(len(table.columns(level)), "", object)
    return Case(table, level, column, texts, spec, report)


def _is_usable(texts: Texts) -> bool:
    n_classes = len({str(text) for text in texts if text})
    return n_classes > 0 and (numbers_of(texts) is not None or n_classes <= MAX_CLASSES)


def _check_label(table: Table, sources: Sources, spec: EvaluationSpec) -> None:
    """A label that was asked for must be somewhere."""
    if not spec.label:
        return
    texts = [labels[spec.label] for labels in (table.tiles.labels, table.slides.labels) if spec.label in labels]
    if any(_is_usable(one) and len({str(text) for text in one if text}) > 1 for one in texts):
        return
    known = known_columns(sources)
    what = f"no tile and no slide has a label {spec.label!r}"
    if spec.label in known and texts:
        what = f"label {spec.label!r} has one value only, or more than {MAX_CLASSES}"
    raise EvaluationError(what, "evaluate", f"There are: {', '.join(known) or 'none'}.")


def _check_beside(table: Table, sources: Sources, spec: EvaluationSpec) -> None:
    """Columns that rows are chosen or left out by must be somewhere, and hold the values asked for."""
    held = {column: {*table.tiles.beside[column], *table.slides.beside[column]} - {""} for column in spec.beside}
    for column in spec.beside:
        if not held[column]:
            raise EvaluationError(
                f"no tile and no slide has a {column}",
                "evaluation",
                f"There are {', '.join(known_columns(sources)) or 'no labels'}; and slide, patient, site, region and "
                "split as far as they are filled in.",
            )
    for condition in spec.conditions:
        column, _, value = condition.partition("=")
        if value not in held[column]:
            raise EvaluationError(
                f"no tile and no slide has {condition}", "evaluation", f"{column} is {_some(held[column])}."
            )


def _some(values: set[str], most: int = 10) -> str:
    shown = ", ".join(sorted(values)[:most])
    return f"{shown} or one of {len(values) - most} more" if len(values) > most else shown


def no_label_sentence(sources: Sources) -> str:
    """Why there are no figures with labels where no column was named and none has a name that says it."""
    known = known_columns(sources)
    if known:
        return (
            f"Figures with labels were not computed: no column is called {' or '.join(CHOSEN_COLUMNS)}. "
            f"Name one with --label; there are {', '.join(known)}."
        )
    return (
        "Figures with labels were not computed: neither the slides nor their tiles carry any. Accuracy of a search "
        "can only be measured where it is known what a tile or slide shows; give a table with a label column."
    )


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV; columns in order of appearance."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
