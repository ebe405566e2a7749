"""What the page of a comparison says, as plain data: the contract between `pipeline`, which fills it, and this room.

Rules as in `document`: texts are shown as they are (escaped), pictures are JPEG or PNG bytes, numbers are not rounded.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from histokin.report.document import Picture, Value


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """What one entry or floor reached.

    Attributes:
        name: as everywhere on the page.
        kind: entry or floor.
        values: by metric.
        minus: by metric and by the other row's name, this row minus that one on the same resampled clusters.
    """

    name: str
    kind: Literal["entry", "floor"]
    values: dict[str, Value]
    minus: dict[str, dict[str, Value]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ComparedMeasure:
    """One way of judging all rows.

    Attributes:
        name: such as "linear probe".
        protocol: everything needed to repeat it.
        warnings: sentences a reader must see beside the figures.
        metrics: those that are drawn; the first is the one that counts.
        chance: by metric; None where there is no such level.
        rows: entries, then floors.
    """

    name: str
    protocol: dict[str, Any]
    warnings: list[str]
    metrics: list[str]
    chance: dict[str, float | None]
    rows: list[ComparedRow]


@dataclass(frozen=True, slots=True)
class Lookup:
    """One tile asked, and by row (entries, then a floor) the tiles most like it, nearest first."""

    query: Picture
    answers: list[tuple[str, list[Picture]]]


@dataclass(frozen=True, slots=True)
class ComparedTask:
    """One task at one pixel size.

    Attributes:
        title: in headings.
        subject: the same for one task at several pixel sizes.
        mpp: the pixel size its entries were given; None as the workspace is tiled.
        kind: whether classes or values are predicted, or only distances held against places in tissue.
        column: what is predicted; "" for the workspace's own classes.
        leave_out: whose tiles neither answer nor are fitted on.
        only: conditions its tiles meet.
        n_tiles, n_judged: all of them, and those that meet the conditions.
        twins: by entry, the floor of random weights of its own architecture.
        measures: the first one's first metric carries the verdict.
        refusals: sentences on what could not be measured, and why.
        lookups: retrieval, drawn by the seed.
        lookup_note: how they were drawn, or why there are none.
        transductive: by entry, the share of the judged slides that it met in training, their labels unused; {} where
            that is not known.
    """

    title: str
    subject: str
    mpp: float | None
    kind: Literal["classes", "values", "places"]
    column: str
    leave_out: str
    only: list[str]
    n_tiles: int
    n_judged: int
    twins: dict[str, str]
    measures: list[ComparedMeasure]
    refusals: list[str] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    lookup_note: str = ""
    transductive: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ComparedEntry:
    """One training: what was asked for, and how it went.

    Attributes:
        name: of its row.
        recipe, settings, train, at_most, mpp, without, against: as in the plan; `train` in full.
        method: of the recipe.
        n_tiles: how many it learned from; None where that is not known.
        fingerprint: of the encoder.
        steps, views, batch: of its training.
        losses: (step, loss).
        looks: dicts with `step` and any of `rank`, `spread`, `nearest`.
        alarms: sentences; empty for a sound run.
        notes: what was done otherwise than asked.
        recipe_text: the recipe in full, as it was trained.
    """

    name: str
    recipe: str
    settings: list[str]
    train: list[str]
    at_most: int | None
    mpp: float | None
    without: list[str]
    against: list[str]
    method: str
    n_tiles: int | None
    fingerprint: str
    steps: int
    views: int
    batch: int
    losses: list[tuple[float, float]]
    looks: list[dict[str, float]]
    alarms: list[str]
    notes: list[str]
    recipe_text: str


@dataclass(frozen=True, slots=True)
class ComparisonDocument:
    """A whole comparison.

    Attributes:
        title, command: of the page; the command is shown so that it can be repeated.
        budget: the settings that all recipes share.
        seed: of training, sampling and bootstrap.
        plan_text: the plan as YAML.
        created_with: versions by package.
        entries, tasks: in the order of the plan.
    """

    title: str
    command: str
    budget: list[str]
    seed: int
    plan_text: str
    created_with: dict[str, str]
    entries: list[ComparedEntry]
    tasks: list[ComparedTask]
