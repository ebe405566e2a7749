"""An epoch of slide classification from the pack against one on bags in memory, and packed bags against padded ones.

    python benchmarks/bench_mil.py [--slides 40] [--tiles 5000] [--dim 512] [--rounds 3] [--threads 2]

Gated ABMIL at its defaults (512 wide, attention 256), AdamW, 8 slides a batch, all tiles. `pack` is what training
does: batches drawn from the memory-mapped float16 pack in a new order, read ahead by a thread and cast to float32;
`memory` has the same slides as ready float32 batches and does forward, backward and update alone. The ratio counts, not
the number of slides: 500 only take longer. The pack's pages are in the system's cache, as from the second epoch on.

Packed against padded: 8 slides of 500 to 20 000 tiles (log-normal). The padded form is what one would write: a
(B, N, D) tensor and a mask, all rows through the layers, the softmax masked.

Memory is what the process holds beyond its start while an epoch runs (anonymous pages, peak), with the pack at half and
at full size: it must not grow with the number of slides. Contenders alternate; the minimum over the rounds counts.
Writes benchmarks/results/mil.json and fails where a floor is missed.
"""

import argparse
import os
import platform
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from histokin.artefacts import versions, write_json
from histokin.embeddings import EmbeddingStore
from histokin.mil import Classes, PackedBags, build_model
from histokin.mil.models.abmil import Abmil
from histokin.mil.reading import BagSource, pack_stores, read_ahead, sampled_bags
from histokin.mil.training import MilSpec
from histokin.mil.training.optimisers import build_optimiser

RESULTS = Path(__file__).parent / "results"
CPU = torch.device("cpu")
BATCH = 8
# Floors: time of an epoch over that on bags in memory; time of padded over packed; memory at twice the slides.
MOST_OVER_MEMORY, LEAST_PADDED_OVER_PACKED, MOST_MEMORY_GROWTH = 1.15, 2.0, 1.25


class Learner:
    """A model that takes steps."""

    def __init__(self, dim: int) -> None:
        model = build_model("abmil", dim=dim, objective=Classes(2), seed=0)
        if not isinstance(model, Abmil):
            raise TypeError("the padded form below is ABMIL's")
        self.model = model.train()
        self._optimiser = build_optimiser(model, MilSpec())

    def step(self, loss: Tensor) -> None:
        loss.backward()
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)

    def epoch(self, batches: Iterable[PackedBags]) -> None:
        for bags in batches:
            self.step(self.model(bags, torch.arange(len(bags)) % 2).loss)

    def padded_logits(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, N, D) tiles and a mask, as one would write it."""
        h = self.model.embed(x)
        scores = self.model.attention(h).masked_fill(~mask[..., None], -torch.inf)
        return self.model.head((scores.softmax(1) * h).sum(1))


def write_store(folder: Path, slides: int, tiles: int, dim: int) -> EmbeddingStore:
    """Slides of random vectors in the form that TRIDENT writes, but contiguous and float16."""
    folder.mkdir()
    for number in range(slides):
        with h5py.File(folder / f"s{number:04d}.h5", "w") as file:
            file["features"] = (
                np.random.default_rng(number).standard_normal((tiles, dim), np.float32).astype(np.float16)
            )
            file["coords"] = np.zeros((tiles, 2), np.int64)
            file["features"].attrs.update({"encoder": "random", "name": "s", "savetodir": "."})
            file["coords"].attrs.update(
                {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40, "target_magnification": 20,
                 "overlap": 0, "name": "s", "savetodir": ".", "level0_width": 9, "level0_height": 9}
            )  # fmt: skip
    return EmbeddingStore(folder)


def drawn(source: BagSource, epoch: int) -> Iterable[PackedBags]:
    """The batches of an epoch from the pack."""
    draws = sampled_bags(
        source.lengths, np.arange(len(source)), n_bags=BATCH, max_tiles=65_536, tile_cap=2**40, seed=0, epoch=epoch
    )
    return (bags for _, bags in read_ahead(source, draws, CPU))


Times = dict[str, list[tuple[float, float]]]


def alternate(contenders: Mapping[str, Callable[[int], object]], rounds: int) -> Times:
    """Wall and processor seconds of each contender, round by round, after one that does not count."""
    taken: Times = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work(number)
            if number:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
    return taken


def ratios(taken: Times, above: str, below: str) -> tuple[float, float]:
    """Of the least wall and of the least processor time; the latter leaves out what waiting for others took."""
    wall, cpu = ({name: min(one[place] for one in each) for name, each in taken.items()} for place in (0, 1))
    return wall[above] / wall[below], cpu[above] / cpu[below]


def epochs(source: BagSource, rounds: int) -> dict[str, object]:
    """An epoch from the pack, and on bags in memory."""
    ready, learner = list(drawn(source, 0)), Learner(source.dim)
    taken = alternate(
        {"memory": lambda _: learner.epoch(ready), "pack": lambda epoch: learner.epoch(drawn(source, epoch))}, rounds
    )
    wall, cpu = ratios(taken, "pack", "memory")
    return {"wall_and_cpu_s_an_epoch": taken, "over_memory": wall, "cpu_over_memory": cpu}


def padded(dim: int, rounds: int) -> dict[str, object]:
    """Skewed slides packed and padded."""
    rng = np.random.default_rng(0)
    sizes = np.clip(np.exp(rng.normal(np.log(2500), 1.1, BATCH)), 500, 20_000).astype(int)
    sizes[0] = 20_000
    bags = PackedBags.of([torch.randn(int(n), dim, generator=torch.Generator().manual_seed(int(n))) for n in sizes])
    x, mask = bags.pad()
    learner, target = Learner(dim), torch.arange(BATCH) % 2
    loss = learner.model.objective.loss
    with torch.no_grad():
        learner.model.eval()
        gap = float((learner.model(bags).logits - learner.padded_logits(x, mask)).abs().max())
        learner.model.train()
    taken = alternate(
        {
            "packed": lambda _: learner.step(learner.model(bags, target).loss),
            "padded": lambda _: learner.step(loss(learner.padded_logits(x, mask), target)),
        },
        rounds,
    )
    wall, cpu = ratios(taken, "padded", "packed")
    return {
        "tiles": sizes.tolist(),
        "rows_padded_over_real": mask.numel() / int(sizes.sum()),
        "largest_difference_of_logits": gap,
        "wall_and_cpu_s_a_step": taken,
        "padded_over_packed": wall,
        "cpu_padded_over_packed": cpu,
    }


def held_bytes() -> int:
    """Anonymous memory of this process (Linux); pages of mapped files are the system's to take back."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that was held beyond the start while something ran."""
    start, peak, is_done = held_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_done.wait(0.005):
            peak = max(peak, held_bytes() - start)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    is_done.set()
    watcher.join()
    return peak


def memory(half: BagSource, full: BagSource) -> dict[str, object]:
    """Peak of an epoch of half the slides and of all."""
    learner = Learner(full.dim)
    learner.epoch(drawn(half, 0))  # the allocator has what it keeps
    start = held_bytes()
    peaks = [start + peak_bytes(lambda s=source: learner.epoch(drawn(s, 1))) for source in (half, full)]
    batch = BATCH * int(full.lengths.max()) * full.dim * 4
    return {
        "peak_bytes": {"half": peaks[0], "all": peaks[1]},
        "batch_bytes": batch,
        "slides_bytes": int(full.lengths.sum()) * full.dim * 4,
        "growth": peaks[1] / peaks[0],
    }


def missed(found: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The floors that were not met, in words."""
    floors = (
        ("over_memory", lambda v: v < MOST_OVER_MEMORY, f"of the time in memory, less than {MOST_OVER_MEMORY} asked"),
        (
            "padded_over_packed",
            lambda v: v >= LEAST_PADDED_OVER_PACKED,
            f"times as long padded, {LEAST_PADDED_OVER_PACKED} asked",
        ),
        (
            "growth",
            lambda v: v < MOST_MEMORY_GROWTH,
            f"of the memory at twice the slides, {MOST_MEMORY_GROWTH} allowed",
        ),
    )
    values = {name: value for each in found.values() for name, value in each.items()}
    return [f"{name}: {values[name]:.3f} {said}" for name, holds, said in floors if not holds(values[name])]


def main() -> None:
    """Measure, print, write, and fail if a floor is not met."""
    parser = argparse.ArgumentParser()
    for name, value in (("slides", 40), ("tiles", 5000), ("dim", 512), ("rounds", 3), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=value)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    load = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        full = pack_stores(folder / "pack", [write_store(folder / "store", a.slides, a.tiles, a.dim)])
        packed_in = time.perf_counter() - start
        half = pack_stores(folder / "half", [write_store(folder / "few", a.slides // 2, a.tiles, a.dim)])
        found = {"memory": memory(half, full), "epoch": epochs(full, a.rounds), "padded": padded(a.dim, a.rounds)}
    load.append(os.getloadavg()[0])
    for where, each in found.items():
        print(where, each)
    complaints = missed(found)
    write_json(
        RESULTS / "mil.json",
        {
            "inputs": vars(a),
            "found": found,
            "s_to_write_and_pack": packed_in,
            "floors": {
                "over_memory": MOST_OVER_MEMORY,
                "padded_over_packed": LEAST_PADDED_OVER_PACKED,
                "growth": MOST_MEMORY_GROWTH,
            },
            "missed": complaints,
            "load": load,
            "machine": {
                "cores": os.cpu_count(),
                "processor": platform.machine(),
                "threads": torch.get_num_threads(),
                "waiting": os.environ.get("OMP_WAIT_POLICY", "default"),
            },
            "versions": versions(),
        },
    )
    if complaints:
        raise SystemExit("\n".join(complaints))


if __name__ == "__main__":
    main()
