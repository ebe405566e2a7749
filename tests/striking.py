"""What a workspace looks like when the program is in the middle of each stage: where the kill tests strike."""

import time
from collections.abc import Callable
from pathlib import Path


def _count(folder: Path, pattern: str) -> int:
    return sum(1 for _ in folder.glob(pattern))


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _later(begun: Callable[[], bool], delay: float) -> Callable[[], bool]:
    """Whether it is `delay` seconds since `begun` was first seen true."""
    since: list[float] = []

    def reached() -> bool:
        if not since and begun():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= delay

    return reached


def striking_points(work: Path, n: int) -> dict[str, Callable[[], bool]]:
    """For each stage a test whether it has come to its `n`-th artefact (n from 1; later n strike later).

    Inventory and report have few files: they are struck at `n` moments after they begin.
    """
    return {
        "inventory": _later(lambda: True, 0.15 * n),
        "tiles": lambda: _count(work, "tiles/*/.receipts/*.json") >= n,
        "cache": lambda: _count(work, "cache/packs/*/.receipts/*.json") >= n,
        "pretrain": lambda: _lines(work / "runs/main/metrics.jsonl") >= 4 * n,
        "embed": lambda: _count(work, "embeddings/*/*/*.h5") >= 4 * n,
        "evaluate": lambda: _count(work, "evaluation/*/*") >= min(n, 3),
        "report": _later(lambda: _count(work, "evaluation/*/.receipts/*.json") >= 1, 0.1 * (n - 1)),
    }
