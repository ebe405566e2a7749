"""Vectors of tissue that no store holds: a place on a slide, a picture, a slide that is not in the archive."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import digest_of
from histokin.cohort import Kind
from histokin.embeddings import EmbeddingStore, TileEmbedder
from histokin.embeddings.embedder import fit_to_slide, sample_rows
from histokin.errors import NoResolution, SearchError
from histokin.pipeline.stages import TileRequest, embed, tile
from histokin.progress import Reporter, silent
from histokin.slides import Slide, content_key, open_slide
from histokin.tiles import TileSpec, Tiling
from histokin.tiles.reading import plan_read, read_band
from histokin.workspace import Workspace

MAX_PICTURE_TILES = 4096


@dataclass(frozen=True, slots=True)
class Cut:
    """Tiles cut out of one file for a question.

    Attributes:
        pixels: (n, px, px, 3) uint8 at the archive's mpp.
        xy: (n, 2) level-0 px of the file, top-left corners.
        side: (width, height) of a tile in level-0 px.
    """

    pixels: NDArray[np.uint8]
    xy: NDArray[np.float64]
    side: tuple[float, float]


def embed_cut(embedder: TileEmbedder, cut: Cut) -> NDArray[np.float32]:
    """(n, d) vectors; where colours are fitted to a slide, to the tiles that were cut."""
    fitted = fit_to_slide(embedder, lambda: cut.pixels[sample_rows(np.arange(len(cut.pixels)))])
    return fitted.embed(cut.pixels)


def cut_places(slide: Slide, spec: TileSpec, xy: NDArray[np.float64]) -> Cut:
    """Tiles of the archive's size and mpp at any places of a slide; white beyond its edges.

    Args:
        slide: open, its mpp known.
        spec: of the archive.
        xy: (n, 2) top-left corners in level-0 px.

    Raises:
        NoResolution: the slide's mpp is not known.
    """
    mpp = _mpp(slide)
    plan = plan_read(slide.info, spec.mpp, spec.tile_px)
    pixels = [read_band(slide, plan, xy[i : i + 1, 0], xy[i : i + 1, 1])[0] for i in range(len(xy))]
    return Cut(np.stack(pixels), xy, (spec.tile_um / mpp[0], spec.tile_um / mpp[1]))


def cut_picture(slide: Slide, spec: TileSpec) -> Cut:
    """A picture as tiles side by side, centred in it; one that is smaller than a tile is continued by its mirror.

    Raises:
        NoResolution: its mpp is not known.
        SearchError: it is as large as a slide.
    """
    mpp = _mpp(slide)
    side = (spec.tile_um / mpp[0], spec.tile_um / mpp[1])
    size = (slide.info.width, slide.info.height)
    # a picture that misses a whole tile by rounding alone is one
    n = [max(1, int(length / one + 0.01)) for length, one in zip(size, side, strict=True)]
    if n[0] * n[1] > MAX_PICTURE_TILES:
        raise SearchError(
            f"the picture holds {n[0] * n[1]} tiles of {spec.tile_um:g} um, a query at most {MAX_PICTURE_TILES}",
            "search",
            "Ask with it as a slide (--outside FILE), or cut the region that is meant.",
        )
    start = [(length - count * one) / 2 for length, count, one in zip(size, n, side, strict=True)]
    places = np.array([(start[0] + i * side[0], start[1] + j * side[1]) for j in range(n[1]) for i in range(n[0])])
    if min(start) >= -1:
        return cut_places(slide, spec, np.maximum(places, 0))
    return Cut(_mirrored(slide, spec, places, side), places, side)


def embed_slide_outside(
    work: Workspace,
    spec: TileSpec,
    embedder: TileEmbedder,
    path: Path,
    *,
    mpp: float | None,
    kind: Kind = "slides",
    report: Reporter = silent,
) -> tuple[EmbeddingStore, Tiling]:
    """Find tissue on a slide that is not in the archive, tile and embed it as the archive was.

    It is kept under the workspace's cache: asked again, nothing is read anew.

    Raises:
        NoUsableSlide: with the slide's state.
    """
    with open_slide(path, mpp) as slide:
        key = digest_of([content_key(path, slide.info), mpp, spec, embedder.fingerprint])[:16]
    request = TileRequest(spec.tile_px, spec.mpp, 0 if spec.is_given else spec.stride_px, spec.min_tissue)
    own = work.cache / "asked" / key
    tiling = tile(path, own, request=request, mpp=mpp, kind=kind, report=report)
    outcome, tiling = embed(Workspace.open(own), tiling, [embedder], report)
    return EmbeddingStore(outcome.folders[embedder.name]), tiling


def _mpp(slide: Slide) -> tuple[float, float]:
    if slide.info.mpp is None:
        raise NoResolution("the file states no pixel size", "search", "Pass it with --mpp.")
    return slide.info.mpp


def _mirrored(
    slide: Slide, spec: TileSpec, places: NDArray[np.float64], side: tuple[float, float]
) -> NDArray[np.uint8]:
    """(n, px, px, 3) tiles of a picture that is smaller than one of them along an axis."""
    import cv2

    picture = slide.read(0, 0, slide.info.width, slide.info.height)
    margin = [max(0, int(np.ceil(-places[:, axis].min()))) for axis in (0, 1)]
    wide = cv2.copyMakeBorder(picture, margin[1], margin[1], margin[0], margin[0], cv2.BORDER_REFLECT)
    tiles = np.empty((len(places), spec.tile_px, spec.tile_px, 3), np.uint8)
    for i, (x, y) in enumerate(places):
        left, top = round(x) + margin[0], round(y) + margin[1]
        part = wide[top : top + round(side[1]), left : left + round(side[0])]
        how = cv2.INTER_AREA if min(part.shape[:2]) >= spec.tile_px else cv2.INTER_LINEAR
        tiles[i] = cv2.resize(part, (spec.tile_px, spec.tile_px), interpolation=how)
    return tiles
