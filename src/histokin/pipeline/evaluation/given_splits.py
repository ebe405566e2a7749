"""Splits that a user brings, and those that a probe used: CLAM's files in and out."""

import re
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np

from histokin.errors import EvaluationError
from histokin.evaluate.splits import (
    SplitItems,
    SplitTable,
    import_clam_splits,
    parse_clam_split,
    splits_from_csv,
)
from histokin.pipeline.evaluation.columns import Columns


def read_splits(path: Path, slides: Columns) -> SplitTable:
    """The splits of a folder with CLAM's `splits_0.csv`, `splits_1.csv`, ..., or of one CSV of our own.

    Raises:
        EvaluationError: there are none, a slide is unknown, or a patient (a picture) stands in two parts.
    """
    if path.is_file():
        return splits_from_csv(path.read_text(encoding="utf-8-sig"))
    numbered = {
        int(found[1]): file for file in path.glob("*.csv") if (found := re.match(r"splits_(\d+)\.csv$", file.name))
    }
    if not numbered:
        raise EvaluationError(
            "there is no splits_0.csv", path, "Name the folder of CLAM's splits, or a CSV with item, part and fold."
        )
    items = SplitItems.of(slide=slides.slide, patient=slides.patient, site=slides.site, picture=slides.picture)
    return import_clam_splits([parse_clam_split(numbered[n].read_text("utf-8-sig")) for n in sorted(numbered)], items)


def clam_files(slides: Sequence[str], fold: np.ndarray) -> dict[str, list[dict[str, str]]]:
    """Folds as rows of the files that CLAM reads: every fold tested once, trained on all others, without validation.

    Args:
        slides: (n,) names.
        fold: (n,) 0..F-1.
    """
    files = {}
    for number in range(int(fold.max()) + 1):
        parts = (
            [s for s, f in zip(slides, fold, strict=True) if (f == number) == is_test] for is_test in (False, True)
        )
        rows = enumerate(zip_longest(*parts, fillvalue=""))
        files[f"splits/splits_{number}.csv"] = [
            {"": str(row), "train": train, "val": "", "test": test} for row, (train, test) in rows
        ]
    return files
