"""What the page of an evaluation says, as plain data: the contract between `pipeline`, which fills it, and this room.

Rules as in `report.document`: texts are shown as they are (escaped), pictures are JPEG or PNG bytes, numbers are not
rounded. Rows are encoders (kind `entry`), then floors.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from histokin.report.comparison.document import ComparedMeasure, Lookup
from histokin.report.document import MapSection, Value


@dataclass(frozen=True, slots=True)
class StoreCard:
    """One encoder that was evaluated.

    Attributes:
        name: of its row.
        writer: histokin, CLAM, TRIDENT, STAMP or torchmil.
        n_slides, n_tiles, width: vectors of how many slides and tiles, and their length.
        dtype: of the stored vectors.
        fingerprint: of the encoder, as far as the store names it.
    """

    name: str
    writer: str
    n_slides: int
    n_tiles: int
    width: int
    dtype: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class PartLine:
    """One metric of one row over the queries of one class, or of one held-out group.

    Attributes:
        row: the encoder's or floor's name.
        part: the class, patient, section or site.
        metric: such as acc@1 or recall.
        value: with its interval where there is one.
        n: queries (tiles or slides) in this part.
        n_patients: they belong to; None where it is not counted.
        chance: None where there is no such level.
    """

    row: str
    part: str
    metric: str
    value: Value
    n: int
    n_patients: int | None = None
    chance: float | None = None


@dataclass(frozen=True, slots=True)
class Confusion:
    """What was said of each class.

    Attributes:
        row: the encoder's name.
        how: such as "majority of the 5 nearest" or "linear probe".
        classes: in order.
        counts: [true class][said class]; one column more than classes where nothing could be said ("none").
    """

    row: str
    how: str
    classes: list[str]
    counts: list[list[int]]


@dataclass(frozen=True, slots=True)
class ReliabilityCurve:
    """Whether certainty is earned.

    Attributes:
        row: the encoder's name.
        bins: (mean certainty, share right, n) of each bin that holds any.
        ece, ace, brier, nll: as measured; None where not known.
        tempered_ece: after the temperature that was fitted on inner folds; None without.
        temperature: mean over folds; None without.
    """

    row: str
    bins: list[tuple[float, float, int]]
    ece: float | None
    ace: float | None
    brier: float | None
    nll: float | None
    tempered_ece: float | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True)
class ShotCurve:
    """Few-shot figures of one row: (shots, median, 5 %, 95 % of the episodes)."""

    row: str
    kind: Literal["entry", "floor"]
    points: list[tuple[int, float, float, float]]


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number without an interval, side by side: label-free quality, leaks.

    Attributes:
        name: of it.
        meaning: how it is read, in words.
        values: by row; None where it could not be computed.
    """

    name: str
    meaning: str
    values: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Chapter:
    """One protocol on tiles or slides.

    Attributes:
        protocol: its name on the command line.
        title: in headings, such as "Tiles: linear probe of label".
        question: what it asks, in one sentence.
        caution: what it cannot show, in one sentence.
        level: what an item is.
        column: what is predicted or must be shared; "" where nothing is.
        counts: such as {"queries": 812, "patients": 40, "classes": 8}, in the order they are shown.
        prevalence: share of each class among the queries; {} for values.
        measures: tables with intervals, chance and paired differences.
        per_class, per_group: by class, and by what was held out.
        confusions, reliability: of encoders, not of floors.
        shots: few-shot curves; `shots_chance` their chance level.
        quantities: numbers without intervals.
        controls: sentences on the negative controls.
        notes: sentences a reader must see beside the figures.
        lookups: retrieval in pictures, drawn by the seed; `lookup_note` how, or why there are none.
        twins: by encoder, the floor of random weights of its own architecture; {} where there is none.
    """

    protocol: str
    title: str
    question: str
    caution: str
    level: Literal["tile", "slide"]
    column: str
    counts: dict[str, int]
    prevalence: dict[str, float] = field(default_factory=dict)
    measures: list[ComparedMeasure] = field(default_factory=list)
    per_class: list[PartLine] = field(default_factory=list)
    per_group: list[PartLine] = field(default_factory=list)
    confusions: list[Confusion] = field(default_factory=list)
    reliability: list[ReliabilityCurve] = field(default_factory=list)
    shots: list[ShotCurve] = field(default_factory=list)
    shots_chance: float | None = None
    quantities: list[Quantity] = field(default_factory=list)
    controls: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lookups: list[Lookup] = field(default_factory=list)
    lookup_note: str = ""
    twins: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EvaluationDocument:
    """A whole evaluation.

    Attributes:
        title, command: of the page; the command is shown so that it can be repeated.
        seed: of sampling, bootstrap and permutations.
        leave_out: whose items neither answer nor are fitted on.
        reference: the encoder that the others are compared with.
        stores: one an encoder.
        counts: such as {"slides": 40, "patients": 40, "tiles": 8264}, in the order they are shown.
        floors: names of the floors, in order; [] where there are none, and then `notes` say why.
        chapters: in the order of the registry.
        refusals: (protocol, sentence) of what could not be measured, and why.
        maps: an embedding map by encoder.
        notes: sentences on the whole: patients unknown, slides without embeddings, transductive figures.
        created_with: versions by package.
        more: what else is needed to repeat it, for the page's last section.
    """

    title: str
    command: str
    seed: int
    leave_out: str
    reference: str
    stores: list[StoreCard]
    counts: dict[str, int]
    floors: list[str]
    chapters: list[Chapter]
    refusals: list[tuple[str, str]] = field(default_factory=list)
    maps: list[tuple[str, MapSection]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    created_with: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
