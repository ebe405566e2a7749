"""The tissue stage of one slide: thumbnail, mask, picture with outline; written once, read ever after."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from histokin.artefacts import Ledger, Receipt, write_bytes
from histokin.cohort import SlideRecord
from histokin.errors import NoResolution
from histokin.slides import Slide
from histokin.tissue.pictures import draw_outline
from histokin.tissue.segmentation import TissueMask, TissueSpec, segment_tissue

LARGE_SLIDE_PX = 150_000  # above this a mask of 16 um a pixel keeps memory in bounds


def segment_slide(slide: Slide, spec: TissueSpec) -> tuple[np.ndarray, TissueMask]:
    """The slide's thumbnail, (H, W, 3) uint8 at about `spec.mpp`, and its tissue.

    Raises:
        NoResolution: the slide has no pixel size.
    """
    info = slide.info
    if info.mpp is None:
        raise NoResolution("the file states no pixel size", slide.path, "Pass --mpp or fill the cohort's mpp column.")
    wanted = spec.mpp * (2 if max(info.width, info.height) > LARGE_SLIDE_PX else 1)
    picture = slide.thumbnail(mpp=wanted)
    true_mpp = info.width * info.mpp[0] / picture.shape[1]  # the size is whole pixels, so the scale is nearly `wanted`
    return picture, segment_tissue(picture, true_mpp, spec)


def mask_ledger(masks: Path, spec: TissueSpec) -> Ledger:
    """The ledger of all masks made with one recipe."""
    return Ledger(masks, "tissue", spec)


def write_tissue(
    masks: Path, thumbnails: Path, record: SlideRecord, slide: Slide, *, spec: TissueSpec, inputs: Any
) -> tuple[TissueMask, Receipt]:
    """Segment one slide and file mask (PNG, 255 = tissue) and outlined thumbnail (JPEG)."""
    picture, tissue = segment_slide(slide, spec)
    outlined = draw_outline(picture, tissue)
    write_bytes(
        thumbnails / f"{record.file_name}.jpg",
        simplejpeg.encode_jpeg(outlined, quality=88, colorspace="RGB", colorsubsampling="444"),
    )
    path = masks / f"{record.file_name}.png"
    write_bytes(path, cv2.imencode(".png", tissue.mask.astype(np.uint8) * 255)[1].tobytes())
    receipt = mask_ledger(masks, spec).commit(
        record.file_name,
        inputs,
        path,
        status="done" if not tissue.reason else "empty",
        reason=tissue.reason,
        mpp=tissue.mpp,
        threshold=tissue.threshold,
        background=tissue.background,
        ink_mm2=tissue.ink_mm2,
        area_mm2=tissue.area_mm2,
        n_pieces=tissue.n_pieces,
    )
    return tissue, receipt


def read_tissue(masks: Path, receipt: Receipt, spec: TissueSpec) -> TissueMask:
    """Read back what `write_tissue` filed."""
    mask = cv2.imdecode(np.frombuffer((masks / receipt.file).read_bytes(), np.uint8), cv2.IMREAD_GRAYSCALE)
    facts = receipt.facts
    background = facts["background"]
    return TissueMask(
        np.asarray(mask) > 127,
        facts["mpp"],
        facts["threshold"],
        tuple(background) if background else None,
        facts["ink_mm2"],
        receipt.reason,
        spec,
    )
