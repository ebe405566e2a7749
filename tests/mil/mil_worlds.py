"""Bags with a known truth: digits, planted tiles, and tasks of them."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from histokin.mil.reading import BagSource
from histokin.mil.training import MilTask, Targets

CLASSES = ("none", "some")


def planted(
    n_bags: int = 40, *, n_tiles: int = 12, d: int = 8, n_planted: int = 2, shift: float = 3.0, seed: int = 0
) -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]:
    """Noise bags, of which every second holds planted tiles, shifted in half of the dimensions.

    Returns:
        Bags (n, d), (N,) truth, and the rows of the planted tiles of each.
    """
    rng = np.random.default_rng(seed)
    bags, rows = [], []
    for number in range(n_bags):
        n = int(rng.integers(max(2, n_tiles // 2), 2 * n_tiles - n_tiles // 2 + 1))
        bag = rng.normal(size=(n, d)).astype(np.float32)
        own = rng.choice(n, min(n_planted, n), replace=False) if number % 2 else np.zeros(0, dtype=np.int64)
        bag[own, : d // 2] += shift
        bags.append(bag)
        rows.append(own)
    return bags, np.arange(n_bags) % 2, rows


def task_of(bags: list[np.ndarray], truth: np.ndarray, *, slides_a_patient: int = 1, n_sites: int = 0) -> MilTask:
    """Slides s000, s001, ... of patients whose slides are alike in truth."""
    names = [f"s{number:03d}" for number in range(len(bags))]
    # Bags of one truth stand at every second place: patients join those of their own kind.
    patients = [f"p{number % 2}-{number // 2 // slides_a_patient}" for number in range(len(bags))]
    return MilTask.of(
        BagSource.of_arrays(bags, names),
        names,
        Targets.of_classes([CLASSES[code] for code in truth], CLASSES),
        patients=patients,
        sites=[f"site{number // 2 // slides_a_patient % n_sites}" for number in range(len(bags))] if n_sites else None,
    )


def digit_bags(n_bags: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Bags of about ten handwritten digits; positive where a 9 is among them. First and second half share no digit."""
    pixels, digit = load_digits(return_X_y=True)
    rng = np.random.default_rng(seed)
    halves = np.array_split(rng.permutation(len(digit)), 2)
    bags, truth = [], []
    for number in range(n_bags):
        pool = halves[2 * number // n_bags]
        is_positive = bool(rng.integers(2))
        rows = rng.choice(pool[digit[pool] != 9], max(2, int(rng.normal(10, 2))), replace=False)
        if is_positive:
            n_nines = int(rng.integers(1, 3))
            rows[:n_nines] = rng.choice(pool[digit[pool] == 9], n_nines, replace=False)
        bags.append((rng.permutation(pixels[rows]) / 16).astype(np.float32))
        truth.append(int(is_positive))
    return bags, np.array(truth)


def bytes_below(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
