"""What the page of slide classifiers says, as plain data: the contract between `pipeline` and this room.

Rules as in `report.document`: texts are shown as they are (escaped), pictures are JPEG or PNG bytes, numbers are not
rounded. One classifier (train), several on the same folds (compare), or what trained ones say of new slides (predict)
are the same document with other parts filled.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

from histokin.report.comparison.document import ComparedMeasure
from histokin.report.document import Value
from histokin.report.evaluation.document import Confusion, PartLine, ReliabilityCurve

Kind = Literal["classes", "labels", "survival", "value"]
MapKind = Literal["percentile", "relative", "contribution", "tile"]


@dataclass(frozen=True, slots=True)
class SingleModels:
    """How single models scored, each of one seed and one inner split: what training's randomness does, no interval."""

    metric: str
    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Classifier:
    """One kind of classifier on one kind of features.

    Attributes:
        name: of its row.
        model: as in `histokin mil --model`.
        preset: default or faithful.
        encoder, fingerprint: of the features.
        n_folds, n_inner, n_seeds: outer folds, inner splits of each, and models of each split.
        single: how single models scored, by metric.
        epochs: that were chosen, of each model.
        temperatures: of each outer fold; [] where nothing was calibrated.
        settings: the training's, in full.
        notes: sentences on this classifier alone.
    """

    name: str
    model: str
    preset: str = "default"
    encoder: str = ""
    fingerprint: str = ""
    n_folds: int = 0
    n_inner: int = 0
    n_seeds: int = 0
    single: list[SingleModels] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    temperatures: list[float] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Figures over slides, or over patients.

    Attributes:
        unit: what is one row of the data.
        n, n_patients: how many were judged.
        measure: classifiers (kind `entry`), then floors, each with intervals and differences; chance beside.
        confusions: of classifiers.
    """

    unit: Literal["slide", "patient"]
    n: int
    n_patients: int
    measure: ComparedMeasure
    confusions: list[Confusion] = field(default_factory=list)

    def __post_init__(self) -> None:
        _check("Judgement", self.unit, ("slide", "patient"))


@dataclass(frozen=True, slots=True)
class ClassCurve:
    """One class against the rest, by one classifier.

    Attributes:
        row: the classifier's name.
        of: the class.
        n_positive, n: slides of the class, and all.
        roc: (false positive rate, recall) from (0, 0) to (1, 1).
        pr: (recall, precision), the corners of its steps by rising recall.
        roc_band, pr_band: (x, low, high) of a 95 % band at each x; [] where there is none.
        auc, ap: area under the first, mean precision of the second.
    """

    row: str
    of: str
    n_positive: int
    n: int
    roc: list[tuple[float, float]]
    pr: list[tuple[float, float]]
    auc: Value
    ap: Value
    roc_band: list[tuple[float, float, float]] = field(default_factory=list)
    pr_band: list[tuple[float, float, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether certainty is earned, before and after the temperature that inner splits gave."""

    row: str
    before: ReliabilityCurve
    after: ReliabilityCurve | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What was told of one slide while it was held out, or of a new one.

    Attributes:
        slide: its id.
        told: by output: probabilities, the risk or the value.
        truth: in words; "" where it is not known.
        said: in words; "" where no decision is made, as of survival.
        is_right: None where it cannot be said.
        patient, site: "" where unknown.
        fold: whose models told it; "" for new slides.
        n_tiles: of its bag.
        spread: standard deviation over the models of what was told of `said`; None of a single model.
        error: of values, how far from the truth; None otherwise.
    """

    slide: str
    told: dict[str, float]
    truth: str = ""
    said: str = ""
    is_right: bool | None = None
    patient: str = ""
    site: str = ""
    fold: str = ""
    n_tiles: int = 0
    spread: float | None = None
    error: float | None = None

    @property
    def surprise(self) -> float:
        """How far off: 1 - probability of the true class, a value's error, or else how unsure; larger is worse."""
        if self.error is not None:
            return self.error
        if self.truth in self.told:
            return 1 - self.told[self.truth]
        return 1 - max(self.told.values(), default=1.0)


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Tile values over a slide.

    Attributes:
        kind: percentile of attention, attention relative to uniform, signed contribution, or a tile's own probability.
        image: a PNG as high and wide as the thumbnail's picture of the slide, clear where there is no tile.
        low, high: values at the ends of its scale.
    """

    kind: MapKind
    image: bytes
    low: float
    high: float

    def __post_init__(self) -> None:
        _check("Heatmap", self.kind, ("percentile", "relative", "contribution", "tile"))


@dataclass(frozen=True, slots=True)
class SlideMaps:
    """One slide of the gallery.

    Attributes:
        prediction: what was told of it.
        thumbnail: JPEG or PNG of the whole slide.
        of: the class or output whose maps they are.
        maps: in the order in which they are shown.
        width, height: of the slide in level-0 px.
        mpp: um of a level-0 pixel; None where unknown.
        effective: exp(H) of attention, a number of tiles; None where the model has none.
        n_unplaced: tiles without a place, which the maps cannot show.
    """

    prediction: Prediction
    thumbnail: bytes
    of: str
    maps: list[Heatmap]
    width: int
    height: int
    mpp: float | None = None
    effective: float | None = None
    n_unplaced: int = 0


@dataclass(frozen=True, slots=True)
class SheetTile:
    """One tile of a contact sheet.

    Attributes:
        image: JPEG or PNG.
        slide, patient, truth: whose; "" where unknown.
        score: by which it was chosen.
        x, y: top-left, in level-0 px.
    """

    image: bytes
    slide: str
    score: float
    x: int = 0
    y: int = 0
    patient: str = ""
    truth: str = ""


@dataclass(frozen=True, slots=True)
class ContactSheet:
    """The tiles that spoke most for a class, and those that spoke most against it, best first.

    Attributes:
        of: the class or output.
        by: what the score is, such as "contribution to the logit".
        highest, lowest: places at least two tile widths apart.
    """

    of: str
    by: str
    highest: list[SheetTile]
    lowest: list[SheetTile] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Whether what a map calls important was: how far the probability falls without it, mean over slides.

    Attributes:
        row: the classifier's name.
        by: what the tiles were ranked by.
        n_slides, n_patients: over which is averaged.
        points: (share of tiles deleted, fall after the top ones, after random ones, the first minus the second).
    """

    row: str
    by: str
    n_slides: int
    n_patients: int
    points: list[tuple[float, Value, Value, Value]]


@dataclass(frozen=True, slots=True)
class MilDocument:
    """A whole page.

    Attributes:
        title, command: of the page; the command is shown so that it can be repeated.
        kind: of the target.
        target: its column.
        outputs: names of what is told: classes, labels, risk or value.
        classifiers: those compared, or the one trained.
        reference: name of the one that the others are held against, and whose slides are shown.
        counts: such as {"slides": 40, "patients": 38, "tiles": 82640}, in the order they are shown.
        prevalence: share of each class or label among the slides; {} for others.
        protocol: what was held out, and what was chosen on what; sentences.
        judgements: by slide and by patient; [] where no truth is known.
        per_class: recall, precision or AUC of the slides of one class.
        curves: of classes and labels.
        calibrations: of classes.
        predictions: one a slide and fold, of the reference.
        gallery, sheets, faithfulness: what the reference looked at.
        gallery_note: how its slides were chosen.
        warnings: what makes the figures doubtful.
        notes: what else a reader should know.
        created_with: versions by package.
        digests: fingerprints by what they are of.
    """

    title: str
    command: str
    kind: Kind
    target: str
    outputs: list[str]
    classifiers: list[Classifier]
    reference: str
    counts: dict[str, int]
    prevalence: dict[str, float] = field(default_factory=dict)
    protocol: list[str] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    per_class: list[PartLine] = field(default_factory=list)
    curves: list[ClassCurve] = field(default_factory=list)
    calibrations: list[Calibration] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    gallery: list[SlideMaps] = field(default_factory=list)
    sheets: list[ContactSheet] = field(default_factory=list)
    faithfulness: list[Faithfulness] = field(default_factory=list)
    gallery_note: str = ""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    created_with: dict[str, str] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check("MilDocument", self.kind, ("classes", "labels", "survival", "value"))
        names = [one.name for one in self.classifiers]
        if self.reference not in names or len(set(names)) != len(names):
            raise ValueError(f"MilDocument: reference {self.reference!r} must be one of the distinct names {names}")

    @property
    def is_comparison(self) -> bool:
        """Whether several classifiers stand side by side."""
        return len(self.classifiers) > 1


def _check(owner: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise ValueError(f"{owner}: unknown kind {given!r}, known are {', '.join(known)}")
