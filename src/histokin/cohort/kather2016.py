"""The texture tiles of Kather et al. 2016 (Zenodo 53169) as they are unpacked: tile names that tell their source."""

import re
from collections.abc import Sequence
from pathlib import Path

from histokin.cohort.records import SlideRecord, TileRow

MPP = 0.495
"""Of all tiles, by the data set's description: 150 px are 74 um."""

# 01_TUMOR/17E8F_CRC-Prim-HE-02_007b.tif_Row_151_Col_301.tif; the region may be missing, a letter or a word.
_TILE = re.compile(
    r"\d\d_(?P<label>[A-Z]+)/[0-9A-Za-z]+_(?P<source>CRC-Prim-HE-\d\d)(?P<region>[\w -]*)"
    r"\.tif_Row_\d+_Col_\d+\.(?i:tiff?|png|jpe?g)",
    re.ASCII,
)


def read_kather2016(
    paths: Sequence[Path], *, mpp: float | None = None
) -> tuple[tuple[SlideRecord, ...], tuple[TileRow, ...], tuple[str, ...]] | None:
    """Slides, tiles and notes of a folder in this layout; None unless most of its files are named so.

    A slide is one of the source pictures `CRC-Prim-HE-NN`: nothing finer keeps neighbouring tiles together, and
    whether two of them are one patient's is not known. The region is the cut-out of it that tiles were taken from;
    Row and Col count the pixels of that cut-out, which is not in the data set, so tiles have no x, y.

    Args:
        paths: of all pictures, relative to the folder.
        mpp: pixel size in um; by default that of the data set.
    """
    found = [(path, _TILE.fullmatch(path.as_posix())) for path in paths]
    tiles = tuple(
        TileRow(
            slide=name["source"],
            path=path.as_posix(),
            region=name["region"].strip("_ "),
            labels={"label": name["label"].lower()},
        )
        for path, name in found
        if name
    )
    if 2 * len(tiles) <= len(paths):
        return None
    given_mpp = MPP if mpp is None else mpp
    sources = [SlideRecord(slide, ".", given_mpp=given_mpp) for slide in sorted({tile.slide for tile in tiles})]
    others = [_unnamed(path, given_mpp) for path, name in found if not name]
    note = (
        f"read as the texture tiles of Kather et al. 2016: {len(tiles)} tiles of {len(sources)} source pictures in "
        f"{len({tile.labels['label'] for tile in tiles})} classes, at {given_mpp} um a pixel; a slide is a source "
        "picture, whose patients are not known: exclusion will be by slide"
    )
    return (*sources, *others), tiles, (note,)


def _unnamed(path: Path, mpp: float) -> SlideRecord:
    """A file whose source cannot be told stays visible, and is not used: in a source of its own it would leak."""
    shown = path.as_posix().encode(errors="replace").decode()
    reason = "its name tells no source. Name it CLASS/ID_CRC-Prim-HE-NN_REGION.tif_Row_R_Col_C.tif, or remove it."
    return SlideRecord(shown, shown, given_mpp=mpp).with_state("unsupported", reason)
