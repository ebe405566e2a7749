"""Pictures of a search: places on slides at a stated size, each slide opened once."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from histokin.errors import SlideError
from histokin.pipeline.pictures import encode
from histokin.report.search.document import Cutout
from histokin.search.region import Box
from histokin.slides import Slide, open_slide
from histokin.tiles import Tiling

IMAGE_PX, PAIR_PX, CONTEXT = 256, 112, 4
"""Longer side of an answer's picture and of a tile in a pair; how much wider than its box a context is."""


def file_of(tiling: Tiling, slide: str) -> tuple[Path, float | None] | None:
    """The file that a slide's places lie in, and the pixel size given for it; None for tiles that are files."""
    record = tiling.cohort.by_slide.get(slide)
    if record is None:
        return None
    if tiling.cohort.kind == "slides":
        return tiling.cohort.path_of(record), record.given_mpp
    paths = {tile.path for tile in tiling.cohort.tiles if tile.slide == slide and tile.x >= 0}
    return (tiling.cohort.root / paths.pop(), record.given_mpp) if len(paths) == 1 else None


def cut_out(file: Path, mpp: float | None, wanted: Iterable[tuple[Box, int]]) -> dict[tuple[Box, int], bytes]:
    """JPEGs of boxes of one file, each `px` on its longer side; what cannot be read is left out.

    Args:
        file: slide or picture.
        mpp: given for it.
        wanted: boxes in level-0 px, each with the px of its picture.
    """
    found: dict[tuple[Box, int], bytes] = {}
    try:
        with open_slide(file, mpp) as slide:
            for box, px in dict.fromkeys(wanted):
                try:
                    found[box, px] = encode(_read(slide, box, px))
                except SlideError:
                    continue
    except SlideError:
        return found
    return found


def context_of(box: Box) -> Box:
    """A wider field of the same shape round a box."""
    w, h = box.w * CONTEXT, box.h * CONTEXT
    return Box(box.x - (w - box.w) / 2, box.y - (h - box.h) / 2, w, h)


def cutout(box: Box, images: dict[tuple[Box, int], bytes], px: int) -> Cutout:
    """A place with its picture, as far as there is one."""
    return Cutout(box, images.get((box, px)))


def _read(slide: Slide, box: Box, px: int) -> np.ndarray:
    factor = max(box.w, box.h) / px
    levels = slide.info.levels
    level = max((i for i, lv in enumerate(levels) if max(lv.downsample_x, lv.downsample_y) <= factor), default=0)
    size = [max(1, round(box.w / levels[level].downsample_x)), max(1, round(box.h / levels[level].downsample_y))]
    region = slide.read(round(box.x), round(box.y), size[0], size[1], level)
    shown = (max(1, round(box.w / factor)), max(1, round(box.h / factor)))
    how = cv2.INTER_AREA if shown[0] < size[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(region, shown, interpolation=how), np.uint8)
