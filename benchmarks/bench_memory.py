"""Peak memory of the stages that read slides, on a 20,000 px slide against a 5,000 px one: it must not grow.

Each stage runs as a process of its own; the figure is the ratio of their peak resident sizes (floor: 1.2 at most).
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from histokin.slides.generated import GeneratedSlideSpec, render_slide, write_pyramid

LIMIT = 1.2
SIDES = (5_000, 20_000)
RESULTS = Path(__file__).parent / "results"


class Mirrored:
    """A rendered slide mirrored into a larger one; rows are made when they are asked for."""

    def __init__(self, tile: np.ndarray, side: int) -> None:
        self._tile = np.concatenate([tile, tile[:, ::-1]], axis=1)
        self.shape = (side, side, 3)

    def __getitem__(self, rows: slice) -> np.ndarray:
        period = 2 * len(self._tile)
        index = np.arange(rows.start or 0, min(rows.stop or self.shape[0], self.shape[0])) % period
        index = np.where(index < len(self._tile), index, period - 1 - index)
        columns = np.arange(self.shape[1]) % self._tile.shape[1]
        return self._tile[index][:, columns]


def peak_mb(*arguments: object) -> float:
    """Peak resident size of one program run, MB."""
    # VmHWM and not ru_maxrss: the latter starts at the size of the process that forked.
    code = "import sys; from histokin.cli import run\ntry:\n run()\nfinally:\n"
    code += " print('PEAK', open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    return int(done.stderr.rsplit("PEAK", 1)[1]) / 1024


def measure(folder: Path, side: int, tissue: np.ndarray) -> dict[str, float]:
    """Peaks of each stage on a slide of this size."""
    slide, work = folder / f"s{side}.tiff", folder / f"w{side}"
    write_pyramid(slide, Mirrored(tissue, side), mpp=0.5)
    stages: Sequence[tuple[str, tuple[object, ...]]] = (
        ("info", ("info", slide)),
        ("tile", ("tile", slide, "--out", work)),
        ("embed", ("embed", work, "--encoder", "random:resnet10t")),
        ("pretrain", ("pretrain", work, "--steps", 5, "--set", "run.batch=16")),
    )
    return {name: peak_mb(*arguments) for name, arguments in stages}


def main() -> None:
    """Measure, print, write JSON, and fail if the floor is not met."""
    tissue = render_slide(GeneratedSlideSpec(width=2048, height=2048, seed=1)).rgb
    with tempfile.TemporaryDirectory() as folder:
        peaks = {side: measure(Path(folder), side, tissue) for side in SIDES}
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    small, large = (peaks[side] for side in SIDES)
    ratios = {stage: large[stage] / small[stage] for stage in small}
    for stage, ratio in ratios.items():
        print(f"{stage:<9} {small[stage]:7.0f} MB -> {large[stage]:7.0f} MB  ratio {ratio:.3f}")
    print(f"(writing the slides here took at most {own:.0f} MB)")
    RESULTS.mkdir(exist_ok=True)
    record = {"sides_px": SIDES, "peak_mb": peaks, "ratios": ratios, "limit": LIMIT, "cores": os.cpu_count()}
    (RESULTS / "memory.json").write_text(json.dumps(record, indent=1) + "\n")
    worst = max(ratios.values())
    if worst > LIMIT:
        raise SystemExit(f"peak memory grows by {worst:.2f}, more than {LIMIT}")


if __name__ == "__main__":
    main()
