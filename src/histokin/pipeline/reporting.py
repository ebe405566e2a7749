"""The report stage: read what the workspace holds and fill the report's document."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import read_lines, versions
from histokin.cohort import UNNAMED
from histokin.embeddings import EmbeddingStore
from histokin.evaluate import LeaveOut
from histokin.pipeline.choosing import run_of
from histokin.pipeline.evaluation import Assessment, EvaluationSpec, evaluate_workspace
from histokin.pipeline.gathering import Gathered, gather, tile_labels
from histokin.pipeline.pictures import choose_examples, choose_slide_examples, slide_thumbnail, tile_pictures
from histokin.pipeline.projection import MapMethod, map_section
from histokin.pipeline.stages import open_tiling
from histokin.pipeline.stores import find_floors, find_store, has_stores
from histokin.pipeline.tables import evaluation_section, label_columns
from histokin.progress import Reporter, silent
from histokin.report import (
    CohortSection,
    Example,
    MapSection,
    Picture,
    ReportDocument,
    SearchSection,
    SlideCard,
    TrainingSection,
    write_report,
)
from histokin.tiles import Tiling
from histokin.tissue import TissueSpec, mask_ledger
from histokin.workspace import Workspace

MAX_PICTURES = 200  # thumbnails inside the page; all slides are listed


def write(
    work: Workspace,
    tiling: Tiling,
    *,
    store: Path | None,
    run: Path | None,
    assessment: Assessment | None,
    title: str,
    command: str,
    map_method: MapMethod = "pca",
    seed: int = 0,
) -> Path:
    """Write report/index.html and report/report.json; returns the page.

    Args:
        work, tiling: the workspace and its tiles.
        store: embeddings for examples and map, if there are any.
        run: the pretraining run's folder, if there is one.
        assessment: the figures, if there are any.
        title: of the page.
        command: that made all this; shown, so that it can be repeated.
        map_method: of the embedding map.
        seed: which examples and points are drawn.
    """
    gathered = gather(tiling, store, {}) if store else None
    column, slide_column = label_columns(assessment.document) if assessment else ("", "")
    labels = np.full(0, "", object)
    if gathered:
        labels = tile_labels(tiling, gathered.main, column) if column else np.full(len(gathered.main), "", object)
    cohort = _cohort(work, tiling)
    document = ReportDocument(
        title=title,
        subtitle="Encoder, search and figures of one cohort" if store else "The slides of one cohort",
        command=command,
        created_with=versions(),
        cohort=cohort,
        training=_training(run) if run else None,
        evaluation=evaluation_section(assessment.document) if assessment else None,
        search=_search(work, tiling, gathered, labels, slide_column, seed) if gathered else None,
        embedding_map=_map(gathered, labels, map_method, seed) if gathered else None,
        notes=list(tiling.cohort.notes),
        digests={"tiles": tiling.spec.spec_id, **({"embeddings": store.name} if store else {})},
    )
    return write_report(document, work.report)


def report_workspace(
    work: Workspace,
    *,
    encoder: str | None = None,
    label: str | None = None,
    map_method: MapMethod = "pca",
    title: str | None = None,
    leave_out: LeaveOut = "patient",
    seed: int = 0,
    report: Reporter = silent,
) -> Path:
    """Write the report of a workspace from whatever it holds so far; figures are computed if they are missing."""
    tiling = open_tiling(work)
    store = find_store(work, tiling, encoder) if encoder or has_stores(work, tiling) else None
    assessment = None
    run = None
    if store is not None:
        spec = EvaluationSpec(label=label, leave_out=leave_out, seed=seed)
        assessment = evaluate_workspace(work, tiling, store, find_floors(store), spec, report)
        run = run_of(work, EmbeddingStore(store).fingerprint)
    return write(
        work,
        tiling,
        store=store,
        run=work.run(run) if run else None,
        assessment=assessment,
        title=title or work.root.resolve().name,
        command=f"histokin report {work.root}",
        map_method=map_method,
        seed=seed,
    )


def _cohort(work: Workspace, tiling: Tiling) -> CohortSection:
    cohort = tiling.cohort
    masks = mask_ledger(work.masks, TissueSpec())
    cards = []
    for number, record in enumerate(cohort.records):
        receipt = masks.read(record.file_name)
        tiles = tiling.receipts.get(record.slide)
        cards.append(
            SlideCard(
                slide=record.slide,
                patient=record.patient,
                state=record.state,
                reason=record.reason,
                labels=record.labels,
                mpp=record.mpp,
                width=record.width,
                height=record.height,
                tissue_mm2=receipt.facts["area_mm2"] if receipt else None,
                n_tiles=tiles.facts["n_kept"] if tiles and record.is_usable else 0,
                thumbnail=slide_thumbnail(work, tiling, record) if number < MAX_PICTURES else None,
            )
        )
    return CohortSection(
        kind=cohort.kind,
        n_slides=len(cohort),
        n_usable=len(cohort.usable),
        n_patients=cohort.n_patients,
        n_tiles=tiling.n_tiles,
        tile=str(tiling.spec),
        slides=cards,
    )


def _training(run: Path) -> TrainingSection:
    import yaml

    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    card = json.loads((run / "encoder" / "card.json").read_text(encoding="utf-8"))
    lines = read_lines(run / "metrics.jsonl")
    looks = [{"step": line["step"], **line["monitor"]} for line in lines if "monitor" in line]
    alarms = result["alarms"]
    last = result["monitors"]
    sound = (
        f"Sound: the features span {last['rank']:.0f} effective dimensions of {card['embed_dim']}, "
        f"spread {last['spread']:.2f} (1 = even)."
        if last
        else "Too short for a look at its features."
    )
    return TrainingSection(
        method=recipe["method"],
        backbone=recipe["backbone"]["name"],
        seed=recipe["seed"],
        steps=result["steps"],
        batch=result["batch"],
        seconds=None,  # clock times are in log.jsonl: the report is the same for the same results
        recipe=recipe,
        curve=[{"step": line["step"], "loss": line["loss"], "lr": line["lr"]} for line in lines if "loss" in line],
        monitors=[_monitor(look) for look in looks],
        embed_dim=card["embed_dim"],
        verdict=" ".join(alarms) if alarms else sound,
        is_collapsed=bool(alarms),
    )


def _monitor(look: dict[str, Any]) -> dict[str, float]:
    return {
        "step": look["step"],
        "feature_std": look["spread"],
        "rank": look["rank"],
        "alignment": look["alignment"],
        "uniformity": look["uniformity"],
    }


def _search(
    work: Workspace,
    tiling: Tiling,
    gathered: Gathered,
    labels: NDArray[np.object_],
    slide_column: str,
    seed: int,
) -> SearchSection:
    examples = choose_examples(gathered, labels, seed)
    wanted = sorted({row for e in examples for row in (e.query, *e.hits)})
    images = tile_pictures(tiling, gathered.main, wanted)

    def picture(row: int, score: float | None, truth: str) -> Picture:
        label = str(labels[row])
        return Picture(
            image=images.get(row, b""),
            slide=str(gathered.slide[row]),
            patient=str(gathered.patient[row]).removeprefix(UNNAMED),
            label=label,
            score=score,
            is_right=None if score is None or not truth or not label else label == truth,
        )

    shown = []
    for example in examples:
        truth = str(labels[example.query])
        hits = [picture(row, score, truth) for row, score in zip(example.hits, example.scores, strict=True)]
        shown.append(Example("tile", picture(example.query, None, truth), [hit for hit in hits if hit.image]))
    how = "One tile a class" if any(labels) else "One tile a slide"
    others = "other patients" if len(set(gathered.patient)) > 1 else "other slides of the same patient"
    if gathered.n_unnamed:
        others = "other slides; whose they are is not known"
    note = f"{how}, drawn at random (seed {seed}), not chosen for its looks; answers come from {others}."
    slides = _slide_examples(work, tiling, gathered, slide_column, seed) if slide_column else []
    return SearchSection([e for e in shown if e.query.image] + slides, note)


def _slide_examples(work: Workspace, tiling: Tiling, gathered: Gathered, column: str, seed: int) -> list[Example]:
    by_slide = tiling.cohort.by_slide
    records = [by_slide[slide] for slide in gathered.main.slides]
    labels = [record.labels.get(column, "") for record in records]

    def picture(number: int, score: float | None, truth: str) -> Picture | None:
        record, label = records[number], labels[number]
        image = slide_thumbnail(work, tiling, record)
        is_right = None if score is None or not label else label == truth
        return Picture(image, record.slide, record.patient, label, score, is_right) if image else None

    examples = []
    for example in choose_slide_examples(gathered, labels, seed):
        query = picture(example.query, None, "")
        hits = [picture(n, s, labels[example.query]) for n, s in zip(example.hits, example.scores, strict=True)]
        if query is not None:
            examples.append(Example("slide", query, [hit for hit in hits if hit is not None]))
    return examples


def _map(gathered: Gathered, labels: NDArray[np.object_], method: MapMethod, seed: int) -> MapSection | None:
    main = gathered.main
    return map_section(main.features, main.slide, labels, gathered.slide, gathered.patient, method=method, seed=seed)
