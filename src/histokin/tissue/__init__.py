"""Tissue: what on a slide is tissue, what is ink, and pictures of both.

Knows nothing of models.
"""

from histokin.tissue.pictures import draw_outline, shrink
from histokin.tissue.segmentation import TissueMask, TissueSpec, segment_tissue
from histokin.tissue.stage import mask_ledger, read_tissue, segment_slide, write_tissue

__all__ = [
    "TissueMask",
    "TissueSpec",
    "draw_outline",
    "mask_ledger",
    "read_tissue",
    "segment_slide",
    "segment_tissue",
    "shrink",
    "write_tissue",
]
