"""Archives of vectors alone, as other tools leave them: written, changed and labelled without a picture."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from embeddings.foreign_files import places, write_clam
from worlds import write_csv

from histokin.pipeline.indexing.build import IndexOutcome, build_index
from histokin.pipeline.searching import Place, find_place

D = 12
CLASSES = ("gland", "stroma", "tumour")


@dataclass(frozen=True, slots=True)
class SlideOfVectors:
    """One slide: (n, D) vectors, a class a tile (-1: none), what the table says."""

    vectors: np.ndarray
    tissue: np.ndarray
    patient: str
    columns: Mapping[str, str] = field(default_factory=dict)


def planted(
    n_patients: int = 20,
    *,
    per_patient: int = 1,
    tiles: int = 12,
    signal: float = 1.0,
    seed: int = 0,
    is_labelled: bool = True,
) -> dict[str, SlideOfVectors]:
    """Slides of patients with signals of tissue, of a diagnosis that every other patient has, of patient and site."""
    rng = np.random.default_rng(seed)
    of_class, of_diagnosis = rng.normal(size=(3, D)), rng.normal(size=(2, D))
    found = {}
    for patient in range(n_patients):
        own = 0.4 * rng.normal(size=D) + signal * 0.8 * of_diagnosis[patient % 2]
        for n in range(per_patient):
            tissue = rng.permutation(np.arange(tiles) % 3)
            vectors = own + signal * of_class[tissue] + rng.normal(size=(tiles, D))
            columns = {"site": f"site {patient // 2 % 2}"}
            if is_labelled:
                columns["diagnosis"] = ("benign", "carcinoma")[patient % 2]
            found[f"s{patient:02d}{'abc'[n]}"] = SlideOfVectors(
                vectors.astype(np.float32), tissue if is_labelled else tissue * 0 - 1, f"p{patient:02d}", columns
            )
    return found


def write_folder(root: Path, slides: Mapping[str, SlideOfVectors]) -> Place:
    """A folder as CLAM writes it, and beside it the table of its tiles, by place; files that vanished are removed."""
    folder = root / "h5_files"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.h5"):
        if path.stem not in slides:
            path.unlink()
    rows = []
    for name, slide in slides.items():
        write_clam(folder / f"{name}.h5", slide.vectors)
        for (x, y), tissue in zip(places(len(slide.vectors)).tolist(), slide.tissue, strict=True):
            rows.append({"slide": name, "x": x, "y": y, "patient": slide.patient, "tissue": (*CLASSES, "")[tissue],
                         "diagnosis": "", "site": "", **slide.columns})  # fmt: skip
    place = find_place(folder, labels=write_csv(root / "labels.csv", rows), index=str(root / "index"))
    return replace(place, is_named=False)


def built(root: Path, slides: Mapping[str, SlideOfVectors]) -> tuple[Place, IndexOutcome]:
    """The folder with its index up to date."""
    place = write_folder(root, slides)
    return place, build_index(place.index, place.source)


def changed(slide: SlideOfVectors, rng: np.random.Generator, **columns: str) -> SlideOfVectors:
    """Other vectors, another number of them."""
    n = int(rng.integers(5, 16))
    vectors = rng.normal(size=(n, D)).astype(np.float32)
    return replace(slide, vectors=vectors, tissue=rng.integers(0, 3, n), columns={**slide.columns, **columns})
