"""What classifiers looked at on some slides: maps, the tiles that spoke most, and what is told without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
import torch
from numpy.typing import NDArray

from histokin.evaluate.intervals import Interval
from histokin.mil.bags import PackedBags
from histokin.mil.heatmaps import (
    CLASS_BRANCHES,
    Deletion,
    Teller,
    blend_tiles,
    branch_weights,
    contribution_limit,
    delete_tiles,
    effective_tiles,
    is_placed,
    mean_falls,
    percentiles,
    relative_weights,
    top_of_slides,
)
from histokin.mil.predicting import TileMaps, map_tiles
from histokin.mil.reading import BagSource, read_bags, whole_bags
from histokin.mil.training import Ensemble
from histokin.mil.training.loop import CPU
from histokin.mil.training.spec import MAX_TILES
from histokin.mil.training.targets import predicted
from histokin.pipeline.mil.bags import Bags
from histokin.pipeline.pictures import pictures_by_id, slide_thumbnail
from histokin.report import Value
from histokin.report.mil.document import ContactSheet, Faithfulness, Heatmap, Prediction, SheetTile, SlideMaps
from histokin.report.mil.painting import ValueScale, heatmap
from histokin.streams import stream

MAP_PX = 640
"""Longer side of a map on the page."""
N_SHEET, MOST_SHEETS = 12, 8
N_DELETED = 24
"""Slides whose tiles are deleted to test the maps."""


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What an ensemble had to do with the tiles of one slide, for one of its outputs.

    Attributes:
        maps: all that it gave.
        output: number of the class or label; None of a risk or value, to which all outputs add.
        model: name of it.
        is_exclusive: whether its outputs are classes, of which one holds.
    """

    maps: TileMaps
    output: int | None
    model: str
    is_exclusive: bool = True

    @property
    def attention(self) -> NDArray[np.float64] | None:
        """(n,) sums to 1; None where the model has none, or the same for every tile."""
        weights = self.maps.weights
        if weights is None or self.model == "mean":
            return None
        return branch_weights(weights, self.output if self.model in CLASS_BRANCHES else None)

    def contribution(self, output: int | None) -> NDArray[np.float64] | None:
        """(n,) signed shares in the logit of an output."""
        return _column(self.maps.contrib, output)

    def scores(self, output: int | None) -> tuple[NDArray[np.float64], str]:
        """(n,) by which tiles are ranked for an output, and in words what it is."""
        contribution, own = self.contribution(output), _column(self.maps.logits, output)
        if contribution is not None:
            return contribution, "contribution to the logit"
        if own is not None:
            return own, "the tile's own logit"
        if self.attention is None:
            raise ValueError(f"model {self.model} says nothing of single tiles")
        return self.attention, "attention"

    def own_probability(self) -> NDArray[np.float64] | None:
        """(n,) what a tile alone would be told, of classes and labels."""
        logits = self.maps.logits
        if logits is None or self.output is None:
            return None
        rivals = np.delete(logits, self.output, axis=1).astype(np.float64)
        against = np.logaddexp.reduce(rivals, axis=1) if self.is_exclusive else 0.0
        return 1 / (1 + np.exp(np.clip(against - logits[:, self.output], -700, 700)))


def _column(values: NDArray[np.float32] | None, output: int | None) -> NDArray[np.float64] | None:
    if values is None:
        return None
    return values.astype(np.float64).sum(axis=1) if output is None else values[:, output].astype(np.float64)


def look(
    ensemble: Ensemble,
    model: str,
    source: BagSource,
    slide: str,
    output: int | None,
    *,
    device: torch.device = CPU,
) -> Looked:
    """What an ensemble had to do with the tiles of a slide."""
    maps = map_tiles(ensemble, source, slide, device=device)
    return Looked(maps, output, model, ensemble.kind == "classes")


def tile_side(bags: Bags, slide: str) -> float | None:
    """Side of a slide's tiles in level-0 px; None where the slide or its pixel size is not known."""
    tiling = bags.place.tiling
    record = tiling.cohort.by_slide.get(slide) if tiling else None
    return tiling.spec.tile_um / record.mpp if tiling and record and record.mpp else None


def limit_of(looked: Sequence[Looked]) -> float:
    """The scale of contributions that all slides share."""
    return contribution_limit([c for one in looked if (c := one.contribution(one.output)) is not None])


def values_of(looked: Looked, limit: float) -> list[tuple[ValueScale, NDArray[np.float64]]]:
    """The maps that a model has, in the order in which they are shown."""
    found: list[tuple[ValueScale, NDArray[np.float64]]] = []
    attention, contribution, own = looked.attention, looked.contribution(looked.output), looked.own_probability()
    if attention is not None:
        relative = relative_weights(attention)
        found.append((ValueScale.percentile(), percentiles(attention)))
        found.append((ValueScale.relative(relative.low, relative.high), relative.values))
    if contribution is not None:
        found.append((ValueScale.contribution(limit), contribution))
    elif own is not None:
        found.append((ValueScale.tile(), own))
    return found


def fields_of(
    looked: Looked, limit: float, side: float, *, shape: tuple[int, int], downsample: float
) -> list[tuple[ValueScale, NDArray[np.float64]]]:
    """The maps of a slide as pictures (H, W), NaN where there is no tile."""
    coords = looked.maps.coords
    return [
        (scale, blend_tiles(values, coords, side, shape=shape, downsample=downsample))
        for scale, values in values_of(looked, limit)
    ]


def slide_maps(bags: Bags, looked: Looked, of: str, limit: float, prediction: Prediction) -> SlideMaps | None:
    """A slide of the page's gallery; None where there is no picture of it or its tiles have no place."""
    slide, tiling, work = looked.maps.slide, bags.place.tiling, bags.place.work
    side, placed = tile_side(bags, slide), is_placed(looked.maps.coords)
    if side is None or tiling is None or work is None or not placed.any():
        return None
    record = tiling.cohort.by_slide[slide]
    thumbnail = slide_thumbnail(work, tiling, record, MAP_PX)
    if thumbnail is None or not record.width:
        return None
    height, width = simplejpeg.decode_jpeg(thumbnail).shape[:2]
    fields = fields_of(looked, limit, side, shape=(height, width), downsample=record.width / width)
    maps: list[Heatmap] = [heatmap(field, scale) for scale, field in fields]
    attention = looked.attention
    return SlideMaps(
        prediction=prediction,
        thumbnail=thumbnail,
        of=of,
        maps=maps,
        width=record.width,
        height=record.height,
        mpp=record.mpp,
        effective=None if attention is None else effective_tiles(attention),
        n_unplaced=int((~placed).sum()),
    )


def contact_sheets(
    bags: Bags, looked: Sequence[Looked], outputs: Mapping[str, int | None], truths: Mapping[str, str]
) -> list[ContactSheet]:
    """Of each output the tiles that spoke most for it, and those that spoke most against it.

    Args:
        bags: of the archive; without a workspace there are no pictures and no sheets.
        looked: slides.
        outputs: by name its number; at most `MOST_SHEETS` are shown.
        truths: by slide, in words.
    """
    sides = [tile_side(bags, one.maps.slide) for one in looked]
    shown = [(one, side) for one, side in zip(looked, sides, strict=True) if side is not None]
    if not shown or bags.place.tiling is None:
        return []
    coords = [one.maps.coords for one, _ in shown]
    found: list[tuple[str, str, list[list[tuple[int, int, float]]]]] = []
    for name, output in list(outputs.items())[:MOST_SHEETS]:
        scores = [one.scores(output)[0] for one, _ in shown]
        ends = [
            [
                (slide, row, float(scores[slide][row]))
                for slide, row in top_of_slides(scores, coords, [s for _, s in shown], k=N_SHEET, lowest=lowest)
            ]
            for lowest in (False, True)
        ]
        found.append((name, shown[0][0].scores(output)[1], ends))
    wanted = {(slide, row) for _, _, ends in found for end in ends for slide, row, _ in end}
    pictures = _tile_pictures(bags, [one for one, _ in shown], wanted)

    def tile(slide: int, row: int, score: float) -> SheetTile | None:
        maps = shown[slide][0].maps
        image = pictures.get((slide, row))
        if image is None:
            return None
        x, y = maps.coords[row].tolist()
        return SheetTile(image, maps.slide, score, x, y, bags.known[maps.slide].patient, truths.get(maps.slide, ""))

    return [
        ContactSheet(name, by, *([t for place in end if (t := tile(*place)) is not None] for end in ends))
        for name, by, ends in found
    ]


def _tile_pictures(bags: Bags, looked: Sequence[Looked], wanted: set[tuple[int, int]]) -> dict[tuple[int, int], bytes]:
    """JPEGs by (slide's place, row of its map), as far as they can be decoded."""
    tiling, store = bags.place.tiling, bags.place.source.store
    if tiling is None:
        return {}
    asked: dict[tuple[str, int], tuple[int, int]] = {}
    for slide in sorted({slide for slide, _ in wanted}):
        maps = looked[slide].maps
        tile_id = store.read(bags.place.source.headers[maps.slide][0]).tile_id
        for row in sorted(row for at, row in wanted if at == slide):
            asked[maps.slide, int(tile_id[maps.rows[row]])] = (slide, row)
    return {asked[key]: image for key, image in pictures_by_id(tiling, asked).items()}


def faithfulness(
    name: str,
    looked: Sequence[Looked],
    ensembles: Sequence[Ensemble],
    source: BagSource,
    patients: Sequence[str],
    *,
    seed: int,
    device: torch.device = CPU,
) -> list[Faithfulness]:
    """How far the probability of what was said falls without the tiles that a map calls important.

    Args:
        name: of the classifiers' row.
        looked: slides, drawn down to `N_DELETED`.
        ensembles: that told of each.
        source: of the bags.
        patients: whose each is.
        seed: of the draws.
        device: CPU or GPU.
    """
    known = [place for place, one in enumerate(looked) if one.output is not None and len(one.maps.rows) > 1]
    if not known:
        return []
    if len(known) > N_DELETED:
        known = sorted(stream(seed, "deleted slides").choice(known, N_DELETED, replace=False).tolist())
    deletions: list[Deletion] = []
    for place in known:
        one = looked[place]
        tell = teller(ensembles[place], source, one.maps.slide, one.output or 0, device=device)
        rng = stream(seed, "deleted tiles", one.maps.slide)
        deletions.append(delete_tiles(tell, one.scores(one.output)[0], rng=rng, n_random=5))
    falls = mean_falls(deletions, [patients[place] for place in known], seed=seed)
    points = [
        (
            fall.share,
            _value(fall.top, fall.top_interval),
            _value(fall.random, fall.random_interval),
            _value(fall.lead, fall.lead_interval),
        )
        for fall in falls
    ]
    by = looked[known[0]].scores(looked[known[0]].output)[1]
    return [Faithfulness(name, by, len(known), len({patients[place] for place in known}), points)]


def teller(ensemble: Ensemble, source: BagSource, slide: str, output: int, *, device: torch.device = CPU) -> Teller:
    """What an ensemble tells of parts of a slide: rows in the order of its map to the probability of an output."""
    members = [ensemble.member(number) for number in range(len(ensemble.members))]
    for one in members:
        one.model.to(device)
    bag = whole_bags(source.lengths, source.numbers([slide]), n_bags=1, max_tiles=MAX_TILES)[0]
    packed = read_bags(source, bag, device)

    @torch.no_grad()
    def tell(kept: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
        told = []
        for rows in (torch.from_numpy(own).to(device) for own in kept):
            coords = None if packed.coords is None else packed.coords[rows]
            part = PackedBags(packed.x[rows], torch.tensor([len(rows)]), coords)
            values = [
                predicted(one.objective, one.model(part).logits.float().cpu(), ensemble.temperature)[0, output]
                for one in members
            ]
            told.append(float(np.mean(values)))
        return np.array(told)

    return tell


def _value(value: float, interval: Interval) -> Value:
    low, high = (end if np.isfinite(end) else None for end in (interval.low, interval.high))
    return Value(value, low, high, interval.note)


def sheet_picture(tiles: Sequence[SheetTile], columns: int = 4, px: int = 224) -> bytes:
    """One PNG of the tiles side by side, best first."""
    rows = -(-len(tiles) // columns)
    sheet = np.full((rows * px, min(columns, len(tiles)) * px, 3), 255, np.uint8)
    for place, one in enumerate(tiles):
        picture = simplejpeg.decode_jpeg(one.image, colorspace="BGR")
        y, x = place // columns * px, place % columns * px
        sheet[y : y + px - 4, x : x + px - 4] = cv2.resize(picture, (px - 4, px - 4), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".png", sheet)[1].tobytes()
