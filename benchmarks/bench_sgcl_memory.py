"""Memory of SGCL over a million tiles: it must grow with banks and neighbours only, that of a step not at all.

    python benchmarks/bench_sgcl_memory.py [--tiles 100000 1000000] [--steps 3]

Tiles lie on 200 slides; their pixels are one grey. Projections of 128, embeddings of 512 numbers, sets from cluster
lists and a pool (loss.exact=false). Each N runs in a process of its own, whose peak resident size is set back before
each phase: building the method, the first step (which makes the cluster lists), further steps. Banks and neighbours are
counted by their bytes. The clusters are few and drawn at random, so that every list is as long as a step may look at.
A k-means clustering is timed on a tenth of the largest N, and the whole refit estimated from it: centroids are looked
for among 256 points a cluster, 20 times, then all tiles are assigned.
Writes benchmarks/results/sgcl_memory.json and fails where a limit is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from histokin.artefacts import versions, write_json
from histokin.learn import override, read_recipe, resolve_recipe
from histokin.learn.distributed import World
from histokin.learn.methods import METHODS
from histokin.learn.methods.sgcl import SGCL
from histokin.learn.pixels import Places
from histokin.learn.state import ClusterState
from histokin.learn.steps import Setting, new_state, train_step
from histokin.learn.trainer import shares_of
from histokin.streams import seed64, stream

RESULTS = Path(__file__).parent / "results"
SLIDES, PX, PITCH_UM, CLUSTERS = 200, 32, 100.0, 16
# Freed memory goes back at once: what is resident is what is in use.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
# By how much a step's peak may grow from the smallest N to the largest (noise), and the bytes a tile that building may
# take beside its state: neighbours are found in blocks, with about 100 bytes a tile and the result twice.
MOST_STEP_MB, MOST_BYTES_A_TILE = 16.0, 100.0
SETTINGS = [
    "precision=fp32",
    "backbone.name=resnet10t",
    "backbone.args={channels: [8, 8, 16, 512], stem_width: 8, layers: [1, 1, 1, 1]}",
    "views.train_px=32",
    "views.local.px=16",
    "projector.out=128",
    "loss.exact=false",
    "run.batch=64",
    "run.steps=1000",
]


class GreyTiles:
    """Tiles on a square lattice of each slide; every pixel is the same grey."""

    px = field_px = PX
    mpp, mpps, cohort_mpps, digest, labels = 1.0, (1.0,), (1.0,), "grey", None

    def __init__(self, n: int) -> None:
        a_slide = -(-n // SLIDES)
        across = int(np.ceil(np.sqrt(a_slide)))
        number = np.arange(n) % a_slide
        self.slides = np.arange(n) // a_slide
        self.cohorts = np.zeros(n, np.int8)
        self.places = Places(
            np.stack([number % across, number // across], 1) * PITCH_UM, np.full(len(number), PITCH_UM)
        )

    def __len__(self) -> int:
        return len(self.slides)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(B,) int64 rows to (B, 32, 32, 3) uint8."""
        return np.full((len(rows), PX, PX, 3), 170, np.uint8)


def memory_mb() -> tuple[float, float]:
    """Resident size of this process, and its peak since it was last set back."""
    status = Path("/proc/self/status").read_text()
    return tuple(int(status.split(f"{name}:")[1].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))  # pyright: ignore[reportReturnType]


def phase(work: Callable[[], object]) -> dict[str, float]:
    """What a piece of work takes: MB at its peak above before, MB that stay, seconds."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what it is now
    before, start = memory_mb()[0], time.perf_counter()
    work()
    after, peak = memory_mb()
    return {"peak_mb": peak - before, "kept_mb": after - before, "seconds": time.perf_counter() - start}


def bytes_of(method: SGCL) -> dict[str, float]:
    """MB of the state that grows with N."""
    banks = [method.bank, method.backbone_bank, *method.quadrant_banks]
    return {
        "banks": sum(b.nbytes for bank in banks for b in bank.buffers()) / 2**20,
        "neighbours": (method.indptr.nbytes + method.indices.nbytes) / 2**20,
        "labels": method.clusters.labels.nbytes / 2**20,
    }


def measure(n: int, steps: int) -> dict[str, object]:
    """All phases at one N, in this process."""
    torch.set_num_threads(2)
    cpu, source = torch.device("cpu"), GreyTiles(n)
    recipe = resolve_recipe(override(read_recipe("sgcl"), SETTINGS), PX, n, cpu)
    setting = Setting(recipe, cpu, PX)
    new_state(setting, GreyTiles(3200))  # what torch and timm load once, whatever N
    held = []
    building = phase(lambda: held.append(new_state(setting, source)))
    (state,) = held
    method = state.method
    if not isinstance(method, SGCL):
        raise TypeError(type(method).__name__)
    drawn = stream(0, "labels").integers(0, CLUSTERS, n, dtype=np.int32)
    method.clusters.labels.copy_(torch.from_numpy(drawn))
    method.clusters.is_fitted.fill_(value=True)
    shares = shares_of(METHODS["sgcl"].sampler(source, recipe), range(steps + 1), World())

    def step() -> None:
        share = next(shares)
        train_step(state, share, source.read(share.rows), setting)

    first = phase(step)  # makes the cluster lists and the order of the epoch
    later = [phase(step) for _ in range(steps)]
    return {
        "n": n,
        "state_mb": bytes_of(method),
        "building": building,
        "first_step": first,
        "later_steps": later,
        "step_peak_mb": max(each["peak_mb"] for each in later),
    }


def refit(n: int) -> dict[str, object]:
    """One of the three clusterings of n projections into as many clusters as a million tiles get."""
    torch.set_num_threads(2)
    clusters = 1000
    x = torch.from_numpy(stream(0, "projections").standard_normal((n, 128), dtype=np.float32)).half()
    state = ClusterState(1, clusters, n, 128)
    found = phase(lambda: state.fit(x, [seed64(0, "clusters")]))
    return {"n": n, "clusters": clusters, "clusterings": 1, "iterations": 20, **found}


def refit_estimate(fit: dict[str, object], n: int) -> float:
    """Seconds of all three clusterings at n tiles, by how many vectors are looked at how often."""

    def looked_at(rows: int) -> int:
        return 20 * min(rows, 256 * 1000) + rows

    return 3 * float(fit["seconds"]) * looked_at(n) / looked_at(int(fit["n"]))  # pyright: ignore[reportArgumentType]


def in_a_process(*arguments: object, allocator: dict[str, str]) -> dict[str, object]:
    """One measurement in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)],
        env={**os.environ, **allocator},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def missed(small: dict[str, object], large: dict[str, object]) -> list[str]:
    """Limits that were not kept, in words."""
    complaints = []
    grown = float(large["step_peak_mb"]) - float(small["step_peak_mb"])  # pyright: ignore[reportArgumentType]
    if grown > MOST_STEP_MB:
        complaints.append(f"a step takes {grown:.0f} MB more at {large['n']} tiles, at most {MOST_STEP_MB:.0f} allowed")
    beside = bytes_beside(small, large)
    if beside > MOST_BYTES_A_TILE:
        complaints.append(f"building takes {beside:.0f} bytes a tile beside its state, {MOST_BYTES_A_TILE:.0f} allowed")
    return complaints


def bytes_beside(small: dict[str, object], large: dict[str, object]) -> float:
    """By how much the peak of building grows with a tile, beyond banks, labels and the neighbours twice."""

    def own(found: dict[str, object]) -> float:
        state: dict[str, float] = found["state_mb"]  # pyright: ignore[reportAssignmentType]
        building: dict[str, float] = found["building"]  # pyright: ignore[reportAssignmentType]
        return building["peak_mb"] - sum(state.values()) - state["neighbours"]

    n_more = int(large["n"]) - int(small["n"])  # pyright: ignore[reportArgumentType]
    return (own(large) - own(small)) * 2**20 / n_more


def main() -> None:
    """Measure, print, write, and fail if a limit is not kept."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiles", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--one", type=int, help="measure one N in this process")
    parser.add_argument("--refit", type=int, help="measure a refit over so many rows in this process")
    a = parser.parse_args()
    if a.one or a.refit:
        print(json.dumps(measure(a.one, a.steps) if a.one else refit(a.refit)))
        return
    found = [in_a_process("--one", n, "--steps", a.steps, allocator=ALLOCATOR) for n in sorted(a.tiles)]
    fit = in_a_process("--refit", max(a.tiles) // 10, allocator={})  # for its time
    for each in found:
        state: dict[str, float] = each["state_mb"]  # pyright: ignore[reportAssignmentType]
        building: dict[str, float] = each["building"]  # pyright: ignore[reportAssignmentType]
        print(
            f"{each['n']:>9} tiles: state {sum(state.values()):6.0f} MB, building peaks at "
            f"{building['peak_mb']:6.0f} MB in {building['seconds']:5.1f} s, a step at {each['step_peak_mb']:5.0f} MB"
        )
    whole = refit_estimate(fit, max(a.tiles))
    print(
        f"one clustering of {fit['n']} rows: {fit['seconds']:.1f} s, {fit['peak_mb']:.0f} MB; "
        f"so all three of {max(a.tiles)}: about {whole:.0f} s, once an epoch"
    )
    complaints = missed(found[0], found[-1])
    result = {
        "inputs": vars(a),
        "settings": SETTINGS,
        "found": found,
        "refit": fit,
        "refit_s_at_largest_estimated": whole,
        "bytes_a_tile_beside_state": bytes_beside(found[0], found[-1]),
        "limits": {"step_mb": MOST_STEP_MB, "bytes_a_tile": MOST_BYTES_A_TILE},
        "missed": complaints,
        "load": os.getloadavg()[0],
        "machine": {"cores": os.cpu_count(), "threads": 2},
        "versions": versions(),
    }
    write_json(RESULTS / "sgcl_memory.json", result)
    if complaints:
        raise SystemExit("\n".join(complaints))


if __name__ == "__main__":
    main()
