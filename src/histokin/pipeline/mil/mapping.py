"""`mil heatmap`: what trained classifiers looked at on some slides, as pictures, QuPath objects, tables and a page."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from histokin.artefacts import versions, write_bytes, write_json
from histokin.cohort import file_name_of
from histokin.encoders.encoder import choose_device
from histokin.errors import EvaluationError, SlideError
from histokin.mil.predicting import predict_slides
from histokin.mil.training import Ensemble
from histokin.mil.training.tables import write_columns
from histokin.pipeline.mil.bags import Bags
from histokin.pipeline.mil.looking import (
    Looked,
    contact_sheets,
    fields_of,
    limit_of,
    look,
    sheet_picture,
    slide_maps,
    tile_side,
    values_of,
)
from histokin.pipeline.mil.outcome import MilOutcome, read_outcome, refuse_run, write_outcome
from histokin.pipeline.mil.telling import named, prediction_of
from histokin.pipeline.mil.trained import Run, card_of, open_bags_for, read_run
from histokin.pipeline.searching.cutouts import file_of
from histokin.progress import Reporter, silent
from histokin.report.mil.document import ContactSheet, MilDocument, Prediction, SlideMaps
from histokin.report.mil.geojson import tile_objects
from histokin.report.mil.painting import paint_over
from histokin.slides import open_slide

PICTURE_PX = 1024
"""Longer side of the PNGs."""
_WORDS = {
    "percentile": "Attention (percentile)",
    "relative": "Attention (times uniform)",
    "contribution": "Contribution to {of}",
    "tile": "Probability of {of}, tile alone",
}


def map_slides(
    archive: Path | str,
    trained: Path | str,
    slides: Sequence[str],
    out: Path | str,
    *,
    of: str | None = None,
    encoder: str | None = None,
    labels: Path | str | None = None,
    device: str = "auto",
    report: Reporter = silent,
    command: str = "histokin mil heatmap",
) -> MilOutcome:
    """Maps of some slides: PNGs over the slide, GeoJSON for QuPath, tile values, contact sheets, and a page.

    A slide that the run was judged on is mapped by the models that had not seen it; a new one by those trained on all.

    Args:
        archive: a workspace, or a folder of embeddings of any tool: of the latter there are tile values and GeoJSON of
            places alone, no pictures.
        trained: folder of the run.
        slides: ids.
        out: folder.
        of: the class, label or output whose maps are drawn; what is said of each slide if None.
        encoder, labels, device: as in `predict_archive`.
        report: progress.
        command: shown on the page.

    Raises:
        EvaluationError: a slide or output is unknown; names what there is.
        EncoderMismatch, TrainingError: as `predict_archive`.
    """
    run, folder = read_run(Path(trained)), Path(out)
    refuse_run(folder)
    bags = open_bags_for(run, Path(archive), cache=folder / "cache", encoder=encoder, labels=labels, report=report)
    unknown = [slide for slide in slides if slide not in bags.source.slides]
    if unknown or not slides:
        raise EvaluationError(
            f"there is no slide {unknown[0]}" if unknown else "no slide is named",
            bags.place.source.store.folder,
            f"There are {len(bags.source)}: {', '.join(bags.source.slides[:5])}, ...",
        )
    outputs = run.ensemble.outputs
    if of is not None and of not in outputs:
        raise EvaluationError(f"nothing is told of {of!r}", run.folder, f"There are {', '.join(outputs)}.")
    chosen = choose_device(device)
    told: list[Prediction] = []
    looked: list[Looked] = []
    with report("map", len(slides), "slides") as progress:
        for slide in slides:
            ensemble, fold = _ensemble_of(run, slide)
            one, output = _told(run, ensemble, bags, slide, fold, of, chosen)
            told.append(one)
            looked.append(look(ensemble, run.model, bags.source, slide, output, device=chosen))
            progress.advance(1, slide)
    limit = limit_of(looked) if run.limit is None else run.limit
    names = {name: (number if _has_classes(run) else None) for number, name in enumerate(outputs)}
    sheets = contact_sheets(bags, looked, names, {one.slide: one.truth for one in told})
    notes: list[str] = []
    for one in looked:
        notes += _write_slide(bags, one, _output_name(run, one), limit, folder)
    _write_sheets(sheets, folder)
    document = _document(run, bags, looked, told, sheets, limit, notes, command)
    write_outcome(document, folder)
    return read_outcome(folder)


def _has_classes(run: Run) -> bool:
    return run.ensemble.kind in ("classes", "labels")


def _output_name(run: Run, one: Looked) -> str:
    return run.ensemble.outputs[one.output or 0]


def _ensemble_of(run: Run, slide: str) -> tuple[Ensemble, str]:
    held_out = run.fold_of(slide)
    return (run.ensemble, "") if held_out is None else (held_out, held_out.folder.name.removeprefix("fold-"))


def _told(
    run: Run, ensemble: Ensemble, bags: Bags, slide: str, fold: str, of: str | None, device: torch.device
) -> tuple[Prediction, int | None]:
    found = predict_slides(ensemble, bags.source, [slide], device=device)
    known = bags.known[slide]
    one = replace(
        prediction_of(found.kind, found.outputs, slide, found.members[:, 0]),
        patient=named(known.patient),
        site=known.columns.get("site", ""),
        fold=fold,
        n_tiles=int(found.n_tiles[0]),
    )
    if found.kind == "classes" and (truth := known.columns.get(str(run.request["label"]), "")):
        one = replace(one, truth=truth, is_right=truth == one.said)
    if not _has_classes(run):
        return one, None
    return one, int(found.told[0].argmax()) if of is None else found.outputs.index(of)


def _write_slide(bags: Bags, one: Looked, of: str, limit: float, folder: Path) -> list[str]:
    """A slide's tile values, its QuPath objects and its pictures; sentences on what could not be had."""
    slide, name = one.maps.slide, file_name_of(one.maps.slide)
    write_columns(folder / "tiles" / name, one.maps.columns)
    side = tile_side(bags, slide)
    if side is None:
        return [f"{slide}: neither pictures nor QuPath objects, since only a workspace knows how large its tiles are."]
    values = values_of(one, limit)
    if not values:
        return [f"{slide}: the model says nothing of single tiles."]
    measurements = {_WORDS[scale.kind].format(of=of): own for scale, own in values[::-1]}  # the last one is signed
    objects = tile_objects(slide, one.maps.coords, side, measurements, colour=values[-1][0])
    write_json(folder / "qupath" / f"{name}.geojson", objects.collection)
    notes = [f"{slide}: {objects.n_weak} tiles of little weight are not in its GeoJSON."] if objects.n_weak else []
    thumbnail = _thumbnail(bags, slide)
    if thumbnail is None:
        return [*notes, f"{slide}: no pictures, its file cannot be read."]
    record = bags.place.tiling.cohort.by_slide[slide] if bags.place.tiling else None
    width = record.width if record else thumbnail.shape[1]
    shape, downsample = (thumbnail.shape[0], thumbnail.shape[1]), width / thumbnail.shape[1]
    for scale, field in fields_of(one, limit, side, shape=shape, downsample=downsample):
        write_bytes(folder / "maps" / f"{name}-{scale.kind}.png", paint_over(field, scale, thumbnail))
    return notes


def _thumbnail(bags: Bags, slide: str) -> NDArray[np.uint8] | None:
    found = file_of(bags.place.tiling, slide) if bags.place.tiling else None
    if found is None:
        return None
    try:
        with open_slide(*found) as opened:
            return np.asarray(opened.thumbnail(max_px=PICTURE_PX), np.uint8)
    except SlideError:
        return None


def _write_sheets(sheets: Sequence[ContactSheet], folder: Path) -> None:
    for sheet in sheets:
        for end, tiles in (("highest", sheet.highest), ("lowest", sheet.lowest)):
            if tiles:
                write_bytes(folder / "top-tiles" / f"{file_name_of(sheet.of)}-{end}.png", sheet_picture(tiles))


def _document(
    run: Run,
    bags: Bags,
    looked: Sequence[Looked],
    told: Sequence[Prediction],
    sheets: list[ContactSheet],
    limit: float,
    notes: Sequence[str],
    command: str,
) -> MilDocument:
    gallery: list[SlideMaps] = []
    for one, prediction in zip(looked, told, strict=True):
        maps = slide_maps(bags, one, _output_name(run, one), limit, prediction)
        gallery += [] if maps is None else [maps]
    patients = {one.patient for one in told if one.patient}
    card = card_of(run, bags)
    return MilDocument(
        title=f"Maps: {run.request['label']}",
        command=command,
        kind=run.kind,
        target=str(run.request["label"]),
        outputs=list(run.ensemble.outputs),
        classifiers=[card],
        reference=card.name,
        counts={"slides": len(told), "patients": len(patients), "tiles": sum(one.n_tiles for one in told)},
        protocol=[
            "Slides that the run was judged on are mapped by the models that had not seen them; their fold is named.",
            "New slides are mapped by the models trained on all slides.",
        ],
        predictions=list(told),
        gallery=gallery,
        sheets=sheets,
        gallery_note="The slides that were asked for.",
        notes=list(notes),
        created_with=versions(),
        digests={card.name: bags.source.fingerprint},
    )
