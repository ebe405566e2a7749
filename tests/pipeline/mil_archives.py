"""Archives with planted tiles for slide classification: folders of embeddings with a table, and one small workspace."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from embeddings.foreign_files import write_clam, write_trident
from mil.mil_worlds import planted
from mil.test_reading import write
from worlds import tissue_on_glass, write_csv

from histokin.embeddings import embed_cohort
from histokin.pipeline.floors import STATISTICS
from histokin.pipeline.stages import TileRequest, tile
from histokin.workspace import Workspace

N = 24
CLASSES = ("clear", "some")
WRITERS = {"histokin": write, "clam": write_clam, "trident": write_trident}
SETTINGS = (
    "options.hidden=[8]",
    "options.attention=4",
    "lr=0.02",
    "n_inner=2",
    "batch=4",
    "patience=4",
    "min_epochs=4",
)


def slides_of(n: int = N) -> list[str]:
    return [f"s{number:02d}" for number in range(n)]


def patients_of(n: int = N, slides_a_patient: int = 2) -> list[str]:
    """Slides of one truth stand at every second place: patients join those of their own kind."""
    return [f"p{number % 2}-{number // 2 // slides_a_patient}" for number in range(n)]


def archive(folder: Path, *, n: int = N, shift: float = 4.0, writer: str = "histokin", seed: int = 0) -> Path:
    """A folder of embeddings, in which every second slide holds two planted tiles."""
    bags, _, _ = planted(n, n_tiles=8, shift=shift, seed=seed)
    folder.mkdir(parents=True)
    for slide, bag in zip(slides_of(n), bags, strict=True):
        if writer == "histokin":
            write(folder, slide, bag)
        else:
            WRITERS[writer](folder / f"{slide}.h5", bag)
    return folder


def table(path: Path, *, n: int = N, patients: Sequence[str] | None = None, shuffled: int | None = None) -> Path:
    """Its labels: finding, patient, site, and columns for every kind of target."""
    truth = np.arange(n) % 2
    if shuffled is not None:
        truth = np.random.default_rng(shuffled).permutation(truth)
    rng = np.random.default_rng(1)
    who = patients_of(n) if patients is None else patients
    rows = [
        {
            "slide": slide,
            "patient": who[number],
            "site": f"site {number // 4 % 3}",
            "finding": CLASSES[code],
            "has_some": int(code),
            "is_odd": number // 2 % 2 if number % 5 else "",
            "score": f"{3 * code + rng.normal(0, 0.3):.3f}",
            "time": f"{(10 if code else 30) + rng.uniform(0, 5):.2f}",
            "dead": int(number % 3 > 0),
        }
        for number, (slide, code) in enumerate(zip(slides_of(n), truth.tolist(), strict=True))
    ]
    return write_csv(path, rows)


def workspace(root: Path, n: int = 8) -> Workspace:
    """Slides of pink tissue, in every second of which a quarter is purple, with histograms as embeddings."""
    pictures = root / "pictures"
    pictures.mkdir(parents=True)
    rows = []
    for number in range(n):
        picture = tissue_on_glass(320, 320, (16, 16, 304, 304), seed=number)
        if number % 2:
            spot = picture[32:160, 32:160].astype(np.float32)
            picture[32:160, 32:160] = np.clip(spot * (0.55, 0.45, 0.9), 0, 255).astype(np.uint8)
        name = f"s{number:02d}.png"
        cv2.imwrite(str(pictures / name), picture[..., ::-1])
        rows.append({"path": name, "slide": f"s{number:02d}", "patient": f"p{number}", "finding": CLASSES[number % 2]})
    write_csv(pictures / "cohort.csv", rows)
    tiling = tile(pictures / "cohort.csv", root / "work", request=TileRequest(48, 1.0), mpp=1.0, kind="slides")
    work = Workspace.open(root / "work")
    embed_cohort(work, tiling, [floor for floor in STATISTICS if floor.name == "histogram"])
    return work
