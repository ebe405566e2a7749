"""Exact leave-group-out top-k against the bare blocked product with top-k, in one run.

    python benchmarks/bench_topk.py [--rows 100000] [--dims 512] [--queries 256]

The baseline is what one would write without exclusion, ties or a float64 step: float32 unit vectors, one product a
block, argpartition, merge. Prints the ratio of times (minimum of several alternating repeats) and the peak of traced
memory; writes benchmarks/results/topk.json.
"""

import argparse
import os
import platform
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np

from histokin.artefacts import versions, write_json
from histokin.search import top_k

RESULTS = Path(__file__).parent / "results"


def plain_top_k(queries: np.ndarray, database: np.ndarray, k: int, block: int = 8192) -> np.ndarray:
    """Blocked product and top-k of unit vectors, nothing else."""
    scores, ids = np.empty((len(queries), 0), np.float32), np.empty((len(queries), 0), np.int64)
    for start in range(0, len(database), block):
        product = queries @ database[start : start + block].T
        part = np.argpartition(product, product.shape[1] - k, axis=1)[:, -k:]
        scores = np.concatenate([scores, np.take_along_axis(product, part, axis=1)], axis=1)
        ids = np.concatenate([ids, part + start], axis=1)
    order = np.argsort(-scores, axis=1)[:, :k]
    return np.take_along_axis(ids, order, axis=1)


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak_bytes(work: Callable[[], object]) -> int:
    """Peak of what numpy allocated during one call."""
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser()
    for name, value in (("rows", 100_000), ("dims", 512), ("queries", 256), ("k", 10), ("group", 100), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(-(-a.rows // a.group)), a.group)[: a.rows]
    centres = rng.standard_normal((groups.max() + 1, a.dims), dtype=np.float32)
    database = centres[groups] + rng.standard_normal((a.rows, a.dims), dtype=np.float32)
    database /= np.linalg.norm(database, axis=1, keepdims=True)
    half = database.astype(np.float16)
    asked = np.sort(rng.choice(a.rows, a.queries, replace=False))
    contenders = {
        "plain product + top-k, float32": lambda: plain_top_k(database[asked], database, a.k),
        "top_k, float32": lambda: top_k(
            database[asked], database, a.k, query_groups=groups[asked], database_groups=groups
        ),
        "top_k, float16": lambda: top_k(half[asked], half, a.k, query_groups=groups[asked], database_groups=groups),
    }
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(a.repeats):
        for name, work in contenders.items():
            times[name].append(seconds(work))
    best = {name: min(values) for name, values in times.items()}
    baseline = best["plain product + top-k, float32"]
    exact = top_k(database[asked], database, a.k, query_groups=groups[asked], database_groups=groups)
    stored = top_k(half[asked], half, a.k, query_groups=groups[asked], database_groups=groups)
    overlap = float(np.mean([len(set(x) & set(y)) / a.k for x, y in zip(exact.ids, stored.ids, strict=True)]))
    result = {
        "inputs": vars(a),
        "seconds": best,
        "ratio_to_plain": {name: value / baseline for name, value in best.items()},
        "peak_mib": {name: peak_bytes(work) / 2**20 for name, work in contenders.items()},
        "float16_overlap_at_k": overlap,
        "own_group_in_plain_lists": float(
            (groups[plain_top_k(database[asked], database, a.k)] == groups[asked][:, None]).mean()
        ),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "threads": os.environ.get("OMP_NUM_THREADS"),
        },
        "versions": versions(),
    }
    for name, value in best.items():
        print(f"{name:<34} {value:7.3f} s   x{value / baseline:5.2f}   peak {result['peak_mib'][name]:6.0f} MiB")
    print(f"float16 overlap@{a.k}: {overlap:.4f}")
    write_json(RESULTS / "topk.json", result)


if __name__ == "__main__":
    main()
