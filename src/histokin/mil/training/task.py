"""`MilTask`: which bags are learned from and judged, whose they are, and what is to be told of them."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histokin.artefacts import digest_of
from histokin.errors import TrainingError
from histokin.evaluate.splits import SplitItems
from histokin.mil.reading import BagSource
from histokin.mil.training.targets import Targets


@dataclass(frozen=True, slots=True, eq=False)
class MilTask:
    """N slides with their bags and targets.

    Attributes:
        source: of the bags.
        items: ids, patients, sites and what is kept together; their label is the target's stratum.
        targets: of the slides.
        bags: (N,) int64 numbers in the source.
    """

    source: BagSource
    items: SplitItems
    targets: Targets
    bags: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        source: BagSource,
        slides: Sequence[str],
        targets: Targets,
        *,
        patients: Sequence[str] | None = None,
        sites: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        pictures: Sequence[str] | None = None,
    ) -> "MilTask":
        """The task of labelled slides.

        Args:
            source: of their bags; it may hold others.
            slides: (N,) ids.
            targets: of the slides.
            patients: (N,) whose; each slide its own if None.
            sites: (N,) where scanned.
            groups: (N,) what stays together, such as the cohort's leave-out units; the patients if None.
            pictures: (N,) ids of the slides' contents.

        Raises:
            TrainingError: a slide stands there twice, with one label or two, or has no bag.
        """
        if len(slides) != len(targets):
            raise ValueError(f"{len(slides)} slides for {len(targets)} targets")
        _refuse_repeated(slides, targets)
        items = SplitItems.of(
            slide=slides,
            patient=slides if patients is None else patients,
            label=targets.strata,
            site=sites,
            group=groups,
            picture=pictures,
        )
        return cls(source, items, targets, source.numbers(slides))

    def __len__(self) -> int:
        return len(self.bags)

    def digest(self, rows: NDArray[np.int64]) -> str:
        """Identity of some slides' ids and targets."""
        return digest_of([self.items.slide[rows], self.targets.kind, self.targets.names, self.targets.values[rows]])


def _refuse_repeated(slides: Sequence[str], targets: Targets) -> None:
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, slide in enumerate(slides):
        rows_of[slide].append(row)
    for slide, rows in rows_of.items():
        if len(rows) == 1:
            continue
        said = dict.fromkeys(targets.strata[rows].tolist())
        if targets.kind not in ("classes", "labels"):
            said = dict.fromkeys(str(value) for value in targets.values[rows].tolist())
        what = f"has {len(said)} labels: {', '.join(said)}" if len(said) > 1 else "stands there twice"
        raise TrainingError(f"slide {slide} {what}", "labels", "Keep one row a slide.")
