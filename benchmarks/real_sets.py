"""Tables of the real sets of HISTOKIN_DATA for `histokin tile`: what to learn from, and what to be judged on.

    python benchmarks/real_sets.py FOLDER

writes into FOLDER
    learn-SET.csv   pictures as slides, with patient, site and pixel size
    task-SET.csv    labelled tiles cut out of them

GlaS and MoNuSeg tiles are those of their labels.csv. her2st: squares of 224 px around every spot with a measured
composition (its README's protocol for the regression of p_epithelial); `blocks` are its labelled regions.
"""

import csv
import os
import sys
from collections import Counter
from pathlib import Path

MPP = {"glas": 0.62, "monuseg": 0.25, "her2st": 0.688}  # nominal, of the sets' README
HER2ST_PX = 224


def main() -> None:
    """Write the tables."""
    data, out = Path(os.environ["HISTOKIN_DATA"]).resolve(), Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, px in MPP.items():
        labelled = _read(data / name / "labels.csv")
        if name == "her2st":
            labelled = [_spot(row) for row in _read(data / name / "spots.csv")]
        slides = {row["path"]: row for row in labelled}
        _write(out / f"learn-{name}.csv", [_slide(data / name, path, row, px) for path, row in slides.items()])
        _write(out / f"task-{name}.csv", [{**row, "path": str(data / name / row["path"])} for row in labelled])
    _write(out / "task-blocks.csv", _blocks(data / "her2st"))


def _spot(row: dict[str, str]) -> dict[str, str]:
    """One measured spot as a tile; x, y of the table are its centre."""
    corner = {axis: str(round(float(row[axis]) - HER2ST_PX / 2)) for axis in ("x", "y")}
    named = {"path": f"images/{row['section']}.jpg", "slide": row["section"], "size": str(HER2ST_PX)}
    return {**named, **corner, "patient": row["patient"], "p_epithelial": row["p_epithelial"]}


def _blocks(folder: Path) -> list[dict[str, str]]:
    """Regions of her2st for slide search: blocks of labelled spots, at least 4 and three quarters of them of one label.

    The sections are of one patient; each stands as a "patient" here, so that a block's own section is left out.
    """
    found: dict[str, list[dict[str, str]]] = {}
    for row in _read(folder / "labels.csv"):
        found.setdefault(row["block"], []).append(row)
    rows = []
    for block, spots in sorted(found.items()):
        label, n = Counter(spot["label"] for spot in spots).most_common(1)[0]
        if len(spots) < 4 or n < 0.75 * len(spots):
            continue
        for spot in spots:
            corner = {axis: str(round(float(spot[axis]) - HER2ST_PX / 2)) for axis in ("x", "y")}
            named = {"path": str(folder / spot["path"]), "slide": block, "size": str(HER2ST_PX), **corner}
            rows.append({**named, "patient": spot["section"], "label": label})
    return rows


def _slide(folder: Path, path: str, row: dict[str, str], mpp: float) -> dict[str, str]:
    known = {key: row.get(key, "") for key in ("patient", "site")}
    return {"path": str(folder / path), "slide": Path(path).stem, "mpp": str(mpp), **known}


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
