"""Golden cases and the formula-made set F1 (no library's random numbers)."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from histokin.evaluate import Items

MASK = 2**64 - 1


def sm64(x: int) -> int:
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
    return z ^ z >> 31


def uniform(seed: int, i: int) -> float:
    return (sm64((seed << 32) + i) >> 11) / 2**53


def gaussian(seed: int, i: int) -> float:
    return math.sqrt(3) * (sum(uniform(seed, 4 * i + j) for j in range(4)) - 2)


@dataclass(frozen=True)
class F1:
    x: np.ndarray
    label: np.ndarray
    patient: np.ndarray
    slide: np.ndarray
    site: np.ndarray

    @property
    def items(self) -> Items:
        return Items.of(
            [f"c{v}" for v in self.label],
            [f"p{v:02d}" for v in self.patient],
            [f"s{v:02d}" for v in self.slide],
            [f"h{v}" for v in self.site],
        )


@pytest.fixture(scope="session")
def f1() -> F1:
    n, d = 240, 16
    row = np.arange(n)
    label = np.array([int(4 * uniform(11, i)) for i in range(n)])
    patient, slide = row // 10, row // 5
    site = patient % 3
    cls, place, who = label.tolist(), site.tolist(), patient.tolist()  # Python's whole numbers know no overflow
    x = np.array(
        [
            [
                0.6 * gaussian(21, 16 * cls[i] + j)
                + 0.4 * gaussian(22, 16 * place[i] + j)
                + 0.7 * gaussian(23, 16 * who[i] + j)
                + gaussian(24, 16 * i + j)
                for j in range(d)
            ]
            for i in range(n)
        ]
    )
    return F1(x, label, patient, slide, site)


@pytest.fixture(scope="session")
def golden() -> dict[str, dict[str, Any]]:
    path = Path(__file__).with_name("golden_evaluation.json")
    return {case["id"]: case for case in json.loads(path.read_text())["cases"]}


@pytest.fixture(scope="session")
def draws() -> np.ndarray:
    """(999, 24) patients of the golden bootstrap."""
    return np.array([[int(24 * uniform(31, 24 * b + j)) for j in range(24)] for b in range(999)])
