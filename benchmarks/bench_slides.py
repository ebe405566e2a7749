"""Slide queries over an index: candidates from tile search against comparing every slide, as archives grow.

    OMP_NUM_THREADS=1 python benchmarks/bench_slides.py [--slides 1000 10000 100000] [--noise 0.3] [--json FILE]

Archives are simulated from real tissue (see `tissue_vectors.py`), as no set of 10^5 slides can be had: a slide mixes
two blocks of tissue, 20 tiles in all; an offset of the slide and noise of each tile are drawn from differences of real
tiles, a share of them that `--noise` sets (0.3: tiles of one block in two slides have a cosine of about 0.65). Queries
are new such slides. Truth is exact MaxSim over all mosaics (`exact=True`). Times are of a whole answer with its
evidence, processor time of the process beside wall clock; plans alternate in one run.
"""

import argparse
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tissue_vectors import TissueVectors, tissue_vectors

from histokin.artefacts import versions, write_json
from histokin.search.index import Index, add_slides, create_index
from histokin.search.slide_search import Plan, QueryBag, SlideHits, search_slides
from histokin.search.tables import Made, SlideEntry
from histokin.streams import stream

RESULTS = Path(__file__).parent / "results"
MOSAIC = 20
BLOCK_PX = 640  # side of a block of tissue in px of the section
K = 10
PLANS = {
    "200 tiles, 500 slides": Plan(exact_up_to=0, doublings=0),
    "200, 500, doubled at most twice (default)": Plan(exact_up_to=0),
    "100 tiles, 200 slides": Plan(exact_up_to=0, tile_k=100, n_slides=200, doublings=0),
    "800 tiles, 1000 slides": Plan(exact_up_to=0, tile_k=800, n_slides=1000, doublings=0),
}


def main() -> None:
    """Build, ask, print, write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--slides", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--json", type=Path, default=RESULTS / "slides.json")
    parser.add_argument("--rows", type=int, default=100_000, help="real tiles that slides are made of")
    parser.add_argument("--folder", type=Path, default=RESULTS / "slides")
    parser.add_argument("--keep", action="store_true", help="leave the indexes where they are")
    a = parser.parse_args()
    tissue = tissue_vectors(RESULTS, a.rows)
    world = World(tissue.read(0, tissue.n).astype(np.float32), tissue_blocks(tissue), a.noise)
    print(f"{tissue.n} tiles in {len(world.blocks)} blocks of tissue")
    made = Made("tissue filters", "bench", "blocks", 1.0, 80, world.vectors.shape[1])
    sizes = {}
    for n_slides in a.slides:
        folder = a.folder / str(n_slides)
        seconds = build(folder, made, world, n_slides)
        sizes[str(n_slides)] = {"build_seconds": seconds, **measure(folder, world, a.queries)}
        if not a.keep:
            shutil.rmtree(folder)
    small, large = (sizes[str(n)]["plans"] for n in (min(a.slides), max(a.slides)))
    growth = {name: large[name]["p50_cpu_ms"] / small[name]["p50_cpu_ms"] for name in large}
    result = {
        "inputs": {name: getattr(a, name) for name in ("slides", "queries", "rows", "noise")},
        "blocks": len(world.blocks),
        "mosaic": MOSAIC,
        "archives": sizes,
        "growth_of_p50_cpu": {"slides": max(a.slides) / min(a.slides), **growth},
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
        },
        "versions": versions(),
    }
    print(f"{max(a.slides) / min(a.slides):.0f}x the slides: " + ", ".join(f"{n} x{v:.1f}" for n, v in growth.items()))
    write_json(a.json, result)


def tissue_blocks(tissue: TissueVectors) -> list[np.ndarray]:
    """Rows of squares of tissue in the unchanged sections that hold at least 20 tiles."""
    rows = np.flatnonzero(tissue.copy == 0)
    cell = np.stack([tissue.section[rows], *(tissue.coords[rows] // BLOCK_PX).T], axis=1)
    _, block = np.unique(cell, axis=0, return_inverse=True)
    parts = [rows[block == number] for number in range(block.max() + 1)]
    return [part for part in parts if len(part) >= MOSAIC]


@dataclass(frozen=True, slots=True)
class World:
    """What slides are made of: (n, d) float32 real tiles, rows of their blocks, share of real differences added."""

    vectors: np.ndarray
    blocks: list[np.ndarray]
    noise: float


def simulated(world: World, name: str) -> np.ndarray:
    """(20, d) float32 tiles of a slide that mixes two blocks."""
    vectors, blocks = world.vectors, world.blocks
    rng = stream(0, "slide", name)
    first, second = rng.choice(len(blocks), 2, replace=False)
    n_first = int(rng.integers(5, MOSAIC - 4))
    rows = np.concatenate(
        [rng.choice(blocks[first], n_first, replace=False), rng.choice(blocks[second], MOSAIC - n_first, replace=False)]
    )
    one, other = rng.integers(len(vectors), size=(2, MOSAIC + 1))
    change = vectors[one] - vectors[other]
    tiles = vectors[rows] + world.noise * (change[0] + change[1:])
    return tiles / np.linalg.norm(tiles, axis=1, keepdims=True)


def entries(world: World, n_slides: int) -> Iterator[SlideEntry]:
    """Slides one by one; the mosaic is the slide."""
    tile = np.arange(MOSAIC)
    coords = np.stack([tile % 5, tile // 5], axis=1) * 160
    for number in range(n_slides):
        tiles = simulated(world, f"archive {number}")
        yield SlideEntry(f"slide-{number:06d}", f"patient-{number // 2:06d}", tiles, tile, coords, mosaic=tile)


def build(folder: Path, made: Made, world: World, n_slides: int) -> float:
    """Seconds of making the index."""
    shutil.rmtree(folder, ignore_errors=True)
    start = time.perf_counter()
    n_sample = min(n_slides * MOSAIC, 160_000) // MOSAIC
    sample = np.concatenate([simulated(world, f"sample {number}") for number in range(n_sample)])
    n_tiles = n_slides * MOSAIC
    create_index(folder, made, sample, n_tiles, planned_mosaics=n_tiles)
    add_slides(folder, made, entries(world, n_slides))
    return time.perf_counter() - start


def measure(folder: Path, world: World, n_queries: int) -> dict[str, object]:
    """Recall@10 against every slide compared, and times, of each plan."""
    index = Index(folder).pinned()
    nprobe = index.manifest.nprobe["mosaics"]
    n_lists = index.manifest.coarse["mosaics"].n_lists
    print(f"{len(index.slides)} slides, {len(index)} tiles, {n_lists} lists, {nprobe} looked into")
    asked = [query(simulated(world, f"query {number}")) for number in range(n_queries)]
    names = ["every slide", *PLANS]
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    found: dict[str, list[SlideHits]] = {name: [] for name in names}
    search_slides(index, asked[0], K, plan=PLANS[names[1]])  # pages are read and numbers worked out once
    for bag in asked:
        for name in names:
            start = time.perf_counter(), time.process_time()
            hits = search_slides(index, bag, K, exact=name == names[0], plan=PLANS.get(name))
            times[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
            found[name].append(hits)
    plans = {name: figures(times[name], found[name], found[names[0]]) for name in names}
    for name, row in plans.items():
        print(
            f"  {name:<42} recall@{K} {row['recall']:.3f}   cpu p50 {row['p50_cpu_ms']:7.1f} ms"
            f"   p95 {row['p95_cpu_ms']:7.1f} ms   wall {row['p50_ms']:7.1f} / {row['p95_ms']:7.1f}"
            f"   {row['compared']:7.0f} slides compared   {row['proved']:.2f} proved complete"
        )
    return {"lists": n_lists, "nprobe": nprobe, "plans": plans}


def query(tiles: np.ndarray) -> QueryBag:
    """A slide as a query."""
    return QueryBag(tiles, np.ones(len(tiles)), np.arange(len(tiles)), np.full((len(tiles), 2), -1))


def figures(times: list[tuple[float, float]], found: list[SlideHits], truth: list[SlideHits]) -> dict[str, float]:
    """Quality beside speed."""
    wall, cpu = np.array(times).T
    recall = [len(set(f.slide) & set(t.slide)) / K for f, t in zip(found, truth, strict=True)]
    return {
        "recall": float(np.mean(recall)),
        "worst_recall": float(np.min(recall)),
        "p50_ms": 1000 * float(np.median(wall)),
        "p95_ms": 1000 * float(np.percentile(wall, 95)),
        "p50_cpu_ms": 1000 * float(np.median(cpu)),
        "p95_cpu_ms": 1000 * float(np.percentile(cpu, 95)),
        "compared": float(np.mean([hits.n_compared for hits in found])),
        "proved": float(np.mean([hits.is_complete for hits in found])),
    }


if __name__ == "__main__":
    main()
