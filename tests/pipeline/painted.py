"""A small archive of painted slides with planted kinship, as a workspace: who must find whom, and who must not.

a1  patient pa        the one that asks
a2  patient pa        nearly the same tissue: the nearest slide of all, and never an answer to a1
a9  patient pz        the same file as a1 under another id; its patient counts as one with pa
z1  patient pz        nearly the same tissue again, left out because of a9 alone
b1  patient pb        somewhat like a1: the right answer, at another pixel size
c1, d1, e1, f1        other tissue of other patients
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from worlds import glass, write_csv

from histokin.embeddings import EmbeddingStore, embed_cohort
from histokin.pipeline.floors import STATISTICS
from histokin.pipeline.searching import Place, find_place
from histokin.pipeline.stages import TileRequest, tile
from histokin.slides.generated import write_pyramid
from histokin.workspace import Workspace

MPP, PX = 0.5, 32
SIDE_UM = 32.0  # of a tile, at 1 um a pixel
WIDTH_UM, HEIGHT_UM, GLASS_FROM_UM = 320, 224, 256
"""Of every slide; to the right there is glass."""
TEXTURE = STATISTICS[2]
PATIENTS = {"a1": "pa", "a2": "pa", "a9": "pz", "z1": "pz", "b1": "pb", "c1": "pc", "d1": "pd", "e1": "pe", "f1": "pf"}
ORGANS = {slide: "colon" if slide[0] in "abz" else "lung" for slide in PATIENTS}
DIAGNOSES = {slide: "tumour" if slide[0] in "abzc" else "benign" for slide in PATIENTS}
SITES = {slide: "north" if slide[0] in "abd" else "south" for slide in PATIENTS}
MPPS = {slide: 0.4 if slide == "b1" else MPP for slide in PATIENTS}


def painted(kind: float, *, noise: int = 0, mpp: float = MPP) -> np.ndarray:
    """(H, W, 3) uint8 tissue of a kind (grain and strength), its left half finer than its right; glass beside it."""
    width, height = round(WIDTH_UM / mpp), round(HEIGHT_UM / mpp)
    rng = np.random.default_rng(round(100 * kind))
    density = np.concatenate(
        [_grained(rng, 1.0 + 0.5 * kind + fine, WIDTH_UM // 2, HEIGHT_UM) for fine in (0.0, 1.5)], axis=1
    )
    density = cv2.resize(density, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    if noise:
        density = density + 0.01 * np.random.default_rng(noise).normal(size=density.shape)
    picture = np.clip(243 * np.exp(-density * np.array([0.45, 0.85, 0.30])), 0, 255).astype(np.uint8)
    edge = round(GLASS_FROM_UM / mpp)
    picture[:, edge:] = glass(height, width - edge, seed=round(100 * kind))
    return picture


def _grained(rng: np.random.Generator, grain_um: float, width: int, height: int) -> np.ndarray:
    """(height, width) float32 blots of about `grain_um`, one value a um."""
    coarse = rng.uniform(0.3, 1.3, (int(height / grain_um) + 2, int(width / grain_um) + 2)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


@dataclass(frozen=True)
class Painted:
    """The archive's table and workspace."""

    table: Path
    root: Path

    @classmethod
    def make(cls, folder: Path, slides: tuple[str, ...] = tuple(PATIENTS)) -> "Painted":
        """Draw, tile and embed."""
        (folder / "slides").mkdir(parents=True)
        kinds = {"a": 1, "z": 1, "b": 1.2, "c": 3, "d": 5, "e": 7, "f": 9}
        rows = []
        for slide in slides:
            path = folder / "slides" / f"{slide}.tiff"
            if slide == "a9":
                path.write_bytes((folder / "slides/a1.tiff").read_bytes())
            else:
                noise = {"a2": 2, "z1": 3}.get(slide, 0)
                write_pyramid(path, painted(kinds[slide[0]], noise=noise, mpp=MPPS[slide]), mpp=MPPS[slide])
            rows.append(
                {"slide": slide, "path": f"slides/{slide}.tiff", "patient": PATIENTS[slide], "site": SITES[slide],
                 "organ": ORGANS[slide], "diagnosis": DIAGNOSES[slide]}
            )  # fmt: skip
        made = cls(write_csv(folder / "cohort.csv", rows), folder / "work")
        made.bring_up_to_date()
        return made

    def bring_up_to_date(self) -> None:
        """Tile and embed what the table names."""
        tiling = tile(self.table, self.root, request=TileRequest(tile_px=PX, tile_mpp=1.0))
        embed_cohort(Workspace.open(self.root), tiling, [TEXTURE])

    @cached_property
    def place(self) -> Place:
        return find_place(self.root, encoder="texture")

    @cached_property
    def vectors(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """By slide (n, d) float64 unit vectors as float16 keeps them, (n,) numbers and (n, 2) places."""
        found = {}
        for slide in EmbeddingStore(self.place.source.store.folder).slides():
            rows = slide.features.astype(np.float64)
            unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16).astype(np.float64)
            found[str(slide.attrs["slide_id"])] = unit, slide.tile_id, slide.coords
        return found
